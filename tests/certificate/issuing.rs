//! Certificates are made by RFC 5280, checked by webpki and, where there is one, by the `openssl` program.

use std::{fs, path::Path, sync::LazyLock, time::Duration};

use crate::support::{DAY, authority_fixture, openssl, rcgen_pem::rcgen_key};
use iot_enroll::certificate::{
    AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, IssueOptions,
    IssuedCertificate, KeyAlgorithm, KeyError, Lifetime, Objection, PrivateKey, PublicKeyAlgorithm, Timestamp, chain,
    files, objections,
};
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// 2030-05-17T12:30:45Z.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_905_251_445).expect("a time");

fn options() -> IssueOptions {
    IssueOptions::new().at(NOW)
}

fn with(algorithm: KeyAlgorithm) -> IssueOptions {
    options().algorithm(algorithm)
}

/// A root with a key of each kind. Some keys take seconds to generate.
static ROOTS: LazyLock<Vec<CertificateAuthority>> =
    LazyLock::new(|| KeyAlgorithm::ALL.into_iter().map(|algorithm| root(&with(algorithm))).collect());

fn name(text: &str) -> CommonName {
    CommonName::new(text).expect("a name")
}

fn id(text: &str) -> DeviceId {
    DeviceId::new(text).expect("an id")
}

fn root(options: &IssueOptions) -> CertificateAuthority {
    let issued = CertificateAuthority::new_root(&name("Test Root Cert"), options).expect("a root");
    issued.into_authority(options.issue_time()).expect("an authority")
}

/// What webpki, which is not ours, says of a client certificate under that root.
fn webpki_accepts(issued: &IssuedCertificate, root: &Certificate, at: Timestamp) -> Result<(), webpki::Error> {
    let der = |certificate: &Certificate| CertificateDer::from(certificate.der().to_vec());
    let root = der(root);
    let leaf = der(&issued.certificate);
    let intermediates: Vec<_> = issued.issuers.iter().map(der).collect();
    let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
        u64::try_from(at.unix_seconds()).expect("after 1970"),
    ));
    EndEntityCert::try_from(&leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor_from_trusted_cert(&root)?],
            &intermediates,
            time,
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(|_| ())
}

