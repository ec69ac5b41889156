//! The fuzz targets: one function each, which panics if a property does not hold.
//!
//! `fuzz_targets/` runs them under libFuzzer; `tests/fuzz` of the main package replays `corpus/` with them on
//! stable.

use std::{
    fs,
    path::PathBuf,
    str,
    sync::{LazyLock, Mutex},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    central::{self, Field},
    certificate::{
        Certificate, CertificateRequest, CommonName, DeviceId, PrivateKey, Thumbprint, Timestamp, camel_case,
        chain::{self, ChainError},
        fleet::{MANIFEST, MANIFEST_COLUMNS, read_manifest},
        objections, pfx,
    },
    emulator::{ApiVersion, DeviceProperties, Emulator, Filter, GroupQuery},
};
use mqtt_proto::v3::Packet;

/// The moment at which certificates are judged: 2026-06-01 00:00:00 UTC.
const AT: i64 = 1_780_272_000;

fn at() -> Timestamp {
    Timestamp::from_unix_seconds(AT).expect("a moment")
}

/// Reads certificates; what was read is read again from our own encodings.
pub fn certificate(data: &[u8]) {
    let Ok(certificates) = Certificate::read_all(data) else { return };
    assert!(!certificates.is_empty());
    assert_eq!(Certificate::read(data).as_ref(), Ok(&certificates[0]));
    for certificate in &certificates {
        check(certificate);
    }
    let bundle: String = certificates.iter().map(Certificate::to_pem).collect();
    assert_eq!(Certificate::read_all(bundle.as_bytes()).as_ref(), Ok(&certificates));
}

/// What holds for every certificate.
fn check(certificate: &Certificate) {
    let same = Ok(certificate);
    assert_eq!(Certificate::from_der(certificate.der()).as_ref(), same);
    assert_eq!(Certificate::read(certificate.der()).as_ref(), same);
    assert_eq!(Certificate::read(certificate.to_pem().as_bytes()).as_ref(), same);
    assert_eq!(Certificate::read(certificate.to_base64_pem().as_bytes()).as_ref(), same);
    for print in [certificate.sha1_thumbprint(), certificate.sha256_thumbprint()] {
        assert_eq!(print.to_string().parse(), Ok(print));
    }
    let serial = certificate.serial_number();
    assert!(
        serial.len().is_multiple_of(2) && serial.chars().all(|digit| matches!(digit, '0'..='9' | 'A'..='F')),
        "{serial}"
    );
    assert!(certificate.subject().matches(certificate.subject()));
    for name in [certificate.subject(), certificate.issuer()] {
        check_text(&name.to_string());
    }
    for objection in objections(certificate, at()) {
        check_text(&objection.to_string());
    }
    let _ = certificate.verify_signature(certificate);
    let _ = chain::check_authority(certificate, at());
}

/// Texts for people have no control characters that a terminal would follow.
fn check_text(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// Sends bytes to the emulator as an MQTT client. It answers in whole packets: first a CONNACK, or nothing.
pub fn mqtt(data: &[u8]) {
    static EMULATOR: LazyLock<(tokio::runtime::Runtime, Emulator)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let builder = Emulator::builder().tls(true).mqtt(([127, 0, 0, 1], 0).into());
        let emulator = runtime.block_on(builder.start()).expect("free ports");
        (runtime, emulator)
    });
    let (runtime, emulator) = &*EMULATOR;
    let answer = runtime.block_on(emulator.exchange_mqtt(data));
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        let packet = Packet::decode(rest).expect("a packet").expect("a whole packet");
        let is_first = rest.len() == answer.len();
        assert_eq!(matches!(packet, Packet::Connack(_)), is_first, "{packet:?}");
        assert!(!matches!(packet, Packet::Connect(_) | Packet::Pingreq | Packet::Disconnect), "{packet:?}");
        rest = &rest[packet.encode_len().expect("a length")..];
    }
}

/// Reads a private key; what was read is read again from our own encodings.
pub fn key(data: &[u8]) {
    let _ = PrivateKey::read(data, Some("1234"));
    let Ok(key) = PrivateKey::read(data, None) else { return };
    let der = key.to_pkcs8_der().expect("a key that was read can be encoded");
    for encoding in [der.to_vec(), key.to_pem().expect("PEM").as_bytes().to_vec()] {
        let again = PrivateKey::read(&encoding, None).expect("our own encoding");
        assert_eq!(again.to_pkcs8_der().expect("encoded"), der);
    }
}

