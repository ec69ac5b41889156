//! Registration with a certificate request, against a scripted service: what is sent, and which answers are believed.

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{
        Certificate, CertificateAuthority, CertificateRequest, DeviceIssuer, IssueOptions, KeyAlgorithm, PrivateKey,
        Timestamp, chain::ChainError,
    },
    dps::device::{
        Assignment, IssuedCertificateError, OperationalRequest, OperationalRequestError, RegistrationError,
        RegistrationErrorKind as Kind,
    },
};
use serde_json::{Value, json};

use crate::support::{
    DAY,
    clock::ManualClock,
    devices::{DEVICE, credential, id, issue, issue_at, options, root, root_at},
    dps::{Dps, HUB, SCOPE, assigned, assigning, ended, error},
    rcgen_pem::rcgen_key,
    server::Reply,
};

/// 200: assigned, with this in place of the chain.
fn assigned_with(chain: &Value) -> Reply {
    let state = json!({
        "registrationId": DEVICE, "deviceId": DEVICE, "assignedHub": HUB, "issuedCertificateChain": chain
    });
    ended("assigned", &state)
}

fn encoded<'a>(chain: impl IntoIterator<Item = &'a Certificate>) -> Value {
    chain.into_iter().map(|certificate| BASE64_STANDARD.encode(certificate.der())).collect()
}

/// The time at which the clock of the client starts.
fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

/// A root that was created a year before.
fn operational_root(name: &str) -> CertificateAuthority {
    root_at(name, &options(now() - 365 * DAY, 4000))
}

fn issuing_ca() -> CertificateAuthority {
    let name = "Issuing".parse().expect("a name");
    let issued = operational_root("Operational Root").issue_intermediate(&name, &IssueOptions::new().at(now()));
    issued.expect("an intermediate").into_authority(now()).expect("an authority")
}

fn request() -> OperationalRequest {
    OperationalRequest::generate(&id(DEVICE)).expect("a request").1
}

/// A certificate for a key, and those above it.
fn issued(name: &str, key: &[u8], authority: &CertificateAuthority, options: &IssueOptions) -> Vec<Certificate> {
    let issuer = DeviceIssuer::new(authority, options).expect("an issuer");
    let (der, _) = issuer.issue_for_key(&id(name), key).expect("a certificate");
    let leaf = Certificate::from_der(&der).expect("a certificate");
    [&leaf, authority.certificate()].into_iter().chain(authority.issuers()).cloned().collect()
}

fn good(request: &OperationalRequest) -> Vec<Certificate> {
    issued(DEVICE, request.request().public_key(), &issuing_ca(), &options(now(), 30))
}

async fn register(dps: &Dps, request: &OperationalRequest) -> Result<Assignment, RegistrationError> {
    let clock = ManualClock::new();
    let client = dps.builder(&clock).build().expect("a client");
    client.register_for_certificate(request, &credential(&issue(DEVICE, &root("Root"))), None).await
}

#[tokio::test]
async fn the_request_is_sent_once_with_its_version_and_the_chain_is_returned() {
    let request = request();
    let chain = good(&request);
    let dps = Dps::script(vec![assigning(Some("0")), assigning(Some("0")), assigned_with(&encoded(&chain))]);
    let assignment = register(&dps, &request).await.expect("an assignment");
    assert_eq!(assignment.certificate_chain, Some(chain));
    assert_eq!(assignment.assigned_hub, HUB);

    let path = format!("/{SCOPE}/registrations/{DEVICE}");
    let poll = format!("GET {path}/operations/5.op?api-version=2026-11-01");
    assert_eq!(dps.lines(), [format!("PUT {path}/register?api-version=2026-11-01"), poll.clone(), poll]);
    let requests = dps.requests();
    let body: Value = serde_json::from_str(&requests[0].body).expect("JSON");
    let csr = BASE64_STANDARD.encode(request.request().der());
    assert_eq!(body, json!({ "registrationId": DEVICE, "csr": csr }));
    assert!(requests[1..].iter().all(|request| request.body.is_empty()));
}

