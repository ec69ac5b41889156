//! The certificates and the private key that are converted.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::{ConvertError, character_list};
use crate::certificate::{
    Certificate, ContentKind, KeyEncoding, PrivateKey, ReadError, Timestamp, chain,
    files::{Passwords, PfxOptions},
    pfx::{self, PfxError},
    read::{Item, beside_certificates, decode, list_kinds, pkcs7_kind},
};

/// The most certificates that are put in the order of a chain: the search for the leaf is quadratic. More are a list of CAs.
const MAX_CHAIN: usize = 1000;

/// What PKCS#7 can hold that is no part of its signature: it is refused, as it would be in a file of its own.
const HELD: [&str; 2] = ["attribute certificates", "revocation lists"];

/// Whether private keys are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Read,
    Skip,
}

/// Certificates, and the private key of one of them or a private key only.
///
/// If the certificates are a chain, they are in its order: the leaf, its issuer, and so on; others follow. The leaf is the
/// certificate of the private key, or without one the only certificate that issued none of the others. Otherwise the order
/// is that of the input. A certificate that is given twice is kept once.
#[derive(Debug, Default)]
pub struct Bundle {
    certificates: Vec<Certificate>,
    key: Option<PrivateKey>,
    left_out: Vec<String>,
}

impl Bundle {
    /// Creates a bundle.
    ///
    /// # Errors
    /// Returns [`ConvertError::KeyMismatch`] if the key belongs to none of the certificates.
    pub fn new(certificates: Vec<Certificate>, key: impl Into<Option<PrivateKey>>) -> Result<Self, ConvertError> {
        let mut bundle = Self { certificates, key: key.into(), left_out: Vec::new() };
        bundle.arrange()?;
        Ok(bundle)
    }

