//! Password-based encryption and integrity of PKCS#12 (RFC 7292) and PKCS#5 (RFC 8018, RFC 9579).
//!
//! The ciphers, hashes and PBKDF2 are from the `RustCrypto` project. This module adds what no released crate has: the key
//! derivation of PKCS#12 for any password, and the name of each algorithm that is not supported.

use aes::{Aes128, Aes192, Aes256};
#[cfg(feature = "issue")]
use aws_lc_rs::error::Unspecified;
use cbc::{
    Decryptor,
    cipher::{
        BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit, KeyIvInit,
        block_padding::{self, Pkcs7},
    },
};
#[cfg(feature = "issue")]
use cbc::{Encryptor, cipher::BlockModeEncrypt};
use des::{Des, TdesEde2, TdesEde3};
use hmac::{
    Hmac, Mac,
    digest::{Digest, FixedOutputReset, block_api::BlockSizeUser},
};
use md5::Md5;
use pbkdf2::pbkdf2_hmac;
use rc2::Rc2;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use zeroize::{Zeroize, Zeroizing};

#[cfg(feature = "issue")]
use super::der::{der_frame, der_sequence};
use super::{
    HashAlgorithm,
    der::{DerReader, INTEGER, OCTET_STRING, SEQUENCE},
};

/// The highest number of iterations of one key derivation. Java writes 10,000, OpenSSL 2,048, and OWASP recommends
/// 1,300,000 for PBKDF2 with SHA-1. This many take a few seconds.
pub(super) const MAX_ITERATIONS: u64 = 10_000_000;

/// The highest number of iterations of one file with many keys.
const MAX_TOTAL: u64 = 10 * MAX_ITERATIONS;

/// The highest memory of scrypt, in bytes.
const MAX_SCRYPT_MEMORY: u64 = 1 << 30;

/// The highest parallelism of scrypt, which multiplies its time.
const MAX_SCRYPT_PARALLELISM: u64 = 16;

/// A password in the two forms that PFX files use.
pub(super) struct Password {
    /// The form for PKCS#5.
    utf8: Zeroizing<Vec<u8>>,
    /// The form for PKCS#12: UTF-16, big-endian, with two zero octets at the end (RFC 7292 appendix B.1). Characters outside
    /// the BMP are surrogate pairs, as in OpenSSL.
    utf16: Zeroizing<Vec<u8>>,
}

impl Password {
    pub(super) fn new(password: &str) -> Self {
        let mut utf16 = Zeroizing::new(Vec::with_capacity(2 * password.len() + 2));
        utf16.extend(password.encode_utf16().flat_map(u16::to_be_bytes));
        utf16.extend([0, 0]);
        Self { utf8: Zeroizing::new(password.as_bytes().to_vec()), utf16 }
    }

    /// Returns the absent password. In PKCS#12 it differs from the empty one, which has the two zero octets.
    pub(super) fn absent() -> Self {
        Self { utf8: Zeroizing::default(), utf16: Zeroizing::default() }
    }
}

/// The reason why encrypted data cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PbeError {
    /// The password is wrong.
    Password,
    /// The algorithm is not supported; holds its name.
    Unsupported(String),
    /// The number of iterations exceeds the limit.
    Iterations(u64),
    /// A part does not decode; holds its name.
    Damaged(&'static str),
}

/// The number of iterations of key derivation that the rest of a file may use.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_TOTAL)
    }

    fn spend(&mut self, iterations: Option<u64>) -> Result<u32, PbeError> {
        let iterations = iterations.filter(|&count| count > 0).ok_or(PbeError::Damaged("an iteration count"))?;
        self.0 = self.0.checked_sub(iterations).filter(|_| iterations <= MAX_ITERATIONS).ok_or(
            // Reports the sum if only the sum exceeds its limit.
            PbeError::Iterations(if iterations > MAX_ITERATIONS {
                iterations
            } else {
                MAX_TOTAL - self.0 + iterations
            }),
        )?;
        u32::try_from(iterations).map_err(|_| PbeError::Iterations(iterations))
    }
}

