//! `device register --new-key` and `--csr`: an operational certificate and its files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{Certificate, PrivateKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Run,
    devices::{DEVICE, issue, root},
    dps::{Dps, HUB, SCOPE, assigned, ended},
    openssl, program,
    service::{Service, assert_without, directory, keys},
};

const ID: &str = DEVICE;

/// An emulator whose instance admits `sensor-1`, and a directory with the files of that device.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        let service = Service::with(&["--rate", "1000000", "--tls", "--retry-after", "0"]);
        let lab = Self { service, directory: directory() };
        lab.run(&["provision", "--group", "g", "--root", "Root", "--device", ID, "--no-pfx"]).ok();
        lab
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.service.dps_command(self.path(), arguments);
        let run = Run::of(command.args(["--tls-ca", self.service.text("/caFile")]));
        assert_without(&run, self.service.text("/arm/token"));
        run
    }

    /// Registers with the certificate that `provision` issued.
    fn register(&self, arguments: &[&str]) -> Run {
        let first = ["device", "register", ID, "--cert", "sensor1_fullchain.pem", "--key", "sensor1_key.pem"];
        self.run(&[&first, arguments].concat())
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// How many registrations were recorded.
    fn is_registered(&self) -> bool {
        self.run(&["dps", "registration", "show", ID]).status == 0
    }
}

