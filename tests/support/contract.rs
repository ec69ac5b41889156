//! Holds answers to the API description in fixtures/.

use std::sync::LazyLock;

use serde_json::{Value, json};

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    let mut description: Value =
        serde_json::from_str(include_str!("../../fixtures/iotcentral-2022-07-31.openapi.json"))
            .expect("the description is JSON");
    // Answers hold what is described and nothing else.
    for schema in description["components"]["schemas"].as_object_mut().expect("schemas").values_mut() {
        close(schema);
    }
    description
});

fn close(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    properties.values_mut().for_each(close);
    if schema.get("additionalProperties").is_none() {
        schema["additionalProperties"] = json!(false);
    }
}

/// Panics unless the operation may give this answer. `path` is below `/api` and without the query.
pub(crate) fn check(method: &str, path: &str, status: u16, error_code: Option<&str>, body: &str) {
    let schema = if status < 400 {
        let responses = &operation(method, path)["responses"];
        let class = format!("{}XX", status / 100);
        let response = responses.get(status.to_string()).or_else(|| responses.get(class));
        let response = response.unwrap_or_else(|| panic!("{method} {path} must not answer {status}: {responses}"));
        assert_eq!(error_code, None, "a success has no error code");
        response.pointer("/content/application~1json/schema").cloned()
    } else {
        Some(json!({ "$ref": "#/components/schemas/Error" }))
    };
    let Some(mut schema) = schema else {
        assert_eq!(body, "", "{method} {path} {status} has no body");
        return;
    };
    schema["components"] = DESCRIPTION["components"].clone();
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}"));
    let validator = jsonschema::validator_for(&schema).expect("the description is a schema");
    let errors: Vec<String> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{method} {path} {status}: {errors:?}: {body}");
    if status >= 400 {
        let error = &body["error"];
        assert_eq!(error["code"].as_str(), error_code, "x-ms-error-code repeats the code");
        assert!(error["requestId"].is_string(), "{error}");
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        time::PrimitiveDateTime::parse(error["time"].as_str().expect("a time"), format).expect("an RFC 1123 date");
    }
}

fn operation(method: &str, path: &str) -> &'static Value {
    // The article asks for devices there.
    let path = if path == "/deviceTemplates" { "/devices" } else { path };
    let fits = |template: &str| {
        let (mut found, mut expected) = (path.split('/'), template.split('/'));
        loop {
            match (found.next(), expected.next()) {
                (None, None) => return true,
                (Some(found), Some(expected)) if expected.starts_with('{') || found == expected => {}
                _ => return false,
            }
        }
    };
    let paths = DESCRIPTION["paths"].as_object().expect("paths");
    let (_, operations) = paths.iter().find(|(template, _)| fits(template)).expect("a path of the description");
    operations.get(method.to_ascii_lowercase()).expect("a method of the description")
}
