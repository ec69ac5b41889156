//! `cert`: which CA signs, whose files are written, and what is never issued.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::support::{Run, authority_fixture, openssl, program};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments).arg("--no-pfx"))
}

fn fleet(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(["cert", "fleet"]).args(arguments))
}

/// The files of a directory and what they hold.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(&path).expect("read"))).collect()
}

fn request_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requests").join(name)
}

#[test]
fn a_ca_signs_by_its_own_common_name_only() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "prod-ca"]).ok();
    cert(path, &["intermediate", "line.1", "prod-ca"]).ok();
    let before = contents(path);
    for (other, own) in [("Prod Ca", "prod-ca"), ("prod_ca", "prod-ca"), ("line-1", "line.1"), ("Line_1", "line.1")] {
        for arguments in
            [&["device", "d", other][..], &["intermediate", "i", other], &["device", "d", other, "--force"]]
        {
            let error = cert(path, arguments).fails(1);
            assert!(error.contains(&format!("{own:?}")) && error.contains(&format!("{other:?}")), "{error}");
        }
        let error = fleet(path, &[other, "--count", "2"]).fails(1);
        assert!(error.contains(&format!("{own:?}")) && error.contains(&format!("{other:?}")), "{error}");
        assert_eq!(contents(path), before);
        assert!(!path.join("fleet").exists());
    }
    cert(path, &["device", "d", "prod-ca"]).ok();
    cert(path, &["device", "e", "line.1"]).ok();
}

#[test]
fn a_root_to_provision_or_to_retire_for_has_the_name_that_is_given() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "prod-ca"]).ok();
    let run = |arguments: &[&str]| Run::of(program(path).args(arguments));
    let error = run(&["provision", "--emulator", "--root", "Prod Ca", "--device", "d"]).fails(1);
    assert!(error.contains("\"prod-ca\"") && error.contains("\"Prod Ca\""), "{error}");
    fs::write(path.join("token"), "SharedAccessSignature sr=a&sig=b&skn=c&se=1").expect("written");
    let service = ["--endpoint", "http://127.0.0.1:9", "--token-file", "token", "--group", "g", "--root", "Prod Ca"];
    for more in [&["--retire"][..], &["--device", "d"]] {
        let run = run(&[&["rollover"], &service[..], more].concat());
        // A service that does not answer comes first where the group is read first.
        let error = run.fails(1);
        assert!(error.contains("\"prod-ca\"") || !more.contains(&"--retire"), "{error}");
    }
    assert_eq!(contents(path).len(), 4, "nothing was written");
}

#[test]
fn names_with_the_same_files_are_both_told_and_neither_is_overwritten() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "r"]).ok();
    for id in ["dev-1", "pump.a", "x"] {
        cert(path, &["device", id, "r"]).ok();
    }
    cert(path, &["root", "verification"]).ok();
    let before = contents(path);
    for (other, own) in [("dev1", "dev-1"), ("Dev-1", "dev-1"), ("dev-1-", "dev-1"), ("pump-a", "pump.a"), ("x-", "x")]
    {
        for arguments in [
            &["device", other, "r"][..],
            &["device", other, "r", "--force"],
            &["device", other, "--force"],
            &["root", other, "--force"],
            &["intermediate", other, "r", "--force"],
        ] {
            let error = cert(path, arguments).fails(1);
            assert!(
                error.contains(&format!("{own:?}")) && error.contains(&format!("{other:?}")),
                "{arguments:?} {error}"
            );
            assert_eq!(contents(path), before, "{arguments:?}");
        }
    }
    // Files that differ in case only are one set on other file systems.
    for (other, own) in [("pumpa", "pump.a"), ("PUMPA", "pump.a")] {
        let error = cert(path, &["device", other, "r"]).fails(1);
        assert!(error.contains(&format!("{own:?}")) && error.contains(&format!("{other:?}")), "{error}");
        assert_eq!(contents(path), before);
    }
    // A proof takes the place of a proof only.
    let proof = ["verification", "--ca", "r_cert.pem", "--key", "r_key.pem", "--nonce", "C1", "--force"];
    let error = cert(path, &proof).fails(1);
    assert!(error.contains("\"verification\"") && error.contains("proof"), "{error}");
    assert_eq!(contents(path), before);
    cert(path, &["device", "dev-1", "r", "--force"]).ok();
    let elsewhere = ["verification", "--ca", "r_cert.pem", "--key", "r_key.pem", "--dir", "proofs", "--nonce"];
    cert(path, &[&elsewhere[..], &["C1"]].concat()).ok();
    cert(path, &[&elsewhere[..], &["C2", "--force"]].concat()).ok();
    let error = cert(path, &["device", "verification", "--dir", "proofs", "--force"]).fails(1);
    assert!(error.contains("\"C2\"") && error.contains("\"verification\""), "{error}");
}

