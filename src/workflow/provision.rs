//! The enrollment of a group from end to end.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use serde::Serialize;

use super::{
    CertificateRecord,
    create::CreatedDevices,
    fleet::{FleetRequest, FleetSummary},
    register::RefusedDevice,
    step::{Outcome, Step, StepReport, Steps, WorkflowEvent},
};
use crate::{
    central::{
        Attestation, CertificateEntry, Client, DeviceType, EnrollmentGroup, EnrollmentGroupId, Error, Etag,
        NewEnrollmentGroup, Possession, SigningCertificate,
    },
    certificate::{
        AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, DeviceIssuer,
        IssueOptions, KeyAlgorithm, KeyError, Lifetime, NameError, Thumbprint, Timestamp,
        chain::{self, moment},
        files::{self, FileError, FileSet, IfExists, PfxOptions},
        fleet::{FleetError, SourceError},
    },
    dps::device::{CredentialError, RegistrationClient},
};

/// What to provision a group with.
pub struct ProvisionRequest<'a> {
    /// The enrollment group, created if missing.
    pub group: EnrollmentGroupId,
    /// The name of a group that is created; its id without one.
    pub display_name: Option<String>,
    /// What devices the group is for. A group that exists has to be of this type; without one any will do, and one that
    /// is created is for IoT devices.
    pub device_type: Option<DeviceType>,
    /// The entry for the certificate. Without one, the entry that already holds it, otherwise the primary.
    pub entry: Option<CertificateEntry>,
    /// The authority to enroll.
    pub authority: AuthoritySource,
    /// The password of the authority's key, when it is found in files and encrypted.
    pub key_password: Option<&'a str>,
    /// The devices to make certificates for.
    pub devices: Vec<DeviceId>,
    /// Many devices, whose certificates go to a directory of their own.
    pub fleet: Option<FleetRequest>,
    /// Create the devices, those of the fleet among them, in the application.
    pub create_devices: bool,
    /// The id of the device template of devices that are created. The service may find one when a device connects.
    pub template: Option<String>,
    /// Register the devices, those of the fleet among them, as they would do it themselves.
    pub register: Option<RegistrationClient>,
    /// The directory for certificates.
    pub directory: PathBuf,
    /// The kind of key for what is made.
    pub algorithm: KeyAlgorithm,
    /// How long device certificates are valid.
    pub device_lifetime: Option<Lifetime>,
    /// How PFX files are made, when they are.
    pub pfx: Option<PfxOptions<'a>>,
    /// Upload the certificate as verified instead of proving possession of its key.
    pub attest: bool,
    /// Replace another certificate in the entry.
    pub replace: bool,
    /// Enroll the CA beside another that is verified in the group's other entry. Refused without, so that an old command
    /// cannot bring back a retired root.
    pub add_ca: bool,
    /// Only read and report what would be done.
    pub dry_run: bool,
}

/// Where the authority comes from.
#[derive(Debug, Clone)]
pub enum AuthoritySource {
    /// The root by this name in the directory, created if missing.
    Root(CommonName),
    /// An authority of your own, from its certificate file and key file: a root or an intermediate.
    Files {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// The result of provisioning a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProvisionReport {
    /// The enrollment group.
    pub group: EnrollmentGroupId,
    /// The entry of the certificate.
    pub entry: CertificateEntry,
    /// Whether the entry is verified, as the service says.
    pub verified: bool,
    /// The thumbprint of the authority; nothing when it would have been made in a dry run.
    #[serde(serialize_with = "as_text")]
    pub sha1_thumbprint: Option<Thumbprint>,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
    /// The device certificates that exist now, those of a fleet apart.
    pub devices: Vec<ProvisionedDevice>,
    /// The fleet, where one was asked for and made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetSummary>,
    /// What the application has of the devices, where they were to be created in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<CreatedDevices>,
    /// The devices that were to register and did not get in, and why; of a fleet the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedDevice>,
}

/// A device's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProvisionedDevice {
    /// The device's id.
    pub id: String,
    /// Its certificate.
    #[serde(flatten)]
    pub record: CertificateRecord,
    /// The hub that it was assigned to, where it was registered.
    #[serde(rename = "assignedHub", skip_serializing_if = "Option::is_none")]
    pub assigned_hub: Option<String>,
}

