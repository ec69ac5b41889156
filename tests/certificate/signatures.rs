//! Signatures that the `openssl` program made are verified, or refused with the true reason.

use std::{fs, path::Path};

use iot_enroll::certificate::{Certificate, CertificateRequest, HashAlgorithm, RequestError, SignatureError};

use crate::{
    forge::{Forge, Key, common_name},
    support::openssl,
};

/// Runs `openssl` with arguments that are separated by white space. `None` without openssl, which is reported.
fn run(directory: &Path, arguments: &str) -> Option<()> {
    let output = openssl(directory, &arguments.split_whitespace().collect::<Vec<_>>())?;
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// A self-signed certificate of that key.
fn self_signed(directory: &Path, key: &str, options: &str) -> Option<Certificate> {
    run(directory, &format!("req -x509 -new -key {key} -days 9 -subj /CN=s -out c.pem {options}"))?;
    Some(Certificate::read(&fs::read(directory.join("c.pem")).expect("read")).expect("a certificate"))
}

/// The signature as it is, and after a bit of the serial number was changed.
fn verdicts(certificate: &Certificate) -> [Result<(), SignatureError>; 2] {
    let mut der = certificate.der().to_vec();
    // Header, header, version; then the serial number, of which the last octet is changed.
    let serial = der.windows(3).position(|window| window == [2, 1, 2]).expect("the version") + 3;
    let last = serial + 1 + usize::from(der[serial + 1]);
    der[last] ^= 1;
    let changed = Certificate::from_der(&der).expect("reads");
    [certificate.verify_signature(certificate), changed.verify_signature(certificate)]
}

#[test]
fn ecdsa_is_verified_with_every_hash_on_every_supported_curve() {
    let directory = crate::support::temporary_directory();
    let directory = directory.path();
    for curve in ["prime256v1", "secp384r1", "secp521r1", "secp256k1", "brainpoolP256r1", "secp224r1"] {
        let curve_options = format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out key.pem");
        if run(directory, &curve_options).is_none() {
            return;
        }
        for hash in ["sha1", "sha224", "sha256", "sha384", "sha512"] {
            let certificate = self_signed(directory, "key.pem", &format!("-{hash}")).expect("openssl");
            let name = format!("ecdsa-with-{}", hash.to_uppercase());
            assert_eq!(certificate.signature_algorithm().to_string(), name);
            assert_eq!(certificate.signature_algorithm().is_weak(), hash == "sha1");
            let [right, changed] = verdicts(&certificate);
            match curve {
                "brainpoolP256r1" | "secp224r1" => {
                    let Err(SignatureError::Unsupported(what)) = right else { panic!("{curve}: {right:?}") };
                    assert!(what.starts_with(&format!("{name} on ")), "{what}");
                }
                _ => {
                    assert_eq!(right, Ok(()), "{curve} {hash}");
                    assert_eq!(changed, Err(SignatureError::Wrong), "{curve} {hash}");
                }
            }
        }
    }
    run(directory, "ecparam -name prime256v1 -genkey -param_enc explicit -noout -out key.pem").expect("openssl");
    let explicit = self_signed(directory, "key.pem", "-sha256").expect("openssl");
    let what = "ecdsa-with-SHA256 on a curve with explicit parameters".to_owned();
    assert_eq!(verdicts(&explicit)[0], Err(SignatureError::Unsupported(what)));
}

#[test]
fn rsa_is_verified_with_what_the_library_has_and_otherwise_not_supported() {
    let directory = crate::support::temporary_directory();
    let directory = directory.path();
    if run(directory, "genrsa -out key.pem 2048").is_none() {
        return;
    }
    for (hash, supported) in
        [("sha1", true), ("sha224", false), ("sha256", true), ("sha384", true), ("sha512", true), ("md5", false)]
    {
        let certificate = self_signed(directory, "key.pem", &format!("-{hash}")).expect("openssl");
        let name = format!("{hash}WithRSAEncryption");
        assert_eq!(certificate.signature_algorithm().to_string(), name);
        assert_eq!(certificate.signature_algorithm().is_weak(), ["sha1", "md5"].contains(&hash));
        let wanted = if supported {
            [Ok(()), Err(SignatureError::Wrong)]
        } else {
            [0, 1].map(|_| Err(SignatureError::Unsupported(name.clone())))
        };
        assert_eq!(verdicts(&certificate), wanted, "{hash}");
    }
    for (hash, mgf, salt, supported) in [
        ("sha256", "sha256", 32, true),
        ("sha256", "sha256", 0, true),
        ("sha256", "sha256", 20, true),
        ("sha256", "sha256", 222, true),
        ("sha384", "sha384", 17, true),
        ("sha512", "sha512", 190, true),
        ("sha256", "sha1", 32, false),
        ("sha512", "sha256", 64, false),
        ("sha224", "sha224", 28, false),
        ("sha1", "sha1", 20, false),
    ] {
        let options =
            format!("-{hash} -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{salt} -sigopt rsa_mgf1_md:{mgf}");
        let certificate = self_signed(directory, "key.pem", &options).expect("openssl");
        let spelled = |hash: &str| hash.replace("sha", "SHA-");
        let name = format!("RSASSA-PSS ({}, MGF1 with {}, salt of {salt} bytes)", spelled(hash), spelled(mgf));
        assert_eq!(certificate.signature_algorithm().to_string(), name);
        assert_eq!(certificate.signature_algorithm().is_weak(), hash == "sha1");
        let wanted = if supported {
            [Ok(()), Err(SignatureError::Wrong)]
        } else {
            [0, 1].map(|_| Err(SignatureError::Unsupported(name.clone())))
        };
        assert_eq!(verdicts(&certificate), wanted, "{name}");
    }
    let pss = self_signed(directory, "key.pem", "-sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48")
        .expect("openssl");
    assert_eq!(pss.signature_algorithm().hash(), Some(HashAlgorithm::Sha384));
    assert_eq!(
        pss.signature_algorithm().pss().map(|pss| (pss.mgf_hash, pss.salt_length)),
        Some((HashAlgorithm::Sha384, 48))
    );
}

#[test]
fn unusable_keys_are_distinguished_from_wrong_signers() {
    let directory = crate::support::temporary_directory();
    let directory = directory.path();
    for bits in [512, 1024, 1536, 2047] {
        if run(directory, &format!("genrsa -out key.pem {bits}")).is_none() {
            return;
        }
        for options in ["-sha256", "-sha384"].into_iter().filter(|&options| bits > 512 || options == "-sha256") {
            let certificate = self_signed(directory, "key.pem", options).expect("openssl");
            let [right, changed] = verdicts(&certificate);
            let Err(SignatureError::KeyTooShort(key)) = right else { panic!("{bits}: {right:?}") };
            assert_eq!(key.to_string(), format!("RSA {bits}"));
            if options == "-sha256" && bits >= 1024 {
                assert_eq!(changed, Err(SignatureError::Wrong), "that can be checked all the same");
            }
        }
    }
    // A key that is restricted to some parameters of RSASSA-PSS.
    let restrict =
        "-pkeyopt rsa_pss_keygen_md:sha256 -pkeyopt rsa_pss_keygen_mgf1_md:sha256 -pkeyopt rsa_pss_keygen_saltlen:32";
    run(directory, &format!("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 {restrict} -out pss.pem"))
        .expect("openssl");
    let certificate = self_signed(directory, "pss.pem", "-sigopt rsa_pss_saltlen:40").expect("openssl");
    assert_eq!(verdicts(&certificate), [Ok(()), Err(SignatureError::Wrong)]);
    run(directory, "genpkey -algorithm ED25519 -out ed.pem").expect("openssl");
    let ed25519 = self_signed(directory, "ed.pem", "").expect("openssl");
    assert_eq!(verdicts(&ed25519), [Ok(()), Err(SignatureError::Wrong)]);
    run(directory, "genpkey -algorithm ED448 -out ed448.pem").expect("openssl");
    let ed448 = self_signed(directory, "ed448.pem", "").expect("openssl");
    assert_eq!(verdicts(&ed448)[0], Err(SignatureError::Unsupported("Ed448".to_owned())));
    // Curves are named as people know them.
    for (curve, parameters, named) in [
        ("brainpoolP384r1", "named_curve", "ecdsa-with-SHA256 on brainpoolP384r1"),
        ("secp224r1", "named_curve", "ecdsa-with-SHA256 on secp224r1"),
        ("prime256v1", "explicit", "ecdsa-with-SHA256 on a curve with explicit parameters"),
    ] {
        run(directory, &format!("ecparam -name {curve} -genkey -noout -param_enc {parameters} -out ec.pem"))
            .expect("openssl");
        let certificate = self_signed(directory, "ec.pem", "-sha256").expect("openssl");
        assert_eq!(verdicts(&certificate)[0], Err(SignatureError::Unsupported(named.to_owned())));
    }
    // A key of another kind is another key.
    assert_eq!(certificate.verify_signature(&ed25519), Err(SignatureError::Wrong));
}

#[test]
fn a_key_off_its_curve_is_malformed() {
    let key = Key::new();
    let certificate = Forge::new(common_name("s"), common_name("s")).make(&key, &key);
    let mut der = certificate.der().to_vec();
    let point = der.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).expect("a point") + 4;
    der[point] ^= 1;
    let broken = Certificate::from_der(&der).expect("reads");
    assert_eq!(certificate.verify_signature(&broken), Err(SignatureError::UnusableKey));
}

#[test]
fn requests_are_verified_like_certificates() {
    let directory = crate::support::temporary_directory();
    let directory = directory.path();
    if run(directory, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem").is_none() {
        return;
    }
    run(directory, "genrsa -out rsa.pem 2048").expect("openssl");
    let request = |options: &str| {
        run(directory, &format!("req -new -subj /CN=dev-01 -out r.csr {options}")).expect("openssl");
        CertificateRequest::read(&fs::read(directory.join("r.csr")).expect("read"))
    };
    for options in [
        "-key ec.pem -sha224",
        "-key ec.pem -sha512",
        "-key rsa.pem -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max",
        "-key rsa.pem -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:0",
    ] {
        assert_eq!(request(options).expect(options).subject().common_name(), Some("dev-01"));
    }
    let options =
        "-key rsa.pem -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_mgf1_md:sha1 -sigopt rsa_pss_saltlen:20";
    let error = request(options).expect_err("not supported");
    let name = "RSASSA-PSS (SHA-256, MGF1 with SHA-1, salt of 20 bytes)".to_owned();
    assert_eq!(error, RequestError::SignatureAlgorithm(name));
}
