//! `cert`: the files, names and results that scripts rely on.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{Run, authority_fixture, openssl, program, rcgen_pem::certificate_pem};
use iot_enroll::certificate::{Certificate, PrivateKey, pfx};
use tempfile::TempDir;

/// The first line of the marker in the hidden directories that the program makes.
const MARKER: &str = "Files of one certificate, on their way to the directory above. Made by iot-enroll.\n";

fn directory() -> TempDir {
    crate::support::temporary_directory()
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("read")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    files(directory).into_iter().map(|name| (name.clone(), fs::read(directory.join(name)).expect("read"))).collect()
}

fn read(directory: &Path, file: &str) -> Certificate {
    Certificate::read(&fs::read(directory.join(file)).expect("read")).expect("a certificate")
}

#[test]
fn file_names_match_create_test_cert_js() {
    let directory = directory();
    cert(directory.path(), &["root"]).ok();
    cert(directory.path(), &["root", "mytestrootcert"]).ok();
    cert(directory.path(), &["device", "sample-device-01", "mytestrootcert"]).ok();
    cert(
        directory.path(),
        &["verification", "--ca", "mytestrootcert_cert.pem", "--key", "mytestrootcert_key.pem", "--nonce", "70A1B2"],
    )
    .ok();
    let expected = ["mytestrootcert", "sampleDevice01", "testRootCert", "verification"]
        .iter()
        .flat_map(|stem| [".pfx", "_cert.pem", "_fullchain.pem", "_key.pem"].map(|suffix| format!("{stem}{suffix}")));
    assert_eq!(files(directory.path()), expected.collect::<Vec<_>>());
    assert_eq!(read(directory.path(), "verification_cert.pem").subject().common_name(), Some("70A1B2"));
    let chain = fs::read_to_string(directory.path().join("sampleDevice01_fullchain.pem")).expect("read");
    let expected = ["sampleDevice01_cert.pem", "mytestrootcert_cert.pem"];
    assert_eq!(chain, expected.map(|file| fs::read_to_string(directory.path().join(file)).expect("read")).concat());
}

#[cfg(unix)]
#[test]
fn keys_and_pfx_are_readable_only_by_the_owner() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    for (file, mode) in [("r_key.pem", 0o600), ("r.pfx", 0o600), ("r_cert.pem", 0o644), ("r_fullchain.pem", 0o644)] {
        let found = fs::metadata(directory.path().join(file)).expect("exists").permissions().mode();
        assert_eq!(found & 0o777, mode, "{file}");
    }
}

#[test]
fn json_has_the_paths_and_contents() {
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    let made = cert(directory.path(), &["device", "dev-1", "r", "--no-pfx", "-o", "json", "--dir", "."]).json();
    let certificate = read(directory.path(), "dev1_cert.pem");
    assert_eq!(made["subject"], "CN=dev-1");
    assert_eq!(made["issuer"], "CN=r");
    assert_eq!(made["sha1Thumbprint"], certificate.sha1_thumbprint().to_string());
    assert_eq!(made["sha256Thumbprint"], certificate.sha256_thumbprint().to_string());
    assert_eq!(made["serialNumber"], certificate.serial_number());
    assert!(made["notAfter"].as_str().expect("text").ends_with('Z'));
    assert!(made["pfx"].is_null());
    let keys: Vec<_> = made.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "certificate",
        "privateKey",
        "fullchain",
        "pfx",
        "subject",
        "issuer",
        "serialNumber",
        "notBefore",
        "notAfter",
        "sha1Thumbprint",
        "sha256Thumbprint",
    ];
    assert_eq!(keys.len(), expected.len());
    assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
    assert!(directory.path().join(made["privateKey"].as_str().expect("a path")).exists());
}

#[test]
fn nothing_is_overwritten_without_force() {
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    let before = contents(directory.path());
    for partial in [None, Some("r_cert.pem"), Some("r_key.pem"), Some("r.pfx")] {
        if let Some(gone) = partial {
            fs::remove_file(directory.path().join(gone)).expect("removed");
        }
        let remaining = contents(directory.path());
        let error = cert(directory.path(), &["root", "r"]).fails(1);
        assert!(error.contains("nothing was written") && error.contains("--force"), "{error}");
        assert_eq!(contents(directory.path()), remaining);
    }
    cert(directory.path(), &["root", "r", "--force"]).ok();
    let after = contents(directory.path());
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|(name, content)| after[name] != *content));
    // No PFX file with the old key remains beside the new key.
    cert(directory.path(), &["root", "r", "--force", "--no-pfx"]).ok();
    assert_eq!(files(directory.path()), ["r_cert.pem", "r_fullchain.pem", "r_key.pem"]);
}

