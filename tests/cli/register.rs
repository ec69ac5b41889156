//! `device register` and `device compute-key`, against the emulator with TLS and a scripted service.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::support::devices::{DEVICE, days_ago, issue_at, root_at};
use crate::support::dps::{Dps, HUB, SCOPE, assigned, assigning, ended, error, unauthorized};
use crate::support::server::Reply;
use crate::support::service::{Service, assert_without, directory};
use crate::support::tls::start_with;
use crate::support::{Run, openssl, program};
use iot_enroll::certificate::IssuedCertificate;
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// An emulator with TLS and a directory.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        let service = Service::with(&["--rate", "1000000", "--tls", "--retry-after", "0"]);
        Self { service, directory: directory() }
    }

    /// Starts an emulator whose group `g` has the verified root `Root`.
    fn enrolled() -> Self {
        let lab = Self::start();
        lab.run(&["provision", "--group", "g", "--root", "Root", "--no-pfx"]).ok();
        lab
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn first_line(&self, name: &str) -> &str {
        self.service.first_line[name].as_str().expect(name)
    }

    /// Runs a command with the application.
    fn run(&self, arguments: &[&str]) -> Run {
        self.service.run(self.path(), &[arguments, &["--ca-file", self.first_line("caFile")]].concat())
    }

    /// Runs a command that needs no service.
    fn local(&self, arguments: &[&str]) {
        Run::of(program(self.path()).args(arguments)).ok();
    }

    /// Returns a command with the provisioning service, but without the application.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.path());
        command.args(["device", "register"]).args(arguments).args(["--ca-file", self.first_line("caFile")]);
        command.env("IOT_ENROLL_ID_SCOPE", self.first_line("idScope"));
        command.env("IOT_ENROLL_DPS_ENDPOINT", &self.service.endpoint);
        command
    }

    fn register(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Registers, fails and returns the error, explained with the application. No key and no token is printed.
    fn explained(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        command.args(["--endpoint", &self.service.endpoint, "-vv"]).env("IOT_ENROLL_TOKEN", &self.service.token);
        let run = Run::of(&mut command);
        assert_without(&run, &self.service.token);
        assert_eq!(run.stdout, "");
        run.fails(1)
    }

    /// Writes a certificate with its chain and key.
    fn write(&self, name: &str, issued: &IssuedCertificate) {
        let chain: String = issued.fullchain().map(iot_enroll::certificate::Certificate::to_pem).collect();
        fs::write(self.path().join(format!("{name}.pem")), chain).expect("written");
        fs::write(self.path().join(format!("{name}.key")), &*issued.key.to_pem().expect("PEM")).expect("written");
    }

    fn device(&self, id: &str) -> Value {
        self.run(&["device", "show", id, "-o", "json"]).json()
    }

    /// Returns the rows of a results file: ID, outcome, cause, message.
    fn results(&self, file: &str) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.path().join(file)).expect("results");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(HEADER));
        let mut rows: Vec<_> = lines
            .map(|line| {
                let parts: Vec<_> = line.splitn(9, ',').map(str::to_owned).collect();
                [0, 2, 7, 8].map(|column| parts[column].clone())
            })
            .collect();
        rows.sort();
        rows
    }
}

#[track_caller]
fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

const CERT: [&str; 5] = [DEVICE, "--cert", "sensor1_fullchain.pem", "--key", "sensor1_key.pem"];

#[test]
fn device_of_cert_device_registers() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "device", DEVICE, "Root"]);
    let printed = lab.register(&CERT).ok();
    holds(&printed, &["Registered sensor-1.", "assigned hub", ".azure-devices.net", "device ID", DEVICE]);
    let document = lab.register(&[&CERT[..], &["-o", "json"]].concat()).json();
    assert_eq!((&document["status"], &document["deviceId"]), (&json!("assigned"), &json!(DEVICE)));
    assert!(document["assignedHub"].as_str().expect("a hub").ends_with(".azure-devices.net"), "{document}");
    assert_eq!(lab.device(DEVICE)["provisioned"], true);
}

#[test]
fn device_registers_throughout_a_rollover() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let new = [DEVICE, "--cert", "Next/sensor1_fullchain.pem", "--key", "Next/sensor1_key.pem"];
    let rollover = ["rollover", "--group", "g", "--root", "Next", "--out", "Next"];
    lab.run(&[&rollover[..], &["--device", DEVICE, "--no-pfx"]].concat()).ok();
    lab.register(&CERT).ok();
    lab.register(&new).ok();
    lab.run(&["rollover", "--group", "g", "--root", "Next", "--retire", "--yes"]).ok();
    lab.register(&new).ok();
    holds(&lab.explained(&CERT), &["the chain leads to CN=Root", "none of its certificates is enrolled"]);
}

#[test]
fn pfx_registers_with_its_password() {
    let lab = Lab::enrolled();
    fs::write(lab.path().join("password"), "correct horse").expect("written");
    lab.local(&["cert", "device", DEVICE, "Root", "--pfx-password-file", "password"]);
    let error = lab.register(&[DEVICE, "--cert", "sensor1.pfx"]).fails(1);
    holds(&error, &["the password does not open the PFX file", "--pfx-password-file"]);
    lab.register(&[DEVICE, "--cert", "sensor1.pfx", "--pfx-password-file", "password"]).ok();
}

