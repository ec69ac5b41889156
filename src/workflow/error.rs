//! Why a workflow failed.

use std::path::PathBuf;

use super::{register::RegisterError, service::GroupId};
use crate::{
    central::{CertificateEntry, DeviceType},
    certificate::{
        AuthorityError, ChainError, DeviceId, NameError, Thumbprint, Timestamp,
        chain::moment,
        files::FileError,
        fleet::{FleetError, SourceError},
    },
    transport::Error,
};

/// Why a group could not be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The service refused a call, or could not be reached.
    #[error(transparent)]
    Service(#[from] Error),
    /// Files could not be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// A certificate could not be issued.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A name cannot be used as a file name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The service does not accept the group's ID.
    #[error("{group} cannot be the ID of an enrollment group: {problem}")]
    GroupId {
        /// The ID.
        group: GroupId,
        /// Why the service does not accept it.
        problem: String,
    },
    /// The service has the group or device under an ID that differs only in case.
    #[error("the service has {given} as {existing}: IDs are compared without case, so use that spelling")]
    Spelling {
        /// The ID that was given.
        given: String,
        /// The ID that the service has.
        existing: String,
    },
    /// The instance of the Device Provisioning Service is not active.
    #[error("the provisioning service {instance} is not active, its state is {state}: wait until it is active")]
    InstanceNotActive {
        /// The name of the instance.
        instance: String,
        /// Its state.
        state: String,
    },
    /// Another group of the instance has the CA, and the service accepts a CA in one group only.
    #[error(
        "the CA {ours} is in the enrollment group {other} already, and the service accepts a CA in one group only, so it was \
         not added to {group}: use that group, or another CA"
    )]
    InOtherGroup {
        /// The group.
        group: GroupId,
        /// The ID of the group that has the CA.
        other: String,
        /// The thumbprint of the CA.
        ours: Thumbprint,
    },
    /// The instance has a certificate of this name, which is another one. Certificates are not replaced in place.
    #[error(
        "the name {name} is taken by {} certificate{}, which is not replaced in place: use another name, or delete it",
        if *.verified { "another verified" } else { "another" },
        .found.map_or_else(String::new, |found| format!(", {found}"))
    )]
    CertificateNameTaken {
        /// The name.
        name: String,
        /// The thumbprint of the certificate that has it.
        found: Option<Thumbprint>,
        /// Whether that certificate is verified.
        verified: bool,
    },
    /// The instance has as many CA certificates as the service allows.
    #[error(
        "the provisioning service already has {max} CA certificates, the most that it can have: delete one; {}",
        if .unneeded.is_empty() { "groups need all of them".to_owned() } else { format!("no group needs {}", .unneeded.join(", ")) }
    )]
    TooManyCertificates {
        /// How many it can have.
        max: usize,
        /// The names of those that no group needs.
        unneeded: Vec<String>,
    },
    /// The instance has as many enrollment groups with X.509 attestation as the service allows.
    #[error(
        "the provisioning service already has {max} X.509 enrollment groups, the most that it can have: delete one"
    )]
    TooManyGroups {
        /// How many it can have.
        max: usize,
    },
    /// The group does not attest devices by certificates.
    #[error("the enrollment group {group} attests devices by {found}, so it takes no CA: use another group")]
    Attestation {
        /// The group.
        group: GroupId,
        /// How it attests devices.
        found: String,
    },
    /// The group is for another type of device.
    #[error("the enrollment group {group} is for {found} devices, not for {expected} devices: use another group")]
    DeviceType {
        /// The group.
        group: GroupId,
        /// The type that was requested.
        expected: DeviceType,
        /// The type of the group.
        found: DeviceType,
    },
    /// The other entry already holds the certificate.
    #[error(
        "the {} entry of {group} already holds this certificate{}, so it was not uploaded as {entry}: use the {} entry",
        .entry.other(),
        .ours.map_or_else(String::new, |ours| format!(", {ours}")),
        .entry.other()
    )]
    InOtherEntry {
        /// The group.
        group: GroupId,
        /// The entry that was requested.
        entry: CertificateEntry,
        /// The thumbprint of the CA.
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
        group: GroupId,
        /// The entry that was chosen.
        entry: CertificateEntry,
        /// The thumbprint of the CA in the other entry.
        found: Thumbprint,
        /// The thumbprint of the CA; none if it would be created.
        ours: Option<Thumbprint>,
    },
    /// A CA or a device certificate is not valid yet by the local clock.
    #[error(
        "{}: {subject} is not valid until {}, and the local clock says {}: wait until then, or check the clock; if it was \
         fast when the certificate was issued, move the files away and issue it again",
        .path.display(), moment(*.not_before), moment(*.at)
    )]
    NotYetValid {
        /// Its file.
        path: PathBuf,
        /// The subject of the certificate that is not valid yet: the file's or one of its chain.
        subject: String,
        /// When its validity starts.
        not_before: Timestamp,
        /// The time by the local clock.
        at: Timestamp,
    },
    /// The local clock is ahead of the service's, which would not accept new certificates yet.
    #[error(
        "the local clock says {} and the service's says {}, so the service would not accept new certificates yet: set the \
         clock",
        moment(*.ours), moment(*.theirs)
    )]
    ClockAhead {
        /// The time by the local clock.
        ours: Timestamp,
        /// The time by the service's clock.
        theirs: Timestamp,
    },
    /// The entry holds another certificate.
    #[error(
        "the {entry} entry of {group} holds {} certificate, {found}, and not {}: replace it, or use the {} entry",
        if *.verified { "another verified" } else { "another" },
        .ours.map_or_else(|| "the new one that would be created".to_owned(), |ours| ours.to_string()),
        .entry.other()
    )]
    OtherCertificate {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: CertificateEntry,
        /// Whether the other certificate is verified, so that devices may connect with it.
        verified: bool,
        /// The thumbprint of the other certificate.
        found: Thumbprint,
        /// The thumbprint of the CA; none if it would be created.
        ours: Option<Thumbprint>,
    },
    /// The service's verification code cannot be a common name.
    #[error("the service's verification code cannot be the common name of a certificate: {0}")]
    Code(#[source] NameError),
    /// The service accepted the proof, but does not report the CA as verified.
    #[error(
        "{place} does not hold a verified {ours}: {}: check it, then run this again",
        match .found {
            Some(found) if found == .ours => "the service accepted the proof, but does not report it as verified".to_owned(),
            Some(found) => format!("it holds {found} instead; another client may be changing it"),
            None => "it is empty; another client may be changing it".to_owned(),
        }
    )]
    NotConfirmed {
        /// Where the CA belongs, such as an entry of the group.
        place: String,
        /// Whether the certificate that is there is verified.
        verified: bool,
        /// The thumbprint of the certificate that is there.
        found: Option<Thumbprint>,
        /// The thumbprint of the CA.
        ours: Thumbprint,
    },
    /// The service does not return the content or the thumbprint of a certificate that an entry refers to.
    #[error(
        "the {entry} certificate of {group} is {name}, and the provisioning service returns neither its content nor its \
         thumbprint, so it cannot be told which CA it is"
    )]
    UnknownCertificate {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: CertificateEntry,
        /// The name of the certificate.
        name: String,
    },
    /// The service accepted the reference to a certificate, but the group does not have it.
    #[error(
        "the provisioning service accepted {name} as the {entry} certificate of {group}, but the group {}: another client may \
         be changing it; check it, then run this again",
        .found.as_ref().map_or_else(|| "has none there".to_owned(), |found| format!("has {found} there"))
    )]
    NotReferred {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: CertificateEntry,
        /// The name of the CA's certificate.
        name: String,
        /// The name of the certificate that the entry refers to.
        found: Option<String>,
    },
    /// A fleet could not be issued, or its directory holds something else.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The list of devices could not be read.
    #[error(transparent)]
    Devices(SourceError),
    /// A device could not be created at the service.
    #[error("created {created} of {of} devices and found {existing}, then {id} failed: {error}; the next run resumes")]
    Create {
        /// How many were created.
        created: u64,
        /// How many existed before.
        existing: u64,
        /// How many there are.
        of: u64,
        /// The device that failed.
        id: String,
        /// Why it failed.
        #[source]
        error: Box<CreateError>,
    },
    /// The devices of a fleet could not be registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A device has files that cannot be used.
    #[error(
        "{} exists and cannot be used for {id}: {reason}: move it and its key away, or use another directory",
        .path.display()
    )]
    Device {
        /// The device.
        id: DeviceId,
        /// Its certificate file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// A device is listed more than once.
    #[error(
        "{second} is listed more than once{}",
        if *first == *second { String::new() } else { format!(", also as {first}: IDs are compared without case") }
    )]
    DuplicateDevice {
        /// The first spelling of its ID.
        first: String,
        /// Its second spelling, which may differ in case.
        second: String,
    },
    /// Two names would have the same files.
    #[error(
        "{first} and {second} would have the same files, {}, or files whose names differ only in case: rename one of them",
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

/// Why a device could not be created at the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The service refused a call, or could not be reached.
    #[error(transparent)]
    Service(#[from] Error),
    /// The device's certificate could not be read.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The device has an individual enrollment that does not admit it with its certificate.
    #[error("its individual enrollment is for {found}: update the enrollment, or delete it")]
    Enrolled {
        /// What the enrollment is for.
        found: String,
    },
}

impl ProvisionError {
    /// Returns the error of reading a CA. One that is not valid yet needs only time or a correct clock.
    pub(super) fn from_authority_files(error: FileError) -> Self {
        match error {
            FileError::Authority {
                certificate: path,
                error: AuthorityError::Unfit(ChainError::NotYetValid { subject, not_before, at }),
                ..
            } => Self::NotYetValid { path, subject, not_before, at },
            error => error.into(),
        }
    }
}
