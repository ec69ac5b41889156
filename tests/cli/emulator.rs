//! `emulator`: the check of its health, and the addresses that other machines can reach.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Run, program, service::Service, temporary_directory};

fn check(arguments: &[&str]) -> Run {
    Run::of(program(temporary_directory().path()).args(["emulator", "--check"]).args(arguments))
}

#[test]
fn check_succeeds_while_the_emulator_serves_and_fails_afterwards() {
    let service = Service::start();
    let endpoint = service.endpoint.clone();
    assert_eq!(check(&[&endpoint]).ok(), format!("{endpoint} is healthy\n"));
    assert_eq!(check(&[&format!("{endpoint}/health"), "-o", "json"]).json()["status"], "ok");
    service.end("-TERM");
    let error = check(&[&endpoint]).fails(1);
    assert!(error.contains("not healthy") && error.contains("cannot connect"), "{error}");
}

#[test]
fn check_over_tls_needs_the_ca_and_says_so() {
    let service = Service::with(&["--tls"]);
    let ca_file = service.text("/caFile");
    for option in ["--tls-ca", "--ca-file"] {
        check(&[&service.endpoint, option, ca_file]).ok();
    }
    let error = check(&[&service.endpoint]).fails(1);
    assert!(error.contains("--tls-ca"), "{error}");
    let other = Service::with(&["--tls"]);
    check(&[&service.endpoint, "--tls-ca", other.text("/caFile")]).fails(1);
    let plain = service.endpoint.replace("https", "http");
    check(&[&plain]).fails(1);
    assert!(check(&[&plain, "--tls-ca", ca_file]).fails(2).contains("https://"));
}

#[test]
fn check_refuses_urls_that_are_not_an_emulator() {
    for url in ["127.0.0.1:80", "ftp://localhost", "http://localhost/api", "http://user:pass@localhost", "http://a?b"] {
        check(&[url]).fails(2);
    }
    check(&["http://127.0.0.1:1", "--tls"]).fails(2);
    let error = Run::of(program(temporary_directory().path()).args(["emulator", "--tls-ca", "ca.pem"])).fails(2);
    assert!(error.contains("--check"), "{error}");
}

#[test]
fn check_of_another_server_or_a_silent_one_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let mut silent = Vec::new();
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            if number == 0 {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            silent.push(stream);
        }
    });
    let url = format!("http://{address}");
    assert!(check(&[&url]).fails(1).contains("status 200"));
    let begun = Instant::now();
    let error = check(&[&url]).fails(1);
    assert!(error.contains("no answer in time") && begun.elapsed() < Duration::from_secs(20), "{error}");
}

#[test]
fn remote_access_is_refused_with_the_option_that_allows_it_and_announced_otherwise() {
    let directory = temporary_directory();
    let emulator = |arguments: &[&str]| {
        let mut command = program(directory.path());
        command.args(["emulator", "--listen", "0.0.0.0:0"]).args(arguments);
        command
    };
    assert!(Run::of(&mut emulator(&[])).fails(2).contains("--allow-remote"));
    assert!(Run::of(&mut emulator(&["--allow-remote"])).fails(2).contains("--allow-plain-http"));
    assert!(Run::of(&mut emulator(&["--allow-plain-http"])).fails(2).contains("--allow-remote"));
    let error = Run::of(&mut emulator(&["--allow-remote", "--tls", "--token", "short-secret"])).fails(2);
    assert!(!error.contains("short-secret"), "{error}");
    let started = [
        (&["--tls", "--quiet"][..], "https://localhost:", false),
        (&["--allow-plain-http"], "http://localhost:", true),
    ];
    for (options, endpoint, is_plain) in started {
        let mut command = emulator(&["--allow-remote"]);
        let mut process =
            command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("standard output")).read_line(&mut line).expect("a line");
        process.kill().expect("killed");
        let stderr = process.wait_with_output().expect("its end").stderr;
        let stderr = String::from_utf8(stderr).expect("UTF-8");
        let first_line: Value = serde_json::from_str(&line).expect("JSON");
        assert!(first_line["endpoint"].as_str().is_some_and(|found| found.starts_with(endpoint)), "{line}");
        assert_ne!(first_line["token"], json!(null));
        assert!(stderr.contains("other machines can reach"), "{stderr}");
        assert_eq!(stderr.contains("no TLS"), is_plain, "{stderr}");
    }
}

