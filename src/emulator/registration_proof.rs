//! How a device proves to the Device Provisioning Service who it is: by its certificate, or by a token signed with its key.
//!
//! # Where the documentation is silent
//! - **The service's words** are few: `CA certificate not found.`, `Invalid certificate.` and `Unauthorized`. Which of them is
//!   for what is chosen by how people have met them; the true reason goes to the log, at level `debug`.
//!
//!   | refusal | code | message |
//!   | --- | --- | --- |
//!   | neither certificate nor token | 401002 | `Unauthorized` |
//!   | leaf out of its time, not for client authentication, its key of a kind that is not taken | 401002 | `Invalid certificate.` |
//!   | common name not the registration id | 401002 | `Unauthorized` |
//!   | the device attests by other certificates of its own | 401002 | `Invalid certificate.` |
//!   | the chain leads to no verified certificate | 401002 | `CA certificate not found.` |
//!   | token malformed, expired, for another device, or signed with another key | 401000 | `Unauthorized` |
//!   | the device attests in another way; the device or the group is disabled | 401002 | `Unauthorized` |
//!
//! - **A device with an attestation of its own** is held to it alone: an individual enrollment goes before groups.
//! - **An authority may be a device.** A certificate with CA:TRUE is let in like any other, and so is the enrolled one itself,
//!   if its common name is the registration id: neither RFC 5280 nor the service's documentation excludes it, and the holder
//!   of that key could issue any device's certificate anyway.
//! - **An `Authorization` header** decides where there is one, whatever certificate comes with it.
//! - **A device's key** is derived from its group's for the registration id as the request has it, or in lower case.
//! - **Devices without an attestation and a group** have the keys that the application shows as their credentials: they come
//!   from a group of symmetric keys that every application has, and let unknown devices in as well.
//! - **TPM attestation** is not played: such a device is refused.

use std::fmt::Display;

use aws_lc_rs::hmac;
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    application::Application,
    clock,
    credential::{SymmetricKey, has_fitting_key},
    device_attestation::DeviceAttestation,
    enrollment_groups::EnrollmentGroup,
    error::ApiError,
    store::State,
    tls::Presented,
};
use crate::certificate::{Certificate, chain};

const UNAUTHORIZED: &str = "Unauthorized";
const INVALID_CERTIFICATE: &str = "Invalid certificate.";
const CA_NOT_FOUND: &str = "CA certificate not found.";

/// What a device brings to prove who it is.
pub(super) struct Claim {
    presented: Presented,
    /// The `Authorization` header; empty where it is no text. Secret.
    token: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Claim {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let token = parts.headers.get(header::AUTHORIZATION).map(|token| token.to_str().unwrap_or_default().to_owned());
        Ok(Self { presented: parts.extensions.get().cloned().unwrap_or_default(), token })
    }
}

/// What proved who a device is.
#[derive(Clone)]
pub(super) struct Proof {
    credential: Credential,
    /// The group that let it in.
    group: Option<Group>,
}

#[derive(Clone, PartialEq, Eq)]
struct Group {
    id: String,
    is_for_iot_edge: bool,
}

#[derive(Clone)]
enum Credential {
    Certificate {
        leaf: Box<Certificate>,
        /// The certificate of the group that the chain led to.
        signer: Option<Box<Certificate>>,
    },
    SymmetricKey,
}

impl Proof {
    /// Whether it is the same certificate, or a key from the same place.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        match (&self.credential, &other.credential) {
            (Credential::Certificate { leaf, .. }, Credential::Certificate { leaf: other, .. }) => leaf == other,
            (Credential::SymmetricKey, Credential::SymmetricKey) => self.group == other.group,
            _ => false,
        }
    }

    pub(super) fn is_for_iot_edge(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_for_iot_edge)
    }

    /// Its part of a registration's state: the name of the section, and the section.
    pub(super) fn show(&self) -> (&'static str, Value) {
        let mut section = json!({});
        if let Some(group) = &self.group {
            section["enrollmentGroupId"] = json!(group.id);
        }
        let Credential::Certificate { leaf, signer } = &self.credential else { return ("symmetricKey", section) };
        section["certificateInfo"] = certificate_info(leaf);
        if let Some(signer) = signer {
            section["signingCertificateInfo"] = certificate_info(signer);
        }
        ("x509", section)
    }
}

