//! Every call of devices sends what the API describes, and reads what the API answers.

use crate::support::{
    client::{TOKEN, client},
    openapi::OpenApi,
    server::{Reply, Request, Server},
};
use iot_enroll::{
    central::{
        ApiVersion, CentralDeviceId, Change, Device, DeviceAttestation, DeviceAttestationUpdate, DeviceQuery,
        DeviceType, DeviceUpdate, Error, Etag, Field, Filter, IdError, NewDevice, NewDeviceAttestation, OrderBy,
        SymmetricKeys, Top,
    },
    certificate::{self, Certificate},
};
use proptest::prelude::*;
use serde_json::{Value, json};

const THUMBPRINT: &str = "644543467786B60C14DFE6B7C968A1990CF63EAC";
const DEVICE: &str = "/api/devices/thermostat1?api-version=2022-07-31";
const ATTESTATION: &str = "/api/devices/thermostat1/attestation?api-version=2022-07-31";

fn id() -> CentralDeviceId {
    "thermostat1".parse().expect("an id")
}

fn certificate() -> Certificate {
    Certificate::read(include_bytes!("../../fixtures/authorities/ec-sec1_cert.pem")).expect("a certificate")
}

/// The answer of the how-to article.
fn device() -> Value {
    json!({
        "id": "thermostat1", "etag": "e1", "displayName": "CheckoutThermostat", "simulated": true, "provisioned": false,
        "template": "dtmi:contoso:Thermostat;1", "enabled": true,
    })
}

fn keys() -> SymmetricKeys {
    SymmetricKeys { primary_key: "firstkey".into(), secondary_key: "secondkey".into() }
}

/// The requests so far, each held to the description.
#[track_caller]
fn checked(server: &Server) -> Vec<Request> {
    let requests = server.requests();
    for request in &requests {
        let Request { method, target, body, .. } = request;
        let checked = OpenApi::load().check_request(method, target, request.header("content-type"), body);
        assert_eq!(checked, Ok(()), "{method} {target}");
    }
    assert!(requests.iter().all(|request| request.header("authorization") == Some(TOKEN)));
    requests
}

/// The one request of a test.
#[track_caller]
fn sent(server: &Server, method: &str, target: &str) -> Request {
    let requests = checked(server);
    let [request] = &requests[..] else { panic!("one request, not {requests:?}") };
    assert_eq!((request.method.as_str(), request.target.as_str()), (method, target));
    request.clone()
}

#[tokio::test]
async fn get_reads_a_whole_device_and_serialises_it_as_the_service_does() {
    let mut body = device();
    body["organizations"] = json!(["seattle"]);
    let server = Server::start([Reply::json(200, &body)]);
    let found = client(&server).devices().get(&id()).await.expect("a device");
    sent(&server, "GET", DEVICE);
    assert_eq!((&found.id, found.etag.as_ref().map(Etag::as_str)), (&id(), Some("e1")));
    assert_eq!(found.display_name.as_deref(), Some("CheckoutThermostat"));
    assert_eq!(found.template.as_deref(), Some("dtmi:contoso:Thermostat;1"));
    assert_eq!((found.enabled, found.provisioned, found.simulated), (true, false, true));
    assert_eq!(serde_json::to_value(&found).expect("JSON"), body);
    let again: Device = serde_json::from_value(body).expect("a device");
    assert_eq!(again, found);
}

#[tokio::test]
async fn a_device_with_little_or_with_later_fields_is_read() {
    let sparse = json!({ "id": "plant 7/Ä:sensor%", "etag": null, "template": null, "type": ["later"], "new": {} });
    let server = Server::start([Reply::json(200, &sparse)]);
    let found = client(&server).devices().get(&id()).await.expect("a device");
    assert_eq!((found.id.as_str(), found.etag, found.template), ("plant 7/Ä:sensor%", None, None));
    assert_eq!((found.enabled, found.provisioned, found.simulated), (true, false, false));
    assert_eq!(found.device_types, [DeviceType::Other("later".to_owned())]);
}

#[tokio::test]
async fn find_returns_none_for_404() {
    let server = Server::start([Reply::error(404, "NotFound", "none"), Reply::error(403, "Forbidden", "no")]);
    let devices = client(&server).devices();
    assert_eq!(devices.find(&id()).await.expect("an answer"), None);
    assert_eq!(devices.find(&id()).await.expect_err("no right").status(), Some(403));
}

