//! Why a service would refuse a certificate.

use std::{fmt, time::Duration};

use super::{
    Certificate, ChainError, DeviceId, HashAlgorithm, PublicKeyAlgorithm, Timestamp, chain, timestamp::moment,
};

/// How long before its end a certificate is reported.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A reason why IoT Central or the Device Provisioning Service would refuse a certificate, now or soon.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objection {
    /// The certificate is not valid at that time, or a CA certificate that may not sign.
    Invalid(ChainError),
    /// The certificate expires within 30 days, at that time.
    ExpiresSoon(Timestamp),
    /// The key is of a kind that is not [accepted](PublicKeyAlgorithm::is_accepted).
    Key(PublicKeyAlgorithm),
    /// The hash of the signature is broken, such as SHA-1.
    WeakSignature(HashAlgorithm),
    /// The certificate is not version 3, and so has no extensions that state its purpose.
    Version(u32),
    /// A critical extension that [chain validation](super::chain) does not process.
    CriticalExtension(String),
    /// An extension is malformed or occurs more than once.
    MalformedExtension {
        /// The extension, by name or object identifier.
        extension: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A leaf has no common name, which must be the registration ID.
    NoCommonName,
    /// The common name of a leaf is not a valid registration ID; says why.
    CommonName(String),
    /// The extended key usage of a leaf excludes client authentication.
    NoClientAuthentication,
    /// The key usage of a leaf excludes digital signatures, which TLS needs.
    NoDigitalSignature,
    /// A leaf is self-signed: no enrollment group can accept it, only an individual attestation.
    SelfSignedLeaf,
}

/// Returns every reason why a service would refuse a certificate at that time.
#[must_use]
pub fn objections(certificate: &Certificate, at: Timestamp) -> Vec<Objection> {
    let is_authority = certificate.basic_constraints().is_some_and(|constraints| constraints.authority);
    let mut found = Vec::new();
    let may_sign = if is_authority { chain::check_may_sign(certificate) } else { Ok(()) };
    match may_sign.and_then(|()| chain::check_validity(certificate, at)) {
        Err(error) => found.push(Objection::Invalid(error)),
        Ok(()) if certificate.not_after().duration_since(at) < SOON => {
            found.push(Objection::ExpiresSoon(certificate.not_after()));
        }
        Ok(()) => {}
    }
    if !certificate.public_key_algorithm().is_accepted() {
        found.push(Objection::Key(certificate.public_key_algorithm().clone()));
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
        push_leaf_objections(certificate, &mut found);
    }
    found
}

fn push_leaf_objections(certificate: &Certificate, found: &mut Vec<Objection>) {
    match certificate.subject().common_name().map(DeviceId::new) {
        None => found.push(Objection::NoCommonName),
        Some(Err(error)) => found.push(Objection::CommonName(error.to_string())),
        Some(Ok(_)) => {}
    }
    // A malformed extension has its own objection.
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
            Self::ExpiresSoon(end) => write!(f, "it expires within 30 days, at {}", moment(*end)),
            Self::Key(algorithm) => {
                write!(
                    f,
                    "its key is {algorithm}; the services accept RSA of 2048 bits or more, and EC on P-256, P-384 or P-521"
                )
            }
            Self::WeakSignature(hash) => write!(f, "it is signed with {hash}, which is broken"),
            Self::Version(version) => write!(f, "it is of X.509 version {version}; version 3 is needed"),
            Self::CriticalExtension(extension) => {
                write!(f, "it has a critical extension that chain validation does not process: {extension}")
            }
            Self::MalformedExtension { extension, reason } => {
                write!(f, "its extension {extension} is malformed: {reason}")
            }
            Self::NoCommonName => f.write_str("it has no common name, which must be the registration ID of the device"),
            Self::CommonName(reason) => write!(f, "its common name is not a valid registration ID: {reason}"),
            Self::NoClientAuthentication => f.write_str("its extended key usage excludes client authentication"),
            Self::NoDigitalSignature => f.write_str("its key usage excludes digital signatures, which TLS needs"),
            Self::SelfSignedLeaf => f.write_str(
                "it is self-signed: no enrollment group accepts it, only an individual attestation of one device",
            ),
        }
    }
}