fn certificate_info(certificate: &Certificate) -> Value {
    json!({
        "subjectName": certificate.subject().to_string(),
        "sha1Thumbprint": certificate.sha1_thumbprint().to_string(),
        "sha256Thumbprint": certificate.sha256_thumbprint().to_string(),
        "issuerName": certificate.issuer().to_string(),
        "notBeforeUtc": clock::timestamp(certificate.not_before()),
        "notAfterUtc": clock::timestamp(certificate.not_after()),
        "serialNumber": certificate.serial_number(),
        "version": certificate.version(),
    })
}

/// Decides whether a device is who it says it is, and may come in.
pub(super) fn check(application: &Application, state: &State, claim: &Claim, id: &str) -> Result<Proof, ApiError> {
    let now = application.clock.now();
    let device = state.devices.get(id);
    let attestation = device.and_then(|device| device.attestation.as_ref());
    let proof = match &claim.token {
        Some(token) => by_token(application, state, token, id, now)?,
        None => by_certificate(state, claim.presented.certificates(), attestation, id, now)?,
    };
    if device.is_some_and(|device| !device.properties.enabled) {
        return Err(refuse(401_002, UNAUTHORIZED, "the device is disabled"));
    }
    Ok(proof)
}

fn by_token(
    application: &Application,
    state: &State,
    token: &str,
    id: &str,
    now: OffsetDateTime,
) -> Result<Proof, ApiError> {
    let Some(token) = Token::read(token, &application.id_scope, id, now) else {
        return Err(refuse(401_000, UNAUTHORIZED, "the token is malformed, expired or for another device"));
    };
    let device = state.devices.get(id);
    let known_as = device.map_or(id, |device| &device.properties.id);
    let derived =
        |group: &EnrollmentGroup| group.symmetric_key().filter(|key| token.is_signed_below(key, id)).map(drop);
    let (signed, group) = match device.and_then(|device| device.attestation.as_ref()) {
        Some(DeviceAttestation::SymmetricKey(key)) => (token.is_signed_with(key), None),
        Some(_) => return Err(refuse(401_002, UNAUTHORIZED, "the device has another attestation of its own")),
        None if token.is_signed_with(&application.device_keys.derive(known_as)) => (true, None),
        None => admit(state, derived)?.map_or((false, None), |(group, ())| (true, Some(group))),
    };
    if !signed {
        return Err(refuse(401_000, UNAUTHORIZED, "the token is signed with another key"));
    }
    Ok(Proof { credential: Credential::SymmetricKey, group })
}

fn by_certificate(
    state: &State,
    presented: &[Certificate],
    attestation: Option<&DeviceAttestation>,
    id: &str,
    now: OffsetDateTime,
) -> Result<Proof, ApiError> {
    let Some(leaf) = presented.first() else {
        return Err(refuse(401_002, UNAUTHORIZED, "there is neither a client certificate nor a token"));
    };
    let invalid = |reason: &str| Err(refuse(401_002, INVALID_CERTIFICATE, reason));
    if now < leaf.not_before() || now > leaf.not_after() {
        return invalid("the client certificate is out of its time");
    }
    if !leaf.allows_client_authentication() {
        return invalid("the extended key usage of the client certificate leaves out client authentication");
    }
    if !has_fitting_key(leaf) {
        return invalid("the key of the client certificate is of a kind that is not taken");
    }
    if !leaf.subject().common_name().is_some_and(|name| name.eq_ignore_ascii_case(id)) {
        return Err(refuse(
            401_002,
            UNAUTHORIZED,
            "the common name of the client certificate is not the registration id",
        ));
    }
    let mut failure = None;
    let (signer, group) = match attestation {
        Some(DeviceAttestation::X509 { primary, secondary }) => {
            let thumbprint = leaf.sha1_thumbprint();
            if thumbprint != *primary && Some(thumbprint) != *secondary {
                return invalid("the device attests by other certificates of its own");
            }
            (None, None)
        }
        Some(_) => return Err(refuse(401_002, UNAUTHORIZED, "the device has another attestation of its own")),
        None => {
            let mut leads_to = |signer: &Certificate| {
                chain::verify(presented, signer, now).map_err(|error| failure = Some(error.to_string())).is_ok()
            };
            admit(state, |group| group.verified_certificates().find(|signer| leads_to(signer)).cloned())?
                .map(|(group, signer)| (Some(Box::new(signer)), Some(group)))
                .ok_or_else(|| {
                    let reason = failure.unwrap_or_else(|| "no group has a verified certificate".to_owned());
                    refuse(401_002, CA_NOT_FOUND, reason)
                })?
        }
    };
    Ok(Proof { credential: Credential::Certificate { leaf: Box::new(leaf.clone()), signer }, group })
}

