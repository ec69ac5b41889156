//! `cert renew`: the files of certificates, directories and fleets.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use iot_enroll::certificate::{
    Certificate, KeyEncoding, PrivateKey,
    files::{FileSet, read_certificates, read_key},
    pfx,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Run, openssl, program, temporary_directory};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

/// A directory with a root, an intermediate CA and a device, of that many days.
fn lab(days: &str) -> TempDir {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "R", "--no-pfx"]).ok();
    cert(path, &["intermediate", "I", "R", "--no-pfx"]).ok();
    cert(path, &["device", "d-1", "I", "--days", days, "--san", "d.example"]).ok();
    directory
}

fn read(path: &Path, name: &str) -> Certificate {
    read_certificates(&path.join(name)).expect("a certificate").swap_remove(0)
}

fn bytes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).expect("read").map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.path().is_file());
    files.map(|it| (it.file_name().into_string().expect("UTF-8"), fs::read(it.path()).expect("read"))).collect()
}

/// Checks that all files of a set belong to its certificate.
fn check_set(path: &Path, stem: &str) -> Certificate {
    let file = |suffix: &str| path.join(format!("{stem}{suffix}"));
    let certificate = read(path, &format!("{stem}_cert.pem"));
    let key = read_key(&file("_key.pem"), None).expect("a key");
    assert!(key.belongs_to(&certificate), "{stem}: key");
    assert_eq!(read_certificates(&file("_fullchain.pem")).expect("a chain")[0], certificate, "{stem}: full chain");
    if file(".pfx").exists() {
        let (key, certificates) = pfx::read_identity(&fs::read(file(".pfx")).expect("read"), None).expect("a PFX file");
        assert!(key.belongs_to(&certificate) && certificates[0] == certificate, "{stem}: PFX");
    }
    certificate
}