/// Provisions an enrollment group: finds or creates the root, finds or creates the group, uploads the certificate, proves
/// possession of its key, and creates device certificates.
///
/// It is idempotent. It decides what to do by reading the service's state and the files, never from a record of an
/// earlier run, so the next call finishes a run that was killed between any two steps. It reads all of that before it
/// changes anything: a group of the wrong kind, an entry that holds another certificate, another CA that is verified in
/// the other entry, or device files of another authority stop it with nothing done.
///
/// Several runs at once on one group, directory or root converge: a run that loses a race on files reads the set that won,
/// and a run whose proof is refused because another run was first reads the entry again.
///
/// A device that was refused at registration is not an error: it is in the report's [`refused`](ProvisionReport::refused).
///
/// # Errors
/// [`ProvisionError`]. Completed steps stay completed, and the next call resumes from there.
pub async fn provision(
    client: &Client,
    request: &ProvisionRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<ProvisionReport, ProvisionError> {
    let mut run = Run::new(client, request, Steps::new(observer));
    let plan = run.plan().await?;
    run.carry_out(plan).await
}

/// What is left to do, from the state of the service and the files.
pub(super) struct Plan {
    /// The authority, unless it has to be created.
    authority: Option<CertificateAuthority>,
    group: Option<EnrollmentGroup>,
    certificate: CertificatePlan,
    devices: Vec<DevicePlan>,
}

/// How far the clock here may be ahead of the service's. New certificates start that long before they are issued.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// How many proofs are sent at most while other runs replace the verification code or the certificate.
const MAX_PROOFS: usize = 5;

/// The waits between them, which grow and have a random part so that the runs do not meet again.
fn proof_waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(MAX_PROOFS - 1)
        .with_jitter()
        .build()
}

/// A device, its files, and the certificate it has.
struct DevicePlan {
    id: DeviceId,
    set: FileSet,
    found: Option<Certificate>,
    /// The old set of a device that keeps its key, and the public key.
    kept: Option<(FileSet, Vec<u8>)>,
}

