//! Matching of the private keys and certificates of a PFX file.

use std::collections::{HashMap, hash_map::Entry};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1_SIGNING,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey,
};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::Oid;
use zeroize::Zeroizing;

use super::{
    archive::{Archive, Bag},
    error::PfxError,
};
use crate::certificate::{Certificate, der::DerReader, oid::oid_name, public_key::without_leading_zeros};

/// A private key and its certificates, the leaf first.
pub(super) struct Identity {
    /// The key as PKCS#8 in DER, if the file has one.
    #[cfg_attr(not(feature = "issue"), expect(dead_code, reason = "private keys are read with `issue`"))]
    pub(super) key: Option<Zeroizing<Vec<u8>>>,
    pub(super) certificates: Vec<Certificate>,
    /// What else is in the file.
    #[cfg_attr(not(feature = "issue"), expect(dead_code, reason = "conversions report it"))]
    pub(super) others: Vec<&'static str>,
}

impl Identity {
    /// Finds the private key that has a certificate.
    pub(super) fn of(archive: Archive) -> Result<Self, PfxError> {
        let mut others = archive.others;
        let certificates = certificates(archive.certificates)?;
        let mut by_public_key: HashMap<PublicKey, Vec<usize>> = HashMap::new();
        for (index, (certificate, _)) in certificates.iter().enumerate() {
            if let Some(public) = PublicKey::of_certificate(certificate) {
                by_public_key.entry(public).or_default().push(index);
            }
        }
        let mut pairs: Vec<(Key, usize)> = Vec::new();
        let mut without: Option<Key> = None;
        for key in Key::distinct(archive.keys) {
            match key.leaf(&certificates, &by_public_key) {
                Some(leaf) => pairs.push((key, leaf)),
                // An unsupported key is reported before one that has no certificate.
                None => without = without.filter(|other| other.public.is_none()).or(Some(key)),
            }
        }
        if pairs.len() > 1 {
            let choice = |(key, leaf): &(Key, usize)| key.describe(&certificates[*leaf].0);
            return Err(PfxError::Ambiguous(pairs.iter().map(choice).collect()));
        }
        let mut certificates: Vec<_> = certificates.into_iter().map(|(certificate, _)| certificate).collect();
        let key = match (pairs.pop(), without) {
            (Some((key, leaf)), without) => {
                others.extend(without.map(|_| "a private key without a certificate"));
                certificates[..=leaf].rotate_right(1);
                Some(key.der)
            }
            (None, Some(Key { public: None, algorithm, .. })) => {
                return Err(PfxError::Unsupported(format!("a private key of the kind {algorithm}")));
            }
            (None, Some(_)) => return Err(PfxError::NoMatch),
            (None, None) => None,
        };
        Ok(Self { key, certificates, others })
    }
}

/// A certificate and its `localKeyId`.
type Identified = (Certificate, Option<Vec<u8>>);

/// Returns the certificates, each once, with its `localKeyId`. There is at least one.
pub(super) fn certificates(bags: Vec<Bag>) -> Result<Vec<Identified>, PfxError> {
    let mut certificates: Vec<Identified> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for Bag { der, local_key_id, .. } in bags {
        match places.entry(der.to_vec()) {
            Entry::Occupied(place) => {
                let known_id = &mut certificates[*place.get()].1;
                *known_id = known_id.take().or(local_key_id);
            }
            Entry::Vacant(place) => {
                place.insert(certificates.len());
                certificates.push((Certificate::from_der(&der)?, local_key_id));
            }
        }
    }
    if certificates.is_empty() { Err(PfxError::NoCertificate) } else { Ok(certificates) }
}

struct Key {
    der: Zeroizing<Vec<u8>>,
    /// The algorithm as an object identifier, and by name.
    oid: Option<String>,
    algorithm: String,
    /// `None` for unsupported kinds of keys that do not store it.
    public: Option<PublicKey>,
    curve: Option<Curve>,
    local_key_ids: Vec<Vec<u8>>,
    friendly_name: Option<String>,
}

