//! `cert intermediate --csr`: a CA certificate as Azure Device Registry takes it.

use std::{fs, path::Path};

use crate::support::{Run, openssl, program, temporary_directory};
use iot_enroll::certificate::{Certificate, CertificateRequest};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

/// Creates a request with the `openssl` program. `None` without one.
fn request(directory: &Path, file: &str, key: &[&str], subject: &str) -> Option<()> {
    let arguments = ["req", "-new", "-nodes", "-keyout", "request.key", "-out", file, "-subj", subject];
    let run = openssl(directory, &[&arguments[..], key].concat())?;
    assert!(run.status.success(), "{run:?}");
    Some(())
}

fn ec(curve: &str) -> [String; 4] {
    ["-newkey".to_owned(), "ec".to_owned(), "-pkeyopt".to_owned(), format!("ec_paramgen_curve:{curve}")]
}

fn ec_request(directory: &Path, file: &str, curve: &str, subject: &str) -> Option<()> {
    let key = ec(curve);
    request(directory, file, &key.each_ref().map(String::as_str), subject)
}

#[test]
fn certificate_of_a_request_follows_the_rules_of_device_registry() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "Root", "--algorithm", "ec-p384", "--no-pfx"]).ok();
    cert(path, &["intermediate", "Upper", "Root", "--no-pfx"]).ok();
    // A repeated type of attribute is encoded as it is in the request.
    let subject = "/C=US/O=Contoso/OU=One/OU=Two/CN=contoso-ica";
    for (curve, parent, length) in [("P-384", "Root", 2), ("P-256", "Upper", 3), ("P-521", "Root", 2)] {
        if ec_request(path, "ica.csr", curve, subject).is_none() {
            return;
        }
        let arguments = ["intermediate", "contoso-ica", parent, "--csr", "ica.csr", "--force", "-o", "json"];
        let record = cert(path, &arguments).json();
        assert!(record["privateKey"].is_null() && record["pfx"].is_null(), "{record}");
        assert_eq!(record["passedOver"], serde_json::json!([]));
        let chain = fs::read(path.join("contosoIca_fullchain.pem")).expect("read");
        let chain = Certificate::read_all(&chain).expect("certificates");
        assert_eq!(chain.len(), length);
        assert!(chain.windows(2).all(|pair| pair[0].names_issuer(&pair[1])), "leaf to root");
        let request = CertificateRequest::read(&fs::read(path.join("ica.csr")).expect("read")).expect("a request");
        let issued = &chain[0];
        assert_eq!(issued.subject().der(), request.subject().der());
        assert_eq!(issued.public_key(), request.public_key());
        let constraints = issued.basic_constraints().expect("constraints");
        assert!(constraints.authority && constraints.path_length == Some(0));
        let usage: Vec<_> = issued.key_usage().expect("a key usage").names().collect();
        assert_eq!(usage, ["digitalSignature", "keyCertSign", "cRLSign"]);
        assert!(issued.subject_key_identifier().is_some());
        assert!(issued.extensions().iter().filter(|extension| extension.critical).count() == 2);
        let verify = ["verify", "-x509_strict", "-CAfile", "root_cert.pem", "-untrusted", "contosoIca_fullchain.pem"];
        let run = openssl(path, &[&verify[..], &["contosoIca_cert.pem"]].concat()).expect("openssl");
        assert!(run.status.success(), "{run:?}");
        assert!(!path.join("contosoIca_key.pem").exists());
    }
}