#[test]
fn device_of_openssl_under_an_intermediate_registers() {
    let lab = Lab::start();
    let run = |arguments: &str| {
        let output = openssl(lab.path(), &arguments.split(' ').collect::<Vec<_>>())?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    fs::write(lab.path().join("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        .expect("written");
    fs::write(lab.path().join("device.ext"), "extendedKeyUsage=clientAuth\n").expect("written");
    let made = || {
        run("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 2 -subj /CN=OpenRoot")?;
        run("req -new -newkey rsa:2048 -nodes -keyout int.key -out int.csr -subj /CN=OpenInt")?;
        run("x509 -req -in int.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile ca.ext -out int.pem")?;
        // An encrypted key, as SEC1 before it.
        run("ecparam -name prime256v1 -genkey -noout -out sec1.key")?;
        run("req -new -key sec1.key -out device.csr -subj /CN=sensor-1")?;
        run(
            "x509 -req -in device.csr -CA int.pem -CAkey int.key -CAcreateserial -days 1 -extfile device.ext -out device.pem",
        )?;
        run("pkcs8 -topk8 -in sec1.key -out device.key -passout pass:geheim")?;
        run("pkcs12 -export -inkey sec1.key -in device.pem -certfile int.pem -out device.pfx -passout pass:1234")
    };
    if made().is_none() {
        return;
    }
    lab.run(&["provision", "--group", "g", "--ca-cert", "int.pem", "--ca-key", "int.key"]).ok();
    let error = lab.register(&[DEVICE, "--cert", "device.pem", "--key", "device.key"]).fails(1);
    holds(&error, &["encrypted", "--key-password-file"]);
    fs::write(lab.path().join("password"), "geheim\n").expect("written");
    // The enrolled certificate issued it, so it needs no chain.
    let with_key = ["--key", "device.key", "--key-password-file", "password"];
    lab.register(&[&[DEVICE, "--cert", "device.pem"], &with_key[..]].concat()).ok();
    lab.register(&[DEVICE, "--cert", "device.pfx"]).ok();
    // Certificate, chain and key in one PEM file.
    let one =
        ["sec1.key", "device.pem", "int.pem"].map(|name| fs::read_to_string(lab.path().join(name)).expect("read"));
    fs::write(lab.path().join("one.pem"), one.concat()).expect("written");
    lab.register(&[DEVICE, "--cert", "one.pem"]).ok();
    assert_eq!(lab.device(DEVICE)["provisioned"], true);
}

#[test]
fn chain_is_judged_by_its_signatures() {
    let lab = Lab::start();
    let run = |arguments: &str| {
        let output = openssl(lab.path(), &arguments.split_whitespace().collect::<Vec<_>>())?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    let p256 = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    if run(&format!("req -x509 {p256} -sha512 -keyout ec.key -out ec.pem -days 2 -subj /CN=EC")).is_none() {
        return;
    }
    run("req -x509 -newkey rsa:2048 -nodes -sha256 -keyout rsa.key -out rsa.pem -days 2 -subj /CN=RSA");
    run(&format!("req -new {p256} -keyout device.key -out device.csr -subj /CN=sensor-1"));
    let sign = |authority: &str, options: &str| {
        let signing =
            format!("x509 -req -in device.csr -CA {authority}.pem -CAkey {authority}.key -set_serial 7 -days 1");
        run(&format!("{signing} -out device.pem {options}"));
    };
    for (group, authority) in [("ec", "ec"), ("rsa", "rsa")] {
        let (certificate, key) = (format!("{authority}.pem"), format!("{authority}.key"));
        lab.run(&["provision", "--group", group, "--ca-cert", &certificate, "--ca-key", &key]).ok();
    }
    let device = [DEVICE, "--cert", "device.pem", "--key", "device.key"];
    for (authority, options) in [
        ("ec", "-sha512"),
        ("ec", "-sha224"),
        ("rsa", "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20"),
    ] {
        sign(authority, options);
        lab.register(&device).ok();
    }
    sign("rsa", "-sha1");
    let error = lab.register(&device).fails(1);
    holds(&error, &["possible cause: the service does not accept CN=sensor-1: it is signed with SHA-1"]);
}

#[test]
fn keys_are_derived_and_register() {
    let lab = Lab::start();
    lab.run(&["enrollment-group", "create", "k", "--attestation", "symmetric-key"]).ok();
    let group = lab.run(&["enrollment-group", "show", "k", "--show-keys", "-o", "json"]).json();
    let key = group["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("a key").to_owned();
    fs::write(lab.path().join("group.key"), format!("{key}\n")).expect("written");
    let compute = ["device", "compute-key", DEVICE];
    let derived = Run::of(program(lab.path()).args(compute).args(["--group-key-file", "group.key"])).ok();
    assert_eq!(Run::of(program(lab.path()).args(compute).env("IOT_ENROLL_GROUP_KEY", &key)).ok(), derived);
    let document =
        Run::of(program(lab.path()).args(compute).args(["--group-key-file", "group.key", "-o", "json"])).json();
    assert_eq!(document, json!({ "id": DEVICE, "key": derived.trim_end() }));
    holds(&Run::of(program(lab.path()).args(compute)).fails(2), &["--group-key-file", "IOT_ENROLL_GROUP_KEY"]);

    fs::write(lab.path().join("device.key"), &derived).expect("written");
    lab.register(&[DEVICE, "--symmetric-key-file", "device.key"]).ok();
    lab.register(&["sensor-2", "--group-key-file", "group.key"]).ok();
    assert_eq!(lab.device("sensor-2")["provisioned"], true);
    // The key of a group is not the key of a device.
    let error = lab.explained(&["sensor-3", "--symmetric-key-file", "group.key"]);
    holds(&error, &["cause: the symmetric key is the key of the enrollment group k"]);
    assert!(!error.contains(&key) && !error.contains(derived.trim_end()), "{error}");
}

#[test]
fn missing_chain_is_explained_with_the_file_that_has_it() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "intermediate", "Between", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Between", "--no-pfx"]);
    let alone = [DEVICE, "--cert", "sensor1_cert.pem", "--key", "sensor1_key.pem"];
    let parts = ["401002", "did not send its chain", "CN=Between", "--cert sensor1_fullchain.pem"];
    let error = lab.explained(&alone);
    holds(&error, &[&parts[..], &["cause:", "leads to the enrolled certificate"]].concat());
    // Without a token the cause is uncertain.
    let error = lab.register(&alone).fails(1);
    holds(&error, &[&parts[..], &["possible cause:"]].concat());
    lab.register(&CERT).ok();
}

#[test]
fn unavailable_application_is_noted() {
    let lab = Lab::start();
    lab.local(&["cert", "root", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let hint = "give --app SUBDOMAIN";
    holds(&lab.register(&CERT).fails(1), &["possible cause: the chain leads to CN=Root", hint]);
    let mut command = lab.command(&CERT);
    let token = "SharedAccessSignature sr=x&sig=y&skn=z&se=1";
    command.args(["--endpoint", &lab.service.endpoint]).env("IOT_ENROLL_TOKEN", token);
    let error = Run::of(&mut command).fails(1);
    holds(&error, &["could not look up the cause", "possible cause:"]);
    assert!(!error.contains(hint), "{error}");
}

#[test]
fn every_refusal_is_explained() {
    let lab = Lab::start();
    lab.local(&["cert", "root", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let told = |arguments: &[&str], parts: &[&str]| holds(&lab.explained(arguments), parts);
    told(&CERT, &["cause: the service has no x509 enrollment group"]);
    lab.run(&["enrollment-group", "create", "g"]).ok();
    lab.run(&["enrollment-group", "certificate", "set", "g", "--file", "root_cert.pem"]).ok();
    told(&CERT, &["401002", "cause: the chain leads to", "(primary of g), which is not verified"]);
    lab.run(&["provision", "--group", "g", "--root", "Root", "--no-pfx"]).ok();

    lab.run(&["enrollment-group", "update", "g", "--enabled", "false"]).ok();
    told(&CERT, &["cause: the device's enrollment group g is disabled"]);
    lab.run(&["enrollment-group", "update", "g", "--enabled", "true"]).ok();
    lab.register(&CERT).ok();

    lab.run(&["device", "update", DEVICE, "--enabled", "false"]).ok();
    told(&CERT, &["cause: the device sensor-1 is disabled"]);
    lab.run(&["device", "update", DEVICE, "--enabled", "true"]).ok();

    lab.local(&["cert", "root", "Other", "--no-pfx"]);
    lab.local(&["cert", "device", "sensor-2", "Other", "--no-pfx"]);
    let other = ["sensor-2", "--cert", "sensor2_fullchain.pem", "--key", "sensor2_key.pem"];
    told(&other, &["cause: the chain leads to CN=Other", "Enrolled: ", "(primary of g)"]);
    told(&[&["sensor-3"], &other[1..]].concat(), &["nothing was sent", "common name is sensor-2", "is sensor-3"]);
    told(&[&other[..4], &["sensor1_key.pem"]].concat(), &["does not match the certificate CN=sensor-2"]);
    told(
        &[&CERT[..], &["--id-scope", "0ne00000000"]].concat(),
        &["cause: the ID scope 0ne00000000", lab.first_line("idScope")],
    );

    lab.run(&["device", "create", "sensor-2"]).ok();
    lab.run(&["device", "attestation", "set", "sensor-2", "--certificate", "sensor1_cert.pem"]).ok();
    told(&other, &["cause: the device sensor-2 has an individual attestation"]);
    lab.run(&["device", "attestation", "set", "sensor-2", "--certificate", "sensor2_cert.pem"]).ok();
    lab.register(&other).ok();
}

#[test]
fn expired_certificate_is_noted_and_explained() {
    let lab = Lab::start();
    let root = root_at("Old", &days_ago(30, 3650));
    lab.write("old", &issue_at(DEVICE, &root, &days_ago(20, 10)));
    let error = lab.explained(&[DEVICE, "--cert", "old.pem", "--key", "old.key"]);
    holds(&error, &["note: CN=sensor-1 expired at", "the service may refuse it", "cause: CN=sensor-1 expired at"]);
}

#[test]
fn untrusted_server_is_reported_as_interception() {
    let (lab, other) = (Lab::enrolled(), Dps::start(|_| unauthorized()));
    lab.local(&["cert", "device", DEVICE, "Root"]);
    let error = lab.register(&[&CERT[..], &["--dps-endpoint", &other.url()]].concat()).fails(1);
    holds(
        &error,
        &[
            "cause: the certificate that 127.0.0.1",
            "not trusted",
            "issued by CN=Authority for 127.0.0.1",
            "--tls-ca FILE",
        ],
    );
    assert!(other.requests().is_empty());
}

#[test]
fn expired_server_certificate_has_no_root_hint() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "device", DEVICE, "Root"]);
    let now = OffsetDateTime::now_utc();
    for (from, to) in [(-9, -1), (1, 9)] {
        let change = move |parameters: &mut rcgen::CertificateParams| {
            parameters.not_before = now + Duration::days(from);
            parameters.not_after = now + Duration::days(to);
        };
        let server = start_with("127.0.0.1", change, |_| Reply::lost());
        let url = format!("https://{}", server.address);
        fs::write(lab.path().join("own.der"), &server.authority).expect("written");
        for root in [lab.first_line("caFile"), "own.der"] {
            let mut command = program(lab.path());
            command.args(["device", "register"]).args(CERT).args(["--id-scope", SCOPE, "--dps-endpoint", &url]);
            let error = Run::of(command.args(["--ca-file", root])).fails(1);
            holds(&error, &["the certificate of 127.0.0.1", "the clock of this machine says", "Correct the clock"]);
            assert!(!error.contains("hint") && !error.contains("UNIX"), "{error}");
            let mut command = program(lab.path());
            command.args(["enrollment-group", "list", "--endpoint", &url, "--ca-file", root]);
            let error = Run::of(command.env("IOT_ENROLL_TOKEN", &lab.service.token)).fails(1);
            holds(&error, &["the server's certificate", "the clock here says", "Check the clock"]);
            assert!(!error.contains("hint") && !error.contains("UNIX"), "{error}");
            let mut command = program(lab.path());
            command.args(["provision", "--group", "g", "--root", "Root", "--endpoint", &url, "--ca-file", root]);
            let error = Run::of(command.env("IOT_ENROLL_TOKEN", &lab.service.token)).fails(1);
            assert!(error.contains("Check the clock") && !error.contains("hint"), "{error}");
        }
    }
}

/// A manifest of a fleet of so many devices, whose registrations end so.
fn manifest_run(count: usize, faults: &[&str]) -> (Lab, Run) {
    let arguments = [&["--rate", "1000000", "--tls", "--retry-after", "0"][..], faults].concat();
    let lab = Lab { service: Service::with(&arguments), directory: directory() };
    lab.run(&["provision", "--group", "g", "--root", "Root", "--no-pfx", "--count", &count.to_string()]).ok();
    let run = lab.register(&["--manifest", "fleet/manifest.csv", "--rate", "1000000", "-o", "json"]);
    (lab, run)
}

#[test]
fn a_failing_service_stops_a_manifest_run_and_the_rest_is_counted_as_not_tried() {
    // 501 is not tried again, so that this takes no time; which failures count is tested with the client.
    let (lab, run) = manifest_run(300, &["--fault", "501,path=/register,times=always"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).expect("one document");
    let count = |name: &str| summary[name].as_u64().expect(name);
    assert_eq!(count("assigned"), 0);
    // Those that were under way when it stopped are brought to their end.
    assert!((64..=64 + 64).contains(&count("failed")), "{summary}");
    assert_eq!(count("remaining"), 300 - count("failed"));
    let not_tried = format!("{} were not tried", count("remaining"));
    holds(&run.stderr, &["failed because of the service", "the service answered 501", &not_tried]);
    assert_eq!(lab.results("fleet/manifest.registrations.csv").len() as u64, count("failed"));
}

#[test]
fn failures_of_the_service_that_are_not_all_in_a_row_do_not_stop_a_manifest() {
    let (_, run) = manifest_run(90, &["--fault", "501,path=/register,times=60"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    let summary: Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((&summary["assigned"], &summary["failed"]), (&json!(30), &json!(60)));
    assert_eq!(summary["remaining"], 0, "{summary}");
}

#[test]
fn token_is_never_sent_to_dps_and_key_never_printed() {
    let (lab, dps) = (Lab::enrolled(), Dps::start(|_| unauthorized()));
    lab.local(&["cert", "device", DEVICE, "Root"]);
    fs::write(lab.path().join("dps.pem"), &dps.authority).expect("written");
    let mut command = program(lab.path());
    command.args(["device", "register"]).args(CERT).args(["--dps-endpoint", &dps.url(), "--ca-file", "dps.pem", "-vv"]);
    command.args(["--id-scope", SCOPE, "--endpoint", &dps.url()]).env("IOT_ENROLL_TOKEN", &lab.service.token);
    let run = Run::of(&mut command);
    assert_without(&run, &lab.service.token);
    let key = fs::read_to_string(lab.path().join("sensor1_key.pem")).expect("a key");
    let line = key.lines().nth(1).expect("base64");
    assert!(!run.stderr.contains(line) && !run.stdout.contains(line));
    run.fails(1);
    for request in dps.requests() {
        let has_token = request.headers.iter().any(|(_, value)| value.contains(&lab.service.token));
        assert_eq!(has_token, request.target.starts_with("/api/"), "{request:?}");
    }
}

#[test]
fn missing_credentials_are_named() {
    let directory = directory();
    let run = |arguments: &[&str]| Run::of(program(directory.path()).args(["device", "register"]).args(arguments));
    holds(&run(&[]).fails(2), &["ID", "--manifest"]);
    holds(&run(&[DEVICE, "--manifest", "m"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--key", "k"]).fails(2), &["--cert"]);
    holds(&run(&[DEVICE, "--concurrency", "2"]).fails(2), &["cannot be used with"]);
    holds(&run(&["--manifest", "m", "--key", "k"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--cert", "c", "--symmetric-key-file", "k"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--id-scope", SCOPE]).fails(2), &["--cert FILE", "--group-key-file"]);
    fs::write(directory.path().join("k"), "MDEyMzQ1Njc4OWFiY2RlZg==").expect("written");
    holds(&run(&[DEVICE, "--symmetric-key-file", "k"]).fails(2), &["--id-scope", "IOT_ENROLL_ID_SCOPE", "--app"]);
    holds(&run(&[DEVICE, "--id-scope", "a/b"]).fails(2), &["letters and digits"]);
}

#[test]
fn payload_is_sent() {
    let dps = Dps::script(vec![assigned(DEVICE)]);
    let directory = directory();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    write("ca.pem", &dps.authority);
    write("key", "MDEyMzQ1Njc4OWFiY2RlZg==");
    write("payload.json", r#"{"modelId": "dtmi:contoso:T;1"}"#);
    let mut command = program(directory.path());
    command.args(["device", "register", DEVICE, "--symmetric-key-file", "key", "--payload", "payload.json"]);
    command.args(["--id-scope", SCOPE, "--ca-file", "ca.pem", "--dps-endpoint", &dps.url(), "-o", "json"]);
    let document = Run::of(&mut command).json();
    assert_eq!((&document["assignedHub"], &document["substatus"]), (&json!(HUB), &json!("initialAssignment")));
    assert!(dps.requests()[0].body.contains("dtmi:contoso:T;1"));
}

const MANIFEST: [&str; 4] = ["--manifest", "fleet/manifest.csv", "--rate", "1000000"];
const HEADER: &str = "IOTC_DEVICEID,line,outcome,idScope,assignedHub,deviceId,sha1Thumbprint,cause,message";
const RESULTS: &str = "fleet/manifest.registrations.csv";

#[test]
fn a_fleet_registers_and_the_next_run_skips_assigned_devices() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "40", "--prefix", "f-"]);
    // One has lost its key, one has another's.
    let fleet = lab.path().join("fleet/0000");
    fs::rename(fleet.join("f-07_key.pem"), lab.path().join("lost")).expect("moved");
    fs::copy(fleet.join("f-08_key.pem"), fleet.join("f-09_key.pem")).expect("copied");
    let run = lab.register(&MANIFEST);
    let printed = run.stdout.clone();
    holds(&run.fails(1), &["line 8: f-07: could not read", "f-09: the private key does not match"]);
    holds(&printed, &["38 registered, 2 failed", RESULTS]);
    let results = lab.results(RESULTS);
    assert_eq!(results.len(), 40);
    for [id, outcome, cause, message] in &results {
        let wanted = match id.as_str() {
            "f-07" => ("failed", "unreadable"),
            "f-09" => ("failed", "key-mismatch"),
            _ => ("assigned", ""),
        };
        assert_eq!((outcome.as_str(), cause.as_str()), wanted, "{id}: {message}");
    }
    assert_eq!(lab.device("f-40")["provisioned"], true);

    fs::rename(lab.path().join("lost"), fleet.join("f-07_key.pem")).expect("moved");
    let document = |run: Run| serde_json::from_str::<Value>(&run.stdout).expect("JSON");
    let summary = document(lab.register(&[&MANIFEST[..], &["-o", "json"]].concat()));
    assert_eq!(summary, json!({ "results": RESULTS, "assigned": 1, "earlier": 38, "failed": 1, "remaining": 0 }));
    assert_eq!(lab.results(RESULTS).len(), 40, "each device has one row");

    // A service of another scope knows none of them.
    let dps = Dps::start(|request| assigned(request.id()));
    fs::write(lab.path().join("dps.pem"), &dps.authority).expect("written");
    let mut command = program(lab.path());
    command.args(["device", "register"]).args(MANIFEST).args(["--ca-file", "dps.pem", "-o", "json"]);
    command.args(["--id-scope", SCOPE, "--dps-endpoint", &dps.url()]);
    assert_eq!(document(Run::of(&mut command))["assigned"], 39);
}

#[test]
fn a_killed_run_s_last_row_may_be_cut_and_the_others_count() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "3", "--prefix", "f-"]);
    lab.register(&MANIFEST).ok();
    let text = fs::read_to_string(lab.path().join(RESULTS)).expect("results");
    let cut = text.trim_end().rfind(',').expect("a comma") - 5;
    fs::write(lab.path().join(RESULTS), &text[..cut]).expect("written");
    holds(&lab.register(&MANIFEST).ok(), &["1 registered, 2 registered before, 0 failed"]);
    assert_eq!(lab.results(RESULTS).len(), 3);
}

#[test]
fn devices_with_another_certificate_are_registered_again() {
    let lab = Lab::enrolled();
    let fleet = || lab.local(&["cert", "fleet", "Root", "--count", "3", "--prefix", "f-"]);
    fleet();
    lab.register(&MANIFEST).ok();
    holds(&lab.register(&MANIFEST).ok(), &["0 registered, 3 registered before, 0 failed"]);
    fs::remove_dir_all(lab.path().join("fleet/0000")).expect("removed");
    fs::remove_file(lab.path().join("fleet/manifest.csv")).expect("removed");
    fleet();
    holds(&lab.register(&MANIFEST).ok(), &["3 registered, 0 failed"]);
    assert_eq!(lab.results(RESULTS).len(), 3, "each device has one row");

    // Results of version 0.1 do not tell the certificates.
    let earlier = "IOTC_DEVICEID,line,outcome,idScope,assignedHub,deviceId,cause,message";
    let row = format!("f-1,2,assigned,{},{HUB},f-1,,", lab.first_line("idScope"));
    fs::write(lab.path().join(RESULTS), format!("{earlier}\n{row}\n")).expect("written");
    holds(&lab.register(&MANIFEST).ok(), &["3 registered, 0 failed"]);
    assert_eq!(lab.results(RESULTS).len(), 3);
}

#[test]
fn a_file_without_registration_results_is_not_overwritten() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "1", "--prefix", "f-"]);
    fs::write(lab.path().join("mine.csv"), "a,b\n1,2\n").expect("written");
    let error = lab.register(&[&MANIFEST[..], &["--results", "mine.csv"]].concat()).fails(1);
    holds(&error, &["mine.csv exists and holds no results of registrations"]);
    assert_eq!(fs::read_to_string(lab.path().join("mine.csv")).expect("read"), "a,b\n1,2\n");
}

#[test]
fn two_runs_do_not_write_one_results_file() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "2", "--prefix", "f-"]);
    let held = fs::File::create(lab.path().join(RESULTS)).expect("a file");
    held.lock().expect("a lock");
    holds(&lab.register(&MANIFEST).fails(1), &["another registration is under way", RESULTS]);
    drop(held);
    lab.register(&MANIFEST).ok();
}