/// Reads a certificate request.
pub fn request(data: &[u8]) {
    let Ok(request) = CertificateRequest::read(data) else { return };
    check_text(&request.subject().to_string());
    check_text(&request.public_key_algorithm().to_string());
    assert!(!request.public_key().is_empty());
    for part in request.ignored() {
        check_text(part);
    }
}

/// Reads a PFX file with the password `1234` and with the empty one.
pub fn pfx(data: &[u8]) {
    for password in ["1234", ""] {
        if let Ok(certificates) = pfx::read(data, password) {
            certificates.iter().for_each(check);
        }
        if let Ok((key, certificates)) = pfx::read_identity(data, password) {
            // A curve given by its parameters is not compared.
            if !certificates[0].public_key_algorithm().to_string().contains("explicit parameters") {
                assert!(key.belongs_to(&certificates[0]), "a key and a certificate that do not belong together");
            }
        }
    }
}

/// Reads PKCS#7: as it is, and written around certificates.
pub fn pkcs7(data: &[u8]) {
    certificate(data);
    let inside: Vec<_> = elements(data).into_iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    if inside.is_empty() {
        return;
    }
    let signed_data = signed_data(&inside);
    let pem = format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", BASE64_STANDARD.encode(&signed_data));
    for encoding in [&signed_data[..], pem.as_bytes()] {
        assert_eq!(Certificate::read_all(encoding).as_ref(), Ok(&inside));
    }
}

/// Judges a chain whose certificates have the contents given, signed by the one key of this target.
///
/// Each element of the data is the `TBSCertificate` of a certificate, the device's first and the enrolled one last. A
/// fuzzer cannot sign; this way its certificates come past the signatures.
pub fn chain(data: &[u8]) {
    let mut certificates: Vec<_> =
        elements(data).into_iter().take(8).filter_map(|tbs| Certificate::from_der(&signed(tbs)).ok()).collect();
    let Some(enrolled) = certificates.pop() else { return };
    certificates.iter().chain([&enrolled]).for_each(check);
    match chain::verify(&certificates, std::slice::from_ref(&enrolled), at()) {
        Ok(path) => {
            assert_eq!(path.first(), certificates.first().as_ref());
            assert_eq!(path.last(), Some(&&enrolled));
            for pair in path.windows(2) {
                assert_eq!(pair[0].verify_signature(pair[1]), Ok(()));
                assert!(pair[0].issuer().matches(pair[1].subject()));
                assert!(pair[1].basic_constraints().is_some_and(|constraints| constraints.authority));
                assert!(pair[1].key_usage().is_none_or(|usage| usage.certificate_signing));
            }
            for certificate in path {
                assert!((certificate.not_before()..=certificate.not_after()).contains(&at()));
                assert_eq!(certificate.unknown_critical_extension(), None);
            }
        }
        Err(ChainError::Empty) => assert!(certificates.is_empty()),
        Err(error) => check_text(&error.to_string()),
    }
}

/// Compares two distinguished names, the elements of the data.
pub fn name(data: &[u8]) {
    let parts = elements(data);
    let [first, second, ..] = parts[..] else { return };
    let Ok(certificate) = Certificate::from_der(&signed(&named(first, second))) else { return };
    let (subject, issuer) = (certificate.subject(), certificate.issuer());
    assert!(subject.matches(subject) && issuer.matches(issuer));
    assert_eq!(subject.matches(issuer), issuer.matches(subject));
    assert!(first != second || subject.matches(issuer));
    // Names that are the same read the same to a person, but for case and spaces.
    if subject.matches(issuer) {
        assert_eq!(subject.common_name().is_some(), issuer.common_name().is_some());
    }
    for name in [subject, issuer] {
        check_text(&name.to_string());
    }
}

