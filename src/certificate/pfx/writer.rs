//! Writing PFX files.

use aws_lc_rs::error::Unspecified;
use p12_keystore::{
    EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKeyChain, error::Error as P12Error,
};

use super::{error::PfxError, java};
use crate::certificate::{
    Certificate, KeyError, PrivateKey,
    der::{CONTEXT_0, OCTET_STRING, SET, der_frame, der_sequence},
    pbe::{self, Encryption, Password},
};

/// The encryption of a PFX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PfxEncryption {
    /// PBES2 with AES-256 and HMAC-SHA-256, the default of OpenSSL 3.
    #[default]
    Aes256,
    /// PKCS#12 PBE with triple DES and HMAC-SHA-1, which Windows Server 2016 and macOS still need. It is weak.
    TripleDes,
}

/// The number of iterations of key derivation: the default of Java, and the minimum that OpenSSL's documentation
/// recommends.
const ITERATIONS: u32 = 10_000;

/// Links the key to its certificate. Any value works that is the same on both.
const LOCAL_KEY_ID: &[u8] = b"1";

/// Writes a key, its certificate and the certificates above it as a PFX file.
///
/// # Errors
/// Returns [`PfxError::Write`] if a part cannot be encoded.
pub fn write<'a>(
    key: &PrivateKey,
    chain: impl IntoIterator<Item = &'a Certificate>,
    password: &str,
    encryption: PfxEncryption,
) -> Result<Vec<u8>, PfxError> {
    let chain: Vec<_> = chain.into_iter().collect();
    let key = key.to_pkcs8_der().map_err(|error: KeyError| PfxError::Write(error.to_string()))?;
    let names: Vec<_> = chain.iter().map(|certificate| certificate.subject().to_string()).collect();
    if names.iter().map(String::as_str).chain([password]).all(is_in_bmp) {
        write_with_p12_keystore(&key, &chain, password, encryption)
            .map_err(|_| PfxError::Write("its parts cannot be encoded".to_owned()))
    } else {
        write_outside_bmp(&key, &chain, &names, password, encryption)
            .map_err(|_| PfxError::Write("the cryptographic library failed".to_owned()))
    }
}

/// Writes certificates as a truststore for Java: a PFX file without a private key, in which Java's `KeyStore` sees an entry
/// for each certificate.
///
/// Java ignores certificates without a private key unless they have an attribute of its own, which other programs ignore.
/// The alias of an entry is the common name in lower case, or the SHA-1 thumbprint without one; a number is added to one that
/// is taken. A certificate that is given twice has one entry.
///
/// # Errors
/// Returns [`PfxError::NoCertificate`] if there is none, [`PfxError::Truststore`] if Java could not open the file, because of
/// the password or because it cannot parse a certificate, and [`PfxError::Write`] if a part cannot be encoded.
pub fn write_truststore<'a>(
    certificates: impl IntoIterator<Item = &'a Certificate>,
    password: &str,
) -> Result<Vec<u8>, PfxError> {
    java::check_password(password)?;
    let encode = |_: P12Error| PfxError::Write("its parts cannot be encoded".to_owned());
    let mut store = KeyStore::new();
    let mut written: Vec<&Certificate> = Vec::new();
    for certificate in certificates {
        if !written.contains(&certificate) {
            java::check_certificate(certificate)?;
            let entry = p12_keystore::Certificate::from_der(certificate.der()).map_err(encode)?;
            store.add_entry(&alias(certificate, &store), KeyStoreEntry::Certificate(entry));
            written.push(certificate);
        }
    }
    if written.is_empty() {
        return Err(PfxError::NoCertificate);
    }
    let writer = store.writer(password).encryption_iterations(ITERATIONS).mac_iterations(ITERATIONS);
    writer.write().map_err(encode)
}

/// Returns an alias that the store does not have. Java ignores the case of aliases.
fn alias(certificate: &Certificate, store: &KeyStore) -> String {
    let name = certificate.subject().common_name().unwrap_or_default().trim().to_lowercase();
    let mut name: String = name.chars().filter(|&c| !c.is_control() && u32::from(c) <= 0xffff).collect();
    if name.is_empty() {
        name = certificate.sha1_thumbprint().to_string().to_lowercase();
    }
    let others = (2_u32..).map(|number| format!("{name} {number}"));
    let free = std::iter::once(name.clone()).chain(others).find(|alias| store.entry(alias).is_none());
    free.unwrap_or(name)
}

fn is_in_bmp(text: &str) -> bool {
    text.chars().all(|c| u32::from(c) <= 0xffff)
}

