//! Path validation, and the proof of possession.
//!
//! [`verify`] follows RFC 5280 section 6.1 for device certificates, with every check in one place:
//!
//! - **Signatures** are verified. The signature algorithm is the same inside and outside the signed part, and its hash is
//!   not broken (MD5, SHA-1). The signature of the trust anchor itself does not count.
//! - **Issuers**: names chain as RFC 5280 section 7.1 compares them. An authority key identifier must be that of the
//!   issuer: RFC 5280 treats it as a hint, but OpenSSL refuses such chains.
//! - **Validity** of every certificate, including the trust anchor.
//! - **CA certificates** have CA:TRUE, `keyCertSign` if they have a key usage, and client authentication if they have an
//!   extended key usage. The extended key usage of the first certificate is not checked: it may be a server's.
//! - **Path length**: self-issued CA certificates do not count.
//! - **Name constraints** of every CA certificate, including the trust anchor.
//! - **Extensions**: malformed and repeated ones are refused, critical or not. Critical ones that are not processed are
//!   refused. Processed are basic constraints, key usage, extended key usage, subject alternative name and name
//!   constraints. Policies (`certificatePolicies`, `policyMappings`, `inhibitAnyPolicy`) have no effect unless an explicit
//!   policy is required; critical policy constraints that require one are refused. Only version 3 has extensions.
//!
//! Revocation is not checked, as the services do not check it: a critical `crlDistributionPoints` is accepted.
//!
//! ```
//! use iot_enroll::certificate::{Certificate, chain};
//!
//! # let enrolled = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/authorities/ec-sec1_cert.pem"));
//! # let fullchain = enrolled;
//! // What the device presents, its own certificate first.
//! let presented = Certificate::read_all(fullchain)?;
//! let enrolled = Certificate::read(enrolled)?;
//! let path = chain::verify(&presented, &enrolled, "2030-01-01T00:00:00Z".parse()?)?;
//! assert_eq!(path.last(), Some(&&enrolled));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use super::chain_error::ChainError;
#[cfg(feature = "client")]
pub(crate) use super::timestamp::moment;
use super::{
    Certificate, SignatureError, Timestamp,
    name_constraints::{self, Violation},
    x509::SERVER_AUTHENTICATION,
};

/// The highest number of certificates in a path. Real paths have three or four.
const MAX_PATH: usize = 16;

/// The highest number of signatures that one search verifies. It bounds the work for many certificates with one subject.
const MAX_SIGNATURES: usize = 1000;

/// Verifies the chain from a certificate to a trust anchor, and returns the path: the first certificate of `presented`
/// first, the trust anchor last.
///
/// `presented` is what a device sends: its own certificate first, then others in any order. `anchors` are the enrolled
/// certificates, roots or intermediates, in any order. If several paths exist, as with cross-signed CAs, one valid path is
/// enough.
///
/// # Errors
/// Returns a [`ChainError`] that names the certificate that fails and why, for the path that came closest.
pub fn verify<'a>(
    presented: &'a [Certificate],
    anchors: &'a (impl AsRef<[Certificate]> + ?Sized),
    at: Timestamp,
) -> Result<Vec<&'a Certificate>, ChainError> {
    verify_for(Usage::Client, presented, anchors.as_ref(), at)
}

/// What a certificate is used for. Every CA above it must allow that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Client,
    #[cfg_attr(not(feature = "issue"), expect(dead_code, reason = "only new certificates are checked for servers"))]
    Server,
}

/// Verifies a chain as [`verify`] does, for that usage.
pub(super) fn verify_for<'a>(
    usage: Usage,
    presented: &'a [Certificate],
    anchors: &'a [Certificate],
    at: Timestamp,
) -> Result<Vec<&'a Certificate>, ChainError> {
    let (leaf, others) = presented.split_first().ok_or(ChainError::Empty)?;
    if anchors.is_empty() {
        return Err(ChainError::NoAnchor);
    }
    let mut search = Search { usage, others, anchors, at, path: vec![leaf], signatures: MAX_SIGNATURES, failure: None };
    if search.finds_path() {
        return Ok(search.path);
    }
    Err(search.failure.map_or(ChainError::Empty, |(_, error)| error))
}

