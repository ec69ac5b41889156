//! What the instance has already.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use futures_util::TryStreamExt;

use super::super::{
    dps_instance::DpsInstance,
    dps_references::{infos, thumbprint},
    repeated_ids::id_hash,
};
use crate::{
    arm::DpsCertificate,
    certificate::Thumbprint,
    dps::{
        DpsCertificateName,
        service::{Attestation, EnrollmentGroup, IndividualEnrollment, Query},
    },
    transport::Error,
};

/// What the instance has.
pub(super) struct Target {
    pub(super) certificates: Vec<DpsCertificate>,
    pub(super) groups: Vec<EnrollmentGroup>,
    pub(super) enrollments: KnownEnrollments,
}

impl Target {
    /// Reads everything.
    pub(super) async fn read(instance: &DpsInstance) -> Result<Self, Error> {
        Ok(Self {
            certificates: instance.read_certificates().await?,
            groups: instance.read_groups().await?,
            enrollments: KnownEnrollments::read(instance).await?,
        })
    }

    /// Returns the certificate with a thumbprint, one that is verified if there are several.
    pub(super) fn certificate(&self, wanted: Thumbprint) -> Option<&DpsCertificate> {
        let same = self.certificates.iter().filter(|it| thumbprint(it) == Some(wanted));
        same.max_by_key(|it| it.is_verified)
    }

    pub(super) fn group(&self, id: &str) -> Option<&EnrollmentGroup> {
        self.groups.iter().find(|group| group.id.as_str().eq_ignore_ascii_case(id))
    }

    /// Returns the group that has a CA, other than the one with this ID.
    pub(super) fn other_group_with(&self, id: &str, ca: Thumbprint) -> Option<&EnrollmentGroup> {
        let has = |group: &EnrollmentGroup| match &group.attestation {
            Attestation::CaReferences(references) => {
                let named = |name: &DpsCertificateName| self.certificates.iter().find(|it| it.name == *name);
                references.names().filter_map(named).any(|it| thumbprint(it) == Some(ca))
            }
            Attestation::SigningCertificates(own) => infos(own).any(|(_, info)| info.sha1_thumbprint == Some(ca)),
            _ => false,
        };
        self.groups.iter().find(|group| !group.id.as_str().eq_ignore_ascii_case(id) && has(group))
    }
}

/// The individual enrollments of an instance. A few bytes of each are kept, because there may be a million.
#[derive(Default)]
pub(super) struct KnownEnrollments(HashMap<u64, KnownEnrollment>);

/// What is known of an individual enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownEnrollment {
    pub(super) kind: EnrollmentKind,
    pub(super) enabled: bool,
}

/// How the device of an individual enrollment proves its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnrollmentKind {
    SymmetricKey,
    /// By certificates, with a hash of their thumbprints.
    X509(u64),
    Tpm,
    Other,
}

impl EnrollmentKind {
    /// Returns the kind for certificates with these thumbprints, in any order.
    pub(super) fn x509(thumbprints: impl IntoIterator<Item = Thumbprint>) -> Self {
        let mut thumbprints: Vec<_> = thumbprints.into_iter().collect();
        thumbprints.sort_unstable();
        let mut hasher = DefaultHasher::new();
        thumbprints.hash(&mut hasher);
        Self::X509(hasher.finish())
    }

    pub(super) fn of(attestation: &Attestation) -> Self {
        match attestation {
            Attestation::SymmetricKey(_) => Self::SymmetricKey,
            Attestation::ClientCertificates(own) => Self::x509(infos(own).filter_map(|(_, info)| info.sha1_thumbprint)),
            Attestation::Tpm { .. } => Self::Tpm,
            _ => Self::Other,
        }
    }
}

impl KnownEnrollments {
    /// Lists all individual enrollments of an instance.
    pub(super) async fn read(instance: &DpsInstance) -> Result<Self, Error> {
        let listed = instance.client().individual_enrollments().list(&Query::new()).into_stream();
        let known = listed.map_ok(|found: IndividualEnrollment| {
            let known = KnownEnrollment { kind: EnrollmentKind::of(&found.attestation), enabled: found.is_enabled() };
            (id_hash(found.id.as_str()), known)
        });
        Ok(Self(known.try_collect().await?))
    }

    pub(super) fn get(&self, id: &str) -> Option<KnownEnrollment> {
        self.0.get(&id_hash(id)).copied()
    }
}
