//! Why a certificate authority cannot be used, or a certificate cannot be issued.

use super::{ChainError, KeyError, Lifetime, NameError, PublicKeyAlgorithm, ReadError, key::RcgenKey};

/// The reason why a certificate authority cannot be used, or did not issue a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The private key belongs to none of the certificates; holds their subjects.
    #[error("the private key does not belong to the certificate {0}")]
    KeyMismatch(String),
    /// Keys of the certificate's kind are not supported.
    #[error("the public key of the certificate {subject}, {key}, is not supported")]
    UnsupportedPublicKey {
        /// The subject of the certificate.
        subject: String,
        /// Its public key.
        key: PublicKeyAlgorithm,
    },
    /// A new CA would have the key of a CA above it; holds the subject of that.
    #[error("the key is that of {0}, and a CA needs a key of its own")]
    SameKey(String),
    /// The certificate may not sign, or is not valid at the time of issue.
    #[error("{0}")]
    Unfit(#[source] ChainError),
    /// A path length constraint allows no further CA below the one that signs; holds the subject of the certificate
    /// with the constraint.
    #[error("{0} allows no further CA below it: its path length is used up")]
    PathLength(String),
    /// The new certificate would not be valid under the certificates above it, so it was not issued.
    #[error("no certificate was issued for {subject}, since it would not be valid: {error}")]
    Invalid {
        /// The subject of the certificate.
        subject: String,
        /// Why it would not be valid.
        error: Box<ChainError>,
    },
    /// The CAs above an Edge CA do not allow server certificates for the host name of the device.
    #[error("a server certificate of the device would not be valid for {hostname}: {error}")]
    Hostname {
        /// The host name.
        hostname: String,
        /// Why the certificate would not be valid.
        error: Box<ChainError>,
    },
    /// The CAs above an Edge CA do not allow server certificates with the ID of a module as a DNS name.
    #[error(
        "the server certificates of the device would not be valid: IoT Edge adds the module ID {module} to them as a DNS name: \
         {error}"
    )]
    ModuleName {
        /// The ID of the module.
        module: String,
        /// Why the certificate would not be valid.
        error: Box<ChainError>,
    },
    /// An Edge CA would expire too soon, together with its issuer.
    #[error(
        "no certificate was issued for {subject}, since its issuer or a CA above it expires at {not_after}: an Edge CA \
         needs at least 90 days, unless fewer are requested"
    )]
    ShortValidity {
        /// The subject of the certificate.
        subject: String,
        /// When the issuer or a CA above it expires.
        not_after: String,
    },
    /// The lifetime is empty, or ends after the year 9999.
    #[error("a certificate cannot be valid for {0}: at least one day, and not past the year 9999")]
    Lifetime(Lifetime),
    /// The name does not fit a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A subject alternative name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    AlternativeName(String),
    /// A server certificate has no subject alternative name; holds its common name.
    #[error(
        "no client would accept a server certificate for {0:?}: that is neither a DNS name nor an IP address, and there \
         is no subject alternative name"
    )]
    NoAlternativeName(String),
    /// The key could not be read, made, encoded or used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificates of the authority cannot be read.
    #[error("the certificate of the CA cannot be read: {0}")]
    Read(#[source] ReadError),
    /// The new certificate does not read back.
    #[error("the new certificate is not sound: {0}")]
    Certificate(#[from] ReadError),
    /// The random number generator of the system failed.
    #[error("the random number generator of the system failed")]
    Random,
    /// The new certificate could not be encoded or signed.
    #[error("the certificate could not be encoded or signed")]
    Encoding,
}

impl AuthorityError {
    /// Returns why rcgen did not issue a certificate with that key. Its own text names its types, and every input that it
    /// could refuse is checked before.
    pub(super) fn encoding(_: rcgen::Error, key: &RcgenKey<'_>) -> Self {
        key.failure().map_or(Self::Encoding, Self::Key)
    }
}
