//! Certificates, private keys, requests and PFX files are read in the same encodings, and nothing is called damaged that
//! is not.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::rcgen_pem::rcgen_key;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use iot_enroll::certificate::{
    Certificate, CertificateRequest, ContentKind, KeyError, PrivateKey, ReadError, RequestError, Timestamp,
    content_kinds, pfx,
};
use proptest::prelude::*;
use rcgen::{PublicKeyData, SigningKey};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)).expect("the fixture exists")
}

fn certificate(name: &str) -> Certificate {
    Certificate::read(&fixture(&format!("authorities/{name}_cert.pem"))).expect("a certificate")
}

fn key() -> PrivateKey {
    PrivateKey::read(&fixture("keys/ec-p256.pem"), None).expect("a key")
}

fn pkcs8(key: &PrivateKey) -> Vec<u8> {
    key.to_pkcs8_der().expect("DER").to_vec()
}

/// One element of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let [high, low] = u16::try_from(length).expect("short").to_be_bytes();
    let header = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(bytes);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// An object in every encoding that is read.
fn encodings(label: &str, der: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let pem = pem(label, der);
    let base64 = BASE64_STANDARD.encode(der);
    let json = serde_json::to_string(&pem).expect("JSON");
    let lines: Vec<_> = pem.lines().collect();
    let texts = [
        ("PEM", pem.clone()),
        ("PEM with CRLF", pem.replace('\n', "\r\n")),
        ("PEM with CR", pem.replace('\n', "\r")),
        ("PEM with a byte-order mark", format!("\u{feff}{pem}")),
        ("PEM with text around", format!("Bag Attributes\n    friendlyName: a\n{pem}# end")),
        ("PEM and null on its lines", format!("null{}null", pem.trim_end())),
        ("PEM in one line", pem.replace('\n', " ")),
        ("PEM in one line without blanks", pem.replace('\n', "")),
        ("indented PEM", pem.lines().map(|line| format!("\t  {line} \n")).collect()),
        ("PEM with invisible characters", pem.replace('\n', "\u{a0}\u{200b}\n")),
        ("PEM without padding", pem.replace('=', "")),
        ("PEM with \\n", pem.replace('\n', "\\n")),
        ("PEM with \\r\\n", pem.replace('\n', "\\r\\n")),
        ("PEM with \\\\n", pem.replace('\n', "\\\\n")),
        ("PEM as JSON", json.clone()),
        ("PEM in an object of JSON", format!("{{\"name\": \"it's\", \"value\": {json}}}")),
        ("PEM as JSON in JSON", serde_json::to_string(&json).expect("JSON")),
        ("PEM with slashes escaped", json.replace('/', "\\/")),
        ("PEM with signs escaped", json.replace('+', "\\u002B").replace('=', "\\u003d")),
        ("PEM in an environment file", format!("VALUE='{}'\n", pem.trim_end())),
        ("PEM in C", lines.iter().map(|line| format!("    \"{line}\\n\" \\\n")).collect()),
        ("PEM in JavaScript", lines.join("\\n\" +\n  \"").replacen("-----", "\"-----", 1) + "\";"),
        ("PEM as a list of lines", serde_json::to_string(&lines).expect("JSON")),
        ("PEM continued by backslashes", lines.join("\\\n")),
        ("base64", base64.clone()),
        (
            "base64 in lines",
            pem.lines().filter(|line| !line.starts_with('-')).map(|line| format!("{line}\r\n")).collect(),
        ),
        ("base64 in quotes", format!("\"{base64}\"\n")),
        ("base64 in an object of JSON", format!("{{\"contentType\": \"a/b\", \"value\": \"{base64}\"}}")),
        ("base64 with slashes escaped", format!("\"{}\"", base64.replace('/', "\\/"))),
        ("base64url", BASE64_URL_SAFE_NO_PAD.encode(der)),
        ("base64 as a URL", format!("data:application/octet-stream;base64,{base64}")),
        ("base64 of PEM", BASE64_STANDARD.encode(&pem)),
        ("base64 of base64", BASE64_STANDARD.encode(&base64)),
        ("base64 of PEM in UTF-16", BASE64_STANDARD.encode(utf16(&pem, u16::to_le_bytes))),
    ];
    let mut all = vec![
        ("DER", der.to_vec()),
        ("DER and a line end", [der, b"\n"].concat()),
        ("DER and a Windows line end", [der, b"\r\n"].concat()),
        ("DER and text", [der, b"null"].concat()),
        ("DER and NULs", [der, &[0; 40]].concat()),
        ("DER and FFs", [der, &[0xff; 3000]].concat()),
        ("DER, a line end and padding", [der, b"\n", &[0xff; 16]].concat()),
        ("PEM and NULs", [pem.as_bytes(), &[0; 512]].concat()),
        ("PEM and FFs", [pem.as_bytes(), &[0xff; 512]].concat()),
        ("base64 and FFs", [base64.as_bytes(), &[0xff; 5]].concat()),
        ("PEM appended to UTF-16", [utf16("# notes\r\n", u16::to_le_bytes), pem.clone().into_bytes()].concat()),
    ];
    for (name, text) in texts {
        if ["PEM", "base64", "PEM with \\n"].contains(&name) {
            all.extend([
                ("the text in UTF-16LE", utf16(&text, u16::to_le_bytes)),
                ("the text in UTF-16BE", utf16(&text, u16::to_be_bytes)),
                ("the text in UTF-16LE with a mark", utf16(&format!("\u{feff}{text}"), u16::to_le_bytes)),
                ("the text in UTF-16BE with a mark", utf16(&format!("\u{feff}{text}\r\n"), u16::to_be_bytes)),
            ]);
        }
        all.push((name, text.into_bytes()));
    }
    all
}

