//! Server certificates and certificates with alternative names are valid for exactly the names that they are given.

use std::time::Duration;

use crate::support::rcgen_pem::{certificate_pem, key_pem};
use iot_enroll::certificate::{
    AlternativeName, AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, IssueOptions,
    IssuedCertificate, KeyAlgorithm, LeafParams, Timestamp,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

fn name(text: &str) -> CommonName {
    CommonName::new(text).expect("a common name")
}

fn san(text: &str) -> AlternativeName {
    AlternativeName::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn server(common_name: &str, names: &[&str]) -> LeafParams {
    LeafParams::server(name(common_name)).alternative_names(names.iter().map(|text| san(text)))
}

/// What webpki, as rustls uses it, says of a server certificate for a name.
fn webpki_accepts(issued: &IssuedCertificate, root: &Certificate, server: &str) -> Result<(), webpki::Error> {
    let der = |certificate: &Certificate| CertificateDer::from(certificate.der().to_vec());
    let (root, leaf) = (der(root), der(&issued.certificate));
    let above: Vec<_> = issued.issuers.iter().map(der).collect();
    let now = u64::try_from(Timestamp::now().unix_seconds()).expect("after 1970");
    let leaf = EndEntityCert::try_from(&leaf)?;
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[anchor_from_trusted_cert(&root)?],
        &above,
        UnixTime::since_unix_epoch(Duration::from_secs(now)),
        KeyUsage::server_auth(),
        None,
        None,
    )?;
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(server).expect("a name"))
}