#[tokio::test]
async fn another_version_is_used_for_every_call() {
    let request = request();
    let dps = Dps::script(vec![assigning(Some("0")), assigned_with(&encoded(&good(&request)))]);
    let builder = dps.builder(&ManualClock::new()).api_version("2025-07-01-preview".parse().expect("a version"));
    let credential = credential(&issue(DEVICE, &root("Root")));
    let client = builder.build().expect("a client");
    client.register_for_certificate(&request, &credential, None).await.expect("an assignment");
    assert!(dps.lines().iter().all(|line| line.ends_with("api-version=2025-07-01-preview")), "{:?}", dps.lines());
}

#[tokio::test]
async fn a_registration_without_a_request_ignores_a_chain_and_a_service_may_issue_none() {
    let dps = Dps::script(vec![assigned_with(&json!("junk"))]);
    let client = dps.client();
    let credential = credential(&issue(DEVICE, &root("Root")));
    let assignment = client.register(&id(DEVICE), &credential, None).await.expect("an assignment");
    assert_eq!(assignment.certificate_chain, None);

    for reply in [assigned(DEVICE), assigned_with(&json!([])), assigned_with(&Value::Null)] {
        let dps = Dps::script(vec![assigning(Some("0")), reply]);
        let assignment = register(&dps, &request()).await.expect("an assignment");
        assert_eq!((assignment.certificate_chain, dps.requests().len()), (None, 2));
    }
}

#[tokio::test]
async fn a_certificate_whose_answer_was_lost_is_requested_again() {
    let request = request();
    let chain = good(&request);
    for lost in [Reply::lost(), error(503, 503_001, "busy")] {
        let dps = Dps::script(vec![
            assigning(Some("0")),
            lost,
            assigned(DEVICE),
            assigning(Some("0")),
            assigned_with(&encoded(&chain)),
        ]);
        let assignment = register(&dps, &request).await.expect("an assignment");
        assert_eq!(assignment.certificate_chain.as_ref(), Some(&chain));
        let requests = dps.requests();
        let methods: Vec<_> = requests.iter().map(|request| request.method.as_str()).collect();
        assert_eq!(methods, ["PUT", "GET", "GET", "PUT", "GET"]);
        assert_eq!(requests[0].body, requests[3].body);
    }
}

#[tokio::test]
async fn a_service_that_issues_none_is_not_asked_for_ever_after_lost_answers() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let dps = Dps::start(move |request| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match request.method.as_str() {
            "PUT" => assigning(Some("0")),
            _ if number % 3 == 1 => error(503, 503_001, "busy"),
            _ => assigned(DEVICE),
        }
    });
    let assignment = register(&dps, &request()).await.expect("an assignment");
    let registered = dps.requests().iter().filter(|request| request.method == "PUT").count();
    assert_eq!((assignment.certificate_chain, registered), (None, 3));
}