#[tokio::test]
async fn replace_puts_only_the_given_members() {
    let server = Server::start([Reply::json(200, &device()), Reply::json(200, &device())]);
    let devices = client(&server).devices();
    let all = NewDevice::named("CheckoutThermostat")
        .template("dtmi:contoso:Thermostat;1".to_owned())
        .enabled(false)
        .simulated(true)
        .organizations(["seattle".to_owned()])
        .etag(Etag::new("e0"));
    devices.replace(&id(), &all).await.expect("created");
    devices.replace(&id(), &NewDevice::default()).await.expect("created");
    let requests = checked(&server);
    assert!(requests.iter().all(|it| (it.method.as_str(), it.target.as_str()) == ("PUT", DEVICE)));
    let whole = json!({
        "displayName": "CheckoutThermostat", "template": "dtmi:contoso:Thermostat;1", "enabled": false,
        "simulated": true, "organizations": ["seattle"], "etag": "e0",
    });
    assert_eq!(requests[0].json(), whole);
    assert_eq!(requests[1].json(), json!({ "enabled": true, "simulated": false }));
}

#[tokio::test]
async fn an_edge_device_is_replaced_in_the_preview_version_by_itself() {
    let mut answer = device();
    answer["type"] = json!(["iotEdge"]);
    let server = Server::start([Reply::json(200, &answer)]);
    let gateway = NewDevice::default().device_types(vec![DeviceType::IotEdge]);
    let made = client(&server).devices().replace(&id(), &gateway).await.expect("created");
    let request = sent(&server, "PUT", "/api/devices/thermostat1?api-version=2022-10-31-preview");
    assert_eq!(request.json()["type"], json!(["iotEdge"]));
    assert_eq!(serde_json::to_value(&made).expect("JSON"), answer);
}

#[tokio::test]
async fn update_names_only_what_changes_and_can_empty_name_and_template() {
    let server = Server::start((0..4).map(|_| Reply::json(200, &device())));
    let devices = client(&server).devices();
    let cleared = DeviceUpdate::default().display_name(Change::Clear).template(Change::Clear);
    let whole = DeviceUpdate::default()
        .display_name("n".to_owned())
        .template("t".to_owned())
        .enabled(false)
        .simulated(true)
        .organizations(Vec::new())
        .etag(Etag::new("e1"));
    let one = DeviceUpdate::default().enabled(true);
    for update in [&DeviceUpdate::default(), &cleared, &whole, &one] {
        devices.update(&id(), update).await.expect("updated");
    }
    let requests = checked(&server);
    let bodies: Vec<_> = requests.iter().map(Request::json).collect();
    let all = json!({
        "displayName": "n", "template": "t", "enabled": false, "simulated": true, "organizations": [], "etag": "e1",
    });
    let nulls = json!({ "displayName": null, "template": null });
    assert_eq!(bodies, [json!({}), nulls, all, json!({ "enabled": true })]);
    for request in requests {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("PATCH", DEVICE));
        assert_eq!(request.header("content-type"), Some("application/merge-patch+json"));
    }
}

