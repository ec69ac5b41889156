//! Finds the cause of a failed registration from the certificates, the answer, and the service's enrollment state.
//! Sends nothing.

use std::{fmt, time::Duration};

use super::{
    admission::{EnrolledCertificate, EnrollmentState, GroupAttestation, OwnAttestation, SYMMETRIC_KEY},
    cause::Cause,
    credential::{Credential, DeviceCertificate, sort_chain},
    endpoint::ProvisioningEndpoint,
    error::{Distrust, Observations, Refusal, RegistrationError, RegistrationErrorKind as Kind},
    id_scope::IdScope,
    symmetric_key::{SymmetricKey, derive_device_key},
};
use crate::{
    certificate::{
        Certificate, ChainError, DeviceId, Objection, Thumbprint, Timestamp,
        chain::{check_validity, verify},
        objections as certificate_objections,
    },
    transport::{NetworkFailure, TOKEN_LIFETIME},
};

/// The difference between clocks that is worth reporting.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// A registration to diagnose.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// The registration ID.
    pub id: &'a DeviceId,
    /// The ID scope.
    pub id_scope: &'a IdScope,
    /// The device's credential.
    pub credential: &'a Credential,
    /// Certificates of the device's chain that are known and were not sent, for instance from another file.
    pub unsent: &'a [Certificate],
}

impl<'a> Attempt<'a> {
    /// Describes a registration in which all known certificates were sent.
    #[must_use]
    pub fn new(id: &'a DeviceId, id_scope: &'a IdScope, credential: &'a Credential) -> Self {
        Self { id, id_scope, credential, unsent: &[] }
    }

    /// Adds certificates of the device's chain that are known and were not sent.
    #[must_use]
    pub fn unsent(mut self, certificates: &'a [Certificate]) -> Self {
        self.unsent = certificates;
        self
    }
}

/// The result of a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The causes.
    pub causes: Vec<Cause>,
    /// Possible causes, where the information was insufficient.
    pub possible: Vec<Cause>,
    /// Whether the service's enrollment state, which was not given, would help.
    pub needs_application: bool,
}

impl Diagnosis {
    fn of(causes: impl IntoIterator<Item = Cause>) -> Self {
        Self { causes: causes.into_iter().collect(), possible: Vec::new(), needs_application: false }
    }

    /// Returns a diagnosis without any cause.
    fn unknown() -> Self {
        Self::of([])
    }

    /// Returns the first cause, or else the first possible one.
    #[must_use]
    pub fn first(&self) -> Option<&Cause> {
        self.causes.first().or(self.possible.first())
    }
}

