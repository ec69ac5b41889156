//! Does this chain lead to that certificate, and if not, why not? And is this certificate a proof of possession?
//!
//! Path validation of RFC 5280 section 6.1, as far as enrollment knows it: signatures, validity, basic constraints, path
//! length, key usage. Policies, name constraints and revocation are not looked at, as the services do not.

use time::OffsetDateTime;

use super::{Certificate, PublicKeyAlgorithm, SignatureError};

/// The longest path that is followed, in certificates. Real ones have three or four.
const MAX_PATH: usize = 16;

/// The most signatures that are looked at, so that no heap of namesakes keeps the search busy.
const MAX_SIGNATURES: usize = 1000;

/// Finds the path from a certificate to the enrolled one and checks it.
///
/// `presented` is what a device would send: its own certificate first, then any others in any order. `enrolled` is the
/// certificate the path must end in, a root or an intermediate. The path found is returned, the device's certificate
/// first, the enrolled one last.
///
/// # Errors
/// [`ChainError`] tells which certificate fails and why.
pub fn verify<'a>(
    presented: &'a [Certificate],
    enrolled: &'a Certificate,
    at: OffsetDateTime,
) -> Result<Vec<&'a Certificate>, ChainError> {
    let (leaf, others) = presented.split_first().ok_or(ChainError::Empty)?;
    let path = find_path(leaf, others, enrolled)?;
    for (below, certificate) in path.iter().enumerate() {
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
        }
    }
    Ok(path)
}

/// Checks that a certificate proves possession of the enrolled certificate's key: signed by that key, which is an
/// authority's, its common name the verification code to the letter, valid at that time.
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
    check_validity(proof, at)
}

/// Checks that a certificate may be enrolled as, or sign as, an authority: it is one, its key may sign certificates, and
/// it is valid at that time.
///
/// # Errors
/// [`ChainError`] tells which of these it is not.
pub fn check_authority(certificate: &Certificate, at: OffsetDateTime) -> Result<(), ChainError> {
    check_may_sign(certificate)?;
    check_validity(certificate, at)
}

fn find_path<'a>(
    leaf: &'a Certificate,
    others: &'a [Certificate],
    enrolled: &'a Certificate,
) -> Result<Vec<&'a Certificate>, ChainError> {
    let mut search = Search { others, enrolled, path: vec![leaf], signatures: MAX_SIGNATURES, failure: None };
    if search.found() {
        return Ok(search.path);
    }
    Err(search.failure.unwrap_or(ChainError::Empty))
}

/// A search that goes back from dead ends: of several certificates with one subject, as where authorities are
/// cross-signed, any may be the one that leads on.
struct Search<'a> {
    others: &'a [Certificate],
    enrolled: &'a Certificate,
    path: Vec<&'a Certificate>,
    /// How many more signatures are looked at.
    signatures: usize,
    /// Why the first way did not lead there; a refusal at the enrolled certificate itself tells more.
    failure: Option<ChainError>,
}

impl Search<'_> {
    /// Whether the path leads to the enrolled certificate; it does so in full then.
    fn found(&mut self) -> bool {
        let (others, enrolled) = (self.others, self.enrolled);
        let last = self.path[self.path.len() - 1];
        if last == enrolled {
            return true;
        }
        if last.issuer().matches(enrolled.subject()) {
            match last.verify_signature(enrolled) {
                Ok(()) => {
                    self.path.push(enrolled);
                    return true;
                }
                Err(error) => {
                    self.failure.get_or_insert(signature_error(last, enrolled, error));
                }
            }
        }
        let mut led_on = false;
        for next in others.iter().filter(|candidate| last.issuer().matches(candidate.subject())) {
            if self.path.len() == MAX_PATH || self.signatures == 0 || self.path.contains(&next) {
                continue;
            }
            self.signatures -= 1;
            if last.verify_signature(next).is_ok() {
                led_on = true;
                self.path.push(next);
                if self.found() {
                    return true;
                }
                self.path.pop();
            }
        }
        if !led_on {
            self.failure.get_or_insert_with(|| dead_end(last, others, enrolled));
        }
        false
    }
}

fn dead_end(last: &Certificate, others: &[Certificate], enrolled: &Certificate) -> ChainError {
    if last.is_self_issued() && last.verify_signature(last).is_ok() {
        return ChainError::LeadsElsewhere { root: subject(last), enrolled: subject(enrolled) };
    }
    let named = others.iter().find(|candidate| last.issuer().matches(candidate.subject()));
    match named.map(|candidate| (candidate, last.verify_signature(candidate))) {
        Some((candidate, Err(error))) => signature_error(last, candidate, error),
        _ => ChainError::IssuerMissing { subject: subject(last), issuer: last.issuer().to_string() },
    }
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

fn check_may_sign(certificate: &Certificate) -> Result<(), ChainError> {
    if !certificate.basic_constraints().is_some_and(|constraints| constraints.authority) {
        return Err(ChainError::NotAnAuthority { subject: subject(certificate) });
    }
    if certificate.key_usage().is_some_and(|usage| !usage.certificate_signing) {
        return Err(ChainError::MayNotSign { subject: subject(certificate) });
    }
    Ok(())
}

fn signature_error(certificate: &Certificate, issuer: &Certificate, error: SignatureError) -> ChainError {
    let (of, issuer) = (subject(certificate), subject(issuer));
    match error {
        SignatureError::Wrong => ChainError::WrongSigner { subject: of, expected: issuer },
        SignatureError::Unsupported(algorithm) => ChainError::UnsupportedSignature { subject: of, algorithm },
        SignatureError::AlgorithmMismatch { outer, inner } => {
            ChainError::AlgorithmMismatch { subject: of, outer, inner }
        }
        SignatureError::KeyTooShort(key) => ChainError::KeyTooShort { subject: issuer, key },
        SignatureError::KeyTooLong(key) => ChainError::KeyTooLong { subject: issuer, key },
        SignatureError::KeyRestricted(algorithm) => ChainError::KeyRestricted { subject: issuer, algorithm },
        SignatureError::UnusableKey => ChainError::UnusableKey { subject: issuer },
    }
}

fn check_extensions(certificate: &Certificate) -> Result<(), ChainError> {
    if let Some(malformed) = certificate.malformed_extensions().first() {
        return Err(ChainError::MalformedExtension {
            subject: subject(certificate),
            extension: malformed.name.clone(),
            reason: malformed.reason.clone(),
        });
    }
    if let Some(extension) = certificate.unknown_critical_extension() {
        return Err(ChainError::CriticalExtension { subject: subject(certificate), extension: extension.to_owned() });
    }
    Ok(())
}

fn subject(certificate: &Certificate) -> String {
    certificate.subject().to_string()
}

/// A moment as people read it: `2026-11-23 06:05:50 UTC`.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_else(|_| at.to_string())
}

/// Why a chain does not lead where it should, or a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No certificate was given.
    #[error("there is no certificate to check")]
    Empty,
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
        extension: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A certificate names another signature algorithm outside its signed part than inside (RFC 5280 section 4.1.1.2).
    #[error("{subject} names two signature algorithms: {outer} beside the signature, {inner} in the signed part")]
    AlgorithmMismatch {
        /// The certificate's subject.
        subject: String,
        /// The algorithm named beside the signature.
        outer: String,
        /// The algorithm named in the signed part.
        inner: String,
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
