//! Signing certificates and the proof of possession.

use std::time::Duration;

use crate::support::{
    app::{App, Authority, symmetric_group, x509_group},
    rcgen_pem::key_pem,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{Clock, Emulator};
use rcgen::{IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::datetime};

const PRIMARY: &str = "/enrollmentGroups/g/certificates/primary";
const SECONDARY: &str = "/enrollmentGroups/g/certificates/secondary";

async fn app_with_group() -> App {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    app
}

#[tokio::test]
async fn a_certificate_is_base64_of_pem_or_der_or_bare_pem() {
    let app = app_with_group().await;
    let root = Authority::new("Root");
    let spellings =
        [root.base64(), BASE64_STANDARD.encode(&root.der), root.pem.clone(), root.pem.replace('\n', "\r\n")];
    let mut thumbprints = Vec::new();
    for certificate in spellings {
        let answer = app.put(PRIMARY, &json!({ "certificate": certificate })).await.expect(200);
        assert_eq!(answer.body["verified"], false, "unverified unless the body says otherwise");
        thumbprints.push(answer.text("/info/sha1Thumbprint"));
    }
    thumbprints.dedup();
    assert_eq!(thumbprints.len(), 1);
}

#[tokio::test]
async fn verified_true_skips_the_proof() {
    let app = app_with_group().await;
    let body = json!({ "certificate": Authority::new("Root").base64(), "verified": true });
    assert_eq!(app.put(PRIMARY, &body).await.expect(200).body["verified"], true);
    assert_eq!(app.get(PRIMARY).await.expect(200).body["verified"], true);
}

#[tokio::test]
async fn rsa_2048_and_nist_curves_are_accepted() {
    let app = app_with_group().await;
    for key in [
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key"),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key"),
    ] {
        let root = Authority::of("Root", key, |_| {});
        app.put(PRIMARY, &json!({ "certificate": root.base64() })).await.expect(200);
        let code = app.code(PRIMARY).await;
        app.verify(PRIMARY, &root.proof(&code)).await.expect(204);
    }
}