#[tokio::test]
async fn a_chain_that_cannot_be_right_is_refused() {
    let request = request();
    let key = request.request().public_key();
    let authority = issuing_ca();
    let valid = options(now(), 30);
    let chain = good(&request);
    let other_key = PrivateKey::generate(KeyAlgorithm::EcP384).expect("a key").public_key();
    let is = |error: &IssuedCertificateError, name: &str| match error {
        IssuedCertificateError::NotAnArray => name == "not an array",
        IssuedCertificateError::TooLong { found, .. } => name == "too long" && *found == 17,
        IssuedCertificateError::Base64 { position: 2 } => name == "base64",
        IssuedCertificateError::Certificate { position: 1, .. } => name == "certificate",
        IssuedCertificateError::OtherKey { .. } => name == "key",
        IssuedCertificateError::OtherName { .. } => name == "name",
        IssuedCertificateError::Authority { .. } => name == "a CA",
        IssuedCertificateError::NoClientAuthentication { .. } => name == "not for clients",
        IssuedCertificateError::NoIssuer { .. } => name == "alone",
        IssuedCertificateError::Unordered { .. } => name == "order",
        IssuedCertificateError::Repeated => name == "repeated",
        IssuedCertificateError::Chain(ChainError::Expired { .. }) => name == "expired",
        IssuedCertificateError::Chain(ChainError::NotYetValid { .. }) => name == "not yet valid",
        IssuedCertificateError::Chain(ChainError::NotAnAuthority { .. }) => name == "not a CA",
        _ => false,
    };
    let der = |certificate: &Certificate| BASE64_STANDARD.encode(certificate.der());
    let mut forged = chain[0].der().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    for (told, name) in [
        (json!("junk"), "not an array"),
        (json!({ "leaf": der(&chain[0]) }), "not an array"),
        (json!(vec![der(&chain[0]); 17]), "too long"),
        (json!([der(&chain[0]), "%%%"]), "base64"),
        (json!([der(&chain[0]), 7]), "base64"),
        (json!([chain[0].to_pem(), der(&chain[1])]), "base64 of PEM"),
        (json!([BASE64_STANDARD.encode(chain[0].to_pem()), der(&chain[1])]), "certificate"),
        (json!([BASE64_STANDARD.encode("junk"), der(&chain[1])]), "certificate"),
        (json!([BASE64_STANDARD.encode([chain[0].der(), b"\0"].concat()), der(&chain[1])]), "certificate"),
        (encoded(&issued(DEVICE, &other_key, &authority, &valid)), "key"),
        (encoded(&chain[1..]), "key"),
        (encoded(&issued("sensor-2", key, &authority, &valid)), "name"),
        (encoded(&issued("SENSOR-1", key, &authority, &valid)), "name"),
        (encoded(&chain[..1]), "alone"),
        (encoded([&chain[0], &chain[2], &chain[1]]), "order"),
        (encoded([&chain[0], &chain[2]]), "order"),
        (encoded([&chain[0], operational_root("Operational Root").certificate()]), "order"),
        (json!([BASE64_STANDARD.encode(&forged), der(&chain[1]), der(&chain[2])]), "order"),
        (encoded([&chain[0], &chain[1], &chain[2], &chain[2]]), "repeated"),
        (encoded(&issued(DEVICE, key, &operational_root("Root"), &options(now() - 40 * DAY, 30))), "expired"),
        (encoded(&issued(DEVICE, key, &authority, &options(now() + DAY, 30))), "not yet valid"),
    ] {
        let dps = Dps::script(vec![assigned_with(&told)]);
        let error = register(&dps, &request).await.expect_err(name);
        let Kind::IssuedCertificate { assignment, error: cause } = &error.kind else { panic!("{name}: {error}") };
        if name == "base64 of PEM" {
            assert_eq!(*cause, IssuedCertificateError::Base64 { position: 1 });
        } else {
            assert!(is(cause, name), "{name}: {cause:?}");
        }
        assert_eq!((assignment.assigned_hub.as_str(), &assignment.certificate_chain), (HUB, &None));
        let text = error.to_string();
        assert!(text.starts_with(&format!("{DEVICE} is registered at {HUB}, but the certificate")), "{text}");
        assert_eq!(dps.requests().len(), 1, "{name} is not retried");
    }
}

