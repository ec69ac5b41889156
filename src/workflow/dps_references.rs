//! The CA certificates that an enrollment group of a DPS instance admits devices by, and references to them.

use crate::{
    arm::DpsCertificate,
    central::CertificateEntry,
    certificate::{Certificate, Thumbprint},
    dps::{
        DpsCertificateName,
        service::{
            Attestation, CaReferences, CertificateInfo, EnrolledCertificates, EnrollmentGroup, EnrollmentGroupUpdate,
        },
    },
};

/// Returns whether a group refers to a certificate of the instance.
pub(super) fn refers_to(group: &EnrollmentGroup, name: &DpsCertificateName) -> bool {
    group.ca_references().is_some_and(|references| references.names().any(|it| it == name))
}

/// Returns why a certificate of the instance must stay: a group refers to it, or may need it.
pub(super) fn needed_by(groups: &[EnrollmentGroup], certificate: &DpsCertificate) -> Option<String> {
    if let Some(group) = groups.iter().find(|group| refers_to(group, &certificate.name)) {
        return Some(format!("which {} refers to", group.id));
    }
    let group = groups.iter().find(|group| may_depend_on(group, certificate))?;
    Some(format!("which {} may need, because its own certificates may be under it", group.id))
}

/// Returns the names of the certificates that no group needs.
pub(super) fn unneeded<'a>(
    groups: &'a [EnrollmentGroup],
    certificates: &'a [DpsCertificate],
) -> impl Iterator<Item = &'a DpsCertificateName> {
    certificates.iter().filter(|it| needed_by(groups, it).is_none()).map(|it| &it.name)
}

/// Returns whether the own certificates of a group may be under a certificate of the instance. The service admits devices by
/// them only while a certificate above them is verified. It does not return them, so only a root is known to need no other.
fn may_depend_on(group: &EnrollmentGroup, certificate: &DpsCertificate) -> bool {
    let Attestation::SigningCertificates(own) = &group.attestation else { return false };
    infos(own).any(|(_, info)| {
        let is_root = info.subject_name.is_some() && info.subject_name == info.issuer_name;
        !is_root || info.sha1_thumbprint == thumbprint(certificate)
    })
}

/// Returns whether a group has a CA, as a certificate of the instance or as its own.
pub(super) fn has_authority(group: &EnrollmentGroup, authority: &Certificate, certificates: &[DpsCertificate]) -> bool {
    match &group.attestation {
        Attestation::CaReferences(references) => {
            certificates.iter().any(|it| it.is(authority) && references.names().any(|name| *name == it.name))
        }
        Attestation::SigningCertificates(own) => {
            infos(own).any(|(_, it)| it.sha1_thumbprint == Some(authority.sha1_thumbprint()))
        }
        _ => false,
    }
}

/// Returns what the service tells about the certificates of an enrollment.
pub(super) fn infos(certificates: &EnrolledCertificates) -> impl Iterator<Item = (CertificateEntry, &CertificateInfo)> {
    let primary = certificates.primary.iter().map(|info| (CertificateEntry::Primary, info));
    primary.chain(certificates.secondary.iter().map(|info| (CertificateEntry::Secondary, info)))
}

/// Returns the SHA-1 thumbprint of a certificate: that of its content if the service returns it.
pub(super) fn thumbprint(certificate: &DpsCertificate) -> Option<Thumbprint> {
    let own = certificate.certificate().map(|content| content.sha1_thumbprint());
    own.or(certificate.sha1_thumbprint)
}

/// Returns the name that an entry of a group refers to.
pub(super) fn reference(group: &EnrollmentGroup, entry: CertificateEntry) -> Option<&DpsCertificateName> {
    let references = group.ca_references()?;
    match entry {
        CertificateEntry::Primary => references.primary.as_ref(),
        CertificateEntry::Secondary => references.secondary.as_ref(),
    }
}

pub(super) fn with_reference(
    references: CaReferences,
    entry: CertificateEntry,
    name: DpsCertificateName,
) -> CaReferences {
    match entry {
        CertificateEntry::Primary => CaReferences { primary: Some(name), ..references },
        CertificateEntry::Secondary => CaReferences { secondary: Some(name), ..references },
    }
}

/// Returns references without an entry. The one that stays becomes the primary one: the documentation describes no group
/// that has a secondary one only.
pub(super) fn without_reference(references: CaReferences, entry: CertificateEntry) -> CaReferences {
    let stays = match entry {
        CertificateEntry::Primary => references.secondary,
        CertificateEntry::Secondary => references.primary,
    };
    CaReferences { primary: stays, secondary: None }
}

/// Returns a change of a group's references, on condition that the group is as it was read.
pub(super) fn references_update(references: CaReferences, group: &EnrollmentGroup) -> EnrollmentGroupUpdate {
    EnrollmentGroupUpdate::new().attestation(Some(references.into())).etag(group.etag.clone())
}
