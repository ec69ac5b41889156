//! PFX files: passwords, and compatibility with other programs.

use std::{fs, path::Path, process::Output};

use crate::support::{Run, openssl, program};
use tempfile::TempDir;

fn directory() -> TempDir {
    crate::support::temporary_directory()
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/pfx/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The thumbprint of the leaf in the fixtures.
const LEAF: &str = "F12CFC8EF2BA640A2B1AEF0AA87AE11B7B17E7F2\n";

/// Runs `cert` with the PFX password in the environment.
fn cert(directory: &Path, password: Option<&str>, arguments: &[&str]) -> Run {
    let mut command = program(directory);
    command.arg("cert").args(arguments);
    if let Some(password) = password {
        command.env("IOT_ENROLL_PFX_PASSWORD", password);
    }
    Run::of(&mut command)
}

/// Runs openssl, or skips the test.
fn openssl_or_skip(directory: &Path, arguments: &[&str]) -> Option<Output> {
    let output = openssl(directory, arguments);
    if output.is_none() {
        crate::skipped("there is no openssl");
    }
    output
}

#[test]
fn empty_password_can_be_given_and_is_tried_by_default() {
    let directory = directory();
    for (name, line) in [("empty", ""), ("line", "\n"), ("crlf", "\r\n"), ("wrong", "1234\n")] {
        fs::write(directory.path().join(name), line).expect("written");
    }
    for pfx in [fixture("empty-password.pfx"), fixture("absent-password.pfx")] {
        assert_eq!(cert(directory.path(), None, &["thumbprint", &pfx]).ok(), LEAF);
        assert_eq!(cert(directory.path(), Some(""), &["thumbprint", &pfx]).ok(), LEAF);
        for file in ["empty", "line", "crlf"] {
            let arguments = ["thumbprint", &pfx, "--pfx-password-file", file];
            assert_eq!(cert(directory.path(), Some("other"), &arguments).ok(), LEAF, "{file}");
        }
        let error = cert(directory.path(), Some(""), &["thumbprint", &pfx, "--pfx-password-file", "wrong"]).fails(1);
        assert!(error.contains("the password does not open the PFX file"), "{error}");
    }
    // A given empty password does not open a file with the password 1234.
    let pfx = fixture("rc2-40.pfx");
    assert_eq!(cert(directory.path(), None, &["thumbprint", &pfx]).ok(), LEAF);
    cert(directory.path(), Some(""), &["thumbprint", &pfx]).fails(1);
    let error = cert(directory.path(), None, &["thumbprint", &fixture("pbmac1-sha256.pfx")]).fails(1);
    assert!(error.contains("neither 1234 nor the empty one opens it"), "{error}");
    assert!(error.contains("--pfx-password-file"), "{error}");
}

#[test]
fn pfx_file_of_an_overwritten_set_is_removed_with_a_note() {
    let directory = directory();
    let path = directory.path();
    cert(path, None, &["root", "r"]).ok();
    let proof = ["verification", "--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem", "--code"];
    for (set, arguments) in [
        ("i", &["intermediate", "i", "r"][..]),
        ("d", &["device", "d", "r"]),
        ("s", &["server", "s", "r"]),
        ("eEdgeCa", &["edge-ca", "e", "r"]),
        ("p", &["device", "p", "--pair"]),
        ("verification", &[&proof[..], &["1"]].concat()),
        ("r", &["root", "r"]),
    ] {
        let stems = if set == "p" { vec!["p".to_owned(), "pSecondary".to_owned()] } else { vec![set.to_owned()] };
        let first = cert(path, None, &[arguments, &["--force"]].concat());
        assert!(!first.stderr.contains("was removed"), "{}", first.stderr);
        first.ok();
        let run = cert(path, None, &[arguments, &["--force", "--no-pfx"]].concat());
        for stem in stems {
            let note = format!("{stem}.pfx was removed with the overwritten set");
            assert!(run.stderr.contains(&note), "{}", run.stderr);
            assert!(!path.join(format!("{stem}.pfx")).exists());
        }
        run.ok();
        let again = cert(path, None, &[arguments, &["--force", "--no-pfx"]].concat());
        assert!(!again.stderr.contains("was removed"), "{}", again.stderr);
        again.ok();
    }
}

#[test]
fn other_secrets_cannot_be_empty() {
    let directory = directory();
    cert(directory.path(), None, &["root", "r", "--no-pfx"]).ok();
    fs::write(directory.path().join("empty"), "\n").expect("written");
    let error = cert(directory.path(), None, &["intermediate", "i", "r", "--no-pfx", "--key-password-file", "empty"]);
    let error = error.fails(1);
    assert!(error.contains("the first line of empty is empty"), "{error}");
}

#[test]
fn empty_and_non_bmp_passwords_open_in_openssl() {
    let directory = directory();
    for (name, password, legacy) in
        [("empty", "", false), ("emoji", "😀key", false), ("old", "pä𝄞", true), ("na😀me", "日本", false)]
    {
        let mut arguments = vec!["root", name, "--force", "--algorithm", "ec-p384"];
        if legacy {
            arguments.push("--pfx-legacy");
        }
        let made = cert(directory.path(), Some(password), &arguments);
        assert!(!made.stderr.contains("1234"), "{}", made.stderr);
        let made = made.ok();
        let pfx = made.lines().find_map(|line| line.strip_prefix("PFX")).expect("a PFX").trim().to_owned();
        let thumbprint = cert(directory.path(), Some(password), &["thumbprint", &pfx]).ok();
        assert!(made.contains(thumbprint.trim()), "{made}");

        fs::write(directory.path().join("password"), format!("{password}\n")).expect("written");
        let arguments = ["pkcs12", "-in", &pfx, "-passin", "file:password", "-nodes", "-out", "out.pem"];
        let legacy: &[&str] = if legacy { &["-legacy"] } else { &[] };
        let Some(output) = openssl_or_skip(directory.path(), &[&arguments[..], legacy].concat()) else { return };
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(directory.path().join("out.pem")).expect("written");
        assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1, "{text}");
        assert!(text.contains(&format!("friendlyName: CN={name}")) || !name.is_ascii(), "{text}");
        fs::write(directory.path().join("cert.pem"), text).expect("written");
        assert_eq!(cert(directory.path(), None, &["thumbprint", "cert.pem"]).ok(), thumbprint);
    }
}

