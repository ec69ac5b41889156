//! Which cause it was, from the certificates, the answer, and the state of the application. Nothing here is sent.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::{
    admission::{EnrolledCertificate, EnrollmentState, GroupAttestation, OwnAttestation, SYMMETRIC_KEY},
    cause::Cause,
    credential::{Credential, DeviceCertificate, is_self_signed, sort_chain},
    endpoint::ProvisioningEndpoint,
    error::{Distrust, Observations, RegistrationError, RegistrationErrorKind as Kind},
    id_scope::IdScope,
    symmetric_key::{SymmetricKey, TOKEN_LIFETIME, derive_device_key},
};
use crate::{
    certificate::{
        Certificate, ChainError, DeviceId, Objection, Thumbprint,
        chain::{check_validity, verify},
        objections as dislikes,
    },
    transport::NetworkFailure,
};

/// How far clocks may be apart before it is worth a word.
const SKEW: Duration = Duration::minutes(5);

/// A registration, as it was tried.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The registration id.
    pub id: &'a DeviceId,
    /// The id scope.
    pub id_scope: &'a IdScope,
    /// What the device proved itself with.
    pub credential: &'a Credential,
    /// Certificates above the device's that are known here and were not sent, as from another file.
    pub unsent: &'a [Certificate],
}

/// What a failed registration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What it was.
    pub causes: Vec<Cause>,
    /// What it may have been, where more could not be found out.
    pub possible: Vec<Cause>,
    /// Whether the application's state would tell more, and was not given.
    pub needs_application: bool,
}

impl Diagnosis {
    fn of(causes: Vec<Cause>) -> Self {
        Self { causes, possible: Vec::new(), needs_application: false }
    }

    /// The first cause, or the first that is possible.
    #[must_use]
    pub fn first(&self) -> Option<&Cause> {
        self.causes.first().or(self.possible.first())
    }
}