/// Prints one line for each cause, or nothing if there is none.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.causes.iter().map(|cause| ("cause", cause));
        let possible = self.possible.iter().map(|cause| ("possible cause", cause));
        for (index, (word, cause)) in causes.chain(possible).enumerate() {
            write!(f, "{}{word}: {cause}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The error of a registration, with its diagnosis.
#[derive(Debug)]
#[non_exhaustive]
pub struct DiagnosedError {
    /// The error.
    pub error: RegistrationError,
    /// The diagnosis.
    pub diagnosis: Diagnosis,
}

impl DiagnosedError {
    /// Combines an error with its diagnosis.
    #[must_use]
    pub fn new(error: RegistrationError, diagnosis: Diagnosis) -> Self {
        Self { error, diagnosis }
    }
}

impl fmt::Display for DiagnosedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        let diagnosis = self.diagnosis.to_string();
        // The message of a registration that was not sent is its cause.
        if self.error.is_not_sent() || diagnosis.is_empty() {
            return Ok(());
        }
        diagnosis.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for DiagnosedError {}

/// Returns what is wrong with a credential before anything is sent. `at` is the current time.
///
/// [`RegistrationClient::register`](super::RegistrationClient::register) only refuses to send because of a wrong common
/// name, missing client authentication or plain HTTP. The service decides about validity, by its own clock.
#[must_use]
pub fn objections(attempt: &Attempt<'_>, at: Timestamp) -> Vec<Cause> {
    let Credential::Certificate(device) = attempt.credential else { return Vec::new() };
    let mut causes: Vec<_> = wrong_common_name(attempt, device).into_iter().collect();
    causes.extend(device.chain().iter().find_map(|certificate| out_of_time(certificate, at)));
    causes.extend(no_client_authentication(device));
    causes.extend(objection_causes(device, at));
    causes
}

/// Returns why the service would certainly refuse the registration, if it would.
pub(super) fn certain_refusal(attempt: &Attempt<'_>, endpoint: &ProvisioningEndpoint) -> Option<Cause> {
    let Credential::Certificate(device) = attempt.credential else { return None };
    if !endpoint.is_https() {
        return Some(Cause::PlainHttp { host: endpoint.host().to_owned() });
    }
    wrong_common_name(attempt, device).or_else(|| no_client_authentication(device))
}

/// Finds the cause of a failed registration.
///
/// With the service's enrollment state, the cause is found in most cases. `workflow::read_enrollment_state` and
/// `workflow::read_device_state` read the state of an IoT Central application or a DPS instance. Without it,
/// [`Diagnosis::possible`] lists the possible causes.
#[must_use]
pub fn diagnose(attempt: &Attempt<'_>, error: &RegistrationError, application: Option<&EnrollmentState>) -> Diagnosis {
    let observations = &*error.observations;
    match &error.kind {
        Kind::NotSent(cause) => Diagnosis::of([(**cause).clone()]),
        Kind::Network { failure: NetworkFailure::Connect | NetworkFailure::TimedOut, .. } | Kind::TimedOut { .. } => {
            Diagnosis::unknown()
        }
        // A server that answered did not close the connection because of the certificate.
        Kind::Network { failure, .. } if *failure == NetworkFailure::NotHttp || observations.answered => {
            Diagnosis::of(certificate_not_requested(attempt, observations))
        }
        // A server that does not accept a certificate ends the handshake, or in TLS 1.3 the connection after it.
        Kind::Network { .. } => match distrusted(observations) {
            Some(cause) => Diagnosis::of([cause]),
            None if observations.asked_for_certificate => refused(attempt, observations, application),
            None => Diagnosis::unknown(),
        },
        Kind::Refused(refusal) => refusal_cause(attempt, refusal, observations, application),
        // The service's message explains other failures, such as those of an allocation policy.
        Kind::Ended { status, .. } if status.eq_ignore_ascii_case("disabled") => {
            disabled(attempt, observations, application)
        }
        Kind::Ended { error_code: Some(401_000..404_000), .. } => refused(attempt, observations, application),
        Kind::Ended { .. } | Kind::IssuedCertificate { .. } => Diagnosis::unknown(),
        Kind::Redirect { .. } | Kind::Answer { .. } | Kind::Tls(_) => {
            Diagnosis::of(certificate_not_requested(attempt, observations))
        }
    }
}

/// Diagnoses an error answer.
fn refusal_cause(
    attempt: &Attempt<'_>,
    refusal: &Refusal,
    observations: &Observations,
    application: Option<&EnrollmentState>,
) -> Diagnosis {
    let not_requested = certificate_not_requested(attempt, observations);
    match (refusal.status, refusal.error_code) {
        (401 | 403, _) => {
            let mut diagnosis = refused(attempt, observations, application);
            // The service has one message for all these cases, except for a chain that it cannot complete.
            let may_be_disabled = diagnosis.needs_application && diagnosis.causes.is_empty();
            if may_be_disabled && !refusal.message.to_ascii_lowercase().contains("ca certificate") {
                diagnosis.possible.push(Cause::DeviceDisabled { id: attempt.id.to_string() });
            }
            diagnosis
        }
        // The operation is gone, not the ID scope.
        (404, _) if refusal.is_operation_gone() => Diagnosis::unknown(),
        (404, Some(404_200..404_300)) => not_found(attempt, observations, application),
        // Answers of the service have an error code.
        (404, None) => Diagnosis::of([not_requested
            .unwrap_or_else(|| Cause::NotTheService { host: observations.host.clone(), status: refusal.status })]),
        _ => Diagnosis::of(not_requested),
    }
}

/// Diagnoses "not found": the service does not know the ID scope, or, if it is the application's, the enrollment.
fn not_found(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    let diagnosis = refused(attempt, observations, application);
    if application.is_some_and(|it| it.id_scope.is_some()) && !diagnosis.causes.is_empty() {
        return diagnosis;
    }
    let needs_application = application.is_none();
    Diagnosis { needs_application, ..Diagnosis::of([wrong_scope(attempt, application)]) }
}

/// Returns why the server's certificate was not trusted.
fn distrusted(observations: &Observations) -> Option<Cause> {
    let host = observations.host.clone();
    let server = observations.server_certificate.as_ref();
    let distrust = observations.distrust.as_ref()?;
    // Another trusted root does not help if the certificate is not valid now.
    let is_invalid_now =
        |server: &&Certificate| *distrust == Distrust::OutOfTime || check_validity(server, observations.at).is_err();
    if let Some(server) = server.filter(is_invalid_now) {
        let (not_before, not_after) = (server.not_before(), server.not_after());
        return Some(Cause::ServerCertificateOutOfTime { host, not_before, not_after, at: observations.at });
    }
    let reason = match distrust {
        Distrust::OutOfTime => "it is not valid now".to_owned(),
        Distrust::Other(reason) => reason.clone(),
    };
    let name = |of: fn(&Certificate) -> String| server.map_or_else(|| "unreadable".to_owned(), of);
    let (subject, issuer) = (name(|it| it.subject().to_string()), name(|it| it.issuer().to_string()));
    Some(Cause::TlsIntercepted { host, subject, issuer, reason })
}

/// Returns a cause if the device has a certificate that the server did not request.
fn certificate_not_requested(attempt: &Attempt<'_>, observations: &Observations) -> Option<Cause> {
    let server = observations.server_certificate.as_ref()?;
    let presents = matches!(attempt.credential, Credential::Certificate(_));
    (presents && !observations.asked_for_certificate)
        .then(|| Cause::CertificateNotAskedFor { host: observations.host.clone(), issuer: server.issuer().to_string() })
}

fn wrong_scope(attempt: &Attempt<'_>, application: Option<&EnrollmentState>) -> Cause {
    let actual = application.and_then(|application| application.id_scope.clone());
    Cause::WrongIdScope { given: attempt.id_scope.clone(), actual }
}

/// Returns whether the enrollment state is that of a service with another ID scope.
fn is_of_another_scope(attempt: &Attempt<'_>, application: &EnrollmentState) -> bool {
    application.id_scope.as_ref().is_some_and(|scope| !scope.matches(attempt.id_scope))
}

/// Diagnoses the refusal of a device.
fn refused(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    if application.is_some_and(|application| is_of_another_scope(attempt, application)) {
        return Diagnosis::of([wrong_scope(attempt, application)]);
    }
    if let Some(cause) = certificate_not_requested(attempt, observations) {
        return Diagnosis::of([cause]);
    }
    match attempt.credential {
        Credential::Certificate(device) => certificate_refused(attempt, device, observations, application),
        Credential::SymmetricKey(key) => key_refused(attempt, key, observations, application),
    }
}

/// Diagnoses the end "disabled": the service knows the device by this ID scope, so only what is disabled can be the cause.
fn disabled(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    // The state of another service tells nothing.
    let application = application.filter(|it| !is_of_another_scope(attempt, it));
    let mut diagnosis = refused(attempt, observations, application);
    let counts = |cause: &Cause| matches!(cause, Cause::DeviceDisabled { .. } | Cause::GroupDisabled { .. });
    diagnosis.causes.retain(counts);
    diagnosis.possible.retain(counts);
    if diagnosis.needs_application {
        diagnosis.possible.push(Cause::DeviceDisabled { id: attempt.id.to_string() });
    }
    diagnosis
}

fn certificate_refused(
    attempt: &Attempt<'_>,
    device: &DeviceCertificate,
    observations: &Observations,
    application: Option<&EnrollmentState>,
) -> Diagnosis {
    let mut causes: Vec<_> = wrong_common_name(attempt, device).into_iter().collect();
    causes.extend(no_client_authentication(device));
    let out_of_validity = validity_cause(device.certificate(), observations);
    let is_out_of_validity = out_of_validity.is_some();
    causes.extend(out_of_validity);
    let Some(application) = application else {
        let mut possible = Vec::new();
        if causes.is_empty() {
            // Certificates above the enrolled one do not matter, but only the application tells which one is enrolled.
            possible.extend(device.chain().iter().find_map(|certificate| validity_cause(certificate, observations)));
            possible.extend(objection_causes(device, observations.at));
            possible.extend(chain_without_state(device, attempt.unsent));
        }
        return Diagnosis { causes, possible, needs_application: true };
    };
    let presented = device.certificate().sha1_thumbprint();
    causes.extend(device_cause(attempt.id, application, Some(presented), |own| match own {
        OwnAttestation::X509(thumbprints) => thumbprints.contains(&presented),
        OwnAttestation::Other(_) => false,
    }));
    let mut possible = Vec::new();
    // An individual attestation overrides enrollment groups.
    if !has_own(application) {
        let mut verdict = chain_with_state(attempt, device, observations, application);
        // That its issuer may not be enrolled is no more than a guess beside a certain cause.
        let is_guess = |cause: &Cause| matches!(cause, Cause::ChainNotSent { leads_there: false, .. });
        verdict.causes.retain(|cause| !(is_out_of_validity && is_guess(cause)));
        causes.extend(verdict.causes);
        possible = verdict.possible;
    }
    // Services accept some certificates that they advise against, so objections are the last resort.
    if causes.is_empty() && possible.is_empty() {
        causes = objection_causes(device, observations.at);
    }
    if !causes.is_empty() {
        possible.clear();
    }
    Diagnosis { causes, possible, needs_application: false }
}

fn key_refused(
    attempt: &Attempt<'_>,
    key: &SymmetricKey,
    observations: &Observations,
    application: Option<&EnrollmentState>,
) -> Diagnosis {
    // A local clock that is ahead only extends the token's lifetime.
    let skewed = observations
        .credible_date()
        .filter(|theirs| theirs.duration_since(observations.at) > TOKEN_LIFETIME)
        .map(|theirs| {
            let consequence = "the token, which is valid for an hour, has expired by the server's clock".to_owned();
            Cause::ClockSkewed { ours: observations.at, theirs, consequence }
        });
    let Some(application) = application else {
        let wrong = skewed.is_none().then(|| Cause::WrongSymmetricKey { id: attempt.id.to_string() });
        return Diagnosis {
            causes: skewed.into_iter().collect(),
            possible: wrong.into_iter().collect(),
            needs_application: true,
        };
    };
    let mut causes: Vec<_> = skewed.into_iter().collect();
    let keys = application.device.as_ref().map_or(&[][..], |device| &device.keys);
    let is_own = |own: &OwnAttestation| matches!(own, OwnAttestation::Other(kind) if kind == SYMMETRIC_KEY);
    causes.extend(device_cause(attempt.id, application, None, |own| is_own(own) && keys.contains(key)));
    // An individual attestation overrides enrollment groups.
    if has_own(application) {
        return Diagnosis::of(causes);
    }
    let verdict = key_with_state(attempt, key, keys, application);
    causes.extend(verdict.causes);
    let possible = if causes.is_empty() { verdict.possible } else { Vec::new() };
    Diagnosis { possible, ..Diagnosis::of(causes) }
}

/// Diagnoses a symmetric key with the enrollment state. `keys` are the device's.
fn key_with_state(
    attempt: &Attempt<'_>,
    key: &SymmetricKey,
    keys: &[SymmetricKey],
    application: &EnrollmentState,
) -> Diagnosis {
    let id = attempt.id.to_string();
    let groups = application.groups.iter().filter_map(|group| match &group.attestation {
        GroupAttestation::SymmetricKey(keys) => Some((group, keys)),
        _ => None,
    });
    let groups: Vec<_> = groups.collect();
    if let Some((group, _)) = groups.iter().find(|(_, keys)| keys.contains(key)) {
        return Diagnosis::of([Cause::GroupKeyUsed { group: group.id.clone() }]);
    }
    let derived_for =
        |id: &DeviceId| groups.iter().find(|(_, keys)| keys.iter().any(|it| derive_device_key(it, id) == *key));
    // Some tools derive keys for the ID in lower case.
    let lower = || DeviceId::new(id.to_ascii_lowercase()).ok();
    let as_written = derived_for(attempt.id);
    if let Some((group, _)) = as_written.or_else(|| derived_for(&lower()?)) {
        if !group.enabled {
            return Diagnosis::of([Cause::GroupDisabled { group: group.id.clone() }]);
        }
        let possible = if as_written.is_none() { vec![Cause::WrongSymmetricKey { id }] } else { Vec::new() };
        return Diagnosis { possible, ..Diagnosis::unknown() };
    }
    if groups.is_empty() && keys.is_empty() {
        return Diagnosis::of([Cause::NothingEnrolled { id, kind: SYMMETRIC_KEY }]);
    }
    let wrong = (!keys.contains(key)).then_some(Cause::WrongSymmetricKey { id });
    Diagnosis::of(wrong)
}

/// Returns what the state of the device itself objects to. `presented` is the thumbprint of its certificate, if it has
/// one.
fn device_cause(
    id: &DeviceId,
    application: &EnrollmentState,
    presented: Option<Thumbprint>,
    fits: impl Fn(&OwnAttestation) -> bool,
) -> Option<Cause> {
    let id = id.to_string();
    let device = application.device.as_deref()?;
    if !device.enabled {
        return Some(Cause::DeviceDisabled { id });
    }
    let own = device.attestation.as_ref().filter(|own| !fits(own))?.clone();
    Some(Cause::AttestationDiffers { id, own, presented })
}

fn has_own(application: &EnrollmentState) -> bool {
    application.device.as_ref().is_some_and(|device| device.attestation.is_some())
}

/// Returns the entries that hold this certificate.
fn entries_with<'a>(
    certificate: &Certificate,
    enrolled: &'a [EnrolledCertificate],
) -> impl Iterator<Item = &'a EnrolledCertificate> {
    let thumbprint = certificate.sha1_thumbprint();
    enrolled.iter().filter(move |entry| entry.thumbprint == thumbprint)
}

