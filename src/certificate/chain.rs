//! Does this chain lead to that certificate, and if not, why not? And is this certificate a proof of possession?
//!
//! Path validation of RFC 5280 section 6.1 for devices, with every check in one place:
//!
//! - **Signatures** are verified, their algorithm is the same inside and outside the signed part, and their hash is not
//!   broken (MD5, SHA-1). The signature of the trust anchor itself does not count.
//! - **Issuers**: names chain as RFC 5280 section 7.1 compares them. The authority key identifier, where there is one, is
//!   that of the issuer: RFC 5280 takes it for a hint, OpenSSL refuses such chains.
//! - **Validity** of every certificate, the trust anchor included.
//! - **Authorities** have CA:TRUE, `keyCertSign` where they have a key usage, and client authentication where they have an
//!   extended key usage. The extended key usage of the first certificate is not looked at: it may be a server's.
//! - **Path length**, in which self-issued authorities do not count.
//! - **Name constraints** of every authority, the trust anchor included.
//! - **Extensions**: malformed ones and those that occur twice are refused, critical ones or not; so are critical ones
//!   that are not processed. Processed are basic constraints, key usage, extended key usage, subject alternative name and
//!   name constraints. Policies (`certificatePolicies`, `policyMappings`, `inhibitAnyPolicy`) have no effect where no
//!   explicit policy is required; critical policy constraints that require one are refused. Only version 3 has extensions.
//!
//! Revocation is not looked at, as the services do not: a critical `crlDistributionPoints` is accepted.

use time::OffsetDateTime;

use super::{
    Certificate, PublicKeyAlgorithm, SignatureError,
    name_constraints::{self, Violation},
};

/// The longest path that is followed, in certificates. Real ones have three or four.
const MAX_PATH: usize = 16;

/// The most signatures that are verified, so that many certificates with one subject do not keep the search busy.
const MAX_SIGNATURES: usize = 1000;

/// Finds a valid path from a certificate to one of the trust anchors.
///
/// `presented` is what a device would send: its own certificate first, then any others in any order. `anchors` are the
/// enrolled certificates, roots or intermediates in any order; one certificate is a list of one. Of several paths, as where
/// authorities are cross-signed, one that is valid suffices. It is returned, the device's certificate first, the trust
/// anchor last.
///
/// # Errors
/// [`ChainError`] tells which certificate fails and why: for the path that came closest.
pub fn verify<'a>(
    presented: &'a [Certificate],
    anchors: &'a (impl AsRef<[Certificate]> + ?Sized),
    at: OffsetDateTime,
) -> Result<Vec<&'a Certificate>, ChainError> {
    let (leaf, others) = presented.split_first().ok_or(ChainError::Empty)?;
    let anchors = anchors.as_ref();
    if anchors.is_empty() {
        return Err(ChainError::NoAnchor);
    }
    let mut search = Search { others, anchors, at, path: vec![leaf], signatures: MAX_SIGNATURES, failure: None };
    if search.finds_path() {
        return Ok(search.path);
    }
    Err(search.failure.map_or(ChainError::Empty, |(_, error)| error))
}

/// Checks that a certificate proves possession of the enrolled certificate's key: signed by that key, which is an
/// authority's, its common name the verification code to the letter, and the two a valid [chain](verify).
///
/// # Errors
/// [`ChainError`] tells which of these it is not.
pub fn verify_possession(
    proof: &Certificate,
    enrolled: &Certificate,
    code: &str,
    at: OffsetDateTime,
) -> Result<(), ChainError> {
    check_may_sign(enrolled)?;
    proof.verify_signature(enrolled).map_err(|error| signature_error(proof, enrolled, error))?;
    let found = proof.subject().common_name().unwrap_or_default();
    if found != code {
        return Err(ChainError::WrongCode { expected: code.to_owned(), found: found.to_owned() });
    }
    if !proof.issuer().matches(enrolled.subject()) {
        return Err(ChainError::WrongIssuerName {
            subject: subject(proof),
            issuer: proof.issuer().to_string().into(),
            expected: subject(enrolled).into(),
        });
    }
    check_path(&[proof, enrolled], at)
}

/// Checks that a certificate may be enrolled as, or sign as, an authority: it is one, its key may sign certificates of
/// clients, no chain is refused for its extensions, and it is valid at that time.
///
/// # Errors
/// [`ChainError`] tells which of these it is not.
pub fn check_authority(certificate: &Certificate, at: OffsetDateTime) -> Result<(), ChainError> {
    check_extensions(certificate)?;
    check_may_sign(certificate)?;
    check_validity(certificate, at)
}

