//! Provisioning: an enrollment group from nothing to *verified*, with its devices.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    authority::{AuthorityFiles, AuthoritySource},
    central_target::CentralTarget,
    create::{CreatedDevices, DeviceCreation},
    dps_devices::{KnownEnrollments, create_enrollments, find_unadmitted},
    dps_target::DpsTarget,
    enrollment::{Enrolled, Enrollment},
    entry_policy::EntryPolicy,
    error::ProvisionError,
    fleet::{FleetRequest, FleetSummary},
    issue::Issuance,
    record::{ProvisionedDevice, thumbprint_text},
    registrar::Registrar,
    registration::{DeviceRegistration, RefusedDevice},
    service::{GroupId, Service},
    step::{Observer, StepReport, Steps, WorkflowEvent},
    trust_anchor::{AnchorTarget, Possession, TrustAnchor},
};
use crate::{
    central::{CertificateEntry, DeviceType},
    certificate::{DeviceId, IssueOptions, KeyAlgorithm, Lifetime, Thumbprint, Timestamp, files::PfxOptions},
    dps::{DpsCertificateName, device::RegistrationClient},
    transport::setters,
};

/// How to provision an enrollment group.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProvisionRequest<'a> {
    /// The enrollment group, created if missing.
    pub group: GroupId,
    /// The certificate authority to enroll.
    pub authority: AuthoritySource,
    /// The name of a group that is created; its ID if none. Groups of a DPS instance have no name.
    pub display_name: Option<String>,
    /// The type that the group has to be of; any if none. A group that is created is for IoT devices by default.
    pub device_type: Option<DeviceType>,
    /// The entry for the certificate. If none, the entry that already holds it, or else the primary.
    pub entry: Option<CertificateEntry>,
    /// The name of the CA's certificate if it is uploaded to a DPS instance. If none, the name is made of the CA's common name
    /// and thumbprint. IoT Central does not name certificates.
    pub certificate_name: Option<DpsCertificateName>,
    /// The password of encrypted private keys.
    pub key_password: Option<&'a str>,
    /// The devices to issue certificates for.
    pub devices: Vec<DeviceId>,
    /// Many devices, whose certificates go to a directory of their own.
    pub fleet: Option<FleetRequest>,
    /// Whether to create the devices, those of the fleet among them: in an application as devices, in a DPS instance as
    /// individual enrollments for their certificates.
    pub create_devices: bool,
    /// The device template of devices that are created. If none, the service finds one when a device connects. DPS has no
    /// templates.
    pub template: Option<String>,
    /// Registers the devices, those of the fleet among them, as they do it themselves.
    pub register: Option<RegistrationClient>,
    /// The directory for certificates.
    pub directory: PathBuf,
    /// The kind of key of new certificates.
    pub algorithm: KeyAlgorithm,
    /// The validity of device certificates; one year if none.
    pub device_lifetime: Option<Lifetime>,
    /// The options of PFX files. If none, none are written.
    pub pfx: Option<PfxOptions<'a>>,
    /// Whether to upload the certificate as verified, without a proof of possession.
    pub skip_proof: bool,
    /// Whether to overwrite another certificate in the entry.
    pub replace: bool,
    /// Whether to enroll the CA beside another that is verified in the group's other entry. This is refused by default, so
    /// that an old command cannot bring back a retired root.
    pub add_ca: bool,
    /// Whether to only read, and report what would be done.
    pub dry_run: bool,
}