#[test]
fn committed_set_of_a_killed_process_is_completed() {
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    let whole = contents(directory.path());
    // Killed after the commit, when some files were moved.
    let committed = directory.path().join(".r.commit");
    fs::create_dir(&committed).expect("made");
    let files = "r_fullchain.pem\nr_cert.pem\nr_key.pem\nr.pfx\n";
    fs::write(committed.join(".iot-enroll-set"), format!("{MARKER}{files}")).expect("written");
    for name in ["r_cert.pem", "r_fullchain.pem"] {
        fs::rename(directory.path().join(name), committed.join(name)).expect("moved");
    }
    cert(directory.path(), &["device", "d", "r", "--no-pfx"]).ok();
    assert!(!committed.exists());
    let after = contents(directory.path());
    assert!(whole.iter().all(|(name, content)| after[name] == *content));
}

#[test]
fn killed_process_leaves_a_complete_set_or_none() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    for step in 0..40_u64 {
        let mut child = program(directory.path())
            .args(["cert", "device", "d", "r", "--force", "-q"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        thread::sleep(Duration::from_micros(step * 250));
        child.kill().expect("killed");
        child.wait().expect("ended");
        // Every run that uses the set completes the commit first.
        cert(directory.path(), &["device", "d", "d"]).fails(1);
        let set: Vec<_> = files(directory.path()).into_iter().filter(|name| name.starts_with('d')).collect();
        if set.is_empty() {
            continue;
        }
        assert_eq!(set, ["d.pfx", "d_cert.pem", "d_fullchain.pem", "d_key.pem"]);
        let certificate = read(directory.path(), "d_cert.pem");
        let key =
            PrivateKey::read(&fs::read(directory.path().join("d_key.pem")).expect("read"), None).expect("a whole key");
        assert!(key.belongs_to(&certificate), "the files are of one set");
        let pfx = pfx::read(&fs::read(directory.path().join("d.pfx")).expect("read"), "1234").expect("a whole PFX");
        assert_eq!(pfx[0], certificate);
    }
}

#[test]
fn concurrent_processes_leave_one_complete_set() {
    let directory = directory();
    for _ in 0..15 {
        let children: Vec<_> = (0..6)
            .map(|_| {
                let mut command = program(directory.path());
                command.args(["cert", "root", "r", "-q"]).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().expect("runs")
            })
            .collect();
        let won =
            children.into_iter().map(|mut child| child.wait().expect("ends").success()).filter(|&won| won).count();
        assert_eq!(won, 1);
        let key = PrivateKey::read(&fs::read(directory.path().join("r_key.pem")).expect("read"), None).expect("a key");
        assert!(key.belongs_to(&read(directory.path(), "r_cert.pem")));
        assert_eq!(files(directory.path()).len(), 4);
        for name in files(directory.path()) {
            fs::remove_file(directory.path().join(name)).expect("only files are left");
        }
    }
}

#[test]
fn leftovers_of_killed_processes_are_removed() {
    let directory = directory();
    let left = directory.path().join(".r.abc123.tmp");
    fs::create_dir(&left).expect("made");
    fs::write(left.join(".iot-enroll-set"), MARKER).expect("written");
    fs::write(left.join("r_key.pem"), "half").expect("written");
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    assert_eq!(files(directory.path()), ["r_cert.pem", "r_fullchain.pem", "r_key.pem"]);
}

#[test]
fn directory_in_place_of_a_file_changes_nothing() {
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    fs::remove_file(directory.path().join("r.pfx")).expect("removed");
    let before = contents(directory.path());
    fs::create_dir(directory.path().join("r.pfx")).expect("made");
    let error = cert(directory.path(), &["root", "r", "--force"]).fails(1);
    assert!(error.contains("r.pfx is a directory"), "{error}");
    fs::remove_dir(directory.path().join("r.pfx")).expect("still empty");
    assert_eq!(contents(directory.path()), before);
    fs::write(directory.path().join("f"), "").expect("written");
    assert!(cert(directory.path(), &["root", "x", "--dir", "f"]).fails(1).contains("f is not a directory"));
}

#[test]
fn verify_finds_the_leaf_anywhere_in_the_file() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    cert(directory.path(), &["intermediate", "i", "r", "--no-pfx"]).ok();
    cert(directory.path(), &["device", "d", "i", "--no-pfx"]).ok();
    let read = |name| fs::read_to_string(directory.path().join(name)).expect("read");
    fs::write(directory.path().join("bundle"), read("r_cert.pem") + &read("i_cert.pem") + &read("d_cert.pem"))
        .expect("written");
    let verdict = cert(directory.path(), &["verify", "bundle", "--ca", "r_cert.pem", "-o", "json"]).json();
    assert_eq!(verdict["path"], serde_json::json!(["d", "i", "r"]));
}

