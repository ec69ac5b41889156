//! The attestation of single devices, and their credentials.
//!
//! # Where the documentation is silent
//! - **A device without an attestation of its own** has symmetric keys that are derived from two of the application, as a
//!   device's keys are derived from an enrollment group's: HMAC-SHA256 of the device's id in lower case. They are the same
//!   after the device was deleted and created again. GET on its attestation is 404, as are PATCH and DELETE.
//! - **Setting an attestation** (PUT) replaces all of it. Symmetric keys that the body leaves out are made.
//! - **The section** that the type names must be there, but for `symmetricKey`, and no other may be (422).
//! - **A certificate** is given as itself or as its thumbprint or both, then the same one (422). Like a signing certificate
//!   it is not shown, and must have a key that the Device Provisioning Service takes. Its validity is not looked at. The same
//!   one in both places is refused (422).
//! - **A patch** may change the type, where it takes the other section away with null. A certificate in it takes the place
//!   of the thumbprint that is there.
//! - **The endorsement key** of a TPM is base64 of at least one byte; more is not known of it.
//! - **Credentials** hold what the attestation shows, certificates as thumbprints.

use aws_lc_rs::hmac;
use axum::{Router, extract::State, http::StatusCode, middleware, response::Response, routing::get as on_get};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    application::Shared,
    credential::{SymmetricKey, check_key, read_certificate, read_thumbprint},
    device_index::id_key,
    devices::Device,
    error::ApiError,
    gate,
    id::Id,
    json::{self, Fields, Json, MergePatch},
    random,
};
use crate::certificate::Thumbprint;

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/devices/{id}/attestation", on_get(get).put(put).patch(patch).delete(delete))
        .route("/devices/{id}/credentials", on_get(credentials))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .route_layer(middleware::from_fn(gate::no_if_match))
}

/// How one device proves who it is.
#[derive(Clone)]
pub(super) enum DeviceAttestation {
    SymmetricKey(SymmetricKey),
    X509 { primary: Thumbprint, secondary: Option<Thumbprint> },
    Tpm { endorsement_key: String },
}

/// What the keys of devices without an attestation of their own are derived from. Secret.
pub(super) struct DeviceKeys {
    primary: hmac::Key,
    secondary: hmac::Key,
}

impl DeviceKeys {
    pub(super) fn random() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let key = || random::bytes::<64>().map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Ok(Self { primary: key()?, secondary: key()? })
    }

    /// The keys of the device with this id.
    pub(super) fn derive(&self, id: &str) -> SymmetricKey {
        let derive = |key| hmac::sign(key, id_key(id).as_bytes());
        SymmetricKey::new(derive(&self.primary).as_ref(), derive(&self.secondary).as_ref())
    }
}

// The calls

async fn credentials(State(application): State<Shared>, id: Id<Device>) -> Result<Response, ApiError> {
    let mut shown = application.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        Ok::<_, ApiError>(match &device.attestation {
            Some(attestation) => json!({ attestation.name(): attestation.section() }),
            None => json!({ "symmetricKey": application.device_keys.derive(&id.text).show() }),
        })
    })?;
    shown["idScope"] = json!(application.id_scope);
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn get(State(application): State<Shared>, id: Id<Device>) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let device = state.devices.get(&id.text).ok_or_else(|| id.not_found())?;
        let attestation = device.attestation.as_ref();
        attestation.map(DeviceAttestation::show).ok_or_else(|| no_attestation(&id))
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(State(application): State<Shared>, id: Id<Device>, Json(fields): Json) -> Result<Response, ApiError> {
    let attestation = DeviceAttestation::read(fields)?;
    let shown = attestation.show();
    application.store.with(|state| {
        id.find(state)?.attestation = Some(attestation);
        Ok::<_, ApiError>(())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(State(application): State<Shared>, id: Id<Device>, patch: MergePatch) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let device = id.find(state)?;
        let mut document = device.attestation.as_ref().ok_or_else(|| no_attestation(&id))?.show();
        for entry in ["primary", "secondary"] {
            let entry = format!("/x509/clientCertificates/{entry}");
            if patch.pointer(&format!("{entry}/certificate")).is_some()
                && let Some(Value::Object(shown)) = document.pointer_mut(&entry)
            {
                shown.clear();
            }
        }
        let attestation = DeviceAttestation::read(Fields::of_body(patch.apply_to(&document))?)?;
        let shown = attestation.show();
        device.attestation = Some(attestation);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: Id<Device>) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        let removed = id.find(state)?.attestation.take();
        removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| no_attestation(&id))
    })
}