impl Key {
    /// Returns the keys, each once.
    fn distinct(bags: Vec<Bag>) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        let mut places = HashMap::new();
        for Bag { der, local_key_id, friendly_name } in bags {
            let public = PublicKey::of(&der);
            let place = places.entry(public.clone().ok_or_else(|| Sha256::digest(&*der))).or_insert(keys.len());
            if let Some(known) = keys.get_mut(*place) {
                known.local_key_ids.extend(local_key_id);
                known.friendly_name = known.friendly_name.take().or(friendly_name);
            } else {
                keys.push(Self {
                    oid: algorithm(&der).and_then(|mut algorithm| algorithm.oid()),
                    algorithm: algorithm_name(&der),
                    public,
                    curve: algorithm(&der).and_then(Curve::of),
                    local_key_ids: local_key_id.into_iter().collect(),
                    friendly_name,
                    der,
                });
            }
        }
        keys
    }

    /// Returns the index of the certificate of this key: of several, the first with its `localKeyId`, otherwise the first.
    fn leaf(&self, certificates: &[Identified], by_public_key: &HashMap<PublicKey, Vec<usize>>) -> Option<usize> {
        let has_id = |index: &usize| {
            certificates[*index].1.as_ref().is_some_and(|local_key_id| self.local_key_ids.contains(local_key_id))
        };
        if let Some(public) = &self.public {
            // The same coordinates on two curves are two keys. Curves with explicit parameters are not compared.
            let on_same_curve = |index: &usize| match (&self.curve, Curve::of_certificate(&certificates[*index].0)) {
                (Some(Curve::Explicit), Some(_)) | (Some(_), Some(Curve::Explicit)) => true,
                (own, other) => *own == other,
            };
            let mut own = by_public_key.get(public)?.iter().copied().filter(on_same_curve);
            own.clone().find(has_id).or_else(|| own.next())
        } else {
            // Without the public key, only the algorithm can be compared.
            let mut of_kind = (0..certificates.len()).filter(|&index| {
                let key = DerReader::new(certificates[index].0.public_key()).inside(0x30);
                let kind = key.and_then(|mut key| key.inside(0x30)?.oid());
                kind.is_some() && kind == self.oid
            });
            let only = of_kind.clone().next().filter(|_| of_kind.clone().count() == 1);
            of_kind.find(has_id).or(only)
        }
    }

    /// Describes the key for a choice among several, without secrets.
    fn describe(&self, certificate: &Certificate) -> String {
        let subject = match certificate.subject().to_string() {
            empty if empty.is_empty() => "no subject".to_owned(),
            subject => subject,
        };
        let name = self.friendly_name.as_deref().map(|name| {
            let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            format!("friendly name {}, ", name.chars().map(printable).collect::<String>())
        });
        format!("{subject} ({}SHA-1 thumbprint {})", name.unwrap_or_default(), certificate.sha1_thumbprint())
    }
}

/// The curve of an EC key.
#[derive(PartialEq, Eq)]
enum Curve {
    /// A named curve; holds its object identifier.
    Named(String),
    /// A curve with explicit parameters (RFC 3279 section 2.3.5).
    Explicit,
}

impl Curve {
    /// Reads the curve of an algorithm. `None` if it is not EC, or its parameters are malformed.
    fn of(mut algorithm: DerReader<'_>) -> Option<Self> {
        algorithm.oid().filter(|oid| oid == EC)?;
        algorithm.oid().map(Self::Named).or_else(|| algorithm.inside(0x30).map(|_| Self::Explicit))
    }

    fn of_certificate(certificate: &Certificate) -> Option<Self> {
        DerReader::new(certificate.public_key()).inside(0x30)?.inside(0x30).and_then(Self::of)
    }
}

/// A public key that can be compared whichever way it is encoded.
#[derive(Clone, PartialEq, Eq, Hash)]
enum PublicKey {
    /// The modulus and the public exponent, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point on a curve: whether its second coordinate is odd, and its first coordinate.
    Point(bool, Vec<u8>),
    /// A public key of another algorithm.
    Bits(Vec<u8>),
}

const RSA: [&str; 3] = ["1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7", "1.2.840.113549.1.1.10"];
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";

/// Returns whether an uncompressed point is not on its curve. It is not a key then, even if a key has its first coordinate.
fn is_off_curve(curve: Option<&Curve>, point: &[u8]) -> bool {
    let Some(Curve::Named(curve)) = curve else { return false };
    let algorithm = match curve.as_str() {
        "1.2.840.10045.3.1.7" => &ECDSA_P256_SHA256_ASN1,
        "1.3.132.0.34" => &ECDSA_P384_SHA384_ASN1,
        "1.3.132.0.35" => &ECDSA_P521_SHA512_ASN1,
        "1.3.132.0.10" => &ECDSA_P256K1_SHA256_ASN1,
        _ => return false,
    };
    point.first() == Some(&4) && ParsedPublicKey::new(algorithm, point).is_err()
}