#[test]
fn what_every_device_would_meet_ends_the_run_at_the_first() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "20", "--prefix", "f-"]);
    let run = lab.register(&[&MANIFEST[..], &["--id-scope", "0ne00000000"]].concat());
    holds(&run.stdout, &["0 registered, 1 failed, 19 not tried"]);
    holds(&run.fails(1), &["line 2", "does not know the ID scope", "stopped after 1 of 20 rows"]);
    assert_eq!(lab.results(RESULTS)[0][2], "wrong-id-scope");
    let run = lab.register(&[&MANIFEST[..], &["--id-scope", "0ne00000000", "-q", "-o", "json"]].concat());
    let summary: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(summary, json!({ "results": RESULTS, "assigned": 0, "earlier": 0, "failed": 1, "remaining": 19 }));
    holds(&run.fails(1), &["line 2", "stopped after 1 of 20 rows"]);
}

#[test]
fn the_causes_of_a_fleet_are_found_with_a_token() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "root", "Other", "--no-pfx"]);
    lab.local(&["cert", "fleet", "Other", "--count", "3", "--prefix", "f-", "--pfx"]);
    let mut command = lab.command(&MANIFEST);
    command.args(["--endpoint", &lab.service.endpoint]).env("IOT_ENROLL_TOKEN", &lab.service.token);
    let run = Run::of(&mut command);
    assert_without(&run, &lab.service.token);
    run.fails(1);
    for [id, outcome, cause, message] in lab.results(RESULTS) {
        assert_eq!((outcome.as_str(), cause.as_str()), ("failed", "chain-leads-elsewhere"), "{id}");
        holds(&message, &["CN=Other", "primary of g"]);
    }
}