#[tokio::test]
async fn a_change_of_something_changed_meanwhile_says_what_to_do() {
    let server = Server::start([Reply::error(412, "PreconditionFailed", "the etag does not match")]);
    let update = DeviceUpdate::default().etag(Etag::new("old"));
    let error = client(&server).devices().update(&id(), &update).await.expect_err("a conflict");
    assert_eq!((error.status(), error.answer_was_lost()), (Some(412), false));
    assert!(error.to_string().contains("PATCH devices/thermostat1") && error.to_string().contains("new etag"));

    let server = Server::start([Reply::lost(), Reply::error(412, "PreconditionFailed", "the etag does not match")]);
    let error = client(&server).devices().update(&id(), &update).await.expect_err("unclear");
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn a_device_is_deleted_by_its_id() {
    let server = Server::start([Reply::no_content()]);
    client(&server).devices().delete(&id()).await.expect("deleted");
    sent(&server, "DELETE", DEVICE);
}

#[tokio::test]
async fn credentials_of_every_kind_are_read_and_never_shown() {
    let certificate = json!({ "certificate": "cert", "info": { "sha1Thumbprint": THUMBPRINT } });
    let body = json!({
        "idScope": "0ne003E64EF", "symmetricKey": { "primaryKey": "firstkey", "secondaryKey": "secondkey" },
        "x509": { "clientCertificates": { "primary": certificate } }, "tpm": { "endorsementKey": "thirdkey" },
    });
    let server = Server::start([Reply::json(200, &body), Reply::json(200, &json!({ "idScope": "s" }))]);
    let devices = client(&server).devices();
    let found = devices.credentials(&id()).await.expect("credentials");
    sent(&server, "GET", "/api/devices/thermostat1/credentials?api-version=2022-07-31");
    let shown = format!("{found:?}");
    assert!(!["firstkey", "secondkey", "thirdkey"].iter().any(|key| shown.contains(key)), "{shown}");
    assert_eq!(found.id_scope, "0ne003E64EF");
    assert_eq!(found.symmetric_key.expect("keys").primary_key.expose(), "firstkey");
    assert_eq!(found.endorsement_key.expect("a key").expose(), "thirdkey");
    let primary = found.x509.and_then(|x509| x509.primary).expect("a certificate");
    assert_eq!(primary.certificate.as_deref(), Some("cert"));
    assert_eq!(primary.sha1_thumbprint.map(|it| it.to_string()).as_deref(), Some(THUMBPRINT));
    let bare = devices.credentials(&id()).await.expect("credentials");
    assert!(bare.symmetric_key.is_none() && bare.x509.is_none() && bare.endorsement_key.is_none());
}

#[tokio::test]
async fn an_attestation_of_every_kind_is_read_and_serialised_without_keys() {
    let certificate = json!({ "info": { "sha1Thumbprint": THUMBPRINT } });
    let x509 = json!({ "type": "x509", "x509": { "clientCertificates": { "primary": certificate } } });
    let symmetric =
        json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "firstkey", "secondaryKey": "secondkey" } });
    let tpm = json!({ "type": "tpm", "tpm": { "endorsementKey": "thirdkey" } });
    let later = json!({ "type": "later", "later": {} });
    let bodies = [&x509, &symmetric, &tpm, &later];
    let server = Server::start(bodies.map(|body| Reply::json(200, body)));
    let devices = client(&server).devices();
    for body in bodies {
        let found = devices.attestation(&id()).await.expect("an attestation");
        assert_eq!(found.kind(), body["type"].as_str().expect("a kind"));
        let serialised = serde_json::to_value(&found).expect("JSON");
        let shown = format!("{found:?} {serialised}");
        assert!(!["firstkey", "secondkey", "thirdkey"].iter().any(|key| shown.contains(key)), "{shown}");
        match found {
            DeviceAttestation::X509(_) => assert_eq!(serialised, x509),
            DeviceAttestation::SymmetricKey(keys) => {
                assert_eq!(keys.expect("keys").secondary_key.expose(), "secondkey");
            }
            DeviceAttestation::Tpm(key) => assert_eq!(key.expect("a key").expose(), "thirdkey"),
            other => assert_eq!(other.kind(), "later"),
        }
    }
    assert!(checked(&server).iter().all(|request| request.target == ATTESTATION));
    server.then(Reply::error(404, "NotFound", "none"));
    assert!(devices.find_attestation(&id()).await.expect("an answer").is_none());
}

#[tokio::test]
async fn an_attestation_of_every_kind_is_set() {
    let encoded = json!({ "certificate": certificate().to_base64_pem() });
    let both =
        NewDeviceAttestation::X509 { primary: Box::new(certificate()), secondary: Some(Box::new(certificate())) };
    for (new, expected) in [
        (
            NewDeviceAttestation::x509(certificate()),
            json!({ "type": "x509", "x509": { "clientCertificates": { "primary": encoded } } }),
        ),
        (
            both,
            json!({ "type": "x509", "x509": { "clientCertificates": { "primary": encoded, "secondary": encoded } } }),
        ),
        (NewDeviceAttestation::SymmetricKey(None), json!({ "type": "symmetricKey" })),
        (
            NewDeviceAttestation::SymmetricKey(Some(keys())),
            json!({
                "type": "symmetricKey", "symmetricKey": { "primaryKey": "firstkey", "secondaryKey": "secondkey" },
            }),
        ),
        (NewDeviceAttestation::Tpm("ek".into()), json!({ "type": "tpm", "tpm": { "endorsementKey": "ek" } })),
    ] {
        let server = Server::start([Reply::json(200, &json!({ "type": "x509" }))]);
        client(&server).devices().set_attestation(&id(), &new).await.expect("set");
        assert_eq!(sent(&server, "PUT", ATTESTATION).json(), expected);
        let shown = format!("{new:?}");
        assert!(!shown.contains("firstkey") && !shown.contains("\"ek\""), "{shown}");
    }
}