#[test]
fn certificates_are_read_in_every_encoding() {
    for name in ["ec-sec1", "rsa-pkcs1"] {
        let expected = certificate(name);
        for (what, bytes) in encodings("CERTIFICATE", expected.der()) {
            assert_eq!(Certificate::read_all(&bytes), Ok(vec![expected.clone()]), "{what}");
            assert_eq!(content_kinds(&bytes), Ok(vec![ContentKind::Certificate]), "{what}");
        }
    }
}

#[test]
fn private_keys_are_read_in_every_encoding() {
    let (ec, rsa) = (key(), PrivateKey::read(&fixture("authorities/rsa-pkcs1_key.pem"), None).expect("a key"));
    let sec1 = {
        let text = String::from_utf8(fixture("keys/ec-p256.pem")).expect("text");
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        BASE64_STANDARD.decode(body).expect("base64")
    };
    for (label, der, expected) in [
        ("PRIVATE KEY", pkcs8(&ec), &ec),
        ("EC PRIVATE KEY", sec1.clone(), &ec),
        // A label that is not that of its content.
        ("RSA PRIVATE KEY", sec1, &ec),
        ("RSA PRIVATE KEY", pkcs8(&rsa), &rsa),
    ] {
        for (what, bytes) in encodings(label, &der) {
            let read = PrivateKey::read(&bytes, None).unwrap_or_else(|error| panic!("{label}, {what}: {error}"));
            assert_eq!(pkcs8(&read), pkcs8(expected), "{what}");
            assert_eq!(content_kinds(&bytes), Ok(vec![ContentKind::PrivateKey]), "{what}");
        }
    }
}

#[test]
fn encrypted_keys_requests_and_pfx_files_are_read_in_every_encoding() {
    let key = key();
    let encrypted = fixture("keys/encrypted/pbe-sha1-3des.pem");
    let body: String =
        String::from_utf8(encrypted).expect("text").lines().filter(|line| !line.starts_with('-')).collect();
    for (what, bytes) in encodings("ENCRYPTED PRIVATE KEY", &BASE64_STANDARD.decode(body).expect("base64")) {
        let read = PrivateKey::read(&bytes, Some("secret")).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(pkcs8(&read), pkcs8(&key), "{what}");
        assert_eq!(PrivateKey::read(&bytes, None).expect_err("encrypted"), KeyError::PasswordNeeded, "{what}");
    }
    let request = request(&key, Some(&[]));
    for label in ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"] {
        for (what, bytes) in encodings(label, &request) {
            let read = CertificateRequest::read(&bytes).unwrap_or_else(|error| panic!("{label}, {what}: {error}"));
            assert_eq!(read.subject().common_name(), Some("sensor-1"), "{what}");
        }
    }
    let leaf = certificate("ec-pkcs8");
    let ec = PrivateKey::read(&fixture("authorities/ec-pkcs8_key.pem"), None).expect("a key");
    let made = pfx::write(&ec, [&leaf], "geheim", pfx::PfxEncryption::Aes256).expect("a PFX file");
    // Opening takes thousands of rounds of key derivation, so that each is recognised but few are opened.
    for (index, (what, bytes)) in encodings("PKCS12", &made).into_iter().enumerate() {
        assert_eq!(Certificate::read(&bytes), Err(ReadError::Pfx), "{what}");
        assert_eq!(PrivateKey::read(&bytes, None).expect_err("a PFX file"), KeyError::Pfx, "{what}");
        if index % 6 == 0 {
            let (read, certificates) =
                pfx::read_identity(&bytes, "geheim").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((pkcs8(&read), certificates), (pkcs8(&ec), vec![leaf.clone()]), "{what}");
        }
    }
}

