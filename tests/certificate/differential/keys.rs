//! The keys of `fixtures/chain-keys` and what they sign with.

use std::{
    collections::HashMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{LazyLock, Mutex},
};

use aws_lc_rs::{
    digest::{Digest, SHA256, SHA384, SHA512, digest},
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::der::{explicit, int, null, oid, seq};

/// A key, by the name of its file.
pub(super) type Key = &'static str;

pub(super) const P256: [Key; 5] = ["p256-1", "p256-2", "p256-3", "p256-4", "p256-5"];
pub(super) const P384: [Key; 3] = ["p384-1", "p384-2", "p384-3"];
pub(super) const P521: [Key; 3] = ["p521-1", "p521-2", "p521-3"];
pub(super) const RSA: [Key; 4] = ["rsa2048-1", "rsa2048-2", "rsa2048-3", "rsa2048-4"];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

pub(super) const SHA2: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn algorithm(self) -> Vec<u8> {
        let hash = match self {
            Self::Md5 => "1.2.840.113549.2.5",
            Self::Sha1 => "1.3.14.3.2.26",
            Self::Sha224 => "2.16.840.1.101.3.4.2.4",
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        };
        seq(&[oid(hash), null()])
    }

    pub(super) fn length(self) -> u64 {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Scheme {
    Ecdsa(Hash),
    RsaPkcs1(Hash),
    RsaPss { hash: Hash, mgf: Hash, salt: u64 },
    Ed25519,
}

impl Scheme {
    pub(super) fn pss(hash: Hash) -> Self {
        Self::RsaPss { hash, mgf: hash, salt: hash.length() }
    }

    /// The `AlgorithmIdentifier`.
    pub(super) fn algorithm(self) -> Vec<u8> {
        match self {
            Self::Ecdsa(hash) => seq(&[oid(match hash {
                Hash::Sha1 => "1.2.840.10045.4.1",
                Hash::Sha224 => "1.2.840.10045.4.3.1",
                Hash::Sha384 => "1.2.840.10045.4.3.3",
                Hash::Sha512 => "1.2.840.10045.4.3.4",
                Hash::Md5 | Hash::Sha256 => "1.2.840.10045.4.3.2",
            })]),
            Self::RsaPkcs1(hash) => {
                let number = match hash {
                    Hash::Md5 => 4,
                    Hash::Sha1 => 5,
                    Hash::Sha224 => 14,
                    Hash::Sha256 => 11,
                    Hash::Sha384 => 12,
                    Hash::Sha512 => 13,
                };
                seq(&[oid(&format!("1.2.840.113549.1.1.{number}")), null()])
            }
            Self::RsaPss { hash, mgf, salt } => pss_algorithm(&[
                explicit(0, &hash.algorithm()),
                explicit(1, &seq(&[oid("1.2.840.113549.1.1.8"), mgf.algorithm()])),
                explicit(2, &int(salt)),
            ]),
            Self::Ed25519 => seq(&[oid("1.3.101.112")]),
        }
    }

    /// What the key signs with unless something else is asked for.
    pub(super) fn usual(key: Key) -> Self {
        match key.split('-').next() {
            Some("p384") => Self::Ecdsa(Hash::Sha384),
            Some("p521") => Self::Ecdsa(Hash::Sha512),
            Some("rsa2048" | "rsa1024") => Self::RsaPkcs1(Hash::Sha256),
            Some("ed25519") => Self::Ed25519,
            _ => Self::Ecdsa(Hash::Sha256),
        }
    }
}

pub(super) fn pss_algorithm(parameters: &[Vec<u8>]) -> Vec<u8> {
    seq(&[oid("1.2.840.113549.1.1.10"), seq(parameters)])
}

fn file(key: Key) -> PathBuf {
    PathBuf::from(format!("{}/fixtures/chain-keys/{key}.pem", env!("CARGO_MANIFEST_DIR")))
}

fn pkcs8(key: Key) -> Vec<u8> {
    let pem = std::fs::read_to_string(file(key)).expect("the key exists");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(body).expect("base64")
}

/// The `SubjectPublicKeyInfo` of a key.
pub(super) fn public_key(key: Key) -> Vec<u8> {
    static KEYS: LazyLock<Mutex<HashMap<Key, Vec<u8>>>> = LazyLock::new(Mutex::default);
    KEYS.lock()
        .expect("no panic")
        .entry(key)
        .or_insert_with(|| openssl(&["pkey", "-pubout", "-outform", "DER"], key, b""))
        .clone()
}

/// Signs with AWS-LC what it signs, and with OpenSSL what is too weak or too rare for it.
pub(super) fn sign(key: Key, scheme: Scheme, message: &[u8]) -> Vec<u8> {
    let curve = key.split('-').next().unwrap_or_default();
    match scheme {
        Scheme::Ecdsa(hash) => {
            let (algorithm, length) = match curve {
                "p256" => (&ECDSA_P256_SHA256_ASN1_SIGNING, &SHA256),
                "p384" => (&ECDSA_P384_SHA384_ASN1_SIGNING, &SHA384),
                "p521" => (&ECDSA_P521_SHA512_ASN1_SIGNING, &SHA512),
                "secp256k1" => (&ECDSA_P256K1_SHA256_ASN1_SIGNING, &SHA256),
                _ => return openssl(&["dgst", &format!("-{}", hash.name()), "-sign"], key, message),
            };
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8(key)).expect("a key of this curve");
            let digest = match hash {
                Hash::Sha256 => digest(&SHA256, message),
                Hash::Sha384 => digest(&SHA384, message),
                Hash::Sha512 => digest(&SHA512, message),
                _ => return openssl(&["dgst", &format!("-{}", hash.name()), "-sign"], key, message),
            };
            // The hash as long as aws-lc-rs expects it: ECDSA signs its leftmost bits, as a number.
            let mut fitted = vec![0; length.output_len.saturating_sub(digest.as_ref().len())];
            fitted.extend(digest.as_ref().iter().take(length.output_len));
            let digest = Digest::import_less_safe(&fitted, length).expect("a digest of this length");
            pair.sign_digest(&digest).expect("a signature").as_ref().to_vec()
        }
        Scheme::RsaPkcs1(hash) => match (curve, hash) {
            ("rsa2048", Hash::Sha256) => rsa(key, &RSA_PKCS1_SHA256, message),
            ("rsa2048", Hash::Sha384) => rsa(key, &RSA_PKCS1_SHA384, message),
            ("rsa2048", Hash::Sha512) => rsa(key, &RSA_PKCS1_SHA512, message),
            _ => openssl(&["dgst", &format!("-{}", hash.name()), "-sign"], key, message),
        },
        Scheme::RsaPss { hash, mgf, salt } => match hash {
            Hash::Sha256 if mgf == hash && salt == hash.length() => rsa(key, &RSA_PSS_SHA256, message),
            Hash::Sha384 if mgf == hash && salt == hash.length() => rsa(key, &RSA_PSS_SHA384, message),
            Hash::Sha512 if mgf == hash && salt == hash.length() => rsa(key, &RSA_PSS_SHA512, message),
            _ => {
                let (hash, salt, mgf) = (
                    format!("-{}", hash.name()),
                    format!("rsa_pss_saltlen:{salt}"),
                    format!("rsa_mgf1_md:{}", mgf.name()),
                );
                let options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", &salt, "-sigopt", &mgf];
                openssl(&[&["dgst", &hash][..], &options, &["-sign"]].concat(), key, message)
            }
        },
        Scheme::Ed25519 => {
            let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8(key)).expect("a key");
            pair.sign(message).as_ref().to_vec()
        }
    }
}

fn rsa(key: Key, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let pair = RsaKeyPair::from_pkcs8(&pkcs8(key)).expect("an RSA key");
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

fn openssl(arguments: &[&str], key: Key, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments);
    if arguments[0] == "pkey" {
        command.arg("-in");
    }
    let mut child = command
        .arg(file(key))
        .env("OPENSSL_CONF", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("a pipe").write_all(input).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "{arguments:?} {key}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
