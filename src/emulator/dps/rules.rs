//! The rules of admission at an ID scope: who is enrolled there, and how they prove their identity.
//!
//! An IoT Central application and a DPS instance keep enrollments in different forms. [`Rules`] is what they have in
//! common, so that one logic admits the devices of both.

use std::sync::Arc;

use crate::{
    certificate::{Certificate, Thumbprint},
    emulator::{
        central::model::{DeviceAttestation, EnrollmentGroup},
        context::Context,
        credential::SymmetricKey,
        dps::model::{Attestation, Enrollment, Instance, Kind},
        state::State,
    },
};

/// An ID scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// That of the IoT Central application.
    Application,
    /// That of the DPS instance.
    Instance,
}

impl Scope {
    /// Finds an ID scope, without regard to case.
    pub(crate) fn find(context: &Context, id_scope: &str) -> Option<Self> {
        [Self::Application, Self::Instance].into_iter().find(|scope| scope.id(context).eq_ignore_ascii_case(id_scope))
    }

    /// Returns the ID scope as text.
    pub(crate) fn id(self, context: &Context) -> &str {
        match self {
            Self::Application => &context.id_scope,
            Self::Instance => &context.instance.id_scope,
        }
    }
}

/// The rules for one device.
pub(crate) struct Rules<'a> {
    /// The device's own attestation. It takes precedence over the groups.
    pub(crate) individual: Option<Individual<'a>>,
    /// Whether the device, or its individual enrollment, is enabled.
    pub(crate) is_enabled: bool,
    /// The keys of a device without an individual attestation. Not derived for one that presents a certificate.
    pub(crate) default_key: Option<SymmetricKey>,
    pub(crate) groups: Vec<Group<'a>>,
    /// The verified certificates that those of groups may need above them.
    pub(crate) verified: Vec<&'a Arc<Certificate>>,
}

/// An individual attestation.
pub(crate) enum Individual<'a> {
    SymmetricKey(&'a SymmetricKey),
    Certificates(Vec<Thumbprint>),
    Tpm,
}

/// An enrollment group.
pub(crate) struct Group<'a> {
    pub(crate) id: &'a str,
    pub(crate) is_enabled: bool,
    pub(crate) is_for_iot_edge: bool,
    pub(crate) key: Option<&'a SymmetricKey>,
    pub(crate) signers: Vec<Signer<'a>>,
}

/// A certificate that the chains of a group's devices lead to.
pub(crate) struct Signer<'a> {
    pub(crate) certificate: &'a Arc<Certificate>,
    /// Whether a verified certificate must be above it, or be the same.
    pub(crate) needs_verified: bool,
}

impl<'a> Rules<'a> {
    /// Returns the rules of an ID scope for a device and the certificate that it presents, if any.
    pub(crate) fn new(scope: Scope, context: &Context, state: &'a State, id: &str, leaf: Option<&Certificate>) -> Self {
        match scope {
            Scope::Application => Self::of_application(context, state, id, leaf),
            Scope::Instance => Self::of_instance(&state.instance, id, leaf),
        }
    }

    fn of_application(context: &Context, state: &'a State, id: &str, leaf: Option<&Certificate>) -> Self {
        let device = state.devices.get(id);
        let individual = device.and_then(|device| device.attestation.as_deref()).map(|attestation| match attestation {
            DeviceAttestation::SymmetricKey(key) => Individual::SymmetricKey(key),
            DeviceAttestation::X509 { primary, secondary } => {
                Individual::Certificates([Some(*primary), *secondary].into_iter().flatten().collect())
            }
            DeviceAttestation::Tpm { .. } => Individual::Tpm,
        });
        let group = |id: &'a String, group: &'a EnrollmentGroup| Group {
            id,
            is_enabled: group.is_enabled(),
            is_for_iot_edge: group.is_for_iot_edge(),
            key: group.symmetric_key(),
            signers: group
                .verified_certificates()
                .map(|certificate| Signer { certificate, needs_verified: false })
                .collect(),
        };
        Self {
            individual,
            is_enabled: device.is_none_or(|device| device.properties.enabled),
            default_key: leaf.is_none().then(|| context.device_keys.derive(id)),
            groups: state.enrollment_groups.iter().map(|(id, found)| group(id, &found.value)).collect(),
            verified: Vec::new(),
        }
    }

    fn of_instance(instance: &'a Instance, id: &str, leaf: Option<&Certificate>) -> Self {
        let enrollment = instance.find(Kind::Individual, id);
        let belongs_to_another =
            enrollment.is_none() && leaf.is_some_and(|leaf| instance.individual_with(leaf).is_some());
        // No certificate admits the device then.
        let of_another = belongs_to_another.then(|| Individual::Certificates(Vec::new()));
        let individual = enrollment.and_then(|enrollment| match &enrollment.attestation {
            Attestation::SymmetricKey(key) => Some(Individual::SymmetricKey(key)),
            Attestation::ClientCertificates(_) => {
                let thumbprints = enrollment.attestation.certificates().map(|found| found.sha1_thumbprint());
                Some(Individual::Certificates(thumbprints.collect()))
            }
            Attestation::Tpm { .. } => Some(Individual::Tpm),
            Attestation::SigningCertificates(_) | Attestation::CaReferences(_) => None,
        });
        let individual = individual.or(of_another);
        let group = |enrollment: &'a Enrollment| Group {
            id: &enrollment.id,
            is_enabled: enrollment.settings.is_enabled,
            is_for_iot_edge: enrollment.settings.is_for_iot_edge,
            key: match &enrollment.attestation {
                Attestation::SymmetricKey(key) => Some(key),
                _ => None,
            },
            signers: signers(instance, &enrollment.attestation),
        };
        let verified = instance.certificates.values().filter(|certificate| certificate.is_verified);
        Self {
            individual,
            is_enabled: enrollment.is_none_or(|enrollment| enrollment.settings.is_enabled),
            default_key: None,
            groups: instance.enrollments(Kind::Group).values().map(group).collect(),
            verified: verified.map(|certificate| &certificate.certificate).collect(),
        }
    }
}

/// Returns the certificates of a group of the instance that can admit devices.
fn signers<'a>(instance: &'a Instance, attestation: &'a Attestation) -> Vec<Signer<'a>> {
    let referred = attestation.references().filter_map(|name| instance.certificate(name));
    let referred = referred.filter(|certificate| certificate.is_verified);
    let referred = referred.map(|found| Signer { certificate: &found.certificate, needs_verified: false });
    let signing = attestation.certificates().map(|certificate| Signer { certificate, needs_verified: true });
    referred.chain(signing).collect()
}