#[test]
fn labels_that_mean_the_same_are_read_and_others_are_named() {
    let expected = certificate("ec-sec1");
    for label in ["CERTIFICATE", "X509 CERTIFICATE", "X.509 CERTIFICATE", "TRUSTED CERTIFICATE"] {
        assert_eq!(Certificate::read(pem(label, expected.der()).as_bytes()).as_ref(), Ok(&expected), "{label}");
    }
    // OpenSSL's own, with what it trusts the certificate for.
    assert_eq!(Certificate::read_all(&fixture("trusted_cert.pem")), Ok(vec![expected.clone()]));
    for label in ["ATTRIBUTE CERTIFICATE", "DH PARAMETERS", "PGP MESSAGE", "SOMETHING NEW"] {
        let text = pem(label, expected.der());
        let error = Certificate::read(text.as_bytes()).expect_err("another label");
        assert_eq!(error, ReadError::NoCertificate(format!("a section {label}")));
        let error = PrivateKey::read(text.as_bytes(), None).expect_err("another label").to_string();
        assert!(error.contains(label) && !error.contains("damaged"), "{error}");
        let error = CertificateRequest::read(text.as_bytes()).expect_err("another label").to_string();
        assert!(error.contains(label) && !error.contains("damaged"), "{error}");
        // Beside a certificate it does no harm.
        let both = format!("{text}{}", expected.to_pem());
        assert_eq!(Certificate::read_all(both.as_bytes()), Ok(vec![expected.clone()]));
    }
    let kinds = [
        ("keys/ec-p256.pem", "a private key"),
        ("keys/encrypted/pbe-sha1-des.pem", "an encrypted private key"),
        ("keys/encrypted/traditional-aes128.pem", "an encrypted private key"),
    ];
    for (file, kind) in kinds {
        assert_eq!(Certificate::read(&fixture(file)), Err(ReadError::NoCertificate(kind.to_owned())), "{file}");
    }
    let request = request(&key(), None);
    assert_eq!(Certificate::read(&request), Err(ReadError::NoCertificate("a certificate request".to_owned())));
    let public = sequence(&[&sequence(&[&[0x06, 0x03, 0x2b, 0x65, 0x70]]), &der(0x03, &[0; 33])]);
    assert_eq!(Certificate::read(&public), Err(ReadError::NoCertificate("a public key".to_owned())));
}

