//! Enrollment groups and their signing certificates: model, rules, calls.
//!
//! # Where the documentation is silent
//! - **Replacing a group** (PUT on one that exists) sets display name, enabled, and the type of its devices. What attests stays: the signing
//!   certificates, which have calls of their own, and the symmetric keys unless the body has others. So that a sequence
//!   which begins with the group can be run again.
//! - **The attestation type** of a group does not change, neither by PUT nor by PATCH (422): every device under it would
//!   lose its way in. Delete the group instead.
//! - **`signingCertificates` in a group's body** may repeat what is there, so that what GET showed can be sent back. It sets
//!   nothing; what differs is refused (422), with the call to use.
//! - **`id` in a body** may repeat the path's; another is refused (422).
//! - **Etags**: the group's and each certificate's are separate, and each guards what its own PUT and PATCH write. A change
//!   of a certificate leaves the group's etag as it is. Every successful PUT and PATCH makes a new one, also without a
//!   difference; so does a successful `verify`.
//! - **Given symmetric keys** are base64 of 16 to 64 bytes, as the Device Provisioning Service takes them; made ones have 64.
//! - **Setting a certificate** (PUT) replaces the entry, also with the same certificate: `verified` is what the body says,
//!   `false` without, and the verification code is void. The field `certificate` is required; an `info` may repeat the
//!   certificate's thumbprint.
//! - **Exactly one certificate** is taken (422 for several): which of a whole chain was meant is a guess.
//! - **The same certificate in both entries** is refused (422): the second would be of no use when the first runs out.
//! - **A group with symmetric keys** has no certificates: setting one is 422, every other call on an entry 404.
//! - **`verify`** without a current code, or with a proof that does not hold, is 422. It may be repeated with a new code
//!   for a certificate that is verified already. A failed attempt leaves the code valid; a successful one spends it.
//! - **An entry** other than `primary` and `secondary`, and an id against its pattern, are 400.

use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    middleware,
    response::Response,
    routing::{get as on_get, post as on_post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    application::Shared,
    error::ApiError,
    gate::{self, Origin, Query},
    json::{self, Fields, Json, MergePatch},
    page, random,
    store::{Etag, State as Everything, check_etag},
};
use crate::certificate::{Certificate, PublicKeyAlgorithm, chain};

/// The most characters of an id.
const MAX_ID: usize = 255;

/// The fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;

/// The bytes of a symmetric key that the emulator makes.
const KEY_BYTES: usize = 64;

/// The bytes of a verification code; it has twice as many characters, and must fit into a common name of 64.
const CODE_BYTES: usize = 24;

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/enrollmentGroups/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route(
            "/enrollmentGroups/{id}/certificates/{entry}",
            on_get(get_certificate).put(put_certificate).delete(delete_certificate),
        )
        .route("/enrollmentGroups/{id}/certificates/{entry}/generateVerificationCode", on_post(generate_code))
        .route("/enrollmentGroups/{id}/certificates/{entry}/verify", on_post(verify))
        .route_layer(middleware::from_fn(gate::no_parameters))
        .route("/enrollmentGroups", on_get(list))
}

/// An enrollment group as it is kept.
pub(super) struct EnrollmentGroup {
    id: String,
    display_name: String,
    enabled: bool,
    device_type: DeviceType,
    attestation: Attestation,
    etag: Etag,
}

#[derive(Clone, Copy)]
enum DeviceType {
    Iot,
    IotEdge,
}

/// How the devices of a group prove who they are.
#[derive(Clone)]
enum Attestation {
    X509(Box<SigningCertificates>),
    SymmetricKey(SymmetricKey),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AttestationType {
    X509,
    SymmetricKey,
}

/// The keys that the devices' keys are derived from, in base64. Secret.
#[derive(Clone)]
struct SymmetricKey {
    primary: String,
    secondary: String,
}

#[derive(Clone, Default)]
struct SigningCertificates {
    primary: Option<SigningCertificate>,
    secondary: Option<SigningCertificate>,
}

/// The certificate that the chains of the group's devices must lead to.
#[derive(Clone)]
struct SigningCertificate {
    certificate: Certificate,
    verified: bool,
    /// The verification code that is current.
    code: Option<String>,
    etag: Etag,
}

/// Which of a group's two certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Primary,
    Secondary,
}

