//! `cert inspect`: contents, warnings, and the stable names of its JSON.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{Run, openssl, program};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/inspect").join(format!("{name}_cert.pem"))
}

fn run(file: &Path, more: &[&str]) -> Run {
    Run::of(program(Path::new(".")).args(["cert", "inspect"]).arg(file).args(more))
}

fn human(name: &str) -> String {
    run(&fixture(name), &[]).ok()
}

/// Returns the only certificate of a file as JSON.
fn json(name: &str) -> Value {
    let report = run(&fixture(name), &["-o", "json"]).json();
    assert_eq!(report["certificates"].as_array().expect("a list").len(), 1, "{name}");
    report["certificates"][0].clone()
}

/// Returns the value of a row.
fn row<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let row = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    row.map(str::trim)
}

#[test]
fn extensions_are_shown_as_text_and_as_json() {
    let text = human("full-ca");
    for (name, value) in [
        ("kind", "certificate authority (CA)"),
        ("path length", "2"),
        ("key usage", "digitalSignature, keyEncipherment, keyCertSign, cRLSign (critical)"),
        ("extended key usage", "clientAuth, serverAuth, 1.3.6.1.4.1.99999.1"),
        (
            "subject alternative names",
            "DNS:gw.example.com, IP:192.0.2.1, IP:2001:db8::1, email:a@example.com, URI:https://example.com/x, \
             RID:1.2.3.4, DirName:O=Contoso, otherName:1.2.3.5",
        ),
        (
            "name constraints",
            "permitted DNS:example.com, IP:192.0.2.0/255.255.255.0, DirName:O=Contoso; excluded \
             email:bad.example.com, URI:.evil.example (critical)",
        ),
        ("other extensions", "certificatePolicies"),
    ] {
        assert_eq!(row(&text, name), Some(value), "{text}");
    }
    let shown = json("full-ca");
    let expected = json!({
        "commonName": "full",
        "authority": true,
        "pathLength": 2,
        "signatureAlgorithm": "ecdsa-with-SHA256",
        "signatureHash": "SHA-256",
        "keyUsage": ["digitalSignature", "keyEncipherment", "keyCertSign", "cRLSign"],
        "extendedKeyUsage": ["clientAuth", "serverAuth", "1.3.6.1.4.1.99999.1"],
        "nameConstraints": {
            "permitted": ["DNS:example.com", "IP:192.0.2.0/255.255.255.0", "DirName:O=Contoso"],
            "excluded": ["email:bad.example.com", "URI:.evil.example"],
        },
        "authorityKeyIdentifier": null,
        "authorityCertificate": null,
        "malformedExtensions": [],
        "warnings": [],
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(shown[name], *value, "{name}");
    }
    assert_eq!(shown["subjectAlternativeNames"].as_array().expect("a list").len(), 8);
    let extensions = shown["extensions"].as_array().expect("a list");
    assert!(
        extensions.contains(&json!({ "oid": "2.5.29.30", "name": "nameConstraints", "critical": true })),
        "{shown}"
    );

    let leaf = json("full-leaf");
    assert_eq!(leaf["keyUsage"], json!(["digitalSignature", "keyAgreement", "decipherOnly"]));
    assert_eq!(leaf["authorityKeyIdentifier"], shown["subjectKeyIdentifier"]);
    assert_eq!(leaf["authorityCertificate"]["issuer"], json!(["DirName:CN=full"]));
    assert_eq!(leaf["authorityCertificate"]["serialNumber"], shown["serialNumber"]);
    for absent in ["extendedKeyUsage", "nameConstraints", "pathLength"] {
        assert_eq!(leaf[absent], Value::Null, "{absent}");
    }
    // Every member is always present.
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&leaf), keys(&shown));
    let help = Run::of(program(Path::new(".")).args(["cert", "inspect", "--help"])).ok();
    for key in keys(&leaf) {
        assert!(help.contains(&key), "{key} is documented");
    }
}

#[test]
fn key_identifiers_match_openssl() {
    for name in ["full-ca", "full-leaf", "secp256k1"] {
        let shown = json(name);
        let arguments = ["x509", "-in", fixture(name).to_str().expect("UTF-8"), "-noout", "-ext"].map(str::to_owned);
        for (extension, key) in
            [("subjectKeyIdentifier", "subjectKeyIdentifier"), ("authorityKeyIdentifier", "authorityKeyIdentifier")]
        {
            let Some(expected) = shown[key].as_str() else { continue };
            let arguments: Vec<_> = arguments.iter().map(String::as_str).chain([extension]).collect();
            let Some(output) = openssl(Path::new("."), &arguments) else {
                crate::skipped(format_args!("there is no openssl to compare {key} with"));
                continue;
            };
            let text = String::from_utf8(output.stdout).expect("UTF-8").replace(':', "");
            assert!(text.contains(expected), "{text}");
        }
    }
}