#[test]
fn several_certificates_in_der_are_read_in_their_order() {
    let all = [certificate("ec-sec1"), certificate("rsa-pkcs1"), certificate("p521")];
    for between in [&b""[..], b"\n", &[0xff; 100], &[0; 7], b"\r\n\0\0"] {
        let bytes = all.each_ref().map(Certificate::der).join(between);
        assert_eq!(Certificate::read_all(&bytes), Ok(all.to_vec()));
        let bytes = [&bytes[..], &[0xff; 9]].concat();
        assert_eq!(Certificate::read_all(&bytes), Ok(all.to_vec()));
        assert_eq!(Certificate::read_all(BASE64_STANDARD.encode(&bytes).as_bytes()), Ok(all.to_vec()));
        assert_eq!(Certificate::read_all(pem("CERTIFICATE", &bytes).as_bytes()), Ok(all.to_vec()));
    }
    let outputs: String = all.iter().map(|it| BASE64_STANDARD.encode(it.der()) + "\n").collect();
    assert_eq!(Certificate::read_all(outputs.as_bytes()), Ok(all.to_vec()), "base64 of each, one after the other");
    let x5c = serde_json::to_string(&all.each_ref().map(|it| BASE64_STANDARD.encode(it.der()))).expect("JSON");
    assert_eq!(Certificate::read_all(x5c.as_bytes()), Ok(all.to_vec()), "a list in JSON");
    let mixed = [all[0].der(), b"\n", all[1].to_pem().as_bytes()].concat();
    assert_eq!(Certificate::read_all(&mixed), Ok(all[..2].to_vec()), "PEM after DER");
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    let good = certificate("ec-sec1");
    let text = good.to_pem();
    let is = |bytes: &[u8]| Certificate::read(bytes).expect_err("damaged");
    let told = |bytes: &[u8]| is(bytes).to_string();
    for rest in [&[1, 2][..], &[0x30, 0x03, 0x01], b"\0\0\x80", good.der().split_last().expect("bytes").1] {
        assert_eq!(
            is(&[good.der(), rest].concat()),
            ReadError::Certificate(format!("{} bytes follow its end", rest.len()))
        );
    }
    for end in [5, 20, 200, good.der().len() - 1] {
        let error = told(&good.der()[..end]);
        assert!(error.contains("cut short") || end < 10, "{end}: {error}");
        let error = told(BASE64_STANDARD.encode(&good.der()[..end]).as_bytes());
        assert!(error.contains("cut short") || end < 10, "{end}: {error}");
        let error = told(pem("CERTIFICATE", &good.der()[..end]).as_bytes());
        assert!(error.contains("cut short") || end < 10, "{end}: {error}");
    }
    for (damaged, reason) in [
        (text.replace("-----END", ""), "the section CERTIFICATE has no END line"),
        (text.replace("END CERTIFICATE", "END PRIVATE KEY"), "the section CERTIFICATE ends as PRIVATE KEY"),
        (text.replace("END CERTIFICATE-----", "END CERTIFICATE---"), "does not end in five dashes"),
        (text.replacen('M', "*", 1), "the section CERTIFICATE is not base64"),
        (text.replacen('M', "", 1), "cut short"),
        (pem("CERTIFICATE", b""), "the section CERTIFICATE is empty"),
        (format!("{text}{}", text.replacen('M', "*", 1)), "is not base64"),
    ] {
        assert!(
            matches!(is(damaged.as_bytes()), ReadError::Pem(told) if told.contains(reason)),
            "{}",
            told(damaged.as_bytes())
        );
        // Among the certificates of a file a damaged one is not passed over; beside a key it does not count.
        let with_key = format!("{damaged}{}", String::from_utf8_lossy(&fixture("keys/ec-p256.pem")));
        assert!(PrivateKey::read(with_key.as_bytes(), None).is_ok(), "{damaged}");
    }
    let key = String::from_utf8(fixture("keys/ec-p256.pem")).expect("text").replacen('M', "*", 1);
    assert_eq!(Certificate::read_all(format!("{key}{text}").as_bytes()), Ok(vec![good]), "a damaged key before it");
    assert!(matches!(PrivateKey::read(key.as_bytes(), None), Err(KeyError::Damaged(_))));
    for (bytes, error) in [
        (&b"\xff\xfe"[..], ReadError::Empty),
        (b"\xef\xbb\xbf\r\n", ReadError::Empty),
        (&[0; 100], ReadError::Empty),
        (&[0xff; 100], ReadError::Unrecognised),
        (b"0 certificates\n", ReadError::Unrecognised),
        (b"MIIB", ReadError::Unrecognised),
        (b"{\"value\": \"MIIB\"}", ReadError::Unrecognised),
    ] {
        assert_eq!(is(bytes), error, "{bytes:?}");
    }
}

fn signed_data(certificates: &[&[u8]]) -> Vec<u8> {
    const DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    let certificates = der(0xa0, &certificates.concat());
    let data = sequence(&[&[0x02, 1, 1], &[0x31, 0], &sequence(&[DATA]), &certificates, &[0x31, 0]]);
    sequence(&[SIGNED_DATA, &der(0xa0, &data)])
}

/// The same with indefinite lengths down to a depth.
fn indefinite(element: &[u8], depth: usize) -> Vec<u8> {
    let header = if element[1] < 0x80 { 2 } else { 2 + usize::from(element[1] & 0x7f) };
    let (mut content, mut rest) = (Vec::new(), &element[header..]);
    if depth == 0 || element[0] & 0x20 == 0 {
        return element.to_vec();
    }
    while let [_, first, ..] = rest {
        let length = match first {
            0x81 => 3 + usize::from(rest[2]),
            0x82 => 4 + usize::from(rest[2]) * 256 + usize::from(rest[3]),
            short => 2 + usize::from(*short),
        };
        content.extend(indefinite(&rest[..length], depth - 1));
        rest = &rest[length..];
    }
    [&[element[0], 0x80], &content[..], &[0, 0]].concat()
}

