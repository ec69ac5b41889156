//! The individual enrollments of a plan, at the instance: ten with a call, because the service limits calls.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use futures_util::future::join_all;

use super::{
    super::{bulk::Signal, import::signal},
    apply_groups::same_keys,
    apply_report::ItemOutcome,
    ca_files::read_certificate,
    drift::{DeviceDrift, admission_drift},
    inspection::{Identity, Inspector},
    plan::{DeviceAdmission, PlannedDevice},
    target::{EnrollmentKind, KnownEnrollments},
};
use crate::{
    certificate::{
        Certificate, Thumbprint,
        files::{FileError, Passwords, read_certificates_with},
    },
    dps::service::{
        Attestation, EnrollmentSettings, IndividualEnrollments, NewAttestation, NewCertificates,
        NewIndividualEnrollment, RegistrationId, RegistrationStatus, Registrations,
    },
    transport::{Error, SymmetricKeys},
};

/// Creates individual enrollments.
pub(super) struct DeviceMover {
    pub(super) enrollments: IndividualEnrollments,
    pub(super) registrations: Registrations,
    /// Whether the sign-in turned out not to be allowed to read registration records.
    pub(super) registrations_unread: AtomicBool,
    /// Reads devices of the application; none if the plan's own keys are used.
    pub(super) inspector: Option<Inspector>,
    pub(super) drift: DeviceDrift,
    pub(super) known: KnownEnrollments,
    pub(super) key_password: Option<zeroize::Zeroizing<String>>,
    pub(super) dry_run: bool,
}

/// The outcome of a device.
pub(super) struct Moved {
    pub(super) id: String,
    pub(super) outcome: ItemOutcome,
    pub(super) message: String,
}

/// Why a device cannot be enrolled.
enum Failure {
    Service(Error),
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Other(error.to_string())
    }
}

/// An individual enrollment to create.
struct Wanted {
    id: RegistrationId,
    enrollment: NewIndividualEnrollment,
    kind: EnrollmentKind,
    keys: Option<SymmetricKeys>,
    is_enabled: bool,
    endorsement_key: Option<String>,
}

impl DeviceMover {
    /// Enrolls up to ten devices. Returns the outcome of each, and what they say about the devices after them.
    pub(super) async fn apply(self: Arc<Self>, devices: Vec<PlannedDevice>) -> (Vec<Moved>, Signal) {
        let (mut moved, mut worst) = (Vec::new(), Signal::NotSent);
        let mut missing = Vec::new();
        let prepared = join_all(devices.iter().map(|device| self.prepare(device))).await;
        for (device, prepared) in devices.iter().zip(prepared) {
            match prepared {
                Ok(wanted) if self.known.get(device.id.as_str()).is_some() => {
                    let checked = self.present(&wanted).await;
                    moved.push(outcome(device.id.to_string(), checked, &mut worst));
                }
                Ok(_) if self.dry_run => {
                    moved.push(outcome(device.id.to_string(), Ok(ItemOutcome::Planned), &mut worst));
                }
                Ok(wanted) => missing.push(wanted),
                Err(failure) => moved.push(outcome(device.id.to_string(), Err(failure), &mut worst)),
            }
        }
        self.create(&missing, &mut moved, &mut worst).await;
        (moved, worst)
    }

    /// Reads what the enrollment of a device needs.
    async fn prepare(&self, device: &PlannedDevice) -> Result<Wanted, Failure> {
        if let Some(change) = self.drift.of(device.id.as_str()) {
            return Err(Failure::Other(change.to_owned()));
        }
        let id = RegistrationId::new(device.id.as_str()).map_err(|error| Failure::Other(error.to_string()))?;
        let keys = self.read_keys(device).await?;
        let (attestation, kind) = self.attestation(device, keys.as_ref())?;
        let endorsement_key = match &device.admission {
            DeviceAdmission::Tpm { endorsement_key } => Some(endorsement_key.clone()),
            _ => None,
        };
        let iot_edge = device.iot_edge.then_some(true);
        let settings = EnrollmentSettings::new().enabled(Some(device.enabled)).iot_edge(iot_edge);
        let enrollment = NewIndividualEnrollment::new(attestation).settings(settings);
        Ok(Wanted { id, enrollment, kind, keys, is_enabled: device.enabled, endorsement_key })
    }