#[test]
fn manifests_of_pfx_files_and_of_ids_only_register_too() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "3", "--prefix", "f-", "--pfx"]);
    let whole = fs::read_to_string(lab.path().join("fleet/manifest.csv")).expect("a manifest");
    let ids_and_pfx = whole.lines().map(|line| {
        let columns: Vec<_> = line.split(',').collect();
        format!("{},{}\r\n", columns[0], columns[10])
    });
    fs::write(lab.path().join("fleet/pfx.csv"), ids_and_pfx.collect::<String>()).expect("written");
    holds(&lab.register(&["--manifest", "fleet/pfx.csv", "--rate", "1000000"]).ok(), &["3 registered, 0 failed"]);

    fs::write(lab.path().join("ids.csv"), "\u{feff}IOTC_DEVICEID\nk-1\nk-2\nbad id\n").expect("written");
    let ids = ["--manifest", "ids.csv", "--rate", "1000000"];
    holds(&lab.register(&ids).fails(1), &["names no files to register with", "--group-key-file"]);
    lab.run(&["enrollment-group", "create", "k", "--attestation", "symmetric-key"]).ok();
    let group = lab.run(&["enrollment-group", "show", "k", "--show-keys", "-o", "json"]).json();
    let key = group["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("a key").to_owned();
    fs::write(lab.path().join("group.key"), &key).expect("written");
    let run = lab.register(&[&ids[..], &["--group-key-file", "group.key"]].concat());
    holds(&run.stdout, &["2 registered, 1 failed"]);
    assert_eq!(lab.results("ids.registrations.csv")[0][2], "bad-id");
    assert_eq!(lab.device("k-2")["provisioned"], true);
}

