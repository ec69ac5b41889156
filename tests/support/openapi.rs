//! Checks requests and responses by the descriptions of the APIs: IoT Central (`OpenAPI` 3.0), the service and device APIs
//! of DPS and its certificates in Resource Manager (`OpenAPI` 2.0).
//!
//! The check is stricter than the descriptions: fields and query parameters that they do not list are errors, so that a
//! misspelt one is found.
#![allow(dead_code, reason = "each test uses its part")]

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";

const PREVIEW: &str = "2022-10-31-preview";

/// The names of list parameters in 2022-07-31 and in the preview version.
const LIST_PARAMETERS: [(&str, &str); 3] = [("$top", "maxpagesize"), ("$filter", "filter"), ("$orderby", "orderby")];

/// The description of an API.
pub(crate) struct OpenApi {
    document: Value,
    /// The schema of the errors to requests that are not described.
    error: &'static str,
}

/// The operation of a method and path.
struct Described<'a> {
    template: String,
    operation: &'a Value,
    /// The names and values of the path parameters.
    values: Vec<(String, String)>,
}

/// The direction of a message. A request has no read-only fields.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Request,
    Response,
}

impl OpenApi {
    /// Loads the description of IoT Central 2022-07-31.
    pub(crate) fn load() -> Self {
        let read = |text| serde_json::from_str::<Value>(text).expect("the description is JSON");
        let mut all = read(include_str!("../../fixtures/iotcentral-2022-07-31.openapi.json"));
        for more in [
            include_str!("../../fixtures/iotcentral-2022-07-31-templates.openapi.json"),
            include_str!("../../fixtures/iotcentral-2022-07-31-commands.openapi.json"),
        ] {
            let more = read(more);
            for part in ["/paths", "/components/parameters", "/components/schemas"] {
                let members = more.pointer(part).and_then(Value::as_object).expect(part).clone();
                all.pointer_mut(part).and_then(Value::as_object_mut).expect(part).extend(members);
            }
        }
        Self { document: all, error: "Error" }
    }

    /// Loads the description of the service API of DPS 2021-10-01.
    pub(crate) fn dps_service() -> Self {
        let text = include_str!("../../fixtures/dps-service-2021-10-01.openapi.json");
        Self { document: upgrade(text), error: "ProvisioningServiceErrorDetails" }
    }

    /// Loads the description of the device API of DPS 2021-10-01.
    pub(crate) fn dps_device() -> Self {
        let text = include_str!("../../fixtures/dps-device-2021-10-01.openapi.json");
        Self { document: upgrade(text), error: "ProvisioningServiceErrorDetails" }
    }

    /// Loads the description of the device API of DPS 2026-11-01, which issues certificates.
    pub(crate) fn dps_device_issuing() -> Self {
        let text = include_str!("../../fixtures/dps-device-2026-11-01.openapi.json");
        Self { document: upgrade(text), error: "ProvisioningServiceErrorDetails" }
    }

    /// Loads the description of the DPS certificates in Resource Manager 2026-11-01.
    pub(crate) fn arm() -> Self {
        let text = include_str!("../../fixtures/dps-arm-2026-11-01.openapi.json");
        Self { document: upgrade(text), error: "ArmError" }
    }

    /// Checks that a request has the headers that the API requires.
    pub(crate) fn check_headers(&self, method: &str, path: &str, names: &[&str]) -> Result<(), String> {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let parameters = self.parameters(self.operation(method, path)?.operation);
        let mut required = parameters.iter().filter(|it| it["in"] == "header" && it["required"] == true);
        let is_missing = |name: &str| !names.iter().any(|given| given.eq_ignore_ascii_case(name));
        match required.find(|parameter| parameter["name"].as_str().is_some_and(is_missing)) {
            Some(parameter) => Err(format!("{method} {path} needs the header {}", parameter["name"])),
            None => Ok(()),
        }
    }

