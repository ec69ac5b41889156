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

#[test]
fn the_pin_is_asked_for_on_a_terminal_without_echo() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let program = env!("CARGO_BIN_EXE_iot-enroll");
    let line = format!("{program} cert device d1 lab-root --ca-key '{KEY}' --no-pfx");
    let mut command = lab.prepare(Command::new("script"), &["-qec", &line, "/dev/null"]);
    command.current_dir(lab.path()).env_remove("IOT_ENROLL_PIN").env("TERM", "xterm");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned.inspect_err(|error| skipped(&format!("script cannot be run: {error}"))) else { return };
    let mut stdin = child.stdin.take().expect("its input");
    let mut stdout = child.stdout.take().expect("its output");
    let mut printed = Vec::new();
    // The answer is typed when the question is there: the terminal would echo what comes before.
    let mut byte = [0];
    while !String::from_utf8_lossy(&printed).contains("PIN of the token lab:") {
        let read = std::io::Read::read(&mut stdout, &mut byte).expect("output");
        assert_eq!(read, 1, "no question in: {}", String::from_utf8_lossy(&printed));
        printed.push(byte[0]);
    }
    let typed = std::thread::spawn(move || {
        stdin.write_all(format!("{PIN}\n").as_bytes()).expect("typed");
        stdin
    });
    std::io::Read::read_to_end(&mut stdout, &mut printed).expect("output");
    drop(typed.join().expect("no panic"));
    assert!(child.wait().expect("its end").success());
    let printed = String::from_utf8_lossy(&printed);
    assert!(printed.contains("Created the device certificate d1"), "{printed}");
    assert!(!printed.contains(PIN), "{printed}");
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
