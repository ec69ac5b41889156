//! `emulator`, `provision`, `enrollment-group` and the service options, against the emulator of the program.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
};

use crate::support::server::{Reply, Server};
use crate::support::service::{Service, assert_without, directory, keys};
use crate::support::{Run, authority_fixture, program};
use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::Certificate;
use serde_json::{Value, json};

const WRONG_TOKEN: &str = "SharedAccessSignature sr=app&sig=topsecret&skn=ops&se=4102444800000";

fn thumbprint(directory: &Path, file: &str) -> String {
    let bytes = fs::read(directory.join(file)).expect("read");
    Certificate::read(&bytes).expect("a certificate").sha1_thumbprint().to_string()
}

const PROVISION: [&str; 8] =
    ["provision", "--group", "myx509eg", "--root", "mytestrootcert", "--device", "sample-device-01", "--no-pfx"];

#[test]
fn emulator_prints_its_endpoint_and_stops_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let service = Service::start();
        assert_eq!(keys(&service.first_line), ["arm", "dps", "endpoint", "idScope", "token"]);
        assert!(service.endpoint.starts_with("http://127.0.0.1:"), "{}", service.endpoint);
        assert_eq!(service.json(directory().path(), &["enrollment-group", "list"]), json!([]));
        let (status, rest) = service.end(signal);
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""), "{signal}");
    }
}

#[test]
fn emulator_stops_with_open_connections() {
    let service = Service::start();
    let open = TcpStream::connect(service.endpoint.trim_start_matches("http://")).expect("a connection");
    assert_eq!(service.end("-TERM").0.code(), Some(0));
    // The program has closed the connection.
    let _ = open.shutdown(Shutdown::Both);
}

#[test]
fn emulator_uses_the_given_address_and_token() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let service =
        Service::with(&["--listen", &format!("127.0.0.1:{port}"), "--token", "SharedAccessSignature sr=a&sig=mine12"]);
    assert_eq!(service.first_line["endpoint"], format!("http://127.0.0.1:{port}"));
    assert_eq!(service.first_line["token"], "SharedAccessSignature sr=a&sig=mine12");
    assert_eq!(service.json(directory().path(), &["enrollment-group", "list"]), json!([]));
}

#[test]
fn emulator_with_tls_names_its_ca_file_and_removes_it() {
    let service = Service::with(&["--tls", "--rate", "1000000"]);
    assert_eq!(keys(&service.first_line), ["arm", "caFile", "dps", "endpoint", "idScope", "token"]);
    assert!(service.endpoint.starts_with("https://127.0.0.1:"), "{}", service.endpoint);
    let file = Path::new(service.first_line["caFile"].as_str().expect("a path")).to_owned();
    assert!(file.is_absolute(), "{}", file.display());
    let trusting = ["enrollment-group", "list", "--ca-file", file.to_str().expect("UTF-8")];
    assert_eq!(service.json(directory().path(), &trusting), json!([]));
    service.run(directory().path(), &["enrollment-group", "list"]).fails(1);
    assert_eq!(service.end("-TERM").0.code(), Some(0));
    assert!(!file.exists(), "{}", file.display());
}

#[test]
fn emulator_writes_its_ca_to_the_given_file() {
    let directory = directory();
    let file = directory.path().join("ca.pem");
    let path = file.to_str().expect("UTF-8");
    Service::with(&["--tls", "--ca-out", path]).end("-TERM");
    let earlier = fs::read(&file).expect("of an earlier run");
    let service = Service::with(&["--tls", "--ca-out", path]);
    assert_eq!(service.first_line["caFile"], path);
    assert_eq!(service.json(directory.path(), &["device", "list", "--ca-file", path]), json!([]));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "nothing else is left there");
    service.end("-TERM");
    let written = fs::read(&file).expect("it stays");
    Certificate::read(&written).expect("a certificate");
    assert_ne!(written, earlier);

    Run::of(program(directory.path()).args(["emulator", "--ca-out", path])).fails(2);
    Run::of(program(directory.path()).args(["cert", "root", "r", "--no-pfx"])).ok();
    for file in ["r_cert.pem", "r_key.pem"] {
        let before = fs::read(directory.path().join(file)).expect("read");
        let error = Run::of(program(directory.path()).args(["emulator", "--tls", "--ca-out", file])).fails(1);
        assert!(error.contains("not the CA certificate of an emulator"), "{error}");
        assert_eq!(fs::read(directory.path().join(file)).expect("read"), before);
    }
    let error = Run::of(program(directory.path()).args(["emulator", "--tls", "--ca-out", "none/ca.pem"])).fails(1);
    assert!(error.contains("none/ca.pem"), "{error}");
}