#[test]
fn all_files_of_a_set_are_renewed() {
    let lab = lab("60");
    let path = lab.path();
    let (old, before) = (check_set(path, "d1"), bytes(path));
    let human = cert(path, &["renew", "d1_cert.pem"]).ok();
    assert!(human.contains("dps enrollment update d-1 --cert ./d1_cert.pem"), "{human}");
    let new = check_set(path, "d1");
    assert_ne!(new.serial_number(), old.serial_number());
    let after = bytes(path);
    for name in ["d1_key.pem", "i_cert.pem", "i_key.pem", "r_cert.pem"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    cert(path, &["verify", "d1_fullchain.pem", "--ca-cert", "r_cert.pem"]).ok();

    // Any file of the set names it, and JSON has the old and the new certificate.
    let report = cert(path, &["renew", "d1.pfx", "--new-key", "--days", "10", "-o", "json"]).json();
    let newest = check_set(path, "d1");
    assert_ne!(newest.public_key(), new.public_key());
    let entry = &report["certificates"][0];
    assert_eq!(entry["sha1Thumbprint"], newest.sha1_thumbprint().to_string());
    assert_eq!(entry["previous"]["sha1Thumbprint"], new.sha1_thumbprint().to_string());
    assert_eq!((&report["renewed"], &entry["newKey"]), (&1.into(), &true.into()));
    assert_eq!(entry["pfx"], "./d1.pfx");
    cert(path, &["verify", "d1_fullchain.pem", "--ca-cert", "r_cert.pem"]).ok();
}

#[test]
fn openssl_prints_the_same_text_except_for_serial_number_validity_and_signature() {
    let lab = lab("60");
    let path = lab.path();
    let text = |name: &str| {
        let printed =
            openssl(path, &["x509", "-in", name, "-noout", "-text", "-certopt", "no_sigdump,no_serial,no_validity"]);
        printed.map(|output| String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let Some(_) = text("d1_cert.pem") else {
        crate::skipped("there is no openssl");
        return;
    };
    for set in ["d1", "i", "r"] {
        let name = format!("{set}_cert.pem");
        let before = text(&name);
        cert(path, &["renew", &name]).ok();
        assert_eq!(text(&name), before);
    }
    // The device was issued by the CAs before they were renewed.
    let verified = openssl(path, &["verify", "-CAfile", "r_cert.pem", "-untrusted", "i_cert.pem", "d1_cert.pem"]);
    assert!(verified.expect("openssl").status.success());
}

#[test]
fn what_is_not_due_is_left_as_it_is() {
    let lab = lab("60");
    let path = lab.path();
    let before = bytes(path);
    for within in ["30d", "33%", "1h", "0%"] {
        let human = cert(path, &["renew", "d1_cert.pem", "--if-within", within]).ok();
        assert!(human.contains("due for renewal from"), "{human}");
    }
    let report = cert(path, &["renew", ".", "--if-within", "30d", "-o", "json"]).json();
    assert_eq!((&report["renewed"], &report["notDue"]), (&0.into(), &3.into()));
    assert!(report["nextDue"].is_string());
    assert_eq!(bytes(path), before);
    // 60 of 60 days are left.
    cert(path, &["renew", "d1_cert.pem", "--if-within", "61d", "--dry-run"]).ok();
    cert(path, &["renew", ".", "--dry-run"]).ok();
    assert_eq!(bytes(path), before);
    let human = cert(path, &["renew", ".", "--if-within", "61d"]).ok();
    assert!(human.contains("Renewed 1 certificate; 2 not due"), "{human}");
    for wrong in ["101%", "x%", "3m", "%"] {
        cert(path, &["renew", "d1_cert.pem", "--if-within", wrong]).fails(2);
    }
    for (wrong, reason) in
        [("99999999999d", "after the year 9999"), ("33.3%", "whole number"), ("999%", "at most 100%")]
    {
        assert!(cert(path, &["renew", "d1_cert.pem", "--if-within", wrong]).fails(2).contains(reason), "{wrong}");
    }
}

#[test]
fn only_the_ca_that_signed_renews() {
    let lab = lab("60");
    let path = lab.path();
    fs::create_dir_all(path.join("a/b")).expect("a directory");
    // Another CA of the same name.
    cert(path, &["root", "I", "--no-pfx", "--dir", "a/b"]).ok();
    let before = bytes(path);
    let other = ["--ca-cert", "a/b/i_cert.pem", "--ca-key", "a/b/i_key.pem"];
    let error = cert(path, &[&["renew", "d1_cert.pem"][..], &other].concat()).fails(1);
    assert!(error.contains("was not signed by the key of CN=I"), "{error}");
    let root = ["--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem"];
    let error = cert(path, &[&["renew", "d1_cert.pem"][..], &root].concat()).fails(1);
    assert!(error.contains("was issued by CN=I, and not by CN=R"), "{error}");
    assert!(cert(path, &["renew", "d1_cert.pem", "--dir", "a"]).fails(1).contains("--dir DIR"));
    assert_eq!(bytes(path), before);
    // The right one is found in the working directory, although one with its name is beside the certificate.
    for name in ["d1_cert.pem", "d1_key.pem", "d1_fullchain.pem", "d1.pfx"] {
        fs::rename(path.join(name), path.join("a/b").join(name)).expect("moved");
    }
    cert(path, &["renew", "a/b/d1_cert.pem"]).ok();
    check_set(&path.join("a/b"), "d1");
    // A self-signed certificate is not signed again by a CA.
    cert(path, &["device", "s", "--no-pfx"]).ok();
    cert(path, &[&["renew", "s_cert.pem"][..], &root].concat()).fails(1);
    cert(path, &["renew", "s_cert.pem", "--new-key"]).ok();
    check_set(path, "s");
}

#[test]
fn a_renewed_ca_with_its_key_renews_what_it_issued_before() {
    let lab = lab("60");
    let path = lab.path();
    let old_ca = read(path, "i_cert.pem");
    cert(path, &["renew", "i_cert.pem"]).ok();
    // The certificate under the old CA certificate is still valid.
    fs::write(
        path.join("mixed.pem"),
        [fs::read(path.join("d1_cert.pem")).expect("read"), fs::read(path.join("i_cert.pem")).expect("read")].concat(),
    )
    .expect("written");
    cert(path, &["verify", "mixed.pem", "--ca-cert", "r_cert.pem"]).ok();
    cert(path, &["renew", "d1_cert.pem"]).ok();
    let chain = read_certificates(&path.join("d1_fullchain.pem")).expect("a chain");
    assert!(chain.contains(&read(path, "i_cert.pem")) && !chain.contains(&old_ca));
}

#[test]
fn a_new_key_of_a_ca_needs_confirmation() {
    let lab = lab("60");
    let path = lab.path();
    let before = bytes(path);
    let error = cert(path, &["renew", "i_cert.pem", "--new-key"]).fails(2);
    assert!(error.contains("not valid under the new one"), "{error}");
    assert_eq!(bytes(path), before);
    // In a directory, CAs keep their keys.
    let run = cert(path, &["renew", ".", "--new-key"]);
    assert!(run.stderr.contains("2 CAs kept the key"), "{}", run.stderr);
    run.ok();
    let device = check_set(path, "d1");
    assert_eq!(
        read(path, "i_key.pem".replace("key", "cert").as_str()).public_key(),
        read_key(&path.join("i_key.pem"), None).expect("a key").public_key()
    );
    cert(path, &["verify", "d1_fullchain.pem", "--ca-cert", "r_cert.pem"]).ok();
    cert(path, &["renew", "i_cert.pem", "--new-key", "--yes"]).ok();
    check_set(path, "i");
    // The CA with the new key did not sign the device.
    assert!(
        cert(path, &["renew", "d1_cert.pem"]).fails(1).contains("did not sign") || read(path, "d1_cert.pem") == device
    );
    assert_eq!(read(path, "d1_cert.pem"), device);
}

#[test]
fn a_missing_key_is_replaced_only_on_request() {
    let lab = lab("60");
    let path = lab.path();
    fs::remove_file(path.join("d1_key.pem")).expect("removed");
    fs::remove_file(path.join("d1.pfx")).expect("removed");
    let error = cert(path, &["renew", "d1_cert.pem"]).fails(1);
    assert!(error.contains("d1_key.pem does not exist") && error.contains("--new-key"), "{error}");
    cert(path, &["renew", "d1_cert.pem", "--new-key"]).ok();
    check_set(path, "d1");
    assert!(!path.join("d1.pfx").exists(), "there was no PFX file before");
    // A key of another certificate.
    fs::copy(path.join("i_key.pem"), path.join("d1_key.pem")).expect("copied");
    let before = bytes(path);
    for more in [&[][..], &["--new-key"]] {
        let error = cert(path, &[&["renew", "d1_cert.pem"], more].concat()).fails(1);
        assert!(error.contains("d1_key.pem does not belong to"), "{error}");
    }
    assert_eq!(bytes(path), before);
}

#[test]
fn a_pfx_file_keeps_its_password_and_encryption() {
    let lab = lab("60");
    let path = lab.path();
    fs::write(path.join("secret"), "s3cret\n").expect("written");
    let secret = ["--pfx-password-file", "secret"];
    cert(path, &[&["device", "e", "I", "--pfx-legacy"][..], &secret].concat()).ok();
    let before = bytes(path);
    let error = cert(path, &["renew", "e_cert.pem"]).fails(1);
    assert!(error.contains("e.pfx") && error.contains("--pfx-password-file"), "{error}");
    // 1234 is the password of the other one.
    assert!(cert(path, &[&["renew", "d1_cert.pem"][..], &secret].concat()).fails(1).contains("d1.pfx"));
    assert_eq!(bytes(path), before);
    cert(path, &[&["renew", "e_cert.pem"][..], &secret].concat()).ok();
    let pfx_bytes = fs::read(path.join("e.pfx")).expect("read");
    assert_eq!(pfx::read(&pfx_bytes, "s3cret").expect("opened")[0], read(path, "e_cert.pem"));
    if let Some(output) =
        openssl(path, &["pkcs12", "-in", "e.pfx", "-info", "-noout", "-passin", "pass:s3cret", "-legacy"])
    {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("pbeWithSHA1And3-KeyTripleDES-CBC"), "{text}");
    }
}

#[test]
fn what_is_not_a_set_is_refused() {
    let lab = lab("60");
    let path = lab.path();
    fs::copy(path.join("d1_cert.pem"), path.join("device.crt")).expect("copied");
    assert!(cert(path, &["renew", "device.crt"]).fails(1).contains("not a file of a set"));
    assert!(cert(path, &["renew", "missing_cert.pem"]).fails(1).contains("missing_cert.pem"));
    cert(path, &["fleet", "I", "--count", "2", "--format", "tar"]).ok();
    assert!(cert(path, &["renew", "fleet.tar"]).fails(1).contains("unpack it"));
    cert(path, &["verification", "--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem", "--code", "ABC", "--no-pfx"]).ok();
    assert!(cert(path, &["renew", "verification_cert.pem"]).fails(1).contains("proof of possession"));
    let proof = read(path, "verification_cert.pem");
    let run = cert(path, &["renew", "."]);
    assert!(run.stderr.contains("left out 1 proof"), "{}", run.stderr);
    assert!(run.ok().contains("Renewed 3 certificates"));
    assert_eq!(read(path, "verification_cert.pem"), proof);
    fs::create_dir(path.join("empty")).expect("a directory");
    assert!(cert(path, &["renew", "empty"]).fails(1).contains("no certificate"));
    fs::write(path.join("empty/manifest.csv"), "IOTC_DEVICEID,certificate\n").expect("written");
    assert!(cert(path, &["renew", "empty"]).fails(1).contains("empty/manifest.csv is not the manifest of a fleet"));
    let error = cert(path, &["renew", "missing"]).fails(1);
    assert!(error.contains("missing does not exist") && !error.contains("PARENT"), "{error}");
}

#[test]
fn certificates_that_cannot_be_renewed_do_not_stop_the_others() {
    let lab = lab("60");
    let path = lab.path();
    cert(path, &["device", "e", "I", "--no-pfx"]).ok();
    fs::remove_file(path.join("e_key.pem")).expect("removed");
    fs::write(path.join("x_cert.pem"), "nothing").expect("written");
    let old = read(path, "d1_cert.pem");
    let run = cert(path, &["renew", ".", "-o", "json"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!((&report["renewed"], &report["failed"]), (&3.into(), &2.into()));
    assert_eq!(report["failures"][0]["certificate"], "./e_cert.pem");
    assert_ne!(check_set(path, "d1"), old);
}

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).expect("read");
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    lines.map(|row| header.iter().cloned().zip(row).collect()).collect()
}

/// Checks that a manifest says of each certificate what it is.
fn check_manifest(root: &Path) -> Vec<BTreeMap<String, String>> {
    let rows = rows(&root.join("manifest.csv"));
    let part = self::rows(&root.join("0000/manifest.csv"));
    assert_eq!(rows[..part.len()], part, "the manifest of the directory");
    for row in &rows {
        let stem = row["certificate"].strip_suffix("_cert.pem").expect("a certificate file");
        let certificate =
            if row["privateKey"].is_empty() { read(root, &row["certificate"]) } else { check_set(root, stem) };
        assert_eq!(row["IOTC_X509THUMBPRINTPRIMARY"], certificate.sha1_thumbprint().to_string());
        assert_eq!(row["sha256Thumbprint"], certificate.sha256_thumbprint().to_string());
        assert_eq!(row["serialNumber"], certificate.serial_number());
        assert_eq!(row["notAfter"], certificate.not_after().to_string());
    }
    rows
}

#[test]
fn a_fleet_is_renewed_with_its_manifest() {
    let lab = lab("60");
    let path = lab.path();
    let fleet = path.join("fleet");
    cert(path, &["fleet", "I", "--count", "100", "--days", "20"]).ok();
    let before = check_manifest(&fleet);
    let human = cert(path, &["renew", "fleet", "--if-within", "50%"]).ok();
    assert!(human.contains("Renewed 0 certificates; 100 not due"), "{human}");
    assert_eq!(check_manifest(&fleet), before);
    let report = cert(path, &["renew", "fleet", "--if-within", "30d", "--days", "90", "-o", "json"]).json();
    assert_eq!((&report["renewed"], &report["manifest"]), (&100.into(), &"fleet/manifest.csv".into()));
    let after = check_manifest(&fleet);
    assert!(before.iter().zip(&after).all(|(old, new)| old["serialNumber"] != new["serialNumber"]));
    // One device, and one directory.
    cert(path, &["renew", "fleet/0000/device-007_cert.pem", "--new-key"]).ok();
    let changed = check_manifest(&fleet);
    let different: Vec<_> = after.iter().zip(&changed).filter(|(old, new)| old != new).collect();
    assert_eq!(different.len(), 1);
    assert_eq!(different[0].1["IOTC_DEVICEID"], "device-007");
    let report = cert(&fleet.join("0000"), &["renew", ".", "-o", "json"]).json();
    assert_eq!(report["renewed"], 100);
    let before = check_manifest(&fleet);
    // A run that was killed before the manifest: the next one corrects the row, although nothing is due.
    let stale = fs::read_to_string(fleet.join("manifest.csv")).expect("read").replace(&before[5]["serialNumber"], "00");
    fs::write(fleet.join("manifest.csv"), stale).expect("written");
    cert(path, &["renew", "fleet", "--if-within", "1d"]).ok();
    assert_eq!(check_manifest(&fleet), before);
    // The fleet can still grow.
    cert(path, &["fleet", "I", "--count", "100", "--days", "20", "--resume"]).ok();
    cert(path, &["verify", "fleet/0000/device-100_fullchain.pem", "--ca-cert", "r_cert.pem"]).ok();
}

#[test]
fn devices_that_keep_their_keys_get_a_certificate_for_the_same_key() {
    let lab = lab("60");
    let path = lab.path();
    fs::create_dir(path.join("requests")).expect("a directory");
    let request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k.pem"];
    if openssl(path, &[&request[..], &["-subj", "/CN=own-1", "-out", "requests/own-1.csr"]].concat()).is_none() {
        crate::skipped("there is no openssl");
        return;
    }
    cert(path, &["fleet", "I", "--csr-dir", "requests"]).ok();
    let old = read(path, "fleet/0000/own-1_cert.pem");
    cert(path, &["renew", "fleet"]).ok();
    let new = read(path, "fleet/0000/own-1_cert.pem");
    assert!(old.serial_number() != new.serial_number() && old.public_key() == new.public_key());
    check_manifest(&path.join("fleet"));
    let run = cert(path, &["renew", "fleet", "--new-key"]);
    assert!(run.stderr.contains("a key that the device keeps"), "{}", run.stderr);
    run.fails(1);
    assert!(!path.join("fleet/0000/own-1_key.pem").exists());
}

/// The states that a killed run leaves: after its commit, with some of the files moved.
#[test]
fn the_next_run_finishes_what_a_killed_one_had_committed() {
    let lab = lab("60");
    let path = lab.path();
    let old = bytes(path);
    cert(path, &["renew", "d1_cert.pem", "--new-key"]).ok();
    let new = bytes(path);
    // As `finish` does it: certificate and full chain are removed, then the new files are moved.
    let steps: [(&str, bool); 6] = [
        ("d1_cert.pem", false),
        ("d1_fullchain.pem", false),
        ("d1_key.pem", true),
        ("d1.pfx", true),
        ("d1_fullchain.pem", true),
        ("d1_cert.pem", true),
    ];
    for killed_after in 0..=steps.len() {
        let committed = path.join(".d1.commit");
        fs::create_dir(&committed).expect("a directory");
        let names = ["d1_fullchain.pem", "d1_cert.pem", "d1_key.pem", "d1.pfx"];
        let title = "Files of one certificate, on their way to the directory above. Made by iot-enroll.\n";
        fs::write(committed.join(".iot-enroll-set"), title.to_owned() + &names.join("\n") + "\n").expect("written");
        for name in names {
            fs::write(committed.join(name), &new[name]).expect("written");
            fs::write(path.join(name), &old[name]).expect("written");
        }
        for (name, is_moved) in &steps[..killed_after] {
            if *is_moved {
                fs::rename(committed.join(name), path.join(name)).expect("moved");
            } else {
                fs::remove_file(path.join(name)).expect("removed");
            }
            // At no moment is a certificate beside the key of another.
            if let Ok(found) = read_certificates(&path.join("d1_cert.pem")) {
                let key = PrivateKey::read(&fs::read(path.join("d1_key.pem")).expect("read"), None).expect("a key");
                assert!(key.belongs_to(&found[0]), "after {name}");
            }
        }
        // Nothing is due, neither in the directory nor for the set, whose certificate may be missing.
        let target = if killed_after % 2 == 0 { "." } else { "d1_cert.pem" };
        cert(path, &["renew", target, "--if-within", "1d"]).ok();
        assert_eq!(bytes(path), new, "killed after {killed_after} steps");
        assert!(!committed.exists());
    }
}

/// A run that was killed before its commit may have written a new private key.
#[test]
fn the_next_run_removes_what_a_killed_one_had_begun() {
    let lab = lab("60");
    let path = lab.path();
    let before = bytes(path);
    cert(path, &["fleet", "I", "--count", "2"]).ok();
    let title = "Files of one certificate, on their way to the directory above. Made by iot-enroll.\n";
    for (directory, stem, target) in
        [("", "d1", "d1_cert.pem"), ("", "d1", "."), ("", "gone", "."), ("fleet/0000", "device-1", "fleet")]
    {
        let staging = path.join(directory).join(format!(".{stem}.Ab12Cd.tmp"));
        fs::create_dir(&staging).expect("a directory");
        fs::write(staging.join(".iot-enroll-set"), format!("{title}{stem}_key.pem\n")).expect("written");
        fs::write(staging.join(format!("{stem}_key.pem")), "a key").expect("written");
        cert(path, &["renew", target, "--if-within", "1d"]).ok();
        assert!(!staging.exists(), "{target}");
    }
    // It was killed before it wrote the marker.
    fs::create_dir(path.join(".d1.Ab12Cd.tmp")).expect("a directory");
    fs::write(path.join(".d1.Ab12Cd.tmp/.iot-enroll-set"), "").expect("written");
    cert(path, &["renew", ".", "--if-within", "1d"]).ok();
    assert!(!path.join(".d1.Ab12Cd.tmp").exists());
    // Directories of other programs are left alone.
    fs::create_dir(path.join(".d1.other.tmp")).expect("a directory");
    fs::write(path.join(".d1.other.tmp/file"), "mine").expect("written");
    cert(path, &["renew", ".", "--if-within", "1d"]).ok();
    assert!(path.join(".d1.other.tmp/file").exists());
    assert_eq!(bytes(path), before);
}

#[test]
fn a_reader_never_sees_a_certificate_beside_another_key() {
    let lab = lab("60");
    let path = lab.path();
    let stop = AtomicBool::new(false);
    let pairs = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut pairs = 0_u32;
            let read = |name: &str| fs::read(path.join(name)).ok();
            while !stop.load(Ordering::Relaxed) {
                // The key was the same before and after the certificate was read.
                let (before, certificate, after) = (read("d1_key.pem"), read("d1_cert.pem"), read("d1_key.pem"));
                if let (Some(before), Some(certificate), Some(after)) = (before, certificate, after)
                    && before == after
                {
                    let key = PrivateKey::read(&before, None).expect("a whole key");
                    let certificate = Certificate::read(&certificate).expect("a whole certificate");
                    assert!(key.belongs_to(&certificate));
                    pairs += 1;
                }
            }
            pairs
        });
        for _ in 0..25 {
            cert(path, &["renew", "d1_cert.pem", "--new-key"]).ok();
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("no mixture")
    });
    assert!(pairs > 0);
}