/// How close to a valid path a failure was, the closest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// The path ends somewhere else.
    DeadEnd,
    /// The names fit, the signature does not.
    WrongSigner,
    /// The names fit; whether the signature does cannot be told.
    Unverifiable,
    /// The path leads to a trust anchor and is not valid.
    Invalid,
    /// The search was not finished.
    GivenUp,
}

/// A search that goes back from dead ends: of several certificates with one subject, as where authorities are
/// cross-signed, any may be the one that leads on.
struct Search<'a> {
    others: &'a [Certificate],
    anchors: &'a [Certificate],
    at: OffsetDateTime,
    path: Vec<&'a Certificate>,
    /// How many more signatures are verified.
    signatures: usize,
    /// The first of the failures that came closest.
    failure: Option<(Closeness, ChainError)>,
}

impl Search<'_> {
    /// Whether the path leads to a trust anchor and is valid; it is complete then.
    fn finds_path(&mut self) -> bool {
        let (others, anchors) = (self.others, self.anchors);
        let last = self.path[self.path.len() - 1];
        if anchors.contains(last) {
            return self.is_valid();
        }
        let candidates = |list| issuers_by_name(last, list);
        let (mut leads_on, mut leads_back) = (false, false);
        let mut wrong_signer = None;
        for (is_anchor, next) in
            candidates(anchors).map(|it| (true, it)).chain(candidates(others).map(|it| (false, it)))
        {
            if self.path.contains(&next) {
                leads_back = true;
                continue;
            }
            if !is_anchor && anchors.contains(next) {
                continue;
            }
            if self.path.len() == MAX_PATH {
                self.fail(Closeness::GivenUp, ChainError::TooLong { limit: MAX_PATH });
                return false;
            }
            let Some(left) = self.signatures.checked_sub(1) else {
                self.fail(Closeness::GivenUp, ChainError::TooManyPaths);
                return false;
            };
            self.signatures = left;
            match last.verify_signature(next) {
                Ok(()) => {}
                // That one which has the name of the issuer did not sign tells something only where none did.
                Err(error @ SignatureError::Wrong) if !is_anchor => {
                    wrong_signer.get_or_insert_with(|| signature_error(last, next, error));
                    continue;
                }
                Err(error) => {
                    let is_wrong = error == SignatureError::Wrong;
                    let closeness = if is_wrong { Closeness::WrongSigner } else { Closeness::Unverifiable };
                    self.fail(closeness, signature_error(last, next, error));
                    continue;
                }
            }
            leads_on = true;
            self.path.push(next);
            if if is_anchor { self.is_valid() } else { self.finds_path() } {
                return true;
            }
            self.path.pop();
        }
        match wrong_signer {
            _ if leads_on => {}
            Some(error) if !leads_back => self.fail(Closeness::WrongSigner, error),
            _ => self.fail(Closeness::DeadEnd, dead_end(last, anchors, leads_back)),
        }
        false
    }

    fn is_valid(&mut self) -> bool {
        match check_path(&self.path, self.at) {
            Ok(()) => true,
            Err(error) => {
                self.fail(Closeness::Invalid, error);
                false
            }
        }
    }

    fn fail(&mut self, closeness: Closeness, error: ChainError) {
        if self.failure.as_ref().is_none_or(|(closest, _)| *closest < closeness) {
            self.failure = Some((closeness, error));
        }
    }
}

fn issuers_by_name<'a>(
    certificate: &Certificate,
    candidates: &'a [Certificate],
) -> impl Iterator<Item = &'a Certificate> {
    candidates.iter().filter(|candidate| certificate.issuer().matches(candidate.subject()))
}

fn dead_end(last: &Certificate, anchors: &[Certificate], leads_back: bool) -> ChainError {
    if last.is_self_signed() {
        let anchors = anchors.iter().map(subject).collect::<Vec<_>>().join(" or ");
        return ChainError::LeadsElsewhere { root: subject(last), enrolled: anchors };
    }
    if leads_back {
        return ChainError::Circular { subject: subject(last) };
    }
    ChainError::IssuerMissing { subject: subject(last), issuer: last.issuer().to_string() }
}

