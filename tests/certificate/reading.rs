//! Certificates are read for what they are, whatever their encoding and whatever surrounds them.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{
    Certificate, CommonName, DeviceId, NameError, PublicKeyAlgorithm, ReadError, Thumbprint, camel_case,
};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/fixtures/authorities/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the fixture exists")
}

fn pem() -> String {
    String::from_utf8(fixture("ec-sec1_cert.pem")).expect("PEM is text")
}

#[test]
fn every_encoding_gives_the_same_certificate() {
    let pem = pem();
    let expected = Certificate::read(pem.as_bytes()).expect("PEM");
    let der = expected.der().to_vec();
    let wrapped: String = BASE64_STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(60)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    for (what, bytes) in [
        ("DER", der.clone()),
        ("DER and a line end", [&der[..], b"\r\n"].concat()),
        ("DER and a word", [&der[..], b"null"].concat()),
        ("base64 of DER", BASE64_STANDARD.encode(&der).into_bytes()),
        ("base64 of DER in lines", wrapped.into_bytes()),
        ("base64 of PEM", BASE64_STANDARD.encode(&pem).into_bytes()),
        ("PEM with CRLF", pem.replace('\n', "\r\n").into_bytes()),
        ("PEM with CR", pem.replace('\n', "\r").into_bytes()),
        ("PEM after a byte-order mark", [b"\xef\xbb\xbf", pem.as_bytes()].concat()),
        ("PEM and null", format!("{pem}null").into_bytes()),
        ("PEM and null on the same line", format!("{}null", pem.trim_end()).into_bytes()),
        ("PEM after null on the same line", format!("null{pem}").into_bytes()),
        ("PEM with text around", format!("subject=CN\n\n{pem}\n# end").into_bytes()),
        ("indented PEM", pem.lines().map(|line| format!("    {line}  \n")).collect::<String>().into_bytes()),
        (
            "PEM in UTF-16",
            [&[0xff, 0xfe][..], &pem.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat(),
        ),
    ] {
        assert_eq!(Certificate::read(&bytes).as_ref(), Ok(&expected), "{what}");
    }
}

#[test]
fn all_certificates_of_a_file_are_read_in_its_order() {
    let files = ["rsa-pkcs1_cert.pem", "ec-sec1_cert.pem", "p521_cert.pem"];
    let text = files.map(|name| String::from_utf8(fixture(name)).expect("text")).join("null");
    let names: Vec<_> =
        Certificate::read_all(text.as_bytes()).expect("three").iter().map(|c| c.subject().to_string()).collect();
    assert_eq!(names, ["CN=RSA PKCS1", "CN=EC SEC1", "CN=P-521"]);
}

#[test]
fn input_that_is_no_certificate_is_refused_by_kind() {
    let der = Certificate::read(pem().as_bytes()).expect("PEM").der().to_vec();
    let is = |bytes: &[u8]| Certificate::read(bytes).expect_err("not a certificate");
    assert_eq!(is(b""), ReadError::Empty);
    assert_eq!(is(b" \r\n\t"), ReadError::Empty);
    assert_eq!(is(b"hello, world"), ReadError::Unrecognised);
    assert_eq!(is(&[0x30, 0x03, 0x02, 0x01, 0x03]), ReadError::Pfx);
    assert!(is(&fixture("rsa-pkcs1_key.pem")).to_string().contains("a private key"));
    assert!(matches!(is(pem().replace("-----END", "").as_bytes()), ReadError::Pem(_)));
    assert!(matches!(is(&der[..der.len() - 1]), ReadError::Certificate(_)));
    assert!(matches!(is(&[&der[..], &[0, 1, 2]].concat()), ReadError::Certificate(_)));
}

#[test]
fn keys_are_reported_by_kind_and_length() {
    for (name, algorithm) in [
        ("ec-sec1_cert.pem", PublicKeyAlgorithm::EcP256),
        ("ec-pkcs8_cert.pem", PublicKeyAlgorithm::EcP384),
        ("p521_cert.pem", PublicKeyAlgorithm::EcP521),
        ("rsa-pkcs1_cert.pem", PublicKeyAlgorithm::Rsa { bits: 2048 }),
        ("ed25519_cert.pem", PublicKeyAlgorithm::Other("Ed25519".to_owned())),
    ] {
        let certificate = Certificate::read(&fixture(name)).expect("a certificate");
        assert_eq!(*certificate.public_key_algorithm(), algorithm);
        #[cfg(feature = "verify")]
        assert_eq!(certificate.verify_signature(&certificate), Ok(()), "{name} is signed by itself");
    }
}

#[test]
fn camel_case_is_that_of_the_npm_package() {
    let table = fs::read(format!("{}/fixtures/camelcase-4.1.0.json", env!("CARGO_MANIFEST_DIR"))).expect("fixture");
    let table: Vec<(String, String)> = serde_json::from_slice(&table).expect("pairs");
    assert!(table.len() > 300);
    for (text, expected) in table {
        assert_eq!(camel_case(&text), expected, "{text:?}");
    }
}

#[test]
fn names_are_refused_with_the_character_and_its_position() {
    let position = |error: NameError| match error {
        NameError::Character { character, position, .. } => Some((character, position)),
        _ => None,
    };
    assert_eq!(CommonName::new("a\nb").map_err(position), Err(Some(('\n', 2))));
    assert_eq!(CommonName::new("a ").map_err(position), Err(Some((' ', 2))));
    assert_eq!(CommonName::new("").map_err(position), Err(None));
    assert_eq!(CommonName::new("a\u{202e}b").map_err(position), Err(Some(('\u{202e}', 2))));
    assert!(CommonName::new("é".repeat(64)).is_ok());
    assert!(CommonName::new("😀".repeat(64)).expect("a name").file_stem().is_err(), "no file system takes it");
    assert_eq!(CommonName::new("é".repeat(65)).map_err(position), Err(None));
    assert_eq!(DeviceId::new("sensor/1").map_err(position), Err(Some(('/', 7))));
    assert_eq!(DeviceId::new("-sensor").map_err(position), Err(Some(('-', 1))));
    assert_eq!(DeviceId::new("sensor.").map_err(position), Err(Some(('.', 7))));
    assert_eq!(DeviceId::new("sensör").map_err(position), Err(Some(('ö', 5))));
    assert_eq!(DeviceId::new("-").map_err(position), Err(Some(('-', 1))));
    // One of Microsoft's two documents allows it.
    assert_eq!(DeviceId::new("sensor--").expect("an ID").as_str(), "sensor--");
    assert!(DeviceId::new("a-b.c_d:e").is_ok());
    assert!(DeviceId::new("a".repeat(128)).is_ok());
    assert!(DeviceId::new("a".repeat(129)).is_err());
    assert!(DeviceId::new("a".repeat(65)).expect("an id").common_name().is_err());
    for path in ["../x", "a/b", "a\\b"] {
        assert!(CommonName::new(path).expect("a name").file_stem().is_err(), "{path}");
    }
    assert!(CommonName::new("---").expect("a name").file_stem().is_err());
}

proptest! {
    #[test]
    fn thumbprints_survive_every_spelling(bytes in prop::array::uniform20(any::<u8>()), lower: bool, separator in "[: -]?") {
        let thumbprint = Thumbprint::Sha1(bytes);
        let pairs = bytes.map(|byte| if lower { format!("{byte:02x}") } else { format!("{byte:02X}") });
        prop_assert_eq!(pairs.join(&separator).parse(), Ok(thumbprint));
        prop_assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
        prop_assert_eq!(thumbprint.to_string(), bytes.map(|byte| format!("{byte:02X}")).concat());
    }

    #[test]
    fn no_text_makes_a_thumbprint_panic(text in ".{0,80}") {
        let _ = text.parse::<Thumbprint>();
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Certificate::read_all(&bytes);
    }

    #[test]
    fn a_damaged_certificate_never_makes_reading_panic(position in 0_usize..400, byte: u8) {
        let mut der = Certificate::read(pem().as_bytes()).expect("PEM").der().to_vec();
        let index = position % der.len();
        der[index] = byte;
        if let Ok(certificate) = Certificate::read(&der) {
            let _ = certificate.to_string();
            #[cfg(feature = "verify")]
            let _ = certificate.verify_signature(&certificate);
        }
    }

    #[test]
    fn camel_case_of_ascii_leaves_no_separators_and_begins_small(text in "[A-Za-z0-9 _.-]{2,64}") {
        let camel = camel_case(&text);
        if text.trim().chars().count() > 1 {
            prop_assert!(camel.chars().all(|c| c.is_ascii_alphanumeric()), "{}", camel);
        }
        prop_assert!(!camel.starts_with(|c: char| c.is_ascii_uppercase()));
    }

    #[test]
    fn camel_case_keeps_letters_and_digits(text in "[A-Za-z0-9 _.-]{2,64}") {
        let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        prop_assert_eq!(letters(&camel_case(&text)), letters(&text));
    }

    #[test]
    fn small_letters_and_digits_stay_as_they_are(text in "[a-z0-9]{1,64}") {
        prop_assert_eq!(camel_case(&text), text);
    }
}