/// One line for each cause; none where there is no telling.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = self.causes.iter().map(|cause| ("cause", cause));
        let possible = self.possible.iter().map(|cause| ("perhaps", cause));
        for (index, (word, cause)) in causes.chain(possible).enumerate() {
            write!(f, "{}{word}: {cause}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// A registration that failed, and what it came from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unregistered {
    /// How it failed.
    pub error: RegistrationError,
    /// Why.
    pub diagnosis: Diagnosis,
}

impl Unregistered {
    /// Joins both.
    #[must_use]
    pub fn new(error: RegistrationError, diagnosis: Diagnosis) -> Self {
        Self { error, diagnosis }
    }
}

impl fmt::Display for Unregistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        let diagnosis = self.diagnosis.to_string();
        // What was not sent has told its cause already.
        if self.error.is_not_sent() || diagnosis.is_empty() {
            return Ok(());
        }
        diagnosis.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Unregistered {}

/// What can be said against a registration before anything is sent. `at` is the time here.
///
/// Of these only a wrong common name, missing client authentication and plain HTTP keep
/// [`RegistrationClient::register`](super::RegistrationClient::register) from sending: validity is for the service to
/// judge, by its own clock.
#[must_use]
pub fn objections(attempt: &Attempt<'_>, at: OffsetDateTime) -> Vec<Cause> {
    let Credential::Certificate(device) = attempt.credential else { return Vec::new() };
    let mut causes: Vec<_> = wrong_common_name(attempt, device).into_iter().collect();
    causes.extend(device.chain().iter().find_map(|certificate| out_of_time(certificate, at)));
    causes.extend(no_client_authentication(device));
    causes.extend(disliked(device, at));
    causes
}

/// What the service is certain to refuse, so that it need not be asked.
pub(super) fn certain_refusal(attempt: &Attempt<'_>, endpoint: &ProvisioningEndpoint) -> Option<Cause> {
    let Credential::Certificate(device) = attempt.credential else { return None };
    if !endpoint.is_https() {
        return Some(Cause::PlainHttp { host: endpoint.host().to_owned() });
    }
    wrong_common_name(attempt, device).or_else(|| no_client_authentication(device))
}

/// Tells the cause of a failed registration.
///
/// With the application's state, which takes a token to read (`workflow::read_enrollment_state` and `workflow::read_device_state`), the
/// cause is found in most cases. Without it [`Diagnosis::possible`] has what it may be.
#[must_use]
pub fn diagnose(attempt: &Attempt<'_>, error: &RegistrationError, application: Option<&EnrollmentState>) -> Diagnosis {
    let observations = &*error.observations;
    match &error.kind {
        Kind::NotSent(cause) => Diagnosis::of(vec![(**cause).clone()]),
        Kind::Network { failure: NetworkFailure::Connect | NetworkFailure::TimedOut, .. } | Kind::TimedOut { .. } => {
            Diagnosis::of(Vec::new())
        }
        // Who answers at all has not ended the connection for the certificate.
        Kind::Network { failure, .. } if *failure == NetworkFailure::NotHttp || observations.answered => {
            Diagnosis::of(not_asked_for(attempt, observations).into_iter().collect())
        }
        // Servers end the handshake, or in TLS 1.3 the connection after it, if they do not like a certificate.
        Kind::Network { .. } => match distrusted(observations) {
            Some(cause) => Diagnosis::of(vec![cause]),
            None if observations.asked_for_certificate => refused(attempt, observations, application),
            None => Diagnosis::of(Vec::new()),
        },
        Kind::Refused(refusal) => {
            match refusal.status {
                401 | 403 => {
                    let mut diagnosis = refused(attempt, observations, application);
                    // The service words it as it does the others, but for a chain that it cannot follow.
                    let may_be_disabled = diagnosis.needs_application && diagnosis.causes.is_empty();
                    if may_be_disabled && !refusal.message.to_ascii_lowercase().contains("ca certificate") {
                        diagnosis.possible.push(Cause::DeviceDisabled { id: attempt.id.to_string() });
                    }
                    diagnosis
                }
                // What is gone is not the scope.
                404 if refusal.is_operation_gone() => Diagnosis::of(Vec::new()),
                404 => match refusal.error_code {
                    Some(404_200..404_300) => not_found(attempt, observations, application),
                    // Only the service has codes of its own.
                    Some(_) => Diagnosis::of(not_asked_for(attempt, observations).into_iter().collect()),
                    None => Diagnosis::of(vec![not_asked_for(attempt, observations).unwrap_or_else(|| {
                        Cause::NotTheService { host: observations.host.clone(), status: refusal.status }
                    })]),
                },
                _ => Diagnosis::of(not_asked_for(attempt, observations).into_iter().collect()),
            }
        }
        // Of other ends, such as an allocation policy's, the service's words tell all that can be known.
        Kind::Ended { status, .. } if status.eq_ignore_ascii_case("disabled") => {
            disabled(attempt, observations, application)
        }
        Kind::Ended { error_code: Some(401_000..404_000), .. } => refused(attempt, observations, application),
        Kind::Ended { .. } => Diagnosis::of(Vec::new()),
        Kind::Redirect { .. } | Kind::Answer { .. } | Kind::Tls(_) => {
            Diagnosis::of(not_asked_for(attempt, observations).into_iter().collect())
        }
    }
}

/// The service does not know the scope; or, where the application has just that scope, it may mean the enrollment.
fn not_found(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    let diagnosis = refused(attempt, observations, application);
    if application.is_some_and(|it| it.id_scope.is_some()) && !diagnosis.causes.is_empty() {
        return diagnosis;
    }
    let needs_application = application.is_none();
    Diagnosis { needs_application, ..Diagnosis::of(vec![wrong_scope(attempt, application)]) }
}

/// The server's certificate was not trusted.
fn distrusted(observations: &Observations) -> Option<Cause> {
    let host = observations.host.clone();
    let server = observations.server_certificate.as_ref();
    let distrust = observations.distrust.as_ref()?;
    // If it is out of its time, one more root to trust does not help.
    let untimely =
        |server: &&Certificate| *distrust == Distrust::OutOfTime || check_validity(server, observations.at).is_err();
    if let Some(server) = server.filter(untimely) {
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

/// The device has a certificate and the server did not ask for it.
fn not_asked_for(attempt: &Attempt<'_>, observations: &Observations) -> Option<Cause> {
    let server = observations.server_certificate.as_ref()?;
    let presents = matches!(attempt.credential, Credential::Certificate(_));
    (presents && !observations.asked_for_certificate)
        .then(|| Cause::CertificateNotAskedFor { host: observations.host.clone(), issuer: server.issuer().to_string() })
}

fn wrong_scope(attempt: &Attempt<'_>, application: Option<&EnrollmentState>) -> Cause {
    let actual = application.and_then(|application| application.id_scope.clone());
    Cause::WrongIdScope { given: attempt.id_scope.clone(), actual }
}

/// The service did not let the device in.
fn refused(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    let scope = application.and_then(|application| application.id_scope.as_ref());
    if scope.is_some_and(|scope| !scope.matches(attempt.id_scope)) {
        return Diagnosis::of(vec![wrong_scope(attempt, application)]);
    }
    if let Some(cause) = not_asked_for(attempt, observations) {
        return Diagnosis::of(vec![cause]);
    }
    match attempt.credential {
        Credential::Certificate(device) => certificate_refused(attempt, device, observations, application),
        Credential::SymmetricKey(key) => key_refused(attempt, key, observations, application),
    }
}

/// The service knows the device and does not let it in: of what the application tells, only what is disabled counts, and
/// whether it is this application at all.
fn disabled(attempt: &Attempt<'_>, observations: &Observations, application: Option<&EnrollmentState>) -> Diagnosis {
    let mut diagnosis = refused(attempt, observations, application);
    let counts = |cause: &Cause| {
        matches!(cause, Cause::DeviceDisabled { .. } | Cause::GroupDisabled { .. } | Cause::WrongIdScope { .. })
    };
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
    causes.extend(timely(device.certificate(), observations));
    let Some(application) = application else {
        let mut possible = Vec::new();
        if causes.is_empty() {
            // What lies above the enrolled certificate does not count, and which one that is only the application tells.
            possible.extend(device.chain().iter().find_map(|certificate| timely(certificate, observations)));
            possible.extend(disliked(device, observations.at));
            possible.extend(chain_alone(device, attempt.unsent));
        }
        return Diagnosis { causes, possible, needs_application: true };
    };
    let presented = device.certificate().sha1_thumbprint();
    causes.extend(own_cause(attempt.id, application, Some(presented), |own| match own {
        OwnAttestation::X509(thumbprints) => thumbprints.contains(&presented),
        OwnAttestation::Other(_) => false,
    }));
    let mut possible = Vec::new();
    // An attestation of the device's own counts before any group.
    if !has_own(application) {
        let verdict = chain_in_application(attempt, device, observations, &application.enrolled());
        causes.extend(verdict.causes);
        possible = verdict.possible;
    }
    // Not everything that services advise against keeps a device out.
    if causes.is_empty() && possible.is_empty() {
        causes = disliked(device, observations.at);
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
    // A clock that is ahead only makes the token good for longer.
    let skewed =
        observations.credible_date().filter(|theirs| *theirs - observations.at > TOKEN_LIFETIME).map(|theirs| {
            let consequence = "the token, made to be good for an hour, has expired there".to_owned();
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
    causes.extend(own_cause(attempt.id, application, None, |own| is_own(own) && keys.contains(key)));
    // An attestation of the device's own counts before any group.
    if has_own(application) {
        return Diagnosis::of(causes);
    }
    let verdict = key_in_application(attempt, key, keys, application);
    causes.extend(verdict.causes);
    let possible = if causes.is_empty() { verdict.possible } else { Vec::new() };
    Diagnosis { possible, ..Diagnosis::of(causes) }
}

/// Which group a symmetric key belongs to, in an application that told what is enrolled. `keys` are the device's.
fn key_in_application(
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
        return Diagnosis::of(vec![Cause::GroupKeyUsed { group: group.id.clone() }]);
    }
    let derived_for =
        |id: &DeviceId| groups.iter().find(|(_, keys)| keys.iter().any(|it| derive_device_key(it, id) == *key));
    // Keys are derived in lower case too.
    let lower = || DeviceId::new(id.to_ascii_lowercase()).ok();
    let as_written = derived_for(attempt.id);
    if let Some((group, _)) = as_written.or_else(|| derived_for(&lower()?)) {
        if !group.enabled {
            return Diagnosis::of(vec![Cause::GroupDisabled { group: group.id.clone() }]);
        }
        let possible = if as_written.is_none() { vec![Cause::WrongSymmetricKey { id }] } else { Vec::new() };
        return Diagnosis { possible, ..Diagnosis::of(Vec::new()) };
    }
    if groups.is_empty() && keys.is_empty() {
        return Diagnosis::of(vec![Cause::NothingEnrolled { id, kind: SYMMETRIC_KEY }]);
    }
    let wrong = (!keys.contains(key)).then_some(Cause::WrongSymmetricKey { id });
    Diagnosis::of(wrong.into_iter().collect())
}

/// What the device's own state has to say against it. `presented` is the certificate's thumbprint, where there is one.
fn own_cause(
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

/// The entries that hold this certificate.
fn leads_to<'a>(
    certificate: &Certificate,
    enrolled: &'a [EnrolledCertificate],
) -> impl Iterator<Item = &'a EnrolledCertificate> {
    let thumbprint = certificate.sha1_thumbprint();
    enrolled.iter().filter(move |entry| entry.thumbprint == thumbprint)
}

/// What keeps these entries from letting a device in; nothing where one of them does.
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

/// Where the chain leads, in an application that told what is enrolled.
fn chain_in_application(
    attempt: &Attempt<'_>,
    device: &DeviceCertificate,
    observations: &Observations,
    enrolled: &[EnrolledCertificate],
) -> Diagnosis {
    let sent = device.chain();
    if enrolled.is_empty() {
        let id = attempt.id.to_string();
        return Diagnosis::of(vec![Cause::NothingEnrolled { id, kind: "x509" }]);
    }
    let known = whole_chain(sent, attempt.unsent);
    let Some(hit) = known.iter().position(|certificate| leads_to(certificate, enrolled).next().is_some()) else {
        if is_self_signed(device.certificate()) {
            return Diagnosis::of(disliked_as_self_signed(device));
        }
        if let Some(elsewhere) = elsewhere(&known, enrolled) {
            return Diagnosis::of(vec![elsewhere]);
        }
        // An entry that lets nobody in may be the missing issuer's.
        let possible = obstacles(enrolled.iter().filter(|entry| !(entry.verified && entry.enabled)));
        let not_sent = chain_not_sent(sent, enrolled, false);
        if possible.is_empty() {
            return Diagnosis::of(not_sent.into_iter().collect());
        }
        let possible = not_sent.into_iter().chain(possible).collect();
        return Diagnosis { causes: Vec::new(), possible, needs_application: false };
    };
    // What lies above the enrolled certificate does not count; the device's own was judged apart.
    let above = known[..=hit].iter().skip(1).find_map(|certificate| timely(certificate, observations));
    let mut causes: Vec<_> = above.into_iter().collect();
    causes.extend(unsound(&known, &known[hit], observations.at));
    causes.extend(obstacles(leads_to(&known[hit], enrolled)));
    // The certificate that issued the last one sent need not be sent if it is the enrolled one.
    if hit > sent.len() {
        causes.extend(chain_not_sent(sent, enrolled, true));
    }
    Diagnosis::of(causes)
}

/// Where the chain leads, as far as it tells by itself.
fn chain_alone(device: &DeviceCertificate, unsent: &[Certificate]) -> Vec<Cause> {
    if is_self_signed(device.certificate()) {
        return disliked_as_self_signed(device);
    }
    let sent = device.chain();
    let cause = if ends_at_root(sent) { elsewhere(sent, &[]) } else { chain_not_sent(sent, &[], false) };
    let beyond = elsewhere(&whole_chain(sent, unsent), &[]).filter(|_| !ends_at_root(sent));
    cause.into_iter().chain(beyond).collect()
}

/// What keeps a chain to an enrolled certificate from being one, its time left aside.
fn unsound(chain: &[Certificate], enrolled: &Certificate, at: OffsetDateTime) -> Option<Cause> {
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

fn elsewhere(chain: &[Certificate], enrolled: &[EnrolledCertificate]) -> Option<Cause> {
    let root = chain.last().filter(|_| ends_at_root(chain))?;
    Some(Cause::ChainLeadsElsewhere {
        root: root.subject().to_string(),
        thumbprint: root.sha1_thumbprint(),
        enrolled: enrolled.to_vec(),
    })
}

fn ends_at_root(chain: &[Certificate]) -> bool {
    chain.last().is_some_and(is_self_signed)
}

fn disliked_as_self_signed(device: &DeviceCertificate) -> Vec<Cause> {
    let subject = device.certificate().subject().to_string();
    vec![Cause::Certificate { subject, objection: Objection::SelfSignedLeaf }]
}

/// The chain as it would be with the certificates that were not sent.
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

/// What services dislike about the device's certificate, but for what is judged apart: its time, its name, what it is
/// for, and whether it is self-signed, which an attestation of its own allows.
fn disliked(device: &DeviceCertificate, at: OffsetDateTime) -> Vec<Cause> {
    let subject = device.certificate().subject().to_string();
    let found = dislikes(device.certificate(), at).into_iter().filter(|objection| {
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

fn out_of_time(certificate: &Certificate, at: OffsetDateTime) -> Option<Cause> {
    match check_validity(certificate, at) {
        Err(ChainError::Expired { subject, not_after, at }) => Some(Cause::Expired { subject, not_after, at }),
        Err(ChainError::NotYetValid { subject, not_before, at }) => {
            Some(Cause::NotYetValid { subject, not_before, at })
        }
        _ => None,
    }
}

/// Whether a certificate is out of its time by the server's clock, or by ours where it told none; and if only by the
/// server's, that it is the clock here.
fn timely(certificate: &Certificate, observations: &Observations) -> Option<Cause> {
    let ours = observations.at;
    let Some(theirs) = observations.credible_date() else { return out_of_time(certificate, ours) };
    let cause = out_of_time(certificate, theirs)?;
    let skewed = (theirs - ours).abs() > SKEW && out_of_time(certificate, ours).is_none();
    if !skewed {
        return Some(cause);
    }
    let subject = certificate.subject();
    let consequence = format!(
        "{subject} is valid here and {} there",
        if matches!(cause, Cause::Expired { .. }) { "expired" } else { "not valid yet" }
    );
    Some(Cause::ClockSkewed { ours, theirs, consequence })
}