#[test]
fn eight_runs_at_once_leave_whole_sets() {
    let lab = lab("60");
    let path = lab.path();
    cert(path, &["fleet", "I", "--count", "20"]).ok();
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let target = if number % 2 == 0 { "." } else { "d1_cert.pem" };
                cert(path, &["renew", target, "--new-key"]).ok();
            });
        }
    });
    for stem in ["d1", "i", "r"] {
        check_set(path, stem);
    }
    let hidden = fs::read_dir(path)
        .expect("read")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.')));
    assert_eq!(hidden.count(), 0);
    assert_eq!(FileSet::of_file(&path.join("d1.pfx")).expect("a set").certificate(), path.join("d1_cert.pem"));
}

/// Encrypts the key file of a set, and writes its password to a file.
fn encrypt_key(path: &Path, stem: &str) {
    let key = read_key(&path.join(format!("{stem}_key.pem")), None).expect("a key");
    let pem = key.encode_pem(KeyEncoding::new().password("k3y")).expect("encrypted");
    fs::write(path.join(format!("{stem}_key.pem")), pem.as_bytes()).expect("written");
    fs::write(path.join("password"), "k3y\n").expect("written");
}

#[test]
fn a_new_key_is_encrypted_if_the_old_one_was() {
    let lab = lab("60");
    let path = lab.path();
    for stem in ["d1", "i"] {
        encrypt_key(path, stem);
    }
    let before = bytes(path);
    for target in ["d1_cert.pem", "i_cert.pem"] {
        let error = cert(path, &["renew", target, "--new-key", "--yes"]).fails(1);
        assert!(error.contains("_key.pem") && error.contains("--key-password-file"), "{error}");
    }
    fs::write(path.join("wrong"), "wrong\n").expect("written");
    cert(path, &["renew", "i_cert.pem", "--new-key", "--yes", "--key-password-file", "wrong"]).fails(1);
    fs::remove_file(path.join("wrong")).expect("removed");
    assert_eq!(bytes(path), before);
    for stem in ["d1", "i"] {
        let target = format!("{stem}_cert.pem");
        cert(path, &["renew", &target, "--new-key", "--yes", "--key-password-file", "password"]).ok();
        let file = path.join(format!("{stem}_key.pem"));
        let text = fs::read_to_string(&file).expect("read");
        assert!(
            text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----")
                && text.as_bytes() != before[&format!("{stem}_key.pem")]
        );
        assert!(read_key(&file, Some("k3y")).expect("a key").belongs_to(&read(path, &target)));
    }
}

