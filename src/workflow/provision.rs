//! The enrollment of a group from end to end.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use time::OffsetDateTime;

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
        NewEnrollmentGroup, SigningCertificate,
    },
    certificate::{
        AuthorityError, Certificate, CertificateAuthority, CommonName, DeviceId, DeviceIssuer, IssueOptions,
        KeyAlgorithm, KeyError, Lifetime, NameError, Thumbprint, chain,
        files::{self, FileError, FileSet, PfxOptions},
        fleet::{FleetError, SourceError},
    },
    registration::{CredentialError, RegistrationClient},
};

/// What a group is to be provisioned with.
pub struct ProvisionRequest<'a> {
    /// The enrollment group, which is created where it does not exist.
    pub group: EnrollmentGroupId,
    /// The name of a group that is created; its id without one.
    pub display_name: Option<String>,
    /// What devices the group is for. A group that exists has to be of this type; without one any will do, and one that
    /// is created is for IoT devices.
    pub device_type: Option<DeviceType>,
    /// The entry for the certificate.
    pub entry: CertificateEntry,
    /// The authority to enroll.
    pub authority: AuthoritySource,
    /// The password of the authority's key, when it is found in files and encrypted.
    pub key_password: Option<&'a str>,
    /// The devices to make certificates for.
    pub devices: Vec<DeviceId>,
    /// Many devices, whose certificates go to a folder of their own.
    pub fleet: Option<FleetRequest>,
    /// Create the devices, those of the fleet among them, in the application.
    pub create_devices: bool,
    /// The id of the device template of devices that are created. The service may find one when a device connects.
    pub template: Option<String>,
    /// Register the devices, those of the fleet among them, as they would do it themselves.
    pub register: Option<RegistrationClient>,
    /// The folder for certificates.
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
    /// Only read and tell what would be done.
    pub dry_run: bool,
}