/// Checks a path whose names and signatures fit, the first certificate first and the trust anchor last.
fn check_path(path: &[&Certificate], at: OffsetDateTime) -> Result<(), ChainError> {
    for (below, &certificate) in path.iter().enumerate() {
        check_validity(certificate, at)?;
        check_extensions(certificate)?;
        if below > 0 {
            check_may_sign(certificate)?;
            // Self-issued authorities do not count towards the path length (RFC 5280 section 4.2.1.9).
            let authorities = path[1..below].iter().filter(|authority| !authority.is_self_issued()).count();
            let allowed = certificate.basic_constraints().and_then(|constraints| constraints.path_length);
            if let Some(allowed) = allowed.filter(|&allowed| authorities > allowed as usize) {
                return Err(ChainError::PathLength { subject: subject(certificate), allowed, found: authorities });
            }
            check_name_constraints(certificate, &path[..below])?;
        }
        if let Some(issuer) = path.get(below + 1) {
            check_link(certificate, issuer)?;
        }
    }
    Ok(())
}

/// Checks what a certificate says of its signature and its issuer. The signature itself holds.
fn check_link(certificate: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
    if certificate.signature_algorithm().is_weak() {
        let algorithm = certificate.signature_algorithm().to_string();
        return Err(ChainError::WeakSignature { subject: subject(certificate), algorithm });
    }
    // "The issuer field MUST contain a non-empty distinguished name" (RFC 5280 section 4.1.2.4).
    if certificate.issuer().is_empty() {
        return Err(ChainError::NoIssuerName { subject: subject(certificate) });
    }
    if !certificate.names_key_of(issuer) {
        return Err(ChainError::WrongKeyIdentifier { subject: subject(certificate), issuer: subject(issuer) });
    }
    Ok(())
}

/// Checks the certificates below an authority, the nearest last, against its name constraints. Self-issued authorities are
/// exempt, the first certificate is not (RFC 5280 section 6.1.3 (b)).
fn check_name_constraints(authority: &Certificate, below: &[&Certificate]) -> Result<(), ChainError> {
    let Some(constraints) = authority.name_constraints() else { return Ok(()) };
    for (at, certificate) in below.iter().enumerate() {
        if at > 0 && certificate.is_self_issued() {
            continue;
        }
        name_constraints::check(constraints, certificate).map_err(|violation| {
            let (subject, authority) = (subject(certificate), subject(authority).into());
            match violation {
                Violation::NotPermitted(name) => ChainError::NameNotPermitted { subject, name: name.into(), authority },
                Violation::Excluded(name) => ChainError::NameExcluded { subject, name: name.into(), authority },
                Violation::Incomparable(name) => ChainError::NameIncomparable { subject, name: name.into(), authority },
            }
        })?;
    }
    Ok(())
}

pub(crate) fn check_validity(certificate: &Certificate, at: OffsetDateTime) -> Result<(), ChainError> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if at < not_before {
        Err(ChainError::NotYetValid { subject: subject(certificate), not_before, at })
    } else if at > not_after {
        Err(ChainError::Expired { subject: subject(certificate), not_after, at })
    } else {
        Ok(())
    }
}

pub(super) fn check_may_sign(certificate: &Certificate) -> Result<(), ChainError> {
    if !certificate.basic_constraints().is_some_and(|constraints| constraints.authority) {
        return Err(ChainError::NotAnAuthority { subject: subject(certificate) });
    }
    if certificate.key_usage().is_some_and(|usage| !usage.certificate_signing) {
        return Err(ChainError::MayNotSign { subject: subject(certificate) });
    }
    if !certificate.allows_client_authentication() {
        return Err(ChainError::NotForClients { subject: subject(certificate) });
    }
    Ok(())
}

fn signature_error(certificate: &Certificate, issuer: &Certificate, error: SignatureError) -> ChainError {
    let (of, issuer) = (subject(certificate), subject(issuer));
    match error {
        SignatureError::Wrong => ChainError::WrongSigner { subject: of, expected: issuer },
        SignatureError::Unsupported(algorithm) if certificate.signature_algorithm().is_weak() => {
            ChainError::WeakSignature { subject: of, algorithm }
        }
        SignatureError::Unsupported(algorithm) => ChainError::UnsupportedSignature { subject: of, algorithm },
        SignatureError::AlgorithmMismatch { outer, inner } => {
            ChainError::AlgorithmMismatch { subject: of, outer: outer.into(), inner: inner.into() }
        }
        SignatureError::KeyTooShort(key) => ChainError::KeyTooShort { subject: issuer, key },
        SignatureError::KeyTooLong(key) => ChainError::KeyTooLong { subject: issuer, key },
        SignatureError::KeyRestricted(algorithm) => ChainError::KeyRestricted { subject: issuer, algorithm },
        SignatureError::UnusableKey => ChainError::UnusableKey { subject: issuer },
    }
}