impl DevicePlan {
    /// The report of the device with its certificate. A key that is kept stays where it is.
    fn provisioned(&self, certificate: &Certificate) -> ProvisionedDevice {
        let mut record = CertificateRecord::new(certificate, &self.set, self.set.pfx().exists());
        if let Some((old, _)) = &self.kept {
            record.private_key = old.private_key();
        }
        ProvisionedDevice { id: self.id.to_string(), record, assigned_hub: None }
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum CertificatePlan {
    /// Our certificate is there and verified.
    Keep,
    /// It is there, and not verified yet.
    Prove,
    /// It has to be uploaded, and replaces what has this etag.
    Upload(Option<Etag>),
}

/// What an entry holds, when it holds a certificate.
type EntryContent = Option<(Thumbprint, SigningCertificate)>;

pub(super) struct Run<'a, 'o> {
    pub(super) client: &'a Client,
    pub(super) request: &'a ProvisionRequest<'a>,
    pub(super) steps: Steps<'o>,
    pub(super) at: Timestamp,
    /// The entry for the certificate; chosen by [`plan`](Self::plan) when the request names none.
    entry: CertificateEntry,
    /// The directory of the devices' certificates.
    pub(super) device_directory: &'a Path,
    /// The directory of the devices' old certificates, if they keep their keys.
    pub(super) keys_of: Option<&'a Path>,
}

// What waits takes `&mut self`: the observer cannot be shared between threads, so `&self` would keep the whole future on
// one.
impl<'a, 'o> Run<'a, 'o> {
    pub(super) fn new(client: &'a Client, request: &'a ProvisionRequest<'a>, steps: Steps<'o>) -> Self {
        let at = Timestamp::now();
        let entry = request.entry.unwrap_or(CertificateEntry::Primary);
        Self { client, request, steps, at, entry, device_directory: &request.directory, keys_of: None }
    }

    pub(super) async fn plan(&mut self) -> Result<Plan, ProvisionError> {
        let authority = self.find_authority()?;
        let was_missing = authority.is_none();
        let planned = self.plan_for(authority).await;
        // Another run may have created the root, and what depends on it, after this one looked for it.
        if planned.is_err()
            && was_missing
            && let Some(authority) = self.find_authority()?
        {
            return self.plan_for(Some(authority)).await;
        }
        planned
    }

    /// Plans with the authority, if there is one by now.
    async fn plan_for(&mut self, authority: Option<CertificateAuthority>) -> Result<Plan, ProvisionError> {
        let devices = self.find_devices(authority.as_ref())?;
        let missing: Vec<_> = devices.iter().filter(|device| device.found.is_none()).collect();
        if let Some(authority) = authority.as_ref().filter(|_| !missing.is_empty()) {
            // What the authority can't issue is known before anything is changed.
            let issuer = DeviceIssuer::new(authority, &self.fleet_options())?;
            missing.iter().try_for_each(|device| issuer.check(&device.id))?;
        }
        if let Some(fleet) = &self.request.fleet {
            fleet.check(authority.as_ref(), &self.fleet_options(), self.request.pfx, &self.request.devices)?;
        }
        self.check_directories(authority.is_none(), &devices)?;
        let group = self.client.enrollment_groups().find(&self.request.group).await?;
        let certificate = match &group {
            None => CertificatePlan::Upload(None),
            Some(group) => {
                self.check_group(group)?;
                self.plan_certificate(authority.as_ref()).await?
            }
        };
        if let Some(authority) = &authority
            && certificate != CertificatePlan::Keep
            && !self.request.attest
        {
            let trial = CommonName::new("trial")?;
            authority.issue_verification(&trial, &IssueOptions::new().at(self.at))?;
        }
        let plan = Plan { authority, group, certificate, devices };
        self.check_clock(&plan)?;
        Ok(plan)
    }

    /// Fails if the service's clock says that a certificate is not valid yet, or that a new one would not be.
    fn check_clock(&self, plan: &Plan) -> Result<(), ProvisionError> {
        let ours = Timestamp::now();
        let Some(theirs) = self.client.rest().service_date().filter(|theirs| ours.duration_since(*theirs) > MAX_AHEAD)
        else {
            return Ok(());
        };
        let authority = plan.authority.as_ref().map(CertificateAuthority::certificate);
        let creates = authority.is_none()
            || plan.certificate != CertificatePlan::Keep
            || plan.devices.iter().any(|device| device.found.is_none())
            || self.request.fleet.is_some();
        let found = plan.devices.iter().filter_map(|device| device.found.as_ref());
        if creates || authority.into_iter().chain(found).any(|certificate| certificate.not_before() > theirs) {
            return Err(ProvisionError::ClockAhead { ours, theirs });
        }
        Ok(())
    }

    pub(super) fn find_authority(&self) -> Result<Option<CertificateAuthority>, ProvisionError> {
        match &self.request.authority {
            AuthoritySource::Files { certificate, key } => {
                Ok(Some(files::read_authority(certificate, key, self.request.key_password, self.at).map_err(not_yet)?))
            }
            AuthoritySource::Root(name) => {
                let set = FileSet::new(&self.request.directory, name)?;
                if set.existing()?.is_empty() {
                    set.check_spelling()?;
                    return Ok(None);
                }
                Ok(Some(set.read_authority(self.request.key_password, self.at).map_err(not_yet)?))
            }
        }
    }

    /// Checks that what is to be created can be written, before anything is changed. A directory in which everything is
    /// there already may be read-only.
    fn check_directories(&self, creates_root: bool, devices: &[DevicePlan]) -> Result<(), ProvisionError> {
        if creates_root {
            files::check_writable(&self.request.directory)?;
        }
        if devices.iter().any(|device| device.found.is_none()) {
            files::check_writable(self.device_directory)?;
        }
        if let Some(fleet) = &self.request.fleet {
            files::check_writable(&fleet.folder)?;
        }
        Ok(())
    }

    fn find_devices(&self, authority: Option<&CertificateAuthority>) -> Result<Vec<DevicePlan>, ProvisionError> {
        let mut owners = HashMap::new();
        if let AuthoritySource::Root(name) = &self.request.authority {
            owners.insert(FileSet::new(&self.request.directory, name)?.identity(), (name.to_string(), true));
        }
        let mut devices = Vec::new();
        for id in &self.request.devices {
            let set = FileSet::new(self.device_directory, &id.common_name()?)?;
            if let Some((first, is_root)) = owners.insert(set.identity(), (id.to_string(), false)) {
                let (second, path) = (id.to_string(), set.certificate());
                return Err(if !is_root && first.eq_ignore_ascii_case(&second) {
                    ProvisionError::Twice { first, second }
                } else {
                    ProvisionError::SameFiles { first, second, path }
                });
            }
            let kept = self.keys_of.map(|directory| kept_key(directory, id)).transpose()?;
            let mut device = DevicePlan { id: id.clone(), set, found: None, kept };
            if device.set.existing()?.is_empty() {
                device.set.check_spelling()?;
            } else {
                device.found = Some(self.find_device(&device, authority)?);
            }
            devices.push(device);
        }
        Ok(devices)
    }

    /// The certificate that a device has already, which has to be of this authority and valid, with its chain and key.
    fn find_device(
        &self,
        DevicePlan { id, set, kept, .. }: &DevicePlan,
        authority: Option<&CertificateAuthority>,
    ) -> Result<Certificate, ProvisionError> {
        let unfit = |reason: String| ProvisionError::Device { id: id.clone(), path: set.certificate(), reason };
        let certificates =
            if kept.is_some() { files::read_certificates(&set.fullchain())? } else { set.read_certificates()? };
        let certificate = certificates[0].clone();
        if certificate.subject().common_name() != Some(id.as_str()) {
            return Err(unfit(format!("it is for {}", certificate.subject())));
        }
        let Some(authority) = authority else {
            return Err(unfit(format!("it was issued by {}, whose files are not here", certificate.issuer())));
        };
        chain::verify(&certificates, authority.certificate(), self.at).map_err(|error| match error {
            ChainError::NotYetValid { subject, not_before, at } => {
                ProvisionError::NotYetValid { path: set.certificate(), subject, not_before, at }
            }
            error => unfit(error.to_string()),
        })?;
        if let Some((old, public_key)) = kept {
            if *certificate.uncompressed_public_key() != **public_key {
                return Err(unfit(format!("it is for another key than {}", old.certificate().display())));
            }
            return Ok(certificate);
        }
        // The device presents its whole chain, and proves that it has the key.
        let (fullchain, key) = (set.fullchain(), set.private_key());
        if !fullchain.exists() {
            return Err(FileError::Incomplete { found: set.certificate(), missing: fullchain }.into());
        }
        match files::read_key(&key, None) {
            Ok(found) if !found.belongs_to(&certificate) => {
                Err(unfit(format!("{} is the key of another certificate", key.display())))
            }
            // One that was encrypted since is its owner's to open.
            Ok(_) | Err(FileError::Key { error: KeyError::PasswordNeeded, .. }) => Ok(certificate),
            Err(error) => Err(unfit(error.to_string())),
        }
    }

    fn check_group(&self, group: &EnrollmentGroup) -> Result<(), ProvisionError> {
        if !matches!(group.attestation, Attestation::X509 { .. }) {
            let found = group.attestation.kind().to_owned();
            return Err(ProvisionError::Attestation { group: group.id.clone(), found });
        }
        match &self.request.device_type {
            Some(expected) if *expected != group.device_type => Err(ProvisionError::DeviceType {
                group: group.id.clone(),
                expected: expected.clone(),
                found: group.device_type.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Chooses the entry, reads it and, unless our certificate is verified there, the other one; decides what to do.
    async fn plan_certificate(
        &mut self,
        authority: Option<&CertificateAuthority>,
    ) -> Result<CertificatePlan, ProvisionError> {
        let ours = authority.map(|authority| authority.certificate().sha1_thumbprint());
        let holds_ours = |content: &EntryContent| ours.is_some() && content.as_ref().map(|it| it.0) == ours;
        let first = self.request.entry.unwrap_or(CertificateEntry::Primary);
        let mut target = self.content(first).await?;
        if holds_ours(&target) && target.as_ref().is_some_and(|(_, content)| content.verified) {
            self.entry = first;
            return Ok(CertificatePlan::Keep);
        }
        let mut other = self.content(first.other()).await?;
        self.entry = first;
        if holds_ours(&other) {
            if self.request.entry.is_some() {
                let (group, entry) = (self.request.group.clone(), first);
                return Err(ProvisionError::InOtherEntry { group, entry, ours: other.map(|(found, _)| found) });
            }
            (self.entry, target, other) = (first.other(), other, target);
        }
        let (group, entry) = (&self.request.group, self.entry);
        let plan = match target {
            None => CertificatePlan::Upload(None),
            Some((found, SigningCertificate { verified, etag, .. })) if ours == Some(found) => {
                match (verified, self.request.attest) {
                    (true, _) => return Ok(CertificatePlan::Keep),
                    (false, false) => CertificatePlan::Prove,
                    (false, true) => CertificatePlan::Upload(etag),
                }
            }
            Some((found, SigningCertificate { verified, etag, .. })) => {
                if !self.request.replace {
                    let group = group.clone();
                    return Err(ProvisionError::OtherCertificate { group, entry, verified, found, ours });
                }
                CertificatePlan::Upload(etag)
            }
        };
        match other {
            Some((found, content)) if content.verified && !self.request.add_ca => {
                Err(ProvisionError::BesideOther { group: group.clone(), entry, found, ours })
            }
            _ => Ok(plan),
        }
    }

    /// Reads an entry of the group.
    async fn content(&mut self, entry: CertificateEntry) -> Result<EntryContent, Error> {
        let found = self.client.enrollment_groups().find_certificate(&self.request.group, entry).await?;
        Ok(found.and_then(|found| found.sha1_thumbprint.map(|thumbprint| (thumbprint, found))))
    }

    pub(super) async fn carry_out(mut self, mut plan: Plan) -> Result<ProvisionReport, ProvisionError> {
        let mut verified = plan.certificate == CertificatePlan::Keep;
        let mut is_stale = false;
        let authority = match plan.authority.take() {
            Some(authority) => {
                self.report_root(&authority);
                Some(authority)
            }
            None => match self.create_root()? {
                Some((authority, Outcome::Done)) => {
                    is_stale = true;
                    Some(authority)
                }
                // Another run created it first, and may have created more.
                Some((authority, _)) => {
                    plan = self.plan_for(Some(authority)).await?;
                    let authority = plan.authority.take();
                    if let Some(authority) = &authority {
                        self.report_root(authority);
                    }
                    authority
                }
                None => None,
            },
        };
        let authority = authority.map(Arc::new);
        is_stale |= self.group(plan.group.as_ref()).await?;
        match &authority {
            Some(authority) if !self.request.dry_run => {
                // That took time, in which another run may have enrolled a certificate.
                let certificate = match plan.certificate {
                    CertificatePlan::Upload(_) if is_stale => self.plan_certificate(Some(authority)).await?,
                    certificate => certificate,
                };
                self.enroll(certificate, authority).await?;
                verified = true;
            }
            _ => self.report_enrollment_plan(&plan.certificate),
        }
        let mut devices = self.devices(authority.as_deref(), plan.devices)?;
        let mut fleet = match &self.request.fleet {
            Some(fleet) => self.fleet(fleet, authority.as_ref()).await?,
            None => None,
        };
        let created = if self.request.create_devices { self.create_devices().await? } else { None };
        let refused = match &self.request.register {
            Some(client) => self.register(client, &mut devices, fleet.as_mut()).await?,
            None => Vec::new(),
        };
        Ok(ProvisionReport {
            group: self.request.group.clone(),
            entry: self.entry,
            verified,
            sha1_thumbprint: authority.map(|authority| authority.certificate().sha1_thumbprint()),
            steps: self.steps.taken(),
            devices,
            fleet,
            created,
            refused,
        })
    }

    fn options(&self, lifetime: Option<Lifetime>) -> IssueOptions {
        IssueOptions::new().algorithm(self.request.algorithm).lifetime(lifetime).at(self.at)
    }

    pub(super) fn fleet_options(&self) -> IssueOptions {
        self.options(self.request.device_lifetime)
    }

    fn report_root(&mut self, authority: &CertificateAuthority) {
        let certificate = authority.certificate();
        let detail = format!("found {}, valid until {}", certificate.subject(), certificate.not_after().date());
        self.steps.finish(Step::Root, Outcome::Unchanged, detail);
    }

    /// Creates the root; or reads the one that another run created meanwhile, which is [`Outcome::Unchanged`] and not
    /// reported yet. Nothing in a dry run.
    fn create_root(&mut self) -> Result<Option<(CertificateAuthority, Outcome)>, ProvisionError> {
        let AuthoritySource::Root(name) = &self.request.authority else { return Ok(None) };
        let set = FileSet::new(&self.request.directory, name)?;
        let path = set.certificate();
        if self.request.dry_run {
            self.steps.finish(Step::Root, Outcome::Planned, format!("would create {name} in {}", path.display()));
            return Ok(None);
        }
        self.steps.start(Step::Root, "creating a root certificate");
        let issued = CertificateAuthority::new_root(name, &self.options(None))?;
        match set.write(&issued, self.request.pfx, IfExists::Fail) {
            Ok(()) => {}
            Err(FileError::Exists(_)) => {
                let found = set.read_authority(self.request.key_password, Timestamp::now());
                return Ok(Some((found.map_err(not_yet)?, Outcome::Unchanged)));
            }
            Err(error) => return Err(error.into()),
        }
        self.steps.finish(Step::Root, Outcome::Done, format!("created {name} in {}", path.display()));
        Ok(Some((issued.into_authority(self.at)?, Outcome::Done)))
    }

    /// Creates the group unless it was found; whether it did.
    async fn group(&mut self, found: Option<&EnrollmentGroup>) -> Result<bool, ProvisionError> {
        let id = &self.request.group;
        if let Some(group) = found {
            let state = if group.enabled { "" } else { "; it is disabled, so no device can connect through it" };
            let detail =
                format!("found {id}, named {:?}, for {} devices{state}", group.display_name, group.device_type);
            self.steps.finish(Step::Group, Outcome::Unchanged, detail);
            return Ok(false);
        }
        let device_type = self.request.device_type.clone().unwrap_or_default();
        if self.request.dry_run {
            self.steps.finish(Step::Group, Outcome::Planned, format!("would create {id} for {device_type} devices"));
            return Ok(false);
        }
        self.steps.start(Step::Group, "creating the enrollment group");
        let name = self.request.display_name.as_deref().unwrap_or(id.as_str());
        let group = NewEnrollmentGroup { device_type, ..NewEnrollmentGroup::x509(name) };
        let group = match self.client.enrollment_groups().create(id, &group).await {
            Ok(group) => group,
            Err(Error::AlreadyExists { .. }) => {
                let detail = format!("found {id}, which another run has just created");
                self.steps.finish(Step::Group, Outcome::Unchanged, detail);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        self.steps.finish(Step::Group, Outcome::Done, format!("created {id} for {} devices", group.device_type));
        Ok(true)
    }

    async fn enroll(&mut self, plan: CertificatePlan, authority: &CertificateAuthority) -> Result<(), ProvisionError> {
        let (certificate, entry) = (authority.certificate(), self.entry);
        let ours = certificate.sha1_thumbprint();
        let mut verified = match plan {
            CertificatePlan::Keep => {
                let detail = format!("{entry} holds {ours}, which is verified");
                self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                return Ok(());
            }
            CertificatePlan::Prove => {
                let detail = format!("{entry} holds {ours}, which is not verified yet");
                self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                false
            }
            CertificatePlan::Upload(etag) => {
                self.steps.start(Step::Certificate, "uploading the certificate");
                let verified = self.upload(certificate, etag.as_ref()).await?;
                let how = if self.request.attest { ", attested as verified" } else { "" };
                self.steps.finish(Step::Certificate, Outcome::Done, format!("uploaded {ours} as {entry}{how}"));
                verified
            }
        };
        let mut waits = proof_waits();
        let mut proofs = 0;
        loop {
            let refusal = if verified {
                None
            } else {
                proofs += 1;
                self.prove(authority, proofs == 1).await?
            };
            self.steps.start(Step::Confirm, "reading the entry again");
            let content = self.content(entry).await?;
            let found = content.as_ref().map(|(found, _)| *found);
            verified = content.is_some_and(|(_, content)| content.verified);
            if verified && found == Some(ours) {
                if refusal.is_some() {
                    let detail = "another run proved possession of the key first".to_owned();
                    self.steps.finish(Step::Verify, Outcome::Unchanged, detail);
                }
                let detail = format!("the service says that {ours} is verified");
                self.steps.finish(Step::Confirm, Outcome::Done, detail);
                return Ok(());
            }
            // Another run may have requested a new code or uploaded the certificate again: either invalidates a proof.
            match waits.next().filter(|_| found == Some(ours)) {
                Some(wait) => self.client.rest().sleep(wait).await,
                None => {
                    return Err(match refusal {
                        Some(refusal) if found == Some(ours) => refusal.into(),
                        _ => {
                            let group = self.request.group.clone();
                            ProvisionError::NotConfirmed { group, entry, verified, found, ours }
                        }
                    });
                }
            }
            verified = false;
        }
    }

    /// Proves possession of the key; the service's refusal if it refuses the proof, which another run may have caused.
    /// Only the first proof is reported.
    async fn prove(
        &mut self,
        authority: &CertificateAuthority,
        is_first: bool,
    ) -> Result<Option<Error>, ProvisionError> {
        let (groups, group, entry) = (self.client.enrollment_groups(), &self.request.group, self.entry);
        self.steps.start(Step::Code, "requesting a verification code");
        let code = groups.generate_verification_code(group, entry).await?;
        if is_first {
            self.steps.finish(Step::Code, Outcome::Done, "received a verification code".to_owned());
        }
        self.steps.start(Step::Proof, "signing a certificate for the code");
        let name = CommonName::new(code.code).map_err(ProvisionError::Code)?;
        // A proof is used once and at once: the default key is the fastest, and the devices' algorithm does not matter.
        let options = IssueOptions::new().at(self.at);
        let proof = authority.issue_verification(&name, &options)?.certificate;
        if is_first {
            let signer = authority.certificate().subject();
            let detail = format!("signed a certificate for the code with the key of {signer}");
            self.steps.finish(Step::Proof, Outcome::Done, detail);
        }
        self.steps.start(Step::Verify, "proving possession of the key");
        match groups.verify_certificate(group, entry, &proof).await {
            Ok(()) => {
                self.steps.finish(Step::Verify, Outcome::Done, "the service accepted the proof".to_owned());
                Ok(None)
            }
            Err(error) if is_refusal(&error) => Ok(Some(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Uploads the certificate; whether it is verified then.
    async fn upload(&mut self, certificate: &Certificate, etag: Option<&Etag>) -> Result<bool, ProvisionError> {
        let (groups, group, entry) = (self.client.enrollment_groups(), &self.request.group, self.entry);
        let possession = if self.request.attest { Possession::Attested } else { Possession::ToBeProven };
        let error = match groups.set_certificate(group, entry, certificate, possession, etag).await {
            Ok(set) => return Ok(set.verified),
            Err(error) => error,
        };
        // The answer to an upload that was carried out may be lost, and another run may have uploaded it first: the
        // entry's content decides.
        if error.answer_was_lost() || matches!(error.status(), Some(409 | 412)) {
            let found = groups.find_certificate(group, entry).await?;
            if let Some(found) = found.filter(|it| it.sha1_thumbprint == Some(certificate.sha1_thumbprint())) {
                return Ok(found.verified);
            }
        }
        Err(error.into())
    }

    fn report_enrollment_plan(&mut self, plan: &CertificatePlan) {
        let entry = self.entry;
        let (step, detail) = match plan {
            CertificatePlan::Keep => {
                let detail = format!("{entry} holds this certificate, which is verified");
                return self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
            }
            CertificatePlan::Prove => {
                (Outcome::Unchanged, format!("{entry} holds this certificate, which is not verified yet"))
            }
            CertificatePlan::Upload(None) => (Outcome::Planned, format!("would upload the certificate as {entry}")),
            CertificatePlan::Upload(Some(_)) => {
                (Outcome::Planned, format!("would upload the certificate and overwrite the one in {entry}"))
            }
        };
        self.steps.finish(Step::Certificate, step, detail);
        let proving = [
            (Step::Code, "would request a verification code"),
            (Step::Proof, "would sign a certificate for the code"),
            (Step::Verify, "would send it as the proof of possession"),
        ];
        for (step, detail) in proving.into_iter().filter(|_| !self.request.attest) {
            self.steps.finish(step, Outcome::Planned, detail.to_owned());
        }
        self.steps.finish(Step::Confirm, Outcome::Planned, "would read the entry again".to_owned());
    }

    /// Issues a device's certificate, for a new key or the one it keeps; and the end that was asked for, if it is cut.
    fn issue(
        &self,
        authority: &CertificateAuthority,
        device: &DevicePlan,
    ) -> Result<(Certificate, Option<Timestamp>), ProvisionError> {
        let options = self.fleet_options();
        let Some((_, public_key)) = &device.kept else {
            let issued = authority.issue_device(&device.id, &options)?;
            device.set.write(&issued, self.request.pfx, IfExists::Fail)?;
            return Ok((issued.certificate, issued.shortened_from));
        };
        let issuer = DeviceIssuer::new(authority, &options)?;
        let (der, _) = issuer.issue_for_key(&device.id, public_key)?;
        let certificate = Certificate::from_der(&der).map_err(AuthorityError::from)?;
        let above = std::iter::once(authority.certificate()).chain(authority.issuers());
        let fullchain: Vec<_> = std::iter::once(&certificate).chain(above).collect();
        device.set.write_without_key(&fullchain, IfExists::Fail)?;
        Ok((certificate, issuer.shortened_from()))
    }

    fn devices(
        &mut self,
        authority: Option<&CertificateAuthority>,
        devices: Vec<DevicePlan>,
    ) -> Result<Vec<ProvisionedDevice>, ProvisionError> {
        let mut provisioned = Vec::new();
        for mut device in devices {
            let id = device.id.clone();
            if device.found.is_none()
                && !self.request.dry_run
                && let Some(authority) = authority
            {
                self.steps.start(Step::Device, &format!("issuing a certificate for {id}"));
                match self.issue(authority, &device) {
                    Ok((certificate, shortened)) => {
                        let shortened = if shortened.is_some() { ", as long as its issuer" } else { "" };
                        let (path, until) = (device.set.certificate(), certificate.not_after().date());
                        let detail = format!("created {id} in {}, valid until {until}{shortened}", path.display());
                        self.steps.finish(Step::Device, Outcome::Done, detail);
                        provisioned.push(device.provisioned(&certificate));
                        continue;
                    }
                    // Another run issued it first.
                    Err(ProvisionError::Files(FileError::Exists(_))) => {
                        device.found = Some(self.find_device(&device, Some(authority))?);
                    }
                    Err(error) => return Err(error),
                }
            }
            if let Some(certificate) = device.found.take() {
                let detail = format!("found {id}, valid until {}", certificate.not_after().date());
                self.steps.finish(Step::Device, Outcome::Unchanged, detail);
                provisioned.push(device.provisioned(&certificate));
            } else {
                let detail = format!("would create {id} in {}", device.set.certificate().display());
                self.steps.finish(Step::Device, Outcome::Planned, detail);
            }
        }
        Ok(provisioned)
    }
}

/// Whether the service refused a proof as it does when the code or the certificate is no longer current.
fn is_refusal(error: &Error) -> bool {
    matches!(error.status(), Some(400 | 404 | 409 | 412 | 422))
}

/// Separates an authority that is not valid yet, which only needs time or a right clock, from one that cannot be used.
fn not_yet(error: FileError) -> ProvisionError {
    match error {
        FileError::Authority {
            certificate: path,
            error: AuthorityError::Unfit(ChainError::NotYetValid { subject, not_before, at }),
            ..
        } => ProvisionError::NotYetValid { path, subject, not_before, at },
        error => error.into(),
    }
}

/// The old set of a device that keeps its key, and its public key. The private key need not be here; where it is, it has to
/// be the certificate's.
fn kept_key(directory: &Path, id: &DeviceId) -> Result<(FileSet, Vec<u8>), ProvisionError> {
    let set = FileSet::new(directory, &id.common_name()?)?;
    // Finishes a set that a killed process had committed.
    set.existing()?;
    let unfit = |reason: String| ProvisionError::Device { id: id.clone(), path: set.certificate(), reason };
    let certificate = files::read_certificates(&set.certificate())?.swap_remove(0);
    if certificate.subject().common_name() != Some(id.as_str()) {
        return Err(unfit(format!("it is for {}", certificate.subject())));
    }
    let key = set.private_key();
    if key.exists() {
        match files::read_key(&key, None) {
            Ok(found) if !found.belongs_to(&certificate) => {
                return Err(unfit(format!("{} is the key of another certificate", key.display())));
            }
            Ok(_) | Err(FileError::Key { error: KeyError::PasswordNeeded, .. }) => {}
            Err(error) => return Err(unfit(error.to_string())),
        }
    }
    let public_key = certificate.uncompressed_public_key().into_owned();
    Ok((set, public_key))
}

#[expect(clippy::ref_option, reason = "serde asks for it")]
pub(super) fn as_text<S: serde::Serializer>(thumbprint: &Option<Thumbprint>, serializer: S) -> Result<S::Ok, S::Error> {
    thumbprint.map(|thumbprint| thumbprint.to_string()).serialize(serializer)
}

/// Why a group could not be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The service refused a call, or could not be reached.
    #[error(transparent)]
    Central(#[from] Error),
    /// Files could not be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A name that files cannot be called by.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The group has another kind of attestation, so that it takes no certificates.
    #[error(
        "the enrollment group {group} attests devices by {found}, not by x509, so it takes no certificates: use another \
         group"
    )]
    Attestation {
        /// The group.
        group: EnrollmentGroupId,
        /// How it attests.
        found: String,
    },
    /// The group is for other devices.
    #[error("the enrollment group {group} is for {found} devices, not for {expected} devices: use another group")]
    DeviceType {
        /// The group.
        group: EnrollmentGroupId,
        /// What was asked for.
        expected: DeviceType,
        /// What it is for.
        found: DeviceType,
    },
    /// The certificate is in the other entry than the one that was asked for.
    #[error(
        "the {} entry of {group} already holds this certificate{}, so it was not uploaded as {entry}: use the {} entry",
        .entry.other(),
        .ours.map_or_else(String::new, |ours| format!(", {ours}")),
        .entry.other()
    )]
    InOtherEntry {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry that was asked for.
        entry: CertificateEntry,
        /// The thumbprint of our certificate.
        ours: Option<Thumbprint>,
    },
    /// The group's other entry holds another CA that is verified, and the request does not ask for a second one.
    #[error(
        "{} was not enrolled as {entry} of {group}: its {} entry holds another verified CA, {found}, and devices of both \
         could connect",
        .ours.map_or_else(|| "a new CA".to_owned(), |ours| format!("the CA {ours}")),
        .entry.other()
    )]
    BesideOther {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry for ours.
        entry: CertificateEntry,
        /// The thumbprint of the CA in the other entry.
        found: Thumbprint,
        /// The thumbprint of ours; none if it would be created.
        ours: Option<Thumbprint>,
    },
    /// A CA or a device certificate is not valid yet, by the clock here.
    #[error(
        "{}: {subject} is not valid until {}, and the clock here says {}: wait until then, or check the clock; if it was \
         fast when the certificate was issued, move the files away and issue it again",
        .path.display(), moment(*.not_before), moment(*.at)
    )]
    NotYetValid {
        /// Its file.
        path: PathBuf,
        /// The subject of the certificate that is not valid yet, which may be one of the chain.
        subject: String,
        /// When its validity starts.
        not_before: Timestamp,
        /// What the clock here says.
        at: Timestamp,
    },
    /// The clock here is fast, so that certificates would not be valid yet.
    #[error(
        "the clock here says {} and the service's says {}, so certificates that are issued now are not valid there yet: \
         set the clock",
        moment(*.ours), moment(*.theirs)
    )]
    ClockAhead {
        /// What the clock here says.
        ours: Timestamp,
        /// What the service's clock says.
        theirs: Timestamp,
    },
    /// The entry holds another certificate.
    #[error(
        "the {entry} entry of {group} holds {} certificate, {found}, not {}: replace it, or use the {} entry",
        if *.verified { "another verified" } else { "another" },
        .ours.map_or_else(|| "ours, which would be created".to_owned(), |ours| ours.to_string()),
        .entry.other()
    )]
    OtherCertificate {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry.
        entry: CertificateEntry,
        /// Whether the other certificate is verified, so that devices connect by it.
        verified: bool,
        /// Its thumbprint.
        found: Thumbprint,
        /// The thumbprint of ours; nothing when it would be made.
        ours: Option<Thumbprint>,
    },
    /// The code that the service made cannot be a common name.
    #[error("the service's verification code cannot be the common name of a certificate: {0}")]
    Code(#[source] NameError),
    /// The service accepted the proof, but the entry is not what it should be.
    #[error(
        "the {entry} entry of {group} does not hold a verified {ours}: {}. Check the entry, then run this again",
        match .found {
            Some(found) if found == .ours => "the service accepted the proof, but does not report it as verified".to_owned(),
            Some(found) => format!("it holds {found} instead; another client may be changing it"),
            None => "it is empty; another client may be changing it".to_owned(),
        }
    )]
    NotConfirmed {
        /// The group.
        group: EnrollmentGroupId,
        /// The entry.
        entry: CertificateEntry,
        /// Whether it is verified.
        verified: bool,
        /// The thumbprint it holds.
        found: Option<Thumbprint>,
        /// The thumbprint of ours.
        ours: Thumbprint,
    },
    /// A fleet could not be issued, or its directory holds something else.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The list of devices could not be read, in the words of its source.
    #[error(transparent)]
    Devices(SourceError),
    /// Not all devices could be created in the application.
    #[error("created {created} of {of} devices and found {existing}, then {id} failed: {error}. The next run resumes")]
    Create {
        /// How many were created.
        created: u64,
        /// How many were found.
        existing: u64,
        /// How many there are.
        of: u64,
        /// The device that failed.
        id: String,
        /// What the service said.
        #[source]
        error: Box<Error>,
    },
    /// A device's certificate and key cannot be used to register.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A device has files that do not fit.
    #[error(
        "{} exists and cannot be used for {id}: {reason}. Move it and its key away, or use another directory",
        .path.display()
    )]
    Device {
        /// The device.
        id: DeviceId,
        /// Its certificate file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A device is named more than once.
    #[error(
        "{second} is named more than once{}",
        if *first == *second { String::new() } else { format!(", also as {first}: IDs are compared without case") }
    )]
    Twice {
        /// The device.
        first: String,
        /// The device again, perhaps in another spelling.
        second: String,
    },
    /// Two names have the same files.
    #[error(
        "{first} and {second} have the same files, {}, or files whose names differ in case only: give one of them another \
         name",
        .path.display()
    )]
    SameFiles {
        /// The first name.
        first: String,
        /// The second.
        second: String,
        /// The certificate file of both.
        path: PathBuf,
    },
}