impl ProvisionRequest<'_> {
    /// Enrolls a certificate authority in a group, with files in the current directory. Everything else is optional.
    #[must_use]
    pub fn new(group: GroupId, authority: AuthoritySource) -> Self {
        Self {
            group,
            authority,
            display_name: None,
            device_type: None,
            entry: None,
            certificate_name: None,
            key_password: None,
            devices: Vec::new(),
            fleet: None,
            create_devices: false,
            template: None,
            register: None,
            directory: PathBuf::from("."),
            algorithm: KeyAlgorithm::default(),
            device_lifetime: None,
            pfx: None,
            skip_proof: false,
            replace: false,
            add_ca: false,
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

setters!(ProvisionRequest<'a> {
    display_name: Option<String>,
    device_type: Option<DeviceType>,
    authority: AuthoritySource,
    entry: Option<CertificateEntry>,
    certificate_name: Option<DpsCertificateName>,
    key_password: Option<&'a str>,
    fleet: Option<FleetRequest>,
    create_devices: bool,
    template: Option<String>,
    register: Option<RegistrationClient>,
    directory: PathBuf,
    algorithm: KeyAlgorithm,
    device_lifetime: Option<Lifetime>,
    pfx: Option<PfxOptions<'a>>,
    skip_proof: bool,
    replace: bool,
    add_ca: bool,
    dry_run: bool,
});

/// The result of provisioning a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProvisionReport {
    /// The enrollment group.
    pub group: GroupId,
    /// The entry that holds the certificate.
    pub entry: CertificateEntry,
    /// The name of the certificate in the DPS instance; none at IoT Central, and if a dry run would create the CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_name: Option<DpsCertificateName>,
    /// Whether the service reports the entry as verified.
    pub verified: bool,
    /// The thumbprint of the CA; none if a dry run would create it.
    #[serde(serialize_with = "thumbprint_text")]
    pub sha1_thumbprint: Option<Thumbprint>,
    /// Why no device can connect through the group although its CA is verified, such as that it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The steps in their order.
    pub steps: Vec<StepReport>,
    /// The devices of the list that have certificates now.
    pub devices: Vec<ProvisionedDevice>,
    /// The fleet, if one was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetSummary>,
    /// How many of the devices the service has, if they were to be created there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<CreatedDevices>,
    /// The devices that could not be registered, of a fleet the first ones; if none were to be registered, those of the list
    /// that cannot connect because of their individual enrollments in a DPS instance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedDevice>,
}