#[tokio::test]
async fn an_attestation_is_changed_in_the_part_that_is_named() {
    let encoded = json!({ "certificate": certificate().to_base64_pem() });
    let x509 = |certificates: Value| json!({ "type": "x509", "x509": { "clientCertificates": certificates } });
    for (update, expected) in [
        (
            DeviceAttestationUpdate::X509 { primary: None, secondary: Change::Set(Box::new(certificate())) },
            x509(json!({ "secondary": encoded })),
        ),
        (
            DeviceAttestationUpdate::X509 { primary: Some(Box::new(certificate())), secondary: Change::Clear },
            x509(json!({ "primary": encoded, "secondary": null })),
        ),
        (
            DeviceAttestationUpdate::SymmetricKey { primary: None, secondary: Some("newkey".into()) },
            json!({ "type": "symmetricKey", "symmetricKey": { "secondaryKey": "newkey" } }),
        ),
        (
            DeviceAttestationUpdate::Tpm("newkey".into()),
            json!({ "type": "tpm", "tpm": { "endorsementKey": "newkey" } }),
        ),
    ] {
        let server = Server::start([Reply::json(200, &json!({ "type": "x509" }))]);
        client(&server).devices().update_attestation(&id(), &update).await.expect("changed");
        let request = sent(&server, "PATCH", ATTESTATION);
        assert_eq!(request.json(), expected);
        assert_eq!(request.header("content-type"), Some("application/merge-patch+json"));
        assert!(!format!("{update:?}").contains("newkey"));
    }
}

#[tokio::test]
async fn a_key_that_the_service_repeats_is_in_no_error() {
    let said = "the keys firstkey and secondkey are too short";
    let server = Server::start([Reply::error(422, "Unprocessable", said)]);
    let attestation = NewDeviceAttestation::SymmetricKey(Some(keys()));
    let error = client(&server).devices().set_attestation(&id(), &attestation).await.expect_err("refused");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("firstkey") && !shown.contains("secondkey") && shown.contains("[redacted]"), "{shown}");
}

#[tokio::test]
async fn an_attestation_is_deleted() {
    let server = Server::start([Reply::no_content()]);
    client(&server).devices().delete_attestation(&id()).await.expect("deleted");
    sent(&server, "DELETE", ATTESTATION);
}

fn page(ids: std::ops::Range<u32>, next: Option<String>) -> Reply {
    let mut page = json!({ "value": ids.map(|it| json!({ "id": it.to_string() })).collect::<Vec<_>>() });
    if let Some(next) = next {
        page["nextLink"] = json!(next);
    }
    Reply::json(200, &page)
}

#[tokio::test]
async fn a_query_is_sent_with_the_names_of_its_version() {
    let query = DeviceQuery::new()
        .filter(Filter::field(Field::DISPLAY_NAME).contains("a+b 'c' & d"))
        .order_by(OrderBy::DisplayNameDescending)
        .top(Top::new(7).expect("a size"));
    for (version, expected) in [
        (
            ApiVersion::V2022_07_31,
            "2022-07-31&%24filter=contains%28displayName%2C%20%27a%2Bb%20%27%27c%27%27%20%26%20d%27%29%20ge%200\
             &%24orderby=displayName%20desc&%24top=7",
        ),
        (
            ApiVersion::V2022_10_31Preview,
            "2022-10-31-preview&filter=contains%28displayName%2C%20%27a%2Bb%20%27%27c%27%27%20%26%20d%27%29%20eq%20true\
             &orderby=displayName%20desc&maxpagesize=7",
        ),
    ] {
        let server = Server::start([page(0..1, None)]);
        let devices = client(&server).with_api_version(version).devices();
        assert_eq!(devices.list(&query).try_collect::<Vec<_>>().await.expect("devices").len(), 1);
        sent(&server, "GET", &format!("/api/devices?api-version={expected}"));
    }
}

#[tokio::test]
async fn a_list_asks_for_full_pages_and_follows_them() {
    let server = Server::start([]);
    let link = format!("{}/api/devices?api-version=2022-07-31&%24top=100&%24skiptoken=x", server.url());
    server.then(page(0..100, Some(link)));
    server.then(page(100..130, None));
    let devices = client(&server).devices();
    let found: Vec<Device> = devices.list(&DeviceQuery::default()).try_collect().await.expect("devices");
    let ids: Vec<_> = found.into_iter().map(|it| it.id).collect();
    assert_eq!((ids.len(), ids[129].as_str()), (130, "129"));
    let targets: Vec<_> = checked(&server).into_iter().map(|it| it.target).collect();
    let first = "/api/devices?api-version=2022-07-31&%24top=100";
    assert_eq!(targets, [first.to_owned(), format!("{first}&%24skiptoken=x")]);
}