/// A provisioning service that takes every device, and a directory with the manifest `ids.csv` and what it needs.
fn taking_all(manifest: impl AsRef<[u8]>) -> (Dps, TempDir) {
    let dps = Dps::start(|request| assigned(request.id()));
    let directory = keyed_directory(&dps, manifest);
    (dps, directory)
}

fn keyed_directory(dps: &Dps, manifest: impl AsRef<[u8]>) -> TempDir {
    let directory = directory();
    fs::write(directory.path().join("ca.pem"), &dps.authority).expect("written");
    fs::write(directory.path().join("group.key"), "MDEyMzQ1Njc4OWFiY2RlZg==").expect("written");
    fs::write(directory.path().join("ids.csv"), manifest).expect("written");
    directory
}

/// Registers the devices of a manifest by the group's key.
fn by_group_key(directory: &TempDir, url: &str, arguments: &[&str]) -> Command {
    let mut command = program(directory.path());
    command.args(["device", "register", "--group-key-file", "group.key", "--rate", "1000000"]);
    command.args(["--id-scope", SCOPE, "--ca-file", "ca.pem", "--dps-endpoint", url]).args(arguments);
    command
}

/// The fields of a results file, by line of the manifest.
fn all_results(file: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(file).expect("results");
    let record = |record: csv::Result<csv::StringRecord>| record.expect("a row").iter().map(str::to_owned).collect();
    let mut rows: Vec<Vec<_>> = reader.records().map(record).collect();
    rows.sort_by_key(|row| row[1].parse::<u64>().expect("a line"));
    rows
}

