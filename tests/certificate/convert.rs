//! Conversions lose nothing: what is read back from any format has the DER of what was written.

use std::{collections::HashMap, fs, sync::LazyLock};

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{
    Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm, KeyEncoding, KeyError,
    KeyFormat, PrivateKey,
    convert::{Bundle, ConvertError, NvsNamespace, NvsOptions, Symbol},
    files::{Passwords, PfxOptions},
    pfx::PfxError,
};
use proptest::prelude::*;

use crate::forge::{der, sequence};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).expect("the fixture exists")
}

/// A chain of certificates and the private key of the first, in PEM.
struct Chain {
    certificates: String,
    key: String,
}

/// Chains of one to three certificates, by the algorithm of their keys. Issuing them takes time.
static CHAINS: LazyLock<HashMap<(KeyAlgorithm, usize), Chain>> = LazyLock::new(|| {
    let mut chains = HashMap::new();
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        let options = IssueOptions::new().algorithm(algorithm);
        let name = |name: &str| CommonName::new(name).expect("a name");
        let device = DeviceId::new("sensor-1").expect("an ID");
        let root = CertificateAuthority::new_root(&name("Root"), &options).expect("a root");
        let root = root.into_authority(options.issue_time()).expect("an authority");
        let intermediate = root.issue_intermediate(&name("Intermediate"), &options).expect("an intermediate");
        let intermediate = intermediate.into_authority(options.issue_time()).expect("an authority");
        let alone = CertificateAuthority::self_signed_device(&device, &options).expect("a certificate");
        let below_root = root.issue_device(&device, &options).expect("a certificate");
        let below_intermediate = intermediate.issue_device(&device, &options).expect("a certificate");
        for (index, issued) in [alone, below_root, below_intermediate].into_iter().enumerate() {
            let key = issued.key.to_pem().expect("a key").to_string();
            chains.insert((algorithm, index + 1), Chain { certificates: issued.fullchain_pem(), key });
        }
    }
    chains
});

fn read(content: &[u8], passwords: Passwords<'_>) -> Bundle {
    Bundle::read(content, passwords).expect("a bundle")
}

fn der_of(bundle: &Bundle) -> Vec<&[u8]> {
    bundle.certificates().iter().map(Certificate::der).collect()
}

fn key_of(bundle: &Bundle) -> Option<Vec<u8>> {
    bundle.key().map(|key| key.to_pkcs8_der().expect("a key").to_vec())
}

/// Evaluates the array of a C header, a literal or a list of characters.
fn array(header: &str, name: &str) -> Option<String> {
    let (_, rest) = header
        .split_once(&format!("static const char {name}[] = "))
        .or_else(|| header.split_once(&format!("static const char {name}[] =\n")))?;
    let (value, _) = rest.split_once(";\n").expect("an end");
    let text: String = if value.starts_with('{') {
        value
            .lines()
            .skip(1)
            .flat_map(|line| line.split("',"))
            .filter_map(|part| part.trim().strip_prefix('\''))
            .collect()
    } else {
        value.lines().map(|line| line.trim().trim_matches('"')).collect()
    };
    Some(text.replace("\\n", "\n").replace("\\0'", ""))
}

