//! `device register` and `device compute-key`, through the program, against the emulator on TLS and a scripted service.
#![cfg(all(feature = "cli", unix))]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/devices.rs"]
mod devices;
#[path = "support/dps.rs"]
mod dps;
#[path = "support/server.rs"]
mod server;
#[path = "support/service.rs"]
mod service;
mod support;

use std::{fs, path::Path, process::Command};

use devices::{DEVICE, days_ago, issue_at, root_at};
use dps::{Dps, HUB, SCOPE, assigned, assigning, error, unauthorized};
use iot_enroll::certificate::IssuedCertificate;
use serde_json::{Value, json};
use server::Reply;
use service::{Service, assert_without, folder};
use support::{Run, openssl, program};
use tempfile::TempDir;

/// An emulator on TLS and a folder.
struct Lab {
    service: Service,
    folder: TempDir,
}

impl Lab {
    fn start() -> Self {
        let service = Service::with(&["--rate", "1000000", "--tls", "--retry-after", "0"]);
        Self { service, folder: folder() }
    }

    /// One whose group `g` has the verified root `Root`.
    fn enrolled() -> Self {
        let lab = Self::start();
        lab.run(&["provision", "--group", "g", "--root", "Root", "--no-pfx"]).ok();
        lab
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn first_line(&self, name: &str) -> &str {
        self.service.first_line[name].as_str().expect(name)
    }

    /// A command to the application.
    fn run(&self, arguments: &[&str]) -> Run {
        self.service.run(self.path(), &[arguments, &["--ca-file", self.first_line("caFile")]].concat())
    }

    /// A command that needs no service.
    fn local(&self, arguments: &[&str]) {
        Run::of(program(self.path()).args(arguments)).ok();
    }

    /// A command to the provisioning service, which is not told of the application.
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

    /// Fails, and is told with the help of the application. No key and no token is in what is printed.
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

    /// The rows of a results file: id, outcome, cause, message.
    fn results(&self, file: &str) -> Vec<[String; 4]> {
        let text = fs::read_to_string(self.path().join(file)).expect("results");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("IOTC_DEVICEID,line,outcome,idScope,assignedHub,deviceId,cause,message"));
        let mut rows: Vec<_> = lines
            .map(|line| {
                let parts: Vec<_> = line.splitn(8, ',').map(str::to_owned).collect();
                [0, 2, 6, 7].map(|column| parts[column].clone())
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
fn a_device_made_by_cert_device_registers_and_is_provisioned() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "device", DEVICE, "Root"]);
    let printed = lab.register(&CERT).ok();
    holds(&printed, &["sensor-1 is registered.", "assigned hub", ".azure-devices.net", "device id", DEVICE]);
    let document = lab.register(&[&CERT[..], &["-o", "json"]].concat()).json();
    assert_eq!((&document["status"], &document["deviceId"]), (&json!("assigned"), &json!(DEVICE)));
    assert!(document["assignedHub"].as_str().expect("a hub").ends_with(".azure-devices.net"), "{document}");
    assert_eq!(lab.device(DEVICE)["provisioned"], true);
}

#[test]
fn a_device_gets_in_at_every_moment_of_a_rollover() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let new = [DEVICE, "--cert", "Next/sensor1_fullchain.pem", "--key", "Next/sensor1_key.pem"];
    let rollover = ["rollover", "--group", "g", "--root", "Next", "--out", "Next"];
    lab.run(&[&rollover[..], &["--device", DEVICE, "--no-pfx"]].concat()).ok();
    lab.register(&CERT).ok();
    lab.register(&new).ok();
    lab.run(&["rollover", "--group", "g", "--root", "Next", "--retire"]).ok();
    lab.register(&new).ok();
    holds(&lab.explained(&CERT), &["the chain leads elsewhere", "CN=Root"]);
}