#[test]
fn emulator_assignment_can_be_configured() {
    let service = Service::with(&["--assign-after", "0", "--retry-after", "7"]);
    let directory = directory();
    service.json(directory.path(), &["device", "create", "sensor-1"]);
    let shown = service.json(directory.path(), &["device", "credentials", "sensor-1", "--show-keys"]);
    let key = BASE64_STANDARD.decode(shown["symmetricKey"]["primaryKey"].as_str().expect("a key")).expect("base64");
    let resource = format!("{}%2fregistrations%2fsensor-1", shown["idScope"].as_str().expect("a scope"));
    let signed = format!("{resource}\n4102444800");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
    let body = r#"{"registrationId":"sensor-1"}"#;
    let mut stream = TcpStream::connect(service.endpoint.trim_start_matches("http://")).expect("a connection");
    write!(
        stream,
        "PUT /{}/register?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: SharedAccessSignature sr={resource}&sig={}&se=4102444800&skn=registration\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        resource.replace("%2f", "/"),
        BASE64_STANDARD.encode(signature).replace('+', "%2B").replace('/', "%2F"),
        body.len()
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("\r\nretry-after: 7\r\n"), "{answer}");
    assert_eq!(service.json(directory.path(), &["device", "show", "sensor-1"])["provisioned"], true);
}

