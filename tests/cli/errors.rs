//! Errors as JSON, and paths that are not UTF-8.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use crate::support::server::{Reply, Server};
use crate::support::service::{Service, directory, keys};
use crate::support::{Run, program};
use serde_json::{Value, json};

const TOKEN: &str = "SharedAccessSignature sr=app&sig=topsecret&skn=ops&se=4102444800000";

fn run(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(arguments))
}

/// The document that is all of the standard error.
#[track_caller]
fn document(run: Run, status: i32) -> Value {
    assert_eq!(run.stdout, "", "a failure is no result");
    let document: Value = serde_json::from_str(&run.fails(status)).expect("one JSON document");
    assert_eq!(keys(&document), ["error"]);
    document["error"].clone()
}

#[test]
fn wrong_usage_is_one_json_document() {
    let directory = directory();
    for arguments in [
        &["-o", "json", "cert", "root", "--nonsense"][..],
        &["cert", "root", "--nonsense", "-ojson"],
        &["cert", "-o=json", "root", "--nonsense"],
        &["cert", "root", "--output", "json", "--nonsense"],
        &["cert", "root", "--nonsense", "--output=json"],
        &["cert", "root", "-qo", "json", "--nonsense"],
    ] {
        let error = document(run(directory.path(), arguments), 2);
        let message = error["message"].as_str().expect("a message");
        assert_eq!(message, "unexpected argument '--nonsense' found", "{arguments:?}");
    }
    let error = document(run(directory.path(), &["cert", "inspect", "-o", "json"]), 2);
    assert_eq!(error["message"], "the following required arguments were not provided: <FILE>");
    let error = document(run(directory.path(), &["device", "list", "--tokn-file", "x", "-o", "json"]), 2);
    assert!(error["hint"].as_str().expect("a hint").contains("--token-file"), "{error}");
    let error = document(run(directory.path(), &["enrollment-group", "list", "-o", "json"]), 2);
    assert!(error["hint"].as_str().expect("a hint").contains("--app"), "{error}");
    document(run(directory.path(), &["cert", "-o", "json"]), 2);
    // Help and the version are results, not errors.
    assert!(run(directory.path(), &["cert", "-o", "json", "--help"]).ok().contains("Usage:"));
    run(directory.path(), &["-o", "json", "--version"]).ok();
    assert!(run(directory.path(), &["-o", "human", "cert", "root", "--nonsense"]).fails(2).starts_with("error: "));
}

#[test]
fn failure_is_one_json_document_with_hint_and_notes() {
    let directory = directory();
    run(directory.path(), &["cert", "root", "r"]).ok();
    let error = document(run(directory.path(), &["cert", "root", "r", "-o", "json"]), 1);
    assert!(error["message"].as_str().expect("a message").contains("r_cert.pem already exist"), "{error}");
    assert!(error["hint"].as_str().expect("a hint").contains("--force"), "{error}");
    assert_eq!(keys(&error), ["hint", "message"]);
    // Without a failure the notes are printed as text.
    let made = run(directory.path(), &["cert", "root", "s", "-o", "json"]);
    assert!(made.stderr.starts_with("note: ") && made.stderr.contains("1234"), "{}", made.stderr);
    made.json();
    // Notes before a failure are part of the document.
    fs::write(directory.path().join("key"), "not base64!").expect("written");
    run_chmod(directory.path(), "key", 0o644);
    let arguments = ["device", "compute-key", "d", "--group-key-file", "key", "-o", "json"];
    let error = document(run(directory.path(), &arguments), 1);
    assert!(error["notes"][0].as_str().expect("a note").contains("chmod 600 key"), "{error}");
}

