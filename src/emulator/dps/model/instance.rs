//! The state of the DPS instance.
//!
//! # Where the documentation is silent
//! - **A reference** to a CA certificate that does not exist is refused at once (400).
//! - **A certificate in two entries** is 409: the same CA in another group, by the content of the certificates and not by
//!   their names, or the same client certificate in another individual enrollment.
//!   Replacing a CA certificate in place is not checked against the groups.
//! - **Limits** are 400: 25 CA certificates, 100 groups with certificates, 100 with symmetric keys.
//! - **Deleting an enrollment** also deletes the registration records of its devices.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    attestation::Attestation,
    ca_certificate::CaCertificate,
    enrollment::{Enrollment, Kind},
};
use crate::{
    certificate::{Certificate, Thumbprint},
    emulator::{api_error::ApiError, dps::registration::Registration, fields::FieldError},
};

/// The highest number of CA certificates.
pub(crate) const MAX_CERTIFICATES: usize = 25;

/// The highest number of groups of each type of attestation.
const MAX_GROUPS: usize = 100;

/// The resources of the instance. The keys of all maps are IDs and names in lower case.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instance {
    pub(crate) certificates: BTreeMap<String, CaCertificate>,
    individuals: BTreeMap<String, Enrollment>,
    groups: BTreeMap<String, Enrollment>,
    /// The enrollment that has a certificate in its attestation.
    #[serde(skip)]
    owners: BTreeMap<Thumbprint, (Kind, String)>,
    pub(crate) registrations: BTreeMap<String, Box<Registration>>,
}

/// Returns the key of an ID or name: the case does not matter.
pub(crate) fn key(id: &str) -> String {
    id.to_ascii_lowercase()
}

impl Instance {
    /// Builds the index of certificates after the enrollments were loaded.
    pub(crate) fn index(&mut self) {
        for kind in [Kind::Individual, Kind::Group] {
            let owned: Vec<_> = self
                .enrollments(kind)
                .iter()
                .flat_map(|(key, enrollment)| enrollment.attestation.certificates().map(move |found| (found, key)))
                .map(|(certificate, key)| (certificate.sha256_thumbprint(), (kind, key.clone())))
                .collect();
            self.owners.extend(owned);
        }
    }

    /// Returns the enrollments of a kind, in the order of their keys.
    pub(crate) fn enrollments(&self, kind: Kind) -> &BTreeMap<String, Enrollment> {
        match kind {
            Kind::Individual => &self.individuals,
            Kind::Group => &self.groups,
        }
    }

    pub(crate) fn find(&self, kind: Kind, id: &str) -> Option<&Enrollment> {
        self.enrollments(kind).get(&key(id))
    }

    /// Returns the individual enrollment that has a client certificate.
    pub(crate) fn individual_with(&self, leaf: &Certificate) -> Option<&Enrollment> {
        match self.owners.get(&leaf.sha256_thumbprint())? {
            (Kind::Individual, key) => self.individuals.get(key),
            (Kind::Group, _) => None,
        }
    }

    /// Returns the registration of a device.
    pub(crate) fn registration(&self, id: &str) -> Option<&Registration> {
        self.registrations.get(&key(id)).map(Box::as_ref)
    }

    pub(crate) fn remove_registration(&mut self, id: &str) {
        self.registrations.remove(&key(id));
    }

    /// Returns a CA certificate by its name.
    pub(crate) fn certificate(&self, name: &str) -> Option<&CaCertificate> {
        self.certificates.get(&key(name))
    }

    /// Returns the ID of a group that refers to a CA certificate.
    pub(crate) fn group_that_refers_to(&self, name: &str) -> Option<&str> {
        let refers = |group: &&Enrollment| group.attestation.references().any(|other| other.eq_ignore_ascii_case(name));
        self.groups.values().find(refers).map(|group| group.id.as_str())
    }