/// Reads thumbprints and names from text.
pub fn thumbprint(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(print) = text.parse::<Thumbprint>() {
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_eq!(print.to_string().to_lowercase().parse(), Ok(print));
    }
    if let Ok(id) = DeviceId::new(&*text) {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(name) = CommonName::new(&*text) {
        assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
        if let Ok(stem) = name.file_stem() {
            assert!(!stem.is_empty() && !stem.contains('/'));
        }
    }
    let _ = camel_case(&text);
}

/// Reads filters of devices and queries of device groups, and filters that our own client wrote.
pub fn filter(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let device = device();
    for version in [ApiVersion::Stable, ApiVersion::Preview, ApiVersion::Preview2022_06_30] {
        match Filter::parse(&text, version) {
            Ok(filter) => drop(filter.matches(&device)),
            Err(error) => assert!(error.position() <= text.chars().count() + 1),
        }
    }
    match GroupQuery::parse(&text) {
        Ok(query) => drop(query.matches(&device)),
        Err(error) => assert!(error.position() <= text.chars().count() + 1),
    }
    let mut bytes = data.iter();
    let (written, holds) = written(&mut bytes, &device, 8);
    let client = [central::ApiVersion::V2022_07_31, central::ApiVersion::V2022_10_31Preview];
    for (client, version) in client.into_iter().zip([ApiVersion::Stable, ApiVersion::Preview]) {
        let filter = Filter::parse(written.to_text(client), version).expect("a filter of our own client");
        assert_eq!(filter.matches(&device), holds, "{written}");
    }
}

fn device() -> DeviceProperties {
    let mut device = DeviceProperties::new("device-01");
    device.display_name.clear();
    device.display_name.push_str("baker's");
    device
}

/// A filter made of the bytes, and whether it holds for the device.
fn written(bytes: &mut std::slice::Iter<'_, u8>, device: &DeviceProperties, depth: usize) -> (central::Filter, bool) {
    let choice = bytes.next().copied().unwrap_or_default();
    if depth > 0 && choice >= 0x80 {
        let (left, left_holds) = written(bytes, device, depth - 1);
        let (right, right_holds) = written(bytes, device, depth - 1);
        return if choice >= 0xc0 {
            (left.and(right), left_holds && right_holds)
        } else {
            (left.or(right), left_holds || right_holds)
        };
    }
    if choice & 0x10 != 0 {
        let value = choice & 1 != 0;
        let field = || central::Filter::field(Field::ENABLED);
        return if choice & 2 != 0 {
            (field().eq(value), device.enabled == value)
        } else {
            (field().ne(value), device.enabled != value)
        };
    }
    let length = usize::from(bytes.next().copied().unwrap_or_default() % 8);
    let text: Vec<u8> = bytes.by_ref().take(length).copied().collect();
    let text = &*String::from_utf8_lossy(&text);
    let (field, own) =
        if choice & 8 == 0 { (Field::ID, &device.id) } else { (Field::DISPLAY_NAME, &device.display_name) };
    let (field, own) = (central::Filter::field(field), own.as_str());
    match choice % 8 {
        0 => (field.eq(text), own == text),
        1 => (field.ne(text), own != text),
        2 => (field.lt(text), own < text),
        3 => (field.le(text), own <= text),
        4 => (field.gt(text), own > text),
        5 => (field.ge(text), own >= text),
        6 => (field.contains(text), own.contains(text)),
        _ => (field.does_not_contain(text), !own.contains(text)),
    }
}

/// A file that is written again for each run: the readers take paths.
fn file(name: &str, data: &[u8]) -> PathBuf {
    static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));
    let path = DIRECTORY.path().join(name);
    fs::write(&path, data).expect("written");
    path
}

/// One run at a time has the file.
static FILE: Mutex<()> = Mutex::new(());

/// Reads the CSV files of `device import` and of `cert fleet`.
pub fn csv(data: &[u8]) {
    use iot_enroll::cli::fuzzing::{fleet_devices, import_rows};

    let _one = FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = file("devices.csv", data);
    let _ = import_rows(&path);
    let _ = fleet_devices(&path);
    // What a CSV writer wrote is read as it was.
    let text = String::from_utf8_lossy(data);
    let names: Vec<_> = text.split('\n').map(str::trim).filter(|name| !name.chars().any(char::is_control)).collect();
    if names.is_empty() {
        return;
    }
    let mut writer = csv_writer(&["IOTC_DEVICEID", "IOTC_DEVICENAME"]);
    for (number, name) in names.iter().enumerate() {
        writer.write_record([&format!("device-{number}"), *name]).expect("a row");
    }
    let rows = import_rows(&file("devices.csv", &writer.into_inner().expect("CSV"))).expect("rows");
    assert_eq!(rows.len(), names.len());
    for ((number, name), row) in names.iter().enumerate().zip(rows) {
        let expected = (format!("device-{number}"), (!name.is_empty()).then(|| (*name).to_owned()));
        assert_eq!(row, Ok(expected));
    }
}

fn csv_writer(columns: &[&str]) -> ::csv::Writer<Vec<u8>> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).expect("a row");
    writer
}