/// Verifies that a certificate proves possession of the private key of an enrolled CA certificate.
///
/// The proof is signed by that key, its common name is the verification code exactly, and the two form a valid
/// [chain](verify).
///
/// # Errors
/// Returns a [`ChainError`] for the first check that fails.
pub fn verify_possession(
    proof: &Certificate,
    enrolled: &Certificate,
    code: &str,
    at: Timestamp,
) -> Result<(), ChainError> {
    check_may_sign(enrolled)?;
    proof.verify_signature(enrolled).map_err(|error| signature_error(proof, enrolled, error))?;
    let found = proof.subject().common_name().unwrap_or_default();
    if found != code {
        return Err(ChainError::WrongCode { expected: code.to_owned(), found: found.to_owned() });
    }
    if !proof.names_issuer(enrolled) {
        return Err(ChainError::WrongIssuerName {
            subject: subject(proof),
            issuer: proof.issuer().to_string().into(),
            expected: subject(enrolled).into(),
        });
    }
    check_path(Usage::Client, &[proof, enrolled], at)
}

/// Checks that a certificate can be enrolled as a CA and sign as one: it is a CA certificate, it may issue client
/// certificates, its extensions do not invalidate chains, and it is valid at that time.
///
/// # Errors
/// Returns a [`ChainError`] for the first check that fails.
pub fn check_authority(certificate: &Certificate, at: Timestamp) -> Result<(), ChainError> {
    check_extensions(certificate)?;
    check_may_sign(certificate)?;
    check_validity(certificate, at)
}

/// Checks that a certificate can sign as a CA, as [`check_authority`] does, but for clients or servers: which of them is checked
/// when a certificate is issued.
#[cfg(feature = "issue")]
pub(super) fn check_signer(certificate: &Certificate, at: Timestamp) -> Result<(), ChainError> {
    check_extensions(certificate)?;
    check_signs(certificate)?;
    if !certificate.allows_client_authentication() && !certificate.allows_server_authentication() {
        return Err(ChainError::NotForTls { subject: subject(certificate) });
    }
    check_validity(certificate, at)
}

/// Returns the chain above a certificate: its issuer, the issuer of that, and so on, found among other certificates.
///
/// If several certificates could follow, one that is valid at that time is preferred. An issuer whose signature cannot be
/// checked is included, so that a later check can report the reason.
#[must_use]
pub fn issuers(certificate: &Certificate, mut others: Vec<Certificate>, at: Timestamp) -> Vec<Certificate> {
    let mut issuers: Vec<Certificate> = Vec::new();
    others.retain(|other| other != certificate);
    loop {
        let last = issuers.last().unwrap_or(certificate);
        match find_issuer(last, &others, |other| other.validity().contains(at)) {
            Some(position) => issuers.push(others.swap_remove(position)),
            None => return issuers,
        }
    }
}

/// Returns the position of the certificate that issued another: the first whose signature is right, preferred ones before
/// others, or else the first whose signature cannot be checked.
pub(crate) fn find_issuer(
    certificate: &Certificate,
    candidates: &[Certificate],
    is_preferred: impl Fn(&Certificate) -> bool,
) -> Option<usize> {
    let rank = |candidate: &Certificate| match certificate.verify_signature(candidate) {
        Ok(()) => Some(u8::from(!is_preferred(candidate))),
        Err(SignatureError::Wrong) => None,
        Err(_) => Some(2),
    };
    let named = candidates.iter().enumerate().filter(|(_, candidate)| certificate.names_issuer(candidate));
    named.filter_map(|(position, candidate)| Some((rank(candidate)?, position))).min().map(|(_, position)| position)
}