#[test]
fn a_bad_row_of_a_manifest_fails_with_its_line_and_the_others_register() {
    let manifest =
        b"\xef\xbb\xbfIOTC_DEVICEID,X\r\na,1\r\n\r\nbad id,\r\nA,2\r\nT\xfcr,\r\nb,1,2\r\n,\r\nc,\"open\r\nd,\r\n";
    let (dps, directory) = taking_all([&manifest[..], b"e,\"\r\nf,\r\n"].concat());
    let run = Run::of(&mut by_group_key(&directory, &dps.url(), &["--manifest", "ids.csv"]));
    holds(&run.stdout, &["2 registered, 6 failed"]);
    holds(
        &run.fails(1),
        &["line 4: bad id: a device ID has", "line 5: A: line 2 has the same id", "goes on to line 11"],
    );
    let file = directory.path().join("ids.registrations.csv");
    let rows = all_results(&file);
    let told: Vec<_> = rows.iter().map(|row| [0, 1, 2, 7].map(|column| row[column].as_str())).collect();
    assert_eq!(
        told,
        [
            ["a", "2", "assigned", ""],
            ["bad id", "4", "failed", "bad-id"],
            ["A", "5", "failed", "bad-row"],
            ["", "6", "failed", "bad-row"],
            ["b", "7", "failed", "bad-row"],
            ["", "8", "failed", "bad-id"],
            ["c", "9", "failed", "bad-row"],
            ["f", "12", "assigned", ""],
        ]
    );
    holds(&rows[3][8], &["UTF-8"]);
    holds(&rows[4][8], &["b: it has 3 fields"]);
    // What is assigned stays so, and its double fails again.
    let run = Run::of(&mut by_group_key(&directory, &dps.url(), &["--manifest", "ids.csv"]));
    holds(&run.stdout, &["0 registered, 2 registered before, 6 failed"]);
    assert_eq!(all_results(&file).len(), 8);
}

