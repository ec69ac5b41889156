//! The registration of a device.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{operational::RequestedKey, timestamp::timestamp};
use crate::{
    certificate::{Certificate, Thumbprint, Timestamp},
    emulator::{
        etag::Etag,
        random::{self, RandomError},
        shared,
    },
};

/// The registration of a device.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registration {
    /// The ID in the spelling of the last request.
    pub(crate) id: Box<str>,
    pub(crate) operation_id: OperationId,
    pub(crate) admission: Admission,
    pub(crate) progress: Progress,
    /// The key that a certificate was requested for and not yet issued.
    pub(crate) requested_key: Option<RequestedKey>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) etag: Etag,
}

/// The ID of an operation. It cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperationId([u8; 24]);

impl OperationId {
    pub(crate) fn new() -> Result<Self, RandomError> {
        random::bytes().map(Self)
    }
}

/// The form of the service's IDs.
impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
        let (first, second) = self.0.split_at(8);
        write!(f, "4.{:016x}.{}", number(first), random::to_uuid(number(second)))
    }
}

/// The progress of a registration.
#[derive(Serialize, Deserialize)]
pub(crate) enum Progress {
    Assigning {
        /// The number of polls that are still answered with `assigning`.
        polls: u32,
        /// The template for a device that has none.
        template: Option<String>,
        /// The hub of the previous registration.
        #[serde(with = "shared::option")]
        previous_hub: Option<Arc<str>>,
    },
    Assigned(Assignment),
}

/// Where a device is assigned.
#[derive(Serialize, Deserialize)]
pub(crate) struct Assignment {
    #[serde(with = "shared")]
    pub(crate) hub: Arc<str>,
    pub(crate) device_id: Box<str>,
    pub(crate) substatus: Cow<'static, str>,
}

/// The admission of a device: the credential that it proved its identity with, and the enrollment group that admits it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Admission {
    pub(crate) credential: AdmittedCredential,
    pub(crate) group: Option<AdmittingGroup>,
}

/// The enrollment group that admits a device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdmittingGroup {
    pub(crate) id: Box<str>,
    pub(crate) is_for_iot_edge: bool,
}

/// The credential of an admitted device.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum AdmittedCredential {
    Certificate {
        leaf: Box<CertificateInfo>,
        /// The certificate of the group that the chain leads to, shared with the group.
        #[serde(with = "shared::option")]
        signer: Option<Arc<Certificate>>,
    },
    SymmetricKey,
}

impl Admission {
    /// Returns whether the credentials are the same certificate, or keys of the same group or device.
    pub(crate) fn has_same_credential(&self, other: &Self) -> bool {
        match (&self.credential, &other.credential) {
            (AdmittedCredential::Certificate { leaf, .. }, AdmittedCredential::Certificate { leaf: other, .. }) => {
                leaf.sha256_thumbprint == other.sha256_thumbprint
            }
            (AdmittedCredential::SymmetricKey, AdmittedCredential::SymmetricKey) => self.group == other.group,
            _ => false,
        }
    }

    pub(crate) fn is_for_iot_edge(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_for_iot_edge)
    }

    /// Returns the name and the content of the section of `registrationState` that describes the admission.
    fn show(&self) -> (&'static str, Value) {
        let mut section = json!({});
        if let Some(group) = &self.group {
            section["enrollmentGroupId"] = json!(&*group.id);
        }
        let AdmittedCredential::Certificate { leaf, signer } = &self.credential else {
            return ("symmetricKey", section);
        };
        section["certificateInfo"] = leaf.show();
        if let Some(signer) = signer {
            section["signingCertificateInfo"] = CertificateInfo::new(signer).show();
        }
        ("x509", section)
    }
}

/// What the service shows of a certificate. A fraction of the size of a [`Certificate`], since a lab has a million devices.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CertificateInfo {
    subject: Box<str>,
    issuer: Box<str>,
    serial_number: Box<str>,
    sha1_thumbprint: Thumbprint,
    sha256_thumbprint: Thumbprint,
    not_before: Timestamp,
    not_after: Timestamp,
    version: u32,
}

impl CertificateInfo {
    pub(crate) fn new(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject().to_string().into(),
            issuer: certificate.issuer().to_string().into(),
            serial_number: certificate.serial_number().into(),
            sha1_thumbprint: certificate.sha1_thumbprint(),
            sha256_thumbprint: certificate.sha256_thumbprint(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            version: certificate.version(),
        }
    }

    pub(crate) fn show(&self) -> Value {
        json!({
            "subjectName": &*self.subject,
            "sha1Thumbprint": self.sha1_thumbprint.to_string(),
            "sha256Thumbprint": self.sha256_thumbprint.to_string(),
            "issuerName": &*self.issuer,
            "notBeforeUtc": timestamp(self.not_before),
            "notAfterUtc": timestamp(self.not_after),
            "serialNumber": &*self.serial_number,
            "version": self.version,
        })
    }
}

impl Registration {
    /// Returns the ID of the group that admitted the device.
    pub(crate) fn group_id(&self) -> Option<&str> {
        self.admission.group.as_ref().map(|group| &*group.id)
    }

    /// Returns whether a group admitted the device.
    pub(crate) fn is_in_group(&self, id: &str) -> bool {
        self.group_id().is_some_and(|group| group.eq_ignore_ascii_case(id))
    }

    /// Returns the hub of a device that is assigned, or was until it registered again.
    pub(crate) fn hub(&self) -> Option<&Arc<str>> {
        match &self.progress {
            Progress::Assigning { previous_hub, .. } => previous_hub.as_ref(),
            Progress::Assigned(assignment) => Some(&assignment.hub),
        }
    }

    /// Completes the registration.
    pub(crate) fn complete(&mut self, assignment: Assignment, now: Timestamp) -> Result<(), RandomError> {
        (self.etag, self.updated) = (Etag::new()?, now);
        self.progress = Progress::Assigned(assignment);
        Ok(())
    }

    /// Returns the `registrationState` of the device API.
    pub(crate) fn show_to_device(&self) -> Value {
        let mut shown = self.show();
        shown["etag"] = json!(self.etag.encoded());
        let (name, section) = self.admission.show();
        shown[name] = section;
        shown
    }

    /// Returns the registration record of the service API.
    pub(crate) fn show_record(&self) -> Value {
        let mut shown = self.show();
        shown["etag"] = json!(self.etag.quoted());
        shown
    }

    fn show(&self) -> Value {
        let mut shown = json!({
            "registrationId": &*self.id,
            "createdDateTimeUtc": timestamp(self.created),
            "status": "assigning",
            "lastUpdatedDateTimeUtc": timestamp(self.updated),
        });
        if let Progress::Assigned(assignment) = &self.progress {
            shown["status"] = json!("assigned");
            shown["substatus"] = json!(&*assignment.substatus);
            shown["assignedHub"] = json!(&*assignment.hub);
            shown["deviceId"] = json!(&*assignment.device_id);
        }
        shown
    }
}
