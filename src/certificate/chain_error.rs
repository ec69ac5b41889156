//! Why a chain is not valid.

use super::{PublicKeyAlgorithm, Timestamp, timestamp::moment};

/// The reason why a chain or a proof of possession is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No certificate was given.
    #[error("there is no certificate to check")]
    Empty,
    /// No trust anchor was given.
    #[error("there is no certificate for the chain to lead to")]
    NoAnchor,
    /// A certificate of the path has expired.
    #[error("{subject} expired at {}; the check was for {}", moment(*.not_after), moment(*.at))]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// When it expired.
        not_after: Timestamp,
        /// The time that was checked.
        at: Timestamp,
    },
    /// A certificate of the path is not valid yet, or the clock is wrong.
    #[error("{subject} is not valid before {}; the check was for {}: is the clock right?", moment(*.not_before), moment(*.at))]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// When its validity begins.
        not_before: Timestamp,
        /// The time that was checked.
        at: Timestamp,
    },
    /// A certificate that signed another is not a CA certificate.
    #[error("{subject} is not an authority: its basic constraints do not say CA:TRUE")]
    NotAnAuthority {
        /// The certificate's subject.
        subject: String,
    },
    /// The key usage of a CA certificate excludes certificate signing.
    #[error("{subject} may not sign certificates: its key usage lacks keyCertSign")]
    MayNotSign {
        /// The certificate's subject.
        subject: String,
    },
    /// The issuer name matches, but another key made the signature.
    #[error("{subject} was not signed by the key of {expected}")]
    WrongSigner {
        /// The certificate's subject.
        subject: String,
        /// The subject of the certificate whose key should have signed.
        expected: String,
    },
    /// The extended key usage of a CA certificate excludes client authentication.
    #[error("{subject} may not issue client certificates: its extended key usage lacks client authentication")]
    NotForClients {
        /// The subject of the CA certificate.
        subject: String,
    },
    /// The extended key usage of a CA certificate excludes server authentication.
    #[error("{subject} may not issue server certificates: its extended key usage lacks server authentication")]
    NotForServers {
        /// The subject of the CA certificate.
        subject: String,
    },
    /// The extended key usage of a CA certificate excludes both client and server authentication.
    #[error(
        "{subject} may issue certificates neither for clients nor for servers: its extended key usage lacks both client and \
         server authentication"
    )]
    NotForTls {
        /// The subject of the CA certificate.
        subject: String,
    },
    /// A CA certificate allows server certificates by `anyExtendedKeyUsage` only, which OpenSSL and webpki do not accept.
    #[error(
        "clients would refuse server certificates of {subject}: its extended key usage is anyExtendedKeyUsage, without \
         server authentication"
    )]
    ServersByAnyUsage {
        /// The subject of the CA certificate.
        subject: String,
    },
    /// The hash of the signature is broken, so that the signature can be forged.
    #[error("{subject} is signed with {algorithm}, which is broken")]
    WeakSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm, by name.
        algorithm: String,
    },
    /// The issuer name of a proof is not the subject of the certificate whose key signed it.
    #[error("the issuer name of {subject} is {issuer}, not {expected}, whose key signed it")]
    WrongIssuerName {
        /// The certificate's subject.
        subject: String,
        /// The issuer it names.
        issuer: Box<str>,
        /// The subject of the certificate whose key signed it.
        expected: Box<str>,
    },
    /// A certificate has an empty issuer name.
    #[error("{subject} has no issuer name")]
    NoIssuerName {
        /// The certificate's subject.
        subject: String,
    },
    /// The authority key identifier is not that of the issuer.
    #[error("the authority key identifier of {subject} is not that of its issuer, {issuer}")]
    WrongKeyIdentifier {
        /// The certificate's subject.
        subject: String,
        /// The issuer's subject.
        issuer: String,
    },
    /// The version is unknown, or has extensions although only version 3 may.
    #[error("{subject} is of X.509 version {version}{}", if *.version > 3 { ", which is not known" } else { " and has extensions, which only version 3 has" })]
    Version {
        /// The certificate's subject.
        subject: String,
        /// Its version.
        version: u32,
    },
    /// A name lies in none of the subtrees that a CA above permits.
    #[error("{authority} does not permit the name {name} of {subject} by its name constraints")]
    NameNotPermitted {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the CA certificate with the constraints.
        authority: Box<str>,
    },
    /// A name lies in a subtree that a CA above excludes.
    #[error("{authority} excludes the name {name} of {subject} by its name constraints")]
    NameExcluded {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the CA certificate with the constraints.
        authority: Box<str>,
    },
    /// A name cannot be compared with the constraints for its form.
    #[error("the name {name} of {subject} cannot be compared with the name constraints of {authority}")]
    NameIncomparable {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the CA certificate with the constraints.
        authority: Box<str>,
    },
    /// CAs certify each other in a circle, and none leads to the trust anchor.
    #[error("the chain leads from {subject} back to itself")]
    Circular {
        /// The subject of the last certificate.
        subject: String,
    },
    /// The path exceeds the limit.
    #[error("the chain has more than {limit} certificates")]
    TooLong {
        /// The highest number of certificates in a path.
        limit: usize,
    },
    /// There are more paths than the search tries.
    #[error("the certificates make too many paths to try: leave out those that do not belong to the chain")]
    TooManyPaths,
    /// The path ends in another root.
    #[error("the chain leads to another root, {root}, and not to {enrolled}")]
    LeadsElsewhere {
        /// The root it leads to.
        root: String,
        /// The certificate it should have led to.
        enrolled: String,
    },
    /// The issuer is neither enrolled nor among the presented certificates.
    #[error("the issuer of {subject}, which is {issuer}, is not among the certificates: is the chain complete?")]
    IssuerMissing {
        /// The certificate's subject.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// More CA certificates follow than a path length constraint allows.
    #[error("{subject} allows {allowed} authorities below it, and there are {found}")]
    PathLength {
        /// The subject of the CA certificate with the constraint.
        subject: String,
        /// Its limit.
        allowed: u32,
        /// The number found.
        found: usize,
    },
    /// A critical extension is not supported.
    #[error("{subject} has a critical extension that is not supported: {extension}")]
    CriticalExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension, by name or object identifier.
        extension: String,
    },
    /// The signature algorithm is not supported.
    #[error("{subject} is signed with {algorithm}, which is not supported")]
    UnsupportedSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm, by name.
        algorithm: String,
    },
    /// An extension is malformed or occurs more than once.
    #[error("{subject} has a malformed extension, {extension}: {reason}")]
    MalformedExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension, by name or object identifier.
        extension: Box<str>,
        /// Why it cannot be used.
        reason: Box<str>,
    },
    /// The signature algorithms outside and inside the signed part differ (RFC 5280 section 4.1.1.2).
    #[error("{subject} names two signature algorithms: {outer} beside the signature, {inner} in the signed part")]
    AlgorithmMismatch {
        /// The certificate's subject.
        subject: String,
        /// The algorithm named beside the signature.
        outer: Box<str>,
        /// The algorithm named in the signed part.
        inner: Box<str>,
    },
    /// The key of a CA is too short to trust its signatures.
    #[error("the key of {subject}, {key}, is too short: at least 2048 bits are needed")]
    KeyTooShort {
        /// The subject of the CA certificate.
        subject: String,
        /// Its key.
        key: PublicKeyAlgorithm,
    },
    /// The key of a CA is longer than the cryptographic library supports.
    #[error("the key of {subject}, {key}, is too long: at most 8192 bits are supported")]
    KeyTooLong {
        /// The subject of the CA certificate.
        subject: String,
        /// Its key.
        key: PublicKeyAlgorithm,
    },
    /// The key of a CA is restricted to other signature algorithms.
    #[error("the key of {subject} may not make signatures with {algorithm}")]
    KeyRestricted {
        /// The subject of the CA certificate.
        subject: String,
        /// The algorithm used.
        algorithm: String,
    },
    /// The public key of a CA cannot be read.
    #[error("the public key of {subject} is malformed")]
    UnusableKey {
        /// The subject of the CA certificate.
        subject: String,
    },
    /// The common name of a proof is not the current verification code.
    #[error("the proof is for the code {found:?}, but the current code is {expected:?}")]
    WrongCode {
        /// The current code.
        expected: String,
        /// The common name found.
        found: String,
    },
}

#[cfg(feature = "issue")]
impl ChainError {
    /// Returns whether a certificate with another name could be valid.
    pub(super) fn is_about_names(&self) -> bool {
        matches!(self, Self::NameNotPermitted { .. } | Self::NameExcluded { .. } | Self::NameIncomparable { .. })
    }
}