/// Where the authority comes from.
#[derive(Debug, Clone)]
pub enum AuthoritySource {
    /// The root by this name in the folder; it is made where it does not exist.
    Root(CommonName),
    /// An authority of your own, from its certificate file and key file: a root or an intermediate.
    Files {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// What came of provisioning a group.
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

/// Provisions an enrollment group: finds or makes the root, finds or creates the group, uploads the certificate, proves
/// possession of its key, and makes device certificates.
///
/// It may be called as often as one likes. What to do is decided by reading the service's state and the files, never by
/// a note of an earlier run, so that a run that was killed between any two steps is finished by the next. All of that
/// is read before anything is changed: a group of the wrong kind, an entry that holds another certificate, or device
/// files of another authority stop it with nothing done.
///
/// A device that was to register and did not get in is no error: it is in the report's [`refused`](ProvisionReport::refused).
///
/// # Errors
/// [`ProvisionError`]. What was done before stays done, and the next call goes on from there.
pub async fn provision(
    client: &Client,
    request: &ProvisionRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<ProvisionReport, ProvisionError> {
    let mut run = Run::new(client, request, Steps::new(observer));
    let plan = run.plan().await?;
    run.carry_out(plan).await
}

/// What there is to do, from what there is.
pub(super) struct Plan {
    /// The authority, unless it has to be made.
    authority: Option<CertificateAuthority>,
    group: Option<EnrollmentGroup>,
    certificate: CertificatePlan,
    devices: Vec<DevicePlan>,
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
    /// What is told of the device with its certificate. A key that is kept stays where it is.
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
    /// It has to be uploaded, in the place of what has this etag.
    Upload(Option<Etag>),
}

pub(super) struct Run<'a, 'o> {
    pub(super) client: &'a Client,
    pub(super) request: &'a ProvisionRequest<'a>,
    pub(super) steps: Steps<'o>,
    pub(super) at: OffsetDateTime,
    /// The folder of the devices' certificates.
    pub(super) device_directory: &'a Path,
    /// The folder of the devices' old certificates, where they keep their keys.
    pub(super) keys_of: Option<&'a Path>,
}

// What waits takes `&mut self`: the observer cannot be shared between threads, so `&self` would keep the whole future on
// one.
impl<'a, 'o> Run<'a, 'o> {
    pub(super) fn new(client: &'a Client, request: &'a ProvisionRequest<'a>, steps: Steps<'o>) -> Self {
        let at = OffsetDateTime::now_utc();
        Self { client, request, steps, at, device_directory: &request.directory, keys_of: None }
    }

    pub(super) async fn plan(&mut self) -> Result<Plan, ProvisionError> {
        let authority = self.find_authority()?;
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
        self.check_folders()?;
        let group = self.client.enrollment_groups().find(&self.request.group).await?;
        let certificate = match &group {
            None => CertificatePlan::Upload(None),
            Some(group) => {
                self.check_group(group)?;
                let entry = self.client.enrollment_groups().find_certificate(&group.id, self.request.entry).await?;
                self.plan_certificate(authority.as_ref(), entry)?
            }
        };
        if let Some(authority) = &authority
            && certificate != CertificatePlan::Keep
            && !self.request.attest
        {
            let trial = CommonName::new("trial")?;
            authority.issue_verification(&trial, &IssueOptions { at: self.at, ..IssueOptions::default() })?;
        }
        Ok(Plan { authority, group, certificate, devices })
    }

    pub(super) fn find_authority(&self) -> Result<Option<CertificateAuthority>, ProvisionError> {
        match &self.request.authority {
            AuthoritySource::Files { certificate, key } => {
                Ok(Some(files::read_authority(certificate, key, self.request.key_password, self.at)?))
            }
            AuthoritySource::Root(name) => {
                let set = FileSet::new(&self.request.directory, name)?;
                if set.existing()?.is_empty() {
                    set.check_spelling()?;
                    return Ok(None);
                }
                Ok(Some(set.read_authority(self.request.key_password, self.at)?))
            }
        }
    }

    /// That what is to be made can be written is known before anything is changed.
    fn check_folders(&self) -> Result<(), ProvisionError> {
        files::check_writable(&self.request.directory)?;
        if !self.request.devices.is_empty() {
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
            let kept = self.keys_of.map(|folder| kept_key(folder, id)).transpose()?;
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
        chain::verify(&certificates, authority.certificate(), self.at).map_err(|error| unfit(error.to_string()))?;
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

    fn plan_certificate(
        &self,
        authority: Option<&CertificateAuthority>,
        entry: Option<SigningCertificate>,
    ) -> Result<CertificatePlan, ProvisionError> {
        let Some((found, entry)) = entry.and_then(|entry| entry.sha1_thumbprint.map(|found| (found, entry))) else {
            return Ok(CertificatePlan::Upload(None));
        };
        let ours = authority.map(|authority| authority.certificate().sha1_thumbprint());
        if ours == Some(found) {
            return Ok(match (entry.verified, self.request.attest) {
                (true, _) => CertificatePlan::Keep,
                (false, false) => CertificatePlan::Prove,
                (false, true) => CertificatePlan::Upload(entry.etag),
            });
        }
        if self.request.replace {
            return Ok(CertificatePlan::Upload(entry.etag));
        }
        Err(ProvisionError::OtherCertificate {
            group: self.request.group.clone(),
            entry: self.request.entry,
            verified: entry.verified,
            found,
            ours,
        })
    }

    pub(super) async fn carry_out(mut self, plan: Plan) -> Result<ProvisionReport, ProvisionError> {
        let verified_before = plan.certificate == CertificatePlan::Keep;
        let authority = self.root(plan.authority)?.map(Arc::new);
        self.group(plan.group.as_ref()).await?;
        let verified = match &authority {
            Some(authority) if !self.request.dry_run => {
                self.enroll(authority.certificate(), plan.certificate, authority).await?;
                true
            }
            _ => {
                self.plan_enrollment(&plan.certificate);
                verified_before
            }
        };
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
            entry: self.request.entry,
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
        IssueOptions { algorithm: self.request.algorithm, lifetime, at: self.at }
    }

    pub(super) fn fleet_options(&self) -> IssueOptions {
        self.options(self.request.device_lifetime)
    }

    fn root(&mut self, found: Option<CertificateAuthority>) -> Result<Option<CertificateAuthority>, ProvisionError> {
        if let Some(authority) = found {
            let certificate = authority.certificate();
            let detail = format!("found {}, valid until {}", certificate.subject(), certificate.not_after().date());
            self.steps.finish(Step::Root, Outcome::Unchanged, detail);
            return Ok(Some(authority));
        }
        let AuthoritySource::Root(name) = &self.request.authority else { return Ok(None) };
        let set = FileSet::new(&self.request.directory, name)?;
        let path = set.certificate();
        if self.request.dry_run {
            self.steps.finish(Step::Root, Outcome::Planned, format!("would make {name} in {}", path.display()));
            return Ok(None);
        }
        self.steps.start(Step::Root, "making a root certificate");
        let issued = CertificateAuthority::new_root(name, &self.options(None))?;
        set.write(&issued, self.request.pfx, false)?;
        self.steps.finish(Step::Root, Outcome::Done, format!("made {name} in {}", path.display()));
        Ok(Some(issued.into_authority(self.at)?))
    }

    async fn group(&mut self, found: Option<&EnrollmentGroup>) -> Result<(), ProvisionError> {
        let id = &self.request.group;
        if let Some(group) = found {
            let state = if group.enabled { "" } else { "; it is disabled, so no device can connect through it" };
            let detail =
                format!("found {id}, named {:?}, for {} devices{state}", group.display_name, group.device_type);
            self.steps.finish(Step::Group, Outcome::Unchanged, detail);
            return Ok(());
        }
        let device_type = self.request.device_type.clone().unwrap_or_default();
        if self.request.dry_run {
            self.steps.finish(Step::Group, Outcome::Planned, format!("would create {id} for {device_type} devices"));
            return Ok(());
        }
        self.steps.start(Step::Group, "creating the enrollment group");
        let name = self.request.display_name.as_deref().unwrap_or(id.as_str());
        let group = NewEnrollmentGroup { device_type, ..NewEnrollmentGroup::x509(name) };
        let group = self.client.enrollment_groups().create(id, &group).await?;
        self.steps.finish(Step::Group, Outcome::Done, format!("created {id} for {} devices", group.device_type));
        Ok(())
    }

    async fn enroll(
        &mut self,
        certificate: &Certificate,
        plan: CertificatePlan,
        authority: &CertificateAuthority,
    ) -> Result<(), ProvisionError> {
        let (groups, group, entry) = (self.client.enrollment_groups(), &self.request.group, self.request.entry);
        let thumbprint = certificate.sha1_thumbprint();
        let verified = match plan {
            CertificatePlan::Keep => {
                let detail = format!("{entry} holds {thumbprint}, and it is verified");
                self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                return Ok(());
            }
            CertificatePlan::Prove => {
                let detail = format!("{entry} holds {thumbprint}, and it is not verified yet");
                self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                false
            }
            CertificatePlan::Upload(etag) => {
                self.steps.start(Step::Certificate, "uploading the certificate");
                let verified = self.upload(certificate, etag.as_ref()).await?;
                let how = if self.request.attest { ", attested as verified" } else { "" };
                self.steps.finish(Step::Certificate, Outcome::Done, format!("uploaded {thumbprint} as {entry}{how}"));
                verified
            }
        };
        if !verified {
            self.steps.start(Step::Code, "asking for a verification code");
            let code = groups.generate_verification_code(group, entry).await?;
            self.steps.finish(Step::Code, Outcome::Done, "received a verification code".to_owned());
            self.steps.start(Step::Proof, "signing a certificate for the code");
            let name = CommonName::new(code.code).map_err(ProvisionError::Code)?;
            // A proof is used once and at once: the default key is the quickest, whatever the devices have.
            let options = IssueOptions { at: self.at, ..IssueOptions::default() };
            let proof = authority.issue_verification(&name, &options)?.certificate;
            let signer = certificate.subject();
            self.steps.finish(
                Step::Proof,
                Outcome::Done,
                format!("signed a certificate for the code with the key of {signer}"),
            );
            self.steps.start(Step::Verify, "proving possession of the key");
            groups.verify_certificate(group, entry, &proof).await?;
            self.steps.finish(Step::Verify, Outcome::Done, "the service took the proof".to_owned());
        }
        self.steps.start(Step::Confirm, "reading the entry again");
        let found = groups.find_certificate(group, entry).await?;
        let (verified, found) = found.map_or((false, None), |found| (found.verified, found.sha1_thumbprint));
        if !verified || found != Some(thumbprint) {
            let group = group.clone();
            return Err(ProvisionError::NotConfirmed { group, entry, verified, found, ours: thumbprint });
        }
        self.steps.finish(Step::Confirm, Outcome::Done, format!("the service says that {thumbprint} is verified"));
        Ok(())
    }

    /// Uploads the certificate; whether it is verified then.
    async fn upload(&mut self, certificate: &Certificate, etag: Option<&Etag>) -> Result<bool, ProvisionError> {
        let (groups, group, entry) = (self.client.enrollment_groups(), &self.request.group, self.request.entry);
        let error = match groups.set_certificate(group, entry, certificate, self.request.attest, etag).await {
            Ok(set) => return Ok(set.verified),
            Err(error) => error,
        };
        // The answer to an upload that was carried out may have been lost: what the entry holds decides.
        if error.answer_was_lost() || error.status() == Some(412) {
            let found = groups.find_certificate(group, entry).await?;
            if let Some(found) = found.filter(|it| it.sha1_thumbprint == Some(certificate.sha1_thumbprint())) {
                return Ok(found.verified);
            }
        }
        Err(error.into())
    }

    fn plan_enrollment(&mut self, plan: &CertificatePlan) {
        let entry = self.request.entry;
        let (step, detail) = match plan {
            CertificatePlan::Keep => {
                let detail = format!("{entry} holds this certificate, and it is verified");
                return self.steps.finish(Step::Certificate, Outcome::Unchanged, detail);
            }
            CertificatePlan::Prove => {
                (Outcome::Unchanged, format!("{entry} holds this certificate, and it is not verified yet"))
            }
            CertificatePlan::Upload(None) => (Outcome::Planned, format!("would upload the certificate as {entry}")),
            CertificatePlan::Upload(Some(_)) => {
                (Outcome::Planned, format!("would upload the certificate in place of what {entry} holds"))
            }
        };
        self.steps.finish(Step::Certificate, step, detail);
        let proving = [
            (Step::Code, "would ask for a verification code"),
            (Step::Proof, "would sign a certificate for the code"),
            (Step::Verify, "would send it as the proof of possession"),
        ];
        for (step, detail) in proving.into_iter().filter(|_| !self.request.attest) {
            self.steps.finish(step, Outcome::Planned, detail.to_owned());
        }
        self.steps.finish(Step::Confirm, Outcome::Planned, "would read the entry again".to_owned());
    }

    /// Makes a device's certificate, for a new key or the one it keeps; and the end that was asked for, where it is cut.
    fn issue(
        &self,
        authority: &CertificateAuthority,
        device: &DevicePlan,
    ) -> Result<(Certificate, Option<OffsetDateTime>), ProvisionError> {
        let options = self.fleet_options();
        let Some((_, public_key)) = &device.kept else {
            let issued = authority.issue_device(&device.id, &options)?;
            device.set.write(&issued, self.request.pfx, false)?;
            return Ok((issued.certificate, issued.shortened_from));
        };
        let issuer = DeviceIssuer::new(authority, &options)?;
        let (der, _) = issuer.issue_for_key(&device.id, public_key)?;
        let certificate = Certificate::from_der(&der).map_err(AuthorityError::from)?;
        let above = std::iter::once(authority.certificate()).chain(authority.issuers());
        let fullchain: Vec<_> = std::iter::once(&certificate).chain(above).collect();
        device.set.write_without_key(&fullchain, false)?;
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
            let certificate = match (device.found.take(), authority) {
                (Some(certificate), _) => {
                    let detail = format!("found {id}, valid until {}", certificate.not_after().date());
                    self.steps.finish(Step::Device, Outcome::Unchanged, detail);
                    certificate
                }
                (None, Some(authority)) if !self.request.dry_run => {
                    self.steps.start(Step::Device, &format!("making a certificate for {id}"));
                    let (certificate, shortened) = self.issue(authority, &device)?;
                    let shortened = if shortened.is_some() { ", as long as its issuer" } else { "" };
                    let (path, until) = (device.set.certificate(), certificate.not_after().date());
                    let detail = format!("made {id} in {}, valid until {until}{shortened}", path.display());
                    self.steps.finish(Step::Device, Outcome::Done, detail);
                    certificate
                }
                (None, _) => {
                    let detail = format!("would make {id} in {}", device.set.certificate().display());
                    self.steps.finish(Step::Device, Outcome::Planned, detail);
                    continue;
                }
            };
            provisioned.push(device.provisioned(&certificate));
        }
        Ok(provisioned)
    }
}

/// The old set of a device that keeps its key, and its public key. The private key need not be here; where it is, it has to
/// be the certificate's.
fn kept_key(folder: &Path, id: &DeviceId) -> Result<(FileSet, Vec<u8>), ProvisionError> {
    let set = FileSet::new(folder, &id.common_name()?)?;
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
    /// The entry holds another certificate.
    #[error(
        "the {entry} entry of {group} holds {} certificate, {found}, and not ours, {}: replace it, or use the {} entry",
        if *.verified { "another verified" } else { "another" },
        .ours.map_or_else(|| "which would be a new one".to_owned(), |ours| ours.to_string()),
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
    /// The service took the proof, and yet the entry is not what it should be.
    #[error(
        "the {entry} entry of {group} is not as it should be: {}. Look at it, then run this again",
        match .found {
            Some(found) if found == .ours => format!("the service took the proof of {ours}, and does not call it verified"),
            Some(found) => format!("it holds {found}, and not ours, {ours}: somebody else may be changing it"),
            None => format!("it is empty, and {ours} was put there: somebody else may be changing it"),
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
    /// A fleet could not be made, or what is in its folder does not fit.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The devices could not be told, in the words of who told them.
    #[error(transparent)]
    Devices(SourceError),
    /// Not all devices could be created in the application.
    #[error(
        "{created} devices have been created and {existing} were there, of {of}; then {id}: {error}. The next run goes on"
    )]
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
        "{} exists and is of no use for {id}: {reason}. Move it and its key away, or use another folder",
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