fn write_with_p12_keystore(
    key: &[u8],
    chain: &[&Certificate],
    password: &str,
    encryption: PfxEncryption,
) -> Result<Vec<u8>, P12Error> {
    let key = p12_keystore::PrivateKey::from_der(key)?;
    let certificates = chain
        .iter()
        .map(|certificate| p12_keystore::Certificate::from_der(certificate.der()))
        .collect::<Result<Vec<_>, _>>()?;
    let alias = certificates.first().map(|leaf| leaf.subject().to_owned()).unwrap_or_default();
    let mut store = KeyStore::new();
    store.add_entry(&alias, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(LOCAL_KEY_ID, key, certificates)));
    let (encryption, mac) = match encryption {
        PfxEncryption::Aes256 => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        PfxEncryption::TripleDes => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
    };
    store
        .writer(password)
        .encryption_algorithm(encryption)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(mac)
        .mac_iterations(ITERATIONS)
        .write()
}

/// Writes the same file as p12-keystore would, for passwords and names with characters outside the BMP, which p12-keystore
/// refuses. Such characters become surrogate pairs, as in OpenSSL.
fn write_outside_bmp(
    key: &[u8],
    chain: &[&Certificate],
    names: &[String],
    password: &str,
    encryption: PfxEncryption,
) -> Result<Vec<u8>, Unspecified> {
    let password = Password::new(password);
    let encryption = match encryption {
        PfxEncryption::Aes256 => Encryption::Aes256,
        PfxEncryption::TripleDes => Encryption::TripleDes,
    };
    let mut certificates = Vec::new();
    for (index, (certificate, name)) in chain.iter().zip(names).enumerate() {
        let value = der_frame(CONTEXT_0, &[&der_frame(OCTET_STRING, &[certificate.der()])]);
        let bag = der_frame(CONTEXT_0, &[&der_sequence(&[oid::X509_CERTIFICATE, &value])]);
        let attributes = attributes(name, index == 0);
        certificates.extend(der_sequence(&[oid::CERTIFICATE_BAG, &bag, &attributes]));
    }
    let (algorithm, encrypted) = pbe::encrypt(encryption, &der_sequence(&[&certificates]), &password, ITERATIONS)?;
    let content = der_sequence(&[oid::DATA, &algorithm, &der_frame(ENCRYPTED_CONTENT, &[&encrypted])]);
    let certificates = content_info(oid::ENCRYPTED_DATA, &der_sequence(&[VERSION_0, &content]));

    let (algorithm, encrypted) = pbe::encrypt(encryption, key, &password, ITERATIONS)?;
    let key = der_sequence(&[&algorithm, &der_frame(OCTET_STRING, &[&encrypted])]);
    let attributes = attributes(names.first().map_or("", String::as_str), true);
    let key = der_sequence(&[oid::SHROUDED_KEY_BAG, &der_frame(CONTEXT_0, &[&key]), &attributes]);
    let keys = content_info(oid::DATA, &der_frame(OCTET_STRING, &[&der_sequence(&[&key])]));

    let content = der_sequence(&[&certificates, &keys]);
    let mac = pbe::mac(encryption, &content, &password, ITERATIONS)?;
    let content = content_info(oid::DATA, &der_frame(OCTET_STRING, &[&content]));
    Ok(der_sequence(&[VERSION_3, &content, &mac]))
}

const BMP_STRING: u8 = 0x1e;
/// `[0] IMPLICIT OCTET STRING`.
const ENCRYPTED_CONTENT: u8 = 0x80;
const VERSION_0: &[u8] = b"\x02\x01\x00";
const VERSION_3: &[u8] = b"\x02\x01\x03";

/// Object identifiers with tag and length.
mod oid {
    pub(super) const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    pub(super) const ENCRYPTED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06";
    pub(super) const SHROUDED_KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";
    pub(super) const CERTIFICATE_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x03";
    pub(super) const X509_CERTIFICATE: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x09\x16\x01";
    pub(super) const FRIENDLY_NAME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x14";
    pub(super) const LOCAL_KEY_ID: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x15";
}

fn content_info(kind: &[u8], content: &[u8]) -> Vec<u8> {
    der_sequence(&[kind, &der_frame(CONTEXT_0, &[content])])
}

/// Encodes the attributes of a bag, in the order of DER.
fn attributes(friendly_name: &str, has_key: bool) -> Vec<u8> {
    let attribute = |kind: &[u8], value: &[u8]| der_sequence(&[kind, &der_frame(SET, &[value])]);
    let utf16: Vec<u8> = friendly_name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let mut attributes = vec![attribute(oid::FRIENDLY_NAME, &der_frame(BMP_STRING, &[&utf16]))];
    if has_key {
        attributes.push(attribute(oid::LOCAL_KEY_ID, &der_frame(OCTET_STRING, &[LOCAL_KEY_ID])));
    }
    attributes.sort();
    let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
    der_frame(SET, &attributes)
}
