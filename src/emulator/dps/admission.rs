//! The admission of devices to the Device Provisioning Service: by a client certificate, or by a token that is signed
//! with a symmetric key. It does not depend on the protocol that the device uses.
//!
//! # Where the documentation is silent
//! - **The messages** of the service are few: `CA certificate not found.`, `Invalid certificate.` and `Unauthorized`.
//!   They are assigned to reasons by reports of users. The reason is logged at the level `debug`.
//!
//!   | reason | code | message |
//!   | --- | --- | --- |
//!   | neither certificate nor token | 401002 | `Unauthorized` |
//!   | leaf not valid at this time, not for client authentication, or with an unsupported key | 401002 | `Invalid certificate.` |
//!   | common name differs from the registration ID | 401002 | `Unauthorized` |
//!   | the device's individual attestation has other certificates | 401002 | `Invalid certificate.` |
//!   | the chain leads to no verified certificate | 401002 | `CA certificate not found.` |
//!   | token malformed, expired, for another device, or signed with another key | 401000 | `Unauthorized` |
//!   | the device has another type of attestation; the device or the group is disabled | 401002 | `Unauthorized` |
//!
//! - **An individual attestation** takes precedence over groups: the device cannot use a group.
//! - **A CA certificate may be that of a device.** A certificate with CA:TRUE is admitted like any other, and so is an
//!   enrolled CA certificate, if its common name is the registration ID: neither RFC 5280 nor the service's
//!   documentation excludes it, and the holder of its key could issue the certificate of any device.
//! - **An `Authorization` header** takes precedence over a client certificate.
//! - **The key of a device** is derived from that of its group for the registration ID as in the request, or in lower
//!   case.
//! - **Devices without an individual attestation and a group** have the keys that the application shows as their
//!   credentials. They belong to the symmetric-key group that every application has, which also admits unknown devices.
//! - **TPM attestation** is not emulated: such a device is refused.

use std::fmt::Display;

use super::{
    error::{DpsError, UNAUTHORIZED, UNAUTHORIZED_TOKEN},
    registration::{Admission, AdmittedCredential, AdmittingGroup},
    sas_token::SasToken,
};
use crate::{
    certificate::{Certificate, Timestamp, chain},
    emulator::{
        central::model::{DeviceAttestation, EnrollmentGroup, has_accepted_key},
        context::Context,
        state::State,
    },
};

