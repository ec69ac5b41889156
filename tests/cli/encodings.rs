//! Encodings that options with a file accept.
use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{Certificate, PrivateKey};
use tempfile::TempDir;

use crate::support::{Run, authority_fixture, openssl, program};

/// A directory with a root `r` and a device `d` under it.
fn directory() -> TempDir {
    let directory = crate::support::temporary_directory();
    cert(directory.path(), &["root", "r"]).ok();
    cert(directory.path(), &["device", "d", "r"]).ok();
    directory
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn read(directory: &Path, file: &str) -> Vec<u8> {
    fs::read(directory.join(file)).expect("read")
}

fn thumbprint(directory: &Path, file: &str) -> String {
    Certificate::read(&read(directory, file)).expect("a certificate").sha1_thumbprint().to_string()
}

#[test]
fn thumbprints_of_all_readable_files_are_printed() {
    let directory = directory();
    fs::write(directory.path().join("junk"), "hello").expect("written");
    let files = ["thumbprint", "r_cert.pem", "junk", "d_cert.pem", "missing"];
    let run = cert(directory.path(), &files);
    let expected = ["r_cert.pem", "d_cert.pem"].map(|file| format!("{}  {file}\n", thumbprint(directory.path(), file)));
    assert_eq!(run.stdout, expected.concat());
    let error = run.fails(1);
    assert!(error.contains("2 of 4 files") && error.contains("junk") && error.contains("missing"));
    let run = cert(directory.path(), &["thumbprint", "junk", "d_cert.pem", "-o", "json"]);
    let printed: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(printed[0]["sha1Thumbprint"], thumbprint(directory.path(), "d_cert.pem"));
    assert_eq!(printed.as_array().map(Vec::len), Some(1));
    let error = run.fails(1);
    assert!(error.contains("junk") && error.contains("certificate"), "{error}");
}

#[test]
fn base64_warns_of_private_keys_in_every_encoding() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let key = PrivateKey::read(&read(directory.path(), "d_key.pem"), None).expect("a key");
    let der = key.to_pkcs8_der().expect("DER");
    fs::write(at("key.der"), &*der).expect("written");
    fs::write(at("key.b64"), BASE64_STANDARD.encode(&*der)).expect("written");
    fs::write(at("pfx.b64"), BASE64_STANDARD.encode(read(directory.path(), "d.pfx"))).expect("written");
    let text = String::from_utf8(read(directory.path(), "d_key.pem")).expect("text");
    fs::write(at("key.utf16"), text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).expect("written");
    fs::write(at("key.damaged"), text.replacen('M', "*", 1)).expect("written");
    for file in ["d_key.pem", "key.der", "key.b64", "d.pfx", "pfx.b64", "key.utf16", "key.damaged"] {
        let run = cert(directory.path(), &["base64", file]);
        assert!(run.stderr.contains("private key") && run.stderr.contains(file), "{file}: {}", run.stderr);
        assert_eq!(run.ok().trim_end(), BASE64_STANDARD.encode(read(directory.path(), file)));
    }
    fs::write(at("cert.der"), Certificate::read(&read(directory.path(), "d_cert.pem")).expect("one").der())
        .expect("written");
    for file in ["d_cert.pem", "d_fullchain.pem", "cert.der"] {
        assert_eq!(cert(directory.path(), &["base64", file]).stderr, "", "{file}");
    }
}

#[test]
fn ca_is_read_from_pfx() {
    let directory = directory();
    let proof = ["verification", "--nonce", "ABC", "--force", "--no-pfx"];
    for (ca, key) in [("r_cert.pem", "r.pfx"), ("r.pfx", "r.pfx"), ("r.pfx", "r_key.pem")] {
        cert(directory.path(), &[&proof[..], &["--ca", ca, "--key", key]].concat()).ok();
        cert(directory.path(), &["verify", "verification_cert.pem", "--ca", "r.pfx", "--code", "ABC"]).ok();
    }
    let run = |variable: &str, password: &str| {
        let mut program = program(directory.path());
        program.env(variable, password).arg("cert").args(proof).args(["--ca", "s_cert.pem", "--key", "s.pfx"]);
        Run::of(&mut program)
    };
    Run::of(program(directory.path()).env("IOT_ENROLL_PFX_PASSWORD", "geheim").args(["cert", "root", "s"])).ok();
    run("IOT_ENROLL_PFX_PASSWORD", "geheim").ok();
    run("IOT_ENROLL_KEY_PASSWORD", "geheim").ok();
    let error = run("IOT_ENROLL_PFX_PASSWORD", "wrong").fails(1);
    assert!(error.contains("s.pfx") && error.contains("password") && error.contains("--pfx-password-file"), "{error}");
    let error = run("UNUSED", "").fails(1);
    assert!(error.contains("s.pfx") && error.contains("--pfx-password-file"), "{error}");
}