#[tokio::test]
async fn an_invalid_signing_certificate_is_refused_with_the_reason() {
    let app = app_with_group().await;
    let root = Authority::new("Root");
    let ed25519 = Authority::of("Root", KeyPair::generate_for(&PKCS_ED25519).expect("a key"), |_| {});
    let may_not_sign = Authority::of("Root", KeyPair::generate().expect("a key"), |parameters| {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let expired = Authority::of("Root", KeyPair::generate().expect("a key"), |parameters| {
        parameters.not_after = datetime!(2001-01-01 0:00 UTC);
    });
    let later = Authority::of("Root", KeyPair::generate().expect("a key"), |parameters| {
        parameters.not_before = datetime!(3001-01-01 0:00 UTC);
    });
    let leaf = Authority::of("Root", KeyPair::generate().expect("a key"), |parameters| parameters.is_ca = IsCa::NoCa);
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    for (certificate, reason) in [
        (String::new(), "empty"),
        ("no certificate".to_owned(), "neither PEM"),
        (encode("no certificate"), "cannot read a certificate"),
        (encode(&key_pem(&KeyPair::generate().expect("a key"))), "private key"),
        (encode(&format!("{}{}", root.pem, expired.pem)), "expected one certificate, found 2"),
        (encode(include_str!("../../fixtures/root-rsa1024.pem")), "RSA 1024"),
        (ed25519.base64(), "Ed25519"),
        (may_not_sign.base64(), "keyCertSign"),
        (expired.base64(), "expired"),
        (later.base64(), "not valid before"),
        (leaf.base64(), "CA:TRUE"),
    ] {
        let answer = app.put(PRIMARY, &json!({ "certificate": certificate })).await;
        answer.refused(422, reason).refused(422, "certificate: ");
    }
    app.get(PRIMARY).await.refused(404, "primary");
}

#[tokio::test]
async fn every_field_of_a_certificate_is_checked_and_named() {
    let app = app_with_group().await;
    let root = Authority::new("Root").base64();
    for (body, field) in [
        (json!({}), "certificate: is missing"),
        (json!({ "verified": true }), "certificate: is missing"),
        (json!({ "certificate": 5 }), "certificate: expected a string, found a number"),
        (json!({ "certificate": root, "verified": "yes" }), "verified: expected true or false, found a string"),
        (json!({ "certificate": root, "verified": null }), "verified: expected true or false, found null"),
        (json!({ "certificate": root, "etag": 1 }), "etag: expected a string"),
        (json!({ "certificate": root, "info": {} }), "info.sha1Thumbprint: is missing"),
        (json!({ "certificate": root, "info": { "sha1Thumbprint": "00" } }), "info.sha1Thumbprint: expected 40"),
        (
            json!({ "certificate": root, "info": { "sha1Thumbprint": "0".repeat(40) } }),
            "info.sha1Thumbprint: it is not the thumbprint",
        ),
        (json!({ "certificate": root, "isVerified": true }), "isVerified: is an unknown field"),
    ] {
        app.put(PRIMARY, &body).await.refused(422, field);
    }
}

#[tokio::test]
async fn the_same_certificate_in_both_entries_is_refused() {
    let app = app_with_group().await;
    let body = json!({ "certificate": Authority::new("Root").base64() });
    app.put(PRIMARY, &body).await.expect(200);
    app.put(SECONDARY, &body).await.refused(422, "other entry");
    app.put(SECONDARY, &json!({ "certificate": Authority::new("Root").base64() })).await.expect(200);
    let group = app.get("/enrollmentGroups/g").await.expect(200);
    let certificates =
        group.body["attestation"]["x509"]["signingCertificates"].as_object().expect("certificates").clone();
    assert_eq!(certificates.keys().collect::<Vec<_>>(), ["primary", "secondary"]);
}

#[tokio::test]
async fn a_group_with_symmetric_keys_has_no_certificates() {
    let app = App::start().await;
    app.put("/enrollmentGroups/g", &symmetric_group()).await.expect(200);
    let body = json!({ "certificate": Authority::new("Root").base64() });
    app.put(PRIMARY, &body).await.refused(422, "symmetric keys");
    app.get(PRIMARY).await.expect(404);
    app.delete(PRIMARY).await.expect(404);
    app.post(&format!("{PRIMARY}/generateVerificationCode"), None).await.expect(404);
}

#[tokio::test]
async fn operations_on_missing_certificates_are_404() {
    let app = App::start().await;
    let body = json!({ "certificate": Authority::new("Root").base64() });
    for _ in ["without the group", "without the certificate"] {
        app.get(PRIMARY).await.expect(404);
        app.delete(PRIMARY).await.expect(404);
        app.post(&format!("{PRIMARY}/generateVerificationCode"), None).await.expect(404);
        app.post(&format!("{PRIMARY}/verify"), Some(&body)).await.expect(404);
        app.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
    }
    app.put("/enrollmentGroups/other/certificates/primary", &body).await.refused(404, "other");
    app.get("/enrollmentGroups/g/certificates/tertiary").await.refused(400, "primary or secondary");
}

#[tokio::test]
async fn a_proof_uses_up_its_code_and_changes_the_etag() {
    let app = App::start().await;
    let root = Authority::new("Root");
    let path = app.enrolled(&root).await;
    let before = app.get(&path).await.expect(200).text("/etag");
    let code = app.code(&path).await;
    assert!((40..=64).contains(&code.len()), "{code}");
    assert!(code.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase()), "{code}");
    assert_eq!(app.get(&path).await.expect(200).text("/etag"), before, "a code changes nothing that is shown");
    let proof = root.proof(&code);
    app.verify(&path, &proof).await.expect(204);
    assert_ne!(app.get(&path).await.expect(200).text("/etag"), before);
    app.verify(&path, &proof).await.refused(422, "no current verification code");
    let code = app.code(&path).await;
    app.verify(&path, &root.proof(&code)).await.expect(204);
    assert_eq!(app.get(&path).await.expect(200).body["verified"], true);
}

#[tokio::test]
async fn a_new_code_invalidates_the_previous_one() {
    let app = App::start().await;
    let root = Authority::new("Root");
    let path = app.enrolled(&root).await;
    let (old, new) = (app.code(&path).await, app.code(&path).await);
    assert_ne!(old, new);
    app.verify(&path, &root.proof(&old)).await.refused(422, &old);
    assert_eq!(app.get(&path).await.expect(200).body["verified"], false);
    app.verify(&path, &root.proof(&new)).await.expect(204);
}

#[tokio::test]
async fn an_invalid_proof_is_refused_and_keeps_the_code_valid() {
    let app = App::start().await;
    let root = Authority::new("Root");
    let path = app.enrolled(&root).await;
    app.verify(&path, &root.proof("A")).await.refused(422, "generateVerificationCode");
    let code = app.code(&path).await;
    let expired = root.issue(&code, |parameters| parameters.not_after = datetime!(2001-01-01 0:00 UTC));
    for (proof, reason) in [
        (Authority::new("Root").proof(&code), "was not signed by the key"),
        (root.proof(&code.to_lowercase()), "the current code is"),
        (expired, "expired"),
        ("nothing".to_owned(), "cannot read a certificate"),
        (format!("{}{}", root.proof(&code), root.pem), "expected one certificate"),
    ] {
        app.verify(&path, &proof).await.refused(422, reason);
    }
    app.post(&format!("{path}/verify"), Some(&json!({}))).await.refused(422, "certificate: is missing");
    assert_eq!(app.get(&path).await.expect(200).body["verified"], false);
    app.verify(&path, &root.proof(&code)).await.expect(204);
}

#[tokio::test]
async fn setting_a_certificate_again_resets_its_verification() {
    let app = App::start().await;
    let root = Authority::new("Root");
    let path = app.enrolled(&root).await;
    let code = app.code(&path).await;
    app.verify(&path, &root.proof(&code)).await.expect(204);
    let code = app.code(&path).await;
    let again = app.put(&path, &json!({ "certificate": root.base64() })).await.expect(200);
    assert_eq!(again.body["verified"], false);
    app.verify(&path, &root.proof(&code)).await.refused(422, "no current verification code");
}

#[tokio::test]
async fn the_etag_of_a_certificate_guards_it() {
    let app = app_with_group().await;
    let body = |etag: Option<&str>| -> Value {
        let mut body = json!({ "certificate": Authority::new("Root").base64() });
        if let Some(etag) = etag {
            body["etag"] = etag.into();
        }
        body
    };
    app.put(PRIMARY, &body(Some("any"))).await.refused(412, "does not exist");
    let first = app.put(PRIMARY, &body(None)).await.expect(200).text("/etag");
    let second = app.put(PRIMARY, &body(Some(&first))).await.expect(200).text("/etag");
    assert_ne!(first, second);
    app.put(PRIMARY, &body(Some(&first))).await.refused(412, "has changed");
    assert_eq!(app.get(PRIMARY).await.expect(200).text("/etag"), second, "a refused change changes nothing");
}

#[tokio::test]
async fn validity_depends_on_the_clock_of_the_emulator() {
    let now = OffsetDateTime::now_utc();
    let clock = Clock::frozen(now);
    let app = App::with(Emulator::builder().clock(clock.clone())).await;
    let root = Authority::of("Root", KeyPair::generate().expect("a key"), |parameters| {
        parameters.not_after = now + time::Duration::days(2);
    });
    let path = app.enrolled(&root).await;
    let code = app.code(&path).await;
    let proof = root.issue(&code, |parameters| parameters.not_after = now + time::Duration::days(1));
    clock.advance(Duration::from_secs(36 * 60 * 60));
    app.verify(&path, &proof).await.refused(422, "expired");
    app.put(&path, &json!({ "certificate": root.base64() })).await.expect(200);
    clock.advance(Duration::from_secs(24 * 60 * 60));
    app.put(&path, &json!({ "certificate": root.base64() })).await.refused(422, "expired");
}

#[tokio::test]
async fn the_certificate_itself_is_never_shown() {
    let app = app_with_group().await;
    let root = Authority::new("Root");
    let set = app.put(PRIMARY, &json!({ "certificate": root.base64() })).await.expect(200);
    let group = app.get("/enrollmentGroups/g").await.expect(200);
    for answer in [&set.body, &group.body, &app.get(PRIMARY).await.body, &app.get("/enrollmentGroups").await.body] {
        assert!(!answer.to_string().contains("certificate\""), "{answer}");
        assert!(!answer.to_string().contains(&root.base64()[..64]), "{answer}");
    }
}