/// The id of an enrollment group: 1 to 255 letters, digits and hyphens.
struct GroupId(String);

// The calls

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let page = application.store.with(|state| {
        let groups = &state.enrollment_groups;
        page::page(groups, "/api/enrollmentGroups", application.page_size, &query, &origin, EnrollmentGroup::show)
    })?;
    Ok(json::answer(StatusCode::OK, &page))
}

async fn get(State(application): State<Shared>, id: GroupId) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| id.find(state).map(|group| group.show()))?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(State(application): State<Shared>, id: GroupId, Json(fields): Json) -> Result<Response, ApiError> {
    let body = GroupBody::read(fields)?;
    let shown = application.store.with(|state| {
        let group = EnrollmentGroup::from_body(&id, body, state.enrollment_groups.get(&id.0))?;
        let shown = group.show();
        state.enrollment_groups.insert(id.0, group);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(State(application): State<Shared>, id: GroupId, patch: MergePatch) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let current = id.find(state)?;
        let before = current.show();
        let after = patch.apply_to(&before);
        let body = GroupBody::read(Fields::of_body(after.clone())?)?;
        let patched = EnrollmentGroup::from_body(&id, body, Some(current))?;
        // PUT keeps what its body leaves out; a patch that takes something out means it.
        let (before, after) = (&before["attestation"], &after["attestation"]);
        if before["x509"] != after["x509"] || before["symmetricKey"].is_null() != after["symmetricKey"].is_null() {
            return Err(ApiError::invalid_body(
                "attestation: a patch cannot take keys or certificates away; use DELETE on certificates/{entry}",
            ));
        }
        let shown = patched.show();
        state.enrollment_groups.insert(id.0, patched);
        Ok(shown)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: GroupId) -> Result<StatusCode, ApiError> {
    let removed = application.store.with(|state| state.enrollment_groups.remove(&id.0));
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| id.not_found())
}

async fn get_certificate(State(application): State<Shared>, id: GroupId, entry: Entry) -> Result<Response, ApiError> {
    let shown =
        application.store.with(|state| id.find_certificate(entry, state).map(|certificate| certificate.show()))?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put_certificate(
    State(application): State<Shared>,
    id: GroupId,
    entry: Entry,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = CertificateBody::read(fields, application.clock.now())?;
    let shown = application.store.with(|state| {
        let Attestation::X509(certificates) = &mut id.find(state)?.attestation else {
            return Err(ApiError::invalid_body(format!(
                "the enrollment group {:?} attests with symmetric keys and has no certificates",
                id.0
            )));
        };
        let (this, other) = match entry {
            Entry::Primary => (&mut certificates.primary, &certificates.secondary),
            Entry::Secondary => (&mut certificates.secondary, &certificates.primary),
        };
        check_etag(body.etag.as_deref(), this.as_ref().map(|certificate| &certificate.etag))?;
        if other.as_ref().is_some_and(|other| other.certificate == body.certificate) {
            return Err(ApiError::invalid_body("certificate: it is the group's other certificate already"));
        }
        let (certificate, verified) = (body.certificate, body.verified);
        let certificate = SigningCertificate { certificate, verified, code: None, etag: Etag::new()? };
        Ok(this.insert(certificate).show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete_certificate(
    State(application): State<Shared>,
    id: GroupId,
    entry: Entry,
) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        let group = id.find(state)?;
        let removed = group.certificate(entry).and_then(Option::take);
        removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| id.certificate_not_found(entry))
    })
}

async fn generate_code(State(application): State<Shared>, id: GroupId, entry: Entry) -> Result<Response, ApiError> {
    let code = random::hexadecimal::<CODE_BYTES>()?;
    let answer = json!({ "verificationCode": code });
    application.store.with(|state| {
        id.find_certificate(entry, state)?.code = Some(code);
        Ok::<_, ApiError>(())
    })?;
    Ok(json::answer(StatusCode::OK, &answer))
}

async fn verify(
    State(application): State<Shared>,
    id: GroupId,
    entry: Entry,
    Json(mut fields): Json,
) -> Result<StatusCode, ApiError> {
    let proof = read_certificate(&mut fields)?;
    fields.finish()?;
    application.store.with(|state| {
        let certificate = id.find_certificate(entry, state)?;
        let code = certificate.code.as_deref().ok_or_else(|| {
            ApiError::invalid_body("there is no current verification code; ask for one with generateVerificationCode")
        })?;
        chain::verify_possession(&proof, &certificate.certificate, code, application.clock.now())
            .map_err(|error| ApiError::invalid_body(format!("certificate: it proves nothing: {error}")))?;
        certificate.etag = Etag::new()?;
        certificate.verified = true;
        certificate.code = None;
        Ok(StatusCode::NO_CONTENT)
    })
}

// What the path names

impl<S: Sync> FromRequestParts<S> for GroupId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = gate::path_parameter(parts, "id").await?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if (1..=MAX_ID).contains(&id.len()) && id.chars().all(fits) {
            return Ok(Self(id));
        }
        let message = format!("{id:?} is no id of an enrollment group: use 1 to {MAX_ID} letters, digits and hyphens");
        Err(ApiError::bad_request(message))
    }
}