fn run_chmod(directory: &Path, file: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory.join(file), fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn json_error_has_the_answer_of_the_service() {
    let directory = directory();
    let (service, path) = (Service::start(), directory.path());
    let error = document(service.run(path, &["device", "show", "nobody", "-o", "json"]), 1);
    assert_eq!((&error["service"]["status"], &error["service"]["code"]), (&json!(404), &json!("NotFound")));
    assert!(error["service"]["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{error}");
    assert!(error["message"].as_str().expect("a message").contains("nobody"), "{error}");

    // The error of a workflow has the answer of the service.
    let server = Server::start([Reply::error(403, "Forbidden", "no")]);
    let arguments = ["provision", "--group", "g", "--root", "r", "--no-pfx", "-o", "json", "--endpoint", &server.url()];
    let error = document(Run::of(program(path).args(arguments).env("IOT_ENROLL_TOKEN", TOKEN)), 1);
    assert_eq!((&error["service"]["status"], &error["service"]["code"]), (&json!(403), &json!("Forbidden")));
    assert_eq!(error["service"]["requestId"], "req-1");
}

#[test]
fn redirect_is_reported() {
    let directory = directory();
    let server = Server::start([Reply::with(302, &[("Location", "/elsewhere")], "")]);
    let arguments = ["device", "list", "--endpoint", &server.url(), "-o", "json"];
    let error = document(Run::of(program(directory.path()).args(arguments).env("IOT_ENROLL_TOKEN", TOKEN)), 1);
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("302, a redirect to /elsewhere; redirects are not followed"), "{message}");
    assert_eq!(error["service"]["status"], 302);
}

#[test]
fn unexpected_answer_is_reported_in_terms_of_json() {
    let directory = directory();
    for body in ["[]", "null", "7"] {
        let server = Server::start([Reply::with(200, &[("Content-Type", "application/json")], body)]);
        let arguments = ["device", "list", "--endpoint", &server.url(), "-o", "json"];
        let error = document(Run::of(program(directory.path()).args(arguments).env("IOT_ENROLL_TOKEN", TOKEN)), 1);
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("expected an object") && !message.contains("struct"), "{message}");
    }
}

#[test]
fn secret_instead_of_a_device_list_is_not_repeated() {
    let directory = directory();
    run(directory.path(), &["cert", "root", "r", "--no-pfx"]).ok();
    for secret in [
        TOKEN,
        "HostName=x.example;SharedAccessKeyName=y;SharedAccessKey=Sesame0sesame+",
        "Sesame,0sesame",
        "Sesame0+/sesame=",
    ] {
        let file = directory.path().join("secret");
        fs::write(&file, format!("{secret}\n")).expect("written");
        for arguments in [
            &["device", "import", "--file", "secret"][..],
            &["device", "register", "--manifest", "secret", "--id-scope", "0ne00000000"],
            &["cert", "fleet", "r", "--devices", "secret"],
            &["provision", "--emulator", "--devices", "secret"],
        ] {
            let mut command = program(directory.path());
            let service = [("IOT_ENROLL_TOKEN", TOKEN), ("IOT_ENROLL_ENDPOINT", "http://127.0.0.1:1")];
            if arguments[1] == "import" {
                command.envs(service);
            }
            let run = Run::of(command.args(arguments));
            let shown = format!("{}{}", run.stdout, run.stderr);
            run.fails(1);
            assert!(!shown.contains("esame") && !shown.contains(secret), "{arguments:?}: {shown}");
        }
    }
}