/// Returns why none of these entries admits a device, or nothing if one does.
fn obstacles<'a>(entries: impl Iterator<Item = &'a EnrolledCertificate>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for entry in entries {
        if entry.verified && entry.enabled {
            return Vec::new();
        }
        if !entry.verified {
            causes.push(Cause::EntryNotVerified(entry.clone()));
        }
        let disabled = Cause::GroupDisabled { group: entry.group.clone() };
        if !entry.enabled && !causes.contains(&disabled) {
            causes.push(disabled);
        }
    }
    causes
}

/// Diagnoses a chain with the enrollment state.
fn chain_with_state(
    attempt: &Attempt<'_>,
    device: &DeviceCertificate,
    observations: &Observations,
    application: &EnrollmentState,
) -> Diagnosis {
    let sent = device.chain();
    let enrolled = &application.enrolled()[..];
    let known = whole_chain(sent, attempt.unsent);
    let is_enrolled = |certificate: &Certificate| entries_with(certificate, enrolled).next().is_some();
    if !known.iter().any(is_enrolled)
        && let Some(cause) = not_referred(&known, application)
    {
        return Diagnosis::of([cause]);
    }
    if enrolled.is_empty() {
        let id = attempt.id.to_string();
        return Diagnosis::of([Cause::NothingEnrolled { id, kind: "x509" }]);
    }
    let Some(hit) = known.iter().position(is_enrolled) else {
        if device.certificate().is_self_signed() {
            return Diagnosis::of(self_signed_leaf(device));
        }
        if let Some(cause) = root_not_enrolled(&known, enrolled) {
            return Diagnosis::of([cause]);
        }
        // An entry that admits no device may hold the missing issuer.
        let possible = obstacles(enrolled.iter().filter(|entry| !(entry.verified && entry.enabled)));
        let not_sent = chain_not_sent(sent, enrolled, false);
        if possible.is_empty() {
            return Diagnosis::of(not_sent);
        }
        let possible = not_sent.into_iter().chain(possible).collect();
        return Diagnosis { causes: Vec::new(), possible, needs_application: false };
    };
    // Certificates above the enrolled one do not matter. The device's own was checked before.
    let above = known[..=hit].iter().skip(1).find_map(|certificate| validity_cause(certificate, observations));
    let mut causes: Vec<_> = above.into_iter().collect();
    causes.extend(invalid_chain(&known, &known[hit], observations.at));
    causes.extend(obstacles(entries_with(&known[hit], enrolled)));
    // The enrolled certificate itself need not be sent.
    if hit > sent.len() {
        causes.extend(chain_not_sent(sent, enrolled, true));
    }
    Diagnosis::of(causes)
}