    /// Reads everything in a file of any encoding: PEM, DER, base64 of either, PKCS#7, PFX.
    ///
    /// Text around PEM and the names in PFX files are not a part of the bundle. [`left_out`](Self::left_out) lists what else
    /// of certificates and keys is not.
    ///
    /// # Errors
    /// Returns [`ConvertError::Unsupported`] if the file has other objects, such as a certificate request or a revocation
    /// list, [`ConvertError::SeveralKeys`] if it has different private keys, [`ConvertError::KeyMismatch`] if the key belongs
    /// to none of the certificates, and other errors if a part cannot be read.
    pub fn read<'p>(bytes: &[u8], passwords: impl Into<Passwords<'p>>) -> Result<Self, ConvertError> {
        let mut bundle = Self::read_unchecked(bytes, passwords.into(), Keys::Read)?;
        bundle.arrange()?;
        Ok(bundle)
    }

    /// Reads the certificates in a file of any encoding, and skips its private keys: they may be encrypted, be several, or
    /// belong to other certificates. A file that has only private keys is an empty bundle.
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read), except those about private keys.
    pub fn read_certificates<'p>(bytes: &[u8], passwords: impl Into<Passwords<'p>>) -> Result<Self, ConvertError> {
        let mut bundle = Self::read_unchecked(bytes, passwords.into(), Keys::Skip)?;
        bundle.arrange()?;
        Ok(bundle)
    }

    /// Joins the bundles of several files, such as those of a certificate and of its private key.
    ///
    /// # Errors
    /// Returns [`ConvertError::SeveralKeys`] and [`ConvertError::KeyMismatch`], as [`read`](Self::read) does.
    pub fn join(bundles: impl IntoIterator<Item = Self>) -> Result<Self, ConvertError> {
        let mut joined = Self::default();
        for bundle in bundles {
            joined.certificates.extend(bundle.certificates);
            joined.left_out.extend(bundle.left_out);
            if let Some(key) = bundle.key {
                joined.add_key(key)?;
            }
        }
        joined.arrange()?;
        Ok(joined)
    }

    fn read_unchecked(bytes: &[u8], passwords: Passwords<'_>, keys: Keys) -> Result<Self, ConvertError> {
        let joined = character_list::joined(bytes);
        let items = decode(joined.as_ref().map_or(bytes, |text| text.as_slice()))?;
        let mut bundle = Self::default();
        for item in &items {
            bundle.add(item, passwords, keys)?;
        }
        let has_skipped = keys == Keys::Skip && items.iter().any(|item| item.kind.holds_private_key());
        if bundle.certificates.is_empty() && bundle.key.is_none() && !has_skipped {
            return Err(ConvertError::Unsupported(list_kinds(&items)));
        }
        Ok(bundle)
    }

    fn add(&mut self, item: &Item, passwords: Passwords<'_>, keys: Keys) -> Result<(), ConvertError> {
        let der = || {
            item.der.as_ref().map_err(|damage| match item.kind {
                ContentKind::Pfx => PfxError::Damaged(damage.reason().to_owned()).into(),
                ContentKind::Pkcs7 => ReadError::Pkcs7(damage.reason().to_owned()).into(),
                _ => ConvertError::Read(damage.clone().into()),
            })
        };
        let label = item.label.as_deref().unwrap_or_default();
        match item.kind {
            ContentKind::Certificate => {
                self.certificates.push(Certificate::from_der(der()?)?);
                if label.contains("TRUSTED") {
                    self.leave_out("the trust settings of OpenSSL");
                }
            }
            // The label does not tell signed data from other PKCS#7.
            ContentKind::Pkcs7 if pkcs7_kind(der()?) != ContentKind::Pkcs7 => {
                return Err(ConvertError::Unsupported(pkcs7_kind(der()?).to_string()));
            }
            ContentKind::Pkcs7 => {
                self.certificates.extend(Certificate::all_from_pkcs7(der()?)?);
                let others = beside_certificates(der()?)?;
                if let Some(held) = others.iter().find(|other| HELD.contains(other)) {
                    return Err(ConvertError::Unsupported((*held).to_owned()));
                }
                for other in others {
                    self.leave_out(&format!("the {other} of the PKCS#7"));
                }
            }
            ContentKind::PrivateKey | ContentKind::EncryptedPrivateKey if keys == Keys::Skip => {}
            ContentKind::PrivateKey | ContentKind::EncryptedPrivateKey => {
                self.add_key(PrivateKey::from_item(item, passwords.key)?)?;
            }
            ContentKind::Pfx => {
                let mut password = passwords.for_pfx();
                // The password of another file's key: then the default passwords are tried as without it.
                let is_of_key = passwords.pfx.is_none() && password.is_some();
                if is_of_key && matches!(pfx::read_contents(der()?, password), Err(PfxError::Password)) {
                    password = None;
                }
                let contents = match pfx::read_contents(der()?, password) {
                    Err(PfxError::Ambiguous(_) | PfxError::NoMatch | PfxError::Key(_)) if keys == Keys::Skip => {
                        self.certificates.extend(pfx::read_in_file_order(der()?, password)?);
                        return Ok(());
                    }
                    contents => contents?,
                };
                if !contents.others.is_empty() {
                    return Err(ConvertError::Unsupported(contents.others.join(", ")));
                }
                self.certificates.extend(contents.certificates);
                if let Some(key) = contents.key.filter(|_| keys == Keys::Read) {
                    self.add_key(key)?;
                }
            }
            // OpenSSL writes the curve before the key, which names it too.
            _ if label == "EC PARAMETERS" => {}
            ref other => return Err(ConvertError::Unsupported(other.to_string())),
        }
        Ok(())
    }

    fn add_key(&mut self, key: PrivateKey) -> Result<(), ConvertError> {
        match &self.key {
            Some(known) if known.public_key() != key.public_key() => Err(ConvertError::SeveralKeys),
            _ => {
                self.key = Some(key);
                Ok(())
            }
        }
    }

    fn leave_out(&mut self, what: &str) {
        if !self.left_out.iter().any(|known| known == what) {
            self.left_out.push(what.to_owned());
        }
    }

    /// Removes repeated certificates, checks that the key belongs to one of them, and puts them in the order of the chain.
    fn arrange(&mut self) -> Result<(), ConvertError> {
        let mut seen = HashSet::new();
        self.certificates.retain(|certificate| seen.insert(certificate.sha256_thumbprint()));
        let leaves = self.leaves();
        if self.certificates.is_empty() {
            return Ok(());
        }
        let leaf = match (leaves.as_slice(), &self.key) {
            ([], Some(_)) => {
                let subjects: Vec<_> = self.certificates.iter().map(ToString::to_string).collect();
                return Err(ConvertError::KeyMismatch(subjects.join(" or ")));
            }
            (&[leaf], _) | (&[leaf, ..], Some(_)) => leaf,
            _ => return Ok(()),
        };
        let leaf = self.certificates.remove(leaf);
        let mut chain = vec![leaf];
        if self.certificates.len() < MAX_CHAIN {
            chain.extend(chain::issuers(&chain[0], self.certificates.clone(), Timestamp::now()));
        }
        self.certificates.retain(|certificate| !chain.contains(certificate));
        self.certificates.splice(..0, chain);
        Ok(())
    }

    /// Returns the positions of the certificates that can be the leaf.
    fn leaves(&self) -> Vec<usize> {
        let certificates = &self.certificates;
        let is_leaf = |index: usize| {
            if let Some(key) = &self.key {
                return key.belongs_to(&certificates[index]);
            }
            let mut others = certificates.iter().enumerate().filter(|&(other, _)| other != index);
            others.all(|(_, other)| !other.names_issuer(&certificates[index]))
        };
        if self.key.is_none() && certificates.len() > MAX_CHAIN {
            return Vec::new();
        }
        (0..certificates.len()).filter(|&index| is_leaf(index)).collect()
    }

    /// Returns the certificates.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Returns the private key.
    #[must_use]
    pub fn key(&self) -> Option<&PrivateKey> {
        self.key.as_ref()
    }

    /// Returns what belonged to the certificates of the input and is not a part of the bundle, such as the signatures of a
    /// PKCS#7.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Selects the leaf certificate, without its issuers and the private key.
    ///
    /// # Errors
    /// Returns [`ConvertError::AmbiguousLeaf`] or [`ConvertError::NotAChain`] if it is not clear which certificate that is.
    pub fn only_leaf(mut self) -> Result<Self, ConvertError> {
        let leaves = self.leaves();
        match leaves.as_slice() {
            &[leaf] => {
                self.certificates.swap(0, leaf);
                self.certificates.truncate(1);
                self.key = None;
                Ok(self)
            }
            [] if self.certificates.is_empty() => Err(ConvertError::NoCertificate),
            [] => Err(ConvertError::NotAChain(self.certificates.len())),
            several => {
                let names = several.iter().map(|&index| self.certificates[index].to_string());
                Err(ConvertError::AmbiguousLeaf(names.collect()))
            }
        }
    }

    /// Selects the certificates, without the private key.
    ///
    /// # Errors
    /// Returns [`ConvertError::NoCertificate`] if there is none.
    pub fn only_certificates(mut self) -> Result<Self, ConvertError> {
        if self.certificates.is_empty() {
            return Err(ConvertError::NoCertificate);
        }
        self.key = None;
        Ok(self)
    }

    /// Selects the private key, without the certificates.
    ///
    /// # Errors
    /// Returns [`ConvertError::NoKey`] if there is none.
    pub fn only_key(mut self) -> Result<Self, ConvertError> {
        if self.key.is_none() {
            return Err(ConvertError::NoKey);
        }
        self.certificates.clear();
        Ok(self)
    }

    /// Checks that there are certificates and no private key, for a format that holds none.
    pub(super) fn check_no_key(&self, format: &'static str) -> Result<(), ConvertError> {
        match (self.certificates.as_slice(), &self.key) {
            ([], _) => Err(ConvertError::NoCertificate),
            (_, Some(_)) => Err(ConvertError::KeyNotHeld(format)),
            (_, None) => Ok(()),
        }
    }

    pub(super) fn certificates_pem(&self) -> String {
        self.certificates.iter().map(Certificate::to_pem).collect()
    }

    pub(super) fn key_pem(&self, encoding: KeyEncoding<'_>) -> Result<Option<Zeroizing<String>>, ConvertError> {
        Ok(self.key.as_ref().map(|key| key.encode_pem(encoding)).transpose()?)
    }

    /// Returns the certificates and then the private key in PEM.
    ///
    /// # Errors
    /// Returns [`ConvertError::Key`] if the private key cannot be encoded that way.
    pub fn to_pem(&self, key: KeyEncoding<'_>) -> Result<Zeroizing<String>, ConvertError> {
        let key = self.key_pem(key)?;
        let certificates = self.certificates_pem();
        Ok(Zeroizing::new([certificates.as_str(), key.as_ref().map_or("", |key| key.as_str())].concat()))
    }

    /// Returns the only certificate or the private key in DER.
    ///
    /// # Errors
    /// Returns [`ConvertError::SeveralCertificates`] or [`ConvertError::CertificateAndKey`] if there is more than one object,
    /// and [`ConvertError::Key`] if the private key cannot be encoded that way.
    pub fn to_der(&self, key: KeyEncoding<'_>) -> Result<Zeroizing<Vec<u8>>, ConvertError> {
        match (self.certificates.as_slice(), &self.key) {
            ([], Some(private_key)) => Ok(private_key.encode_der(key)?),
            ([certificate], None) => Ok(Zeroizing::new(certificate.der().to_vec())),
            ([], None) => Err(ConvertError::NoCertificate),
            (_, Some(_)) => Err(ConvertError::CertificateAndKey),
            (several, None) => Err(ConvertError::SeveralCertificates(several.len())),
        }
    }

    /// Returns a PFX file with the private key and all certificates.
    ///
    /// # Errors
    /// Returns [`ConvertError::NoKey`] or [`ConvertError::NoCertificate`] if one of them is missing, and
    /// [`ConvertError::Pfx`] if a part cannot be encoded.
    pub fn to_pfx(&self, options: PfxOptions<'_>) -> Result<Zeroizing<Vec<u8>>, ConvertError> {
        let key = self.key.as_ref().ok_or(ConvertError::NoKey)?;
        if self.certificates.is_empty() {
            return Err(ConvertError::NoCertificate);
        }
        Ok(Zeroizing::new(pfx::write(key, &self.certificates, options.password, options.encryption)?))
    }

    /// Returns a [truststore](pfx::write_truststore) for Java with the certificates.
    ///
    /// # Errors
    /// Returns [`ConvertError::KeyNotHeld`] if there is a private key, [`ConvertError::NoCertificate`] if there is only that,
    /// and [`ConvertError::Pfx`] if a part cannot be encoded.
    pub fn to_truststore(&self, password: &str) -> Result<Vec<u8>, ConvertError> {
        self.check_no_key("a truststore")?;
        Ok(pfx::write_truststore(&self.certificates, password)?)
    }
}