#[tokio::test]
async fn a_limit_stops_the_requests_for_further_pages() {
    for (limit, top, pages) in [(0, "", 0), (1, "1", 1), (99, "99", 1), (100, "100", 1), (101, "100", 2)] {
        let server = Server::start([]);
        let link = |token: u32| Some(format!("{}/api/devices?api-version=2022-07-31&t={token}", server.url()));
        let size = top.parse().unwrap_or(0);
        for number in 0..3 {
            server.then(page(number * size..(number + 1) * size, link(number)));
        }
        let devices = client(&server).devices();
        let query = DeviceQuery::new().limit(limit);
        assert_eq!(devices.list(&query).try_collect::<Vec<_>>().await.expect("devices").len(), limit);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let requests = server.requests();
        assert_eq!(requests.len(), pages, "{limit}");
        assert!(requests.first().is_none_or(|it| it.target.ends_with(&format!("&%24top={top}"))));
    }
}

#[tokio::test]
async fn a_link_to_another_host_is_an_error_and_not_a_request() {
    let elsewhere = Server::start([page(1..2, None)]);
    let server = Server::start([page(0..1, Some(format!("{}/api/devices?api-version=2022-07-31", elsewhere.url())))]);
    let mut list = client(&server).devices().list(&DeviceQuery::default());
    let error = loop {
        if let Err(error) = list.next().await.expect("an error before the end") {
            break error;
        }
    };
    assert!(matches!(error, Error::NextLink { .. }), "{error}");
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_page_has_1_to_100_things_and_an_order_is_known() {
    for (text, number) in [("1", 1), ("25", 25), ("100", 100)] {
        assert_eq!((text.parse(), Top::new(number)), (Ok(Top::new(number).expect("a size")), text.parse()));
        assert_eq!(Top::new(number).expect("a size").get(), number);
    }
    for text in ["0", "101", "256", "-1", "", "x", "99999999999999999999"] {
        let error = text.parse::<Top>().expect_err(text).to_string();
        assert!(error.contains("1 to 100") && error.contains(text), "{error}");
    }
    assert_eq!("displayName".parse(), Ok(OrderBy::DisplayName));
    assert_eq!(" displayName  asc".parse(), Ok(OrderBy::DisplayName));
    assert_eq!("displayName desc".parse(), Ok(OrderBy::DisplayNameDescending));
    for text in ["", "displayname", "id", "displayName down", "displayName desc, id"] {
        assert!(text.parse::<OrderBy>().is_err(), "{text}");
    }
}

#[test]
fn a_device_id_is_anything_that_stands_in_a_path() {
    for text in ["", ".", ".."] {
        assert!(matches!(CentralDeviceId::new(text), Err(IdError::Path { .. })), "{text}");
    }
    let error = CentralDeviceId::new("a\nb").expect_err("a line end");
    assert!(matches!(error, IdError::Character { character: '\n', position: 2, .. }), "{error}");
    let registered = certificate::DeviceId::new("sample-device-01").expect("an id");
    assert_eq!(CentralDeviceId::from(registered).as_str(), "sample-device-01");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The server decodes the path's third segment to the very id, and the path has no segment more.
    #[test]
    fn every_id_is_one_segment_of_the_path(text in prop_oneof!["[ -~]{1,12}", "\\PC{1,8}", "[./%\\\\?#]{1,5}"]) {
        let Ok(id) = CentralDeviceId::new(text.as_str()) else {
            prop_assert!(matches!(text.as_str(), "." | ".."));
            return Ok(());
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let target = runtime.block_on(async {
            let server = Server::start([Reply::no_content()]);
            client(&server).devices().delete(&id).await.expect("deleted");
            server.requests().remove(0).target
        });
        let path = target.strip_suffix("?api-version=2022-07-31").expect("a query");
        let segment = path.strip_prefix("/api/devices/").expect("a path");
        prop_assert!(!segment.contains(['/', '?', '#', '\\']), "{}", segment);
        let mut bytes = Vec::new();
        let mut rest = segment;
        while let Some(first) = rest.chars().next() {
            if first == '%' {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).expect("hex"));
                rest = &rest[3..];
            } else {
                bytes.extend(first.to_string().bytes());
                rest = &rest[first.len_utf8()..];
            }
        }
        prop_assert_eq!(String::from_utf8(bytes).expect("UTF-8"), text);
    }
}
