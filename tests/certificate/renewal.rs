//! Renewed certificates differ from the old ones only where they must.

use std::time::Duration;

use iot_enroll::certificate::{
    AlternativeName, Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions, IssuedCertificate,
    KeyAlgorithm, LeafParams, Lifetime, Timestamp, chain,
    files::{FileSet, IfExists},
    renewal::{RenewalError, RenewalOptions, RenewalThreshold, Renewed, RenewedSet, Renewer},
};
use proptest::prelude::*;

use crate::{
    forge::{
        self, Forge, Key, NOW, alternative_names, common_name, der, extended_usage, extension, extension_of,
        identifiers, name as forged_name, rdn, sequence,
    },
    support::{DAY, temporary_directory},
};

fn name(text: &str) -> CommonName {
    CommonName::new(text).expect("a common name")
}

fn at(days: u32) -> Timestamp {
    NOW + DAY * days
}

fn options(days: u32) -> IssueOptions {
    IssueOptions::new().at(at(0)).lifetime(Lifetime::Days(days))
}

fn root(algorithm: KeyAlgorithm) -> IssuedCertificate {
    CertificateAuthority::new_root(&name("Root"), &options(3000).algorithm(algorithm)).expect("a root")
}

/// The elements of a content in DER, with their headers.
fn elements(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, length) = match bytes[1] {
            short if short < 0x80 => (2, usize::from(short)),
            0x81 => (3, usize::from(bytes[2])),
            _ => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        };
        let (element, rest) = bytes.split_at(header + length);
        found.push(element.to_vec());
        bytes = rest;
    }
    found
}

fn content(element: &[u8]) -> &[u8] {
    match element[1] {
        short if short < 0x80 => &element[2..],
        0x81 => &element[3..],
        _ => &element[4..],
    }
}

/// The parts of the signed content of a version 3 certificate, and its extensions.
fn parts(certificate: &Certificate) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let signed = elements(content(certificate.der())).remove(0);
    let mut parts = elements(content(&signed));
    let extensions = match parts.last() {
        Some(last) if last[0] == 0xa3 => {
            let tagged = parts.pop().expect("extensions");
            elements(content(&elements(content(&tagged))[0]))
        }
        _ => Vec::new(),
    };
    (parts, extensions)
}

const SERIAL: usize = 1;
const VALIDITY: usize = 4;
const KEY: usize = 6;

/// Checks that two certificates differ only in serial number, validity and signature, and with a new key in the key and
/// its identifiers.
fn check_same_contents(old: &Certificate, new: &Certificate, has_new_key: bool) {
    let ((old_parts, old_extensions), (new_parts, new_extensions)) = (parts(old), parts(new));
    assert_eq!(old_parts.len(), new_parts.len());
    for (index, (old, new)) in old_parts.iter().zip(&new_parts).enumerate() {
        let differs = match index {
            SERIAL => true,
            KEY => has_new_key,
            VALIDITY => continue,
            _ => false,
        };
        assert_eq!(old != new, differs, "part {index}");
    }
    assert_eq!(old_extensions.len(), new_extensions.len());
    let is_self_signed = old.subject() == old.issuer();
    for (old, new) in old_extensions.iter().zip(&new_extensions) {
        let id = elements(content(old)).remove(0);
        let names_key = id.ends_with(&[0x55, 0x1d, 14]) || (is_self_signed && id.ends_with(&[0x55, 0x1d, 35]));
        assert_eq!(old != new, has_new_key && names_key, "extension {id:02x?}");
    }
}

