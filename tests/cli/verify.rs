//! `cert verify` with names and chains from the field, of which `fixtures/chains` has one of each kind.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{Run, openssl, program};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chains").join(name);
    path.into_os_string().into_string().expect("UTF-8")
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn directory() -> TempDir {
    crate::support::temporary_directory()
}

/// Creates a directory with a root `r`, an intermediate `i`, a device `d`, and both CAs in one file in either order.
fn bundles() -> TempDir {
    let directory = directory();
    for arguments in [&["root", "r"][..], &["intermediate", "i", "r"], &["device", "d", "i"]] {
        cert(directory.path(), &[arguments, &["--no-pfx"]].concat()).ok();
    }
    let read = |name| fs::read_to_string(directory.path().join(name)).expect("read");
    let (root, intermediate) = (read("r_cert.pem"), read("i_cert.pem"));
    fs::write(directory.path().join("root-first"), format!("{root}{intermediate}")).expect("written");
    fs::write(directory.path().join("root-last"), format!("{intermediate}{root}")).expect("written");
    directory
}

#[test]
fn chains_from_the_field_are_judged_correctly() {
    let directory = directory();
    let valid = |names: &[&str]| Ok(serde_json::json!(names));
    let refused = |words: &[&'static str]| Err(words.to_vec());
    for (chain, ca, answer) in [
        ("pathlen0_collide_chain", "pathlen0_collide_ca", refused(&["CN=a, O=b", "allows 0"])),
        ("pathlen0_t61_chain", "pathlen0_t61_ca", refused(&["CN=Wärzel", "allows 0"])),
        ("name_t61_utf8_chain", "name_t61_utf8_ca", valid(&["dev-01", "Gerät CA"])),
        ("alg_mismatch_chain", "alg_mismatch_ca", refused(&["CN=dev-01", "ecdsa-with-SHA256", "ecdsa-with-SHA384"])),
        ("p256_sha512_chain", "p256_sha512_ca", valid(&["dev-01", "p256_sha512 ca"])),
        ("pss_sha256_s20_chain", "pss_sha256_s20_ca", valid(&["dev-01", "pss_sha256_s20 ca"])),
        ("rsa1024_sha256_chain", "rsa1024_sha256_ca", refused(&["CN=rsa1024_sha256 ca", "RSA 1024", "2048"])),
        ("dup_ext", "dup_ext", refused(&["CN=dev-01", "keyUsage", "more than once"])),
    ] {
        let [chain, ca] = [chain, ca].map(|name| fixture(&format!("{name}.pem")));
        let run = cert(directory.path(), &["verify", &chain, "--ca", &ca, "-o", "json"]);
        let verdict: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(run.status, i32::from(answer.is_err()), "{verdict}");
        assert_eq!(verdict["valid"], answer.is_ok());
        match answer {
            Ok(path) => assert_eq!(verdict["path"], path),
            Err(words) => {
                let reason = verdict["reason"].as_str().expect("a reason");
                assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
            }
        }
    }
    let proof = ["verify", &fixture("proof_bmp.pem"), "--ca", &fixture("root.pem"), "--code", "CODE123"];
    let answer = cert(directory.path(), &proof).ok();
    assert!(
        answer.starts_with("Valid: ") && answer.contains("possession") && answer.contains("Field Root"),
        "{answer}"
    );
}

#[test]
fn requests_from_the_field_are_signed() {
    let directory = directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    for request in ["ec_sha512.csr", "bmp_cn.csr"] {
        cert(directory.path(), &["device", "dev-01", "r", "--csr", &fixture(request), "--no-pfx", "--force"]).ok();
        let said = cert(directory.path(), &["device", "dev-02", "r", "--csr", &fixture(request), "--no-pfx"]).fails(1);
        assert!(said.contains("dev-02"), "{said}");
    }
}

#[test]
fn malformed_extension_does_not_prevent_the_thumbprint() {
    let directory = directory();
    for (file, warning, thumbprint) in [
        ("dup_ext.pem", "keyUsage is malformed: it occurs more than once", "A4F3D7679529773EF93130C1830CF4CBE637908B"),
        (
            "sct_garbage.pem",
            "signedCertificateTimestampList is malformed: it does not decode",
            "C6F56DB90E68BB477C3FDCCB254D0EC193D36F26",
        ),
    ] {
        let shown = cert(directory.path(), &["inspect", &fixture(file)]).ok();
        assert!(shown.contains(warning) && shown.contains("CN=dev-01") && shown.contains(thumbprint), "{shown}");
        assert_eq!(cert(directory.path(), &["thumbprint", &fixture(file)]).ok().trim_end(), thumbprint);
    }
}

#[test]
fn certificate_without_a_subject_is_named_by_serial_number() {
    let bundles = bundles();
    let directory = bundles.path();
    fs::write(directory.join("x.cnf"), "subjectAltName = critical, DNS:a.example\n").expect("written");
    for arguments in [
        &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "x.key", "-subj", "/", "-out", "x.csr"][..],
        &[
            "x509",
            "-req",
            "-in",
            "x.csr",
            "-CA",
            "r_cert.pem",
            "-CAkey",
            "r_key.pem",
            "-set_serial",
            "0x2a",
            "-days",
            "9",
            "-extfile",
            "x.cnf",
            "-out",
            "x.pem",
        ],
    ] {
        let Some(output) = openssl(directory, arguments) else {
            crate::skipped("there is no openssl to make the certificate with");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let verdict = cert(directory, &["verify", "x.pem", "--ca-cert", "r_cert.pem"]).ok();
    assert!(verdict.starts_with("Valid: ") && verdict.contains("serial number 2A"), "{verdict}");
}

#[test]
fn every_certificate_of_the_ca_file_is_a_trust_anchor() {
    let directory = bundles();
    for (file, bundle, path) in [
        ("d_cert.pem", "root-first", &["d", "i"][..]),
        ("d_cert.pem", "root-last", &["d", "i"]),
        ("i_cert.pem", "root-first", &["i"]),
    ] {
        let said = cert(directory.path(), &["verify", file, "--ca", bundle]).ok();
        let thumbprint = cert(directory.path(), &["thumbprint", "i_cert.pem"]).ok();
        assert!(said.contains(thumbprint.trim_end()), "{said}");
        let json = cert(directory.path(), &["verify", file, "--ca", bundle, "-o", "json"]).json();
        assert_eq!(json["path"], serde_json::json!(path), "{file} {bundle}");
        assert_eq!(json["anchorSha1Thumbprint"], thumbprint.trim_end());
    }
    // With one CA, its thumbprint is not printed.
    let said = cert(directory.path(), &["verify", "d_fullchain.pem", "--ca", "r_cert.pem"]).ok();
    assert_eq!(said.lines().count(), 1, "{said}");
    let json = cert(directory.path(), &["verify", "d_fullchain.pem", "--ca", "r_cert.pem", "-o", "json"]).json();
    assert_eq!(json["path"], serde_json::json!(["d", "i", "r"]));
    // A proof of either CA is valid.
    for authority in ["r", "i"] {
        let (certificate, key) = (format!("{authority}_cert.pem"), format!("{authority}_key.pem"));
        let making = ["verification", "--ca", &certificate, "--key", &key, "--nonce", "70A1B2", "--no-pfx", "--force"];
        cert(directory.path(), &making).ok();
        for bundle in ["root-first", "root-last"] {
            let checking = ["verify", "verification_cert.pem", "--ca", bundle, "--code", "70A1B2"];
            let said = cert(directory.path(), &checking).ok();
            assert!(said.starts_with("Valid: ") && said.contains(&format!(" {authority}.")), "{said}");
        }
    }
    // An untrusted chain names both CAs.
    cert(directory.path(), &["root", "other", "--no-pfx"]).ok();
    let said = cert(directory.path(), &["verify", "other_cert.pem", "--ca", "root-first"]);
    assert!(said.stdout.starts_with("Not valid: "), "{}", said.stdout);
    assert!(["CN=other", "CN=r", "CN=i"].iter().all(|name| said.stdout.contains(name)), "{}", said.stdout);
}

#[test]
fn weak_hashes_are_refused_below_the_trust_anchor() {
    let directory = directory();
    let run = |arguments: &str| {
        let output = openssl(directory.path(), &arguments.split_whitespace().collect::<Vec<_>>())?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    let key = "-newkey rsa:2048 -nodes";
    if run(&format!("req -x509 {key} -sha1 -days 9 -subj /CN=old -keyout old.key -out old.pem")).is_none() {
        crate::skipped("there is no openssl to make certificates with");
        return;
    }
    run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=dev-01 -keyout d.key -out d.csr");
    for (hash, answer) in [
        ("sha256", &["Valid: dev-01"][..]),
        ("sha1", &["Not valid: ", "CN=dev-01", "sha1WithRSAEncryption", "broken"]),
        ("md5", &["Not valid: ", "CN=dev-01", "md5WithRSAEncryption", "broken"]),
    ] {
        run(&format!("x509 -req -in d.csr -CA old.pem -CAkey old.key -set_serial 7 -days 9 -{hash} -out d.pem"));
        let said = cert(directory.path(), &["verify", "d.pem", "--ca", "old.pem"]).stdout;
        assert!(answer.iter().all(|part| said.contains(part)), "{said}");
    }
    let shown = cert(directory.path(), &["inspect", &fixture("ecdsa_sha1.pem")]).ok();
    assert!(shown.contains("warning: it is signed with SHA-1, which is broken"), "{shown}");
}