#[test]
fn pkcs7_is_read_as_a_chain_with_the_leaf_first() {
    let (leaf, root, other) = {
        use iot_enroll::certificate::{CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm};
        let options = IssueOptions::new().algorithm(KeyAlgorithm::EcP256).at(Timestamp::now());
        let root = CertificateAuthority::new_root(&CommonName::new("Root").expect("a name"), &options).expect("a root");
        let certificate = root.certificate.clone();
        let root = root.into_authority(Timestamp::now()).expect("an authority");
        let leaf = root.issue_device(&DeviceId::new("d").expect("an ID"), &options).expect("a device");
        (leaf.certificate, certificate, self::certificate("rsa-pkcs1"))
    };
    for (order, expected) in
        [([&leaf, &root], [&leaf, &root]), ([&root, &leaf], [&leaf, &root]), ([&root, &other], [&root, &other])]
    {
        let made = signed_data(&order.map(Certificate::der));
        let expected: Vec<_> = expected.into_iter().cloned().collect();
        // Down to `certificates`, where the certificates themselves would lose their bytes.
        for depth in 0..=4 {
            let made = indefinite(&made, depth);
            for (what, bytes) in encodings("PKCS7", &made) {
                assert_eq!(Certificate::read_all(&bytes).as_ref(), Ok(&expected), "{depth}, {what}");
            }
            // AD CS labels it CERTIFICATE.
            for label in ["CMS", "PKCS #7 SIGNED DATA", "CERTIFICATE", "CERTIFICATE CHAIN"] {
                let text = pem(label, &made);
                assert_eq!(Certificate::read_all(text.as_bytes()).as_ref(), Ok(&expected), "{label}");
            }
        }
    }
    let none = signed_data(&[]);
    assert_eq!(Certificate::read(&none), Err(ReadError::NoCertificate("PKCS#7 signed data".to_owned())));
    let mut enveloped = none.clone();
    let at = enveloped.iter().position(|&byte| byte == 0x07).expect("the type") + 1;
    enveloped[at] = 3;
    assert_eq!(Certificate::read(&enveloped), Err(ReadError::NoCertificate("PKCS#7 enveloped data".to_owned())));
    let cut = signed_data(&[leaf.der()]);
    let error = Certificate::read(&cut[..cut.len() - 9]).expect_err("cut");
    assert!(matches!(&error, ReadError::Pkcs7(reason) if reason.contains("cut short")), "{error}");
    // The set of certificates says that it is longer.
    let mut long = signed_data(&[leaf.der()]);
    let set = long.windows(2).position(|pair| pair == [0xa0, 0x82] && pair.len() == 2).expect("a set");
    long[set + 3] ^= 1;
    assert!(Certificate::read(&long).is_err());
}

/// A request for `sensor-1` with these bytes as the content of its attributes, or without the field.
fn request(key: &PrivateKey, attributes: Option<&[u8]>) -> Vec<u8> {
    let field = attributes.map(|content| der(0xa0, content)).unwrap_or_default();
    request_with(key, &field)
}

fn request_with(key: &PrivateKey, after_key: &[u8]) -> Vec<u8> {
    const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let name = der(0x31, &sequence(&[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(0x0c, b"sensor-1")]));
    let key = rcgen_key(key);
    let info = sequence(&[&[0x02, 1, 0], &sequence(&[&name]), &key.subject_public_key_info(), after_key]);
    let signature = [&[0], &key.sign(&info).expect("a signature")[..]].concat();
    sequence(&[&info, ECDSA_WITH_SHA256, &der(0x03, &signature)])
}

const CHALLENGE_PASSWORD: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
const EXTENSION_REQUEST: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

#[test]
fn what_a_request_asks_for_besides_is_ignored_and_listed() {
    let key = key();
    let ignored = |der: &[u8]| CertificateRequest::read(der).expect("a request").ignored().to_vec();
    assert!(ignored(&request(&key, None)).is_empty());
    assert!(ignored(&request(&key, Some(&[]))).is_empty());
    // UTF8, printable, Teletex, IA5, universal and BMP strings, and no string at all.
    for tag in [0x0c, 0x13, 0x14, 0x16, 0x1c, 0x1e, 0x02] {
        let attribute = sequence(&[CHALLENGE_PASSWORD, &der(0x31, &der(tag, b"\x00a\xe9\x00"))]);
        assert_eq!(ignored(&request(&key, Some(&attribute))), ["challengePassword"], "{tag:#x}");
    }
    let extension = sequence(&[SUBJECT_ALT_NAME, &der(0x04, b"\x30\x00")]);
    let extensions = |content: &[u8]| sequence(&[EXTENSION_REQUEST, &der(0x31, content)]);
    assert_eq!(ignored(&request(&key, Some(&extensions(&sequence(&[&extension]))))), ["subjectAltName"]);
    // The value of an extension is not looked at; the list of them may be malformed.
    let malformed = sequence(&[SUBJECT_ALT_NAME, &der(0x04, b"\xff\xff\xff")]);
    assert_eq!(ignored(&request(&key, Some(&extensions(&sequence(&[&malformed, &malformed]))))).len(), 2);
    for content in [&b""[..], b"\x05\x00", b"\x30\x02\x05\x00", b"\x30\x80\x00\x00"] {
        let both = [extensions(content), sequence(&[CHALLENGE_PASSWORD, b"\x31\x00"])].concat();
        assert_eq!(ignored(&request(&key, Some(&both))), ["malformed extensionRequest", "challengePassword"]);
    }
    for content in [&b"\x05\x00"[..], b"\x30\x00", b"\x30\x05\x06", b"\xff"] {
        assert_eq!(ignored(&request(&key, Some(content))), ["malformed attributes"], "{content:?}");
    }
    assert_eq!(ignored(&request_with(&key, b"\x31\x00")), ["malformed attributes"]);
    assert_eq!(ignored(&request_with(&key, b"\xa0\x00\xa0\x00")), Vec::<String>::new());
}