#[test]
fn refused_keys_have_a_hint() {
    let directory = directory();
    let fixture = |name: &str| authority_fixture("..").join("keys").join(name);
    for (file, password, reason, hint) in [
        ("encrypted/traditional-aes128.pem", "", "is encrypted", "--key-password-file"),
        ("encrypted/pbe-sha1-3des.pem", "wrong", "does not open", "--key-password-file"),
        ("unsupported/pbe-sha1-rc4-128.pem", "secret", "RC4-128", "openssl pkcs8 -topk8"),
        ("unsupported/openssh.pem", "", "OpenSSH", "ssh-keygen -p -m PKCS8"),
        ("unsupported/rsa1024.pem", "", "RSA of 1024 bits", "2048"),
    ] {
        let file = fixture(file);
        let mut program = program(directory.path());
        program.env("IOT_ENROLL_KEY_PASSWORD", password);
        program.args(["cert", "verification", "--nonce", "ABC", "--ca", "r_cert.pem", "--key"]).arg(&file);
        let error = Run::of(&mut program).fails(1);
        assert!(error.contains(reason) && error.contains(hint) && error.contains("keys"), "{error}");
    }
}

#[test]
fn requests_are_signed_in_every_encoding() {
    let directory = directory();
    let made =
        ["req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", "s.key"];
    let made =
        openssl(directory.path(), &[&made[..], &["-subj", "/CN=s-1", "-outform", "DER", "-out", "s.der"]].concat());
    if made.is_none() {
        crate::skipped("there is no openssl");
        return;
    }
    let der = read(directory.path(), "s.der");
    let base64 = BASE64_STANDARD.encode(&der);
    for bytes in [
        [&der[..], b"\n"].concat(),
        base64.clone().into_bytes(),
        format!("-----BEGIN NEW CERTIFICATE REQUEST-----\\n{base64}\\n-----END NEW CERTIFICATE REQUEST-----\\n").into(),
    ] {
        fs::write(directory.path().join("in.csr"), bytes).expect("written");
        cert(directory.path(), &["device", "s-1", "r", "--csr", "in.csr", "--force"]).ok();
        cert(directory.path(), &["verify", "s1_cert.pem", "--ca", "r_cert.pem"]).ok();
    }
}

#[test]
fn pkcs7_is_read_as_a_chain() {
    let directory = directory();
    let made = ["crl2pkcs7", "-nocrl", "-certfile", "d_fullchain.pem", "-outform", "DER", "-out", "chain.p7b"];
    if openssl(directory.path(), &made).is_none() {
        crate::skipped("there is no openssl");
        return;
    }
    assert_eq!(
        cert(directory.path(), &["thumbprint", "chain.p7b"]).ok().trim(),
        thumbprint(directory.path(), "d_cert.pem")
    );
    cert(directory.path(), &["verify", "chain.p7b", "--ca", "r_cert.pem"]).ok();
    assert!(cert(directory.path(), &["inspect", "chain.p7b"]).ok().contains("2 certificates are a valid chain"));
    // `openssl cms` adds a signature, and writes BER when it streams.
    let made = [
        "cms",
        "-sign",
        "-signer",
        "d_cert.pem",
        "-inkey",
        "d_key.pem",
        "-certfile",
        "r_cert.pem",
        "-in",
        "d_cert.pem",
    ];
    let made = openssl(
        directory.path(),
        &[&made[..], &["-stream", "-outform", "DER", "-nodetach", "-out", "ber.p7m"]].concat(),
    );
    assert!(made.is_some_and(|output| output.status.success()));
    assert_eq!(read(directory.path(), "ber.p7m")[..2], [0x30, 0x80], "BER");
    assert_eq!(
        cert(directory.path(), &["thumbprint", "ber.p7m"]).ok().trim(),
        thumbprint(directory.path(), "d_cert.pem")
    );
}
