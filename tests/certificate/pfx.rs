//! PFX files are read whoever wrote them: the leaf by its key, BER, every password, and what is not supported by name.
//!
//! The files in `fixtures/pfx` hold one identity under many algorithms. Most are by OpenSSL; those of PBMAC1, of BER and of
//! the two empty passwords are by a script over Python's hashlib. Plain files are put together here, by an encoder of its own.

use std::fs;

use crate::support::rcgen_pem::rcgen_key;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{
    Certificate, CertificateAuthority, CommonName, ContentKind, IssueOptions, IssuedCertificate, KeyAlgorithm,
    PrivateKey, content_kinds,
    pfx::{self, PfxEncryption, PfxError},
};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/fixtures/pfx/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the fixture exists")
}

fn thumbprints(certificates: &[Certificate]) -> Vec<String> {
    certificates.iter().map(|certificate| certificate.sha1_thumbprint().to_string()).collect()
}

/// The thumbprint that OpenSSL prints for the leaf of the fixtures.
const LEAF: &str = "F12CFC8EF2BA640A2B1AEF0AA87AE11B7B17E7F2";

#[test]
fn every_supported_algorithm_opens() {
    for (name, password) in [
        ("3des-2key.pfx", "1234"),
        ("rc2-40.pfx", "1234"),
        ("pkcs5-des.pfx", "1234"),
        ("md5-des.pfx", "1234"),
        ("pbes2-rc2.pfx", "1234"),
        ("scrypt-key.pfx", "1234"),
        ("pbmac1-sha256.pfx", "pässwörd"),
        ("pbmac1-sha512.pfx", "pässwörd"),
        // BER at every level, what is encrypted in pieces.
        ("ber.pfx", "😀é"),
    ] {
        let (key, certificates) = pfx::read_identity(&fixture(name), password).expect(name);
        assert_eq!(thumbprints(&certificates)[0], LEAF, "{name}");
        assert!(key.belongs_to(&certificates[0]), "{name}");
        assert_eq!(certificates.len(), 2, "{name}");
        assert_eq!(pfx::read(&fixture(name), "12345").err(), Some(PfxError::Password), "{name}");
    }
}

#[test]
fn an_algorithm_that_is_not_supported_is_named() {
    for (name, algorithm) in
        [("rc4-128.pfx", "RC4-128"), ("rc4-40-key.pfx", "RC4-40"), ("camellia.pfx", "Camellia-256")]
    {
        let error = pfx::read(&fixture(name), "1234").expect_err(name);
        assert_eq!(error, PfxError::Unsupported(algorithm.to_owned()), "{name}");
        assert_eq!(error.to_string(), format!("the PFX file uses {algorithm}, which is not supported"));
    }
}

#[test]
fn the_empty_password_is_tried_in_both_forms_and_by_itself() {
    for name in ["empty-password.pfx", "absent-password.pfx"] {
        for password in [None, Some("")] {
            let certificates = pfx::read(&fixture(name), password).expect(name);
            assert_eq!(thumbprints(&certificates)[0], LEAF, "{name}");
        }
        assert_eq!(pfx::read(&fixture(name), "1234").err(), Some(PfxError::Password), "only the given one: {name}");
    }
    assert!(pfx::read(&fixture("rc2-40.pfx"), None).is_ok(), "1234 is tried");
    assert_eq!(pfx::read(&fixture("rc2-40.pfx"), "").err(), Some(PfxError::Password));
    assert_eq!(pfx::read(&fixture("pbmac1-sha256.pfx"), None).err(), Some(PfxError::PasswordNeeded));
}

// An encoder of its own.

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).expect("below 64 KiB").to_be_bytes();
    let header = match (high, low) {
        (0, ..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, parts)
}

/// `pkcs-7` and `pkcs-9` and `bagtypes`, without the last arcs.
const PKCS7: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07";
const PKCS9: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09";
const BAGS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01";

fn oid(prefix: &[u8], arcs: &[u8]) -> Vec<u8> {
    element(0x06, &[prefix, arcs])
}