#[tokio::test]
async fn a_certificate_that_is_a_ca_or_not_for_clients_is_refused() {
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose as Usage, IsCa};

    let (key, request) = OperationalRequest::generate(&id(DEVICE)).expect("a request");
    let own = rcgen_key(&key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let named = |name: &str, is_ca, usages: &[Usage]| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = is_ca;
        params.extended_key_usages = usages.to_vec();
        params
    };
    let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
    let root = named("Root", authority(), &[]).self_signed(&key).expect("a root");
    let issuer = rcgen::Issuer::new(named("Root", authority(), &[]), key);
    let cases: [(IsCa, &[Usage], Option<&str>); 6] = [
        (authority(), &[], Some("is a CA certificate")),
        (authority(), &[Usage::ClientAuth], Some("is a CA certificate")),
        (IsCa::NoCa, &[Usage::ServerAuth], Some("does not allow client authentication")),
        (IsCa::NoCa, &[], None),
        (IsCa::ExplicitNoCa, &[Usage::ServerAuth, Usage::ClientAuth], None),
        (IsCa::NoCa, &[Usage::Any], None),
    ];
    for (is_ca, usages, refused) in cases {
        let leaf = named(DEVICE, is_ca, usages).signed_by(&own, &issuer).expect("a certificate");
        let chain = json!([BASE64_STANDARD.encode(leaf.der()), BASE64_STANDARD.encode(root.der())]);
        let result = register(&Dps::script(vec![assigned_with(&chain)]), &request).await;
        match (result, refused) {
            (Ok(assignment), None) => assert!(assignment.certificate_chain.is_some()),
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (result, _) => panic!("{usages:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_leaf_that_signs_another_is_no_chain() {
    let (key, request) = OperationalRequest::generate(&id(DEVICE)).expect("a request");
    let own = rcgen_key(&key);
    // A device certificate as the issuer.
    let parent = issue_at("sensor-2", &operational_root("Operational Root"), &options(now(), 30));
    let key = rcgen_key(&parent.key);
    let mut name = rcgen::CertificateParams::default();
    name.distinguished_name = rcgen::DistinguishedName::new();
    name.distinguished_name.push(rcgen::DnType::CommonName, "sensor-2");
    let issuer = rcgen::Issuer::new(name, key);
    let mut leaf = rcgen::CertificateParams::default();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, DEVICE);
    let leaf = leaf.signed_by(&own, &issuer).expect("a certificate");
    let leaf = Certificate::from_der(leaf.der()).expect("a certificate");
    let chain = encoded([&leaf, &parent.certificate, &parent.issuers[0]]);
    let error = register(&Dps::script(vec![assigned_with(&chain)]), &request).await.expect_err("no CA");
    let Kind::IssuedCertificate { error, .. } = error.kind else { panic!("{error}") };
    assert!(matches!(error, IssuedCertificateError::Chain(ChainError::NotAnAuthority { .. })), "{error}");
}

#[test]
fn only_a_request_that_the_service_takes_can_be_sent() {
    let of = |algorithm, name: &str| {
        let key = PrivateKey::generate(algorithm).expect("a key");
        CertificateRequest::new(&name.parse().expect("a name"), &key).expect("a request")
    };
    OperationalRequest::new(&id(DEVICE), of(KeyAlgorithm::EcP384, DEVICE)).expect("a request");
    let refused = |request| OperationalRequest::new(&id(DEVICE), request).expect_err("refused");
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::Rsa2048] {
        assert!(matches!(refused(of(algorithm, DEVICE)), OperationalRequestError::Key(_)));
    }
    for name in ["sensor-2", "SENSOR-1"] {
        let error = refused(of(KeyAlgorithm::EcP384, name));
        assert!(matches!(&error, OperationalRequestError::CommonName { found, .. } if found == name), "{error}");
    }
    let long = id(&"a".repeat(65));
    assert!(matches!(OperationalRequest::generate(&long), Err(OperationalRequestError::Name(_))));
}

#[test]
fn a_new_request_reads_back_and_proves_its_key() {
    let (key, request) = OperationalRequest::generate(&id(DEVICE)).expect("a request");
    let read = CertificateRequest::read(request.request().to_pem().as_bytes()).expect("a request");
    assert_eq!(read.der(), request.request().der());
    assert_eq!(read.public_key(), key.public_key());
    assert_eq!(read.subject().common_name(), Some(DEVICE));
    assert!(read.ignored().is_empty());
}