#[test]
fn two_devices_of_one_command_with_the_same_files_are_both_told() {
    let directory = directory();
    let path = directory.path();
    for (first, second) in [("dev-1", "dev1"), ("dev-a", "deva"), ("x.y", "x-y"), ("Sensor", "sensor-")] {
        let run = Run::of(program(path).args(["provision", "--emulator", "--device", first, "--device", second]));
        let error = run.fails(1);
        assert!(error.contains(first) && error.contains(second), "{error}");
        assert!(contents(path).is_empty());
    }
    cert(path, &["root", "r"]).ok();
    fs::write(path.join("ids"), "pump-1\nPUMP-1\n").expect("written");
    let error = fleet(path, &["r", "--ids", "ids"]).fails(1);
    assert!(error.contains("pump-1") && error.contains("PUMP-1"), "{error}");
}

#[test]
fn force_never_touches_the_files_of_the_ca_that_signs() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "R"]).ok();
    cert(path, &["intermediate", "I", "R"]).ok();
    symlink(".", path.join("link")).expect("a link");
    fs::create_dir(path.join("sub")).expect("made");
    for file in ["cert", "key", "fullchain"] {
        symlink(format!("../r_{file}.pem"), path.join(format!("sub/verification_{file}.pem"))).expect("a link");
    }
    fs::copy(request_fixture("prime256v1.compressed.csr"), path.join("d.csr")).expect("copied");
    let before = contents(path);
    let own = |code| ["verification", "--ca", "sub/verification_cert.pem", "--nonce", code, "--dir", "sub", "--force"];
    for arguments in [
        &["device", "R", "R", "--force"][..],
        &["device", "r", "R", "--force"],
        &["device", "R", "R"],
        &["intermediate", "R", "R", "--force"],
        &["intermediate", "I", "I", "--force"],
        // A CA further up.
        &["device", "R", "I", "--force"],
        &["device", "R", "R", "--force", "--dir", "link"],
        &["device", "R", "R", "--force", "--dir", "sub/.."],
        &["device", "R", "R", "--csr", "d.csr", "--replace-subject", "--force"],
        &[&own("C")[..], &["--key", "sub/verification_key.pem"]].concat(),
        &[&own("C")[..], &["--key", "r_key.pem"]].concat(),
    ] {
        let arguments: Vec<_> = arguments.to_vec();
        let run = Run::of(program(path).arg("cert").args(&arguments));
        let error = run.fails(1);
        assert!(error.contains("nothing was written"), "{arguments:?}: {error}");
        assert_eq!(contents(path), before, "{arguments:?}");
    }
    // Its key elsewhere, in files that a proof would take.
    fs::create_dir(path.join("keys")).expect("made");
    fs::copy(path.join("r_key.pem"), path.join("keys/verification_key.pem")).expect("copied");
    let arguments = ["verification", "--ca", "r_cert.pem", "--key", "keys/verification_key.pem", "--nonce", "C"];
    let error = cert(path, &[&arguments[..], &["--dir", "keys", "--force"]].concat()).fails(1);
    assert!(error.contains("belongs to the CA that signs"), "{error}");
    assert_eq!(fs::read(path.join("keys/verification_key.pem")).expect("read"), before[&path.join("r_key.pem")]);
    // A new root of the same name signs itself: that is what --force is for.
    cert(path, &["root", "R", "--force"]).ok();
}