/// Calls a function that is generic over the hash. Returns an error from the surrounding function for other hashes than
/// SHA-1 and SHA-2.
macro_rules! with_hash {
    ($hash:expr, $function:ident($($argument:expr),*)) => {
        match $hash {
            HashAlgorithm::Sha1 => $function::<Sha1>($($argument),*),
            HashAlgorithm::Sha224 => $function::<Sha224>($($argument),*),
            HashAlgorithm::Sha256 => $function::<Sha256>($($argument),*),
            HashAlgorithm::Sha384 => $function::<Sha384>($($argument),*),
            HashAlgorithm::Sha512 => $function::<Sha512>($($argument),*),
            HashAlgorithm::Sha512_224 => $function::<Sha512_224>($($argument),*),
            HashAlgorithm::Sha512_256 => $function::<Sha512_256>($($argument),*),
            other => return Err(PbeError::Unsupported(other.to_string())),
        }
    };
}

/// Returns the hash, or the hash of HMAC, with that object identifier (RFC 8018 appendix B.1).
fn hash_of(oid: &str) -> Result<HashAlgorithm, PbeError> {
    Ok(match oid {
        "1.2.840.113549.2.7" => HashAlgorithm::Sha1,
        "1.2.840.113549.2.8" => HashAlgorithm::Sha224,
        "1.2.840.113549.2.9" => HashAlgorithm::Sha256,
        "1.2.840.113549.2.10" => HashAlgorithm::Sha384,
        "1.2.840.113549.2.11" => HashAlgorithm::Sha512,
        "1.2.840.113549.2.12" => HashAlgorithm::Sha512_224,
        "1.2.840.113549.2.13" => HashAlgorithm::Sha512_256,
        other => HashAlgorithm::from_oid(other).ok_or_else(|| unsupported(other))?,
    })
}

/// Returns the length of a hash in octets.
fn hash_length<D: Digest>() -> usize {
    <D as Digest>::output_size()
}

/// Returns the error for an unsupported algorithm of PFX files or encrypted keys, with its name.
fn unsupported(oid: &str) -> PbeError {
    let name = match oid {
        "1.2.840.113549.1.12.1.1" => "RC4-128",
        "1.2.840.113549.1.12.1.2" => "RC4-40",
        "1.2.840.113549.1.5.1" => "DES with MD2",
        "1.2.840.113549.1.5.4" => "RC2 with MD2",
        "1.2.840.113549.1.5.14" => "PBMAC1",
        "1.2.840.113549.2.2" => "MD2",
        "1.2.840.113549.2.4" => "MD4",
        "1.2.840.113549.2.5" => "MD5",
        "1.2.840.113549.2.6" => "HMAC with MD5",
        "1.2.840.113549.3.4" => "RC4",
        "1.2.840.113549.3.9" => "RC5",
        "1.3.6.1.4.1.3029.1.2" => "Blowfish",
        "1.2.840.113533.7.66.10" => "CAST5",
        "1.2.392.200011.61.1.1.1.2" => "Camellia-128",
        "1.2.392.200011.61.1.1.1.3" => "Camellia-192",
        "1.2.392.200011.61.1.1.1.4" => "Camellia-256",
        "1.2.410.200004.1.4" => "SEED",
        "1.2.410.200046.1.1.2" => "ARIA-128",
        "1.2.410.200046.1.1.7" => "ARIA-192",
        "1.2.410.200046.1.1.12" => "ARIA-256",
        "1.2.156.10197.1.104.2" => "SM4",
        "1.2.156.10197.1.401" => "SM3",
        "1.2.643.2.2.21" => "GOST 28147-89",
        "1.2.643.7.1.1.2.2" => "GOST R 34.11-2012 (256 bits)",
        "1.2.643.7.1.1.2.3" => "GOST R 34.11-2012 (512 bits)",
        "2.16.840.1.101.3.4.1.3" => "AES-128-OFB",
        "2.16.840.1.101.3.4.1.23" => "AES-192-OFB",
        "2.16.840.1.101.3.4.1.43" => "AES-256-OFB",
        "2.16.840.1.101.3.4.1.4" => "AES-128-CFB",
        "2.16.840.1.101.3.4.1.24" => "AES-192-CFB",
        "2.16.840.1.101.3.4.1.44" => "AES-256-CFB",
        "2.16.840.1.101.3.4.1.6" => "AES-128-GCM",
        "2.16.840.1.101.3.4.1.26" => "AES-192-GCM",
        "2.16.840.1.101.3.4.1.46" => "AES-256-GCM",
        "2.16.840.1.101.3.4.2.7" => "SHA3-224",
        "2.16.840.1.101.3.4.2.8" => "SHA3-256",
        "2.16.840.1.101.3.4.2.9" => "SHA3-384",
        "2.16.840.1.101.3.4.2.10" => "SHA3-512",
        "1.3.6.1.4.1.1722.12.2.1" => "BLAKE2",
        "1.3.36.3.2.1" => "RIPEMD-160",
        other => return PbeError::Unsupported(format!("the algorithm {other}")),
    };
    PbeError::Unsupported(name.to_owned())
}