    /// Checks the attestation of a new or changed enrollment against everything else.
    pub(crate) fn check_conflicts(&self, kind: Kind, id: &str, attestation: &Attestation) -> Result<(), ApiError> {
        let key = key(id);
        for name in attestation.references() {
            if self.certificate(name).is_none() {
                let problem = format_args!("the instance has no certificate {name:?}");
                return Err(FieldError::new("attestation.x509.caReferences", problem).into());
            }
        }
        for certificate in attestation.certificates() {
            match self.owners.get(&certificate.sha256_thumbprint()) {
                Some((owner, other)) if (*owner, other) != (kind, &key) => {
                    return Err(conflict(certificate, *owner, other));
                }
                _ => {}
            }
        }
        if kind == Kind::Group {
            let authorities: Vec<_> = self.authorities(attestation).collect();
            for (other_key, other) in self.groups.iter().filter(|(other, _)| **other != key) {
                if let Some(shared) = self.authorities(&other.attestation).find(|other| authorities.contains(other)) {
                    return Err(conflict(shared, Kind::Group, other_key));
                }
            }
            self.check_limit(&key, attestation)?;
        }
        Ok(())
    }

    /// Returns the CA certificates of a group's attestation, verified or not.
    fn authorities<'a>(&'a self, attestation: &'a Attestation) -> impl Iterator<Item = &'a Arc<Certificate>> {
        let referred = attestation.references().filter_map(|name| Some(&self.certificate(name)?.certificate));
        referred.chain(attestation.certificates())
    }

    fn check_limit(&self, key: &str, attestation: &Attestation) -> Result<(), ApiError> {
        let has_keys = |attestation: &Attestation| matches!(attestation, Attestation::SymmetricKey(_));
        let of_type = |group: &&Enrollment| has_keys(&group.attestation) == has_keys(attestation);
        let others = self.groups.iter().filter(|(other, _)| *other != key).map(|(_, group)| group);
        if others.filter(of_type).count() < MAX_GROUPS {
            return Ok(());
        }
        let kind = if has_keys(attestation) { "symmetric keys" } else { "certificates" };
        Err(ApiError::bad_request(format!("the instance has {MAX_GROUPS} enrollment groups with {kind}, its limit")))
    }

    /// Adds an enrollment, or replaces the one with its ID.
    pub(crate) fn insert(&mut self, kind: Kind, enrollment: Enrollment) {
        let key = key(&enrollment.id);
        self.disown(kind, &key);
        for certificate in enrollment.attestation.certificates() {
            self.owners.insert(certificate.sha256_thumbprint(), (kind, key.clone()));
        }
        self.enrollments_mut(kind).insert(key, enrollment);
    }

    /// Removes an enrollment and the registration records of its devices.
    pub(crate) fn remove(&mut self, kind: Kind, id: &str) {
        let key = key(id);
        self.disown(kind, &key);
        self.enrollments_mut(kind).remove(&key);
        match kind {
            Kind::Individual => {
                if self.registrations.get(&key).is_some_and(|registration| registration.group_id().is_none()) {
                    self.registrations.remove(&key);
                }
            }
            Kind::Group => self.registrations.retain(|_, registration| !registration.is_in_group(id)),
        }
    }

    fn enrollments_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Enrollment> {
        match kind {
            Kind::Individual => &mut self.individuals,
            Kind::Group => &mut self.groups,
        }
    }

    /// Removes the certificates of an enrollment from the index.
    fn disown(&mut self, kind: Kind, key: &str) {
        let Some(enrollment) = self.enrollments(kind).get(key) else { return };
        let thumbprints: Vec<_> =
            enrollment.attestation.certificates().map(|found| found.sha256_thumbprint()).collect();
        for thumbprint in thumbprints {
            self.owners.remove(&thumbprint);
        }
    }
}

fn conflict(certificate: &Certificate, owner: Kind, key: &str) -> ApiError {
    ApiError::conflict(format!(
        "the certificate {} is already in the {} {key:?}",
        certificate.sha1_thumbprint(),
        owner.name()
    ))
}