#[test]
fn a_manifest_never_vouches_for_the_certificate_of_another_device() {
    let lab = lab("60");
    let path = lab.path();
    let fleet = path.join("fleet");
    cert(path, &["fleet", "I", "--count", "3"]).ok();
    let manifest = fleet.join("manifest.csv");
    let text = fs::read_to_string(&manifest).expect("read");
    let old = rows(&manifest);
    // The files of two devices are swapped.
    for suffix in ["_cert.pem", "_key.pem", "_fullchain.pem"] {
        let name = |device: &str| fleet.join(format!("0000/{device}{suffix}"));
        for (from, to) in [("device-1", "x"), ("device-2", "device-1"), ("x", "device-2")] {
            fs::rename(name(from), name(to)).expect("moved");
        }
    }
    let run = cert(path, &["renew", "fleet"]);
    assert!(run.stderr.contains(r#"is the certificate of "device-2", not of "device-1""#), "{}", run.stderr);
    run.fails(1);
    let new = rows(&manifest);
    assert_eq!(new[..2], old[..2]);
    assert_ne!(new[2], old[2]);
    assert_eq!(rows(&fleet.join("0000/manifest.csv")), new);
    // A row that leads to the files of another device, and two rows of one device.
    for changed in
        [text.replace("0000/device-1_", "0000/device-3_"), text.clone() + text.lines().last().expect("a row") + "\n"]
    {
        fs::write(&manifest, changed).expect("written");
        cert(path, &["renew", "fleet"]).fails(1);
        let now = rows(&manifest);
        let third = read(&fleet, "0000/device-3_cert.pem");
        assert_eq!(now[2]["serialNumber"], third.serial_number());
        assert_ne!(now[0]["serialNumber"], third.serial_number());
        assert_eq!(rows(&fleet.join("0000/manifest.csv"))[2], now[2]);
    }
}

#[cfg(unix)]
#[test]
fn pipes_named_as_files_of_sets_are_not_read() {
    let lab = lab("60");
    let path = lab.path();
    cert(path, &["fleet", "I", "--count", "1"]).ok();
    cert(path, &["device", "e", "I", "--no-pfx"]).ok();
    for name in ["x_cert.pem", "e_key.pem", "fleet/0000/device-1_cert.pem"] {
        let _ = fs::remove_file(path.join(name));
        let made = Command::new("mkfifo").arg(path.join(name)).status().expect("mkfifo");
        assert!(made.success());
    }
    for target in ["x_cert.pem", "e_cert.pem", "fleet"] {
        let run = cert(path, &["renew", target, "--new-key"]);
        assert!(run.stderr.contains("is not a regular file"), "{}", run.stderr);
        run.fails(1);
    }
    let run = cert(path, &["renew", ".", "-o", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!((&report["renewed"], &report["failed"]), (&3.into(), &2.into()));
    // That of the issuer.
    fs::remove_file(path.join("i_key.pem")).expect("removed");
    assert!(Command::new("mkfifo").arg(path.join("i_key.pem")).status().expect("mkfifo").success());
    assert!(cert(path, &["renew", "d1_cert.pem"]).fails(1).contains("i_key.pem is not a regular file"));
}

#[cfg(unix)]
#[test]
fn keys_are_not_replaced_through_links() {
    let lab = lab("60");
    let path = lab.path();
    fs::create_dir(path.join("real")).expect("a directory");
    for name in ["d1_key.pem", "d1_cert.pem"] {
        fs::rename(path.join(name), path.join("real").join(name)).expect("moved");
        std::os::unix::fs::symlink(format!("real/{name}"), path.join(name)).expect("a link");
    }
    let before = bytes(path);
    for more in [&[][..], &["--dry-run"]] {
        let error = cert(path, &[&["renew", "d1_cert.pem", "--new-key"], more].concat()).fails(1);
        assert!(error.contains("d1_key.pem is a symbolic link"), "{error}");
    }
    assert_eq!(bytes(path), before);
    // The key stays, and so does its link.
    cert(path, &["renew", "d1_cert.pem"]).ok();
    assert!(path.join("d1_key.pem").is_symlink());
    check_set(path, "d1");
    fs::rename(path.join("d1.pfx"), path.join("real/d1.pfx")).expect("moved");
    std::os::unix::fs::symlink("real/d1.pfx", path.join("d1.pfx")).expect("a link");
    assert!(cert(path, &["renew", "d1_cert.pem"]).fails(1).contains("d1.pfx is a symbolic link"));
}

#[test]
fn the_chain_above_the_issuer_is_kept() {
    let lab = lab("60");
    let path = lab.path();
    let issuer = ["--ca-cert", "i_cert.pem", "--ca-key", "i_key.pem"];
    cert(path, &[&["renew", "d1_cert.pem"][..], &issuer].concat()).ok();
    let chain = read_certificates(&path.join("d1_fullchain.pem")).expect("a chain");
    assert_eq!(chain[1..], [read(path, "i_cert.pem"), read(path, "r_cert.pem")]);
    // One that did not sign the issuer is not.
    cert(path, &["root", "R", "--no-pfx", "--dir", "other"]).ok();
    let chain = [fs::read(path.join("d1_cert.pem")), fs::read(path.join("other/r_cert.pem"))];
    fs::write(path.join("d1_fullchain.pem"), chain.map(|file| file.expect("read")).concat()).expect("written");
    cert(path, &[&["renew", "d1_cert.pem"][..], &issuer].concat()).ok();
    assert_eq!(read_certificates(&path.join("d1_fullchain.pem")).expect("a chain").len(), 2);
}

#[cfg(unix)]
#[test]
fn replaced_files_keep_owner_group_and_mode() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let lab = lab("60");
    let path = lab.path();
    let names = ["d1_cert.pem", "d1_fullchain.pem", "d1_key.pem", "d1.pfx"];
    // Only a privileged user can change the owner.
    let _ = names.map(|name| chown(path.join(name), Some(4321), Some(4322)));
    for (name, mode) in names.into_iter().zip([0o640, 0o644, 0o440, 0o600]) {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let rights = || {
        names.map(|name| {
            let found = path.join(name).metadata().expect("a file");
            (found.uid(), found.gid(), found.mode())
        })
    };
    let before = rights();
    cert(path, &["renew", "d1_cert.pem"]).ok();
    assert_eq!(rights(), before);
    cert(path, &["renew", "d1_cert.pem", "--new-key"]).ok();
    assert_eq!(rights(), before);
}

#[test]
fn a_shorter_validity_is_noted() {
    let lab = lab("60");
    let run = cert(lab.path(), &["renew", "r_cert.pem", "--days", "1"]);
    assert!(run.stderr.contains("expires before the old one"), "{}", run.stderr);
    run.ok();
}