/// Returns a cause if the chain leads to a CA certificate of the service that no group refers to.
fn not_referred(chain: &[Certificate], application: &EnrollmentState) -> Option<Cause> {
    let (name, thumbprint) = application
        .unreferenced
        .iter()
        .find(|(_, thumbprint)| chain.iter().skip(1).any(|certificate| certificate.sha1_thumbprint() == *thumbprint))?;
    Some(Cause::NoGroupRefers { certificate: name.clone(), thumbprint: *thumbprint })
}

/// Diagnoses a chain without the enrollment state.
fn chain_without_state(device: &DeviceCertificate, unsent: &[Certificate]) -> Vec<Cause> {
    if device.certificate().is_self_signed() {
        return self_signed_leaf(device);
    }
    let sent = device.chain();
    let cause = if ends_at_root(sent) { root_not_enrolled(sent, &[]) } else { chain_not_sent(sent, &[], false) };
    let beyond = root_not_enrolled(&whole_chain(sent, unsent), &[]).filter(|_| !ends_at_root(sent));
    cause.into_iter().chain(beyond).collect()
}

/// Returns why a chain to an enrolled certificate is invalid, apart from its validity.
fn invalid_chain(chain: &[Certificate], enrolled: &Certificate, at: Timestamp) -> Option<Cause> {
    let error = verify(chain, enrolled, at).err()?;
    let is_time = matches!(error, ChainError::Expired { .. } | ChainError::NotYetValid { .. });
    (!is_time).then_some(Cause::ChainUnsound(error))
}