/// Returns the values of a CSV file for NVS by their keys.
fn nvs(csv: &str) -> HashMap<String, String> {
    let mut reader = csv::ReaderBuilder::new().from_reader(csv.as_bytes());
    assert_eq!(reader.headers().expect("headers"), &["key", "type", "encoding", "value"][..]);
    let mut values = HashMap::new();
    for record in reader.records() {
        let record = record.expect("a record");
        let value = match &record[2] {
            "base64" => {
                let blob = BASE64_STANDARD.decode(&record[3]).expect("base64");
                String::from_utf8(blob).expect("text").strip_suffix('\0').expect("it ends with NUL").to_owned()
            }
            _ => record[3].to_owned(),
        };
        values.insert(record[0].to_owned(), value);
    }
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn certificates_and_keys_come_back_from_every_format(
        algorithm in prop::sample::select(vec![KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048]),
        length in 1_usize..=3,
        rotation in 0_usize..3,
        traditional: bool,
        password in "[!-~äß]{1,20}",
    ) {
        let Chain { certificates, key } = &CHAINS[&(algorithm, length)];
        let chain = read(certificates.as_bytes(), Passwords::new());
        let with_key = read(format!("{key}{certificates}").as_bytes(), Passwords::new());
        let (expected, expected_key) = (der_of(&chain), key_of(&with_key));
        prop_assert_eq!(expected.len(), length);
        prop_assert_eq!(&der_of(&with_key), &expected);

        // Whatever the order of the input, the chain starts with the leaf.
        let mut files: Vec<_> = certificates.split_inclusive("-----END CERTIFICATE-----\n").collect();
        files.rotate_left(rotation % length);
        let back = read(files.concat().as_bytes(), Passwords::new());
        prop_assert_eq!(&der_of(&back), &expected);

        let is_rsa = algorithm == KeyAlgorithm::Rsa2048;
        let format = match (traditional, is_rsa) {
            (false, _) => KeyFormat::Pkcs8,
            (true, true) => KeyFormat::Pkcs1,
            (true, false) => KeyFormat::Sec1,
        };
        let encoding = KeyEncoding::new().format(format);
        let pem = with_key.to_pem(encoding).expect("PEM");
        let back = read(pem.as_bytes(), Passwords::new());
        prop_assert_eq!((&der_of(&back), &key_of(&back)), (&expected, &expected_key));

        let pfx = with_key.to_pfx(PfxOptions::new(&password)).expect("PFX");
        let back = read(&pfx, Passwords::new().pfx(password.as_str()));
        prop_assert_eq!((&der_of(&back), &key_of(&back)), (&expected, &expected_key));
        // Java takes ASCII only.
        let password: String = password.chars().map(|c| if c.is_ascii() { c } else { 'x' }).collect();
        let truststore = chain.to_truststore(&password).expect("a truststore");
        let back = read(&truststore, Passwords::new().pfx(password.as_str()));
        prop_assert_eq!(&der_of(&back), &expected);

        for p7b in [chain.to_pkcs7_der().expect("PKCS#7"), chain.to_pkcs7_pem().expect("PKCS#7").into_bytes()] {
            let back = read(&p7b, Passwords::new());
            prop_assert_eq!(&der_of(&back), &expected);
            prop_assert!(back.left_out().is_empty());
        }
        for (index, der) in expected.iter().enumerate() {
            let only = Bundle::new(vec![chain.certificates()[index].clone()], None).expect("a bundle");
            let written = only.to_der(encoding).expect("DER");
            prop_assert_eq!(&&written[..], der);
        }
        let key_only = read(key.as_bytes(), Passwords::new());
        let back = read(&key_only.to_der(encoding).expect("DER"), Passwords::new());
        prop_assert_eq!(&key_of(&back), &expected_key);

        let header = with_key.to_c_header(&Symbol::default(), encoding).expect("a header");
        prop_assert_eq!(array(&header, "device_cert"), Some(certificates.clone()));
        let key_pem = with_key.key().expect("a key").encode_pem(encoding).expect("PEM").to_string();
        prop_assert_eq!(array(&header, "device_key"), Some(key_pem.clone()));
        for as_blobs in [false, true] {
            let csv = with_key.to_nvs_csv(&NvsOptions::new().as_blobs(as_blobs), encoding).expect("a CSV file");
            let values = nvs(&csv);
            prop_assert_eq!(&values["certs"], "");
            prop_assert_eq!((&values["device_cert"], &values["device_key"]), (certificates, &key_pem));
        }
    }
}

#[test]
fn header_is_read_back_whatever_its_length() {
    let names = ["ec-sec1", "rsa-pkcs1", "script", "p521", "directory", "ec-pkcs8", "limited-1"];
    let roots = names.map(|name| fixture(&format!("authorities/{name}_cert.pem")));
    let key = fixture("authorities/ec-sec1_key.pem");
    for count in [1, names.len()] {
        let bundle = read(&[&roots[..count].concat()[..], &key].concat(), Passwords::new());
        let header = bundle.to_c_header(&Symbol::default(), KeyEncoding::new()).expect("a header");
        assert_eq!(header.contains("'-','-'"), count > 1, "a list of characters is for long values");
        let back = read(header.as_bytes(), Passwords::new());
        assert_eq!((der_of(&back), key_of(&back)), (der_of(&bundle), key_of(&bundle)));
    }
}