/// Runs openssl, which must succeed. `None` without openssl.
fn openssl_ok(directory: &Path, arguments: &str) -> Option<String> {
    let output = openssl(directory, &arguments.split(' ').collect::<Vec<_>>())?;
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn new_key_is_stored_with_its_certificate_and_openssl_verifies_the_chain() {
    let lab = Lab::start();
    let run = lab.register(&["--new-key", "--dir", "operational"]);
    holds(&run.stderr, &["the certificate expires in 30 days: register again", "is the default, 1234"]);
    let names = ["sensor1_cert.pem", "sensor1_key.pem", "sensor1_fullchain.pem", "sensor1.pfx"];
    let printed = run.ok();
    holds(&printed, &["Registered sensor-1.", "assigned hub"]);
    holds(&printed, &names.map(|name| format!("operational/{name}")).each_ref().map(String::as_str));
    for (name, mode) in names.into_iter().zip([0o644, 0o600, 0o644, 0o600]) {
        let found = fs::metadata(lab.path().join("operational").join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(found & 0o077, mode & 0o077 & found, "{name}");
        assert!(mode != 0o600 || found == 0o600, "{name} is {found:o}");
    }
    let chain = Certificate::read_all(lab.file("operational/sensor1_fullchain.pem").as_bytes()).expect("a chain");
    assert_eq!(chain.len(), 3);
    fs::write(lab.path().join("root.pem"), chain[2].to_pem()).expect("written");
    fs::write(lab.path().join("issuing.pem"), chain[1].to_pem()).expect("written");
    let verify =
        "verify -purpose sslclient -x509_strict -CAfile root.pem -untrusted issuing.pem operational/sensor1_cert.pem";
    if openssl_ok(lab.path(), verify).is_some() {
        let of_key = openssl_ok(lab.path(), "pkey -in operational/sensor1_key.pem -pubout");
        let of_certificate = openssl_ok(lab.path(), "x509 -in operational/sensor1_cert.pem -noout -pubkey");
        assert_eq!(of_key, of_certificate);
        openssl_ok(lab.path(), "pkcs12 -in operational/sensor1.pfx -passin pass:1234 -nokeys");
    }
}

#[test]
fn json_has_the_members_of_cert_device() {
    let lab = Lab::start();
    let document = lab.register(&["--new-key", "--dir", "operational", "-o", "json"]).json();
    let expected = Run::of(program(lab.path()).args(["cert", "device", "other", "-o", "json"])).json();
    for name in keys(&expected) {
        assert!(document[name].is_string(), "{name}: {document}");
    }
    assert_eq!((&document["status"], &document["subject"]), (&json!("assigned"), &json!("CN=sensor-1")));
    assert_eq!(document["privateKey"], "operational/sensor1_key.pem");
    // Without a request there are none of them.
    let document = lab.register(&["-o", "json"]).json();
    assert_eq!((&document["certificate"], document.get("privateKey")), (&Value::Null, None));
}

#[test]
fn existing_files_are_refused_before_the_device_registers() {
    let lab = Lab::start();
    let before = fs::read(lab.path().join("sensor1_key.pem")).expect("a key");
    // The files that it registers with, by default in the same directory, also with --force.
    for more in [&[][..], &["--force"], &["--dir", "."]] {
        let error = lab.register(&[&["--new-key"], more].concat()).fails(1);
        holds(&error, &["was not registered", "would overwrite sensor1_fullchain.pem", "--dir DIR"]);
    }
    fs::create_dir(lab.path().join("taken")).expect("a directory");
    fs::write(lab.path().join("taken/sensor1.pfx"), "mine").expect("written");
    let error = lab.register(&["--new-key", "--dir", "taken"]).fails(1);
    holds(&error, &["was not registered", "taken/sensor1.pfx already exists", "--force"]);
    fs::write(lab.path().join("file"), "").expect("written");
    let error = lab.register(&["--new-key", "--dir", "file"]).fails(1);
    holds(&error, &["was not registered", "file is not a directory"]);
    assert!(!lab.is_registered());
    assert_eq!(fs::read(lab.path().join("sensor1_key.pem")).expect("a key"), before);
    assert_eq!(lab.file("taken/sensor1.pfx"), "mine");

    let first = lab.register(&["--new-key", "--dir", "taken", "--force", "-o", "json"]).json();
    let second = lab.register(&["--new-key", "--dir", "taken", "--force", "--no-pfx", "-o", "json"]).json();
    assert_ne!(first["sha256Thumbprint"], second["sha256Thumbprint"]);
    assert!(!lab.path().join("taken/sensor1.pfx").exists(), "it belongs to the old key");
    let key = PrivateKey::read(lab.file("taken/sensor1_key.pem").as_bytes(), None).expect("a key");
    let certificate = Certificate::read(lab.file("taken/sensor1_cert.pem").as_bytes()).expect("a certificate");
    assert!(key.belongs_to(&certificate));
    assert_eq!(second["sha256Thumbprint"], certificate.sha256_thumbprint().to_string());
}

#[test]
fn request_of_openssl_gets_a_certificate_and_keeps_its_key() {
    let lab = Lab::start();
    let key = "ecparam -name secp384r1 -genkey -noout -out device.key";
    if openssl_ok(lab.path(), key).is_none() {
        return;
    }
    openssl_ok(lab.path(), "req -new -key device.key -subj /CN=sensor-1 -out device.csr");
    let document = lab.register(&["--csr", "device.csr", "--dir", "one", "-o", "json"]).json();
    assert_eq!((&document["privateKey"], &document["pfx"]), (&Value::Null, &Value::Null));
    assert_eq!(fs::read_dir(lab.path().join("one")).expect("a directory").count(), 2);
    let of_key = openssl_ok(lab.path(), "pkey -in device.key -pubout");
    assert_eq!(openssl_ok(lab.path(), "x509 -in one/sensor1_cert.pem -noout -pubkey"), of_key);

    // The key of the request is already where the set is written: it stays, and the set is complete.
    fs::create_dir(lab.path().join("two")).expect("a directory");
    fs::copy(lab.path().join("device.key"), lab.path().join("two/sensor1_key.pem")).expect("copied");
    for more in [&[][..], &["--force"]] {
        let arguments = [&["--csr", "device.csr", "--dir", "two", "-o", "json"], more].concat();
        assert_eq!(lab.register(&arguments).json()["privateKey"], "two/sensor1_key.pem");
        assert_eq!(openssl_ok(lab.path(), "pkey -in two/sensor1_key.pem -pubout"), of_key);
    }
    // Encrypted, it cannot be told from the key of another set, and is not removed.
    fs::create_dir(lab.path().join("three")).expect("a directory");
    let encrypt = "pkcs8 -topk8 -in device.key -out three/sensor1_key.pem -passout pass:secret";
    openssl_ok(lab.path(), encrypt);
    let before = lab.file("three/sensor1_key.pem");
    let error = lab.register(&["--csr", "device.csr", "--dir", "three", "--force"]).fails(1);
    holds(&error, &["was not registered", "three/sensor1_key.pem", "may be the only file with the key", "encrypted"]);
    assert_eq!(lab.file("three/sensor1_key.pem"), before);
}

#[test]
fn files_of_another_key_that_force_removes_are_named() {
    let lab = Lab::start();
    let make = "req -new -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -keyout device.key -subj /CN=sensor-1 -out d.csr";
    if openssl_ok(lab.path(), make).is_none() {
        return;
    }
    lab.register(&["--new-key", "--dir", "set"]).ok();
    let run = lab.register(&["--csr", "d.csr", "--dir", "set", "--force"]);
    holds(&run.stderr, &["set/sensor1_key.pem was removed", "set/sensor1.pfx was removed"]);
    run.ok();
    assert_eq!(fs::read_dir(lab.path().join("set")).expect("a directory").count(), 2);
}

#[test]
fn pfx_file_with_the_only_key_of_the_request_is_not_removed() {
    let lab = Lab::start();
    lab.register(&["--new-key", "--dir", "set"]).ok();
    let make = "req -new -key set/sensor1_key.pem -subj /CN=sensor-1 -out d.csr";
    if openssl_ok(lab.path(), make).is_none() {
        return;
    }
    fs::remove_file(lab.path().join("set/sensor1_key.pem")).expect("removed");
    let error = lab.register(&["--csr", "d.csr", "--dir", "set", "--force"]).fails(1);
    holds(&error, &["was not registered", "set/sensor1.pfx, which is the only file with the key of the request"]);
    assert!(lab.path().join("set/sensor1.pfx").exists());
}

#[test]
fn request_that_the_service_would_refuse_is_not_sent() {
    let lab = Lab::start();
    let requests = [
        ("req -new -newkey rsa:2048 -nodes -keyout k -subj /CN=sensor-1 -out rsa.csr", "rsa.csr", "only for EC P-384"),
        (
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k -subj /CN=sensor-1 -out p256.csr",
            "p256.csr",
            "is EC P-256",
        ),
        (
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -nodes -keyout k -subj /CN=other -out other.csr",
            "other.csr",
            "the common name of the request is \"other\"",
        ),
    ];
    for (make, file, message) in requests {
        if openssl_ok(lab.path(), make).is_none() {
            return;
        }
        let error = lab.register(&["--csr", file, "--dir", "operational"]).fails(1);
        holds(&error, &[file, message, "nothing was sent"]);
    }
    let error = lab.register(&["--csr", "sensor1_key.pem", "--dir", "operational"]).fails(1);
    holds(&error, &["sensor1_key.pem", "there is no certificate request in it"]);
    assert!(!lab.is_registered() && !lab.path().join("operational").exists());
}

#[test]
fn version_without_requests_and_wrong_combinations_are_wrong_usage() {
    let lab = Lab::start();
    let error = lab.register(&["--new-key", "--dir", "operational", "--api-version", "2021-10-01"]).fails(2);
    holds(&error, &["2021-10-01", "takes no certificate request", "2026-11-01"]);
    let run = lab.register(&["--new-key", "--dir", "operational", "--api-version", "2025-07-01-preview"]);
    run.ok();
    lab.register(&["--new-key", "--csr", "x"]).fails(2);
    lab.register(&["--force"]).fails(2);
    lab.run(&["device", "register", "--manifest", "m.csv", "--new-key"]).fails(2);
    lab.run(&["device", "register", "--manifest", "m.csv", "--csr", "x"]).fails(2);
}

/// A command that registers at a scripted service, with the files of a device in the directory.
fn at(dps: &Dps, directory: &Path, arguments: &[&str]) -> Command {
    let device = issue(ID, &root("Root"));
    fs::write(directory.join("device.pem"), device.fullchain_pem()).expect("written");
    fs::write(directory.join("device.key"), &*device.key.to_pem().expect("PEM")).expect("written");
    fs::write(directory.join("ca.pem"), &dps.authority).expect("written");
    let mut command = program(directory);
    command.args(["device", "register", ID, "--cert", "device.pem", "--key", "device.key", "--id-scope", SCOPE]);
    command.args(["--tls-ca", "ca.pem", "--dps-endpoint", &dps.url()]).args(arguments);
    command
}

#[test]
fn a_certificate_that_cannot_be_valid_is_not_written() {
    let other = issue(ID, &root("Operational Root"));
    let chain: Vec<_> = other.fullchain().map(|certificate| BASE64_STANDARD.encode(certificate.der())).collect();
    for (chain, message) in [
        (json!(chain), "is not for the key of the request"),
        (json!(["%%%"]), "certificate 1 of its chain is not base64"),
        (json!(vec![chain[0].clone(); 100]), "has 100 certificates"),
    ] {
        let directory = directory();
        let state = json!({
            "registrationId": ID, "deviceId": ID, "assignedHub": HUB, "issuedCertificateChain": chain
        });
        let dps = Dps::script(vec![ended("assigned", &state)]);
        let run = Run::of(&mut at(&dps, directory.path(), &["--new-key", "--dir", "operational", "-o", "json"]));
        let error: Value = serde_json::from_str(&run.fails(1)).expect("one JSON document");
        let text = error["error"]["message"].as_str().expect("a message");
        holds(text, &["sensor-1 is registered at", HUB, message]);
        holds(error["error"]["hint"].as_str().expect("a hint"), &["nothing was written"]);
        assert!(!directory.path().join("operational").exists());
    }
}

#[test]
fn service_that_issues_no_certificate_is_named_as_the_reason() {
    let directory = directory();
    let dps = Dps::script(vec![assigned(ID)]);
    let run = Run::of(&mut at(&dps, directory.path(), &["--new-key", "--dir", "operational"]));
    assert_eq!(run.stdout, "");
    holds(&run.fails(1), &["sensor-1 is registered at", HUB, "issued no certificate", "certificate policy"]);
    assert!(!directory.path().join("operational").exists());
}