fn chain_not_sent(sent: &[Certificate], enrolled: &[EnrolledCertificate], leads_there: bool) -> Option<Cause> {
    let last = sent.last()?;
    Some(Cause::ChainNotSent {
        subject: last.subject().to_string(),
        issuer: last.issuer().to_string(),
        enrolled: enrolled.to_vec(),
        leads_there,
    })
}

fn root_not_enrolled(chain: &[Certificate], enrolled: &[EnrolledCertificate]) -> Option<Cause> {
    let root = chain.last().filter(|_| ends_at_root(chain))?;
    Some(Cause::ChainLeadsElsewhere {
        root: root.subject().to_string(),
        thumbprint: root.sha1_thumbprint(),
        enrolled: enrolled.to_vec(),
    })
}

fn ends_at_root(chain: &[Certificate]) -> bool {
    chain.last().is_some_and(Certificate::is_self_signed)
}

fn self_signed_leaf(device: &DeviceCertificate) -> Vec<Cause> {
    let subject = device.certificate().subject().to_string();
    vec![Cause::Certificate { subject, objection: Objection::SelfSignedLeaf }]
}

/// Returns the chain completed with the certificates that were not sent.
fn whole_chain(sent: &[Certificate], unsent: &[Certificate]) -> Vec<Certificate> {
    let mut all = sent.to_vec();
    all.extend(unsent.iter().filter(|certificate| !sent.contains(certificate)).cloned());
    let length = sort_chain(&mut all);
    all.truncate(length);
    all
}