#[test]
fn a_request_with_any_changed_byte_is_refused() {
    let key = key();
    let attribute = sequence(&[CHALLENGE_PASSWORD, &der(0x31, &der(0x16, b"\xe9"))]);
    for good in [request(&key, None), request(&key, Some(&attribute)), request_with(&key, b"\x31\x00")] {
        assert!(CertificateRequest::read(&good).is_ok());
        for at in 0..good.len() {
            for bit in [0x01, 0x80] {
                let mut changed = good.clone();
                changed[at] ^= bit;
                assert!(CertificateRequest::read(&changed).is_err(), "byte {at} of {}: {good:02x?}", good.len());
            }
        }
    }
    // The parts of two good requests.
    let (one, two) = (request(&key, None), request(&key, Some(&[])));
    // The first element of the outer sequence, whose length has one octet or two.
    let split = |der: &[u8]| {
        let length = if der[4] < 0x80 { 2 + usize::from(der[4]) } else { 3 + usize::from(der[5]) };
        (der[3..3 + length].to_vec(), der[3 + length..].to_vec())
    };
    let ((_, rest), (info, _)) = (split(&one), split(&two));
    let error = CertificateRequest::read(&sequence(&[&info, &rest])).expect_err("another signature");
    assert_eq!(error, RequestError::Signature);
}