/// A credential that a device presents.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    /// The certificates of the TLS handshake, the device's own first. Empty if there are none.
    Certificates(&'a [Certificate]),
    /// A SAS token.
    Token(&'a str),
}

/// Checks the credential of a device and decides whether it is admitted.
pub(crate) fn admit(
    context: &Context,
    state: &State,
    credential: Credential<'_>,
    id: &str,
) -> Result<Admission, DpsError> {
    let now = context.clock.timestamp();
    let device = state.devices.get(id);
    let admission = match credential {
        Credential::Token(token) => admit_by_token(context, state, token, id, now)?,
        Credential::Certificates(certificates) => {
            let attestation = device.and_then(|device| device.attestation.as_ref());
            admit_by_certificate(state, certificates, attestation, id, now)?
        }
    };
    if device.is_some_and(|device| !device.properties.enabled) {
        return Err(unauthorized("the device is disabled"));
    }
    Ok(admission)
}

fn admit_by_token(
    context: &Context,
    state: &State,
    token: &str,
    id: &str,
    now: Timestamp,
) -> Result<Admission, DpsError> {
    let refused = |reason: &str| Err(refuse(UNAUTHORIZED_TOKEN, "Unauthorized", reason));
    let Some(token) = SasToken::parse(token, &context.id_scope, id, now) else {
        return refused("the token is malformed, expired or for another device");
    };
    let device = state.devices.get(id);
    let stored_id = device.map_or(id, |device| &device.properties.id);
    let (is_signed, group) = match device.and_then(|device| device.attestation.as_ref()) {
        Some(DeviceAttestation::SymmetricKey(key)) => (token.is_signed_with(key), None),
        Some(_) => return Err(unauthorized("the device has another type of individual attestation")),
        None if token.is_signed_with(&context.device_keys.derive(stored_id)) => (true, None),
        None => {
            let signer = |group: &EnrollmentGroup| {
                group.symmetric_key().filter(|key| token.is_signed_with_derived(key, id)).map(drop)
            };
            find_group(state, signer)?.map_or((false, None), |(group, ())| (true, Some(group)))
        }
    };
    if !is_signed {
        return refused("the token is signed with another key");
    }
    Ok(Admission { credential: AdmittedCredential::SymmetricKey, group })
}

fn admit_by_certificate(
    state: &State,
    certificates: &[Certificate],
    attestation: Option<&DeviceAttestation>,
    id: &str,
    now: Timestamp,
) -> Result<Admission, DpsError> {
    let Some(leaf) = certificates.first() else {
        return Err(unauthorized("there is neither a client certificate nor a token"));
    };
    check_leaf(leaf, id, now)?;
    let (signer, group) = match attestation {
        Some(DeviceAttestation::X509 { primary, secondary }) => {
            let thumbprint = leaf.sha1_thumbprint();
            if thumbprint != *primary && Some(thumbprint) != *secondary {
                return Err(invalid_certificate("the individual attestation of the device has other certificates"));
            }
            (None, None)
        }
        Some(_) => return Err(unauthorized("the device has another type of individual attestation")),
        None => {
            let mut failure = None;
            let mut leads_to = |signer: &Certificate| {
                chain::verify(certificates, signer, now).map_err(|error| failure = Some(error.to_string())).is_ok()
            };
            find_group(state, |group| group.verified_certificates().find(|signer| leads_to(signer)).cloned())?
                .map(|(group, signer)| (Some(Box::new(signer)), Some(group)))
                .ok_or_else(|| {
                    let reason = failure.unwrap_or_else(|| "no group has a verified certificate".to_owned());
                    refuse(UNAUTHORIZED, "CA certificate not found.", reason)
                })?
        }
    };
    Ok(Admission { credential: AdmittedCredential::Certificate { leaf: Box::new(leaf.clone()), signer }, group })
}

/// Checks the certificate of a device without regard to its issuer.
fn check_leaf(leaf: &Certificate, id: &str, now: Timestamp) -> Result<(), DpsError> {
    if now < leaf.not_before() || now > leaf.not_after() {
        return Err(invalid_certificate("the client certificate is not valid at this time"));
    }
    if !leaf.allows_client_authentication() {
        return Err(invalid_certificate(
            "the extended key usage of the client certificate lacks client authentication",
        ));
    }
    if !has_accepted_key(leaf) {
        return Err(invalid_certificate("the key of the client certificate is not supported"));
    }
    if !leaf.subject().common_name().is_some_and(|name| name.eq_ignore_ascii_case(id)) {
        return Err(unauthorized("the common name of the client certificate is not the registration ID"));
    }
    Ok(())
}

/// Finds the first enabled group for which `test` returns a value. It is an error if only disabled groups match.
fn find_group<T>(
    state: &State,
    mut test: impl FnMut(&EnrollmentGroup) -> Option<T>,
) -> Result<Option<(AdmittingGroup, T)>, DpsError> {
    let groups = state.enrollment_groups.iter().map(|(id, group)| (id, &group.value));
    let (enabled, disabled): (Vec<_>, Vec<_>) = groups.partition(|(_, group)| group.is_enabled());
    for (id, group) in enabled {
        if let Some(value) = test(group) {
            return Ok(Some((AdmittingGroup { id: id.clone(), is_for_iot_edge: group.is_for_iot_edge() }, value)));
        }
    }
    match disabled.into_iter().find(|(_, group)| test(group).is_some()) {
        Some((id, _)) => Err(unauthorized(format!("the enrollment group {id:?} is disabled"))),
        None => Ok(None),
    }
}

fn unauthorized(reason: impl Display) -> DpsError {
    refuse(UNAUTHORIZED, "Unauthorized", reason)
}

fn invalid_certificate(reason: impl Display) -> DpsError {
    refuse(UNAUTHORIZED, "Invalid certificate.", reason)
}

/// Logs the reason of a refusal, which the service does not tell the device.
fn refuse(code: u32, message: &str, reason: impl Display) -> DpsError {
    tracing::debug!(code, %reason, "registration refused");
    DpsError::new(code, message)
}