fn no_attestation(id: &Id<Device>) -> ApiError {
    ApiError::not_found(format!("the device {:?} has no attestation of its own", id.text))
}

// The model

impl DeviceAttestation {
    /// Its type, which is also the name of its section.
    fn name(&self) -> &'static str {
        match self {
            Self::SymmetricKey(_) => "symmetricKey",
            Self::X509 { .. } => "x509",
            Self::Tpm { .. } => "tpm",
        }
    }

    fn section(&self) -> Value {
        let certificate = |thumbprint: &Thumbprint| json!({ "info": { "sha1Thumbprint": thumbprint.to_string() } });
        match self {
            Self::SymmetricKey(key) => key.show(),
            Self::X509 { primary, secondary } => {
                let mut certificates = json!({ "primary": certificate(primary) });
                if let Some(secondary) = secondary {
                    certificates["secondary"] = certificate(secondary);
                }
                json!({ "clientCertificates": certificates })
            }
            Self::Tpm { endorsement_key } => json!({ "endorsementKey": endorsement_key }),
        }
    }

    fn show(&self) -> Value {
        json!({ "type": self.name(), self.name(): self.section() })
    }

    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let read = fields.required("type", |fields, name| {
            fields.choice(name, "symmetricKey, x509 or tpm", |text| match text {
                "symmetricKey" => Some(Self::read_symmetric_key as fn(&mut Fields) -> Result<Self, ApiError>),
                "x509" => Some(Self::read_x509),
                "tpm" => Some(Self::read_tpm),
                _ => None,
            })
        })?;
        let attestation = read(&mut fields)?;
        for other in ["symmetricKey", "x509", "tpm"] {
            if fields.any(other).is_some() {
                return Err(fields.refuse(other, format_args!("has no place beside the type {}", attestation.name())));
            }
        }
        fields.finish()?;
        Ok(attestation)
    }

    fn read_symmetric_key(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self::SymmetricKey(match SymmetricKey::read(fields)? {
            Some(given) => given,
            None => SymmetricKey::random()?,
        }))
    }

    fn read_x509(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut section = fields.required("x509", Fields::object)?;
        let mut certificates = section.required("clientCertificates", Fields::object)?;
        section.finish()?;
        let primary = read_client_certificate(certificates.required("primary", Fields::object)?)?;
        let secondary = certificates.object("secondary")?.map(read_client_certificate).transpose()?;
        if secondary == Some(primary) {
            return Err(certificates.refuse("secondary", "it is the primary certificate already"));
        }
        certificates.finish()?;
        Ok(Self::X509 { primary, secondary })
    }

    fn read_tpm(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut section = fields.required("tpm", Fields::object)?;
        let endorsement_key = section.required("endorsementKey", Fields::string)?;
        if !BASE64_STANDARD.decode(&endorsement_key).is_ok_and(|key| !key.is_empty()) {
            return Err(section.refuse("endorsementKey", "expected the key in base64"));
        }
        section.finish()?;
        Ok(Self::Tpm { endorsement_key })
    }
}

fn read_client_certificate(mut fields: Fields) -> Result<Thumbprint, ApiError> {
    let given = read_thumbprint(&mut fields)?;
    if let (Some(given), false) = (given, fields.has("certificate")) {
        fields.finish()?;
        return Ok(given);
    }
    let certificate = read_certificate(&mut fields)?;
    check_key(&certificate, &fields)?;
    let thumbprint = certificate.sha1_thumbprint();
    if given.is_some_and(|given| given != thumbprint) {
        return Err(fields.refuse("info.sha1Thumbprint", "it is not that of the certificate"));
    }
    fields.finish()?;
    Ok(thumbprint)
}
