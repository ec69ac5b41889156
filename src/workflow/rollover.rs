//! Rollover: an enrollment group from one certificate authority to the next, without downtime.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    authority::{AuthorityFiles, AuthoritySource},
    central_target::CentralTarget,
    create::DeviceCreation,
    dps_devices::find_unadmitted,
    dps_target::DpsTarget,
    enrollment::{Enrolled, Enrollment},
    entries::EntryState,
    entry_policy::EntryPolicy,
    fleet::{FleetRequest, FleetSummary},
    issue::Issuance,
    record::ProvisionedDevice,
    registration::RefusedDevice,
    rollover_error::RolloverError,
    service::{GroupId, Service},
    step::{Observer, StepReport, Steps, WorkflowEvent},
    trust_anchor::{AnchorTarget, Possession, TrustAnchor},
};
use crate::{
    certificate::{DeviceId, IssueOptions, KeyAlgorithm, Lifetime, Timestamp, files::PfxOptions},
    dps::DpsCertificateName,
    transport::setters,
};

/// How a group is to roll over to another certificate authority.
#[derive(Clone)]
#[non_exhaustive]
pub struct RolloverRequest<'a> {
    /// The enrollment group, verified on the old CA.
    pub group: GroupId,
    /// The new CA.
    pub authority: AuthoritySource,
    /// The name of the new CA's certificate if it is uploaded to a DPS instance. If none, the name is made of the CA's common
    /// name and thumbprint.
    pub certificate_name: Option<DpsCertificateName>,
    /// The password of encrypted private keys.
    pub key_password: Option<&'a str>,
    /// Whether to upload the certificate as verified, without a proof of possession.
    pub skip_proof: bool,
    /// The devices to issue certificates for under the new CA.
    pub devices: Vec<DeviceId>,
    /// Many devices, whose certificates go to a directory of their own.
    pub fleet: Option<FleetRequest>,
    /// The directory of the new root, and of the devices' old certificates.
    pub directory: PathBuf,
    /// The directory for the devices' new certificates.
    pub device_directory: PathBuf,
    /// Whether the [`devices`](Self::devices) keep their keys. The keys stay in their files.
    pub keep_keys: bool,
    /// The kind of key of new certificates.
    pub algorithm: KeyAlgorithm,
    /// The validity of device certificates; one year if none.
    pub device_lifetime: Option<Lifetime>,
    /// The options of PFX files. If none, none are written.
    pub pfx: Option<PfxOptions<'a>>,
    /// Whether to only read, and report what would be done.
    pub dry_run: bool,
}

impl RolloverRequest<'_> {
    /// Rolls a group over to another CA, with the old files in the current directory and new device certificates in
    /// `device_directory`. Everything else is optional.
    #[must_use]
    pub fn new(group: GroupId, authority: AuthoritySource, device_directory: impl Into<PathBuf>) -> Self {
        Self {
            group,
            authority,
            certificate_name: None,
            key_password: None,
            skip_proof: false,
            devices: Vec::new(),
            fleet: None,
            directory: PathBuf::from("."),
            device_directory: device_directory.into(),
            keep_keys: false,
            algorithm: KeyAlgorithm::default(),
            device_lifetime: None,
            pfx: None,
            dry_run: false,
        }
    }

    /// Sets the devices to issue certificates for.
    #[must_use]
    pub fn devices(mut self, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }
}

setters!(RolloverRequest<'a> {
    authority: AuthoritySource,
    certificate_name: Option<DpsCertificateName>,
    key_password: Option<&'a str>,
    skip_proof: bool,
    fleet: Option<FleetRequest>,
    directory: PathBuf,
    device_directory: PathBuf,
    keep_keys: bool,
    algorithm: KeyAlgorithm,
    device_lifetime: Option<Lifetime>,
    pfx: Option<PfxOptions<'a>>,
    dry_run: bool,
});

/// The result of a rollover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RolloverReport {
    /// The enrollment group.
    pub group: GroupId,
    /// Whether the group is enabled, so that devices can connect through it.
    pub enabled: bool,
    /// The entry of the old CA.
    pub from: EntryState,
    /// The entry of the new CA.
    pub to: EntryState,
    /// Why no device can connect through the group although its CA is verified, such as that it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
    /// The devices of the list that have new certificates now.
    pub devices: Vec<ProvisionedDevice>,
    /// The fleet, if one was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetSummary>,
    /// The devices that cannot connect with their new certificates because of their individual enrollments in a DPS
    /// instance; the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedDevice>,
}