#[test]
fn request_that_the_service_or_a_client_would_refuse_is_not_signed() {
    let directory = temporary_directory();
    let path = directory.path();
    for root in [&["Root"][..], &["Short", "--days", "300"], &["Rsa", "--algorithm", "rsa-2048"]] {
        cert(path, &[&["root", "--no-pfx"], root].concat()).ok();
    }
    if ec_request(path, "ica.csr", "P-384", "/CN=ica").is_none() {
        return;
    }
    ec_request(path, "root.csr", "P-256", "/CN=Root").expect("a request");
    ec_request(path, "empty.csr", "P-256", "/").expect("a request");
    ec_request(path, "other.csr", "brainpoolP256r1", "/CN=ica").expect("a request");
    request(path, "rsa.csr", &["-newkey", "rsa:2048"], "/CN=ica").expect("a request");
    let own = openssl(path, &["req", "-new", "-key", "root_key.pem", "-subj", "/CN=ica", "-out", "own.csr"]);
    assert!(own.is_some_and(|run| run.status.success()));
    let mut changed =
        CertificateRequest::read(&fs::read(path.join("ica.csr")).expect("read")).expect("a request").der().to_vec();
    *changed.last_mut().expect("an octet") ^= 1;
    fs::write(path.join("changed.csr"), changed).expect("written");
    cert(path, &["intermediate", "ica", "Root", "--csr", "ica.csr", "--dir", ".", "--days", "365"]).ok();
    for (arguments, expected) in [
        (&["ica", "Root", "--csr", "changed.csr"][..], "not signed by the key"),
        (&["ica", "Root", "--csr", "rsa.csr"], "Azure Device Registry accepts only EC keys"),
        (&["ica", "Root", "--csr", "other.csr"], "the services accept"),
        (&["ica", "Root", "--csr", "own.csr"], "the key of CN=Root"),
        (&["ica", "Root", "--csr", "empty.csr"], "no subject"),
        (&["other", "Root", "--csr", "ica.csr"], "common name \"ica\""),
        (&["ica", "Rsa", "--csr", "ica.csr"], "the key of CN=Rsa is RSA 2048"),
        (&["ica", "Short", "--csr", "ica.csr"], "365 days"),
        (&["ica", "Root", "--csr", "ica.csr", "--days", "364"], "365 days"),
        (&["ica", "Root", "--csr", "missing.csr"], "missing.csr"),
        (&["ica", "Root", "--csr", "root_cert.pem"], "no certificate request"),
    ] {
        let before = fs::read(path.join("ica_cert.pem")).expect("read");
        let error = cert(path, &[&["intermediate", "--force"], arguments].concat()).fails(1);
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(fs::read(path.join("ica_cert.pem")).expect("read"), before);
    }
    let ca = ["--ca-cert", "root_cert.pem", "--ca-key", "root_key.pem", "--dir", "sub"];
    let error = cert(path, &[&["intermediate", "Root", "--csr", "root.csr"], &ca[..]].concat()).fails(1);
    assert!(error.contains("subject of the CA"), "{error}");
    cert(path, &["intermediate", "ica", "Root", "--csr", "ica.csr", "--algorithm", "ec-p384"]).fails(2);
}

#[test]
fn ca_whose_path_length_is_used_up_signs_no_request() {
    let directory = temporary_directory();
    let path = directory.path();
    // The parent is itself a CA by request, so its path length is 0.
    cert(path, &["root", "Root", "--no-pfx"]).ok();
    if ec_request(path, "ica.csr", "P-256", "/CN=ica").is_none() {
        return;
    }
    fs::copy(path.join("request.key"), path.join("ica_key.pem")).expect("copied");
    ec_request(path, "lower.csr", "P-256", "/CN=lower").expect("a request");
    cert(path, &["intermediate", "ica", "Root", "--csr", "ica.csr", "--dir", "out"]).fails(1);
    let ca = ["--ca-cert", "root_cert.pem", "--ca-key", "root_key.pem", "--dir", "out"];
    cert(path, &[&["intermediate", "ica", "--csr", "ica.csr"], &ca[..]].concat()).ok();
    let ica = ["--ca-cert", "out/ica_fullchain.pem", "--ca-key", "ica_key.pem"];
    let error = cert(path, &[&["intermediate", "lower", "--csr", "lower.csr"], &ica[..]].concat()).fails(1);
    assert!(error.contains("path length"), "{error}");
    cert(path, &[&["device", "d", "--no-pfx"], &ica[..]].concat()).ok();
    let verify = ["verify", "-x509_strict", "-CAfile", "root_cert.pem", "-untrusted", "d_fullchain.pem", "d_cert.pem"];
    assert!(openssl(path, &verify).is_some_and(|run| run.status.success()));
}
