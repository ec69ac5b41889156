//! Names and chains from the field through the program: `fixtures/chains` has one of each kind.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{Run, openssl, program};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/chains").join(name);
    path.into_os_string().into_string().expect("UTF-8")
}

fn cert(folder: &Path, arguments: &[&str]) -> Run {
    Run::of(program(folder).arg("cert").args(arguments))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A folder with a root `r`, an intermediate `i` and a device `d`, and both authorities in one file in either order.
fn bundles() -> TempDir {
    let folder = folder();
    for arguments in [&["root", "r"][..], &["intermediate", "i", "r"], &["device", "d", "i"]] {
        cert(folder.path(), &[arguments, &["--no-pfx"]].concat()).ok();
    }
    let read = |name| fs::read_to_string(folder.path().join(name)).expect("read");
    let (root, intermediate) = (read("r_cert.pem"), read("i_cert.pem"));
    fs::write(folder.path().join("root-first"), format!("{root}{intermediate}")).expect("written");
    fs::write(folder.path().join("root-last"), format!("{intermediate}{root}")).expect("written");
    folder
}

#[test]
fn chains_from_the_field_get_the_right_answer() {
    let folder = folder();
    for (chain, ca, answer) in [
        (
            "pathlen0_collide_chain",
            "pathlen0_collide_ca",
            "Not valid: CN=a, O=b allows 0 authorities below it, and there are 1",
        ),
        (
            "pathlen0_t61_chain",
            "pathlen0_t61_ca",
            "Not valid: CN=Wärzel allows 0 authorities below it, and there are 1",
        ),
        ("name_t61_utf8_chain", "name_t61_utf8_ca", "Valid: dev-01, under Gerät CA."),
        (
            "alg_mismatch_chain",
            "alg_mismatch_ca",
            "Not valid: CN=dev-01 names two signature algorithms: ecdsa-with-SHA256 beside the signature, \
             ecdsa-with-SHA384 in the signed part",
        ),
        ("p256_sha512_chain", "p256_sha512_ca", "Valid: dev-01, under p256_sha512 ca."),
        ("pss_sha256_s20_chain", "pss_sha256_s20_ca", "Valid: dev-01, under pss_sha256_s20 ca."),
        (
            "rsa1024_sha256_chain",
            "rsa1024_sha256_ca",
            "Not valid: the key of CN=rsa1024_sha256 ca, RSA 1024, is too short: at least 2048 bits are needed",
        ),
        ("dup_ext", "dup_ext", "Not valid: CN=dev-01 has a malformed extension, keyUsage: it occurs more than once"),
    ] {
        let [chain, ca] = [chain, ca].map(|name| fixture(&format!("{name}.pem")));
        let run = cert(folder.path(), &["verify", &chain, "--ca", &ca]);
        assert_eq!(run.stdout.trim_end(), answer);
        assert_eq!(run.status, i32::from(answer.starts_with("Not valid")), "{answer}");
    }
    let proof = ["verify", &fixture("proof_bmp.pem"), "--ca", &fixture("root.pem"), "--code", "CODE123"];
    assert_eq!(cert(folder.path(), &proof).ok(), "Valid: it proves possession of the key of Field Root.\n");
}

#[test]
fn requests_from_the_field_are_signed() {
    let folder = folder();
    cert(folder.path(), &["root", "r", "--no-pfx"]).ok();
    for request in ["ec_sha512.csr", "bmp_cn.csr"] {
        cert(folder.path(), &["device", "dev-01", "r", "--csr", &fixture(request), "--no-pfx", "--force"]).ok();
        let said = cert(folder.path(), &["device", "dev-02", "r", "--csr", &fixture(request), "--no-pfx"]).fails(1);
        assert!(said.contains("dev-02"), "{said}");
    }
}

#[test]
fn a_malformed_extension_is_shown_and_the_thumbprint_printed() {
    let folder = folder();
    for (file, warning, thumbprint) in [
        ("dup_ext.pem", "keyUsage is malformed: it occurs more than once", "A4F3D7679529773EF93130C1830CF4CBE637908B"),
        (
            "sct_garbage.pem",
            "signedCertificateTimestampList is malformed: it does not decode",
            "C6F56DB90E68BB477C3FDCCB254D0EC193D36F26",
        ),
    ] {
        let shown = cert(folder.path(), &["inspect", &fixture(file)]).ok();
        assert!(shown.contains(warning) && shown.contains("CN=dev-01") && shown.contains(thumbprint), "{shown}");
        assert_eq!(cert(folder.path(), &["thumbprint", &fixture(file)]).ok().trim_end(), thumbprint);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what was skipped is for people")]
fn a_certificate_without_a_subject_is_called_by_its_serial_number() {
    let bundles = bundles();
    let folder = bundles.path();
    fs::write(folder.join("x.cnf"), "subjectAltName = critical, DNS:a.example\n").expect("written");
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
        let Some(output) = openssl(folder, arguments) else {
            println!("skipped: there is no openssl to make the certificate with");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let verdict = cert(folder, &["verify", "x.pem", "--ca-cert", "r_cert.pem"]).ok();
    assert_eq!(verdict, "Valid: the certificate with the serial number 2A, under r.\n");
}

#[test]
fn each_certificate_of_the_ca_file_is_a_trust_anchor() {
    let folder = bundles();
    for (file, bundle, valid) in [
        ("d_cert.pem", "root-first", "Valid: d, under i.\n"),
        ("d_cert.pem", "root-last", "Valid: d, under i.\n"),
        ("i_cert.pem", "root-first", "Valid: i.\n"),
    ] {
        let said = cert(folder.path(), &["verify", file, "--ca", bundle]).ok();
        let thumbprint = cert(folder.path(), &["thumbprint", "i_cert.pem"]).ok();
        let which = format!("Of the 2 CA certificates, this is the one with thumbprint {}.\n", thumbprint.trim_end());
        assert_eq!(said, format!("{valid}{which}"), "{file} {bundle}");
        let json = cert(folder.path(), &["verify", file, "--ca", bundle, "-o", "json"]).json();
        assert_eq!(json["anchorSha1Thumbprint"], thumbprint.trim_end());
    }
    // Of one there is nothing more to say.
    assert_eq!(
        cert(folder.path(), &["verify", "d_fullchain.pem", "--ca", "r_cert.pem"]).ok(),
        "Valid: d, under i, under r.\n"
    );
    // The proof of either is found.
    for authority in ["r", "i"] {
        let (certificate, key) = (format!("{authority}_cert.pem"), format!("{authority}_key.pem"));
        let making = ["verification", "--ca", &certificate, "--key", &key, "--nonce", "70A1B2", "--no-pfx", "--force"];
        cert(folder.path(), &making).ok();
        for bundle in ["root-first", "root-last"] {
            let checking = ["verify", "verification_cert.pem", "--ca", bundle, "--code", "70A1B2"];
            let said = cert(folder.path(), &checking).ok();
            assert!(said.starts_with(&format!("Valid: it proves possession of the key of {authority}.")), "{said}");
        }
    }
    // What leads to neither names both.
    cert(folder.path(), &["root", "other", "--no-pfx"]).ok();
    let said = cert(folder.path(), &["verify", "other_cert.pem", "--ca", "root-first"]);
    assert_eq!(said.stdout, "Not valid: the chain leads to another root, CN=other, and not to CN=r or CN=i\n");
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
fn broken_hashes_count_above_the_trust_anchor_only() {
    let folder = folder();
    let run = |arguments: &str| {
        let output = openssl(folder.path(), &arguments.split_whitespace().collect::<Vec<_>>())?;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    let key = "-newkey rsa:2048 -nodes";
    if run(&format!("req -x509 {key} -sha1 -days 9 -subj /CN=old -keyout old.key -out old.pem")).is_none() {
        eprintln!("skipped: there is no openssl to make certificates with");
        return;
    }
    run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=dev-01 -keyout d.key -out d.csr");
    for (hash, answer) in [
        ("sha256", "Valid: dev-01, under old."),
        ("sha1", "Not valid: CN=dev-01 is signed with sha1WithRSAEncryption, which is broken"),
        ("md5", "Not valid: CN=dev-01 is signed with md5WithRSAEncryption, which is broken"),
    ] {
        run(&format!("x509 -req -in d.csr -CA old.pem -CAkey old.key -set_serial 7 -days 9 -{hash} -out d.pem"));
        assert_eq!(cert(folder.path(), &["verify", "d.pem", "--ca", "old.pem"]).stdout.trim_end(), answer);
    }
    let shown = cert(folder.path(), &["inspect", &fixture("ecdsa_sha1.pem")]).ok();
    assert!(shown.contains("warning: it is signed with SHA-1, which is broken"), "{shown}");
}