impl<S: Sync> FromRequestParts<S> for Entry {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match gate::path_parameter(parts, "entry").await?.as_str() {
            "primary" => Ok(Self::Primary),
            "secondary" => Ok(Self::Secondary),
            other => Err(ApiError::bad_request(format!("{other:?} is no entry: use primary or secondary"))),
        }
    }
}

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl GroupId {
    fn find<'a>(&self, state: &'a mut Everything) -> Result<&'a mut EnrollmentGroup, ApiError> {
        state.enrollment_groups.get_mut(&self.0).ok_or_else(|| self.not_found())
    }

    fn find_certificate<'a>(
        &self,
        entry: Entry,
        state: &'a mut Everything,
    ) -> Result<&'a mut SigningCertificate, ApiError> {
        let slot = self.find(state)?.certificate(entry);
        slot.and_then(Option::as_mut).ok_or_else(|| self.certificate_not_found(entry))
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(format!("there is no enrollment group {:?}", self.0))
    }

    fn certificate_not_found(&self, entry: Entry) -> ApiError {
        ApiError::not_found(format!("the enrollment group {:?} has no {} certificate", self.0, entry.name()))
    }
}

// The model

impl EnrollmentGroup {
    /// The group that a body describes, in place of the current one.
    fn from_body(id: &GroupId, body: GroupBody, current: Option<&Self>) -> Result<Self, ApiError> {
        check_etag(body.etag.as_deref(), current.map(|group| &group.etag))?;
        if let Some(other) = body.id.filter(|given| *given != id.0) {
            return Err(ApiError::invalid_body(format!("id: found {other:?}, and the path says {:?}", id.0)));
        }
        Ok(Self {
            id: id.0.clone(),
            display_name: body.display_name,
            enabled: body.enabled,
            device_type: body.device_type,
            attestation: body.attestation.in_place_of(current.map(|group| &group.attestation))?,
            etag: Etag::new()?,
        })
    }

    /// The place of a certificate, where the group has such places.
    fn certificate(&mut self, entry: Entry) -> Option<&mut Option<SigningCertificate>> {
        match (&mut self.attestation, entry) {
            (Attestation::X509(certificates), Entry::Primary) => Some(&mut certificates.primary),
            (Attestation::X509(certificates), Entry::Secondary) => Some(&mut certificates.secondary),
            (Attestation::SymmetricKey(_), _) => None,
        }
    }

    fn show(&self) -> Value {
        json!({
            "id": self.id,
            "displayName": self.display_name,
            "enabled": self.enabled,
            "type": match self.device_type {
                DeviceType::Iot => "iot",
                DeviceType::IotEdge => "iotEdge",
            },
            "attestation": self.attestation.show(),
            "etag": self.etag.as_str(),
        })
    }
}