/// Reads an `AlgorithmIdentifier`. Returns its object identifier and a reader of its parameters.
fn algorithm<'a>(reader: &mut DerReader<'a>) -> Result<(String, DerReader<'a>), PbeError> {
    let mut inside = reader.inside(SEQUENCE).ok_or(PbeError::Damaged("an algorithm"))?;
    let oid = inside.oid().ok_or(PbeError::Damaged("an algorithm"))?;
    Ok((oid, inside))
}

/// Verifies the `MacData` (RFC 7292 section 4) of the content.
pub(super) fn verify_mac(
    mut mac_data: DerReader<'_>,
    content: &[u8],
    password: &Password,
    budget: &mut Budget,
) -> Result<(), PbeError> {
    let damaged = || PbeError::Damaged("the integrity check (MAC)");
    let mut digest_info = mac_data.inside(SEQUENCE).ok_or_else(damaged)?;
    let (oid, mut parameters) = algorithm(&mut digest_info)?;
    let digest = digest_info.content(OCTET_STRING).ok_or_else(damaged)?;
    let (hash, key) = if oid == "1.2.840.113549.1.5.14" {
        // PBMAC1 (RFC 9579) ignores the salt and iterations of MacData.
        let mut parameters = parameters.inside(SEQUENCE).ok_or_else(damaged)?;
        let derivation = Derivation::read(&mut parameters, budget)?;
        let (scheme, _) = algorithm(&mut parameters)?;
        let hash = hash_of(&scheme)?;
        let length = derivation.key_length.unwrap_or(with_hash!(hash, hash_length()));
        (hash, derivation.key(&password.utf8, length)?)
    } else {
        let hash = hash_of(&oid)?;
        let salt = mac_data.content(OCTET_STRING).ok_or_else(damaged)?;
        let iterations = budget.spend(if mac_data.is_empty() { Some(1) } else { mac_data.number() })?;
        let length = with_hash!(hash, hash_length());
        (hash, pkcs12_key(hash, password, salt, Purpose::Mac, iterations, length)?)
    };
    if with_hash!(hash, is_hmac(&key, content, digest)) { Ok(()) } else { Err(PbeError::Password) }
}

fn is_hmac<D>(key: &[u8], content: &[u8], digest: &[u8]) -> bool
where
    Hmac<D>: Mac + KeyInit,
    D: hmac::EagerHash,
{
    // HMAC accepts a key of any length.
    <Hmac<D> as KeyInit>::new_from_slice(key).is_ok_and(|mac| mac.chain_update(content).verify_slice(digest).is_ok())
}

