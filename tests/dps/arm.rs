//! The client of Resource Manager: finding an instance, its certificates and the chain of their etags, its policies.

use std::sync::Arc;

use crate::support::{
    clock::ManualClock,
    openapi::OpenApi,
    server::{Reply, Server},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    arm::{
        AccessRight, Authorization, Certificates, Client, ClientBuilder, DpsCertificateName, Endpoint, Error, Etag,
        FindError, Instance, InstanceId, InstanceQuery, Possession, SubscriptionId,
    },
    certificate::Certificate,
    dps::service,
};
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000000a";
const OTHER: &str = "00000000-0000-0000-0000-00000000000b";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn builder(server: &Server) -> ClientBuilder {
    Client::builder(server.url().parse().expect("an endpoint"))
        .authorization(Authorization::parse("Bearer arm-token").expect("a token"))
        .clock(ManualClock::new() as Arc<_>)
}

fn scripted(script: impl IntoIterator<Item = Reply>) -> (Server, Client) {
    let server = Server::start(script);
    let client = builder(&server).build().expect("a client");
    (server, client)
}

fn id() -> InstanceId {
    path(SUBSCRIPTION, "lab", "contoso-dps").parse().expect("an id")
}

fn path(subscription: &str, group: &str, name: &str) -> String {
    // Resource Manager varies the case of its own words.
    format!(
        "/subscriptions/{subscription}/resourcegroups/{group}/providers/microsoft.devices/ProvisioningServices/{name}"
    )
}

fn instance(client: &Client) -> Instance {
    client.instance(&id())
}

fn certificates(script: impl IntoIterator<Item = Reply>) -> (Server, Certificates) {
    let (server, client) = scripted(script);
    let certificates = instance(&client).certificates();
    (server, certificates)
}

fn name() -> DpsCertificateName {
    "root-2026".parse().expect("a name")
}

fn root() -> Certificate {
    Certificate::read(include_bytes!("../../fixtures/authorities/ec-sec1_cert.pem")).expect("a certificate")
}

fn etag(text: &str) -> Etag {
    Etag::new(text)
}

/// The envelope of Resource Manager.
fn refused(status: u16, code: &str) -> Reply {
    Reply::json(status, &json!({ "error": { "code": code, "message": "said" } }))
}

fn resource(subscription: &str, group: &str, name: &str) -> Value {
    json!({
        "id": path(subscription, group, name),
        "name": name,
        "type": "Microsoft.Devices/provisioningServices",
        "location": "westeurope",
        "etag": "AAAAAAExpNs=",
        "tags": {},
        "sku": { "name": "S1", "capacity": 1 },
        "properties": {
            "state": "Active",
            "provisioningState": "Succeeded",
            "iotHubs": [{
                "name": "h.azure-devices.net", "location": "westeurope", "allocationWeight": 1,
                "connectionString": "HostName=h.azure-devices.net;SharedAccessKeyName=o;SharedAccessKey=****",
            }],
            "allocationPolicy": "Hashed",
            "serviceOperationsHostName": format!("{name}.azure-devices-provisioning.net"),
            "deviceProvisioningHostName": "global.azure-devices-provisioning.net",
            "idScope": "0ne00A1B2C3",
            "disableLocalAuth": true,
        },
    })
}

fn subscriptions() -> Reply {
    let all = [SUBSCRIPTION, OTHER].map(|id| json!({ "subscriptionId": id, "displayName": "n", "state": "Enabled" }));
    Reply::json(200, &json!({ "value": all }))
}

fn list(resources: &[Value]) -> Reply {
    Reply::json(200, &json!({ "value": resources }))
}

fn certificate(etag: &str, verified: bool) -> Value {
    json!({
        "id": format!("{}/certificates/root-2026", path(SUBSCRIPTION, "lab", "contoso-dps")),
        "name": "Root-2026",
        "type": "Microsoft.Devices/ProvisioningServices/Certificates",
        "etag": etag,
        "properties": {
            "subject": "CN=root",
            "expiry": "Sat, 31 Oct 2026 20:42:33 GMT",
            "thumbprint": root().sha1_thumbprint().to_string(),
            "isVerified": verified,
            "certificate": BASE64_STANDARD.encode(root().to_pem()),
            "created": "Thu, 12 Oct 2017 19:23:50 GMT",
            "updated": "Thu, 12 Oct 2017 19:23:50 GMT",
        },
    })
}