impl Attestation {
    fn show(&self) -> Value {
        match self {
            Self::X509(certificates) => {
                json!({ "type": "x509", "x509": { "signingCertificates": certificates.show() } })
            }
            Self::SymmetricKey(key) => json!({
                "type": "symmetricKey",
                "symmetricKey": { "primaryKey": key.primary, "secondaryKey": key.secondary },
            }),
        }
    }
}

impl SigningCertificates {
    fn show(&self) -> Value {
        let entries = [(Entry::Primary, &self.primary), (Entry::Secondary, &self.secondary)];
        let set =
            entries.into_iter().filter_map(|(entry, certificate)| Some((entry.name(), certificate.as_ref()?.show())));
        set.collect()
    }
}

impl SigningCertificate {
    /// The certificate itself is never shown.
    fn show(&self) -> Value {
        json!({
            "verified": self.verified,
            "info": { "sha1Thumbprint": self.certificate.sha1_thumbprint().to_string() },
            "etag": self.etag.as_str(),
        })
    }
}

impl SymmetricKey {
    fn random() -> Result<Self, ApiError> {
        let key = || random::bytes::<KEY_BYTES>().map(|bytes| BASE64_STANDARD.encode(bytes));
        Ok(Self { primary: key()?, secondary: key()? })
    }
}

// The bodies

struct GroupBody {
    id: Option<String>,
    display_name: String,
    enabled: bool,
    device_type: DeviceType,
    attestation: AttestationBody,
    etag: Option<String>,
}

struct AttestationBody {
    attestation_type: AttestationType,
    symmetric_key: Option<SymmetricKey>,
    /// What the body says of the certificates.
    certificates: [(Entry, Option<Value>); 2],
}

struct CertificateBody {
    certificate: Certificate,
    verified: bool,
    etag: Option<String>,
}

impl GroupBody {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let id = fields.string("id")?;
        let display_name = fields.required("displayName", Fields::string)?;
        let enabled = fields.boolean("enabled")?.unwrap_or(true);
        let device_type = fields.required("type", DeviceType::read)?;
        let attestation = AttestationBody::read(fields.required("attestation", Fields::object)?)?;
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { id, display_name, enabled, device_type, attestation, etag })
    }
}

impl DeviceType {
    fn read(fields: &mut Fields, name: &str) -> Result<Option<Self>, ApiError> {
        fields.choice(name, "iot or iotEdge", |text| match text {
            "iot" => Some(Self::Iot),
            "iotEdge" => Some(Self::IotEdge),
            _ => None,
        })
    }
}

impl AttestationType {
    fn read(fields: &mut Fields, name: &str) -> Result<Option<Self>, ApiError> {
        fields.choice(name, "symmetricKey or x509", |text| match text {
            "symmetricKey" => Some(Self::SymmetricKey),
            "x509" => Some(Self::X509),
            _ => None,
        })
    }
}