/// Decrypts data with the algorithm that is read from `encryption`.
pub(super) fn decrypt(
    encryption: &mut DerReader<'_>,
    encrypted: &[u8],
    password: &Password,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, PbeError> {
    let damaged = || PbeError::Damaged("the parameters of an encryption");
    let (oid, mut parameters) = algorithm(encryption)?;
    let mut parameters = parameters.inside(SEQUENCE).ok_or_else(|| match Scheme::of(&oid) {
        Ok(_) => damaged(),
        Err(unsupported) => unsupported,
    })?;
    let mut data = Zeroizing::new(encrypted.to_vec());
    match Scheme::of(&oid)? {
        Scheme::Pbes2 => {
            let derivation = Derivation::read(&mut parameters, budget)?;
            let (oid, parameters) = algorithm(&mut parameters)?;
            decrypt_pbes2(&derivation, &oid, parameters, &mut data, password)?;
        }
        scheme => {
            let salt = parameters.content(OCTET_STRING).ok_or_else(damaged)?;
            let iterations = budget.spend(parameters.number())?;
            let pkcs12 = |length| {
                let sha1 = pkcs12_key_with::<Sha1>;
                let key = sha1(&password.utf16, salt, Purpose::Key, iterations, length);
                (key, sha1(&password.utf16, salt, Purpose::Iv, iterations, 8))
            };
            let pkcs5 = |pbkdf1: fn(&[u8], &[u8], u32) -> Secret| {
                let mut key = pbkdf1(&password.utf8, salt, iterations);
                let iv = Zeroizing::new(key.split_off(8));
                (key, iv)
            };
            match scheme {
                Scheme::Tdes3 => cbc::<TdesEde3>(&pkcs12(24), &mut data)?,
                Scheme::Tdes2 => cbc::<TdesEde2>(&pkcs12(16), &mut data)?,
                Scheme::Rc2(length) => cbc::<Rc2>(&pkcs12(length), &mut data)?,
                Scheme::Pkcs5Des => cbc::<Des>(&pkcs5(pbkdf1::<Sha1>), &mut data)?,
                Scheme::Pkcs5DesMd5 => cbc::<Des>(&pkcs5(pbkdf1::<Md5>), &mut data)?,
                Scheme::Pkcs5Rc2Md5 => cbc::<Rc2>(&pkcs5(pbkdf1::<Md5>), &mut data)?,
                Scheme::Pkcs5Rc2 | Scheme::Pbes2 => cbc::<Rc2>(&pkcs5(pbkdf1::<Sha1>), &mut data)?,
            }
        }
    }
    Ok(data)
}

enum Scheme {
    Pbes2,
    Tdes3,
    Tdes2,
    Rc2(usize),
    Pkcs5Des,
    Pkcs5DesMd5,
    Pkcs5Rc2,
    Pkcs5Rc2Md5,
}

impl Scheme {
    fn of(oid: &str) -> Result<Self, PbeError> {
        match oid {
            "1.2.840.113549.1.5.13" => Ok(Self::Pbes2),
            "1.2.840.113549.1.12.1.3" => Ok(Self::Tdes3),
            "1.2.840.113549.1.12.1.4" => Ok(Self::Tdes2),
            "1.2.840.113549.1.12.1.5" => Ok(Self::Rc2(16)),
            "1.2.840.113549.1.12.1.6" => Ok(Self::Rc2(5)),
            "1.2.840.113549.1.5.3" => Ok(Self::Pkcs5DesMd5),
            "1.2.840.113549.1.5.6" => Ok(Self::Pkcs5Rc2Md5),
            "1.2.840.113549.1.5.10" => Ok(Self::Pkcs5Des),
            "1.2.840.113549.1.5.11" => Ok(Self::Pkcs5Rc2),
            other => Err(unsupported(other)),
        }
    }
}

fn decrypt_pbes2(
    derivation: &Derivation<'_>,
    oid: &str,
    mut parameters: DerReader<'_>,
    data: &mut Zeroizing<Vec<u8>>,
    password: &Password,
) -> Result<(), PbeError> {
    let damaged = || PbeError::Damaged("the parameters of an encryption");
    let length = match oid {
        "2.16.840.1.101.3.4.1.2" => 16,
        "2.16.840.1.101.3.4.1.22" | "1.2.840.113549.3.7" => 24,
        "2.16.840.1.101.3.4.1.42" => 32,
        "1.3.14.3.2.7" => 8,
        "1.2.840.113549.3.2" => {
            let mut parameters = parameters.inside(SEQUENCE).ok_or_else(damaged)?;
            // RFC 8018 appendix B.2.3: the version encodes the effective bits of the key.
            let bits = match (parameters.tag() == Some(INTEGER)).then(|| parameters.number()) {
                None => 32,
                Some(Some(160)) => 40,
                Some(Some(120)) => 64,
                Some(Some(58)) => 128,
                Some(Some(bits @ 256..=1024)) => usize::try_from(bits).map_err(|_| damaged())?,
                Some(_) => return Err(PbeError::Unsupported("RC2 with an unknown key length".to_owned())),
            };
            let iv = parameters.content(OCTET_STRING).ok_or_else(damaged)?;
            let length = derivation.key_length.unwrap_or(bits / 8);
            if !(1..=128).contains(&length) {
                return Err(damaged());
            }
            let key = derivation.key(&password.utf8, length)?;
            let cipher = Rc2::new_with_eff_key_len(&key, bits);
            return unpad(Decryptor::inner_iv_slice_init(cipher, iv).map_err(|_| damaged())?, data);
        }
        other => return Err(unsupported(other)),
    };
    if derivation.key_length.is_some_and(|stated| stated != length) {
        return Err(damaged());
    }
    let iv = Zeroizing::new(parameters.content(OCTET_STRING).ok_or_else(damaged)?.to_vec());
    let key_and_iv = (derivation.key(&password.utf8, length)?, iv);
    match oid {
        "2.16.840.1.101.3.4.1.2" => cbc::<Aes128>(&key_and_iv, data),
        "2.16.840.1.101.3.4.1.22" => cbc::<Aes192>(&key_and_iv, data),
        "2.16.840.1.101.3.4.1.42" => cbc::<Aes256>(&key_and_iv, data),
        "1.2.840.113549.3.7" => cbc::<TdesEde3>(&key_and_iv, data),
        _ => cbc::<Des>(&key_and_iv, data),
    }
}

type Secret = Zeroizing<Vec<u8>>;

/// Decrypts data in place in CBC mode.
fn cbc<C: BlockCipherDecrypt + KeyInit>((key, iv): &(Secret, Secret), data: &mut Secret) -> Result<(), PbeError> {
    let cipher =
        Decryptor::<C>::new_from_slices(key, iv).map_err(|_| PbeError::Damaged("the parameters of an encryption"))?;
    unpad(cipher, data)
}

fn unpad<C: BlockCipherDecrypt>(cipher: Decryptor<C>, data: &mut Secret) -> Result<(), PbeError> {
    let padding = |_: block_padding::Error| PbeError::Password;
    let length = cipher.decrypt_padded::<Pkcs7>(data).map_err(padding)?.len();
    data.truncate(length);
    Ok(())
}

/// A key derivation function of PKCS#5 and its parameters.
struct Derivation<'a> {
    salt: &'a [u8],
    function: Function,
    key_length: Option<usize>,
}

