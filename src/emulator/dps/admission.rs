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
//! - **An individual attestation** takes precedence over groups: the device cannot use a group. At the instance, a client
//!   certificate of the individual enrollment of another registration ID is refused as well.
//! - **The nearest group** decides: the one whose certificate is the fewest steps above the device's own. A disabled one
//!   refuses the device. Only verified certificates count, so that an unverified one hides no group above it. If several
//!   groups are equally near, which only an application can have, the first enabled one decides.
//! - **A signing certificate** of a group of the instance counts if the presented chain goes through it up to a verified
//!   CA certificate of the instance, or if it is itself one.
//! - **A CA certificate may be that of a device.** A certificate with CA:TRUE is admitted like any other, and so is an
//!   enrolled CA certificate, if its common name is the registration ID: neither RFC 5280 nor the service's
//!   documentation excludes it, and the holder of its key could issue the certificate of any device.
//! - **An `Authorization` header** takes precedence over a client certificate.
//! - **The key of a device** is derived from that of its group for the registration ID as in the request, or in lower
//!   case.
//! - **Devices without an individual attestation and a group** have the keys that the application shows as their
//!   credentials. They belong to the symmetric-key group that every application has, which also admits unknown devices.
//! - **TPM attestation** is not emulated: such a device is refused.

use std::{fmt::Display, sync::Arc};

use super::{
    error::{DpsError, UNAUTHORIZED, UNAUTHORIZED_TOKEN},
    registration::{Admission, AdmittedCredential, AdmittingGroup, CertificateInfo},
    rules::{Group, Individual, Rules, Scope, Signer},
    sas_token::SasToken,
};
use crate::{
    certificate::{Certificate, Timestamp, chain},
    emulator::{context::Context, credential::has_accepted_key, state::State},
};

/// A credential that a device presents.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    /// The certificates of the TLS handshake, the device's own first. Empty if there are none.
    Certificates(&'a [Certificate]),
    /// A SAS token.
    Token(&'a str),
}

/// Checks the credential of a device and decides whether it is admitted at an ID scope.
pub(crate) fn admit(
    context: &Context,
    state: &State,
    scope: Scope,
    credential: Credential<'_>,
    id: &str,
) -> Result<Admission, DpsError> {
    let now = context.clock.timestamp();
    let (admission, is_enabled) = match credential {
        Credential::Token(token) => {
            let rules = Rules::new(scope, context, state, id, None);
            (admit_by_token(&rules, token, scope.id(context), id, now)?, rules.is_enabled)
        }
        Credential::Certificates(certificates) => {
            let rules = Rules::new(scope, context, state, id, certificates.first());
            (admit_by_certificate(&rules, certificates, id, now)?, rules.is_enabled)
        }
    };
    if is_enabled { Ok(admission) } else { Err(unauthorized("the device or its individual enrollment is disabled")) }
}

fn admit_by_token(
    rules: &Rules<'_>,
    token: &str,
    id_scope: &str,
    id: &str,
    now: Timestamp,
) -> Result<Admission, DpsError> {
    let refused = |reason: &str| Err(refuse(UNAUTHORIZED_TOKEN, "Unauthorized", reason));
    let Some(token) = SasToken::parse(token, now).filter(|token| token.is_for_device(id_scope, id)) else {
        return refused("the token is malformed, expired or for another device");
    };
    let (is_signed, group) = match &rules.individual {
        Some(Individual::SymmetricKey(key)) => (token.is_signed_with(key), None),
        Some(_) => return Err(unauthorized("the device has another type of individual attestation")),
        None if rules.default_key.as_ref().is_some_and(|key| token.is_signed_with(key)) => (true, None),
        None => {
            let is_signer = |group: &&Group<'_>| group.key.is_some_and(|key| token.is_signed_with_derived(key, id));
            let group = rules.groups.iter().filter(is_signer).min_by_key(|group| !group.is_enabled);
            (group.is_some(), group.map(admitting).transpose()?)
        }
    };
    if !is_signed {
        return refused("the token is signed with another key");
    }
    Ok(Admission { credential: AdmittedCredential::SymmetricKey, group })
}

fn admit_by_certificate(
    rules: &Rules<'_>,
    certificates: &[Certificate],
    id: &str,
    now: Timestamp,
) -> Result<Admission, DpsError> {
    let Some(leaf) = certificates.first() else {
        return Err(unauthorized("there is neither a client certificate nor a token"));
    };
    check_leaf(leaf, id, now)?;
    let (signer, group) = match &rules.individual {
        Some(Individual::Certificates(thumbprints)) => {
            if !thumbprints.contains(&leaf.sha1_thumbprint()) {
                return Err(invalid_certificate("the individual attestation of the device has other certificates"));
            }
            (None, None)
        }
        Some(_) => return Err(unauthorized("the device has another type of individual attestation")),
        None => {
            let (group, signer) = find_nearest(rules, certificates, now)?;
            (Some(Arc::clone(signer)), Some(admitting(group)?))
        }
    };
    Ok(Admission {
        credential: AdmittedCredential::Certificate { leaf: Box::new(CertificateInfo::new(leaf)), signer },
        group,
    })
}

/// Finds the nearest group up the chain, and its certificate.
fn find_nearest<'a>(
    rules: &'a Rules<'_>,
    certificates: &[Certificate],
    now: Timestamp,
) -> Result<(&'a Group<'a>, &'a Arc<Certificate>), DpsError> {
    let mut failure = "no group has a verified certificate".to_owned();
    let mut nearest: Option<((usize, bool), &Group<'_>, &Arc<Certificate>)> = None;
    for group in &rules.groups {
        for signer in &group.signers {
            match distance(signer, certificates, &rules.verified, now) {
                Ok(distance) => {
                    let rank = (distance, !group.is_enabled);
                    if nearest.as_ref().is_none_or(|(found, ..)| rank < *found) {
                        nearest = Some((rank, group, signer.certificate));
                    }
                }
                Err(reason) => failure = reason,
            }
        }
    }
    let not_found = || refuse(UNAUTHORIZED, "CA certificate not found.", failure);
    nearest.map(|(_, group, signer)| (group, signer)).ok_or_else(not_found)
}

/// Returns the number of certificates from the device's own up to a group's, or the reason why it does not count.
fn distance(
    signer: &Signer<'_>,
    certificates: &[Certificate],
    verified: &[&Arc<Certificate>],
    now: Timestamp,
) -> Result<usize, String> {
    let path = chain::verify(certificates, &**signer.certificate, now).map_err(|error| error.to_string())?;
    let is_verified = !signer.needs_verified
        || verified.contains(&signer.certificate)
        || verified.iter().any(|anchor| {
            chain::verify(certificates, &***anchor, now).is_ok_and(|path| path.contains(&&**signer.certificate))
        });
    if is_verified { Ok(path.len()) } else { Err("no certificate above that of the group is verified".to_owned()) }
}

/// Returns the group that admits a device, unless it is disabled.
fn admitting(group: &Group<'_>) -> Result<AdmittingGroup, DpsError> {
    if !group.is_enabled {
        return Err(unauthorized(format_args!("the enrollment group {:?} is disabled", group.id)));
    }
    Ok(AdmittingGroup { id: group.id.into(), is_for_iot_edge: group.is_for_iot_edge })
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