/// The first enabled group that this holds for. Refuses where it holds for disabled ones alone.
fn admit<T>(
    state: &State,
    mut holds: impl FnMut(&EnrollmentGroup) -> Option<T>,
) -> Result<Option<(Group, T)>, ApiError> {
    let groups = || state.enrollment_groups.values();
    let (enabled, disabled): (Vec<_>, Vec<_>) = groups().partition(|group| group.is_enabled());
    let admitted =
        |group: &EnrollmentGroup| Group { id: group.id().to_owned(), is_for_iot_edge: group.is_for_iot_edge() };
    if let Some(found) = enabled.into_iter().find_map(|group| Some((admitted(group), holds(group)?))) {
        return Ok(Some(found));
    }
    match disabled.into_iter().find(|group| holds(group).is_some()) {
        Some(group) => Err(refuse(401_002, UNAUTHORIZED, format!("the enrollment group {:?} is disabled", group.id()))),
        None => Ok(None),
    }
}

/// Says in the service's words that the device is refused, and in the log why.
fn refuse(error_code: u32, message: &str, reason: impl Display) -> ApiError {
    tracing::debug!(error_code, %reason, "registration refused");
    ApiError::provisioning(error_code, message)
}

/// A token that is for this device and has not expired: `SharedAccessSignature sr=…&sig=…&se=…&skn=registration`. The policy
/// name `skn` may be left out, as by the Python SDK; another is refused.
struct Token {
    /// What is signed: the resource as it is written in the token, a line feed, the expiry.
    signed: String,
    signature: Vec<u8>,
}

impl Token {
    fn read(text: &str, id_scope: &str, id: &str, now: OffsetDateTime) -> Option<Self> {
        let fields = text.strip_prefix("SharedAccessSignature ")?;
        let raw = |name: &str| {
            let mut values = fields.split('&').filter_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            values.next().filter(|_| values.next().is_none())
        };
        // A plus sign is one: whoever leaves base64 as it is does not mean a space.
        let decoded = |name: &str| {
            let encoded = raw(name)?.replace('+', "%2B").replace('=', "%3D");
            form_urlencoded::parse(encoded.as_bytes()).next().map(|(text, _)| text.into_owned())
        };
        let (resource, expiry) = (raw("sr")?, raw("se")?);
        let has_skn = fields.split('&').any(|field| field == "skn" || field.starts_with("skn="));
        let expected = format!("{id_scope}/registrations/{id}");
        let fits = decoded("sr")?.eq_ignore_ascii_case(&expected)
            && (!has_skn || decoded("skn")? == "registration")
            && expiry.parse::<i64>().is_ok_and(|expiry| expiry > now.unix_timestamp());
        let signature = BASE64_STANDARD.decode(decoded("sig")?).ok()?;
        fits.then(|| Self { signed: format!("{resource}\n{expiry}"), signature })
    }

    /// Whether it is signed with one of these keys.
    fn is_signed_with(&self, key: &SymmetricKey) -> bool {
        key.keys().any(|key| self.is_signed_by(&key))
    }

    /// Whether it is signed with a key that is derived from one of these for the device.
    fn is_signed_below(&self, group: &SymmetricKey, id: &str) -> bool {
        group.keys().any(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let derived = |id: &str| hmac::sign(&key, id.as_bytes());
            [derived(id), derived(&id.to_ascii_lowercase())].iter().any(|key| self.is_signed_by(key.as_ref()))
        })
    }

    fn is_signed_by(&self, key: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok()
    }
}