#[test]
fn files_of_openssl_open_with_every_password() {
    let directory = directory();
    cert(directory.path(), None, &["root", "r", "--no-pfx"]).ok();
    cert(directory.path(), None, &["device", "d", "r", "--no-pfx"]).ok();
    let thumbprint = cert(directory.path(), None, &["thumbprint", "d_cert.pem"]).ok();
    for (password, options) in [
        ("", &["-nomac"][..]),
        ("", &["-keypbe", "AES-128-CBC", "-certpbe", "NONE"]),
        ("1234", &["-macalg", "sha512", "-iter", "1"]),
        ("pässwörd", &["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"]),
        ("😀 key", &["-macalg", "sha384"]),
        ("😀", &["-keypbe", "PBE-SHA1-3DES", "-certpbe", "AES-192-CBC", "-nomac"]),
    ] {
        fs::write(directory.path().join("password"), format!("{password}\n")).expect("written");
        let arguments = [
            "pkcs12",
            "-export",
            "-inkey",
            "d_key.pem",
            "-in",
            "d_cert.pem",
            "-certfile",
            "r_cert.pem",
            "-name",
            "ein Gerät",
            "-passout",
            "file:password",
            "-out",
            "d.pfx",
        ];
        let Some(output) = openssl_or_skip(directory.path(), &[&arguments[..], options].concat()) else { return };
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let arguments = ["thumbprint", "d.pfx", "--pfx-password-file", "password"];
        assert_eq!(cert(directory.path(), None, &arguments).ok(), thumbprint, "{password} {options:?}");
        // A wrong password is refused with and without an integrity check.
        let error = cert(directory.path(), Some("another"), &["thumbprint", "d.pfx"]).fails(1);
        assert!(error.contains("the password does not open the PFX file"), "{error}");
    }
}

#[test]
fn keystore_with_several_keys_is_ambiguous_but_searched() {
    let directory = directory();
    let keystore = fixture("two-keys.p12");
    let error = cert(directory.path(), Some("changeit"), &["thumbprint", &keystore]).fails(1);
    assert!(error.contains("holds 2 private keys that have a certificate: CN=one ("), "{error}");
    assert!(error.contains("; CN=two (friendly name two, SHA-1 thumbprint "), "{error}");
    let run = cert(directory.path(), Some("changeit"), &["expiring", &keystore, "--within", "40000d"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stdout.contains("CN=one") && run.stdout.contains("CN=two"), "{}", run.stdout);
}