fn check_extensions(certificate: &Certificate) -> Result<(), ChainError> {
    let version = certificate.version();
    if version > 3 || (version < 3 && certificate.has_extensions()) {
        return Err(ChainError::Version { subject: subject(certificate), version });
    }
    if let Some(malformed) = certificate.malformed_extensions().first() {
        return Err(ChainError::MalformedExtension {
            subject: subject(certificate),
            extension: malformed.name.as_str().into(),
            reason: malformed.reason.as_str().into(),
        });
    }
    if let Some(extension) = certificate.unknown_critical_extension() {
        return Err(ChainError::CriticalExtension { subject: subject(certificate), extension: extension.to_owned() });
    }
    Ok(())
}

/// How a certificate is called in an error.
fn subject(certificate: &Certificate) -> String {
    if certificate.subject().is_empty() {
        return format!("the certificate with the serial number {}", certificate.serial_number());
    }
    certificate.subject().to_string()
}

/// A moment as people read it: `2026-11-23 06:05:50 UTC`.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_else(|_| at.to_string())
}

#[cfg(feature = "issue")]
impl ChainError {
    /// Whether another name in the same place could be valid.
    pub(super) fn is_about_names(&self) -> bool {
        matches!(self, Self::NameNotPermitted { .. } | Self::NameExcluded { .. } | Self::NameIncomparable { .. })
    }
}