/// Writes a certificate and renews it at that time.
fn renewed(
    issued: &IssuedCertificate,
    authority: Option<&CertificateAuthority>,
    options: RenewalOptions,
) -> Result<RenewedSet, RenewalError> {
    let directory = temporary_directory();
    let files = FileSet::of_file(&directory.path().join("set_cert.pem")).expect("a file name");
    let chain: Vec<_> = issued.fullchain().collect();
    // The common name may be no file name.
    files.write_with_key(&chain, &issued.key, None, IfExists::Fail).expect("written");
    match Renewer::new(options).authority(authority).renew_set(&files)? {
        Renewed::Done(set) => Ok(*set),
        Renewed::NotDue(_) => panic!("not due"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn only_serial_number_validity_and_signature_differ(
        id in "[a-z0-9][a-z0-9.:_-]{0,40}[a-z0-9]",
        san in proptest::collection::vec("[a-z]{1,8}\\.example", 0..4),
        is_server: bool,
        is_client: bool,
        is_self_signed: bool,
        has_new_key: bool,
        lifetime in 1_u32..900,
        later in 0_u32..1200,
        authority_algorithm in prop_oneof![Just(KeyAlgorithm::EcP256), Just(KeyAlgorithm::EcP384)],
        algorithm in prop_oneof![Just(KeyAlgorithm::EcP256), Just(KeyAlgorithm::EcP384)],
    ) {
        let root = root(authority_algorithm).into_authority(at(0)).expect("a CA");
        let names = san.iter().map(|name| AlternativeName::new(name).expect("a name"));
        let leaf = if is_server && !san.is_empty() {
            let leaf = LeafParams::server(name(&id));
            if is_client { leaf.client_authentication() } else { leaf }
        } else {
            LeafParams::device(&DeviceId::new(&id).expect("an ID")).expect("a name")
        };
        let leaf = leaf.alternative_names(names);
        let options = options(lifetime).algorithm(algorithm);
        let issued = if is_self_signed { leaf.self_signed(&options) } else { root.issue_leaf(&leaf, &options) };
        let issued = issued.expect("issued");
        let mut renewal = RenewalOptions::new().at(at(later));
        if has_new_key {
            renewal = renewal.new_key();
        }
        let set = renewed(&issued, (!is_self_signed).then_some(&root), renewal).expect("renewed");
        let (old, new) = (&issued.certificate, &set.certificate);
        check_same_contents(old, new, has_new_key);
        prop_assert_eq!(new.not_before(), at(later) - Duration::from_secs(300));
        let lifetime = |it: &Certificate| it.not_after().duration_since(it.not_before());
        prop_assert_eq!(lifetime(old), lifetime(new));
        // Again, webpki is the judge.
        if !is_self_signed {
            chain::verify(std::slice::from_ref(new), root.certificate(), at(later)).expect("valid");
            let anchor = rustls_pki_types::CertificateDer::from(root.certificate().der());
            let anchor = webpki::anchor_from_trusted_cert(&anchor).expect("an anchor");
            let leaf = rustls_pki_types::CertificateDer::from(new.der());
            let leaf = webpki::EndEntityCert::try_from(&leaf).expect("a certificate");
            let time = Duration::from_secs(u64::try_from(at(later).unix_seconds()).expect("after 1970"));
            let usage = if new.allows_client_authentication() {
                webpki::KeyUsage::client_auth()
            } else {
                webpki::KeyUsage::server_auth()
            };
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            let time = rustls_pki_types::UnixTime::since_unix_epoch(time);
            leaf.verify_for_usage(algorithms, &[anchor], &[], time, usage, None, None).expect("webpki accepts it");
        }
    }
}

#[test]
fn rsa_and_ca_certificates_are_renewed() {
    let root_set = root(KeyAlgorithm::Rsa2048);
    let (old_root, root_key) = (root_set.certificate.clone(), root_set.key.public_key());
    let root_authority = root(KeyAlgorithm::Rsa2048).into_authority(at(0)).expect("a CA");
    let intermediate = root_authority.issue_intermediate(&name("I"), &options(2000)).expect("issued");
    for has_new_key in [false, true] {
        let mut later = RenewalOptions::new().at(at(100)).lifetime(Lifetime::Days(2500));
        if has_new_key {
            later = later.new_key();
        }
        let set = renewed(&intermediate, Some(&root_authority), later).expect("renewed");
        check_same_contents(&intermediate.certificate, &set.certificate, has_new_key);
        let set = renewed(&root_set, None, later).expect("renewed");
        check_same_contents(&old_root, &set.certificate, has_new_key);
        assert_eq!(set.certificate.public_key() == root_key, !has_new_key);
        assert_eq!(set.certificate.public_key_algorithm(), old_root.public_key_algorithm());
        set.certificate.verify_signature(&set.certificate).expect("self-signed");
    }
}

#[test]
fn a_renewed_certificate_does_not_outlive_its_issuer() {
    let root = CertificateAuthority::new_root(&name("Root"), &options(400)).expect("a root");
    let root = root.into_authority(at(0)).expect("a CA");
    let device = |days| root.issue_device(&DeviceId::new("d").expect("an ID"), &options(days)).expect("issued");
    let later = RenewalOptions::new().at(at(350));
    let set = renewed(&device(100), Some(&root), later).expect("renewed although it has expired");
    assert_eq!(set.certificate.not_after(), root.certificate().not_after());
    assert_eq!(set.shortened_from, Some(at(450)));
    // Nothing would be gained.
    let error = renewed(&device(400), Some(&root), later).expect_err("refused");
    assert!(matches!(error, RenewalError::IssuerEndsFirst { .. }), "{error}");
    assert!(error.to_string().contains("Renew the issuer first"), "{error}");
    renewed(&device(400), Some(&root), later.new_key()).expect("a new key is a gain");
    let expired = renewed(&device(100), Some(&root), RenewalOptions::new().at(at(401))).expect_err("an expired CA");
    assert!(expired.to_string().contains("expired"), "{expired}");
}

#[test]
fn other_extensions_and_names_are_copied() {
    let (authority_key, key) = (Key::new(), Key::new());
    // Two attributes of one type, in string types that no library would choose.
    let subject = forged_name(&[
        rdn(&[0x55, 0x04, 0x0b], forge::TELETEX, b"Fl\xe4che"),
        rdn(&[0x55, 0x04, 0x0b], forge::PRINTABLE, b"Two"),
        rdn(forge::CN, forge::BMP, b"\0d\0-\x001"),
    ]);
    let [own, issuer] = identifiers(b"device", b"not that of the CA");
    let unknown = extension_of(&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a], false, b"anything");
    let other_name = der(0xa0, &[der(0x06, &[0x2b, 0x06, 0x01, 0x04]), der(0xa0, &der(forge::UTF8, b"x"))].concat());
    let forged = Forge { subject, ..Forge::leaf("", "CA") }
        .with(unknown)
        .with(extended_usage(&[forge::CLIENT_AUTH]))
        .with(alternative_names(&[der(0x86, b"urn:x:y"), other_name]))
        .with(own)
        .with(issuer);
    let old = forged.make(&key, &authority_key);
    let authority = |key: &Key| {
        let [own, issuer] = identifiers(b"the CA", b"the CA");
        let validity = sequence(&[der(0x17, b"300101000000Z"), der(0x18, b"99991231235959Z")]);
        let forged = Forge { validity, ..Forge::authority("CA", "CA") }.with(own).with(issuer);
        CertificateAuthority::new(vec![forged.make(key, key)], key.private(), NOW).expect("a CA")
    };
    let renewal = RenewalOptions::new().at(NOW);
    let new = authority(&authority_key).renew(&old, None, &renewal).expect("renewed").certificate;
    let ((_, before), (_, after)) = (parts(&old), parts(&new));
    // All but the authority key identifier, which is that of the CA now.
    assert_eq!(before.split_last().expect("extensions").1, after.split_last().expect("extensions").1);
    assert_eq!(new.authority_key_identifier(), Some(&b"the CA"[..]));
    assert_eq!(new.subject().der(), old.subject().der());
    // Another CA of the same name.
    let error = authority(&Key::new()).renew(&old, None, &renewal).expect_err("another key");
    assert!(matches!(error, RenewalError::OtherKey { .. }), "{error}");

    // What holds for one certificate only is not copied.
    let timestamps = extension_of(&[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02], false, &der(4, b""));
    let bound = Forge::leaf("d", "CA").with(timestamps).make(&key, &authority_key);
    let error = authority(&authority_key).renew(&bound, None, &renewal).expect_err("refused");
    assert!(matches!(error, RenewalError::BoundExtension { .. }), "{error}");
    let critical = Forge::leaf("d", "CA").with(extension_of(&[0x2a, 0x03], true, b"")).make(&key, &authority_key);
    authority(&authority_key).renew(&critical, None, &renewal).expect_err("no service would accept it");

    // Without an end, and with the serial number of the old CA certificate in its authority key identifier.
    let names_certificate = extension(
        35,
        false,
        &sequence(&[der(0x80, b"the CA"), der(0xa1, &der(0xa4, &common_name("CA"))), der(0x82, &[7])]),
    );
    let validity = sequence(&[der(0x17, b"300101000000Z"), der(0x18, b"99991231235959Z")]);
    let endless = Forge { validity, ..Forge::leaf("d", "CA") }.with(names_certificate).make(&key, &authority_key);
    let new = authority(&authority_key).renew(&endless, None, &renewal).expect("renewed").certificate;
    let identifier = new.authority_key_identifier_extension().expect("the extension");
    assert_eq!((&identifier.issuer, &identifier.serial_number), (&None, &None));
    assert_eq!(new.not_after(), authority(&authority_key).certificate().not_after());
}

#[test]
fn thresholds_are_inclusive() {
    let root = root(KeyAlgorithm::EcP256).certificate;
    let end = root.not_after();
    let lifetime = end.duration_since(root.not_before());
    let second = Duration::from_secs(1);
    for (threshold, before_end) in [
        (RenewalThreshold::Remaining(DAY), DAY),
        (RenewalThreshold::Remaining(Duration::ZERO), Duration::ZERO),
        (RenewalThreshold::Percent(25), lifetime / 4),
        (RenewalThreshold::Percent(100), lifetime),
        (RenewalThreshold::Percent(0), Duration::ZERO),
    ] {
        let due = end - Duration::from_secs(before_end.as_secs());
        assert_eq!(threshold.due_at(&root), due, "{threshold:?}");
        assert!(threshold.is_reached(&root, due) && !threshold.is_reached(&root, due - second), "{threshold:?}");
        assert!(threshold.is_reached(&root, end + second));
    }
}