/// Provisions an enrollment group: finds or creates the root, finds or creates the group, uploads the certificate, proves
/// possession of its key, and issues device certificates. At DPS the certificate comes first: a group is created, or refers
/// to a certificate, only once the certificate is verified.
///
/// It is idempotent. It reads the state of the service and the files and never relies on a record of an earlier run, so the
/// next call resumes a run that was killed between any two steps. It reads everything before it changes anything: a group of
/// another type, an entry that holds another certificate, another verified CA in the other entry, or device files of
/// another CA stop it with nothing done.
///
/// Concurrent runs on one group, directory or root converge: a run that loses a race on files reads the set that won, and a
/// run whose proof is refused because another run was first reads the entry again.
///
/// A device that could not be registered is not an error: it is in the report's [`refused`](ProvisionReport::refused). The
/// outcome for each device of a fleet is in a results file beside the manifest, and devices that it lists as registered
/// with the same certificate are skipped, as in [`register_manifest`](super::register_manifest).
///
/// # Errors
/// [`ProvisionError`]. Completed steps stay completed, and the next call resumes from there.
///
/// ```no_run
/// use iot_enroll::{
///     central::{Authorization, Client, Endpoint},
///     certificate::{CommonName, DeviceId},
///     workflow::{AuthoritySource, ProvisionRequest, provision},
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(Endpoint::from_subdomain("contoso")?)
///     .authorization(Authorization::parse(std::fs::read_to_string("token")?)?)
///     .build()?;
/// let root = AuthoritySource::Root(CommonName::new("mytestrootcert")?);
/// let request = ProvisionRequest::new("myx509eg".parse()?, root)
///     .devices([DeviceId::new("sample-device-01")?])
///     .directory("certificates");
/// let report = provision(&client, &request, &mut |_| ()).await?;
/// assert!(report.verified);
/// # Ok(())
/// # }
/// ```
pub async fn provision(
    service: impl Into<Service>,
    request: &ProvisionRequest<'_>,
    observer: &mut (dyn FnMut(WorkflowEvent<'_>) + Send),
) -> Result<ProvisionReport, ProvisionError> {
    let service = service.into();
    let ProvisionRequest { group, entry, replace, add_ca, .. } = request;
    let policy = EntryPolicy { group: group.clone(), requested: *entry, replace: *replace, add_ca: *add_ca };
    match &service {
        Service::Central(client) => {
            let mut target = CentralTarget::new(client, policy)?;
            target.display_name = request.display_name.as_deref();
            target.device_type = request.device_type.as_ref();
            provision_at(&service, target, request, observer).await
        }
        Service::Dps(instance) => {
            let mut target = DpsTarget::new(instance, policy)?;
            target.device_type = request.device_type.as_ref();
            target.requested_name = request.certificate_name.as_ref();
            provision_at(&service, target, request, observer).await
        }
    }
}

/// Provisions at one target of the service.
async fn provision_at<T: AnchorTarget>(
    service: &Service,
    target: T,
    request: &ProvisionRequest<'_>,
    observer: &mut Observer<'_>,
) -> Result<ProvisionReport, ProvisionError> {
    let mut steps = Steps::new(observer);
    let mut enrollment = enrollment(target, request);
    let creation = DeviceCreation { devices: &request.devices, fleet: request.fleet.as_ref(), place: service.name() };
    let known = match service {
        Service::Dps(instance) if request.create_devices => {
            KnownEnrollments::read_spelled(instance.client(), &creation).await?
        }
        _ => KnownEnrollments::default(),
    };
    let Enrolled { authority, verified, mut devices, mut fleet } = enrollment.run(&mut steps).await?;
    let created = match service {
        _ if !request.create_devices => None,
        _ if request.dry_run => {
            creation.report_plan(&mut steps);
            None
        }
        Service::Central(client) => Some(creation.run_central(client, request.template.as_deref(), &mut steps).await?),
        Service::Dps(instance) => {
            let manifest = fleet.as_ref().map(|fleet| &*fleet.manifest);
            let client = instance.client();
            Some(create_enrollments(client, known, &creation, &devices, manifest, &mut steps).await?)
        }
    };
    let mut refused = Vec::new();
    if let Some(registration) = &request.register {
        let registrar = Registrar::new(registration.clone()).service(service.clone());
        let registration = DeviceRegistration { registrar, key_password: request.key_password };
        if request.dry_run {
            registration.report_plan(&request.devices, request.fleet.as_ref(), &mut steps);
        } else {
            refused = registration.run(&mut devices, fleet.as_mut(), &mut steps).await?;
        }
    } else if let Service::Dps(instance) = service
        && !request.dry_run
    {
        let creation = DeviceCreation { fleet: None, ..creation };
        refused = find_unadmitted(instance.client(), &creation, &devices, None, &mut steps).await?;
    }
    Ok(ProvisionReport {
        group: request.group.clone(),
        entry: enrollment.anchor.target.entry(),
        certificate_name: enrollment.anchor.target.certificate_name(),
        verified,
        obstacle: enrollment.anchor.target.obstacle(),
        sha1_thumbprint: authority.map(|authority| authority.certificate().sha1_thumbprint()),
        steps: steps.into_reports(),
        devices,
        fleet,
        created,
        refused,
    })
}

fn enrollment<'a, T>(target: T, request: &'a ProvisionRequest<'_>) -> Enrollment<'a, T> {
    let at = Timestamp::now();
    Enrollment {
        authority: AuthorityFiles {
            source: &request.authority,
            directory: &request.directory,
            key_password: request.key_password,
            algorithm: request.algorithm,
            pfx: request.pfx,
            at,
        },
        anchor: TrustAnchor { target, possession: Possession::new(request.skip_proof), at },
        issuance: Issuance {
            devices: &request.devices,
            fleet: request.fleet.as_ref(),
            directory: &request.directory,
            old_directory: None,
            options: IssueOptions::new().algorithm(request.algorithm).lifetime(request.device_lifetime).at(at),
            pfx: request.pfx,
        },
        dry_run: request.dry_run,
    }
}