/// Why a chain does not lead where it should, or a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No certificate was given.
    #[error("there is no certificate to check")]
    Empty,
    /// No trust anchor was given.
    #[error("there is no certificate for the chain to lead to")]
    NoAnchor,
    /// A certificate of the path has run out.
    #[error("{subject} expired at {}; the check was for {}", moment(*.not_after), moment(*.at))]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// When it ran out.
        not_after: OffsetDateTime,
        /// The moment of the check.
        at: OffsetDateTime,
    },
    /// A certificate of the path is not valid yet: made for later, or the clock is wrong.
    #[error("{subject} is valid only from {} on; the check was for {}: is the clock right?", moment(*.not_before), moment(*.at))]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// When it begins.
        not_before: OffsetDateTime,
        /// The moment of the check.
        at: OffsetDateTime,
    },
    /// A certificate that should have issued another is no authority.
    #[error("{subject} is not an authority: its basic constraints do not say CA:TRUE")]
    NotAnAuthority {
        /// The certificate's subject.
        subject: String,
    },
    /// An authority whose key usage excludes the signing of certificates.
    #[error("{subject} may not sign certificates: its key usage lacks keyCertSign")]
    MayNotSign {
        /// The certificate's subject.
        subject: String,
    },
    /// The names fit, the key does not.
    #[error("{subject} was not signed by the key of {expected}")]
    WrongSigner {
        /// The certificate's subject.
        subject: String,
        /// The subject of the certificate whose key should have signed.
        expected: String,
    },
    /// An authority whose extended key usage excludes client authentication.
    #[error("{subject} may not issue certificates of clients: its extended key usage lacks client authentication")]
    NotForClients {
        /// The authority's subject.
        subject: String,
    },
    /// The signature's hash is broken, so that others may have made the signature.
    #[error("{subject} is signed with {algorithm}, which is broken")]
    WeakSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm, by name.
        algorithm: String,
    },
    /// The issuer that a proof names is another than the one whose key signed it.
    #[error("the issuer of {subject} is {issuer}, and not {expected}, whose key signed it")]
    WrongIssuerName {
        /// The certificate's subject.
        subject: String,
        /// The issuer it names.
        issuer: Box<str>,
        /// The subject of the certificate whose key signed it.
        expected: Box<str>,
    },
    /// A certificate that names no issuer.
    #[error("{subject} has no issuer name")]
    NoIssuerName {
        /// The certificate's subject.
        subject: String,
    },
    /// The authority key identifier is another than the issuer's.
    #[error("{subject} has another authority key identifier than its issuer, {issuer}")]
    WrongKeyIdentifier {
        /// The certificate's subject.
        subject: String,
        /// The issuer's subject.
        issuer: String,
    },
    /// A version that is not known, or extensions in one that has none.
    #[error("{subject} is of X.509 version {version}{}", if *.version > 3 { ", which is not known" } else { " and has extensions, which only version 3 has" })]
    Version {
        /// The certificate's subject.
        subject: String,
        /// Its version.
        version: u32,
    },
    /// A name in none of the subtrees that an authority above permits.
    #[error("{authority} does not permit the name {name} of {subject}: its name constraints leave it out")]
    NameNotPermitted {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the authority with the constraints.
        authority: Box<str>,
    },
    /// A name in a subtree that an authority above excludes.
    #[error("{authority} excludes the name {name} of {subject} by its name constraints")]
    NameExcluded {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the authority with the constraints.
        authority: Box<str>,
    },
    /// A name that cannot be compared with the constraints of its form.
    #[error("the name {name} of {subject} cannot be compared with the name constraints of {authority}")]
    NameIncomparable {
        /// The certificate's subject.
        subject: String,
        /// The name, in the form `DNS:example.com`.
        name: Box<str>,
        /// The subject of the authority with the constraints.
        authority: Box<str>,
    },
    /// Authorities certify each other, and none of them leads to the trust anchor.
    #[error("the chain leads from {subject} back to itself")]
    Circular {
        /// The subject of the last certificate.
        subject: String,
    },
    /// The path is longer than any that is followed.
    #[error("the chain has more than {limit} certificates")]
    TooLong {
        /// The longest path that is followed.
        limit: usize,
    },
    /// The search was given up before every path was tried.
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
    /// The issuer is neither the enrolled certificate nor among those presented.
    #[error("the issuer of {subject}, which is {issuer}, is not among the certificates: is the chain complete?")]
    IssuerMissing {
        /// The certificate's subject.
        subject: String,
        /// Its issuer.
        issuer: String,
    },
    /// More authorities follow than one of them allows.
    #[error("{subject} allows {allowed} authorities below it, and there are {found}")]
    PathLength {
        /// The subject of the authority that limits the path.
        subject: String,
        /// Its limit.
        allowed: u32,
        /// The number found.
        found: usize,
    },
    /// A critical extension that is not understood here.
    #[error("{subject} has a critical extension that is not understood: {extension}")]
    CriticalExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension, by name or object identifier.
        extension: String,
    },
    /// A signature algorithm that is not supported.
    #[error("{subject} is signed with {algorithm}, which is not supported")]
    UnsupportedSignature {
        /// The certificate's subject.
        subject: String,
        /// The algorithm, by name.
        algorithm: String,
    },
    /// An extension that cannot be read or that occurs more than once.
    #[error("{subject} has a malformed extension, {extension}: {reason}")]
    MalformedExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension, by name or object identifier.
        extension: Box<str>,
        /// Why it cannot be used.
        reason: Box<str>,
    },
    /// A certificate names another signature algorithm outside its signed part than inside (RFC 5280 section 4.1.1.2).
    #[error("{subject} names two signature algorithms: {outer} beside the signature, {inner} in the signed part")]
    AlgorithmMismatch {
        /// The certificate's subject.
        subject: String,
        /// The algorithm named beside the signature.
        outer: Box<str>,
        /// The algorithm named in the signed part.
        inner: Box<str>,
    },
    /// The key of an authority is too short for its signatures to count.
    #[error("the key of {subject}, {key}, is too short: at least 2048 bits are needed")]
    KeyTooShort {
        /// The authority's subject.
        subject: String,
        /// Its key.
        key: PublicKeyAlgorithm,
    },
    /// The key of an authority is longer than the cryptographic library takes.
    #[error("the key of {subject}, {key}, is not supported: at most 8192 bits are")]
    KeyTooLong {
        /// The authority's subject.
        subject: String,
        /// Its key.
        key: PublicKeyAlgorithm,
    },
    /// The key of an authority is restricted to other signature algorithms.
    #[error("the key of {subject} may not make signatures with {algorithm}")]
    KeyRestricted {
        /// The authority's subject.
        subject: String,
        /// The algorithm used.
        algorithm: String,
    },
    /// The key of an authority cannot be read.
    #[error("the public key of {subject} is malformed")]
    UnusableKey {
        /// The authority's subject.
        subject: String,
    },
    /// The common name of a proof is not the verification code.
    #[error("the proof carries the code {found:?}, and the current one is {expected:?}")]
    WrongCode {
        /// The current code.
        expected: String,
        /// The common name found.
        found: String,
    },
}