/// A CA that rcgen makes, with what the program does not offer.
fn authority(adjust: impl FnOnce(&mut CertificateParams)) -> CertificateAuthority {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Constrained");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = time::macros::datetime!(2020-01-01 0:00 UTC);
    params.not_after = time::macros::datetime!(2100-01-01 0:00 UTC);
    adjust(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    CertificateAuthority::from_pem(certificate_pem(&certificate), key_pem(&key), Timestamp::now())
        .expect("an authority")
}

#[test]
fn server_certificate_is_accepted_for_its_names_only() {
    let options = IssueOptions::new();
    let root = authority(|_| ());
    let intermediate = root.issue_intermediate(&name("I"), &options).expect("an intermediate");
    let intermediate = intermediate.into_authority(Timestamp::now()).expect("an authority");
    let names = ["broker.example", "*.Plant.example", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::7"];
    let (good, bad) = (
        ["broker.example", "a.plant.example", "xn--bcher-kva.example", "192.0.2.7", "2001:db8::7"],
        ["Broker", "plant.example", "a.b.plant.example", "192.0.2.8", "other.example"],
    );
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::Rsa2048] {
        let options = options.algorithm(algorithm);
        for client in [false, true] {
            let leaf = server("Broker", &names);
            let leaf = if client { leaf.client_authentication() } else { leaf };
            let issued = intermediate.issue_leaf(&leaf, &options).expect("issued");
            assert_eq!(issued.certificate.allows_client_authentication(), client);
            for name in good {
                webpki_accepts(&issued, root.certificate(), name).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            for name in bad {
                webpki_accepts(&issued, root.certificate(), name).expect_err(name);
            }
        }
    }
    let own = server("Broker", &names).self_signed(&options).expect("issued");
    for name in good {
        webpki_accepts(&own, &own.certificate, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn common_name_is_the_only_name_unless_others_are_given() {
    let names = |leaf: &LeafParams| {
        let issued = leaf.self_signed(&IssueOptions::new()).expect("issued");
        let names = issued.certificate.subject_alternative_names().unwrap_or_default();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names(&LeafParams::server(name("Gateway.Example"))), ["DNS:gateway.example"]);
    assert_eq!(names(&LeafParams::server(name("192.0.2.7"))), ["IP:192.0.2.7"]);
    assert_eq!(
        names(&server("gateway.example", &["b.example", "B.example", "::1", "0:0::1"])),
        ["DNS:b.example", "IP:::1"]
    );
    let device = LeafParams::device(&DeviceId::new("d.example").expect("an ID")).expect("a device");
    assert!(names(&device).is_empty());
    assert_eq!(names(&device.alternative_names([san("d.example")])), ["DNS:d.example"]);
    for nameless in [LeafParams::server(name("my broker")), server("gateway.example", &[])] {
        let error = nameless.self_signed(&IssueOptions::new()).expect_err("no name");
        assert!(matches!(error, AuthorityError::NoAlternativeName(_)), "{error}");
    }
}

#[test]
fn an_alternative_name_is_only_a_host() {
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert_eq!(long.len(), 253);
    for good in
        ["a", "a-b.example", "1.example", "*.a.b", "3com.example", "xn--bcher-kva.example", "::ffff:192.0.2.1", &long]
    {
        san(good);
    }
    let too_long = format!("{long}d");
    let label = format!("{}.example", "a".repeat(64));
    for bad in [
        "",
        " ",
        "a b",
        "https://a.example",
        "a.example:8883",
        "a.example/x",
        "10.0.0.0/8",
        "a_b.example",
        "a@b.example",
        "b\u{fc}cher.example",
        "*",
        "*.example",
        "*a.b.example",
        "a.*.example",
        "*.*.b.example",
        "a.example.",
        ".a",
        "a..b",
        "-a.b",
        "a-.b",
        "1.2.3",
        "256.1.1.1",
        "010.0.0.1",
        "[::1]",
        "[::1]:8883",
        "::1::",
        "fe80::1%eth0",
        "DNS:a.example",
        "ip:192.0.2.1",
        "a\0b",
        "a\nb",
        &too_long,
        &label,
    ] {
        let error = AlternativeName::new(bad).expect_err(bad).to_string();
        assert!(error.starts_with("expected a DNS name or an IP address: "), "{bad:?}: {error}");
    }
}

/// Why a certificate is not issued.
#[track_caller]
fn refused(authority: &CertificateAuthority, leaf: &LeafParams) -> ChainError {
    match authority.issue_leaf(leaf, &IssueOptions::new()).expect_err("refused") {
        AuthorityError::Invalid { error, .. } => *error,
        other => panic!("{other}"),
    }
}

#[test]
fn server_certificate_that_would_not_verify_is_not_issued() {
    let options = IssueOptions::new();
    let plant = authority(|params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("plant.example".to_owned())],
            excluded_subtrees: vec![GeneralSubtree::DnsName("secret.plant.example".to_owned())],
        });
    });
    for good in [&["a.plant.example"][..], &["*.plant.example2.plant.example"], &["a.plant.example", "192.0.2.7"]] {
        let issued = plant.issue_leaf(&server("s", good), &options).expect("permitted");
        webpki_accepts(&issued, plant.certificate(), &good[0].replace('*', "x")).expect("accepted");
    }
    for bad in ["other.example", "secret.plant.example", "x.secret.plant.example", "*.plant.example"] {
        let error = refused(&plant, &server("s", &["a.plant.example", bad]));
        assert!(
            matches!(error, ChainError::NameNotPermitted { .. } | ChainError::NameExcluded { .. }),
            "{bad}: {error}"
        );
    }
    // OpenSSL holds a common name to the constraints, if there is no DNS name beside it.
    let error = refused(&plant, &server("other.example", &["192.0.2.7"]));
    assert!(matches!(error, ChainError::NameNotPermitted { .. }), "{error}");
    plant.issue_leaf(&server("a.plant.example", &["192.0.2.7"]), &options).expect("permitted");

    let clients = authority(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let error = refused(&clients, &server("s", &["a.example"]));
    assert!(matches!(error, ChainError::NotForServers { .. }), "{error}");
    let device = LeafParams::device(&DeviceId::new("d").expect("an ID")).expect("a device");
    clients.issue_leaf(&device, &options).expect("a client certificate");
}

#[test]
fn authority_for_servers_issues_what_servers_need() {
    let options = IssueOptions::new();
    let servers = authority(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let leaf = server("s", &["s.example"]);
    let issued = servers.issue_leaf(&leaf, &options).expect("a server certificate");
    webpki_accepts(&issued, servers.certificate(), "s.example").expect("accepted");
    servers.issue_server(&name("s"), &["s.example"], &options).expect("a server certificate");
    let edge_ca = servers.issue_edge_ca(&name("edge-1"), &options).expect("an Edge CA");
    let below = servers.issue_intermediate(&name("I"), &options).expect("an intermediate");
    for authority in [edge_ca, below] {
        let authority = authority.into_authority(Timestamp::now()).expect("an authority");
        let issued = authority.issue_leaf(&leaf, &options).expect("a server certificate");
        webpki_accepts(&issued, servers.certificate(), "s.example").expect("accepted");
        let error = refused(&authority, &server("s", &["s.example"]).client_authentication());
        assert!(matches!(error, ChainError::NotForClients { .. }), "{error}");
        let error = authority.issue_device(&DeviceId::new("d").expect("an ID"), &options).expect_err("refused");
        assert!(error.to_string().contains("lacks client authentication"), "{error}");
    }
}

#[test]
fn authority_for_any_usage_issues_no_server_certificates() {
    let options = IssueOptions::new();
    let any = authority(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    let error = refused(&any, &server("s", &["s.example"]));
    assert!(matches!(error, ChainError::ServersByAnyUsage { .. }), "{error}");
    any.issue_edge_ca(&name("edge-1"), &options).expect_err("its server certificates would be refused");
    any.issue_device(&DeviceId::new("d").expect("an ID"), &options).expect("services accept it");
    let both = vec![ExtendedKeyUsagePurpose::Any, ExtendedKeyUsagePurpose::ServerAuth];
    let both = authority(|params| params.extended_key_usages = both);
    let issued = both.issue_leaf(&server("s", &["s.example"]), &options).expect("a server certificate");
    webpki_accepts(&issued, both.certificate(), "s.example").expect("accepted");
}

#[test]
fn edge_ca_is_not_valid_for_longer_than_its_root() {
    let key = || KeyPair::generate().expect("a key");
    let params = |name: &str, not_after| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = time::macros::datetime!(2020-01-01 0:00 UTC);
        params.not_after = not_after;
        params
    };
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let root_key = key();
    let root = params("Root", time::macros::datetime!(2030-03-01 0:00 UTC));
    let root_pem = certificate_pem(&root.self_signed(&root_key).expect("a root"));
    let issuer = rcgen::Issuer::new(root, root_key);
    let own_key = key();
    let below = params("Below", time::macros::datetime!(2040-01-01 0:00 UTC));
    let pem = certificate_pem(&below.signed_by(&own_key, &issuer).expect("an intermediate")) + &root_pem;
    let authority = CertificateAuthority::from_pem(pem, key_pem(&own_key), now).expect("an authority");
    let options = IssueOptions::new().at(now);
    let error = authority.issue_edge_ca(&name("edge-1"), &options).expect_err("the root expires soon");
    assert!(matches!(error, AuthorityError::ShortValidity { .. }), "{error}");
    let days = options.lifetime(iot_enroll::certificate::Lifetime::Days(50));
    authority.issue_edge_ca(&name("edge-1"), &days).expect("requested");
}