#[test]
fn untrusted_names_cannot_control_the_terminal() {
    let directory = directory();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a\x1b]0;title\x07\x1b[31mred\u{9b}8m\u{202e}\n");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(directory.path().join("c.pem"), certificate_pem(&certificate)).expect("written");
    let foreign = ["\x1b]", "\x07", "\x1b[31m", "\u{9b}", "\u{202e}"];
    for color in ["always", "never"] {
        let shown = cert(directory.path(), &["inspect", "c.pem", "--color", color]).ok();
        assert!(foreign.iter().all(|text| !shown.contains(text)), "{shown:?}");
        assert_eq!(shown.lines().filter(|line| line.contains("title")).count(), 2, "subject and issuer: {shown:?}");
    }
    let shown = cert(directory.path(), &["inspect", "c.pem", "-o", "json"]).ok();
    assert!(foreign.iter().all(|text| !shown.contains(text)), "{shown:?}");
    let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let name = read["certificates"][0]["commonName"].as_str().expect("a common name");
    assert!(name.contains("\x1b[31mred\u{9b}8m\u{202e}"), "JSON keeps what it is: {name:?}");
}

#[test]
fn pfx_files_open_in_openssl_and_hold_key_leaf_and_chain() {
    let directory = directory();
    fs::write(directory.path().join("password"), "correct horse\n").expect("written");
    cert(directory.path(), &["root", "r"]).ok();
    cert(directory.path(), &["intermediate", "i", "r"]).ok();
    let told = cert(directory.path(), &["device", "plain", "i"]);
    assert!(told.stderr.contains("1234"), "the default password is told: {}", told.stderr);
    let told = cert(directory.path(), &["device", "chosen", "i", "--pfx-password-file", "password"]);
    assert!(!told.stderr.contains("1234") && !told.stderr.contains("horse"), "{}", told.stderr);
    Run::of(
        program(directory.path())
            .args(["cert", "device", "legacy", "i", "--pfx-legacy"])
            .env("IOT_ENROLL_PFX_PASSWORD", "p"),
    )
    .ok();
    for (file, password, legacy) in
        [("plain", "1234", false), ("chosen", "correct horse", false), ("legacy", "p", true)]
    {
        let bytes = fs::read(directory.path().join(format!("{file}.pfx"))).expect("read");
        let subjects: Vec<_> =
            pfx::read(&bytes, password).expect("opens").iter().map(|c| c.subject().to_string()).collect();
        assert_eq!(subjects, [format!("CN={file}"), "CN=i".to_owned(), "CN=r".to_owned()]);
        assert_eq!(pfx::read(&bytes, "wrong").map(|_| ()), Err(pfx::PfxError::Password));
        let (input, pass) = (format!("{file}.pfx"), format!("pass:{password}"));
        let arguments = ["pkcs12", "-in", &input, "-passin", &pass, "-nodes"];
        let output = openssl(directory.path(), &[&arguments[..], if legacy { &["-legacy"] } else { &[] }].concat());
        if let Some(output) = output {
            let text = String::from_utf8(output.stdout).expect("text");
            assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 3, "{text}");
            assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1, "{text}");
        }
    }
}