fn code(etag: &str, code: &str) -> Value {
    let mut answer = certificate(etag, false);
    answer["properties"]["verificationCode"] = json!(code);
    answer
}

/// Every request is one that the API description has.
#[track_caller]
fn assert_described(server: &Server) {
    let description = OpenApi::arm();
    for request in server.requests() {
        let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        let (method, target) = (request.method.as_str(), request.target.as_str());
        assert_eq!(description.check_headers(method, target, &names), Ok(()));
        let held = description.check_request(method, target, request.header("content-type"), &request.body);
        assert_eq!(held, Ok(()), "{method} {target}");
    }
}

// --- Finding ---------------------------------------------------------------------------------------------------------------

fn query() -> InstanceQuery {
    InstanceQuery::new("Contoso-DPS".parse().expect("a name"))
}

#[tokio::test]
async fn an_instance_is_found_in_any_visible_subscription() {
    let server = Server::start([subscriptions()]);
    let next = format!("{}/subscriptions/{SUBSCRIPTION}/next?api-version=2022-12-12&skip=1", server.url());
    let first = json!({ "value": [resource(SUBSCRIPTION, "lab", "fabrikam")], "nextLink": next });
    // The searches run concurrently, so each answer fits both.
    server.then(Reply::json(200, &first));
    server.then(list(&[]));
    server.then(list(&[resource(SUBSCRIPTION, "lab", "contoso-dps")]));
    let found = builder(&server).build().expect("a client").find(&query()).await.expect("the instance");
    assert_eq!(found.id, id());
    assert_eq!((found.id_scope.as_str(), found.is_active(), found.disable_local_auth), ("0ne00A1B2C3", true, true));
    assert_eq!(found.service_endpoint.as_str(), "https://contoso-dps.azure-devices-provisioning.net");
    assert_eq!(found.device_endpoint.as_str(), "https://global.azure-devices-provisioning.net");
    assert_eq!(found.iot_hubs.iter().map(|hub| hub.host_name.as_str()).collect::<Vec<_>>(), ["h.azure-devices.net"]);
    assert_eq!(found.allocation_policy, Some(service::AllocationPolicy::Hashed));
    assert!(server.requests().iter().all(|request| request.header("authorization") == Some("Bearer arm-token")));
    let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets.iter().filter(|target| target.contains("/next?")).count(), 1, "{targets:?}");
    let searched =
        format!("/subscriptions/{OTHER}/providers/Microsoft.Devices/provisioningServices?api-version=2022-12-12");
    assert!(targets.contains(&searched), "{targets:?}");
}