fn attributes(local_key_id: Option<&[u8]>, friendly_name: Option<&str>) -> Vec<u8> {
    let attribute = |arc: u8, value: &[u8]| sequence(&[&oid(PKCS9, &[arc]), &element(0x31, &[value])]);
    let mut list = Vec::new();
    if let Some(name) = friendly_name {
        let utf16: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        list.extend(attribute(20, &element(0x1e, &[&utf16])));
    }
    if let Some(id) = local_key_id {
        list.extend(attribute(21, &element(0x04, &[id])));
    }
    if list.is_empty() { list } else { element(0x31, &[&list]) }
}

fn bag(kind: u8, value: &[u8], attributes: &[u8]) -> Vec<u8> {
    sequence(&[&oid(BAGS, &[kind]), &element(0xa0, &[value]), attributes])
}

fn certificate_bag(certificate: &Certificate, attributes: &[u8]) -> Vec<u8> {
    let value = element(0xa0, &[&element(0x04, &[certificate.der()])]);
    bag(3, &sequence(&[&oid(PKCS9, &[22, 1]), &value]), attributes)
}

fn key_bag(key: &PrivateKey, attributes: &[u8]) -> Vec<u8> {
    bag(1, &key.to_pkcs8_der().expect("a key"), attributes)
}

/// A PFX without encryption and integrity check.
fn plain(bags: &[Vec<u8>]) -> Vec<u8> {
    with_mac(bags, &[])
}

fn with_mac(bags: &[Vec<u8>], mac: &[u8]) -> Vec<u8> {
    let data = |content: &[u8]| sequence(&[&oid(PKCS7, &[1]), &element(0xa0, &[&element(0x04, &[content])])]);
    sequence(&[&[0x02, 0x01, 0x03], &data(&sequence(&[&data(&sequence(&[&bags.concat()]))])), mac])
}

fn root(name: &str, algorithm: KeyAlgorithm) -> IssuedCertificate {
    let options = IssueOptions::new().algorithm(algorithm);
    CertificateAuthority::new_root(&CommonName::new(name).expect("a name"), &options).expect("a root")
}

#[test]
fn the_leaf_is_the_certificate_of_the_key_regardless_of_ids_and_order() {
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        let (leaf, ca, other) = (root("leaf", algorithm), root("ca", algorithm), root("other", algorithm));
        let none = attributes(None, None);
        let id = |id: &[u8]| attributes(Some(id), None);
        let key = |attributes: &[u8]| key_bag(&leaf.key, attributes);
        let bags = |ids: [&[u8]; 4]| {
            plain(&[
                certificate_bag(&ca.certificate, ids[0]),
                certificate_bag(&leaf.certificate, ids[1]),
                key(ids[2]),
                certificate_bag(&other.certificate, ids[3]),
            ])
        };
        for (what, file) in [
            ("no ids", bags([&none, &none, &none, &none])),
            ("the id of another", bags([&id(b"1"), &none, &id(b"1"), &none])),
            ("an id on the key only", bags([&none, &none, &id(b"1"), &none])),
            ("ids that differ", bags([&id(b"1"), &id(b"2"), &id(b"3"), &id(b"4")])),
            ("the same id on all", bags([&id(b"1"), &id(b"1"), &id(b"1"), &id(b"1")])),
        ] {
            let (key, certificates) = pfx::read_identity(&file, None).expect(what);
            assert!(key.belongs_to(&leaf.certificate));
            let expected = [&leaf, &ca, &other].map(|issued| issued.certificate.clone());
            assert_eq!(certificates, expected, "{what}");
            assert_eq!(pfx::read(&file, None).expect(what), expected, "{what}");
        }
    }
}