#[test]
fn service_messages_stay_on_one_line_and_without_control_characters() {
    let dps = Dps::start(|request| match request.id() {
        "a" => {
            let state = json!({ "registrationId": "a", "status": "assigned", "assignedHub": "hub\u{1b}]0;\r\nx", "deviceId": "=1+1\u{202e}" });
            ended("assigned", &state)
        }
        _ => error(400, 400_000, "no\r\n\u{1b}[2Jway"),
    });
    let directory = keyed_directory(&dps, "IOTC_DEVICEID\na\nb\n");
    let run = Run::of(&mut by_group_key(&directory, &dps.url(), &["--manifest", "ids.csv"]));
    holds(&run.stdout, &["0 registered, 2 failed"]);
    let printed = run.fails(1);
    assert!(!printed.contains(['\u{1b}', '\r']), "{printed:?}");
    let text = fs::read_to_string(directory.path().join("ids.registrations.csv")).expect("results");
    assert_eq!(text.lines().count(), 3, "{text:?}");
    assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
    let rows = all_results(&directory.path().join("ids.registrations.csv"));
    holds(&rows[0][8], &["not a device ID"]);
    holds(&rows[1][8], &["way"]);
}

#[test]
fn an_unreachable_service_ends_the_run_at_the_first_device() {
    let (dps, directory) = taking_all("IOTC_DEVICEID\nbad (os error 24)\na\nb\nc\n");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let run = Run::of(&mut by_group_key(&directory, &format!("https://{free}"), &["--manifest", "ids.csv"]));
    holds(&run.stdout, &["0 registered, 2 failed, 2 not tried"]);
    holds(&run.fails(1), &["nobody answers", "stopped after 2 of 4 rows"]);
    let run = Run::of(&mut by_group_key(&directory, &dps.url(), &["--manifest", "ids.csv"]));
    holds(&run.stdout, &["3 registered, 1 failed"]);
}

#[test]
fn too_many_open_files_end_the_run_with_advice_and_fail_no_device() {
    const LIMIT: usize = 48;
    if !Path::new("/proc/self/fd").exists() {
        crate::skipped(format_args!("this system does not show the open files of a process"));
        return;
    }
    // The first request is answered, and the others wait until the program has no free descriptor and keeps having none: it
    // has more connections to open, and no open one ends meanwhile.
    let (process, is_first, is_full) = (Arc::new(OnceLock::new()), AtomicBool::new(true), OnceLock::new());
    let register_process = Arc::clone(&process);
    let dps = Dps::start(move |request| {
        if !is_first.swap(false, Ordering::Relaxed) {
            is_full.get_or_init(|| {
                let files = format!("/proc/{}/fd", register_process.wait());
                let open_files = || fs::read_dir(&files).map_or(LIMIT, Iterator::count);
                let mut full_in_a_row = 0;
                while full_in_a_row < 20 {
                    full_in_a_row = if open_files() < LIMIT { 0 } else { full_in_a_row + 1 };
                    thread::sleep(std::time::Duration::from_millis(10));
                }
            });
        }
        assigned(request.id())
    });
    let directory = keyed_directory(&dps, "");
    let local = |arguments: &[&str]| Run::of(program(directory.path()).args(arguments)).ok();
    local(&["cert", "root", "Root", "--no-pfx"]);
    local(&["cert", "fleet", "Root", "--count", "200", "--prefix", "f-"]);
    let register = |concurrency| {
        let mut command = program(directory.path());
        command.args(["device", "register", "--id-scope", SCOPE, "--ca-file", "ca.pem", "--dps-endpoint", &dps.url()]);
        command.args(MANIFEST).args(["--concurrency", concurrency]);
        command
    };
    let register_many = register("512");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"")]);
    limited.arg(register_many.get_program()).args(register_many.get_args()).current_dir(directory.path());
    let running = limited.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    process.set(running.id()).expect("one process");
    let run = Run::ended(running.wait_with_output().expect("the program ends"));
    holds(&run.stdout, &[" 0 failed", "not tried"]);
    holds(&run.fails(1), &["ulimit -n", "--concurrency 512", "of 200 rows"]);
    let results = || all_results(&directory.path().join(RESULTS));
    assert!(results().iter().all(|row| row[2] == "assigned"));
    holds(&Run::of(&mut register("8")).ok(), &["registered before, 0 failed"]);
    assert_eq!(results().len(), 200);
}