#[test]
fn a_whole_pfx_registers_and_one_with_a_password_needs_it() {
    let lab = Lab::enrolled();
    fs::write(lab.path().join("password"), "correct horse").expect("written");
    lab.local(&["cert", "device", DEVICE, "Root", "--pfx-password-file", "password"]);
    let error = lab.register(&[DEVICE, "--cert", "sensor1.pfx"]).fails(1);
    holds(&error, &["the password does not open the PFX file", "--pfx-password-file"]);
    lab.register(&[DEVICE, "--cert", "sensor1.pfx", "--pfx-password-file", "password"]).ok();
}

#[test]
fn a_device_made_by_openssl_under_an_uploaded_intermediate_registers() {
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
    // The enrolled certificate issued it, so that it needs no chain.
    let with_key = ["--key", "device.key", "--key-password-file", "password"];
    lab.register(&[&[DEVICE, "--cert", "device.pem"], &with_key[..]].concat()).ok();
    lab.register(&[DEVICE, "--cert", "device.pfx"]).ok();
    // All of it in one PEM file.
    let one =
        ["sec1.key", "device.pem", "int.pem"].map(|name| fs::read_to_string(lab.path().join(name)).expect("read"));
    fs::write(lab.path().join("one.pem"), one.concat()).expect("written");
    lab.register(&[DEVICE, "--cert", "one.pem"]).ok();
    assert_eq!(lab.device(DEVICE)["provisioned"], true);
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
    holds(&Run::of(program(lab.path()).args(compute)).fails(1), &["--group-key-file", "IOT_ENROLL_GROUP_KEY"]);

    fs::write(lab.path().join("device.key"), &derived).expect("written");
    lab.register(&[DEVICE, "--symmetric-key-file", "device.key"]).ok();
    lab.register(&["sensor-2", "--group-key-file", "group.key"]).ok();
    assert_eq!(lab.device("sensor-2")["provisioned"], true);
    // A group's key is not a device's.
    let error = lab.explained(&["sensor-3", "--symmetric-key-file", "group.key"]);
    holds(&error, &["cause: the symmetric key is that of the enrollment group k"]);
    assert!(!error.contains(&key) && !error.contains(derived.trim_end()), "{error}");
}

#[test]
fn a_chain_that_was_not_sent_is_told_with_the_file_that_has_it() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "intermediate", "Between", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Between", "--no-pfx"]);
    let alone = [DEVICE, "--cert", "sensor1_cert.pem", "--key", "sensor1_key.pem"];
    let parts = ["401002", "the chain was not sent", "CN=Between", "sensor1_fullchain.pem is there"];
    let error = lab.explained(&alone);
    holds(&error, &[&parts[..], &["cause:", "leads to the enrolled certificate"]].concat());
    // Without a token it is not certain.
    let error = lab.register(&alone).fails(1);
    holds(&error, &[&parts[..], &["perhaps:"]].concat());
    lab.register(&CERT).ok();
}