#[test]
fn emulator_refuses_public_addresses_and_used_ports() {
    for (address, why) in [("0.0.0.0:0", "loopback"), ("192.0.2.1:8080", "loopback"), ("[::]:0", "loopback")] {
        let run = Run::of(program(directory().path()).args(["emulator", "--listen", address]));
        assert_eq!(run.stdout, "");
        let error = run.fails(2);
        assert!(error.contains(why) && error.contains("127.0.0.1"), "{error}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    let error = Run::of(program(directory().path()).args(["emulator", "--listen", &taken])).fails(1);
    assert!(error.contains(&taken) && error.contains("in use"), "{error}");
    Run::of(program(directory().path()).args(["emulator", "--listen", "here"])).fails(2);
}

#[test]
fn provision_with_the_emulator_needs_no_options() {
    let directory = directory();
    let report = Run::of(program(directory.path()).args(["provision", "--emulator", "-o", "json"])).json();
    assert_eq!(keys(&report), ["devices", "entry", "group", "sha1Thumbprint", "steps", "verified"]);
    assert_eq!(
        (&report["group"], &report["entry"], &report["verified"]),
        (&json!("myx509eg"), &json!("primary"), &json!(true))
    );
    assert_eq!(report["sha1Thumbprint"], thumbprint(directory.path(), "mytestrootcert_cert.pem"));
    let steps = report["steps"].as_array().expect("steps");
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(names, ["root", "group", "certificate", "code", "proof", "verify", "confirm", "device"]);
    for step in steps {
        assert_eq!(keys(step), ["detail", "outcome", "step"]);
        assert_eq!(step["outcome"], "done");
    }
    let device = &report["devices"][0];
    assert_eq!(device["id"], "sample-device-01");
    assert_eq!(device["sha1Thumbprint"], thumbprint(directory.path(), "sampleDevice01_cert.pem"));
    assert!(Path::new(device["pfx"].as_str().expect("a PFX file")).ends_with("sampleDevice01.pfx"));
}

#[test]
fn provision_prints_steps_to_stderr_and_the_result_to_stdout() {
    let directory = directory();
    let run = Run::of(program(directory.path()).args(["provision", "--emulator"]));
    for step in ["root", "group", "certificate", "code", "proof", "verify", "confirm", "device"] {
        assert!(run.stderr.lines().any(|line| line.contains(&format!("✓ {step} "))), "{step}: {}", run.stderr);
    }
    assert!(run.stderr.contains("password") && run.stderr.contains("1234"), "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'), "no colour where nobody sees it");
    let printed = run.ok();
    assert!(printed.contains(&thumbprint(directory.path(), "mytestrootcert_cert.pem")), "{printed}");
    assert!(printed.contains("verified") && printed.contains("sampleDevice01_fullchain.pem"), "{printed}");
    assert!(!printed.contains('✓'), "{printed}");
}

#[test]
fn quiet_prints_only_the_result() {
    let run = Run::of(program(directory().path()).args(["provision", "--emulator", "-q"]));
    assert_eq!(run.stderr, "");
    assert!(run.ok().contains("verified"));
}

#[test]
fn provision_is_idempotent() {
    let (service, directory) = (Service::start(), directory());
    let first = service.json(directory.path(), &PROVISION);
    let state = service.json(directory.path(), &["enrollment-group", "list"]);
    let second = service.json(directory.path(), &PROVISION);
    assert!(second["steps"].as_array().expect("steps").iter().all(|step| step["outcome"] == "unchanged"), "{second}");
    assert_eq!((&first["sha1Thumbprint"], &first["devices"]), (&second["sha1Thumbprint"], &second["devices"]));
    assert_eq!(service.json(directory.path(), &["enrollment-group", "list"]), state);
}

#[test]
fn dry_run_changes_nothing() {
    let (service, directory) = (Service::start(), directory());
    let arguments = [&PROVISION[..], &["--dry-run"]].concat();
    let told = service.run(directory.path(), &arguments).ok();
    assert!(told.contains("nothing was changed"), "{told}");
    let report = service.json(directory.path(), &arguments);
    assert_eq!((&report["verified"], &report["sha1Thumbprint"]), (&json!(false), &Value::Null));
    assert!(report["steps"].as_array().expect("steps").iter().all(|step| step["outcome"] == "planned"), "{report}");
    assert_eq!(service.json(directory.path(), &["enrollment-group", "list"]), json!([]));
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 0);
}

#[test]
fn other_certificate_in_the_entry_needs_replace() {
    let (service, directory, other) = (Service::start(), directory(), directory());
    service.run(other.path(), &PROVISION).ok();
    let error = service.run(directory.path(), &PROVISION).fails(1);
    assert!(error.contains(&thumbprint(other.path(), "mytestrootcert_cert.pem")), "{error}");
    assert!(error.contains("--replace") && error.contains("--entry secondary --add-ca"), "{error}");
    let secondary = [&PROVISION[..], &["--entry", "secondary"]].concat();
    let error = service.run(directory.path(), &secondary).fails(1);
    assert!(error.contains("another verified CA") && error.contains("--add-ca"), "{error}");
    let report = service.json(directory.path(), &[&secondary[..], &["--add-ca"]].concat());
    assert_eq!((&report["entry"], &report["verified"]), (&json!("secondary"), &json!(true)));
    // The service refuses a certificate that another entry holds.
    service
        .run(
            directory.path(),
            &["enrollment-group", "certificate", "delete", "myx509eg", "--entry", "secondary", "--yes"],
        )
        .ok();
    let report = service.json(directory.path(), &[&PROVISION[..], &["--replace", "--yes"]].concat());
    assert_eq!(report["sha1Thumbprint"], thumbprint(directory.path(), "mytestrootcert_cert.pem"));
}

#[test]
fn options_reach_the_service_and_the_files() {
    let (service, directory) = (Service::start(), directory());
    fs::write(directory.path().join("password"), "fixture\n").expect("written");
    let fixture = |name: &str| authority_fixture(name).display().to_string();
    let (certificate, key) = (fixture("ec-pkcs8_cert.pem"), fixture("ec-pkcs8_key_aes.pem"));
    let arguments = [
        ["provision", "--attest"].as_slice(),
        &["--group", "g", "--display-name", "Gateways", "--type", "iot-edge", "--entry", "secondary"],
        &["--ca-cert", &certificate, "--ca-key", &key, "--key-password-file", "password"],
        &["--device", "one", "--device", "two", "--days", "3", "--algorithm", "ec-p384", "--dir", "devices"],
    ]
    .concat();
    let report = service.json(directory.path(), &arguments);
    let steps: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|step| step["step"].clone()).collect();
    assert_eq!(steps, ["root", "group", "certificate", "confirm", "device", "device"]);
    let group = service.json(directory.path(), &["enrollment-group", "show", "g"]);
    assert_eq!((&group["displayName"], &group["type"]), (&json!("Gateways"), &json!("iotEdge")));
    let entries = &group["attestation"]["x509"]["signingCertificates"];
    assert_eq!(keys(entries), ["secondary"]);
    assert_eq!(entries["secondary"]["verified"], true);
    assert_eq!(entries["secondary"]["info"]["sha1Thumbprint"], thumbprint(directory.path(), &certificate));
    for (device, id) in report["devices"].as_array().expect("devices").iter().zip(["one", "two"]) {
        assert_eq!(device["id"], id);
        let file = format!("devices/{id}_cert.pem");
        assert_eq!(device["certificate"], file);
        let made = Certificate::read(&fs::read(directory.path().join(&file)).expect("read")).expect("a certificate");
        assert!(
            (2..=4).contains(&(made.not_after().duration_since(made.not_before()).as_secs() / (24 * 60 * 60))),
            "{made:?}"
        );
        let inspected = Run::of(program(directory.path()).args(["cert", "inspect", &file])).ok();
        assert!(inspected.contains("384"), "{inspected}");
    }
    service
        .run(directory.path(), &["enrollment-group", "certificate", "delete", "g", "--entry", "secondary", "--yes"])
        .ok();
    let set = ["enrollment-group", "certificate", "set", "g", "--file", &certificate, "--verified"];
    assert_eq!(service.json(directory.path(), &set)["verified"], true);
    let error = service.run(directory.path(), &["provision", "--group", "g", "--root", "r", "--type", "iot"]).fails(1);
    assert!(error.contains("iotEdge devices"), "{error}");
}

#[test]
fn provision_with_the_emulator_ignores_the_environment() {
    let directory = directory();
    let mut command = program(directory.path());
    command.args(["provision", "--emulator", "--no-pfx", "-o", "json"]);
    command.envs([("IOT_ENROLL_ENDPOINT", "http://127.0.0.1:1"), ("IOT_ENROLL_TOKEN", WRONG_TOKEN)]);
    assert_eq!(Run::of(&mut command).json()["verified"], true);
}

#[test]
fn enrollment_commands_of_the_article_work() {
    let (service, directory) = (Service::start(), directory());
    let cert = |arguments: &[&str]| Run::of(program(directory.path()).arg("cert").args(arguments)).ok();
    let group = |arguments: &[&str]| service.json(directory.path(), &[&["enrollment-group"], arguments].concat());
    let people = |arguments: &[&str]| service.run(directory.path(), &[&["enrollment-group"], arguments].concat()).ok();
    cert(&["root", "mytestrootcert"]);
    cert(&["device", "sample-device-01", "mytestrootcert"]);
    let root = thumbprint(directory.path(), "mytestrootcert_cert.pem");

    let created = group(&["create", "myx509eg", "--display-name", "My group"]);
    assert_eq!(
        (&created["id"], &created["displayName"], &created["enabled"], &created["type"]),
        (&json!("myx509eg"), &json!("My group"), &json!(true), &json!("iot"))
    );
    assert_eq!(created["attestation"], json!({ "type": "x509", "x509": { "signingCertificates": {} } }));

    let set = group(&["certificate", "set", "myx509eg", "--file", "mytestrootcert_cert.pem"]);
    assert_eq!(set, json!({ "verified": false, "info": { "sha1Thumbprint": root }, "etag": set["etag"] }));
    let code = people(&["certificate", "generate-code", "myx509eg"]);
    let code = code.trim();
    assert!(!code.is_empty() && !code.contains(char::is_whitespace), "for $(…): {code:?}");
    cert(&["verification", "--ca", "mytestrootcert_cert.pem", "--key", "mytestrootcert_key.pem", "--nonce", code]);
    let verified = group(&["certificate", "verify", "myx509eg", "--file", "verification_cert.pem"]);
    assert_eq!((&verified["verified"], &verified["info"]["sha1Thumbprint"]), (&json!(true), &json!(root)));
    assert_eq!(group(&["certificate", "show", "myx509eg"]), verified);
    let shown = people(&["certificate", "show", "myx509eg"]);
    assert!(shown.contains(&root) && shown.contains("verified") && !shown.contains("not verified"), "{shown}");

    let shown = people(&["show", "myx509eg"]);
    assert!(shown.contains("My group") && shown.contains(&root), "{shown}");
    assert_eq!(
        group(&["show", "myx509eg"])["attestation"]["x509"]["signingCertificates"],
        json!({ "primary": verified })
    );
    group(&["certificate", "delete", "myx509eg", "--yes"]);
    service.run(directory.path(), &["enrollment-group", "certificate", "show", "myx509eg"]).fails(1);

    let made =
        service.run(directory.path(), &["enrollment-group", "create", "mysymmetric", "--attestation", "symmetric-key"]);
    assert_eq!(made.stderr, "");
    assert!(!made.ok().contains("key  "), "keys are shown to who asks only");
    assert_eq!(group(&["show", "mysymmetric"])["attestation"], json!({ "type": "symmetricKey" }));
    let keys = group(&["show", "mysymmetric", "--show-keys"]);
    let keys = (
        keys["attestation"]["symmetricKey"]["primaryKey"].as_str(),
        keys["attestation"]["symmetricKey"]["secondaryKey"].as_str(),
    );
    assert!(matches!(keys, (Some(one), Some(two)) if one.len() > 20 && two.len() > 20 && one != two), "{keys:?}");
    assert!(!people(&["show", "mysymmetric"]).contains(keys.0.expect("a key")));

    let updated = group(&["update", "myx509eg", "--display-name", "My new group name"]);
    assert_eq!((&updated["displayName"], &updated["enabled"]), (&json!("My new group name"), &json!(true)));
    assert_eq!(group(&["update", "myx509eg", "--enabled", "false"])["enabled"], false);
    let listed = group(&["list"]);
    let ids: Vec<_> = listed.as_array().expect("groups").iter().map(|group| group["id"].clone()).collect();
    assert_eq!(ids, ["mysymmetric", "myx509eg"]);
    assert_eq!(group(&["list", "--top", "1"]).as_array().map(Vec::len), Some(1));
    let table = people(&["list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("My new group name"), "{table}");

    people(&["delete", "myx509eg", "--yes"]);
    assert_eq!(group(&["list"]).as_array().map(Vec::len), Some(1));
    let error = service.run(directory.path(), &["enrollment-group", "delete", "myx509eg", "--yes"]).fails(1);
    assert!(error.contains("404") && error.contains("myx509eg"), "{error}");
}

#[test]
fn invalid_proof_is_refused() {
    let (service, directory) = (Service::start(), directory());
    Run::of(program(directory.path()).args(["cert", "root", "mytestrootcert"])).ok();
    service.run(directory.path(), &["enrollment-group", "create", "g"]).ok();
    service
        .run(directory.path(), &["enrollment-group", "certificate", "set", "g", "--file", "mytestrootcert_cert.pem"])
        .ok();
    service.run(directory.path(), &["enrollment-group", "certificate", "generate-code", "g"]).ok();
    let verify = |file| {
        service.run(directory.path(), &["enrollment-group", "certificate", "verify", "g", "--file", file]).fails(1)
    };
    let error = verify("mytestrootcert_cert.pem");
    assert!(error.contains("422"), "{error}");
    let error = verify("missing.pem");
    assert!(error.contains("missing.pem"), "{error}");
    let error = verify("mytestrootcert_key.pem");
    assert!(error.contains("mytestrootcert_key.pem"), "{error}");
    assert_eq!(service.json(directory.path(), &["enrollment-group", "certificate", "show", "g"])["verified"], false);
}

#[test]
fn accepted_proof_without_verification_is_a_failure() {
    let directory = directory();
    Run::of(program(directory.path()).args(["cert", "root", "r", "--no-pfx"])).ok();
    let entry = json!({ "verified": false, "info": { "sha1Thumbprint": thumbprint(directory.path(), "r_cert.pem") } });
    let server = Server::start([Reply::no_content(), Reply::json(200, &entry)]);
    let mut command = program(directory.path());
    command.args([
        "enrollment-group",
        "certificate",
        "verify",
        "g",
        "--file",
        "r_cert.pem",
        "--endpoint",
        &server.url(),
    ]);
    let error = Run::of(command.env("IOT_ENROLL_TOKEN", WRONG_TOKEN)).fails(1);
    assert!(error.contains("not verified"), "{error}");
}

#[test]
fn group_is_only_overwritten_with_force() {
    let (service, directory) = (Service::start(), directory());
    let group = |arguments: &[&str]| service.run(directory.path(), &[&["enrollment-group"], arguments].concat());
    group(&["create", "g", "--display-name", "First"]).ok();
    let before = service.json(directory.path(), &["enrollment-group", "show", "g"]);
    let error = group(&["create", "g", "--display-name", "Second"]).fails(1);
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    assert_eq!(service.json(directory.path(), &["enrollment-group", "show", "g"]), before);
    group(&["create", "g", "--display-name", "Second", "--force"]).ok();
    let error =
        group(&["update", "g", "--display-name", "Third", "--etag", before["etag"].as_str().expect("etag")]).fails(1);
    assert!(error.contains("412"), "{error}");
    let now = service.json(directory.path(), &["enrollment-group", "show", "g"]);
    assert_eq!(now["displayName"], "Second");
    group(&["update", "g", "--display-name", "Third", "--etag", now["etag"].as_str().expect("etag")]).ok();
}

#[test]
fn exit_status_is_2_for_wrong_usage_and_1_for_failure() {
    let (service, directory) = (Service::start(), directory());
    for arguments in [
        &["provision"][..],
        &["provision", "--group", "g"],
        &["provision", "--group", "g", "--root", "r", "--ca-cert", "c", "--ca-key", "k"],
        &["provision", "--group", "g", "--ca-cert", "c"],
        &["provision", "--group", "not_an_id", "--root", "r"],
        &["provision", "--group", "g", "--root", "r", "--entry", "tertiary"],
        &["provision", "--group", "g", "--root", "r", "--device", "a device"],
        &["enrollment-group"],
        &["enrollment-group", "show"],
        &["enrollment-group", "show", "g", "--app", "contoso"],
        &["enrollment-group", "certificate", "set", "g"],
        &["enrollment-group", "update", "g"],
        &["enrollment-group", "create", "g", "--keys-file", "keys"],
        &["device", "attestation", "set", "d"],
        &["device", "attestation", "update", "d"],
        &["deployment-manifest", "list", "--api-version", "2022-07-31"],
    ] {
        let run = service.run(directory.path(), arguments);
        assert_eq!(run.stdout, "", "{arguments:?}");
        run.fails(2);
    }
    for arguments in [&["enrollment-group", "show", "g"][..], &["enrollment-group", "update", "g", "--type", "iot"]] {
        let run = service.run(directory.path(), &[arguments, &["-o", "json"]].concat());
        assert_eq!(run.stdout, "", "a failure is no result");
        let error: Value = serde_json::from_str(&run.fails(1)).expect("one JSON document");
        assert_eq!(error["error"]["service"]["status"], 404, "{arguments:?}");
    }
    Run::of(program(directory.path()).args(["provision", "--emulator", "--endpoint", &service.endpoint])).fails(2);
}

fn list(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let mut command = program(directory);
    Run::of(command.args(["enrollment-group", "list"]).args(arguments).envs(environment.iter().copied()))
}

#[test]
fn token_file_overrides_the_environment() {
    let (service, directory) = (Service::start(), directory());
    let token_file = directory.path().join("token");
    fs::write(&token_file, format!("\u{feff}{}\r\nanother line\n", service.token)).expect("written");
    let endpoint = ["--endpoint", &service.endpoint];
    let from_file = [&endpoint[..], &["--token-file", "token"]].concat();
    list(directory.path(), &from_file, &[]).ok();
    list(directory.path(), &from_file, &[("IOT_ENROLL_TOKEN", WRONG_TOKEN)]).ok();
    list(directory.path(), &endpoint, &[("IOT_ENROLL_TOKEN", &service.token)]).ok();
    list(directory.path(), &[], &[("IOT_ENROLL_TOKEN", &service.token), ("IOT_ENROLL_ENDPOINT", &service.endpoint)])
        .ok();
}

#[test]
fn application_option_overrides_the_environment() {
    let (service, directory) = (Service::start(), directory());
    let token = ("IOT_ENROLL_TOKEN", service.token.as_str());
    let endpoint = ["--endpoint", service.endpoint.as_str()];
    list(directory.path(), &endpoint, &[token, ("IOT_ENROLL_APP", "contoso")]).ok();
    list(directory.path(), &endpoint, &[token, ("IOT_ENROLL_ENDPOINT", "http://127.0.0.1:1")]).ok();
    let error = list(directory.path(), &[], &[token]).fails(2);
    assert!(
        ["--app", "--endpoint", "IOT_ENROLL_APP", "IOT_ENROLL_ENDPOINT"].iter().all(|it| error.contains(it)),
        "{error}"
    );
    let error = list(directory.path(), &[], &[token, ("IOT_ENROLL_APP", "not a subdomain")]).fails(2);
    assert!(error.contains("IOT_ENROLL_APP"), "{error}");
}

#[test]
fn unusable_token_is_refused_before_sending() {
    let directory = directory();
    // A connection here would be noticed.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    nobody.set_nonblocking(true).expect("set");
    let endpoint = format!("http://{}", nobody.local_addr().expect("an address"));
    let list = |token| list(directory.path(), &["--endpoint", &endpoint], &[("IOT_ENROLL_TOKEN", token)]);
    let error = list("").fails(2);
    assert!(error.contains("--token-file") && error.contains("IOT_ENROLL_TOKEN"), "{error}");
    for bad in ["topsecret", "SharedAccessSignature", "SharedAccessSignature sr=app&sig=top secret", "Basic topsecret"]
    {
        let error = list(bad).fails(1);
        assert!(error.contains("token") && !error.contains("secret"), "{error}");
    }
    fs::write(directory.path().join("empty"), "\n").expect("written");
    for file in ["empty", "missing"] {
        let arguments = ["--endpoint", &endpoint, "--token-file", file];
        let error = self::list(directory.path(), &arguments, &[]).fails(1);
        assert!(error.contains(file), "{error}");
    }
    assert!(nobody.accept().is_err(), "something was sent");
}

#[test]
fn refused_token_is_not_repeated() {
    let (service, directory) = (Service::start(), directory());
    // An expired token is not sent.
    let expired = "SharedAccessSignature sr=app&sig=topsecret&skn=ops&se=1000000000000";
    for (token, what, remedy) in [
        (WRONG_TOKEN, "401", "Check that the token belongs to this application"),
        (expired, "expired at 2001-09-09", "generate a new one"),
    ] {
        for verbosity in [&[][..], &["-v"], &["-vv"], &["-o", "json"]] {
            let arguments = [&["--endpoint", service.endpoint.as_str()], verbosity].concat();
            let run = list(directory.path(), &arguments, &[("IOT_ENROLL_TOKEN", token)]);
            assert_without(&run, token);
            assert_eq!(run.stdout, "");
            let error = run.fails(1);
            assert!(error.contains(what) && error.contains(remedy), "{error}");
        }
    }
}

#[test]
fn verbose_output_has_no_token_or_key() {
    let (service, directory) = (Service::start(), directory());
    let run = service.run(directory.path(), &[&PROVISION[..], &["-vv"]].concat());
    assert!(run.stderr.contains("enrollmentGroups/myx509eg"), "each request is told: {}", run.stderr);
    assert!(!run.stderr.contains("PRIVATE KEY"), "{}", run.stderr);
    run.ok();
    service.run(directory.path(), &["enrollment-group", "create", "sym", "--attestation", "symmetric-key", "-vv"]).ok();
    let keys = service.json(directory.path(), &["enrollment-group", "show", "sym", "--show-keys"]);
    let run = service.run(directory.path(), &["enrollment-group", "show", "sym", "-vv"]);
    let key = keys["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("a key");
    assert!(!run.stderr.contains(key) && !run.stdout.contains(key), "{}", run.stderr);
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let directory = directory();
    let error = list(directory.path(), &["--endpoint", "http://example.com"], &[("IOT_ENROLL_TOKEN", WRONG_TOKEN)]);
    assert_without(&error, WRONG_TOKEN);
    let error = error.fails(2);
    assert!(error.contains("plain http") && error.contains("https"), "{error}");
    let environment = [("IOT_ENROLL_TOKEN", WRONG_TOKEN), ("IOT_ENROLL_ENDPOINT", "http://example.com")];
    let error = list(directory.path(), &[], &environment).fails(2);
    assert!(error.contains("plain http") && error.contains("IOT_ENROLL_ENDPOINT"), "{error}");
}

#[test]
fn refused_connection_is_reported() {
    let directory = directory();
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let endpoint = format!("http://{address}");
    let run = list(directory.path(), &["--endpoint", &endpoint], &[("IOT_ENROLL_TOKEN", WRONG_TOKEN)]);
    assert_without(&run, WRONG_TOKEN);
    let error = run.fails(1);
    assert!(error.contains(&address), "{error}");
}

#[test]
fn killed_provision_is_completed_by_the_next_run() {
    let service = Service::start();
    for step in 0..8 {
        let directory = directory();
        let group = format!("g{step}");
        let arguments =
            ["provision", "--group", &group, "--root", "mytestrootcert", "--device", "sample-device-01", "--no-pfx"];
        let mut killed = service.command(directory.path(), &arguments);
        let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        // Each completed step prints a line; the process is killed during the next step.
        let mut lines = BufReader::new(killed.stderr.take().expect("standard error")).lines();
        for _ in 0..step {
            lines.next().expect("a line").expect("UTF-8");
        }
        killed.kill().expect("killed");
        killed.wait().expect("its end");
        let report = service.json(directory.path(), &arguments);
        let root = thumbprint(directory.path(), "mytestrootcert_cert.pem");
        assert_eq!((&report["verified"], &report["sha1Thumbprint"]), (&json!(true), &json!(root)), "step {step}");
        let entry = service.json(directory.path(), &["enrollment-group", "certificate", "show", &group]);
        assert_eq!((&entry["verified"], &entry["info"]["sha1Thumbprint"]), (&json!(true), &json!(root)));
        let chain = ["cert", "verify", "sampleDevice01_fullchain.pem", "--ca", "mytestrootcert_cert.pem"];
        Run::of(program(directory.path()).args(chain)).ok();
    }
}