#[test]
fn encrypted_key_needs_its_password() {
    let key = PrivateKey::generate(KeyAlgorithm::EcP384).expect("a key");
    let encoding = KeyEncoding::new().password("pässwörd");
    for encoded in
        [key.encode_pem(encoding).expect("PEM").as_bytes().to_vec(), key.encode_der(encoding).expect("DER").to_vec()]
    {
        assert_eq!(PrivateKey::read(&encoded, None).err(), Some(KeyError::PasswordNeeded));
        assert_eq!(PrivateKey::read(&encoded, Some("password")).err(), Some(KeyError::WrongPassword));
        let back = PrivateKey::read(&encoded, Some("pässwörd")).expect("a key");
        assert_eq!(back.to_pkcs8_der(), key.to_pkcs8_der());
    }
    assert!(!format!("{encoding:?}").contains("pässwörd"));
    let refused = key.encode_pem(encoding.format(KeyFormat::Sec1)).expect_err("only PKCS#8 can be encrypted");
    assert_eq!(refused, KeyError::EncryptedFormat("SEC1"));
}

#[test]
fn structure_of_another_kind_of_key_is_refused() {
    for (file, format, message) in [
        ("chain-keys/p521-1.pem", KeyFormat::Pkcs1, "an EC key has no PKCS#1 form"),
        ("chain-keys/rsa2048-1.pem", KeyFormat::Sec1, "an RSA key has no SEC1 form"),
    ] {
        let key = PrivateKey::read(&fixture(file), None).expect("a key");
        let refused = key.encode_der(KeyEncoding::new().format(format)).expect_err("refused");
        assert_eq!(refused.to_string(), message);
    }
    let key = PrivateKey::read(&fixture("chain-keys/p521-1.pem"), None).expect("a key");
    let sec1 = key.encode_der(KeyEncoding::new().format(KeyFormat::Sec1)).expect("SEC1");
    assert_eq!(PrivateKey::read(&sec1, None).expect("a key").to_pkcs8_der(), key.to_pkcs8_der());
}

#[test]
fn objects_that_no_format_holds_are_refused() {
    let key = || fixture("authorities/ec-sec1_key.pem");
    for (content, holds) in [
        (fixture("chains/bmp_cn.csr"), "a certificate request"),
        ([fixture("authorities/ec-sec1_cert.pem"), fixture("chains/bmp_cn.csr")].concat(), "a certificate request"),
        (b"-----BEGIN PGP MESSAGE-----\nAAAA\n-----END PGP MESSAGE-----\n".to_vec(), "a section PGP MESSAGE"),
    ] {
        let refused = Bundle::read(&content, Passwords::new()).expect_err("refused");
        assert_eq!(refused.to_string(), format!("it holds {holds}, which cannot be converted"));
    }
    // OpenSSL writes the curve before the key, and the key names it too.
    let parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    Bundle::read(&[&parameters[..], &key()].concat(), Passwords::new()).expect("a key");
    Bundle::read(parameters, Passwords::new()).expect_err("no key");
    assert!(matches!(
        Bundle::read(&fixture("keys/unsupported/openssh.pem"), Passwords::new()),
        Err(ConvertError::Key(KeyError::OpenSsh))
    ));
    let keystore = Bundle::read(&fixture("pfx/two-keys.p12"), Passwords::new().pfx("changeit"));
    assert!(matches!(keystore, Err(ConvertError::Pfx(PfxError::Ambiguous(_)))), "{keystore:?}");
}

#[test]
fn trust_settings_are_reported() {
    let bundle = read(&fixture("trusted_cert.pem"), Passwords::new());
    assert_eq!(bundle.left_out(), ["the trust settings of OpenSSL"]);
}

#[test]
fn key_of_another_certificate_is_refused() {
    let pair = [fixture("authorities/ec-sec1_cert.pem"), fixture("authorities/ec-pkcs8_key.pem")];
    let refused = Bundle::read(&pair.concat(), Passwords::new()).expect_err("a mismatch");
    assert_eq!(refused, ConvertError::KeyMismatch("CN=EC SEC1".to_owned()));
    let parts = || pair.iter().map(|file| read(file, Passwords::new()));
    assert_eq!(Bundle::join(parts()).expect_err("a mismatch"), refused);
    let keys = ["authorities/ec-sec1_key.pem", "authorities/ec-pkcs8_key.pem"].map(fixture).concat();
    assert_eq!(Bundle::read(&keys, Passwords::new()).expect_err("two keys"), ConvertError::SeveralKeys);
    let same = [fixture("authorities/ec-sec1_key.pem"), fixture("authorities/ec-sec1_key.pem")].concat();
    read(&same, Passwords::new());
}