/// What the `openssl` program, where there is one, says of the same.
fn openssl_accepts(issued: &IssuedCertificate, root: &Certificate, at: Timestamp) {
    let directory = crate::support::temporary_directory();
    let put = |name: &str, text: String| fs::write(directory.path().join(name), text).expect("written");
    put("root.pem", root.to_pem());
    put("leaf.pem", issued.certificate.to_pem());
    put("others.pem", issued.issuers.iter().map(Certificate::to_pem).collect());
    let time = at.unix_seconds().to_string();
    let arguments = ["verify", "-x509_strict", "-purpose", "sslclient", "-attime", &time, "-CAfile", "root.pem"];
    if let Some(output) =
        openssl(directory.path(), &[&arguments[..], &["-untrusted", "others.pem", "leaf.pem"]].concat())
    {
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_kind_of_key_makes_chains_that_others_accept() {
    for (number, algorithm) in KeyAlgorithm::ALL.into_iter().enumerate() {
        let root = &ROOTS[number];
        // A key of another kind, which is in no other certificate of the chain.
        let next = ROOTS[(number + 1) % ROOTS.len()].key().to_pem().expect("PEM");
        let next = PrivateKey::read(next.as_bytes(), None).expect("a key");
        let intermediate = root.issue_intermediate_with_key(&name("Factory 1"), next, &options());
        let intermediate = intermediate.expect("an intermediate");
        let intermediate = intermediate.into_authority(NOW).expect("an authority");
        let device = intermediate.issue_device(&id("sensor-1"), &with(algorithm)).expect("a device");
        assert_eq!(webpki_accepts(&device, root.certificate(), NOW), Ok(()), "{algorithm}");
        openssl_accepts(&device, root.certificate(), NOW);
        let presented: Vec<_> = device.fullchain().cloned().collect();
        let path = chain::verify(&presented, root.certificate(), NOW).expect("a path");
        assert_eq!(path.len(), 3);
        // The enrolled certificate may be an intermediate.
        assert_eq!(chain::verify(&presented, intermediate.certificate(), NOW).map(|path| path.len()), Ok(2));
        assert_eq!(objections(&device.certificate, NOW), []);
    }
}

#[test]
fn certificates_have_what_rfc_5280_asks_for() {
    let root = root(&options());
    let device = root.issue_device(&id("sensor-1"), &options()).expect("a device").certificate;
    let certificate = root.certificate();
    assert_eq!(certificate.version(), 3);
    let constraints = certificate.basic_constraints().expect("basic constraints");
    assert!(constraints.authority && constraints.path_length.is_none());
    assert!(certificate.key_usage().expect("key usage").certificate_signing);
    assert!(!device.basic_constraints().expect("basic constraints").authority);
    let usage = device.key_usage().expect("key usage");
    assert!(usage.digital_signature && !usage.certificate_signing);
    assert!(device.allows_client_authentication());
    assert_eq!(device.authority_key_identifier(), certificate.subject_key_identifier());
    assert!(device.subject_key_identifier().is_some());
    assert_eq!(certificate.not_before().to_string(), "2030-05-17T12:25:45Z");
    assert_eq!(certificate.not_after().to_string(), "2040-05-17T12:30:45Z");
    assert_eq!(device.not_after().to_string(), "2031-05-17T12:30:45Z");
    // Basic constraints and key usage are critical (sections 4.2.1.9 and 4.2.1.3): OID, then BOOLEAN TRUE.
    for oid in [[0x06, 0x03, 0x55, 0x1d, 0x13], [0x06, 0x03, 0x55, 0x1d, 0x0f]] {
        for certificate in [certificate, &device] {
            let critical = [&oid[..], &[0x01, 0x01, 0xff]].concat();
            assert!(certificate.der().windows(8).any(|window| window == critical));
        }
    }
}

#[test]
fn serial_numbers_are_positive_long_and_never_the_same() {
    let root = root(&options());
    let serials: std::collections::HashSet<_> = (0..50)
        .map(|_| root.issue_device(&id("sensor-1"), &options()).expect("a device").certificate.serial_number())
        .collect();
    assert_eq!(serials.len(), 50);
    for serial in serials {
        assert_eq!(serial.len(), 40, "20 octets, the most allowed");
        let first = u8::from_str_radix(&serial[..2], 16).expect("hexadecimal");
        assert!((0x40..0x80).contains(&first), "positive, and no octet is lost: {serial}");
    }
}

#[test]
fn dates_from_2050_on_are_generalized_time() {
    let at = "2049-12-31T23:59:59Z".parse().expect("a time");
    let lifetime = Some(Lifetime::Days(1));
    let root = CertificateAuthority::new_root(&name("r"), &options().at(at).lifetime(lifetime)).expect("a root");
    // UTCTime (0x17) before 2050, GeneralizedTime (0x18) after (section 4.1.2.5).
    let der = root.certificate.der();
    assert!(der.windows(15).any(|window| window == b"\x17\x0d491231235459Z"));
    assert!(der.windows(17).any(|window| window == b"\x18\x0f20500101235959Z"));
    let root = root.into_authority(at).expect("an authority");
    openssl_accepts(&root.issue_device(&id("sensor-1"), &options().at(at)).expect("a device"), root.certificate(), at);
}

#[test]
fn a_certificate_never_outlives_its_issuer() {
    let short = options().lifetime(Lifetime::Days(10));
    let root = root(&short);
    let device = root.issue_device(&id("sensor-1"), &options()).expect("a device");
    assert_eq!(device.certificate.not_after(), root.certificate().not_after());
    assert_eq!(device.shortened_from, "2031-05-17T12:30:45Z".parse().ok());
    let device = root.issue_device(&id("sensor-1"), &short).expect("a device");
    assert_eq!(device.shortened_from, None);
    // Nor does it begin before its issuer.
    let early = options().at(NOW - Duration::from_secs(4 * 60));
    let device = root.issue_device(&id("sensor-1"), &early).expect("a device");
    assert_eq!(device.certificate.not_before(), root.certificate().not_before());
}

#[test]
fn lifetimes_that_x509_cannot_express_are_refused() {
    for lifetime in [Lifetime::Days(0), Lifetime::Days(u32::MAX), Lifetime::Years(9000)] {
        let options = options().lifetime(lifetime);
        let refused = CertificateAuthority::new_root(&name("r"), &options).expect_err("no such lifetime");
        assert_eq!(refused, AuthorityError::Lifetime(lifetime));
    }
    let leap = options().at("2028-02-29T00:00:00Z".parse().expect("a time")).lifetime(Lifetime::Years(1));
    let root = CertificateAuthority::new_root(&name("r"), &leap).expect("a root");
    assert_eq!(root.certificate.not_after().to_string(), "2029-02-28T00:00:00Z");
}

#[test]
fn authorities_from_elsewhere_sign_in_their_own_name() {
    for (certificate, key, password) in [
        ("ec-sec1_cert.pem", "ec-sec1_key.pem", None),
        ("rsa-pkcs1_cert.pem", "rsa-pkcs1_key.pem", None),
        ("ec-pkcs8_cert.pem", "ec-pkcs8_key.pem", None),
        ("ec-pkcs8_cert.pem", "ec-pkcs8_key_aes.pem", Some("fixture")),
        ("ec-pkcs8_cert.pem", "ec-pkcs8_key_des3.pem", Some("fixture")),
        ("ec-pkcs8_cert.pem", "ec-pkcs8_key_scrypt.pem", Some("fixture")),
        ("p521_cert.pem", "p521_key.pem", None),
        // Several attributes of one type, and strings that are not UTF-8: the issuer has to be the subject's bytes.
        ("directory_cert.pem", "directory_key.pem", None),
        // As the original script makes them: without key identifiers and key usage.
        ("script_cert.pem", "script_key.pem", None),
    ] {
        let authority =
            files::read_authority(&authority_fixture(certificate), &authority_fixture(key), password, NOW).expect(key);
        let device = authority.issue_device(&id("sensor-1"), &options()).expect("a device");
        assert_eq!(device.certificate.issuer().der(), authority.certificate().subject().der(), "{certificate}");
        assert_eq!(
            chain::verify(std::slice::from_ref(&device.certificate), authority.certificate(), NOW).map(|p| p.len()),
            Ok(2)
        );
        assert_eq!(webpki_accepts(&device, authority.certificate(), NOW), Ok(()), "{certificate}");
        let proof = authority.issue_verification(&name("70A1B2"), &options()).expect("a proof");
        assert_eq!(chain::verify_possession(&proof.certificate, authority.certificate(), "70A1B2", NOW), Ok(()));
        let directory = crate::support::temporary_directory();
        fs::write(directory.path().join("leaf.pem"), device.certificate.to_pem()).expect("written");
        let root = authority_fixture(certificate);
        let time = NOW.unix_seconds().to_string();
        let arguments = ["verify", "-attime", &time, "-CAfile", root.to_str().expect("text"), "leaf.pem"];
        if let Some(output) = openssl(directory.path(), &arguments) {
            assert!(output.status.success(), "{certificate}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn an_unfit_authority_is_refused_with_the_check_that_failed() {
    let read = |certificate: &str, key: &str| {
        files::read_authority(&authority_fixture(certificate), &authority_fixture(key), None, NOW)
    };
    let authority_error = |result| match result {
        Err(files::FileError::Authority { error, .. }) => error,
        other => panic!("expected an unfit authority, found {other:?}"),
    };
    assert!(matches!(
        authority_error(read("ec-sec1_cert.pem", "directory_key.pem")),
        AuthorityError::KeyMismatch(subject) if subject == "CN=EC SEC1"
    ));
    assert!(matches!(
        authority_error(read("no-authority_cert.pem", "directory_key.pem")),
        AuthorityError::Unfit(ChainError::NotAnAuthority { .. })
    ));
    assert!(matches!(
        authority_error(read("may-not-sign_cert.pem", "directory_key.pem")),
        AuthorityError::Unfit(ChainError::MayNotSign { .. })
    ));
    let one_day = options().lifetime(Lifetime::Days(1));
    let past = CertificateAuthority::new_root(&name("r"), &one_day).expect("a root");
    let at = |at| CertificateAuthority::new(vec![past.certificate.clone()], copy(&past.key), at);
    assert!(matches!(at(NOW + DAY * 2).expect_err("expired"), AuthorityError::Unfit(ChainError::Expired { .. })));
    assert!(matches!(
        at(NOW - DAY * 2).expect_err("not yet valid"),
        AuthorityError::Unfit(ChainError::NotYetValid { .. })
    ));
}

fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::read(key.to_pem().expect("PEM").as_bytes(), None).expect("a key")
}

#[test]
fn an_authority_is_found_among_the_certificates_of_a_file_by_its_key() {
    let root = root(&options());
    let intermediate = root.issue_intermediate(&name("Factory 1"), &options()).expect("an intermediate");
    let device = intermediate.certificate.clone();
    let mut shuffled = vec![
        root.certificate().clone(),
        Certificate::read(&fs::read(authority_fixture("p521_cert.pem")).expect("read")).expect("a certificate"),
        device,
    ];
    let authority = CertificateAuthority::new(shuffled.clone(), copy(&intermediate.key), NOW).expect("an authority");
    assert_eq!(authority.certificate(), &intermediate.certificate);
    assert_eq!(authority.issuers(), [root.certificate().clone()]);
    shuffled.pop();
    assert!(CertificateAuthority::new(shuffled, intermediate.key, NOW).is_err());
}

#[test]
fn path_lengths_are_kept() {
    let root = root(&options());
    let first = root.issue_intermediate(&name("First"), &options()).expect("first");
    let first_certificate = first.certificate.clone();
    let first = first.into_authority(NOW).expect("an authority");
    let second = first
        .issue_intermediate(&name("Second"), &options())
        .expect("second")
        .into_authority(NOW)
        .expect("an authority");
    let device = second.issue_device(&id("sensor-1"), &options()).expect("a device");
    assert_eq!(
        chain::verify(&device.fullchain().cloned().collect::<Vec<_>>(), root.certificate(), NOW).map(|p| p.len()),
        Ok(4)
    );
    assert_eq!(first_certificate.basic_constraints().expect("constraints").path_length, None, "the root sets no limit");

    let limited = authority_with_path_length("limited-1");
    let below = limited.issue_intermediate(&name("Below"), &options()).expect("one is allowed");
    assert_eq!(below.certificate.basic_constraints().expect("constraints").path_length, Some(0));
    let below = below.into_authority(NOW).expect("an authority");
    let refused = below.issue_intermediate(&name("Too Deep"), &options()).expect_err("none is allowed");
    assert_eq!(refused, AuthorityError::PathLength("CN=Below".to_owned()));
    let device = below.issue_device(&id("sensor-1"), &options()).expect("a device");
    assert_eq!(webpki_accepts(&device, limited.certificate(), NOW), Ok(()));
}

fn authority_with_path_length(stem: &str) -> CertificateAuthority {
    let file = |suffix: &str| authority_fixture(&format!("{stem}_{suffix}.pem"));
    files::read_authority(&file("cert"), &file("key"), None, NOW).expect("an authority")
}

/// A certificate whose RSA key has no `NULL` beside its identifier. Its own signature is wrong then, and does not count.
fn without_null(certificate: &Certificate) -> Certificate {
    const IDENTIFIER: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let mut der = certificate.der().to_vec();
    let at = der.windows(IDENTIFIER.len()).position(|window| window == IDENTIFIER).expect("an RSA key");
    der.drain(at + 13..at + 15);
    der[at + 1] -= 2;
    // The lengths of the certificate, of its signed part and of the public key, in two octets each.
    for header in [0, 4, at - 4] {
        assert_eq!(der[header..header + 2], [0x30, 0x82]);
        let length = u16::from_be_bytes([der[header + 2], der[header + 3]]) - 2;
        der[header + 2..header + 4].copy_from_slice(&length.to_be_bytes());
    }
    Certificate::from_der(&der).expect("reads")
}

#[test]
fn an_rsa_key_matches_a_certificate_without_the_null_parameter() {
    let read = |name: &str| fs::read(authority_fixture(name)).expect("read");
    let certificate = Certificate::read(&read("rsa-pkcs1_cert.pem")).expect("a certificate");
    let key = || PrivateKey::read(&read("rsa-pkcs1_key.pem"), None).expect("a key");
    let bare = without_null(&certificate);
    assert_ne!(bare.public_key(), certificate.public_key());
    assert_eq!(bare.uncompressed_public_key(), certificate.uncompressed_public_key());
    assert!(key().belongs_to(&bare));
    assert!(!PrivateKey::generate(KeyAlgorithm::Rsa2048).expect("a key").belongs_to(&bare));
    let authority = CertificateAuthority::new(vec![bare], key(), NOW).expect("an authority");
    let device = authority.issue_device(&id("sensor-1"), &options()).expect("a device");
    assert!(device.certificate.verify_signature(&certificate).is_ok());
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason() {
    let read = |name: &str, password| {
        PrivateKey::read(&fs::read(authority_fixture(name)).expect("read"), password).expect_err("no key")
    };
    assert_eq!(read("ec-pkcs8_key_aes.pem", None), KeyError::PasswordNeeded);
    for encrypted in ["ec-pkcs8_key_aes.pem", "ec-pkcs8_key_des3.pem", "ec-pkcs8_key_scrypt.pem"] {
        assert_eq!(read(encrypted, Some("wrong")), KeyError::WrongPassword, "{encrypted}");
    }
    assert_eq!(read("traditional-encryption_key.pem", None), KeyError::PasswordNeeded);
    assert_eq!(read("traditional-encryption_key.pem", Some("wrong")), KeyError::WrongPassword);
    assert_eq!(read("ed25519_key.pem", None), KeyError::Unsupported("Ed25519".to_owned()));
    assert!(read("ec-sec1_cert.pem", None).to_string().contains("a certificate"));
    assert!(matches!(PrivateKey::read(b"", None), Err(KeyError::NoKey(_))));
    assert!(matches!(PrivateKey::read(b"a key", None), Err(KeyError::NoKey(_))));
}

#[test]
fn a_key_survives_its_encodings_and_is_never_shown() {
    for root in ROOTS.iter() {
        let key = root.key();
        let pem = key.to_pem().expect("PEM");
        let der = key.to_pkcs8_der().expect("DER");
        for bytes in [pem.as_bytes(), &der, format!("\u{feff}{}", pem.replace('\n', "\r\n")).as_bytes()] {
            let read = PrivateKey::read(bytes, None).expect("the same key");
            assert_eq!(*read.to_pkcs8_der().expect("DER"), *der);
        }
        let shown = format!("{key:?}");
        assert!(shown.len() < 20, "{shown}");
    }
}

#[test]
fn each_chain_failure_has_its_own_error() {
    let root = root(&options());
    let other = CertificateAuthority::new_root(&name("Other Root"), &options())
        .expect("a root")
        .into_authority(NOW)
        .expect("an authority");
    let namesake = CertificateAuthority::new_root(&name("Test Root Cert"), &options())
        .expect("a root")
        .into_authority(NOW)
        .expect("an authority");
    let intermediate = root
        .issue_intermediate(&name("Factory 1"), &options())
        .expect("an intermediate")
        .into_authority(NOW)
        .expect("an authority");
    let device = intermediate.issue_device(&id("sensor-1"), &options()).expect("a device");
    let full: Vec<_> = device.fullchain().cloned().collect();
    let verify = |presented: &[Certificate], enrolled: &CertificateAuthority, at| {
        chain::verify(presented, enrolled.certificate(), at).expect_err("no valid chain")
    };
    assert_eq!(verify(&[], &root, NOW), ChainError::Empty);
    assert!(
        matches!(verify(&full[..1], &root, NOW), ChainError::IssuerMissing { issuer, .. } if issuer == "CN=Factory 1")
    );
    assert!(
        matches!(verify(&full, &other, NOW), ChainError::LeadsElsewhere { root, .. } if root == "CN=Test Root Cert")
    );
    assert!(
        matches!(verify(&full, &namesake, NOW), ChainError::WrongSigner { subject, .. } if subject == "CN=Factory 1")
    );
    let later = NOW + DAY * 400;
    assert!(matches!(verify(&full, &root, later), ChainError::Expired { subject, .. } if subject == "CN=sensor-1"));
    let sooner = NOW - DAY;
    assert!(matches!(verify(&full, &root, sooner), ChainError::NotYetValid { .. }));
    let leaf_as_issuer = CertificateAuthority::new(vec![device.certificate.clone()], copy(&device.key), NOW);
    assert!(matches!(leaf_as_issuer.expect_err("a leaf"), AuthorityError::Unfit(ChainError::NotAnAuthority { .. })));
    // The order of the others does not matter, and strangers among them do no harm.
    let shuffled = [full[0].clone(), other.certificate().clone(), full[2].clone(), full[1].clone()];
    assert_eq!(chain::verify(&shuffled, root.certificate(), NOW).map(|path| path.len()), Ok(3));
}

#[test]
fn a_cross_signed_authority_leads_on_by_whichever_signature_does() {
    let (one, two) = (root(&options()), root(&options()));
    let key = PrivateKey::generate(KeyAlgorithm::EcP256).expect("a key");
    let params = |issuer: &CertificateAuthority| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Crossed");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let mut name = rcgen::CertificateParams::default();
        name.distinguished_name = rcgen::DistinguishedName::new();
        name.distinguished_name.push(rcgen::DnType::CommonName, "Test Root Cert");
        let issuer = rcgen::Issuer::new(name, rcgen_key(issuer.key()));
        Certificate::from_der(params.signed_by(&rcgen_key(&key), &issuer).expect("a certificate").der())
            .expect("reads back")
    };
    let crossed = [params(&one), params(&two)];
    let authority = CertificateAuthority::new(vec![crossed[0].clone()], copy(&key), NOW).expect("an authority");
    let device = authority.issue_device(&id("sensor-1"), &options()).expect("a device").certificate;
    for order in [[0, 1], [1, 0]] {
        let presented = [device.clone(), crossed[order[0]].clone(), crossed[order[1]].clone()];
        for enrolled in [&one, &two] {
            assert_eq!(chain::verify(&presented, enrolled.certificate(), NOW).map(|path| path.len()), Ok(3));
        }
    }
}

#[test]
fn each_proof_failure_has_its_own_error() {
    let (root, other) = (root(&options()), root(&options()));
    let proof = root.issue_verification(&name("70A1B2"), &options()).expect("a proof").certificate;
    let check =
        |enrolled: &CertificateAuthority, code, at| chain::verify_possession(&proof, enrolled.certificate(), code, at);
    assert_eq!(check(&root, "70A1B2", NOW), Ok(()));
    assert!(matches!(check(&root, "70a1b2", NOW), Err(ChainError::WrongCode { found, .. }) if found == "70A1B2"));
    assert!(matches!(check(&other, "70A1B2", NOW), Err(ChainError::WrongSigner { .. })));
    assert!(matches!(check(&root, "70A1B2", NOW + DAY * 2), Err(ChainError::Expired { .. })));
    let lone = CertificateAuthority::self_signed_device(&id("70A1B2"), &options()).expect("a device").certificate;
    let itself = chain::verify_possession(&lone, &lone, "70A1B2", NOW);
    assert!(matches!(itself, Err(ChainError::NotAnAuthority { .. })), "{itself:?}");
}

#[test]
fn certificates_that_a_service_would_refuse_are_reported() {
    let object = |file: &str| {
        let certificate = Certificate::read(&fs::read(authority_fixture(file)).expect("read")).expect("a certificate");
        objections(&certificate, NOW)
    };
    assert_eq!(object("ed25519_cert.pem"), [Objection::Key(PublicKeyAlgorithm::Other("Ed25519".to_owned()))]);
    assert!(matches!(object("may-not-sign_cert.pem")[..], [Objection::Invalid(ChainError::MayNotSign { .. })]));
    let lone = CertificateAuthority::self_signed_device(&id("sensor-1"), &options()).expect("a device").certificate;
    assert_eq!(objections(&lone, NOW), [Objection::SelfSignedLeaf]);
    let soon = lone.not_after() - DAY * 3;
    assert_eq!(objections(&lone, soon)[0], Objection::ExpiresSoon(lone.not_after()));
    assert!(matches!(objections(&lone, soon + DAY * 9)[0], Objection::Invalid(ChainError::Expired { .. })));
    let spaced =
        root(&options()).issue_verification(&name("not an id"), &options()).expect("a certificate").certificate;
    assert!(
        matches!(&objections(&spaced, NOW)[..], [Objection::CommonName(reason), Objection::ExpiresSoon(_)] | [Objection::ExpiresSoon(_), Objection::CommonName(reason)] if reason.contains("position 4"))
    );
}

#[test]
fn a_name_too_long_for_x509_is_refused_before_anything_is_created() {
    let refused = root(&options()).issue_device(&id(&"a".repeat(65)), &options()).expect_err("too long");
    assert!(matches!(refused, AuthorityError::Name(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_allowed_name_makes_a_certificate_that_others_read(text in "[^\\s\\p{Cc}\\p{Cf}][^\\p{Cc}\\p{Cf}]{0,62}[^\\s\\p{Cc}\\p{Cf}]", days in 1_u32..40_000) {
        let name = CommonName::new(text.clone()).expect("an allowed name");
        let options = options().lifetime(Lifetime::Days(days));
        let root = CertificateAuthority::new_root(&name, &options).expect("a root");
        prop_assert_eq!(root.certificate.subject().common_name(), Some(text.as_str()));
        prop_assert_eq!(root.certificate.not_after(), NOW + DAY * days);
        let authority = root.into_authority(NOW).expect("an authority");
        let device = authority.issue_device(&id("sensor-1"), &options).expect("a device");
        prop_assert_eq!(webpki_accepts(&device, authority.certificate(), NOW), Ok(()));
    }

    #[test]
    fn no_bytes_make_reading_a_key_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), position in 0_usize..300, byte: u8) {
        let _ = PrivateKey::read(&bytes, Some("password"));
        for file in ["ec-pkcs8_key_aes.pem", "rsa-pkcs1_key.pem"] {
            let mut text = fs::read(Path::new(&authority_fixture(file))).expect("read");
            let index = position % text.len();
            text[index] = byte;
            // The number of rounds must not be made huge: only the outcome matters, not the time.
            if file.contains("rsa") { let _ = PrivateKey::read(&text, None); }
        }
    }
}

#[test]
fn a_server_certificate_is_for_the_names_that_it_is_given_and_not_for_clients() {
    let root = root(&options());
    let names = ["localhost", "127.0.0.1", "::1"];
    let issued = root.issue_server(&name("server"), &names, &options()).expect("a certificate");
    assert!(!issued.certificate.allows_client_authentication());
    assert_eq!(issued.certificate.not_after(), "2031-05-17T12:30:45Z".parse().expect("a time"));
    let der = CertificateDer::from(issued.certificate.der().to_vec());
    let leaf = EndEntityCert::try_from(&der).expect("a certificate");
    for name in names {
        leaf.verify_is_valid_for_subject_name(&name.try_into().expect("a name")).expect(name);
    }
    leaf.verify_is_valid_for_subject_name(&"elsewhere.example".try_into().expect("a name")).expect_err("another name");
    root.issue_server(&name("server"), &["no\u{e9}"], &options()).expect_err("no name of the DNS");
}