impl AttestationBody {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let attestation_type = fields.required("type", AttestationType::read)?;
        let symmetric_key = fields.object("symmetricKey")?.map(read_symmetric_key).transpose()?;
        let x509 = fields.object("x509")?;
        match attestation_type {
            AttestationType::X509 if symmetric_key.is_some() => {
                return Err(fields.refuse("symmetricKey", "has no place beside the type x509"));
            }
            AttestationType::SymmetricKey if x509.is_some() => {
                return Err(fields.refuse("x509", "has no place beside the type symmetricKey"));
            }
            _ => {}
        }
        fields.finish()?;
        let mut certificates = [(Entry::Primary, None), (Entry::Secondary, None)];
        if let Some(mut x509) = x509 {
            if let Some(mut given) = x509.object("signingCertificates")? {
                for (entry, certificate) in &mut certificates {
                    *certificate = given.any(entry.name());
                }
                given.finish()?;
            }
            x509.finish()?;
        }
        Ok(Self { attestation_type, symmetric_key, certificates })
    }

    /// The attestation it means, in place of the current one.
    fn in_place_of(self, current: Option<&Attestation>) -> Result<Attestation, ApiError> {
        let attestation = match (self.attestation_type, self.symmetric_key, current) {
            (AttestationType::X509, _, None) => Attestation::X509(Box::default()),
            (AttestationType::X509, _, Some(Attestation::X509(kept))) => Attestation::X509(kept.clone()),
            (AttestationType::SymmetricKey, Some(key), None | Some(Attestation::SymmetricKey(_))) => {
                Attestation::SymmetricKey(key)
            }
            (AttestationType::SymmetricKey, None, Some(Attestation::SymmetricKey(kept))) => {
                Attestation::SymmetricKey(kept.clone())
            }
            (AttestationType::SymmetricKey, None, None) => Attestation::SymmetricKey(SymmetricKey::random()?),
            _ => {
                return Err(ApiError::invalid_body(
                    "attestation.type: it does not change; delete the enrollment group and create it anew",
                ));
            }
        };
        let shown = attestation.show();
        for (entry, given) in self.certificates {
            let entry = entry.name();
            if given.is_some_and(|given| shown["x509"]["signingCertificates"].get(entry) != Some(&given)) {
                return Err(ApiError::invalid_body(format!(
                    "attestation.x509.signingCertificates.{entry}: it may only repeat what is there; \
                     set the certificate with PUT on certificates/{entry}"
                )));
            }
        }
        Ok(attestation)
    }
}

fn read_symmetric_key(mut fields: Fields) -> Result<SymmetricKey, ApiError> {
    let mut key = |name| {
        let text = fields.required(name, Fields::string)?;
        match BASE64_STANDARD.decode(&text) {
            Ok(bytes) if (16..=64).contains(&bytes.len()) => Ok(text),
            Ok(bytes) => Err(fields.refuse(name, format_args!("a key has 16 to 64 bytes, found {}", bytes.len()))),
            Err(_) => Err(fields.refuse(name, "it is not base64")),
        }
    };
    let (primary, secondary) = (key("primaryKey")?, key("secondaryKey")?);
    fields.finish()?;
    Ok(SymmetricKey { primary, secondary })
}

impl CertificateBody {
    fn read(mut fields: Fields, now: OffsetDateTime) -> Result<Self, ApiError> {
        let certificate = read_certificate(&mut fields)?;
        let refuse = |why: String| Err(fields.refuse("certificate", why));
        let algorithm = certificate.public_key_algorithm();
        let fits = match algorithm {
            PublicKeyAlgorithm::Rsa { bits } => *bits >= MIN_RSA_BITS,
            PublicKeyAlgorithm::EcP256 | PublicKeyAlgorithm::EcP384 | PublicKeyAlgorithm::EcP521 => true,
            _ => false,
        };
        if !fits {
            return refuse(format!("its key is {algorithm}; use RSA of {MIN_RSA_BITS} bits or more, or a NIST curve"));
        }
        if let Err(error) = chain::check_authority(&certificate, now) {
            return refuse(error.to_string());
        }
        if let Some(mut info) = fields.object("info")? {
            if info.required("sha1Thumbprint", Fields::string)? != certificate.sha1_thumbprint().to_string() {
                return Err(info.refuse("sha1Thumbprint", "it is not that of the certificate"));
            }
            info.finish()?;
        }
        let verified = fields.boolean("verified")?.unwrap_or(false);
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { certificate, verified, etag })
    }
}

/// The one certificate in the field `certificate`: base64 of PEM or of DER, or PEM as it is.
fn read_certificate(fields: &mut Fields) -> Result<Certificate, ApiError> {
    let text = fields.required("certificate", Fields::string)?;
    let mut all = Certificate::read_all(text.as_bytes())
        .map_err(|error| fields.refuse("certificate", format_args!("no certificate can be read from it: {error}")))?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => Err(fields.refuse("certificate", format_args!("send one certificate, found {}", others + 1))),
    }
}