#[test]
fn aliases_of_a_truststore_are_distinct_for_java() {
    let options = IssueOptions::new();
    let names = ["Root", "ROOT", "root 2", "root", "🚀"];
    let roots = names.map(|name| {
        CertificateAuthority::new_root(&CommonName::new(name).expect("a name"), &options).expect("a root").certificate
    });
    let bundle = Bundle::new([&roots[..], &roots[..1]].concat(), None).expect("a bundle");
    let truststore = bundle.to_truststore("changeit").expect("a truststore");
    assert_eq!(read(&truststore, Passwords::new().pfx("changeit")).certificates().len(), names.len());
}

#[test]
fn names_in_code_and_nvs_are_checked() {
    for name in ["device", "a", "Root_CA_2", &"a".repeat(48)] {
        Symbol::new(name).expect(name);
    }
    for name in ["", "2a", "_a", "a-b", "a b", "ä", "a\"", &"a".repeat(49)] {
        Symbol::new(name).expect_err(name);
    }
    for name in ["certs", "a.b-c_1", "123456789012345"] {
        NvsNamespace::new(name).expect(name);
    }
    for name in ["", "1234567890123456", "a,b", "a\n", "#a b"] {
        NvsNamespace::new(name).expect_err(name);
    }
    let bundle = read(&fixture("authorities/ec-sec1_cert.pem"), Passwords::new());
    let options = |name: &str| NvsOptions::new().name(Symbol::new(name).expect("a symbol"));
    bundle.to_nvs_csv(&options("ten_letter"), KeyEncoding::new()).expect("15 characters");
    let refused = bundle.to_nvs_csv(&options("eleven_char"), KeyEncoding::new()).expect_err("too long");
    assert_eq!(refused, ConvertError::NvsKey("eleven_char_cert".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_subject_breaks_out_of_the_comment_of_a_header(text in "[^\\s\\p{Cc}\\p{Cf}][^\\p{Cc}\\p{Cf}]{0,40}", tail in "(\\*/|/\\*|\\?\\?/|\\\\|//)") {
        let name = CommonName::new(format!("{text}{tail}x")).expect("an allowed name");
        let root = CertificateAuthority::new_root(&name, &IssueOptions::new()).expect("a root");
        let bundle = Bundle::new(vec![root.certificate], None).expect("a bundle");
        let header = bundle.to_c_header(&Symbol::default(), KeyEncoding::new()).expect("a header");
        let comments: Vec<_> = header.lines().filter(|line| line.starts_with("/*")).collect();
        prop_assert_eq!(comments.len(), 2);
        for comment in comments {
            let inner = comment.strip_prefix("/*").and_then(|rest| rest.strip_suffix("*/")).expect("one comment");
            prop_assert!(inner.is_ascii() && !inner.contains(['*', '/', '\\', '?', '"']), "{}", comment);
        }
    }
    #[test]
    fn no_damage_makes_reading_panic(
        which in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let Chain { certificates, key } = &CHAINS[&(KeyAlgorithm::EcP256, 3)];
        let chain = read(certificates.as_bytes(), Passwords::new());
        let mut content = match which {
            0 => format!("{certificates}{key}").into_bytes(),
            1 => chain.to_pkcs7_der().expect("PKCS#7"),
            2 => chain.to_c_header(&Symbol::default(), KeyEncoding::new()).expect("a header").as_bytes().to_vec(),
            _ => b"'-','-','-','-','-','B','E','G','I','N',' ','C','\\n','\\'".to_vec(),
        };
        for (index, value) in changes {
            let index = index.index(content.len());
            content[index] = value;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        let _ = Bundle::read(&content, Passwords::new());
    }
}

#[test]
fn truststore_that_java_could_not_open_is_not_written() {
    let good = read(&fixture("authorities/ec-sec1_cert.pem"), Passwords::new());
    for password in ["p\u{e4}ss", "p\u{20ac}", "p\u{1f680}", "a\tb", "a\u{0}b", "a\u{7f}"] {
        let refused = good.to_truststore(password).expect_err("refused");
        assert!(refused.to_string().contains("printable ASCII"), "{refused}");
    }
    good.to_truststore("").expect("an empty password");
    good.to_truststore(" ~pass word!").expect("a password");
    for (file, reason) in [
        ("chains/dup_ext.pem", "twice"),
        ("inspect/doubled-key-usage_cert.pem", "twice"),
        ("inspect/explicit_cert.pem", "EC with explicit parameters"),
        ("inspect/brainpool-t1_cert.pem", "brainpoolP384t1"),
        ("authorities/ec-compressed_cert.pem", "compressed"),
        ("chains/alg_mismatch_chain.pem", "signature algorithms"),
    ] {
        let bad = read(&[fixture("authorities/ec-sec1_cert.pem"), fixture(file)].concat(), Passwords::new());
        let refused = bad.to_truststore("changeit").expect_err(file);
        assert!(refused.to_string().contains(reason), "{file}: {refused}");
        assert!(refused.to_string().contains("CN="), "the certificate is named: {refused}");
    }
}

const PKCS7: [u8; 10] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];

fn pkcs7(kind: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    sequence(&[[&PKCS7[..], &[kind]].concat(), der(0xa0, &sequence(parts))])
}

#[test]
fn what_else_pkcs7_holds_is_refused() {
    let certificate = read(&fixture("authorities/ec-sec1_cert.pem"), Passwords::new());
    let signed = |extra: Vec<u8>| {
        let certificates = der(0xa0, certificate.certificates()[0].der());
        let content = sequence(&[[&PKCS7[..], &[1]].concat()]);
        pkcs7(2, &[vec![0x02, 0x01, 0x01], der(0x31, &[]), content, certificates, extra, der(0x31, &[])])
    };
    assert_eq!(read(&signed(Vec::new()), Passwords::new()).certificates().len(), 1);
    let list = der(0xa1, &sequence(&[sequence(&[])]));
    let refused = Bundle::read(&signed(list), Passwords::new()).expect_err("refused");
    assert_eq!(refused.to_string(), "it holds revocation lists, which cannot be converted");
    // The label is the same as that of signed data.
    let enveloped = pkcs7(3, &[vec![0x02, 0x01, 0x00], der(0x31, &[]), sequence(&[])]);
    let pem = format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", BASE64_STANDARD.encode(&enveloped));
    for content in [enveloped, pem.into_bytes()] {
        let refused = Bundle::read(&content, Passwords::new()).expect_err("refused");
        assert_eq!(refused.to_string(), "it holds PKCS#7 enveloped data, which cannot be converted");
    }
}

#[test]
fn certificates_are_read_without_the_keys() {
    let keys = ["authorities/ec-sec1_key.pem", "authorities/ec-pkcs8_key.pem"].map(fixture).concat();
    let file = [fixture("authorities/rsa-pkcs1_cert.pem"), keys.clone()].concat();
    Bundle::read(&file, Passwords::new()).expect_err("several keys");
    let bundle = Bundle::read_certificates(&file, Passwords::new()).expect("certificates");
    assert!(bundle.certificates().len() == 1 && bundle.key().is_none());
    let none = Bundle::read_certificates(&keys, Passwords::new()).expect("a file with keys only");
    assert_eq!(none.only_certificates().expect_err("no certificate"), ConvertError::NoCertificate);
    let key = PrivateKey::read(&fixture("authorities/ec-sec1_key.pem"), None).expect("a key");
    let encrypted = key.encode_pem(KeyEncoding::new().password("secret")).expect("a key");
    let file = [fixture("authorities/ec-sec1_cert.pem"), encrypted.as_bytes().to_vec()].concat();
    let bundle = Bundle::read_certificates(&file, Passwords::new()).expect("certificates");
    assert!(bundle.certificates().len() == 1 && bundle.key().is_none());
    let keystore = Bundle::read_certificates(&fixture("pfx/two-keys.p12"), Passwords::new().pfx("changeit"));
    assert!(keystore.expect("certificates").certificates().len() >= 2);
}

#[test]
fn headers_with_other_arrays_have_other_guards() {
    let header = |file: &str, name: &str| {
        let bundle = read(&fixture(file), Passwords::new());
        let header = bundle.to_c_header(&Symbol::new(name).expect("a name"), KeyEncoding::new()).expect("a header");
        header.lines().find(|line| line.starts_with("#ifndef ")).expect("a guard").to_owned()
    };
    let (certificate, key) = ("authorities/ec-sec1_cert.pem", "authorities/ec-sec1_key.pem");
    assert_ne!(header(certificate, "device"), header(key, "device"));
    assert_ne!(header(certificate, "a"), header(certificate, "A"), "C tells cases apart");
}

#[test]
fn password_of_a_key_does_not_close_pfx_files() {
    let both = [fixture("authorities/ec-sec1_cert.pem"), fixture("authorities/ec-sec1_key.pem")].concat();
    let pfx = read(&both, Passwords::new()).to_pfx(PfxOptions::new("1234")).expect("PFX");
    assert!(read(&pfx, Passwords::new().key("another")).key().is_some(), "the default password is still tried");
    Bundle::read(&pfx, Passwords::new().pfx("another")).expect_err("only the given one is tried");
}