#[test]
fn compressed_points_of_requests_are_written_uncompressed() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "r"]).ok();
    for curve in ["prime256v1", "secp384r1", "secp521r1"] {
        for form in ["compressed", "hybrid"] {
            let request = request_fixture(&format!("{curve}.{form}.csr"));
            let request = request.to_str().expect("UTF-8");
            let id = format!("dev-{form}");
            cert(path, &["device", &id, "r", "--csr", request, "--dir", ".", "--force"]).ok();
            let stem = if form == "hybrid" { "devHybrid" } else { "devCompressed" };
            let file = format!("{stem}_cert.pem");
            let verdict = Run::of(program(path).args(["cert", "verify", &file, "--ca", "r_cert.pem"])).ok();
            assert!(verdict.starts_with("Valid"), "{verdict}");
            let certificate = fs::read(path.join(&file)).expect("read");
            let certificate = iot_enroll::certificate::Certificate::read(&certificate).expect("a certificate");
            let octets = match curve {
                "prime256v1" => 65,
                "secp384r1" => 97,
                _ => 133,
            };
            let key = certificate.public_key();
            assert_eq!(key[key.len() - octets], 0x04, "{curve} {form}");
            // The same key, by a judge that is not ours.
            let ours = openssl(path, &["x509", "-in", &file, "-noout", "-pubkey"]);
            let theirs = openssl(path, &["req", "-in", request, "-noout", "-pubkey"]);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                println!("skipped: there is no openssl to compare the key with");
                continue;
            };
            fs::write(path.join("ours"), ours.stdout).expect("written");
            fs::write(path.join("theirs"), theirs.stdout).expect("written");
            let converted = |file| {
                let form =
                    ["pkey", "-pubin", "-in", file, "-ec_conv_form", "uncompressed", "-pubout", "-outform", "DER"];
                openssl(path, &form).expect("openssl").stdout
            };
            assert!(!converted("ours").is_empty());
            assert_eq!(converted("ours"), converted("theirs"), "{curve} {form}");
        }
    }
    let requests = path.join("requests");
    fs::create_dir(&requests).expect("made");
    fs::copy(request_fixture("secp384r1.compressed.csr"), requests.join("a.csr")).expect("copied");
    fs::copy(request_fixture("secp521r1.hybrid.csr"), requests.join("b.csr")).expect("copied");
    fleet(path, &["r", "--csr-dir", "requests"]).ok();
    fleet(path, &["r", "--csr-dir", "requests", "--resume"]).ok();
}

#[test]
fn a_ca_whose_certificate_has_a_compressed_point_signs_with_its_key() {
    let directory = directory();
    let path = directory.path();
    for file in ["cert", "key"] {
        let from = authority_fixture(&format!("ec-compressed_{file}.pem"));
        fs::copy(from, path.join(format!("compressed_{file}.pem"))).expect("copied");
    }
    cert(path, &["device", "d", "compressed"]).ok();
    let verdict = Run::of(program(path).args(["cert", "verify", "d_cert.pem", "--ca", "compressed_cert.pem"])).ok();
    assert_eq!(verdict, "Valid: d, under compressed.\n");
}

#[test]
fn a_device_id_may_end_in_a_dash() {
    let directory = directory();
    let path = directory.path();
    let made = Run::of(program(path).args(["cert", "device", "dev-", "--no-pfx", "-o", "json"])).json();
    assert_eq!(made["subject"], "CN=dev-");
    for id in ["dev.", "dev_", "dev:"] {
        let error = cert(path, &["device", id]).fails(2);
        assert!(error.contains("a letter, digit or - last") && error.contains("position 4"), "{error}");
    }
    cert(path, &["root", "r"]).ok();
    fs::write(path.join("ids"), "a-\nb--\n").expect("written");
    fleet(path, &["r", "--ids", "ids"]).ok();
    assert!(path.join("fleet/0000/b--_cert.pem").exists());
}