/// Reads the manifest of a fleet, and one that a CSV writer wrote.
pub fn manifest(data: &[u8]) {
    let _one = FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = file(MANIFEST, data);
    for device in read_manifest(&path).into_iter().flatten() {
        match device {
            Ok(device) => assert_eq!(device.id.to_string().parse(), Ok(device.id)),
            Err(error) => drop(error.to_string()),
        }
    }
    let text = String::from_utf8_lossy(data);
    let names = text.split('\n').filter(|name| !name.chars().any(char::is_control));
    let names: Vec<_> = names.map(|name| name.replace('\r', "")).collect();
    let mut writer = csv_writer(&MANIFEST_COLUMNS);
    let file_of = |number: usize, suffix: &str| format!("device-{number}{suffix}");
    for (number, name) in names.iter().enumerate() {
        let id = format!("device-{number}");
        let [certificate, key, fullchain] = ["_cert.pem", "_key.pem", "_fullchain.pem"].map(|end| file_of(number, end));
        writer.write_record([&id, name, "00", "00", "01", "", "", &certificate, &key, &fullchain, ""]).expect("a row");
    }
    let path = file(MANIFEST, &writer.into_inner().expect("CSV"));
    let devices: Vec<_> = read_manifest(&path).expect("opened").collect();
    assert_eq!(devices.len(), names.len());
    for (number, device) in devices.into_iter().enumerate() {
        let device = device.expect("a row");
        assert_eq!(device.id.as_str(), format!("device-{number}"));
        assert!(device.private_key.ends_with(file_of(number, "_key.pem")));
        assert!(device.fullchain.ends_with(file_of(number, "_fullchain.pem")));
    }
}

/// The DER elements that stand one after the other, up to the first that is cut off.
fn elements(mut data: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    while let Some(length) = element_length(data) {
        let Some((element, rest)) = data.split_at_checked(length) else { break };
        elements.push(element);
        data = rest;
    }
    elements
}

fn element_length(data: &[u8]) -> Option<usize> {
    let first = usize::from(*data.get(1)?);
    if first < 0x80 {
        return Some(2 + first);
    }
    let count = first & 0x7f;
    let length = data.get(2..2 + count).filter(|bytes| (1..=3).contains(&bytes.len()))?;
    Some(2 + count + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|&byte| byte == 0).collect();
    let mut element = vec![tag];
    match length[..] {
        [] => element.push(0),
        [short @ 0..0x80] => element.push(short),
        _ => {
            let octets = u8::try_from(length.len()).expect("at most eight octets");
            element.push(0x80 | octets);
            element.extend(&length);
        }
    }
    element.extend(content);
    element
}

/// The one key of the target `chain`. Test data.
const KEY: &[u8] = include_bytes!("../key.p8");

/// The algorithm it signs with: ecdsa-with-SHA256.
const ALGORITHM: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A certificate with this `TBSCertificate`.
fn signed(tbs: &[u8]) -> Vec<u8> {
    static PAIR: LazyLock<EcdsaKeyPair> =
        LazyLock::new(|| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, KEY).expect("a key"));
    let signature = PAIR.sign(&SystemRandom::new(), tbs).expect("a signature");
    let signature = tlv(0x03, &[&[0], signature.as_ref()].concat());
    tlv(0x30, &[tbs, ALGORITHM, &signature].concat())
}

/// A `TBSCertificate` with these names.
fn named(subject: &[u8], issuer: &[u8]) -> Vec<u8> {
    const PUBLIC_KEY: &[u8] = include_bytes!("../key.spki");
    let time = tlv(0x17, b"260101000000Z");
    let validity = tlv(0x30, &[&time[..], &time].concat());
    tlv(0x30, &[&[0xa0, 3, 2, 1, 2][..], &[2, 1, 1], ALGORITHM, issuer, &validity, subject, PUBLIC_KEY].concat())
}

/// Certificates-only `SignedData` (RFC 5652 section 5.1, RFC 2315).
fn signed_data(certificates: &[Certificate]) -> Vec<u8> {
    const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    const DATA: &[u8] = &[0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    let ders: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.der().iter().copied()).collect();
    let content = [&[2, 1, 1, 0x31, 0][..], DATA, &tlv(0xa0, &ders), &[0x31, 0]].concat();
    tlv(0x30, &[SIGNED_DATA, &tlv(0xa0, &tlv(0x30, &content))].concat())
}

/// A target: reads data and panics if a property does not hold.
pub type Target = fn(&[u8]);

/// The targets by name, which is also that of their directory in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("certificate", certificate),
    ("key", key),
    ("request", request),
    ("pfx", pfx),
    ("pkcs7", pkcs7),
    ("chain", chain),
    ("name", name),
    ("thumbprint", thumbprint),
    ("filter", filter),
    ("csv", csv),
    ("manifest", manifest),
    ("mqtt", mqtt),
];