#[test]
fn of_certificates_of_one_key_the_local_key_id_and_then_the_order_decide() {
    let first = root("first", KeyAlgorithm::EcP256);
    let key = &first.key;
    let rcgen_key = rcgen_key(key);
    let mut renewed = rcgen::CertificateParams::default();
    renewed.distinguished_name = rcgen::DistinguishedName::new();
    renewed.distinguished_name.push(rcgen::DnType::CommonName, "second");
    let second = Certificate::from_der(renewed.self_signed(&rcgen_key).expect("signed").der()).expect("a certificate");
    let subjects = |ids: [Option<&[u8]>; 2]| {
        let file = plain(&[
            certificate_bag(&first.certificate, &attributes(ids[0], None)),
            certificate_bag(&second, &attributes(ids[1], None)),
            key_bag(key, &attributes(Some(b"id"), None)),
        ]);
        pfx::read(&file, None).expect("read").iter().map(|c| c.subject().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(subjects([None, None]), ["CN=first", "CN=second"]);
    assert_eq!(subjects([None, Some(b"id")]), ["CN=second", "CN=first"]);
    assert_eq!(subjects([Some(b"other"), None]), ["CN=first", "CN=second"]);
}

#[test]
fn a_key_does_not_match_equal_coordinates_on_another_curve() {
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let leaf = root("leaf", KeyAlgorithm::EcP256);
    let mut der = leaf.certificate.der().to_vec();
    let at = der.windows(P256.len()).position(|window| window == P256).expect("the curve");
    der[at + 2] ^= 0x77;
    let other = Certificate::from_der(&der).expect("a certificate");
    let none = attributes(None, None);
    let file = |certificates: &[&Certificate]| {
        let bags = certificates.iter().map(|certificate| certificate_bag(certificate, &none));
        plain(&bags.chain([key_bag(&leaf.key, &none)]).collect::<Vec<_>>())
    };
    assert_eq!(pfx::read(&file(&[&other]), None), Err(PfxError::NoMatch));
    let found = pfx::read(&file(&[&other, &leaf.certificate]), None).expect("the leaf");
    assert_eq!(found, [leaf.certificate.clone(), other]);
}

#[test]
fn several_keys_are_ambiguous_unless_one_has_a_certificate() {
    let (one, two) = (root("one", KeyAlgorithm::EcP256), root("two", KeyAlgorithm::Rsa2048));
    let key = |of: &IssuedCertificate, attributes: &[u8]| key_bag(&of.key, attributes);
    let certificate = |of: &IssuedCertificate| certificate_bag(&of.certificate, &[]);
    let named = attributes(Some(b"1"), Some("the 😀 first"));
    let file = plain(&[key(&one, &named), key(&two, &[]), certificate(&two), certificate(&one)]);
    let error = pfx::read(&file, None).expect_err("ambiguous");
    let thumbprint = |of: &IssuedCertificate| of.certificate.sha1_thumbprint();
    assert_eq!(
        error.to_string(),
        format!(
            "the PFX file holds 2 private keys that have a certificate: CN=one (friendly name the 😀 first, SHA-1 \
             thumbprint {}); CN=two (SHA-1 thumbprint {})",
            thumbprint(&one),
            thumbprint(&two)
        )
    );
    assert!(matches!(pfx::read_identity(&file, None), Err(PfxError::Ambiguous(choices)) if choices.len() == 2));
    let all = pfx::read_in_file_order(&file, None).expect("no ambiguity");
    assert_eq!(all, [two.certificate.clone(), one.certificate.clone()]);

    // A key without a certificate is no choice, and the key that comes out is the one of the certificate.
    let file = plain(&[key(&one, &[]), key(&two, &[]), certificate(&two)]);
    let (found, certificates) = pfx::read_identity(&file, None).expect("no ambiguity");
    assert!(found.belongs_to(&certificates[0]));
    // Nor is the same key twice.
    let file = plain(&[key(&one, &[]), key(&one, &named), certificate(&one), certificate(&one)]);
    assert_eq!(pfx::read(&file, None).expect("no ambiguity"), std::slice::from_ref(&one.certificate));

    let file = plain(&[key(&one, &named), certificate_bag(&two.certificate, &named)]);
    assert_eq!(pfx::read(&file, None).err(), Some(PfxError::NoMatch));
    let file = plain(&[certificate(&two), certificate(&one)]);
    assert_eq!(pfx::read(&file, None).expect("no key"), all);
    assert_eq!(pfx::read_identity(&file, None).map(|_| ()), Err(PfxError::NoKey));
    assert_eq!(pfx::read(&plain(&[key(&one, &[])]), None).err(), Some(PfxError::NoCertificate));
}

#[test]
fn nested_and_unknown_bags_are_read_and_passed_over() {
    let leaf = root("leaf", KeyAlgorithm::EcP256);
    let nested = |inner: &[Vec<u8>]| bag(6, &sequence(&[&inner.concat()]), &[]);
    let certificate = certificate_bag(&leaf.certificate, &[]);
    let key = key_bag(&leaf.key, &[]);
    let secret = bag(5, &sequence(&[&oid(PKCS9, &[1])]), &[]);
    let file = plain(&[secret, nested(&[nested(std::slice::from_ref(&certificate)), nested(&[key])])]);
    let (key, certificates) = pfx::read_identity(&file, None).expect("read");
    assert!(key.belongs_to(&certificates[0]));
    let deep = (0..17).fold(certificate, |inner, _| nested(&[inner]));
    assert!(matches!(pfx::read(&plain(&[deep]), None), Err(PfxError::Damaged(_))));
}

#[test]
fn ber_trailing_bytes_and_base64_do_no_harm() {
    let leaf = root("leaf", KeyAlgorithm::EcP256);
    let file = plain(&[key_bag(&leaf.key, &[]), certificate_bag(&leaf.certificate, &[])]);
    let base64 = BASE64_STANDARD.encode(&file);
    for (what, bytes) in [
        ("a line end", [&file[..], b"\r\n"].concat()),
        ("padding", [&file[..], &[0; 64], &[0xff; 64]].concat()),
        ("a word", [&file[..], b"null\n"].concat()),
        ("base64", base64.clone().into_bytes()),
        ("PEM", format!("-----BEGIN PKCS12-----\n{base64}\n-----END PKCS12-----\n").into_bytes()),
    ] {
        assert_eq!(pfx::read(&bytes, None).as_deref(), Ok(&[leaf.certificate.clone()][..]), "{what}");
    }
    let error = pfx::read(&[&file[..], &[0x30, 0x80]].concat(), None).expect_err("damage");
    assert_eq!(error, PfxError::Damaged(format!("bytes follow its end, at byte {}", file.len())));
    let error = pfx::read(&file[..file.len() - 1], None).expect_err("damage");
    assert!(error.to_string().starts_with("the PFX file is damaged: it ends too early"), "{error}");
}

#[test]
fn ber_is_read_at_every_level() {
    // Only framing differs, so a file without an integrity check can be rewritten down to its bags, but not into them.
    let leaf = root("leaf", KeyAlgorithm::EcP256);
    let bags = sequence(&[&certificate_bag(&leaf.certificate, &attributes(None, Some("é")))]);
    let contents = ber_outer(&bags);
    let content = |inner: &[u8]| {
        [&[0x30, 0x80][..], &oid(PKCS7, &[1]), &[0xa0, 0x80, 0x24, 0x80], &pieces(inner), &[0; 6]].concat()
    };
    let safe = [&[0x30, 0x80][..], &content(&contents), &[0, 0]].concat();
    let file = [&[0x30, 0x80, 0x02, 0x83, 0, 0, 1, 3][..], &content(&safe), &[0, 0]].concat();
    assert_eq!(pfx::read(&file, None).as_deref(), Ok(&[leaf.certificate.clone()][..]));
    // It is recognised as a PFX, whatever its lengths are written as and whatever surrounds it.
    assert_eq!(content_kinds(&file), Ok(vec![ContentKind::Pfx]));
    let base64 = BASE64_STANDARD.encode(&file);
    assert_eq!(pfx::read(base64.as_bytes(), None).as_deref(), Ok(&[leaf.certificate.clone()][..]));
    // OpenSSL's and Python's files, with the framing outside of the content under the integrity check rewritten.
    for name in ["empty-password.pfx", "pbes2-rc2.pfx"] {
        let rewritten = ber_outer(&fixture(name));
        assert_ne!(rewritten, fixture(name));
        assert_eq!(content_kinds(&rewritten), Ok(vec![ContentKind::Pfx]), "{name}");
        assert_eq!(thumbprints(&pfx::read(&rewritten, None).expect(name))[0], LEAF, "{name}");
    }
}

/// The same elements in BER, where OCTET STRINGs are in pieces and what they hold is as it was.
fn ber_outer(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = der;
    while !rest.is_empty() {
        let (header, length) = match rest[1] {
            0x81 => (3, usize::from(rest[2])),
            0x82 => (4, usize::from(rest[2]) << 8 | usize::from(rest[3])),
            short => (2, usize::from(short)),
        };
        let content = &rest[header..header + length];
        match rest[0] {
            0x04 => out.extend([&[0x24, 0x80][..], &pieces(content), &[0, 0]].concat()),
            constructed if constructed & 0x20 != 0 => {
                out.extend([&[constructed, 0x80][..], &ber_outer(content), &[0, 0]].concat());
            }
            primitive => {
                out.extend([primitive, 0x84]);
                out.extend(u32::try_from(length).expect("short").to_be_bytes());
                out.extend(content);
            }
        }
        rest = &rest[header + length..];
    }
    out
}

/// A primitive piece, and a piece of pieces.
fn pieces(content: &[u8]) -> Vec<u8> {
    let (a, b) = content.split_at(content.len() / 2);
    [element(0x04, &[a]), element(0x24, &[&element(0x04, &[b]), &element(0x04, &[])])].concat()
}

#[test]
fn iterations_are_bounded() {
    let leaf = root("leaf", KeyAlgorithm::EcP256);
    let bags = [certificate_bag(&leaf.certificate, &[])];
    let sha1 = sequence(&[&[0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a], &[0x05, 0x00]]);
    let mac = |iterations: &[u8]| {
        let digest = sequence(&[&sha1, &element(0x04, &[&[7; 20]])]);
        with_mac(&bags, &sequence(&[&digest, &element(0x04, &[b"salt"]), &element(0x02, &[iterations])]))
    };
    let error = pfx::read(&mac(&[0x7f, 0xff, 0xff, 0xff]), "1234").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the PFX file asks for 2147483647 iterations of key derivation, more than the limit of 10000000"
    );
    assert_eq!(pfx::read(&mac(&[0x03, 0xe8]), "1234").err(), Some(PfxError::Password));
    for damaged in [&[0][..], &[0x80], &[0x7f; 9]] {
        assert!(matches!(pfx::read(&mac(damaged), "1234"), Err(PfxError::Damaged(_))), "{damaged:?}");
    }
}

#[test]
fn a_written_pfx_is_read_with_any_password_and_name() {
    let aes = PfxEncryption::Aes256;
    for (name, password, encryption) in [
        ("plain", "", aes),
        ("naïve", "pässwörd", PfxEncryption::TripleDes),
        ("plain", "😀key", aes),
        ("plain", "日本語𝄞", PfxEncryption::TripleDes),
        ("n😀me 𝄞", "1234", aes),
        ("n😀me 𝄞", "", PfxEncryption::TripleDes),
    ] {
        let issued = root(name, KeyAlgorithm::EcP256);
        let file = pfx::write(&issued.key, [&issued.certificate], password, encryption).expect("written");
        let (read, certificates) = pfx::read_identity(&file, password).expect("read");
        assert!(read.belongs_to(&certificates[0]));
        assert_eq!(certificates, std::slice::from_ref(&issued.certificate));
        assert_eq!(pfx::read(&file, "x").err(), Some(PfxError::Password));
    }
}

#[test]
fn java_keystores_are_read() {
    let error = pfx::read(&fixture("two-keys.p12"), "changeit").expect_err("ambiguous");
    assert!(error.to_string().contains("CN=one (friendly name one, SHA-1 thumbprint "), "{error}");
    let all = pfx::read_in_file_order(&fixture("two-keys.p12"), "changeit").expect("read");
    assert_eq!(all.iter().map(|c| c.subject().to_string()).collect::<Vec<_>>(), ["CN=one", "CN=two"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn damaged_files_are_errors(
        name in prop::sample::select(vec!["pbmac1-sha256.pfx", "scrypt-key.pfx", "rc4-40-key.pfx", "absent-password.pfx"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = fixture(name);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = pfx::read(&bytes, "pässwörd");
        let _ = pfx::read_identity(&bytes, None);
    }
}
