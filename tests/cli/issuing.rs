//! Issuing: which CA signs, which files are written, and what is never issued.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::support::{
    Run, authority_fixture, openssl, program,
    rcgen_pem::{certificate_pem, key_pem},
};
use tempfile::TempDir;

fn directory() -> TempDir {
    crate::support::temporary_directory()
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments).arg("--no-pfx"))
}

fn fleet(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(["cert", "fleet"]).args(arguments))
}

/// Returns the files of a directory and their contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(&path).expect("read"))).collect()
}

fn request_fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requests").join(name)
}

#[test]
fn ca_is_only_found_by_its_common_name() {
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
fn root_of_provision_and_retire_has_the_given_name() {
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
        // Commands that read the group first report the unreachable service.
        let error = run.fails(1);
        assert!(error.contains("\"prod-ca\"") || !more.contains(&"--retire"), "{error}");
    }
    assert_eq!(contents(path).len(), 4, "nothing was written");
}

#[test]
fn names_with_the_same_files_are_not_overwritten() {
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
    // Names that differ only by case are the same file on some file systems.
    for (other, own) in [("pumpa", "pump.a"), ("PUMPA", "pump.a")] {
        let error = cert(path, &["device", other, "r"]).fails(1);
        assert!(error.contains(&format!("{own:?}")) && error.contains(&format!("{other:?}")), "{error}");
        assert_eq!(contents(path), before);
    }
    // A proof only overwrites a proof.
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
fn devices_with_the_same_files_are_refused() {
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
fn force_never_overwrites_the_signing_ca() {
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
        // A CA further up in the chain.
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
    // The key of the CA is in a file that the proof would overwrite.
    fs::create_dir(path.join("keys")).expect("made");
    fs::copy(path.join("r_key.pem"), path.join("keys/verification_key.pem")).expect("copied");
    let arguments = ["verification", "--ca", "r_cert.pem", "--key", "keys/verification_key.pem", "--nonce", "C"];
    let error = cert(path, &[&arguments[..], &["--dir", "keys", "--force"]].concat()).fails(1);
    assert!(error.contains("belongs to the CA that signs"), "{error}");
    assert_eq!(fs::read(path.join("keys/verification_key.pem")).expect("read"), before[&path.join("r_key.pem")]);
    // --force replaces a root by a new root of the same name, which signs itself.
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
            // openssl confirms that the key is the same.
            let ours = openssl(path, &["x509", "-in", &file, "-noout", "-pubkey"]);
            let theirs = openssl(path, &["req", "-in", request, "-noout", "-pubkey"]);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
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
fn ca_with_a_compressed_point_signs() {
    let directory = directory();
    let path = directory.path();
    for file in ["cert", "key"] {
        let from = authority_fixture(&format!("ec-compressed_{file}.pem"));
        fs::copy(from, path.join(format!("compressed_{file}.pem"))).expect("copied");
    }
    cert(path, &["device", "d", "compressed"]).ok();
    let arguments = ["cert", "verify", "d_cert.pem", "--ca", "compressed_cert.pem", "-o", "json"];
    assert_eq!(Run::of(program(path).args(arguments)).json()["path"], serde_json::json!(["d", "compressed"]));
}

#[test]
fn explicit_curve_parameters_are_reported_as_unsupported() {
    let directory = directory();
    let path = directory.path();
    let explicit = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-param_enc", "explicit", "-out", "ca.key"];
    if openssl(path, &explicit).is_none() {
        return;
    }
    let request = ["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=explicit", "-days", "9", "-out", "ca.pem"];
    assert!(openssl(path, &request).expect("openssl").status.success());
    let error = cert(path, &["device", "d", "--ca-cert", "ca.pem", "--ca-key", "ca.key"]).fails(1);
    assert!(
        error.contains(
            "could not sign with ca.pem and ca.key: the public key of the certificate CN=explicit, EC with explicit \
             parameters, is not supported"
        ),
        "{error}"
    );
    assert!(!error.contains("belong"), "{error}");
}

#[test]
fn key_with_the_empty_password_is_opened() {
    let directory = directory();
    let path = directory.path();
    cert(path, &["root", "r"]).ok();
    let encrypt = ["pkcs8", "-topk8", "-in", "r_key.pem", "-passout", "pass:", "-out", "empty.key"];
    let Some(output) = openssl(path, &encrypt) else {
        return;
    };
    assert!(output.status.success());
    fs::write(path.join("wrong.txt"), "wrong\n").expect("written");
    let sign = |id: &str, more: &[&str]| {
        cert(path, &[&["device", id, "--ca-cert", "r_cert.pem", "--ca-key", "empty.key"], more].concat())
    };
    sign("a", &[]).ok();
    let error = sign("c", &["--key-password-file", "wrong.txt"]).fails(1);
    assert!(error.contains("the password does not open the private key"), "{error}");
    // A key with another password still requires it.
    let encrypt = ["pkcs8", "-topk8", "-in", "r_key.pem", "-passout", "pass:secret", "-out", "empty.key"];
    assert!(openssl(path, &encrypt).expect("openssl").status.success());
    let error = sign("d", &[]).fails(1);
    assert!(error.contains("the private key is encrypted: give its password"), "{error}");
}

#[test]
fn device_id_may_end_in_a_hyphen() {
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

/// Writes a CA of rcgen with the file names of the program.
struct Ca {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    chain: String,
}

impl Ca {
    fn new(path: &Path, name: &str, above: Option<&Self>, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = named(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.use_authority_key_identifier_extension = above.is_some();
        change(&mut params);
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        };
        let certificate = certificate_pem(&certificate.expect("a certificate"));
        let chain = certificate.clone() + above.map_or("", |above| &above.chain);
        let file = |suffix: &str| path.join(format!("{name}_{suffix}.pem"));
        fs::write(file("cert"), certificate).expect("written");
        fs::write(file("key"), key_pem(&key)).expect("written");
        fs::write(file("fullchain"), &chain).expect("written");
        Self { issuer: rcgen::Issuer::new(params, key), chain }
    }
}

fn named(attribute: rcgen::DnType, value: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(attribute, value);
    name
}

fn subtree(attribute: rcgen::DnType, value: &str) -> rcgen::GeneralSubtree {
    rcgen::GeneralSubtree::DirectoryName(named(attribute, value))
}

fn critical_extension(params: &mut rcgen::CertificateParams) {
    let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 7], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

fn constraints(
    permitted: Vec<rcgen::GeneralSubtree>,
    excluded: Vec<rcgen::GeneralSubtree>,
) -> impl FnOnce(&mut rcgen::CertificateParams) {
    move |params| {
        params.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
    }
}

/// Returns CAs whose device certificates are invalid: their names, and a word of the reason.
fn unfit_authorities(path: &Path) -> Vec<(&'static str, &'static str)> {
    use rcgen::{DnType, ExtendedKeyUsagePurpose};
    let plain = |_: &mut rcgen::CertificateParams| {};
    Ca::new(path, "names", None, constraints(vec![subtree(DnType::OrganizationName, "Contoso")], Vec::new()));
    let above = Ca::new(path, "above", None, constraints(vec![subtree(DnType::CommonName, "below1")], Vec::new()));
    Ca::new(path, "below1", Some(&above), plain);
    Ca::new(path, "usage", None, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let usage = Ca::new(path, "mails", None, |params| {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::EmailProtection, ExtendedKeyUsagePurpose::ServerAuth];
    });
    Ca::new(path, "below2", Some(&usage), plain);
    Ca::new(path, "critical", None, critical_extension);
    let critical = Ca::new(path, "critical2", None, critical_extension);
    Ca::new(path, "below3", Some(&critical), plain);
    let limited = Ca::new(path, "limited", None, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    });
    let deep = Ca::new(path, "below4", Some(&limited), plain);
    Ca::new(path, "below5", Some(&deep), plain);
    let expired = Ca::new(path, "expired", None, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    Ca::new(path, "below6", Some(&expired), plain);
    for file in ["cert", "key", "fullchain"] {
        fs::copy(authority_fixture(&format!("sha1Int_{file}.pem")), path.join(format!("sha1Int_{file}.pem")))
            .expect("copied");
    }
    vec![
        ("names", "name constraints"),
        ("below1", "name constraints"),
        ("usage", "client authentication"),
        ("below2", "client authentication"),
        ("critical", "1.3.6.1.4.1.99999.7"),
        ("below3", "1.3.6.1.4.1.99999.7"),
        ("below4", "limited"),
        ("below5", "limited"),
        ("below6", "expired"),
        ("sha1-int", "SHA1, which is broken"),
    ]
}

#[test]
fn certificates_that_would_not_verify_are_not_issued() {
    let directory = directory();
    let path = directory.path();
    let unfit = unfit_authorities(path);
    fs::copy(request_fixture("prime256v1.compressed.csr"), path.join("d.csr")).expect("copied");
    let before = contents(path);
    for (ca, reason) in unfit {
        for arguments in [
            &["device", "dev-1", ca, "--no-pfx"][..],
            &["device", "dev-compressed", ca, "--csr", "d.csr"],
            &["intermediate", "int-1", ca, "--no-pfx"],
            &["fleet", ca, "--count", "3"],
            &["fleet", ca, "--count", "3", "--format", "tar"],
        ] {
            // A CA for servers only may have others below it.
            if ["usage", "below2"].contains(&ca) && arguments[0] == "intermediate" {
                continue;
            }
            // The message for an intermediate differs.
            let error = Run::of(program(path).arg("cert").args(arguments)).fails(1);
            assert!(error.contains(reason), "{arguments:?}: {error}");
            for file in ["dev1_cert.pem", "devCompressed_cert.pem", "int1_cert.pem", "fleet/manifest.csv"] {
                let made = fs::read_to_string(path.join(file)).unwrap_or_default();
                assert!(made.lines().count() < 2, "{arguments:?}: {file}");
            }
            for made in ["fleet", "fleet.tar", "fleet.tar.manifest.csv"] {
                let _ = fs::remove_dir_all(path.join(made)).or_else(|_| fs::remove_file(path.join(made)));
            }
            assert_eq!(contents(path), before, "{arguments:?}");
        }
        let run = Run::of(program(path).args(["provision", "--emulator", "--device", "dev-1"]).args([
            "--ca-cert",
            &format!("{}_fullchain.pem", if ca == "sha1-int" { "sha1Int" } else { ca }),
            "--ca-key",
            &format!("{}_key.pem", if ca == "sha1-int" { "sha1Int" } else { ca }),
        ]));
        let error = run.fails(1);
        assert!(error.contains(reason), "{ca}: {error}");
        assert_eq!(contents(path), before, "{ca}");
    }
}

#[test]
fn unverified_weak_signature_is_noted() {
    let directory = directory();
    let path = directory.path();
    for file in ["cert", "key"] {
        fs::copy(authority_fixture(&format!("sha1Int_{file}.pem")), path.join(format!("sha1Int_{file}.pem")))
            .expect("copied");
    }
    let made = cert(path, &["device", "d", "sha1-int"]);
    assert!(made.stderr.contains("CN=sha1-int is signed with ecdsa-with-SHA1, which is broken"), "{}", made.stderr);
    made.ok();
    let made = fleet(path, &["sha1-int", "--count", "1"]);
    assert!(made.stderr.contains("which is broken"), "{}", made.stderr);
    made.ok();
}

#[test]
fn constrained_ca_only_issues_permitted_names() {
    use rcgen::{DnType, ExtendedKeyUsagePurpose};
    let directory = directory();
    let path = directory.path();
    let dns = rcgen::GeneralSubtree::DnsName("example.com".to_owned());
    let root = Ca::new(path, "root", None, |params| {
        constraints(vec![dns], vec![subtree(DnType::CommonName, "device-2")])(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    });
    Ca::new(path, "line", Some(&root), |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    });
    let only = constraints(vec![subtree(DnType::CommonName, "device-3")], Vec::new());
    Ca::new(path, "only", None, only);
    for (id, ca) in [("device-1", "line"), ("device-3", "only"), ("device-4", "root")] {
        cert(path, &["device", id, ca]).ok();
        let anchor = if ca == "line" { "root_cert.pem" } else { &format!("{ca}_cert.pem") };
        let chain = format!("{}_fullchain.pem", id.replace("device-", "device"));
        Run::of(program(path).args(["cert", "verify", &chain, "--ca", anchor])).ok();
        if let Some(output) = openssl(path, &["verify", "-CAfile", anchor, "-untrusted", &chain, &chain]) {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    for (id, ca) in [("device-2", "line"), ("device-2", "root"), ("device-1", "only")] {
        let error = cert(path, &["device", id, ca, "--dir", ".", "--force"]).fails(1);
        assert!(error.contains(&format!("CN={id}")) && error.contains("name constraints"), "{error}");
    }
    let error = fleet(path, &["line", "--count", "3"]).fails(1);
    assert!(error.contains("device-2") && error.contains("name constraints"), "{error}");
    fs::write(path.join("ids"), "device-3\n").expect("written");
    fleet(path, &["only", "--ids", "ids", "--out", "one"]).ok();
    fs::write(path.join("ids"), "device-3\ndevice-5\n").expect("written");
    let error = fleet(path, &["only", "--ids", "ids", "--out", "two"]).fails(1);
    assert!(error.contains("device-5"), "{error}");
}

#[test]
fn path_length_limits_intermediates() {
    let directory = directory();
    let path = directory.path();
    let root = Ca::new(path, "root", None, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(2));
    });
    Ca::new(path, "one", Some(&root), |_| {});
    let shown = |file: &str| Run::of(program(path).args(["cert", "inspect", file, "-o", "json"])).json();
    cert(path, &["intermediate", "two", "one"]).ok();
    assert_eq!(shown("two_cert.pem")["certificates"][0]["pathLength"], 0);
    let error = cert(path, &["intermediate", "three", "two"]).fails(1);
    assert!(error.contains("CN=two allows no further CA below it") || error.contains("CN=root"), "{error}");
    cert(path, &["device", "d", "two"]).ok();
    Run::of(program(path).args(["cert", "verify", "d_fullchain.pem", "--ca", "root_cert.pem"])).ok();
}