fn wrong_common_name(attempt: &Attempt<'_>, device: &DeviceCertificate) -> Option<Cause> {
    let found = device.certificate().subject().common_name();
    let equal = found.is_some_and(|name| name.eq_ignore_ascii_case(attempt.id.as_str()));
    (!equal).then(|| Cause::WrongCommonName { id: attempt.id.to_string(), found: found.map(str::to_owned) })
}

fn no_client_authentication(device: &DeviceCertificate) -> Option<Cause> {
    let certificate = device.certificate();
    let subject = || certificate.subject().to_string();
    (!certificate.allows_client_authentication()).then(|| Cause::NoClientAuthentication { subject: subject() })
}

/// Returns the objections to the device's certificate, except those that are checked separately: validity, name,
/// purpose, and self-signature, which an individual attestation allows.
fn objection_causes(device: &DeviceCertificate, at: Timestamp) -> Vec<Cause> {
    let subject = device.certificate().subject().to_string();
    let found = certificate_objections(device.certificate(), at).into_iter().filter(|objection| {
        matches!(
            objection,
            Objection::Key(_)
                | Objection::WeakSignature(_)
                | Objection::Version(_)
                | Objection::CriticalExtension(_)
                | Objection::MalformedExtension { .. }
                | Objection::NoDigitalSignature
        )
    });
    found.map(|objection| Cause::Certificate { subject: subject.clone(), objection }).collect()
}