#[test]
fn an_application_that_is_named_and_does_not_answer_is_not_asked_for_again() {
    let lab = Lab::start();
    lab.local(&["cert", "root", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let hint = "give --app SUBDOMAIN";
    holds(&lab.register(&CERT).fails(1), &["perhaps: the chain leads to CN=Root", hint]);
    let mut command = lab.command(&CERT);
    let token = "SharedAccessSignature sr=x&sig=y&skn=z&se=1";
    command.args(["--endpoint", &lab.service.endpoint]).env("IOT_ENROLL_TOKEN", token);
    let error = Run::of(&mut command).fails(1);
    holds(&error, &["the application could not be asked for the cause", "perhaps:"]);
    assert!(!error.contains(hint), "{error}");
}

#[test]
fn each_refusal_of_the_emulator_is_seen_with_its_explanation() {
    let lab = Lab::start();
    lab.local(&["cert", "root", "Root", "--no-pfx"]);
    lab.local(&["cert", "device", DEVICE, "Root", "--no-pfx"]);
    let told = |arguments: &[&str], parts: &[&str]| holds(&lab.explained(arguments), parts);
    told(&CERT, &["cause: nothing lets the device in", "x509"]);
    lab.run(&["enrollment-group", "create", "g"]).ok();
    lab.run(&["enrollment-group", "certificate", "set", "g", "--file", "root_cert.pem"]).ok();
    told(&CERT, &["401002", "cause: the chain leads to", "(primary of g), which is not verified"]);
    lab.run(&["provision", "--group", "g", "--root", "Root", "--no-pfx"]).ok();

    lab.run(&["enrollment-group", "update", "g", "--enabled", "false"]).ok();
    told(&CERT, &["cause: the enrollment group g", "is disabled"]);
    lab.run(&["enrollment-group", "update", "g", "--enabled", "true"]).ok();
    lab.register(&CERT).ok();

    lab.run(&["device", "update", DEVICE, "--enabled", "false"]).ok();
    told(&CERT, &["cause: the device sensor-1 is disabled"]);
    lab.run(&["device", "update", DEVICE, "--enabled", "true"]).ok();

    lab.local(&["cert", "root", "Other", "--no-pfx"]);
    lab.local(&["cert", "device", "sensor-2", "Other", "--no-pfx"]);
    let other = ["sensor-2", "--cert", "sensor2_fullchain.pem", "--key", "sensor2_key.pem"];
    told(&other, &["cause: the chain leads elsewhere: to CN=Other", "Enrolled: ", "(primary of g)"]);
    told(&[&["sensor-3"], &other[1..]].concat(), &["nothing was sent", "common name is sensor-2", "is sensor-3"]);
    told(&[&other[..4], &["sensor1_key.pem"]].concat(), &["does not belong to the certificate CN=sensor-2"]);
    told(
        &[&CERT[..], &["--id-scope", "0ne00000000"]].concat(),
        &["cause: the id scope 0ne00000000", lab.first_line("idScope")],
    );

    lab.run(&["device", "create", "sensor-2"]).ok();
    lab.run(&["device", "attestation", "set", "sensor-2", "--certificate", "sensor1_cert.pem"]).ok();
    told(&other, &["cause: the device sensor-2 has an attestation of its own"]);
    lab.run(&["device", "attestation", "set", "sensor-2", "--certificate", "sensor2_cert.pem"]).ok();
    lab.register(&other).ok();
}

#[test]
fn an_expired_certificate_is_noted_before_and_told_after() {
    let lab = Lab::start();
    let root = root_at("Old", &days_ago(30, 3650));
    lab.write("old", &issue_at(DEVICE, &root, &days_ago(20, 10)));
    let error = lab.explained(&[DEVICE, "--cert", "old.pem", "--key", "old.key"]);
    holds(&error, &["note: CN=sensor-1 expired at", "it is for the service to judge", "cause: CN=sensor-1 expired at"]);
}

#[test]
fn a_server_of_another_authority_is_told_as_an_interception() {
    let (lab, other) = (Lab::enrolled(), Dps::start(|_| unauthorized()));
    lab.local(&["cert", "device", DEVICE, "Root"]);
    let error = lab.register(&[&CERT[..], &["--dps-endpoint", &other.url()]].concat()).fails(1);
    holds(&error, &["cause: somebody else answers", "issued by CN=Authority for 127.0.0.1", "--ca-file FILE"]);
    assert!(other.requests().is_empty());
}

#[test]
fn the_token_is_never_sent_to_the_provisioning_service_nor_the_key_printed() {
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
fn what_is_missing_is_asked_for() {
    let folder = folder();
    let run = |arguments: &[&str]| Run::of(program(folder.path()).args(["device", "register"]).args(arguments));
    holds(&run(&[]).fails(2), &["ID", "--manifest"]);
    holds(&run(&[DEVICE, "--manifest", "m"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--key", "k"]).fails(2), &["--cert"]);
    holds(&run(&[DEVICE, "--concurrency", "2"]).fails(2), &["cannot be used with"]);
    holds(&run(&["--manifest", "m", "--key", "k"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--cert", "c", "--symmetric-key-file", "k"]).fails(2), &["cannot be used with"]);
    holds(&run(&[DEVICE, "--id-scope", SCOPE]).fails(1), &["--cert FILE", "--group-key-file"]);
    fs::write(folder.path().join("k"), "MDEyMzQ1Njc4OWFiY2RlZg==").expect("written");
    holds(&run(&[DEVICE, "--symmetric-key-file", "k"]).fails(1), &["--id-scope", "IOT_ENROLL_ID_SCOPE"]);
    holds(&run(&[DEVICE, "--id-scope", "a/b"]).fails(2), &["letters and digits"]);
}

#[test]
fn a_payload_is_handed_on() {
    let dps = Dps::script(vec![assigned(DEVICE)]);
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("ca.pem", &dps.authority);
    write("key", "MDEyMzQ1Njc4OWFiY2RlZg==");
    write("payload.json", r#"{"modelId": "dtmi:contoso:T;1"}"#);
    let mut command = program(folder.path());
    command.args(["device", "register", DEVICE, "--symmetric-key-file", "key", "--payload", "payload.json"]);
    command.args(["--id-scope", SCOPE, "--ca-file", "ca.pem", "--dps-endpoint", &dps.url(), "-o", "json"]);
    let document = Run::of(&mut command).json();
    assert_eq!((&document["assignedHub"], &document["substatus"]), (&json!(HUB), &json!("initialAssignment")));
    assert!(dps.requests()[0].body.contains("dtmi:contoso:T;1"));
}

const MANIFEST: [&str; 4] = ["--manifest", "fleet/manifest.csv", "--rate", "1000000"];
const RESULTS: &str = "fleet/manifest.registrations.csv";

#[test]
fn a_fleet_registers_and_what_is_assigned_is_left_alone_by_the_next_run() {
    let lab = Lab::enrolled();
    lab.local(&["cert", "fleet", "Root", "--count", "40", "--prefix", "f-"]);
    // One has lost its key, one has another's.
    let fleet = lab.path().join("fleet/0000");
    fs::rename(fleet.join("f-07_key.pem"), lab.path().join("lost")).expect("moved");
    fs::copy(fleet.join("f-08_key.pem"), fleet.join("f-09_key.pem")).expect("copied");
    let run = lab.register(&MANIFEST);
    let printed = run.stdout.clone();
    holds(&run.fails(1), &["line 8: f-07: could not read", "f-09: the private key does not belong to"]);
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
    assert_eq!(summary, json!({ "results": RESULTS, "assigned": 1, "earlier": 38, "failed": 1 }));
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
fn a_file_that_holds_no_results_of_a_registration_is_left_alone() {
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
    holds(&run.stdout, &["0 registered, 1 failed"]);
    holds(&run.fails(1), &["line 2", "does not know the id scope", "19 were not tried"]);
    assert_eq!(lab.results(RESULTS)[0][2], "wrong-id-scope");
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
fn a_manifest_of_pfx_files_and_one_of_ids_alone_register_too() {
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

#[test]
fn no_more_registrations_are_under_way_than_allowed_and_a_throttled_one_is_tried_again() {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };
    let under_way = AtomicUsize::new(0);
    let most = std::sync::Arc::new(AtomicUsize::new(0));
    let throttled = Mutex::new(false);
    let shared = std::sync::Arc::clone(&most);
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
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("ca.pem", &dps.authority);
    write("group.key", "MDEyMzQ1Njc4OWFiY2RlZg==");
    write("ids.csv", &format!("IOTC_DEVICEID\n{}", (10..40).map(|number| format!("k-{number}\n")).collect::<String>()));
    let mut command = program(folder.path());
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
