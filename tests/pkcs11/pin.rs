//! The PIN comes from a file, the environment or a terminal, and is never printed.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use crate::{
    lab::{Lab, PIN, run, uri},
    support::skipped,
};

const KEY: &str = "pkcs11:token=lab;object=root";

#[test]
fn a_pin_on_the_command_line_is_refused_and_not_repeated() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let keys = [
        "pkcs11:token=lab;object=root?pin-value=PIN",
        "PKCS11:token=lab;object=root?pin-value=PIN",
        "pkcs11:token=lab;object=root?module-path=/x.so&pin-value=PIN",
        "pkcs11:token=lab;object=root;pin-value=PIN",
        "pkcs11:token=lab;object=root?pin_value=PIN",
        "pkcs11:token=lab;object=root?pinvalue=PIN",
        "pkcs11:token=lab;object=root?PIN-VALUE=PIN",
        "pkcs11:token=lab;object=root?pin%2Dvalue=PIN",
        "pkcs11:token=lab;object=root?%70in=PIN",
        "pkcs11:token=lab;object=root?pin=PIN",
        "pkcs11:token=lab;object=root?user-pin=PIN",
        "pkcs11:token=lab;object=root?password=PIN",
        "pkcs11:token=lab;object=root?pni-value=PIN",
        "pkcs11:token=lab;object=root?PIN",
        "pkcs11:token=lab;object=root;PIN",
        "pkcs11:PIN",
        "pkcs11:token=lab;object=root?pin-source=PIN",
        "pkcs11:token=lab;object=root?pin-source=file:PIN",
        "pkcs11:token=lab;object=root?pin-source=|PIN",
        "pkcs11:token=lab;token=PIN?pin-value=PIN",
        "pkcs:token=lab;object=root?pin-value=PIN",
        "pkcs11//token=lab;object=root?pin=PIN",
        "token=lab;object=root?pin-value=PIN",
    ];
    for key in keys {
        let key = key.replace("value=PIN", &format!("value={PIN}")).replace("=PIN", &format!("={PIN}"));
        let key = key.replace("?PIN", &format!("?{PIN}")).replace(";PIN", &format!(";{PIN}"));
        let key = key.replace(":PIN", &format!(":{PIN}")).replace("|PIN", &format!("|{PIN}"));
        assert!(key.contains(PIN), "{key}");
        for arguments in [
            &["cert", "device", "d1", "lab-root", "--ca-key", &key][..],
            &["cert", "device", "d1", "lab-root", &format!("--ca-key={key}"), "-o", "json"],
            &["cert", "device", "d1", "lab-root", "--ca-kye", &key],
            &["cert", "root", "r", "--ca-key", &key, "-vv"],
            &["cert", "intermediate", "i", "lab-root", "--ca-key", KEY, "--key", &key],
            &["cert", "device", &key, "lab-root"],
            &["cert", "inspect", &key],
            &["provision", "--emulator", "--ca-cert", "labRoot_cert.pem", "--ca-key", &key],
            &["migrate", "apply", "plan.json", "--ca-key", &key],
        ] {
            // `run` looks for the PIN in everything that is printed.
            let error = lab.run(arguments);
            assert!(matches!(error.status, 1 | 2), "{key}: {arguments:?}: {}", error.stderr);
        }
    }
    for option in ["--pin", "--ca-key-pin", "--token-pin", "--pkcs11-pin", "--pin-value"] {
        for arguments in [[option.to_owned(), PIN.to_owned()].to_vec(), vec![format!("{option}={PIN}")]] {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let error =
                lab.run(&[&["cert", "device", "d1", "lab-root", "--ca-key", KEY][..], &arguments].concat()).fails(2);
            assert!(error.contains("pin-source=file:FILE"), "{error}");
        }
    }
}