    /// Reads a device again, and fails if it has changed. Returns its keys, if it has any.
    async fn read_keys(&self, device: &PlannedDevice) -> Result<Option<SymmetricKeys>, Failure> {
        let Some(inspector) = &self.inspector else {
            let (DeviceAdmission::SymmetricKey(planned) | DeviceAdmission::SymmetricGroup { keys: Some(planned), .. }) =
                &device.admission
            else {
                return Ok(None);
            };
            return match &planned.keys {
                Some(keys) => Ok(Some(keys.clone())),
                None => Err(Failure::Other("the plan does not include its keys".to_owned())),
            };
        };
        let Identity { admission, keys, .. } = inspector.identify(&device.id, device.enabled).await?;
        match admission_drift(&device.admission, &admission) {
            Some(change) => Err(Failure::Other(change.to_owned())),
            None => Ok(keys),
        }
    }

    fn attestation(
        &self,
        device: &PlannedDevice,
        keys: Option<&SymmetricKeys>,
    ) -> Result<(NewAttestation, EnrollmentKind), Failure> {
        match (&device.admission, keys) {
            (DeviceAdmission::SymmetricKey(_) | DeviceAdmission::SymmetricGroup { .. }, Some(keys)) => {
                Ok((NewAttestation::SymmetricKey(Some(keys.clone())), EnrollmentKind::SymmetricKey))
            }
            (DeviceAdmission::Tpm { endorsement_key }, _) => {
                Ok((NewAttestation::Tpm { endorsement_key: endorsement_key.clone() }, EnrollmentKind::Tpm))
            }
            (DeviceAdmission::X509 { primary, secondary, files }, _) => {
                let wanted: Vec<_> = [*primary, *secondary].into_iter().flatten().collect();
                let mut found = Vec::new();
                for thumbprint in wanted {
                    found.extend(self.read_own(files, thumbprint)?);
                }
                let missing = || Failure::Other("no file has its certificate any more".to_owned());
                let mut found = found.into_iter();
                let primary = found.next().ok_or_else(missing)?;
                Ok(with_certificates(primary, found.next()))
            }
            (DeviceAdmission::X509Group { file: Some(file) }, _) => {
                let certificates = read_certificates_with(file, self.passwords())?;
                let is_leaf = |certificate: &Certificate| {
                    certificate
                        .subject()
                        .common_name()
                        .is_some_and(|name| name.eq_ignore_ascii_case(device.id.as_str()))
                };
                let leaf = certificates.into_iter().find(is_leaf).ok_or_else(|| {
                    Failure::Other(format!("{} does not have its certificate any more", file.display()))
                })?;
                Ok(with_certificates(leaf, None))
            }
            _ => Err(Failure::Other("the application tells no credential of it".to_owned())),
        }
    }