    /// Checks that the API has this request. The path may start with `/api`.
    pub(crate) fn check_request(
        &self,
        method: &str,
        path_and_query: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(), String> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let Described { template, operation, values } = self.operation(method, path)?;
        let parameters = self.parameters(operation);
        for (name, value) in values {
            let parameter = find(&parameters, "path", &name).ok_or(format!("{template} does not describe {name}"))?;
            self.check_parameter(parameter, &value)?;
        }
        let query: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        let preview = query.iter().any(|(name, value)| name == "api-version" && value == PREVIEW);
        if !preview && (template.starts_with("/deploymentManifests") || template.ends_with("applyDeploymentManifest")) {
            return Err(format!("{template} is of the preview version only"));
        }
        for (name, value) in &query {
            let described = LIST_PARAMETERS.iter().find(|(old, new)| name == if preview { new } else { old });
            if described.is_none() && LIST_PARAMETERS.iter().any(|(old, new)| name == old || name == new) {
                return Err(format!("{name} is of another version"));
            }
            match find(&parameters, "query", described.map_or(name, |(old, _)| old)) {
                Some(parameter) => self.check_parameter(parameter, value)?,
                // A part of nextLink, which is opaque.
                None if name == "$skiptoken" => {}
                None => return Err(format!("{method} {template} has no query parameter {name}")),
            }
        }
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap_or_default();
            if parameter["in"] == "query" && parameter["required"] == true && !query.iter().any(|(key, _)| key == name)
            {
                return Err(format!("{method} {template} needs the query parameter {name}"));
            }
        }
        let content = &operation["requestBody"]["content"];
        if content.is_null() {
            return if body.is_empty() { Ok(()) } else { Err(format!("{method} {template} has no body")) };
        }
        let schema = schema_of(content, content_type)?;
        let body = parse(body)?;
        if !preview && template.starts_with("/devices/") && template.ends_with('}') && !body["type"].is_null() {
            return Err("a device's type is of the preview version only".to_owned());
        }
        // The description does not describe merge patches: they have the fields of the resource, each optional or null.
        if schema["$ref"] == json!(format!("{SCHEMAS}MergePatch")) {
            let whole =
                &self.document["paths"][&template]["put"]["requestBody"]["content"]["application/json"]["schema"];
            return self.validate(whole, Direction::Request, true, &body);
        }
        self.validate(schema, Direction::Request, false, &body)
    }

    /// Checks that the API has this response to the request.
    pub(crate) fn check_response(
        &self,
        method: &str,
        path: &str,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(), String> {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let Described { template, operation, .. } = match self.operation(method, path) {
            // Errors of undescribed requests have the same form.
            Err(_) if matches!(status, 404 | 405) => {
                let schema = json!({ "$ref": format!("{SCHEMAS}{}", self.error) });
                return self.validate(&schema, Direction::Response, false, &parse(body)?);
            }
            found => found?,
        };
        let responses = &operation["responses"];
        let described = match responses.get(status.to_string()) {
            Some(response) => response,
            None if (200..300).contains(&status) && !responses["2XX"].is_null() => &responses["2XX"],
            None if status >= 400 => &responses["default"],
            None => return Err(format!("{method} {template} does not answer {status}")),
        };
        let content = &described["content"];
        if content.is_null() {
            return if body.is_empty() { Ok(()) } else { Err(format!("{status} to {method} {template} has no body")) };
        }
        let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|it| it.1);
        self.validate(schema_of(content, content_type)?, Direction::Response, false, &parse(body)?)
    }

    fn operation(&self, method: &str, path: &str) -> Result<Described<'_>, String> {
        let path = path.strip_prefix("/api").unwrap_or(path);
        let segments: Vec<_> = path.split('/').collect();
        let paths = self.document["paths"].as_object().expect("paths");
        let (template, item, values) = paths
            .iter()
            .find_map(|(template, item)| Some((template, item, captures(template, &segments)?)))
            .ok_or(format!("{path} is not a path of the API"))?;
        let operation = item.get(method.to_lowercase()).ok_or(format!("{template} has no method {method}"))?;
        Ok(Described { template: template.clone(), operation, values })
    }

    fn parameters(&self, operation: &Value) -> Vec<Value> {
        let listed = operation["parameters"].as_array().cloned().unwrap_or_default();
        listed
            .into_iter()
            .map(|parameter| match parameter["$ref"].as_str() {
                Some(reference) => self.document.pointer(&reference[1..]).cloned().expect("a parameter"),
                None => parameter,
            })
            .collect()
    }

    fn check_parameter(&self, parameter: &Value, text: &str) -> Result<(), String> {
        let schema = &parameter["schema"];
        let number = (schema["type"] == "integer").then(|| text.parse::<i64>().ok()).flatten();
        let value = number.map_or_else(|| json!(text), |number| json!(number));
        self.validate(schema, Direction::Request, false, &value)
            .map_err(|problem| format!("parameter {}: {problem}", parameter["name"]))
    }

    fn validate(&self, schema: &Value, direction: Direction, partial: bool, instance: &Value) -> Result<(), String> {
        let convert = |schema: &Value| convert(schema, direction, partial);
        let all = self.document["components"]["schemas"].as_object().expect("schemas");
        let all: Map<_, _> = all.iter().map(|(name, schema)| (name.clone(), convert(schema))).collect();
        // References in a schema are JSON pointers from its root.
        let root = json!({ "allOf": [convert(schema)], "components": { "schemas": all } });
        let validator: Validator =
            jsonschema::options().with_draft(Draft::Draft7).build(&root).map_err(|error| error.to_string())?;
        let problems: Vec<_> = validator
            .iter_errors(instance)
            .map(|error| format!("{error} at {:?}", error.instance_path().to_string()))
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

/// Converts an `OpenAPI` 2.0 description to the parts of `OpenAPI` 3.0 that the checks use.
fn upgrade(text: &str) -> Value {
    let renamed = text.replace("#/definitions/", SCHEMAS);
    let old: Value = serde_json::from_str(&renamed).expect("the description is JSON");
    let definitions = old["definitions"].as_object().expect("definitions");
    let schemas: Map<_, _> =
        definitions.iter().map(|(name, schema)| (name.clone(), flatten(schema, definitions))).collect();
    let mut paths = old["paths"].clone();
    for operation in paths.as_object_mut().into_iter().flatten().filter_map(|(_, item)| item.as_object_mut()).flatten()
    {
        let operation = operation.1;
        let content = |schema: &Value| json!({ "application/json": { "schema": schema } });
        let (body, others): (Vec<_>, Vec<_>) =
            operation["parameters"].as_array().expect("parameters").iter().cloned().partition(|it| it["in"] == "body");
        let others: Vec<_> = others
            .into_iter()
            .map(|mut parameter| {
                parameter["schema"] = json!({ "type": parameter["type"] });
                parameter
            })
            .collect();
        operation["parameters"] = json!(others);
        if let Some(body) = body.first() {
            operation["requestBody"] = json!({ "content": content(&body["schema"]) });
        }
        for (_, response) in operation["responses"].as_object_mut().expect("responses") {
            if !response["schema"].is_null() {
                response["content"] = content(&response["schema"]);
            }
        }
    }
    json!({ "paths": paths, "components": { "schemas": schemas } })
}

/// Merges the parts of an `allOf` into one schema, since [`convert`] closes each.
fn flatten(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
    let mut merged = json!({ "type": "object", "properties": {}, "required": [] });
    for part in parts {
        let part = match part["$ref"].as_str().and_then(|reference| reference.strip_prefix(SCHEMAS)) {
            Some(name) => flatten(&definitions[name], definitions),
            None => part.clone(),
        };
        if let (Some(all), Some(own)) = (merged["properties"].as_object_mut(), part["properties"].as_object()) {
            all.extend(own.clone());
        }
        if let (Some(all), Some(own)) = (merged["required"].as_array_mut(), part["required"].as_array()) {
            all.extend(own.clone());
        }
    }
    merged
}

/// Converts an `OpenAPI` 3.0 schema to JSON Schema draft 7: `nullable` becomes a type, and unknown properties are
/// errors.
fn convert(schema: &Value, direction: Direction, partial: bool) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut result: Map<String, Value> = fields.clone();
    let nullable = result.remove("nullable") == Some(Value::Bool(true));
    if let Some(Value::Object(properties)) = fields.get("properties") {
        let read_only = |name: &str| direction == Direction::Request && properties[name]["readOnly"] == true;
        let converted: Map<_, _> = properties
            .iter()
            .map(|(name, property)| {
                let converted = if read_only(name) {
                    Value::Bool(false)
                } else if partial {
                    json!({ "anyOf": [convert(property, direction, partial), { "type": "null" }] })
                } else {
                    convert(property, direction, partial)
                };
                (name.clone(), converted)
            })
            .collect();
        result.insert("properties".to_owned(), Value::Object(converted));
        result.entry("additionalProperties").or_insert(Value::Bool(false));
        if partial {
            result.remove("required");
        } else if let Some(Value::Array(required)) = result.get_mut("required") {
            required.retain(|name| !read_only(name.as_str().unwrap_or_default()));
        }
    }
    if let Some(items) = result.get_mut("items") {
        *items = convert(items, direction, partial);
    }
    let result = Value::Object(result);
    if nullable { json!({ "anyOf": [result, { "type": "null" }] }) } else { result }
}

fn captures(template: &str, segments: &[&str]) -> Option<Vec<(String, String)>> {
    let template: Vec<_> = template.split('/').collect();
    if template.len() != segments.len() {
        return None;
    }
    let mut values = Vec::new();
    for (expected, found) in template.into_iter().zip(segments) {
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => values.push((name.to_owned(), decode(found))),
            None if expected == *found => {}
            None => return None,
        }
    }
    Some(values)
}

fn find<'a>(parameters: &'a [Value], place: &str, name: &str) -> Option<&'a Value> {
    parameters.iter().find(|parameter| parameter["in"] == place && parameter["name"] == name)
}

fn schema_of<'a>(content: &'a Value, content_type: Option<&str>) -> Result<&'a Value, String> {
    let kind = content_type.ok_or("there is no content type")?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    content.get(kind).map(|described| &described["schema"]).ok_or(format!("{kind} is not among its content types"))
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (decode(name), decode(value))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
