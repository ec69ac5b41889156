//! The enrollment section of the how-to article, line by line, by plain HTTP.
#![cfg(feature = "emulator")]

#[path = "support/app.rs"]
mod app;

use app::{App, Authority, VERSION};
use iot_enroll::certificate::Certificate;
use serde_json::json;

#[tokio::test]
async fn every_call_of_the_article_works_in_its_order() {
    let app = App::start().await;
    let root = Authority::new("mytestrootcert");
    let thumbprint = Certificate::read(root.pem.as_bytes()).expect("a certificate").sha1_thumbprint().to_string();

    // Add an X.509 enrollment group.
    let group = app
        .put(
            "/enrollmentGroups/myx509eg",
            &json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "x509" } }),
        )
        .await
        .expect(200);
    assert_eq!(
        group.body,
        json!({
            "id": "myx509eg", "displayName": "My group", "enabled": true, "type": "iot",
            "attestation": { "type": "x509", "x509": { "signingCertificates": {} } },
            "etag": group.body["etag"],
        })
    );

    // Add an X.509 certificate to it.
    let path = "/enrollmentGroups/myx509eg/certificates/primary";
    let set = app.put(path, &json!({ "verified": false, "certificate": root.base64() })).await.expect(200);
    assert_eq!(
        set.body,
        json!({ "verified": false, "info": { "sha1Thumbprint": thumbprint }, "etag": set.body["etag"] })
    );

    // Generate a verification code, issue the verification certificate, verify.
    let code = app.code(path).await;
    app.verify(path, &root.proof(&code)).await.expect(204);

    // Get the X.509 certificate.
    let shown = app.get(path).await.expect(200);
    assert_eq!(
        shown.body,
        json!({ "verified": true, "info": { "sha1Thumbprint": thumbprint }, "etag": shown.body["etag"] })
    );
    let group = app.get("/enrollmentGroups/myx509eg").await.expect(200);
    assert_eq!(group.body["attestation"]["x509"]["signingCertificates"], json!({ "primary": shown.body }));

    // Delete it from the group.
    app.delete(path).await.expect(204);
    app.get(path).await.expect(404);

    // Get a group with symmetric keys.
    app.put(
        "/enrollmentGroups/mysymmetric",
        &json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "symmetricKey" } }),
    )
    .await
    .expect(200);
    let keys = app.get("/enrollmentGroups/mysymmetric").await.expect(200);
    assert_eq!(keys.body["attestation"]["symmetricKey"].as_object().expect("keys").len(), 2);

    // Update the group. The article's body has a comma too many, which is not JSON.
    let patched = app.patch("/enrollmentGroups/myx509eg", &json!({ "displayName": "My new group name" })).await;
    assert_eq!(patched.expect(200).body["displayName"], "My new group name");
    let article = app
        .request("PATCH", &format!("/enrollmentGroups/myx509eg?{VERSION}"))
        .header("Content-Type", app::MERGE_PATCH)
        .body("{\n  \"displayName\": \"My new group name\",\n}");
    app.send(article).await.refused(400, "not JSON");

    // List the groups, delete the group.
    let ids = |answer: &app::Answer| -> Vec<_> {
        answer.body["value"].as_array().expect("groups").iter().map(|group| group["id"].clone()).collect()
    };
    assert_eq!(ids(&app.get("/enrollmentGroups").await.expect(200)), ["mysymmetric", "myx509eg"]);
    app.delete("/enrollmentGroups/myx509eg").await.expect(204);
    assert_eq!(ids(&app.get("/enrollmentGroups").await.expect(200)), ["mysymmetric"]);
}
