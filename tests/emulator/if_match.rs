//! `If-Match` on resources with and without an etag.

use crate::support::app::{Answer, App, Authority, VERSION, symmetric_group, x509_group};
use serde_json::{Value, json};

async fn call(app: &App, method: &str, path: &str, if_match: &str, body: Option<&Value>) -> Answer {
    let mut request = app.request(method, &format!("{path}?{VERSION}")).header("If-Match", if_match);
    if let Some(body) = body {
        request = request.header("Content-Type", "application/json").body(body.to_string());
    }
    app.send(request).await
}

#[tokio::test]
async fn if_match_is_honored_by_everything_with_an_etag() {
    let app = App::start().await;
    let root = Authority::new("Root");
    app.enrolled(&root).await;
    let certificate = json!({ "certificate": root.base64() });
    let group = json!({ "displayName": "", "filter": "SELECT * FROM devices" });
    let template = json!({ "@type": ["DeviceModel"], "capabilityModel": {} });
    for (path, body) in [
        ("/devices/d", json!({ "displayName": "D" })),
        ("/deviceGroups/g", group),
        ("/deviceTemplates/dtmi:a;1", template),
        ("/enrollmentGroups/e", symmetric_group()),
        ("/enrollmentGroups/g/certificates/secondary", json!({ "certificate": Authority::new("Other").base64() })),
        ("/enrollmentGroups/g/certificates/primary", certificate),
    ] {
        app.delete(path).await;
        // Nothing matches a missing resource, and none is created.
        for any in ["*", "\"AAAA\""] {
            call(&app, "PUT", path, any, Some(&body)).await.refused(412, "the resource does not exist");
        }
        app.get(path).await.expect(404);
        let first = app.put(path, &body).await.expect(200).text("/etag");
        let second = call(&app, "PUT", path, &format!("\"{first}\""), Some(&body)).await.expect(200).text("/etag");
        for stale in [first.clone(), format!("\"{first}\""), format!("W/\"{second}\""), "\"AAAA\", x".to_owned()] {
            call(&app, "PUT", path, &stale, Some(&body))
                .await
                .refused(412, "If-Match does not match: the resource has changed");
            call(&app, "GET", path, &stale, None).await.expect(412);
            call(&app, "DELETE", path, &stale, None).await.expect(412);
        }
        assert_eq!(app.get(path).await.expect(200).text("/etag"), second, "a refused call changes nothing");
        let mut current = second;
        if !path.contains("/certificates/") {
            call(&app, "PATCH", path, &first, Some(&json!({}))).await.expect(412);
            current = call(&app, "PATCH", path, &current, Some(&json!({}))).await.expect(200).text("/etag");
        }
        // The header and the etag in the body must both match.
        let mut stale = body.clone();
        stale["etag"] = json!(first);
        call(&app, "PUT", path, "*", Some(&stale)).await.refused(412, "etag");
        call(&app, "GET", path, &format!("\"x\" , \"{current}\""), None).await.expect(200);
        call(&app, "DELETE", path, &current, None).await.expect(204);
        call(&app, "DELETE", path, "*", None).await.expect(404);
    }
}

#[tokio::test]
async fn if_match_is_refused_without_an_etag() {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    app.put("/devices/d", &json!({})).await.expect(200);
    let keys = json!({ "type": "symmetricKey" });
    for (method, path, body) in [
        ("GET", "/devices", None),
        ("GET", "/deviceGroups", None),
        ("GET", "/deviceTemplates", None),
        ("GET", "/enrollmentGroups", None),
        ("GET", "/devices/d/credentials", None),
        ("PUT", "/devices/d/attestation", Some(&keys)),
        ("DELETE", "/devices/d/attestation", None),
        ("POST", "/enrollmentGroups/g/certificates/primary/generateVerificationCode", None),
    ] {
        call(&app, method, path, "*", body).await.refused(400, "If-Match is not supported");
    }
    app.get("/devices/d/attestation").await.expect(404);
    for unreadable in ["", " , "] {
        call(&app, "PUT", "/devices/d", unreadable, Some(&json!({})))
            .await
            .refused(400, "neither * nor a list of etags");
    }
}