#[test]
fn warning_names_each_address_that_other_machines_can_reach() {
    let directory = tempfile::tempdir().expect("a directory");
    for (listen, mqtt, remote) in [
        ("127.0.0.1:0", "0.0.0.0:0", &["MQTT on 0.0.0.0:"][..]),
        ("0.0.0.0:0", "127.0.0.1:0", &["on 0.0.0.0:"]),
        ("0.0.0.0:0", "0.0.0.0:0", &["on 0.0.0.0:", " and MQTT on 0.0.0.0:"]),
    ] {
        let mut command = program(directory.path());
        command.args(["emulator", "--allow-remote", "--tls", "--listen", listen, "--mqtt", mqtt]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("standard output")).read_line(&mut line).expect("a line");
        process.kill().expect("killed");
        let stderr = process.wait_with_output().expect("its end").stderr;
        let warning = String::from_utf8(stderr).expect("UTF-8");
        let warning = warning.lines().find(|line| line.contains("other machines")).expect("a warning").to_owned();
        assert!(remote.iter().all(|part| warning.contains(part)), "{warning}");
        assert_eq!(warning.matches("0.0.0.0").count(), remote.len(), "{warning}");
        assert!(!warning.contains("127.0.0.1"), "{warning}");
        let first_line: Value = serde_json::from_str(&line).expect("JSON");
        let host = if mqtt.starts_with("0.") { "localhost:" } else { "127.0.0.1:" };
        assert!(first_line["mqtt"].as_str().is_some_and(|found| found.starts_with(host)), "{line}");
    }
}

/// Adds a device to an emulator.
fn add_device(service: &Service, id: &str) {
    service.run(temporary_directory().path(), &["device", "create", id]).ok();
}

#[test]
fn every_signal_that_ends_it_saves_the_state() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let path = file.to_str().expect("UTF-8");
    for signal in ["-HUP", "-TERM", "-INT"] {
        let service = Service::with(&["--state", path]);
        add_device(&service, &format!("saved-on{signal}"));
        let (status, _) = service.end(signal);
        assert!(status.success(), "{signal}: {status}");
        let state = fs::read_to_string(&file).expect("a file");
        assert!(state.contains(&format!("saved-on{signal}")), "{signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_nohup_ignores_does_not_end_it() {
    let directory = temporary_directory();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_iot-enroll")).args(["emulator", "--state", "state.json"]);
    command.current_dir(directory.path()).stdin(Stdio::null());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nohup starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(process.stdout.take().expect("standard output"));
    stdout.read_line(&mut line).expect("a line");
    let first_line: Value = serde_json::from_str(&line).expect("JSON");
    let endpoint = first_line["endpoint"].as_str().expect("an endpoint");
    // Whether a hangup would end it cannot be seen in time by its end.
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(mask.trim(), 16).expect("a mask")
    };
    assert_eq!((mask("SigIgn:") & 1, mask("SigCgt:") & 1), (1, 0), "{status}");
    let send = |signal: &str| Command::new("kill").args([signal, &process.id().to_string()]).status();
    assert!(send("-HUP").expect("kill runs").success());
    check(&[endpoint]).ok();
    assert!(send("-TERM").expect("kill runs").success());
    assert!(process.wait().expect("its end").success());
}

#[test]
fn state_file_that_another_program_changed_is_named_with_the_file_that_has_the_state() {
    let directory = temporary_directory();
    let file = directory.path().join("state.json");
    let mut command = program(directory.path());
    command.args(["emulator", "--quiet", "--state", "state.json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("standard output")).read_line(&mut line).expect("a line");
    fs::write(&file, "other content").expect("written");
    let sent = Command::new("kill").args(["-HUP", &process.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let run = Run::ended(process.wait_with_output().expect("its end"));
    let error = run.fails(1);
    assert_eq!(
        error,
        "error: another program changed the state file state.json while the emulator ran: it is unchanged, and the state of \
         the emulator is in state.json.1\n"
    );
    assert_eq!(fs::read_to_string(&file).expect("a file"), "other content");
}

#[test]
fn without_a_directory_for_temporary_files_the_option_for_the_ca_is_named() {
    let directory = temporary_directory();
    let mut command = program(directory.path());
    command.args(["emulator", "--tls"]).env("TMPDIR", directory.path().join("missing"));
    let error = Run::of(&mut command).fails(1);
    assert!(error.contains("/missing") && error.contains("--ca-out"), "{error}");
}