enum Function {
    Pbkdf2(HashAlgorithm, u32),
    Scrypt(scrypt::Params),
}

impl<'a> Derivation<'a> {
    fn read(reader: &mut DerReader<'a>, budget: &mut Budget) -> Result<Self, PbeError> {
        let damaged = || PbeError::Damaged("the parameters of a key derivation");
        let (oid, mut parameters) = algorithm(reader)?;
        if !matches!(oid.as_str(), "1.2.840.113549.1.5.12" | "1.3.6.1.4.1.11591.4.11") {
            return Err(unsupported(&oid));
        }
        let mut parameters = parameters.inside(SEQUENCE).ok_or_else(damaged)?;
        let salt = parameters.content(OCTET_STRING).ok_or_else(damaged)?;
        let first = parameters.number();
        let scrypt = if oid == "1.3.6.1.4.1.11591.4.11" {
            Some((first.ok_or_else(damaged)?, parameters.number(), parameters.number()))
        } else {
            None
        };
        let key_length = match (parameters.tag() == Some(INTEGER)).then(|| parameters.number()) {
            None => None,
            Some(length) => Some(
                length.and_then(|length| usize::try_from(length).ok()).filter(|&l| l <= 1024).ok_or_else(damaged)?,
            ),
        };
        let function = match scrypt {
            Some((cost, Some(block), Some(parallelism))) => {
                Function::Scrypt(scrypt_parameters(cost, block, parallelism)?)
            }
            Some(_) => return Err(damaged()),
            None => {
                // HMAC with SHA-1 is the default.
                let sha1 = parameters.is_empty();
                let hash = if sha1 { HashAlgorithm::Sha1 } else { hash_of(&algorithm(&mut parameters)?.0)? };
                Function::Pbkdf2(hash, budget.spend(first)?)
            }
        };
        Ok(Self { salt, function, key_length })
    }

    fn key(&self, password: &[u8], length: usize) -> Result<Secret, PbeError> {
        let mut key = Zeroizing::new(vec![0; length]);
        match &self.function {
            Function::Pbkdf2(hash, iterations) => {
                with_hash!(*hash, pbkdf2_hmac(password, self.salt, *iterations, &mut key));
            }
            Function::Scrypt(parameters) => scrypt::scrypt(password, self.salt, parameters, &mut key)
                .map_err(|_| PbeError::Damaged("the parameters of a key derivation"))?,
        }
        Ok(key)
    }
}