#[test]
fn encrypted_keys_open_with_their_password_only() {
    let plain = pkcs8(&key());
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys/encrypted")).expect("read") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("read");
        let read = |password| PrivateKey::read(&bytes, password);
        let key = read(Some("secret")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if !path.ends_with("traditional-rsa.pem") {
            assert_eq!(pkcs8(&key), plain, "{}", path.display());
        }
        assert_eq!(read(None).expect_err("encrypted"), KeyError::PasswordNeeded);
        for wrong in ["Secret", "", "secret\n", "пароль"] {
            assert_eq!(read(Some(wrong)).expect_err("wrong"), KeyError::WrongPassword, "{}", path.display());
        }
        count += 1;
    }
    assert_eq!(count, 20);
    // Its headers survive what the text goes through.
    let text = String::from_utf8(fixture("keys/encrypted/traditional-aes256.pem")).expect("text");
    for text in [
        text.replace('\n', "\r\n"),
        text.replace('\n', "\\n"),
        text.replace('\n', " "),
        serde_json::to_string(&text).expect("JSON"),
        BASE64_STANDARD.encode(&text),
    ] {
        assert_eq!(pkcs8(&PrivateKey::read(text.as_bytes(), Some("secret")).expect("a key")), plain, "{text}");
    }
    for (dek_info, expected) in [
        ("", "missing"),
        ("DEK-Info: AES-256-CBC", "too short"),
        ("DEK-Info: AES-256-CBC,0011223344556677", "wrong length"),
        ("DEK-Info: AES-256-CBC,zz", "hexadecimal"),
        ("DEK-Info: AES-256-XTS,00", "encrypted with AES-256-XTS"),
    ] {
        let line = text.lines().find(|line| line.starts_with("DEK-Info")).expect("a header");
        let error = PrivateKey::read(text.replace(line, dek_info).as_bytes(), Some("secret")).expect_err(dek_info);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_key_that_is_not_supported_is_named() {
    let error = |name: &str, password| {
        PrivateKey::read(&fixture(&format!("keys/unsupported/{name}.pem")), password).expect_err(name)
    };
    for (name, kind) in [
        ("rsa1024", "RSA of 1024 bits"),
        ("dsa", "DSA"),
        ("dsa-traditional", "DSA"),
        ("ed448", "Ed448"),
        ("x25519", "X25519"),
        ("pss", "RSASSA-PSS"),
        ("secp256k1", "EC on the curve secp256k1"),
        ("brainpoolP384r1", "EC on the curve brainpoolP384r1"),
        ("explicit224", "EC with explicit parameters"),
    ] {
        assert_eq!(error(name, None), KeyError::Unsupported(kind.to_owned()));
    }
    for (name, algorithm) in [
        ("pbe-sha1-rc4-128", "RC4-128"),
        ("pbes2-camellia-256-cbc", "Camellia-256"),
        ("pbes2-hmacWithMD5", "HMAC with MD5"),
        ("traditional-camellia128", "CAMELLIA-128-CBC"),
    ] {
        assert_eq!(error(name, Some("secret")), KeyError::Encryption(algorithm.to_owned()));
    }
    assert_eq!(error("openssh", None), KeyError::OpenSsh);
    // 16384 bits, which the cryptographic library does not take.
    let modulus = der(0x02, &[&[0], &[0xa5; 2048][..]].concat());
    let numbers = [&[0x02, 1, 0][..], &modulus, &[2, 1, 3].repeat(7)].concat();
    let error = PrivateKey::read(&sequence(&[&numbers]), None).expect_err("too long");
    assert_eq!(error, KeyError::Unsupported("RSA of 16384 bits".to_owned()));
    let error = PrivateKey::read(&fixture("authorities/ec-sec1_cert.pem"), None).expect_err("none");
    assert_eq!(error, KeyError::NoKey("it holds a certificate".to_owned()));
}

const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

#[test]
fn keys_are_read_in_every_form() {
    let key = key();
    let plain = pkcs8(&key);
    let read = |der: &[u8]| PrivateKey::read(der, None).map(|key| pkcs8(&key));
    // The parts of our own PKCS#8, which has a fixed layout.
    let rcgen_key = rcgen_key(&key);
    let (scalar, point) = (&plain[36..68], rcgen_key.der_bytes());
    let octets = der(0x04, scalar);
    let sec1 = sequence(&[&[0x02, 1, 1], &octets]);
    let with_point = sequence(&[&[0x02, 1, 1], &octets, &der(0xa1, &der(0x03, &[&[0], point].concat()))]);
    let version_2 = |sec1: &[u8], point: &[u8]| {
        sequence(&[&[0x02, 1, 1], EC_P256, &der(0x04, sec1), &der(0x81, &[&[0], point].concat())])
    };
    let attributes = der(0xa0, &sequence(&[&[0x06, 0x03, 0x55, 0x1d, 0x0f], &der(0x31, &[0x03, 2, 0, 0x80])]));
    for (what, der) in [
        ("without the public key", sequence(&[&[0x02, 1, 0], EC_P256, &der(0x04, &sec1)])),
        ("version 2", version_2(&with_point, point)),
        ("version 2 with the public key outside", version_2(&sec1, point)),
        ("with attributes", sequence(&[&[0x02, 1, 0], EC_P256, &der(0x04, &with_point), &attributes])),
        ("a scalar with a zero too many", {
            let long = der(0x04, &[&[0], scalar].concat());
            sequence(&[&[0x02, 1, 0], EC_P256, &der(0x04, &sequence(&[&[0x02, 1, 1], &long]))])
        }),
        ("BER", indefinite(&plain, 1)),
        ("SEC1 with the curve", fixture("keys/ec-p256.pem")),
    ] {
        assert_eq!(read(&der).as_ref(), Ok(&plain), "{what}");
    }
    assert!(PrivateKey::read(&fixture("keys/explicit-p256.pem"), None).is_ok(), "the parameters of P-256, written out");
    let mut wrong = point.to_vec();
    wrong[40] ^= 1;
    assert!(matches!(read(&version_2(&sec1, &wrong)), Err(KeyError::Rejected(_))));

    // A scalar that begins with a zero, which some programs leave out.
    let short = sequence(&[&[0x02, 1, 1], &der(0x04, &[7; 31])]);
    let whole = sequence(&[&[0x02, 1, 1], &der(0x04, &[&[0], &[7; 31][..]].concat())]);
    let wrap = |sec1: &[u8]| sequence(&[&[0x02, 1, 0], EC_P256, &der(0x04, sec1)]);
    assert_eq!(read(&wrap(&short)).expect("a key"), read(&wrap(&whole)).expect("a key"));

    // RSA without the NULL of its algorithm.
    let rsa = PrivateKey::read(&fixture("authorities/rsa-pkcs1_key.pem"), None).expect("a key");
    let with_null = pkcs8(&rsa);
    let null = with_null.windows(2).position(|pair| pair == [0x05, 0x00]).expect("the parameters");
    let without = {
        let algorithm = &with_null[null - 11..null];
        sequence(&[&[0x02, 1, 0], &sequence(&[algorithm]), &with_null[null + 2..]])
    };
    assert_eq!(read(&without), Ok(with_null.clone()));
    // Numbers that do not belong together.
    let mut wrong = with_null.clone();
    let last = wrong.len() - 1;
    wrong[last] ^= 2;
    assert!(matches!(read(&wrong), Err(KeyError::Rejected(_))));
    assert!(matches!(read(&with_null[..last]), Err(KeyError::Damaged(_))));
}

#[test]
fn the_first_key_of_a_file_counts() {
    let text = |name: &str| String::from_utf8(fixture(name)).expect("text");
    let (plain, traditional, encrypted) = (
        text("keys/ec-p256.pem"),
        text("keys/encrypted/traditional-rsa.pem"),
        text("keys/encrypted/pbes2-aes-192-cbc.pem"),
    );
    let expected = pkcs8(&key());
    for second in [&traditional, &encrypted, &text("keys/unsupported/ed448.pem")] {
        let both = format!("{}{plain}{second}", text("authorities/ec-sec1_cert.pem"));
        assert_eq!(pkcs8(&PrivateKey::read(both.as_bytes(), None).expect("the first")), expected);
    }
    let both = format!("{encrypted}{}", text("authorities/rsa-pkcs1_key.pem"));
    assert_eq!(PrivateKey::read(both.as_bytes(), None).expect_err("encrypted"), KeyError::PasswordNeeded);
    assert_eq!(pkcs8(&PrivateKey::read(both.as_bytes(), Some("secret")).expect("the first")), expected);
    let parameters = pem("EC PARAMETERS", &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]);
    assert!(PrivateKey::read(format!("{parameters}{plain}").as_bytes(), None).is_ok());
}

/// A reader that looks at its input again for each of its parts would take minutes for these.
#[test]
fn large_inputs_take_no_longer_than_their_bytes() {
    // Reading takes a tenth of a second. A reader that looks at all bytes for each of them would take longer than the limit.
    const SIZE: usize = 1 << 17;
    let fill = |part: &[u8]| part.repeat(SIZE / part.len());
    let good = certificate("ec-sec1");
    let many = signed_data(&[]);
    for bytes in [
        fill(b"-----BEGIN "),
        fill(b"-----BEGIN CERTIFICATE-----"),
        fill(b"-----BEGIN CERTIFICATE-----\n"),
        fill(b"-----END "),
        fill(b"-----BEGIN A-----\n-----END A-----\n"),
        fill(b"-----BEGIN CERTIFICATE-----MIIB\\n\"-----END CERTIFICATE-----"),
        fill(b"-"),
        fill(b"\\"),
        fill(b"\""),
        fill(b"\"MIIB\","),
        fill(b"MIIB="),
        fill(b"A"),
        fill(b"0"),
        fill(&[0x30, 0x03, 0x02, 0x01, 0x03]),
        fill(&[0x30, 0x80]),
        fill(&[0x24, 0x80]),
        fill(&many),
        fill(good.der()),
        [&[0x30, 0x84, 0, 4, 0, 0][..], &fill(&[0x30, 0x00])].concat(),
        [fill(&[0x30, 0x03, 0x02, 0x01, 0x03]), good.to_pem().into_bytes()].concat(),
        [b"-----BEGIN CERTIFICATE-----\n", &fill(b"A: b\n")[..]].concat(),
        [b"-----BEGIN CERTIFICATE-----\n", &fill(b"DEK-Info: a ")[..], b"\n-----END CERTIFICATE-----"].concat(),
    ] {
        let start = Instant::now();
        let _ = content_kinds(&bytes);
        let _ = Certificate::read_all(&bytes);
        let _ = PrivateKey::read(&bytes, Some("secret"));
        let _ = CertificateRequest::read(&bytes);
        assert!(start.elapsed() < Duration::from_secs(7), "{}", String::from_utf8_lossy(&bytes[..40]));
    }
}

/// Inputs that differ from good ones in few bytes.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    let key = key();
    let certificate = certificate("ec-sec1");
    let good: Vec<Vec<u8>> = vec![
        certificate.der().to_vec(),
        certificate.to_pem().into_bytes(),
        serde_json::to_string(&certificate.to_pem()).expect("JSON").into_bytes(),
        BASE64_STANDARD.encode(certificate.der()).into_bytes(),
        signed_data(&[certificate.der()]),
        indefinite(&signed_data(&[certificate.der()]), 4),
        request(&key, Some(&sequence(&[CHALLENGE_PASSWORD, b"\x31\x00"]))),
        pkcs8(&key),
        fixture("keys/ec-p256.pem"),
        fixture("keys/explicit-p256.pem"),
        fixture("keys/encrypted/traditional-aes128.pem"),
        fixture("trusted_cert.pem"),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4);
    (prop::sample::select(good), changes).prop_map(|(mut bytes, changes)| {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn nothing_makes_a_reader_panic(bytes in nearly_good()) {
        let _ = content_kinds(&bytes);
        let _ = Certificate::read_all(&bytes);
        let _ = PrivateKey::read(&bytes, Some("secret"));
        let _ = CertificateRequest::read(&bytes);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = PrivateKey::read(&bytes, Some("secret"));
        let _ = CertificateRequest::read(&bytes);
    }
}