#[tokio::test]
async fn a_link_to_another_host_is_not_followed() {
    let elsewhere = json!({ "value": [], "nextLink": "https://example.com/subscriptions" });
    let (server, client) = scripted([Reply::json(200, &elsewhere)]);
    let error = client.find(&query()).await.expect_err("refused");
    assert!(matches!(error, FindError::Call(Error::NextLink { .. })), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_search_tells_none_several_and_not_visible_apart() {
    let (_server, client) = scripted([Reply::json(200, &json!({ "value": [] }))]);
    assert!(matches!(client.find(&query()).await, Err(FindError::NoSubscription)));

    let (_server, client) = scripted([subscriptions(), list(&[resource(OTHER, "lab", "fabrikam")]), list(&[])]);
    let error = client.find(&query()).await.expect_err("none");
    assert!(matches!(error, FindError::NotFound { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Contoso-DPS") && text.contains("fabrikam") && text.contains("2 subscriptions"), "{text}");

    let both = list(&[resource(SUBSCRIPTION, "lab", "contoso-dps"), resource(SUBSCRIPTION, "prod", "contoso-dps")]);
    let (_server, client) = scripted([subscriptions(), both, list(&[])]);
    let error = client.find(&query()).await.expect_err("several");
    let FindError::Several { found, .. } = &error else { panic!("{error}") };
    assert_eq!(found.iter().map(|id| id.resource_group.as_str()).collect::<Vec<_>>(), ["lab", "prod"]);
    assert!(error.to_string().contains("/resourceGroups/prod/"), "{error}");

    let twice = list(&[resource(OTHER, "lab", "contoso-dps"), resource(OTHER, "LAB", "contoso-dps")]);
    let (_server, client) = scripted([subscriptions(), twice, list(&[])]);
    client.find(&query()).await.expect("one instance on two pages");

    let (_server, client) = scripted([subscriptions(), refused(403, "AuthorizationFailed"), list(&[])]);
    let error = client.find(&query()).await.expect_err("none that is visible");
    let FindError::NotFound { unreadable, .. } = &error else { panic!("{error}") };
    assert_eq!(unreadable.len(), 1);

    let narrow = query().subscription("00000000-0000-0000-0000-00000000000A".parse::<SubscriptionId>().expect("an id"));
    for (status, code) in [(403, "AuthorizationFailed"), (404, "SubscriptionNotFound")] {
        let (server, client) = scripted([refused(status, code)]);
        let error = client.find(&narrow).await.expect_err("not visible");
        assert!(matches!(error, FindError::NotVisible { .. }) && error.to_string().contains(code), "{error}");
        assert_eq!(server.requests().len(), 1, "other subscriptions are not listed");
    }
}

#[tokio::test]
async fn in_a_resource_group_the_instance_is_read() {
    let narrow = query()
        .subscription(SUBSCRIPTION.parse::<SubscriptionId>().expect("an id"))
        .resource_group(id().resource_group);
    let (server, client) = scripted([
        Reply::json(200, &resource(SUBSCRIPTION, "lab", "contoso-dps")),
        refused(404, "ResourceNotFound"),
        refused(404, "ResourceGroupNotFound"),
    ]);
    assert_eq!(client.find(&narrow).await.expect("the instance").id, id());
    assert!(
        server.log()[0].ends_with("/resourceGroups/lab/providers/Microsoft.Devices/provisioningServices/Contoso-DPS")
    );
    assert!(matches!(client.find(&narrow).await, Err(FindError::NotFound { .. })));
    let error = client.find(&narrow).await.expect_err("no such group");
    assert!(matches!(error, FindError::NotVisible { .. }) && error.to_string().contains("lab"), "{error}");
    assert_described(&server);
}

#[tokio::test]
async fn whether_local_authentication_is_off_is_read_with_a_version_that_tells() {
    let mut old = resource(SUBSCRIPTION, "lab", "contoso-dps");
    old["properties"].as_object_mut().expect("an object").remove("disableLocalAuth");
    let new = Reply::json(200, &resource(SUBSCRIPTION, "lab", "contoso-dps"));
    let (server, client) = scripted([Reply::json(200, &old), new]);
    assert!(instance(&client).get().await.expect("the instance").disable_local_auth);
    assert!(server.requests()[1].target.ends_with("?api-version=2026-11-01"));

    let (_server, client) = scripted([Reply::json(200, &old), refused(400, "NoRegisteredProviderFound")]);
    assert!(!instance(&client).get().await.expect("the instance").disable_local_auth);
}

#[tokio::test]
async fn hosts_of_an_emulator_are_reached_as_it_is() {
    let mut emulated = resource(SUBSCRIPTION, "lab", "contoso-dps");
    emulated["properties"]["serviceOperationsHostName"] = json!("127.0.0.1:5000");
    emulated["properties"]["deviceProvisioningHostName"] = json!("localhost:5000");
    let (_server, client) = scripted([Reply::json(200, &emulated)]);
    let found = instance(&client).get().await.expect("the instance");
    assert_eq!(found.service_endpoint.as_str(), "http://127.0.0.1:5000");
    assert_eq!(found.device_endpoint.as_str(), "http://localhost:5000");
}

#[test]
fn names_follow_their_rules() {
    assert_eq!(name(), "ROOT-2026".parse().expect("a name"));
    for bad in ["", ".", "..", "a b", "a/b", "a:b", "ä", &"x".repeat(65)] {
        assert!(bad.parse::<DpsCertificateName>().is_err(), "{bad}");
    }
    for bad in ["contoso", "00000000-0000-0000-0000-0000000000", "0000000-00000-0000-0000-000000000001", ""] {
        assert!(bad.parse::<SubscriptionId>().is_err(), "{bad}");
    }
    for bad in ["", "/subscriptions/x", &path("not-a-subscription", "lab", "n"), &path(SUBSCRIPTION, "lab", "../n")] {
        assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
    }
    assert_eq!(id(), id().to_string().parse().expect("its own text"));
    assert_eq!(Endpoint::default().entra_scope(), iot_enroll::arm::ENTRA_SCOPE);
    assert!("http://management.azure.com".parse::<Endpoint>().is_err());
}

// --- Certificates ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn each_step_names_the_etag_of_the_step_before() {
    let (server, certificates) = certificates([
        refused(404, "CertificateNotFound"),
        Reply::json(200, &certificate("\"e1\"", false)),
        Reply::json(200, &code("\"e2\"", "C0DE")),
        Reply::json(200, &certificate("\"e3\"", true)),
        Reply::no_content(),
    ]);
    let uploaded = certificates.set(&name(), &root(), Possession::ToBeProven, None).await.expect("uploaded");
    assert_eq!((uploaded.name.as_str(), uploaded.is_verified), ("Root-2026", false));
    assert_eq!(uploaded.certificate().as_ref().map(Certificate::der), Some(root().der()), "the body is read back");
    assert!(uploaded.is(&root()));
    assert_eq!(uploaded.expires_at.expect("a time").to_string(), "2026-10-31T20:42:33Z");
    let code = certificates.generate_verification_code(&name(), &uploaded.etag).await.expect("a code");
    assert_eq!((code.code.as_str(), code.etag.as_str()), ("C0DE", "\"e2\""));
    let verified = certificates.verify(&name(), &root(), &code.etag).await.expect("verified");
    assert!(verified.is_verified);
    certificates.delete(&name(), &verified.etag).await.expect("deleted");

    let requests = server.requests();
    let sent: Vec<_> = requests.iter().map(|it| it.header("if-match")).collect();
    assert_eq!(sent, [None, None, Some("\"e1\""), Some("\"e2\""), Some("\"e3\"")]);
    let der = BASE64_STANDARD.encode(root().der());
    assert_eq!(requests[1].json(), json!({ "properties": { "certificate": der } }));
    assert_eq!((requests[2].header("content-length"), requests[2].body.len()), (Some("0"), 0));
    assert_eq!(requests[3].json(), json!({ "certificate": der }));
    assert!(requests[3].target.ends_with("/certificates/root-2026/verify?api-version=2022-12-12"));
    assert_described(&server);
}

#[tokio::test]
async fn an_upload_replaces_only_with_an_etag() {
    let (server, existing) = certificates([Reply::json(200, &certificate("e1", true))]);
    let error = existing.set(&name(), &root(), Possession::ToBeProven, None).await.expect_err("it exists");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(server.requests().len(), 1, "nothing was written");

    // Another client creates it after the check.
    let (_server, raced) = certificates([refused(404, "CertificateNotFound"), refused(412, "PreconditionFailed")]);
    let error = raced.set(&name(), &root(), Possession::ToBeProven, None).await.expect_err("it exists");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");

    let (server, replaced) = certificates([Reply::json(200, &certificate("e2", true))]);
    replaced.set(&name(), &root(), Possession::Attested, Some(&etag("e1"))).await.expect("replaced");
    let request = &server.requests()[0];
    assert_eq!((request.header("if-match"), &request.json()["properties"]["isVerified"]), (Some("e1"), &json!(true)));

    let (_server, stale) = certificates([refused(412, "PreconditionFailed")]);
    let error = stale.set(&name(), &root(), Possession::Attested, Some(&etag("e0"))).await.expect_err("stale");
    assert_eq!((error.status(), error.code()), (Some(412), Some("PreconditionFailed")));
}

#[tokio::test]
async fn an_upload_that_stores_another_certificate_is_an_error() {
    let other =
        Certificate::read(include_bytes!("../../fixtures/authorities/ec-pkcs8_cert.pem")).expect("a certificate");
    let mut by_thumbprint = certificate("e2", true);
    by_thumbprint["properties"]["certificate"] = Value::Null;
    let mut renamed = certificate("e2", true);
    renamed["name"] = json!("someone-else");
    let answers = [(certificate("e2", true), &other), (by_thumbprint, &other), (renamed, &root())];
    for (answer, sent) in answers {
        let (_server, certificates) = certificates([Reply::json(200, &answer)]);
        let set = certificates.set(&name(), sent, Possession::Attested, Some(&etag("e1"))).await;
        let error = set.expect_err("not what was sent");
        assert!(matches!(error, Error::Answer(_)) && error.answer_was_lost(), "{error}");
        assert!(error.to_string().contains("another certificate"), "{error}");
    }
}

#[tokio::test]
async fn an_old_version_of_the_api_takes_a_flat_body() {
    let server = Server::start([Reply::json(200, &certificate("e2", true))]);
    let client = builder(&server).api_version("2021-10-15".parse().expect("a version")).build().expect("a client");
    let certificates = instance(&client).certificates();
    certificates.set(&name(), &root(), Possession::Attested, Some(&etag("e1"))).await.expect("replaced");
    let request = &server.requests()[0];
    assert!(request.target.ends_with("?api-version=2021-10-15"));
    assert_eq!(request.json()["isVerified"], true);
}

#[tokio::test]
async fn a_missing_instance_is_not_a_missing_certificate() {
    let (_server, none) = certificates([refused(404, "CertificateNotFound")]);
    assert!(none.find(&name()).await.expect("an answer").is_none());

    let flat = json!({ "code": 404_001, "httpStatusCode": "NotFound", "message": "said" });
    let (_server, none) = certificates([Reply::json(404, &flat)]);
    assert!(none.find(&name()).await.expect("an answer").is_none());

    let (_server, gone) = certificates([refused(404, "ResourceNotFound"), refused(404, "ResourceNotFound")]);
    let error = gone.find(&name()).await.expect_err("no instance");
    assert!(error.is_not_found() && !error.to_string().contains("certificates"), "{error}");

    let there = Reply::json(200, &resource(SUBSCRIPTION, "lab", "contoso-dps"));
    let (_server, none) = certificates([refused(404, "ResourceNotFound"), there]);
    assert!(none.find(&name()).await.expect("an answer").is_none());
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_read_back() {
    let (_server, created) = certificates([
        refused(404, "CertificateNotFound"),
        Reply::lost(),
        refused(412, "PreconditionFailed"),
        Reply::json(200, &certificate("e1", false)),
    ]);
    let uploaded = created.set(&name(), &root(), Possession::ToBeProven, None).await.expect("by the first attempt");
    assert_eq!(uploaded.etag.as_str(), "e1");

    // Not verified as it was asked to be.
    let (_server, other) = certificates([
        refused(404, "CertificateNotFound"),
        Reply::lost(),
        refused(409, "Conflict"),
        Reply::json(200, &certificate("e1", false)),
    ]);
    let error = other.set(&name(), &root(), Possession::Attested, None).await.expect_err("unclear");
    assert!(matches!(error, Error::OutcomeUnknown { .. }) && error.answer_was_lost(), "{error}");
}

#[tokio::test]
async fn a_lost_code_is_replaced_by_another() {
    let (server, certificates) = certificates([
        Reply::lost(),
        refused(412, "PreconditionFailed"),
        Reply::json(200, &certificate("e2", false)),
        Reply::json(200, &code("e3", "SECOND")),
    ]);
    let code = certificates.generate_verification_code(&name(), &etag("e1")).await.expect("a code");
    assert_eq!((code.code.as_str(), code.etag.as_str()), ("SECOND", "e3"));
    let sent: Vec<_> = server.requests().iter().map(|it| it.header("if-match").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("e1".to_owned()), Some("e1".to_owned()), None, Some("e2".to_owned())]);
}

#[tokio::test]
async fn a_stale_etag_gives_no_code() {
    let (server, certificates) = certificates([refused(412, "PreconditionFailed")]);
    let error = certificates.generate_verification_code(&name(), &etag("e0")).await.expect_err("stale");
    assert_eq!((error.status(), server.requests().len()), (Some(412), 1));
}

#[tokio::test]
async fn a_proof_whose_answer_was_lost_is_sent_again_only_if_nothing_changed() {
    let (server, verified) = certificates([Reply::lost(), Reply::json(200, &certificate("e3", true))]);
    let state = verified.verify(&name(), &root(), &etag("e2")).await.expect("by the first attempt");
    assert_eq!((state.etag.as_str(), server.requests().len()), ("e3", 2));

    let (server, resent) = certificates([
        Reply::lost(),
        Reply::json(200, &certificate("e2", false)),
        Reply::json(200, &certificate("e3", true)),
    ]);
    assert!(resent.verify(&name(), &root(), &etag("e2")).await.expect("by the second").is_verified);
    assert_eq!(server.requests().len(), 3);

    let (server, changed) = certificates([Reply::lost(), Reply::json(200, &certificate("e9", false))]);
    let error = changed.verify(&name(), &root(), &etag("e2")).await.expect_err("another change");
    assert!(error.answer_was_lost() && server.requests().len() == 2, "{error}");

    let (server, refusal) = certificates([refused(400, "IH400053")]);
    let error = refusal.verify(&name(), &root(), &etag("e2")).await.expect_err("another key");
    assert_eq!((error.code(), server.requests().len()), (Some("IH400053"), 1));
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_done() {
    let (_server, certificates) = certificates([Reply::lost(), refused(404, "CertificateNotFound")]);
    certificates.delete(&name(), &etag("e3")).await.expect("deleted by the first attempt");
}

#[tokio::test]
async fn certificates_are_listed() {
    let all = json!({ "value": [certificate("e1", true)] });
    let (server, certificates) = certificates([Reply::json(200, &all)]);
    let all: Vec<_> = certificates.list().try_collect().await.expect("certificates");
    assert_eq!((all.len(), all[0].sha1_thumbprint), (1, Some(root().sha1_thumbprint())));
    assert!(server.log()[0].ends_with("/provisioningServices/contoso-dps/certificates"));
    assert_described(&server);
}

// --- Policies and errors -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_policy_key_signs_for_the_service_api() {
    let server = Server::start([]);
    let policy =
        |name: &str, rights: &str| json!({ "keyName": name, "primaryKey": KEY, "secondaryKey": KEY, "rights": rights });
    let next = format!("{}/more", server.url());
    let first = json!({ "value": [policy("reader", "EnrollmentRead")], "nextLink": next });
    server.then(Reply::json(200, &first));
    let owner = policy("provisioningserviceowner", "ServiceConfig, DeviceConnect, EnrollmentWrite");
    server.then(list(&[owner]));
    let client = builder(&server).build().expect("a client");
    let policies: Vec<_> = instance(&client).policies().try_collect().await.expect("policies");
    assert!(server.log()[0].starts_with("POST ") && server.log()[0].ends_with("/listkeys"));
    assert!(!format!("{policies:?}").contains(KEY));

    let writing = policies.iter().find(|policy| policy.has(&AccessRight::EnrollmentWrite)).expect("a policy");
    let key = writing.key().expect("a key");
    server.then(Reply::json(204, &Value::Null));
    let service = service::Client::builder(server.url().parse().expect("an endpoint"))
        .authorization(Authorization::from_shared_access_key(key))
        .build()
        .expect("a client");
    service.enrollment_groups().delete(&"eg".parse().expect("an id"), None).await.expect("deleted");
    let token = server.requests()[2].header("authorization").expect("a token").to_owned();
    assert!(
        token.starts_with("SharedAccessSignature sr=127.0.0.1%3A") && token.ends_with("&skn=provisioningserviceowner")
    );
}

#[tokio::test]
async fn an_instance_that_is_being_created_is_not_active() {
    let mut creating = resource(SUBSCRIPTION, "lab", "contoso-dps");
    creating["properties"] = json!({ "state": "Activating" });
    let (_server, client) = scripted([Reply::json(200, &creating), list(&[creating.clone()])]);
    let error = instance(&client).get().await.expect_err("no addresses");
    assert!(matches!(&error, Error::NotActive { state, .. } if state == "Activating"), "{error}");
    assert!(!error.to_string().contains("Check that the address"), "{error}");
    let query = InstanceQuery::new("contoso-dps".parse().expect("a name"));
    let query = query.subscription(SUBSCRIPTION.parse::<SubscriptionId>().expect("an id"));
    let error = client.find(&query).await.expect_err("no addresses");
    assert!(matches!(error, FindError::Call(Error::NotActive { .. })), "{error}");
}

#[tokio::test]
async fn a_damaged_instance_does_not_hide_another() {
    let damaged = json!({ "id": 1, "name": "other-dps", "properties": null });
    let all = [damaged, Value::Null, resource(SUBSCRIPTION, "lab", "contoso-dps")];
    let (_server, client) = scripted([list(&all), list(&all)]);
    let query = |name: &str| {
        let query = InstanceQuery::new(name.parse().expect("a name"));
        query.subscription(SUBSCRIPTION.parse::<SubscriptionId>().expect("an id"))
    };
    assert_eq!(client.find(&query("contoso-dps")).await.expect("found").id.name.as_str(), "contoso-dps");
    let error = client.find(&query("other-dps")).await.expect_err("damaged");
    assert!(matches!(error, FindError::Call(Error::Answer(_))), "{error}");
}

#[tokio::test]
async fn keys_that_were_lost_on_the_way_are_read_again() {
    let policies = json!({ "value": [] });
    let (server, client) = scripted([Reply::lost(), refused(500, "InternalServerError"), Reply::json(200, &policies)]);
    assert!(instance(&client).policies().try_collect::<Vec<_>>().await.expect("policies").is_empty());
    assert_eq!(server.requests().len(), 3);
    assert_described(&server);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let (_server, client) = scripted([refused(401, "InvalidAuthenticationToken"), refused(403, "AuthorizationFailed")]);
    let error = instance(&client).get().await.expect_err("refused").to_string();
    assert!(error.contains("bearer token for Resource Manager") && error.contains("said"), "{error}");
    let error = instance(&client).get().await.expect_err("refused").to_string();
    assert!(error.contains("Contributor"), "{error}");
    assert!(!error.contains("arm-token"), "{error}");
}

#[tokio::test]
async fn answers_with_keys_are_never_quoted() {
    let keys = json!({ "keyName": "owner", "primaryKey": KEY, "secondaryKey": KEY, "message": KEY });
    let text = |status, body: &str| Reply::with(status, &[], body);
    for (reply, part) in [
        (text(200, &format!("x{keys}")), "not JSON"),
        (text(200, &format!("primary key: {KEY}")), "not JSON"),
        (Reply::json(400, &keys), "not shown"),
        (text(400, KEY), "not shown"),
        (refused(403, "AuthorizationFailed"), "AuthorizationFailed"),
    ] {
        let (_server, client) = scripted([reply]);
        let error = instance(&client).policy("owner").await.expect_err("unusable").to_string();
        assert!(error.contains(part) && !error.contains(KEY) && !error.contains("said"), "{error}");
    }
    // A further page of a list is requested with GET.
    let server = Server::start([]);
    let next = format!("{}/more", server.url());
    server.then(Reply::json(200, &json!({ "value": [], "nextLink": next })));
    server.then(text(400, KEY));
    let client = builder(&server).build().expect("a client");
    let error = instance(&client).policies().try_collect::<Vec<_>>().await.expect_err("refused").to_string();
    assert!(!error.contains(KEY), "{error}");
}

#[tokio::test]
async fn a_list_whose_links_are_new_but_whose_pages_are_not_ends() {
    let server = Server::start([]);
    for count in 0..9 {
        let next = format!("{}/page?number={count}", server.url());
        server.then(Reply::json(200, &json!({ "value": [certificate("e", true)], "nextLink": next })));
    }
    let client = builder(&server).build().expect("a client");
    let list = instance(&client).certificates().list();
    let error = list.try_collect::<Vec<_>>().await.expect_err("a loop");
    assert!(matches!(error, Error::NextLink { .. }), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn text_that_may_be_json_is_not_quoted() {
    let body = format!("x{{\"primaryKey\":\"{KEY}\"}}");
    for reply in [Reply::with(200, &[], &body), Reply::with(400, &[], &body), Reply::with(400, &[], &body[10..])] {
        let (_server, client) = scripted([reply]);
        let error = instance(&client).get().await.expect_err("unusable").to_string();
        assert!(!error.contains(KEY), "{error}");
    }
    let (_server, client) = scripted([Reply::with(400, &[], "<html><p>Sign in to the proxy</p></html>")]);
    let error = instance(&client).get().await.expect_err("refused").to_string();
    assert!(error.contains("Sign in to the proxy"), "{error}");
}