/// Starts a rollover: uploads the new CA's certificate to the group's free entry, proves possession of its key, and issues
/// device certificates under it. The old certificate stays, so devices can connect with either, until
/// [`retire`](super::retire).
///
/// At DPS the new CA's certificate is uploaded under a name of its own, and the group's free entry refers to it once it is
/// verified. An individual enrollment takes precedence over a group and is not changed: devices that have one for another
/// certificate are in the report's [`refused`](RolloverReport::refused).
///
/// It is idempotent, as [`provision`](super::provision) is, and reads everything before it changes anything.
///
/// # Errors
/// [`RolloverError`]. Completed steps stay completed, and the next call resumes from there.
///
/// ```no_run
/// use iot_enroll::{
///     central::Client,
///     certificate::{CommonName, DeviceId},
///     workflow::{AuthoritySource, RolloverRequest, rollover},
/// };
///
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let root = AuthoritySource::Root(CommonName::new("root2027")?);
/// let request = RolloverRequest::new("myx509eg".parse()?, root, "root2027")
///     .devices([DeviceId::new("sample-device-01")?]);
/// let report = rollover(&client, &request, &mut |_| ()).await?;
/// assert!(report.from.verified && report.to.verified);
/// # Ok(())
/// # }
/// ```
pub async fn rollover(
    service: impl Into<Service>,
    request: &RolloverRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<RolloverReport, RolloverError> {
    let service = service.into();
    // A rollover needs two verified CAs at a time.
    let policy = EntryPolicy { add_ca: true, ..EntryPolicy::new(request.group.clone(), None) };
    match &service {
        Service::Central(client) => rollover_at(&service, CentralTarget::new(client, policy)?, request, observer).await,
        Service::Dps(instance) => {
            let mut target = DpsTarget::new(instance, policy)?;
            target.requested_name = request.certificate_name.as_ref();
            rollover_at(&service, target, request, observer).await
        }
    }
}

/// Rolls over at one target of a service.
async fn rollover_at<T: AnchorTarget>(
    service: &Service,
    mut target: T,
    request: &RolloverRequest<'_>,
    observer: &mut Observer<'_>,
) -> Result<RolloverReport, RolloverError> {
    let at = Timestamp::now();
    let entries = target.entries().await?;
    let authority = AuthorityFiles {
        source: &request.authority,
        directory: &request.directory,
        key_password: request.key_password,
        algorithm: request.algorithm,
        pfx: request.pfx,
        at,
    };
    let ours = authority.find()?.map(|authority| authority.certificate().sha1_thumbprint());
    let entry = entries.free_for(ours)?;
    target.request_entry(entry);
    let mut enrollment = Enrollment {
        authority,
        anchor: TrustAnchor { target, possession: Possession::new(request.skip_proof), at },
        issuance: Issuance {
            devices: &request.devices,
            fleet: request.fleet.as_ref(),
            directory: &request.device_directory,
            old_directory: request.keep_keys.then_some(&*request.directory),
            options: IssueOptions::new().algorithm(request.algorithm).lifetime(request.device_lifetime).at(at),
            pfx: request.pfx,
        },
        dry_run: request.dry_run,
    };
    let mut steps = Steps::new(observer);
    let Enrolled { authority, verified, devices, fleet } = enrollment.run(&mut steps).await?;
    let refused = match service {
        Service::Dps(instance) if !request.dry_run => {
            let fleet_request = request.fleet.as_ref().filter(|_| fleet.is_some());
            let creation = DeviceCreation { devices: &request.devices, fleet: fleet_request, place: service.name() };
            let manifest = fleet.as_ref().map(|fleet| &*fleet.manifest);
            find_unadmitted(instance.client(), &creation, &devices, manifest, &mut steps).await?
        }
        _ => Vec::new(),
    };
    let sha1_thumbprint = authority.map(|authority| authority.certificate().sha1_thumbprint());
    let certificate_name = enrollment.anchor.target.certificate_name();
    Ok(RolloverReport {
        group: request.group.clone(),
        enabled: entries.is_enabled,
        obstacle: enrollment.anchor.target.obstacle(),
        from: entries.state(entry.other()).clone(),
        to: EntryState { verified, sha1_thumbprint, certificate_name, ..EntryState::empty(entry) },
        steps: steps.into_reports(),
        devices,
        fleet,
        refused,
    })
}