impl PublicKey {
    /// Returns the public key of a private key in PKCS#8 (RFC 5958).
    fn of(pkcs8: &[u8]) -> Option<Self> {
        let mut info = DerReader::new(pkcs8).inside(0x30)?;
        info.number()?;
        let oid = info.inside(0x30)?.oid()?;
        let private = info.content(0x04)?;
        if RSA.contains(&oid.as_str()) {
            let mut key = DerReader::new(private).inside(0x30)?;
            key.number()?;
            return Self::rsa(key);
        }
        if oid == ED25519 {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
            return Some(Self::Bits(pair.public_key().as_ref().to_vec()));
        }
        // Version 2 of PKCS#8 may store the public key, an implicit BIT STRING, after the attributes.
        info.content(0xa0);
        let stored = info.content(0x81);
        if oid != EC {
            return stored.and_then(|bits| bits.split_first()).map(|(_, bits)| Self::Bits(bits.to_vec()));
        }
        let curves = [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P521_SHA512_ASN1_SIGNING,
            &ECDSA_P256K1_SHA256_ASN1_SIGNING,
        ];
        let computed = curves.into_iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, pkcs8).ok());
        if let Some(pair) = computed {
            return Self::point(pair.public_key().as_ref());
        }
        let mut key = DerReader::new(private).inside(0x30)?;
        key.number()?;
        key.content(0x04)?;
        key.content(0xa0);
        let within = key.inside(0xa1).and_then(|mut bits| bits.content(0x03));
        within.or(stored).and_then(|bits| bits.split_first()).and_then(|(_, point)| Self::point(point))
    }

    fn of_certificate(certificate: &Certificate) -> Option<Self> {
        let mut info = DerReader::new(certificate.public_key()).inside(0x30)?;
        let mut algorithm = info.inside(0x30)?;
        let oid = algorithm.oid()?;
        let (_, bits) = info.content(0x03)?.split_first()?;
        if RSA.contains(&oid.as_str()) {
            Self::rsa(DerReader::new(bits).inside(0x30)?)
        } else if oid == EC {
            Self::point(bits).filter(|_| !is_off_curve(Curve::of_certificate(certificate).as_ref(), bits))
        } else {
            Some(Self::Bits(bits.to_vec()))
        }
    }

    fn rsa(mut key: DerReader<'_>) -> Option<Self> {
        let mut number = || {
            let content = key.content(0x02)?;
            Some(without_leading_zeros(content).to_vec())
        };
        Some(Self::Rsa(number()?, number()?))
    }

    /// Reads a point in the encodings of SEC 1 section 2.3.3: compressed, uncompressed, hybrid.
    fn point(point: &[u8]) -> Option<Self> {
        let (first, coordinates) = point.split_first()?;
        match first {
            2 | 3 => Some(Self::Point(first & 1 == 1, coordinates.to_vec())),
            4 | 6 | 7 if coordinates.len() % 2 == 0 => {
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                Some(Self::Point(y.last()? & 1 == 1, x.to_vec()))
            }
            _ => None,
        }
    }
}

/// Reads the algorithm of a private key in PKCS#8.
fn algorithm(pkcs8: &[u8]) -> Option<DerReader<'_>> {
    let mut info = DerReader::new(pkcs8).inside(0x30)?;
    info.number()?;
    info.inside(0x30)
}

/// Returns the name of a private key's algorithm, with the curve of an EC key.
fn algorithm_name(pkcs8: &[u8]) -> String {
    let name = |content: &[u8]| oid_name(&Oid::new(content.to_vec().into()));
    let Some(mut algorithm) = algorithm(pkcs8) else { return "that is not PKCS#8".to_owned() };
    match (algorithm.content(0x06).map(name), algorithm.content(0x06).map(name)) {
        (Some(kind), Some(curve)) => format!("{kind} on {curve}"),
        (Some(kind), None) => kind,
        (None, _) => "that is not PKCS#8".to_owned(),
    }
}