#[test]
fn invalid_emulator_address_or_token_is_wrong_usage() {
    let directory = directory();
    for arguments in [["--listen", "192.0.2.1:0"], ["--token", ""]] {
        document(run(directory.path(), &[&["emulator", "-o", "json"], &arguments[..]].concat()), 2);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn unwritable_help_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let status = program(directory().path()).arg("--help").stdout(full).status().expect("the program runs");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn paths_that_are_not_utf_8_are_handled() {
    let directory = directory();
    let odd = directory.path().join(OsStr::from_bytes(b"caf\xe9"));
    if fs::create_dir(&odd).is_err() {
        crate::skipped("this file system takes no such names");
        return;
    }
    let json = |arguments: &[&str]| {
        let mut command = program(directory.path());
        let arguments = arguments.iter().map(|argument| match *argument {
            "FLEET" => odd.join("devices").into_os_string(),
            "ODD" => odd.clone().into_os_string(),
            "FILE" => odd.join("r_cert.pem").into_os_string(),
            other => other.into(),
        });
        Run::of(command.args(arguments).args(["-o", "json"])).json()
    };
    let made = json(&["cert", "root", "r", "--dir", "ODD"]);
    assert!(made["certificate"].as_str().expect("a path").contains("caf\u{fffd}"), "{made}");
    assert!(odd.join("r_cert.pem").exists());
    json(&["cert", "thumbprint", "FILE"]);
    json(&["cert", "base64", "FILE"]);
    json(&["cert", "expiring", "ODD"]);
    json(&["cert", "device", "d", "r", "--dir", "ODD", "--no-pfx"]);
    json(&["cert", "fleet", "r", "--count", "2", "--dir", "ODD", "--out", "FLEET"]);
    let report = json(&["provision", "--emulator", "--dir", "ODD", "--count", "2"]);
    assert_eq!(report["verified"], true);
}

#[test]
fn file_size_limit_is_an_error_and_leaves_nothing() {
    let directory = directory();
    run(directory.path(), &["cert", "root", "r", "--no-pfx"]).ok();
    let limited = |arguments: &str| {
        let mut shell = std::process::Command::new("bash");
        let line = format!("ulimit -f 0; '{}' {arguments}", env!("CARGO_BIN_EXE_iot-enroll"));
        Run::of(shell.args(["-c", &line]).current_dir(directory.path()))
    };
    let error = limited("cert device d r").fails(1);
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 3, "only the root's files");
    limited("cert thumbprint r_cert.pem").ok();
}

#[test]
fn read_only_directory_only_fails_writes() {
    let (service, directory) = (Service::start(), directory());
    let path = directory.path();
    let provision = ["provision", "--group", "g", "--root", "r", "--device", "d", "--no-pfx"];
    service.run(path, &provision).ok();
    run_chmod(directory.path(), ".", 0o555);
    if fs::write(path.join("trial"), "").is_ok() {
        crate::skipped("this user can write to a read-only directory");
        return;
    }
    let report = service.json(path, &provision);
    assert!(report["steps"].as_array().expect("steps").iter().all(|step| step["outcome"] == "unchanged"), "{report}");
    service.run(path, &[&provision[..], &["--dry-run"]].concat()).ok();
    run(path, &["cert", "thumbprint", "r_cert.pem"]).ok();
    let more = service.run(path, &[&provision[..], &["--device", "e"]].concat());
    assert!(more.fails(1).contains("denied"));
    run_chmod(directory.path(), ".", 0o755);
}

#[cfg(target_os = "linux")]
#[test]
fn without_trusted_roots_the_error_names_what_to_install_or_set() {
    let directory = directory();
    run(directory.path(), &["cert", "device", "d", "--no-pfx"]).ok();
    let without_roots = |arguments: &[&str]| {
        let mut command = program(directory.path());
        command.args(arguments).env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", directory.path().join("missing.pem"));
        command.envs([("IOT_ENROLL_TOKEN", TOKEN), ("IOT_ENROLL_ID_SCOPE", "0ne00A1B2C3")]);
        command.envs([("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", "hidden")]);
        Run::of(&mut command)
    };
    for arguments in [
        &["enrollment-group", "list", "--endpoint", "https://app.invalid"][..],
        &["device", "register", "d", "--cert", "d_cert.pem", "--key", "d_key.pem"],
        &["dps", "enrollment-group", "list", "--dps", "d"],
        &["provision", "--endpoint", "https://app.invalid", "--group", "g", "--root", "r"],
    ] {
        let error = without_roots(arguments).fails(1);
        assert!(error.contains("cannot set up TLS: this system has no trusted root certificates\n"), "{error}");
        assert!(error.contains("ca-certificates") && error.contains("SSL_CERT_FILE"), "{error}");
    }
    let error = without_roots(&["emulator", "--check", "https://127.0.0.1:1"]).fails(1);
    assert!(error.contains("no trusted root certificates") && error.contains("--tls-ca"), "{error}");
    // Neither certificates nor the emulator needs them.
    without_roots(&["cert", "root", "r"]).ok();
    without_roots(&["provision", "--emulator", "--register", "--no-pfx", "--root", "r2"]).ok();
}