#[test]
fn the_group_s_key_in_the_environment_counts_where_a_manifest_names_no_files() {
    let (dps, directory) = taking_all("IOTC_DEVICEID\na\n");
    let command = |manifest: &str| {
        let mut command = program(directory.path());
        command.args(["device", "register", "--manifest", manifest, "--rate", "1000000", "--id-scope", SCOPE]);
        command.args(["--ca-file", "ca.pem", "--dps-endpoint", &dps.url()]);
        command.env("IOT_ENROLL_GROUP_KEY", "MDEyMzQ1Njc4OWFiY2RlZg==");
        command
    };
    let run = Run::of(&mut command("ids.csv"));
    assert!(!run.stderr.contains("IOT_ENROLL_GROUP_KEY"), "{}", run.stderr);
    holds(&run.ok(), &["1 registered, 0 failed"]);
    assert!(dps.requests()[0].header("authorization").is_some());

    fs::write(directory.path().join("files.csv"), "IOTC_DEVICEID,pfx\na,missing.pfx\n").expect("written");
    let error = Run::of(&mut command("files.csv")).fails(1);
    holds(&error, &["the key in IOT_ENROLL_GROUP_KEY is not used", "missing.pfx"]);
    let run = Run::of(command("files.csv").args(["--group-key-file", "group.key"]));
    holds(&run.stderr, &["the files that the manifest names are not used"]);
    holds(&run.ok(), &["1 registered, 0 failed"]);
}

#[test]
fn a_file_that_is_no_manifest_is_refused_with_a_remedy() {
    let (dps, directory) = taking_all("");
    for (content, why) in [
        ("IOTC_DEVICEID;pfx\na;b\n", "semicolons"),
        ("I\0O\0T\0C\0_\0D\0E\0V\0I\0C\0E\0I\0D\0", "UTF-16"),
        ("IOTC_DEVICEID,pfx,PFX\na,,\n", "twice"),
        ("IOTC_DEVICEID,line,outcome,idScope,assignedHub,deviceId,cause,message\n", "results of a registration"),
        (&format!("{HEADER}\n"), "results of a registration"),
        ("IOTC_DEVICEID\n", "no rows"),
    ] {
        fs::write(directory.path().join("ids.csv"), content).expect("written");
        let error = Run::of(&mut by_group_key(&directory, &dps.url(), &["--manifest", "ids.csv"])).fails(1);
        holds(&error, &[why, "ids.csv"]);
    }
    for name in ["-", "/dev/stdin", "."] {
        let mut command = by_group_key(&directory, &dps.url(), &["--manifest", name]);
        command.stdin(fs::File::open(directory.path().join("ids.csv")).expect("a file"));
        holds(&Run::of(&mut command).fails(1), &["no regular file", "relative to its directory"]);
    }
    assert!(dps.requests().is_empty());
}

#[test]
fn no_more_registrations_are_under_way_than_allowed_and_a_throttled_one_is_tried_again() {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };
    let under_way = AtomicUsize::new(0);
    let most = Arc::new(AtomicUsize::new(0));
    let throttled = Mutex::new(false);
    let shared = Arc::clone(&most);
    let dps = Dps::start(move |request| {
        if request.method == "PUT" {
            if !std::mem::replace(&mut throttled.lock().expect("a flag"), true) {
                return Reply::throttled("0");
            }
            shared.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            return assigning(Some("0"));
        }
        under_way.fetch_sub(1, Ordering::SeqCst);
        if request.id() == "k-3" { error(500, 500_001, "oh") } else { assigned(request.id()) }
    });
    let directory = directory();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    write("ca.pem", &dps.authority);
    write("group.key", "MDEyMzQ1Njc4OWFiY2RlZg==");
    write("ids.csv", &format!("IOTC_DEVICEID\n{}", (10..40).map(|number| format!("k-{number}\n")).collect::<String>()));
    let mut command = program(directory.path());
    command.args([
        "device",
        "register",
        "--manifest",
        "ids.csv",
        "--group-key-file",
        "group.key",
        "--concurrency",
        "4",
    ]);
    command.args(["--rate", "1000000", "--id-scope", SCOPE, "--ca-file", "ca.pem", "--dps-endpoint", &dps.url()]);
    holds(&Run::of(&mut command).ok(), &["30 registered, 0 failed"]);
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}