/// How close a failure was to a valid path, the closest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    /// The path does not reach a trust anchor.
    DeadEnd,
    /// The names match, but the signature is wrong.
    WrongSigner,
    /// The names match, but the signature cannot be checked.
    Unverifiable,
    /// The path reaches a trust anchor but is not valid.
    Invalid,
    /// The search was stopped by a limit.
    GivenUp,
}

/// A depth-first search with backtracking: if several certificates have one subject, as with cross-signed CAs, any may be
/// the right issuer.
struct Search<'a> {
    usage: Usage,
    others: &'a [Certificate],
    anchors: &'a [Certificate],
    at: Timestamp,
    path: Vec<&'a Certificate>,
    /// How many more signatures may be verified.
    signatures: usize,
    /// The first failure of the closest kind.
    failure: Option<(Closeness, ChainError)>,
}

impl Search<'_> {
    /// Extends the path to a trust anchor. Returns whether a valid path was found.
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
                // Reported only if no other certificate with the issuer's name signed it.
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
            let found = if is_anchor { self.is_valid() } else { self.finds_path() };
            if found {
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
        match check_path(self.usage, &self.path, self.at) {
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
    candidates.iter().filter(|candidate| certificate.names_issuer(candidate))
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

/// Checks a path whose names and signatures match, the trust anchor last.
fn check_path(usage: Usage, path: &[&Certificate], at: Timestamp) -> Result<(), ChainError> {
    for (below, &certificate) in path.iter().enumerate() {
        check_validity(certificate, at)?;
        check_extensions(certificate)?;
        if below > 0 {
            check_may_sign_for(usage, certificate)?;
            // Self-issued CA certificates do not count towards the path length (RFC 5280 section 4.2.1.9).
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

/// Checks what a certificate says about its signature and its issuer. The signature itself was verified before.
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

/// Checks the certificates below a CA, the nearest last, against its name constraints. Self-issued CA certificates are
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

/// Checks that a certificate is valid at that time.
pub(crate) fn check_validity(certificate: &Certificate, at: Timestamp) -> Result<(), ChainError> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if at < not_before {
        Err(ChainError::NotYetValid { subject: subject(certificate), not_before, at })
    } else if at > not_after {
        Err(ChainError::Expired { subject: subject(certificate), not_after, at })
    } else {
        Ok(())
    }
}

/// Checks that a certificate is a CA's and may issue client certificates.
pub(super) fn check_may_sign(certificate: &Certificate) -> Result<(), ChainError> {
    check_may_sign_for(Usage::Client, certificate)
}

/// Checks that a certificate is a CA's and may issue certificates for that usage.
fn check_may_sign_for(usage: Usage, certificate: &Certificate) -> Result<(), ChainError> {
    check_signs(certificate)?;
    check_usage(usage, certificate)
}

/// Checks that a CA may issue certificates for that usage.
///
/// For servers, `serverAuth` itself is required, and `anyExtendedKeyUsage` does not suffice: OpenSSL and webpki hold a chain to
/// that, and they are what the clients of a server use. Enrollment services compare the certificates of devices differently.
pub(super) fn check_usage(usage: Usage, certificate: &Certificate) -> Result<(), ChainError> {
    let subject = || subject(certificate);
    let has_server = |usages: &[String]| usages.iter().any(|usage| usage == SERVER_AUTHENTICATION);
    match usage {
        Usage::Client if !certificate.allows_client_authentication() => {
            Err(ChainError::NotForClients { subject: subject() })
        }
        Usage::Server if !certificate.allows_server_authentication() => {
            Err(ChainError::NotForServers { subject: subject() })
        }
        Usage::Server if !certificate.extended_key_usage().is_none_or(has_server) => {
            Err(ChainError::ServersByAnyUsage { subject: subject() })
        }
        _ => Ok(()),
    }
}

/// Checks that a certificate is a CA's, and may sign certificates.
fn check_signs(certificate: &Certificate) -> Result<(), ChainError> {
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

/// Returns how errors name a certificate.
fn subject(certificate: &Certificate) -> String {
    certificate.to_string()
}