#[test]
fn curves_have_their_usual_names() {
    for (name, key) in [
        ("brainpool", "EC brainpoolP256r1"),
        ("brainpool-t1", "EC brainpoolP384t1"),
        ("secp256k1", "EC secp256k1"),
        ("explicit", "EC with explicit parameters"),
        ("pss-key", "RSASSA-PSS 2048"),
    ] {
        assert_eq!(json(name)["publicKey"], key);
        assert!(human(name).contains(&format!("warning: its key is {key};")), "{name}");
    }
}

#[test]
fn weak_hash_is_named_in_every_encoding() {
    for (name, hash) in [
        ("ecdsa-sha1", "SHA-1"),
        ("rsa-sha1", "SHA-1"),
        ("oiw-sha1", "SHA-1"),
        ("pss-sha1", "SHA-1"),
        ("rsa-md5", "MD5"),
    ] {
        let text = human(name);
        assert!(text.contains(&format!("signed with {hash}, which is broken")), "{text}");
        assert_eq!(json(name)["signatureHash"], hash, "{name}");
    }
    // The parameters of RSA-PSS are shown, and a weak hash for the mask only is no warning.
    for (name, algorithm) in [
        ("pss-sha384", "RSASSA-PSS (SHA-384, MGF1 with SHA-384, salt of 48 bytes)"),
        ("pss-mgf1-sha1", "RSASSA-PSS (SHA-256, MGF1 with SHA-1, salt of 222 bytes)"),
    ] {
        let text = human(name);
        assert_eq!(row(&text, "signature algorithm"), Some(algorithm));
        assert!(!text.contains("broken"), "{text}");
    }
}

#[test]
fn malformed_extension_is_named() {
    for (name, extension, reason) in [
        ("malformed-scts", "signedCertificateTimestampList", "it does not decode"),
        ("malformed-eku", "extendedKeyUsage", "it does not decode"),
        ("doubled-key-usage", "keyUsage", "it occurs more than once"),
    ] {
        let text = human(name);
        assert!(text.contains(&format!("warning: its extension {extension} is malformed: {reason}")), "{text}");
        assert!(!text.contains("excludes"), "{text}");
        let shown = json(name);
        assert_eq!(shown["malformedExtensions"][0]["name"], extension);
        assert_eq!(shown["malformedExtensions"][0]["reason"], reason);
        assert!(shown["subjectKeyIdentifier"].is_string(), "{name}");
        let thumbprint = Run::of(program(Path::new(".")).args(["cert", "thumbprint"]).arg(fixture(name))).ok();
        assert_eq!(thumbprint.trim(), shown["sha1Thumbprint"]);
    }
    let shown = json("unknown-critical");
    assert!(shown["warnings"][0].as_str().expect("text").contains("1.3.6.1.4.1.99999.7"));
}

#[test]
fn certificate_request_is_recognized() {
    let directory = crate::support::temporary_directory();
    let request = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requests/secp384r1.compressed.csr");
    let pem = fs::read_to_string(&request).expect("read");
    let der = directory.path().join("request.der");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    fs::write(&der, base64::Engine::decode(&base64::prelude::BASE64_STANDARD, base64).expect("base64"))
        .expect("written");
    for file in [&request, &der] {
        let error = run(file, &[]).fails(1);
        assert!(error.contains("holds a certificate request") && error.contains("CN=dev-compressed"), "{error}");
        assert!(error.contains("EC P-384"), "{error}");
    }
}

#[test]
fn name_with_a_comma_is_quoted() {
    let directory = crate::support::temporary_directory();
    let path = directory.path();
    let config = "[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=ext\n[dn]\nCN=d\n[ext]\n\
                  subjectAltName=@names\n[names]\nDNS.1=a.example, DNS:b.example\nURI.1=x:\u{1b}[31m\n";
    fs::write(path.join("config"), config).expect("written");
    let arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k"];
    let arguments = [&arguments[..], &["-config", "config", "-out", "c.pem"]].concat();
    if openssl(path, &arguments).is_none_or(|output| !output.status.success()) {
        crate::skipped("openssl made no certificate");
        return;
    }
    let text = run(&path.join("c.pem"), &["--color", "always"]).ok();
    assert!(text.contains("\"DNS:a.example, DNS:b.example\""), "{text}");
    assert!(!text.contains("\u{1b}[31m"), "{text}");
}