fn out_of_time(certificate: &Certificate, at: Timestamp) -> Option<Cause> {
    match check_validity(certificate, at) {
        Err(ChainError::Expired { subject, not_after, at }) => Some(Cause::Expired { subject, not_after, at }),
        Err(ChainError::NotYetValid { subject, not_before, at }) => {
            Some(Cause::NotYetValid { subject, not_before, at })
        }
        _ => None,
    }
}

/// Returns a cause if a certificate is not valid by the server's clock, or by the local clock if the server sent no
/// date. The cause is the local clock if that clock makes the certificate valid.
fn validity_cause(certificate: &Certificate, observations: &Observations) -> Option<Cause> {
    let ours = observations.at;
    let Some(theirs) = observations.credible_date() else { return out_of_time(certificate, ours) };
    let cause = out_of_time(certificate, theirs)?;
    let skewed = theirs.max(ours).duration_since(theirs.min(ours)) > SKEW && out_of_time(certificate, ours).is_none();
    if !skewed {
        return Some(cause);
    }
    let subject = certificate.subject();
    let consequence = format!(
        "{subject} is valid by the clock of this machine and {} by the server's",
        if matches!(cause, Cause::Expired { .. }) { "expired" } else { "not valid yet" }
    );
    Some(Cause::ClockSkewed { ours, theirs, consequence })
}