#[test]
fn the_pin_comes_from_a_file_or_else_from_the_environment() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let issue =
        |key: &str, force: &str| lab.command(&["cert", "device", "d1", "lab-root", "--ca-key", key, "--no-pfx", force]);
    run(issue(KEY, "--force").env("IOT_ENROLL_PIN", PIN)).ok();
    // The file takes precedence.
    run(issue(&uri("root"), "--force").env("IOT_ENROLL_PIN", "0000000000")).ok();
    let absolute = format!("{KEY}?pin-source=file://{}", lab.path().join("pin").display());
    run(&mut issue(&absolute, "--force")).ok();
    run(&mut issue(&absolute.replace("file://", "file://localhost"), "--force")).ok();
    let null = run(&mut issue(&format!("{KEY}%00?pin-source=file:pin"), "--force")).fails(2);
    assert!(null.contains("without a null character"), "{null}");
    // The token is open already, but the result names the URI.
    let own = "pkcs11:token=lab;object=i?pin-source=file:nope";
    let two = ["cert", "intermediate", "i", "lab-root", "--ca-key", &uri("root"), "--key", own];
    assert!(lab.run(&two).fails(2).contains("the file that pin-source names"));
    // Nothing is asked for what cannot be done.
    let cheap = ["cert", "device", "d1", "lab-root", "--ca-key", KEY, "--no-pfx"];
    assert!(lab.run(&cheap).fails(1).contains("d1_cert.pem"));
    run(&mut lab.command(&["cert", "server", "s1.lab", "lab-root", "--ca-key", &uri("root"), "--no-pfx"])).ok();
    assert!(lab.run(&["cert", "server", "s1.lab", "lab-root", "--ca-key", KEY]).fails(1).contains("already exist"));
    assert!(lab.run(&[&cheap[..], &["--csr", "nope.csr"]].concat()).fails(1).contains("nope.csr"));
    // Without a terminal, nothing can be asked.
    let none = run(&mut issue(KEY, "--force")).fails(1);
    assert!(none.contains("takes a PIN") && none.contains("IOT_ENROLL_PIN"), "{none}");
    lab.secret("empty", "");
    let empty = run(&mut issue(&format!("{KEY}?pin-source=file:empty"), "--force")).fails(1);
    assert!(empty.contains("the first line of empty is empty"), "{empty}");
    // The password of a key file is another secret.
    let password = ["cert", "device", "d1", "lab-root", "--ca-key", KEY, "--key-password-file", "pin"];
    assert!(lab.run(&password).fails(2).contains("pin-source=file:FILE"));
    run(issue(&uri("root"), "--force").env("IOT_ENROLL_KEY_PASSWORD", "another")).ok();
    // Others can read it.
    fs::set_permissions(lab.path().join("pin"), fs::Permissions::from_mode(0o644)).expect("set");
    let noted = run(&mut issue(&uri("root"), "--force"));
    assert!(noted.stderr.contains("chmod 600"), "{}", noted.stderr);
}

/// Runs a line of a shell on a terminal, and types the answer when the question is there: the terminal would echo what comes
/// before. Returns whether the line succeeded, and what it printed. Without the program script, returns nothing and reports
/// that.
fn answered(lab: &Lab, line: &str, answer: &str) -> Option<(bool, String)> {
    let mut command = lab.prepare(Command::new("script"), &["-qec", line, "/dev/null"]);
    command.current_dir(lab.path()).env_remove("IOT_ENROLL_PIN").env("TERM", "xterm").env("SHELL", "/bin/sh");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.inspect_err(|error| skipped(&format!("script cannot be run: {error}"))).ok()?;
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let mut printed = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&printed).contains("PIN of the token lab:") {
        let read = std::io::Read::read(&mut stdout, &mut byte).expect("output");
        assert_eq!(read, 1, "no question in: {}", String::from_utf8_lossy(&printed));
        printed.push(byte[0]);
    }
    let answer = answer.to_owned();
    let typed = std::thread::spawn(move || {
        stdin.write_all(answer.as_bytes()).expect("typed");
        stdin
    });
    std::io::Read::read_to_end(&mut stdout, &mut printed).expect("output");
    drop(typed.join().expect("no panic"));
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(!printed.contains(PIN), "{printed}");
    Some((child.wait().expect("its end").success(), printed))
}

#[test]
fn the_pin_is_asked_for_on_a_terminal_without_echo() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let program = env!("CARGO_BIN_EXE_iot-enroll");
    let issue = |id: &str| format!("{program} cert device {id} lab-root --ca-key '{KEY}' --no-pfx");
    let Some((succeeded, printed)) = answered(&lab, &issue("d1"), &format!("{PIN}\n")) else { return };
    assert!(succeeded && printed.contains("Created the device certificate d1"), "{printed}");
    // Typing errors are corrected as elsewhere.
    let Some((succeeded, printed)) = answered(&lab, &issue("d2"), &format!("12\x15{PIN}x\x7f\r")) else { return };
    assert!(succeeded && printed.contains("Created the device certificate d2"), "{printed}");
    // Standard input is for something else.
    let fleet = format!("echo s1 | {program} cert fleet lab-root --ca-key '{KEY}' --devices -");
    let Some((succeeded, printed)) = answered(&lab, &fleet, &format!("{PIN}\n")) else { return };
    assert!(succeeded && printed.contains("Issued certificates for 1 device"), "{printed}");
}

#[test]
fn ctrl_c_at_the_question_ends_the_process_and_restores_the_terminal() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let program = env!("CARGO_BIN_EXE_iot-enroll");
    let line = format!(
        "trap : INT; {program} cert device d1 lab-root --ca-key '{KEY}' --no-pfx; echo \"status $?\"; stty -a; trap - INT"
    );
    let Some((_, printed)) = answered(&lab, &line, "12\x03") else { return };
    assert!(printed.contains("status 130"), "{printed}");
    for mode in ["echo", "icanon", "isig"] {
        assert!(printed.split_whitespace().any(|word| word == mode), "no {mode}: {printed}");
    }
    assert!(!lab.exists("d1_cert.pem"));
}

#[test]
fn a_uri_is_taken_only_where_a_ca_key_is() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    for arguments in [
        &["cert", "inspect", KEY][..],
        &["cert", "device", "d1", "--ca-cert", KEY, "--ca-key", KEY],
        &["device", "register", "d1", "--cert", "labRoot_cert.pem", "--key", KEY, "--id-scope", "0ne1"],
    ] {
        let error = lab.run(arguments).fails(2);
        assert!(error.contains("takes a file, and not a PKCS#11 URI"), "{error}");
    }
}