#[test]
fn thumbprints_match_openssl_for_every_encoding() {
    let directory = directory();
    cert(directory.path(), &["root", "r"]).ok();
    let certificate = read(directory.path(), "r_cert.pem");
    let thumbprint = certificate.sha1_thumbprint().to_string();
    fs::write(directory.path().join("r.der"), certificate.der()).expect("written");
    fs::write(directory.path().join("r.b64"), certificate.to_base64_pem()).expect("written");
    for file in ["r_cert.pem", "r.der", "r.b64", "r.pfx"] {
        assert_eq!(cert(directory.path(), &["thumbprint", file]).ok(), format!("{thumbprint}\n"), "{file}");
    }
    let several = cert(directory.path(), &["thumbprint", "r_cert.pem", "r.pfx"]).ok();
    assert_eq!(several, format!("{thumbprint}  r_cert.pem\n{thumbprint}  r.pfx\n"));
    let sha256 = cert(directory.path(), &["thumbprint", "--sha256", "r_cert.pem"]).ok();
    for (digest, ours) in [("-sha1", &thumbprint), ("-sha256", &sha256.trim().to_owned())] {
        if let Some(output) =
            openssl(directory.path(), &["x509", "-in", "r_cert.pem", "-noout", "-fingerprint", digest])
        {
            let text = String::from_utf8(output.stdout).expect("text");
            assert_eq!(text.trim().split_once('=').expect("a fingerprint").1.replace(':', ""), *ours);
        }
    }
}

#[test]
fn base64_encodes_the_bytes_on_one_line() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let directory = directory();
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    fs::write(directory.path().join("any"), &bytes).expect("written");
    let printed = cert(directory.path(), &["base64", "any"]).ok();
    assert_eq!(printed, format!("{}\n", BASE64_STANDARD.encode(&bytes)));
}

#[test]
fn verify_reports_the_reason_and_exit_status() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    cert(directory.path(), &["root", "other", "--no-pfx"]).ok();
    cert(directory.path(), &["device", "d", "r", "--no-pfx"]).ok();
    cert(
        directory.path(),
        &["verification", "--ca", "r_cert.pem", "--key", "r_key.pem", "--nonce", "70A1B2", "--no-pfx"],
    )
    .ok();
    let verify = |arguments: &[&str]| cert(directory.path(), &[&["verify"], arguments].concat());
    let valid = verify(&["d_cert.pem", "--ca", "r_cert.pem"]).ok();
    assert!(valid.starts_with("Valid: d, ") && valid.contains(" r."), "{valid}");
    verify(&["verification_cert.pem", "--ca", "r_cert.pem", "--code", "70A1B2"]).ok();
    for (arguments, reason) in [
        (&["d_cert.pem", "--ca", "other_cert.pem"][..], "CN=r"),
        (&["verification_cert.pem", "--ca", "r_cert.pem", "--code", "OTHER"], "\"70A1B2\""),
        (&["verification_cert.pem", "--ca", "other_cert.pem", "--code", "70A1B2"], "not signed by the key"),
    ] {
        let human = verify(arguments);
        assert!(human.stdout.starts_with("Not valid: ") && human.stdout.contains(reason), "{}", human.stdout);
        human.fails(1);
        let json = verify(&[arguments, &["-o", "json"]].concat());
        assert_eq!(json.status, 1);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(json["valid"], false);
        assert!(json["reason"].as_str().expect("a reason").contains(reason));
    }
}

#[test]
fn inspect_warns_of_what_a_service_would_refuse() {
    let directory = directory();
    let inspect =
        |file: &str| cert(directory.path(), &["inspect", authority_fixture(file).to_str().expect("UTF-8")]).ok();
    assert!(inspect("ed25519_cert.pem").contains("warning: its key is Ed25519"));
    assert!(inspect("may-not-sign_cert.pem").contains("keyCertSign"));
    assert!(!inspect("ec-sec1_cert.pem").contains("warning"));
    cert(directory.path(), &["device", "lone", "--no-pfx"]).ok();
    let seen = cert(directory.path(), &["inspect", "lone_cert.pem", "-o", "json"]).json();
    assert!(seen["certificates"][0]["warnings"][0].as_str().expect("a warning").contains("self-signed"));
}