fn scrypt_parameters(cost: u64, block: u64, parallelism: u64) -> Result<scrypt::Params, PbeError> {
    let memory = cost.checked_mul(128).and_then(|memory| memory.checked_mul(block));
    if memory.is_none_or(|memory| memory > MAX_SCRYPT_MEMORY) || parallelism > MAX_SCRYPT_PARALLELISM {
        return Err(PbeError::Unsupported(format!(
            "scrypt with N={cost}, r={block}, p={parallelism} (the limits are 1 GiB of memory and p={MAX_SCRYPT_PARALLELISM})"
        )));
    }
    let parameters = || {
        let log = u8::try_from(cost.checked_ilog2()?).ok().filter(|_| cost.is_power_of_two())?;
        scrypt::Params::new(log, u32::try_from(block).ok()?, u32::try_from(parallelism).ok()?).ok()
    };
    parameters().ok_or(PbeError::Damaged("the parameters of a key derivation"))
}

/// The encryption of a file that is written.
#[cfg(feature = "issue")]
#[derive(Clone, Copy)]
pub(super) enum Encryption {
    /// PBES2 with AES-256 in CBC mode, and PBKDF2 with HMAC-SHA-256.
    Aes256,
    /// PKCS#12 PBE with triple DES in CBC mode and SHA-1.
    TripleDes,
}

/// Object identifiers with tag and length.
#[cfg(feature = "issue")]
mod oid {
    pub(super) const PBES2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
    pub(super) const PBKDF2: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";
    pub(super) const HMAC_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x09";
    pub(super) const AES256_CBC: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
    pub(super) const TRIPLE_DES: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03";
    pub(super) const SHA1: &[u8] = b"\x06\x05\x2b\x0e\x03\x02\x1a";
    pub(super) const SHA256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    pub(super) const NULL: &[u8] = b"\x05\x00";
}

/// Encrypts data. Returns the `AlgorithmIdentifier` and the ciphertext.
#[cfg(feature = "issue")]
pub(super) fn encrypt(
    encryption: Encryption,
    plain: &[u8],
    password: &Password,
    iterations: u32,
) -> Result<(Vec<u8>, Vec<u8>), Unspecified> {
    let salt: [u8; 16] = random()?;
    let salt_and_iterations = [der_frame(OCTET_STRING, &[&salt]), der_number(iterations)];
    let [salt_der, iterations_der] = &salt_and_iterations;
    match encryption {
        Encryption::Aes256 => {
            let iv: [u8; 16] = random()?;
            let mut key = Zeroizing::new([0; 32]);
            pbkdf2_hmac::<Sha256>(&password.utf8, &salt, iterations, &mut *key);
            let cipher = Encryptor::<Aes256>::new_from_slices(&*key, &iv).map_err(|_| Unspecified)?;
            let prf = der_sequence(&[oid::HMAC_SHA256, oid::NULL]);
            let derivation = der_sequence(&[oid::PBKDF2, &der_sequence(&[salt_der, iterations_der, &prf])]);
            let scheme = der_sequence(&[oid::AES256_CBC, &der_frame(OCTET_STRING, &[&iv])]);
            let algorithm = der_sequence(&[oid::PBES2, &der_sequence(&[&derivation, &scheme])]);
            Ok((algorithm, cipher.encrypt_padded_vec::<Pkcs7>(plain)))
        }
        Encryption::TripleDes => {
            let key = pkcs12_key_with::<Sha1>(&password.utf16, &salt, Purpose::Key, iterations, 24);
            let iv = pkcs12_key_with::<Sha1>(&password.utf16, &salt, Purpose::Iv, iterations, 8);
            let cipher = Encryptor::<TdesEde3>::new_from_slices(&key, &iv).map_err(|_| Unspecified)?;
            let algorithm = der_sequence(&[oid::TRIPLE_DES, &der_sequence(&[salt_der, iterations_der])]);
            Ok((algorithm, cipher.encrypt_padded_vec::<Pkcs7>(plain)))
        }
    }
}

