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
//! - **Two groups with the same symmetric keys**, both of them, are refused (409): nobody could tell whose devices sign with
//!   them.
//! - **`If-Match`** is honoured by GET, PUT, PATCH and DELETE of a group, and by GET, PUT and DELETE of a certificate.
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
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    application::Shared,
    credential::{SymmetricKey, check_key, read_certificate, read_thumbprint},
    error::ApiError,
    gate::{self, Origin, Query},
    id::{Id, Resource, consists_of},
    if_match::IfMatch,
    json::{self, Fields, Json, MergePatch},
    page::{self, PageRequest},
    random,
    store::{Etag, State as Everything, check_etag},
};
use crate::certificate::{Certificate, chain};

/// The bytes of a verification code; it has twice as many characters, and must fit into a common name of 64.
const CODE_BYTES: usize = 24;

/// The routes of the resource, below `/api`.
pub(super) fn routes() -> Router<Shared> {
    let proof = Router::new()
        .route("/enrollmentGroups/{id}/certificates/{entry}/generateVerificationCode", on_post(generate_code))
        .route("/enrollmentGroups/{id}/certificates/{entry}/verify", on_post(verify))
        .route_layer(middleware::from_fn(gate::no_parameters));
    let without_etag = Router::new()
        .route("/enrollmentGroups", on_get(list))
        .merge(proof)
        .route_layer(middleware::from_fn(gate::no_if_match));
    Router::new()
        .route("/enrollmentGroups/{id}", on_get(get).put(put).patch(patch).delete(delete))
        .route(
            "/enrollmentGroups/{id}/certificates/{entry}",
            on_get(get_certificate).put(put_certificate).delete(delete_certificate),
        )
        .route_layer(middleware::from_fn(gate::no_parameters))
        .merge(without_etag)
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

type GroupId = Id<EnrollmentGroup>;

// The calls

async fn list(
    State(application): State<Shared>,
    Extension(query): Extension<Query>,
    Extension(origin): Extension<Origin>,
) -> Result<Response, ApiError> {
    query.only(page::PARAMETERS)?;
    let page = PageRequest::read(&application, &query, &origin, "/api/enrollmentGroups", &[])?;
    let page = application.store.with(|state| page.of_ids(&state.enrollment_groups, EnrollmentGroup::show));
    Ok(json::answer(StatusCode::OK, &page))
}

async fn get(State(application): State<Shared>, id: GroupId, if_match: IfMatch) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let group = id.find(state)?;
        if_match.check(Some(&group.etag))?;
        Ok::<_, ApiError>(group.show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put(
    State(application): State<Shared>,
    id: GroupId,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = GroupBody::read(fields)?;
    let shown = application.store.with(|state| {
        let current = state.enrollment_groups.get(&id.text);
        if_match.check(current.map(|group| &group.etag))?;
        EnrollmentGroup::from_body(&id, body, current)?.store(state)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn patch(
    State(application): State<Shared>,
    id: GroupId,
    if_match: IfMatch,
    patch: MergePatch,
) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let current = id.find(state)?;
        if_match.check(Some(&current.etag))?;
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
        patched.store(state)
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn delete(State(application): State<Shared>, id: GroupId, if_match: IfMatch) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        if_match.check(Some(&id.find(state)?.etag))?;
        state.enrollment_groups.remove(&id.text);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn get_certificate(
    State(application): State<Shared>,
    id: GroupId,
    entry: Entry,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        let certificate = id.find_certificate(entry, state)?;
        if_match.check(Some(&certificate.etag))?;
        Ok::<_, ApiError>(certificate.show())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

async fn put_certificate(
    State(application): State<Shared>,
    id: GroupId,
    entry: Entry,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let body = CertificateBody::read(fields, application.clock.now())?;
    let shown = application.store.with(|state| {
        let Attestation::X509(certificates) = &mut id.find(state)?.attestation else {
            return Err(ApiError::invalid_body(format!(
                "the enrollment group {:?} attests with symmetric keys and has no certificates",
                id.text
            )));
        };
        let (this, other) = match entry {
            Entry::Primary => (&mut certificates.primary, &certificates.secondary),
            Entry::Secondary => (&mut certificates.secondary, &certificates.primary),
        };
        let current = this.as_ref().map(|certificate| &certificate.etag);
        if_match.check(current)?;
        check_etag(body.etag.as_deref(), current)?;
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
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    application.store.with(|state| {
        if_match.check(Some(&id.find_certificate(entry, state)?.etag))?;
        if let Some(certificate) = id.find(state)?.certificate(entry) {
            *certificate = None;
        }
        Ok(StatusCode::NO_CONTENT)
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

impl Resource for EnrollmentGroup {
    const NAME: &'static str = "enrollment group";
    const ID_RULE: &'static str = "1 to 255 letters, digits and hyphens";

    fn is_id(text: &str) -> bool {
        consists_of(text, 255, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }

    fn find<'a>(state: &'a mut Everything, id: &str) -> Option<&'a mut Self> {
        state.enrollment_groups.get_mut(id)
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
    fn find_certificate<'a>(
        &self,
        entry: Entry,
        state: &'a mut Everything,
    ) -> Result<&'a mut SigningCertificate, ApiError> {
        let slot = self.find(state)?.certificate(entry);
        slot.and_then(Option::as_mut).ok_or_else(|| self.certificate_not_found(entry))
    }

    fn certificate_not_found(&self, entry: Entry) -> ApiError {
        ApiError::not_found(format!("the enrollment group {:?} has no {} certificate", self.text, entry.name()))
    }
}

// The model

impl EnrollmentGroup {
    /// The group that a body describes, in place of the current one.
    fn from_body(id: &GroupId, body: GroupBody, current: Option<&Self>) -> Result<Self, ApiError> {
        check_etag(body.etag.as_deref(), current.map(|group| &group.etag))?;
        id.check_body(body.id.as_deref())?;
        Ok(Self {
            id: id.text.clone(),
            display_name: body.display_name,
            enabled: body.enabled,
            device_type: body.device_type,
            attestation: body.attestation.in_place_of(current.map(|group| &group.attestation))?,
            etag: Etag::new()?,
        })
    }

    /// Puts it in its place, unless another group has its symmetric keys; returns it as it is shown.
    fn store(self, state: &mut Everything) -> Result<Value, ApiError> {
        let has_its_keys = |other: &&Self| {
            other.id != self.id && other.symmetric_key().is_some_and(|key| self.symmetric_key() == Some(key))
        };
        if let Some(other) = state.enrollment_groups.values().find(has_its_keys) {
            return Err(ApiError::conflict(format!(
                "attestation.symmetricKey: the enrollment group {:?} has the same keys",
                other.id
            )));
        }
        let shown = self.show();
        state.enrollment_groups.insert(self.id.clone(), self);
        Ok(shown)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn is_for_iot_edge(&self) -> bool {
        matches!(self.device_type, DeviceType::IotEdge)
    }

    /// The certificates whose possession is proven or attested: those that let devices in.
    pub(super) fn verified_certificates(&self) -> impl Iterator<Item = &Certificate> {
        let certificates = match &self.attestation {
            Attestation::X509(certificates) => [&certificates.primary, &certificates.secondary].map(Option::as_ref),
            Attestation::SymmetricKey(_) => [None, None],
        };
        certificates.into_iter().flatten().filter(|entry| entry.verified).map(|entry| &entry.certificate)
    }

    /// The keys that those of the group's devices are derived from.
    pub(super) fn symmetric_key(&self) -> Option<&SymmetricKey> {
        match &self.attestation {
            Attestation::SymmetricKey(key) => Some(key),
            Attestation::X509(_) => None,
        }
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
            Self::SymmetricKey(key) => json!({ "type": "symmetricKey", "symmetricKey": key.show() }),
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
        let symmetric_key = SymmetricKey::read(&mut fields)?;
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

impl CertificateBody {
    fn read(mut fields: Fields, now: OffsetDateTime) -> Result<Self, ApiError> {
        let certificate = read_certificate(&mut fields)?;
        check_key(&certificate, &fields)?;
        if let Err(error) = chain::check_authority(&certificate, now) {
            return Err(fields.refuse("certificate", error));
        }
        if read_thumbprint(&mut fields)?.is_some_and(|given| given != certificate.sha1_thumbprint()) {
            return Err(fields.refuse("info.sha1Thumbprint", "it is not that of the certificate"));
        }
        let verified = fields.boolean("verified")?.unwrap_or(false);
        let etag = fields.string("etag")?;
        fields.finish()?;
        Ok(Self { certificate, verified, etag })
    }
}