    fn passwords(&self) -> Passwords<'_> {
        Passwords::new().key(self.key_password.as_ref().map(|password| password.as_str()))
    }

    /// Reads the certificate with a thumbprint from one of these files.
    fn read_own(&self, files: &[std::path::PathBuf], thumbprint: Thumbprint) -> Result<Option<Certificate>, Failure> {
        for file in files {
            if let Some(found) = read_certificate(file, thumbprint, self.passwords())? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Creates enrollments that the instance did not have when the run started.
    async fn create(&self, missing: &[Wanted], moved: &mut Vec<Moved>, worst: &mut Signal) {
        let new: Vec<_> = missing.iter().map(|wanted| (wanted.id.clone(), wanted.enrollment.clone())).collect();
        let failed: Vec<String> = match self.enrollments.create_many(&new).await {
            Ok(errors) => errors.into_iter().map(|error| error.id).collect(),
            // Which of them were created is found out one by one.
            Err(error) if error.answer_was_lost() => missing.iter().map(|wanted| wanted.id.to_string()).collect(),
            Err(error) => {
                *worst = merged(*worst, signal(&error));
                let message = error.to_string();
                let failed = |wanted: &Wanted| Moved {
                    id: wanted.id.to_string(),
                    outcome: ItemOutcome::Failed,
                    message: message.clone(),
                };
                return moved.extend(missing.iter().map(failed));
            }
        };
        for wanted in missing {
            let id = wanted.id.to_string();
            let created = if failed.iter().any(|failed| failed.eq_ignore_ascii_case(&id)) {
                // The errors of a bulk operation are short. The service's answer for one device tells why it failed, or that
                // it is there.
                self.create_one(wanted).await
            } else {
                self.blocked(wanted).await.map(|()| ItemOutcome::Created)
            };
            moved.push(outcome(id, created, worst));
        }
    }

    async fn create_one(&self, wanted: &Wanted) -> Result<ItemOutcome, Failure> {
        match self.enrollments.create(&wanted.id, &wanted.enrollment).await {
            Ok(_) => self.blocked(wanted).await.map(|()| ItemOutcome::Created),
            Err(Error::AlreadyExists { .. }) => self.present(wanted).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn present(&self, wanted: &Wanted) -> Result<ItemOutcome, Failure> {
        self.check(wanted).await?;
        self.blocked(wanted).await?;
        Ok(ItemOutcome::Present)
    }

    /// Fails if a disabled device has registered before its enrollment blocked it.
    async fn blocked(&self, wanted: &Wanted) -> Result<(), Failure> {
        if wanted.is_enabled || self.registrations_unread.load(Relaxed) {
            return Ok(());
        }
        let record = match self.registrations.find(&wanted.id).await {
            Ok(record) => record,
            // The rights to enrollments do not include those to registration records.
            Err(error) if matches!(error.status(), Some(401 | 403)) => {
                self.registrations_unread.store(true, Relaxed);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match record.filter(|record| record.status == RegistrationStatus::Assigned) {
            None => Ok(()),
            Some(record) => {
                let hub = record.assigned_hub.unwrap_or_else(|| "its hub".to_owned());
                Err(Failure::Other(format!(
                    "its disabled enrollment is there, but the device has registered before: disable its identity at {hub}, \
                     and delete its registration record"
                )))
            }
        }
    }

    /// Fails if the enrollment that is there is another one.
    async fn check(&self, wanted: &Wanted) -> Result<(), Failure> {
        let other = |what: &str| {
            Err(Failure::Other(format!(
                "the instance has an individual enrollment of this ID {what}, and it is not overwritten"
            )))
        };
        let Some(found) = self.enrollments.find(&wanted.id).await? else {
            return other("no more");
        };
        if EnrollmentKind::of(&found.attestation) != wanted.kind {
            let kind = found.attestation.kind();
            return other(&format!("for another certificate or attestation ({kind})"));
        }
        if let Some(keys) = &wanted.keys {
            let attestation = self.enrollments.attestation(&wanted.id).await?;
            if !attestation.symmetric_keys().is_some_and(|found| same_keys(found, keys)) {
                return other("with other keys");
            }
        }
        if let (Attestation::Tpm { endorsement_key: Some(found) }, Some(wanted)) =
            (&found.attestation, &wanted.endorsement_key)
            && found != wanted
        {
            return other("with another endorsement key");
        }
        if found.is_enabled() != wanted.is_enabled {
            return other(if found.is_enabled() {
                "that is enabled, but the device is disabled"
            } else {
                "that is disabled, but the device is enabled"
            });
        }
        Ok(())
    }
}

fn with_certificates(primary: Certificate, secondary: Option<Certificate>) -> (NewAttestation, EnrollmentKind) {
    let thumbprints = std::iter::once(&primary).chain(&secondary).map(Certificate::sha1_thumbprint);
    let kind = EnrollmentKind::x509(thumbprints);
    let mut certificates = NewCertificates::new(primary);
    if let Some(secondary) = secondary {
        certificates = certificates.secondary(secondary);
    }
    (NewAttestation::ClientCertificates(certificates), kind)
}

/// Describes the outcome of a device, and adds what it says about the devices after it.
fn outcome(id: String, result: Result<ItemOutcome, Failure>, worst: &mut Signal) -> Moved {
    let (outcome, message, said) = match result {
        Ok(outcome) => (outcome, String::new(), Signal::Answered),
        Err(Failure::Service(error)) => (ItemOutcome::Failed, error.to_string(), signal(&error)),
        Err(Failure::Other(message)) => (ItemOutcome::Failed, message, Signal::Answered),
    };
    *worst = merged(*worst, said);
    Moved { id, outcome, message }
}

/// Returns what ten devices say together: the worst.
fn merged(one: Signal, other: Signal) -> Signal {
    let rank = |signal: Signal| match signal {
        Signal::NotSent => 0,
        Signal::Answered => 1,
        Signal::ServiceFailed => 2,
        Signal::Unreachable => 3,
        Signal::OutOfFiles => 4,
        Signal::Forbidden => 5,
        Signal::AffectsAll => 6,
    };
    if rank(other) > rank(one) { other } else { one }
}