/// Returns the `MacData` (RFC 7292 section 4) of the content: HMAC with SHA-256, or with SHA-1 for triple DES.
#[cfg(feature = "issue")]
pub(super) fn mac(
    encryption: Encryption,
    content: &[u8],
    password: &Password,
    iterations: u32,
) -> Result<Vec<u8>, Unspecified> {
    let salt: [u8; 16] = random()?;
    let password = &password.utf16;
    let (digest, name) = match encryption {
        Encryption::Aes256 => {
            let key = pkcs12_key_with::<Sha256>(password, &salt, Purpose::Mac, iterations, hash_length::<Sha256>());
            (hmac_of::<Sha256>(&key, content), oid::SHA256)
        }
        Encryption::TripleDes => {
            let key = pkcs12_key_with::<Sha1>(password, &salt, Purpose::Mac, iterations, hash_length::<Sha1>());
            (hmac_of::<Sha1>(&key, content), oid::SHA1)
        }
    };
    let digest_info = der_sequence(&[&der_sequence(&[name, oid::NULL]), &der_frame(OCTET_STRING, &[&digest])]);
    Ok(der_sequence(&[&digest_info, &der_frame(OCTET_STRING, &[&salt]), &der_number(iterations)]))
}

#[cfg(feature = "issue")]
fn hmac_of<D>(key: &[u8], content: &[u8]) -> Vec<u8>
where
    Hmac<D>: Mac + KeyInit,
    D: hmac::EagerHash,
{
    // HMAC accepts a key of any length.
    <Hmac<D> as KeyInit>::new_from_slice(key)
        .map(|mac| mac.chain_update(content).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

#[cfg(feature = "issue")]
fn random<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(feature = "issue")]
fn der_number(number: u32) -> Vec<u8> {
    // A zero octet in front keeps the number positive. DER requires the shortest form.
    let octets = [&[0][..], &number.to_be_bytes()].concat();
    let zeros = octets.windows(2).take_while(|pair| pair[0] == 0 && pair[1] & 0x80 == 0).count();
    der_frame(INTEGER, &[&octets[zeros..]])
}

/// The purpose of a PKCS#12 key: the `ID` of RFC 7292 appendix B.3.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

fn pkcs12_key(
    hash: HashAlgorithm,
    password: &Password,
    salt: &[u8],
    purpose: Purpose,
    iterations: u32,
    length: usize,
) -> Result<Secret, PbeError> {
    Ok(with_hash!(hash, pkcs12_key_with(&password.utf16, salt, purpose, iterations, length)))
}

/// Derives a key by RFC 7292 appendix B.2. The released crates accept only passwords in the BMP.
fn pkcs12_key_with<D: Digest + FixedOutputReset + BlockSizeUser>(
    password: &[u8],
    salt: &[u8],
    purpose: Purpose,
    iterations: u32,
    length: usize,
) -> Secret {
    let block = D::block_size();
    let repeated =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().cycle().take(bytes.len().div_ceil(block) * block).collect() };
    let mut input = Zeroizing::new(Vec::new());
    input.append(&mut repeated(salt));
    let mut password = Zeroizing::new(repeated(password));
    input.reserve_exact(password.len());
    input.append(&mut password);
    let mut key = Zeroizing::new(Vec::with_capacity(length + block));
    let mut digest = D::new();
    loop {
        Digest::update(&mut digest, vec![purpose as u8; block]);
        Digest::update(&mut digest, &input);
        let mut output = digest.finalize_fixed_reset();
        for _ in 1..iterations {
            Digest::update(&mut digest, &output);
            output = digest.finalize_fixed_reset();
        }
        key.extend_from_slice(&output);
        if key.len() >= length {
            output.as_mut_slice().zeroize();
            key.truncate(length);
            return key;
        }
        // Every block of the input becomes itself plus the output, repeated to a block, plus one.
        for part in input.chunks_exact_mut(block) {
            let mut carry = 1;
            for (index, octet) in part.iter_mut().enumerate().rev() {
                let sum = u16::from(*octet) + u16::from(output[index % output.len()]) + carry;
                let [high, low] = sum.to_be_bytes();
                *octet = low;
                carry = u16::from(high);
            }
        }
        output.as_mut_slice().zeroize();
    }
}

/// Derives a key by PBKDF1 (RFC 8018 section 5.1) with SHA-1 or MD5: 8 octets of key, then 8 of initialisation vector.
fn pbkdf1<D: Digest>(password: &[u8], salt: &[u8], iterations: u32) -> Secret {
    let mut output = D::new().chain_update(password).chain_update(salt).finalize();
    for _ in 1..iterations {
        output = D::digest(output);
    }
    let key = Zeroizing::new(output[..16].to_vec());
    output.as_mut_slice().zeroize();
    key
}