#[test]
fn invalid_input_is_reported_and_writes_nothing() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    fs::write(directory.path().join("junk"), "junk").expect("written");
    fs::write(directory.path().join("empty"), "").expect("written");
    let before = contents(directory.path());
    for (arguments, status, part) in [
        (&["device", "bad/id", "r"][..], 2, "position 4"),
        (&["device", "-x", "r"], 2, ""),
        (&["device", "d", "nobody"], 1, "nobody_cert.pem does not exist"),
        (&["device", "d", "../r"], 1, "'/' at position 3"),
        (&["root", ""], 2, "1 to 64"),
        (&["root", "a/b"], 1, "'/' at position 2"),
        (&["root", "x", "--days", "0"], 2, "at least 1 day"),
        (&["root", "x", "--days", "30d"], 2, "the unit: 30"),
        (&["root", "x", "--days", "2 weeks"], 2, "the unit: 14"),
        (&["root", "x", "--days", "-1"], 2, "1 or more"),
        (&["root", "x", "--days", "4000000000"], 1, "9999"),
        (&["root", "x", "--days", "4294967296"], 2, "9999"),
        (&["root", "x", "--algorithm", "ed25519"], 2, "ec-p256"),
        (&["root", "x", "--pfx-password-file", "missing"], 1, "missing"),
        (&["device", "d", "r", "--no-pfx", "--key-password-file", "empty"], 1, "the first line of empty is empty"),
        (&["root", "x", "--dir", "junk"], 1, "junk"),
        (&["verification", "--ca", "r_cert.pem", "--key", "r_cert.pem", "--nonce", "C"], 1, "a certificate"),
        (&["verification", "--ca", "r_key.pem", "--key", "r_key.pem", "--nonce", "C"], 1, "a private key"),
        (&["inspect", "junk"], 1, "neither PEM, DER"),
        (&["inspect", "missing"], 1, "missing"),
        (&["thumbprint", "empty"], 1, "it is empty"),
        (&["thumbprint"], 2, "FILE"),
        (&["base64", "empty"], 1, "empty"),
        (&["nonsense"], 2, "nonsense"),
    ] {
        let error = cert(directory.path(), arguments).fails(status);
        assert!(error.contains(part), "{arguments:?}: {error}");
        assert_eq!(contents(directory.path()), before, "{arguments:?}");
    }
}

#[test]
fn key_password_comes_from_file_or_environment() {
    let directory = directory();
    for (from, to) in [("ec-pkcs8_cert.pem", "ecPkcs8_cert.pem"), ("ec-pkcs8_key_aes.pem", "ecPkcs8_key.pem")] {
        fs::copy(authority_fixture(from), directory.path().join(to)).expect("copied");
    }
    let error = cert(directory.path(), &["device", "d", "EC PKCS8", "--no-pfx"]).fails(1);
    assert!(error.contains("encrypted") && error.contains("--key-password-file"), "{error}");
    fs::write(directory.path().join("password"), "fixture\r\n").expect("written");
    cert(directory.path(), &["device", "d", "EC PKCS8", "--no-pfx", "--key-password-file", "password"]).ok();
    let with = |password| {
        let mut command: Command = program(directory.path());
        Run::of(command.args(["cert", "device", "e", "EC PKCS8", "--no-pfx"]).env("IOT_ENROLL_KEY_PASSWORD", password))
    };
    let error = with("incorrect").fails(1);
    assert!(!error.contains("incorrect"), "{error}");
    with("fixture").ok();
}

#[test]
fn output_has_no_color_unless_requested() {
    let directory = directory();
    let made = cert(directory.path(), &["root", "r"]);
    assert!(!made.stdout.contains('\x1b') && !made.stderr.contains('\x1b'));
    let made = cert(directory.path(), &["root", "r", "--force", "--color", "always"]);
    assert!(made.stdout.contains("\x1b[2m") && made.stderr.contains("\x1b[1m\x1b[33mnote"), "{}", made.stderr);
    assert!(!made.stdout.contains('\u{fffd}') && !made.stderr.contains('\u{fffd}'), "{}", made.stderr);
}

#[test]
fn certificates_of_several_devices_are_not_a_chain() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    let mixed: Vec<u8> = ["a", "b"]
        .iter()
        .flat_map(|id| {
            cert(directory.path(), &["device", id, "r", "--no-pfx"]).ok();
            fs::read(directory.path().join(format!("{id}_fullchain.pem"))).expect("read")
        })
        .collect();
    fs::write(directory.path().join("mixed.pem"), mixed).expect("written");
    let text = cert(directory.path(), &["inspect", "mixed.pem"]).ok();
    assert!(text.contains("not a valid chain: 1 of them") && text.contains("the first, CN=a"), "{text}");
    let text = cert(directory.path(), &["inspect", "a_fullchain.pem"]).ok();
    assert!(text.contains("are a valid chain"), "{text}");
}
