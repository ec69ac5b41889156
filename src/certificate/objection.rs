//! What a service would dislike about a certificate.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::{Certificate, ChainError, DeviceId, HashAlgorithm, PublicKeyAlgorithm, chain};

/// How soon an end is worth a word.
const SOON: Duration = Duration::days(30);

/// A reason for which IoT Central or the Device Provisioning Service would refuse a certificate, or soon will.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objection {
    /// It is out of its time, or an authority that may not sign.
    Invalid(ChainError),
    /// It runs out within 30 days, at the moment given.
    ExpiresSoon(OffsetDateTime),
    /// The key is of a kind that is not accepted: RSA under 2048 bits, or neither RSA nor a NIST curve.
    Key(PublicKeyAlgorithm),
    /// It is signed with a hash that is broken, such as SHA-1, whichever algorithm uses it.
    WeakSignature(HashAlgorithm),
    /// It is a version 1 certificate, without the extensions that say what it is for.
    Version(u32),
    /// A critical extension that [chain validation](super::chain) does not process.
    CriticalExtension(String),
    /// An extension that cannot be read or that occurs more than once.
    MalformedExtension {
        /// The extension, by name or object identifier.
        extension: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A leaf that has no common name, so that no registration id can equal it.
    NoCommonName,
    /// A leaf whose common name cannot be a registration id, and why.
    CommonName(String),
    /// A leaf whose extended key usage leaves client authentication out.
    NoClientAuthentication,
    /// A leaf whose key usage leaves digital signatures out, which TLS needs.
    NoDigitalSignature,
    /// A self-signed leaf: no enrollment group can accept it, only an individual attestation.
    SelfSignedLeaf,
}

/// Everything a service would dislike about this certificate at that moment.
#[must_use]
pub fn objections(certificate: &Certificate, at: OffsetDateTime) -> Vec<Objection> {
    let is_authority = certificate.basic_constraints().is_some_and(|constraints| constraints.authority);
    let mut found = Vec::new();
    let may_sign = if is_authority { chain::check_may_sign(certificate) } else { Ok(()) };
    match may_sign.and_then(|()| chain::check_validity(certificate, at)) {
        Err(error) => found.push(Objection::Invalid(error)),
        Ok(()) if certificate.not_after() - at < SOON => found.push(Objection::ExpiresSoon(certificate.not_after())),
        Ok(()) => {}
    }
    match certificate.public_key_algorithm() {
        PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521 => {}
        PublicKeyAlgorithm::Rsa { bits } if *bits >= 2048 => {}
        other => found.push(Objection::Key(other.clone())),
    }
    if let Some(hash) = certificate.signature_algorithm().hash().filter(|hash| hash.is_weak()) {
        found.push(Objection::WeakSignature(hash));
    }
    if certificate.version() != 3 {
        found.push(Objection::Version(certificate.version()));
    }
    found.extend(certificate.malformed_extensions().iter().map(|malformed| Objection::MalformedExtension {
        extension: malformed.name.clone(),
        reason: malformed.reason.clone(),
    }));
    if let Some(extension) = certificate.unknown_critical_extension() {
        found.push(Objection::CriticalExtension(extension.to_owned()));
    }
    if !is_authority {
        object_to_leaf(certificate, &mut found);
    }
    found
}

fn object_to_leaf(certificate: &Certificate, found: &mut Vec<Objection>) {
    match certificate.subject().common_name().map(DeviceId::new) {
        None => found.push(Objection::NoCommonName),
        Some(Err(error)) => found.push(Objection::CommonName(error.to_string())),
        Some(Ok(_)) => {}
    }
    // A malformed one has its own objection.
    let is_readable = certificate.extended_key_usage().is_some_and(|usages| !usages.is_empty());
    if is_readable && !certificate.allows_client_authentication() {
        found.push(Objection::NoClientAuthentication);
    }
    if certificate.key_usage().is_some_and(|usage| !usage.digital_signature) {
        found.push(Objection::NoDigitalSignature);
    }
    if certificate.is_self_signed() {
        found.push(Objection::SelfSignedLeaf);
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::ExpiresSoon(end) => write!(f, "it expires within 30 days, at {}", chain::moment(*end)),
            Self::Key(algorithm) => {
                write!(f, "its key is {algorithm}; the services take RSA of 2048 bits or more and the NIST curves")
            }
            Self::WeakSignature(hash) => write!(f, "it is signed with {hash}, which is broken"),
            Self::Version(version) => write!(f, "it is of X.509 version {version}; version 3 is needed"),
            Self::CriticalExtension(extension) => {
                write!(f, "it has a critical extension that chain validation does not process: {extension}")
            }
            Self::MalformedExtension { extension, reason } => {
                write!(f, "its extension {extension} is malformed: {reason}")
            }
            Self::NoCommonName => f.write_str("it has no common name, which has to equal the device's registration id"),
            Self::CommonName(reason) => write!(f, "its common name cannot be a registration id: {reason}"),
            Self::NoClientAuthentication => f.write_str("its extended key usage leaves out client authentication"),
            Self::NoDigitalSignature => f.write_str("its key usage leaves out digital signatures, which TLS needs"),
            Self::SelfSignedLeaf => f.write_str(
                "it is self-signed: no enrollment group accepts it, only an individual attestation of one device",
            ),
        }
    }
}
