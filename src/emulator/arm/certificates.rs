//! The certificates of the instance.
//!
//! # Where the documentation is silent
//! - **PUT without `If-Match`** on a certificate that exists is 412. `If-Match` on one that does not exist is ignored.
//! - **DELETE, `generateVerificationCode` and `verify` without `If-Match`** are 400. DELETE of a certificate that does
//!   not exist is 204.
//! - **Deleting a certificate** to which an enrollment group refers is 409.
//! - **Names** are compared without regard to case. A certificate keeps the spelling that it was created with.
//! - **The body of `verify`** is flat in all versions.
//! - **Unknown members** of bodies are 400. Members that only the service sets are ignored.

use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::Response,
    routing::{get as on_get, post as on_post},
};
use serde_json::{Value, json};

use super::{
    instance::{INSTANCE, InstancePath, instance_id},
    version::ArmVersion,
};
use crate::certificate::Timestamp;
use crate::emulator::{
    api_error::{ApiError, ErrorCode, http_date},
    body::{Json, json_response},
    context::{Context, SharedContext},
    credential::{parse_authority, parse_certificate},
    dps::model::{CaCertificate, Instance, MAX_CERTIFICATES},
    fields::Fields,
    path::path_parameter,
    precondition::IfMatch,
    state,
};

/// The error code of a proof of possession that fails.
const PROOF_FAILED: u32 = 400_053;

/// Returns the routes of certificates.
pub(crate) fn routes() -> Router<SharedContext> {
    let certificates = format!("{INSTANCE}/certificates");
    Router::new()
        .route(&certificates, on_get(list))
        .route(&format!("{certificates}/{{name}}"), on_get(get).put(put).delete(delete))
        .route(&format!("{certificates}/{{name}}/generateVerificationCode"), on_post(generate_code))
        .route(&format!("{certificates}/{{name}}/verify"), on_post(verify))
}

/// A valid name in the path.
struct CertificateName(String);

impl<S: Sync> FromRequestParts<S> for CertificateName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::new(path_parameter(parts, "name").await?)
    }
}

impl CertificateName {
    fn new(name: String) -> Result<Self, ApiError> {
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name {
            return Ok(Self(name));
        }
        let message = format!("{name:?} is not a valid certificate name: use 1 to 64 letters, digits and - . _");
        Err(invalid(message))
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::bad_request(message).code(ErrorCode::Number(400_000))
}

fn find<'a>(instance: &'a mut Instance, name: &str) -> Result<&'a mut CaCertificate, ApiError> {
    instance.certificates.get_mut(&name.to_ascii_lowercase()).ok_or_else(|| {
        ApiError::not_found(format!("there is no certificate {name:?}")).code(ErrorCode::Number(404_000))
    })
}

/// Checks the etag of a certificate.
fn check(if_match: &IfMatch, certificate: &CaCertificate) -> Result<(), ApiError> {
    if_match.check_row_version(certificate.etag).map_err(|error| error.code(ErrorCode::Number(412_000)))
}

/// Checks the etag of a certificate in an operation that requires it.
fn check_required(if_match: &IfMatch, certificate: &CaCertificate) -> Result<(), ApiError> {
    if !if_match.is_given() {
        return Err(invalid("the header If-Match is missing; send the etag of the certificate in it"));
    }
    check(if_match, certificate)
}

async fn list(State(context): State<SharedContext>, _: InstancePath) -> Response {
    let shown = context.store.with(|state| {
        let certificates = state.instance.certificates.values();
        json!({ "value": certificates.map(|certificate| show(&context, certificate)).collect::<Vec<_>>() })
    });
    json_response(StatusCode::OK, &shown)
}

async fn get(
    State(context): State<SharedContext>,
    _: InstancePath,
    CertificateName(name): CertificateName,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let certificate = find(&mut state.instance, &name)?;
        check(&if_match, certificate)?;
        Ok::<_, ApiError>(show(&context, certificate))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn put(
    State(context): State<SharedContext>,
    Extension(version): Extension<ArmVersion>,
    _: InstancePath,
    CertificateName(name): CertificateName,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let now = context.clock.timestamp();
    let body = CertificateBody::read(fields, version).map_err(|error| error.code(ErrorCode::Number(400_000)))?;
    let certificate = parse_authority(&body.certificate, now)
        .map_err(|error| invalid(format!("TPM or X509 attestation is required: certificate: {error}")))?;
    let shown = context.store.with(|state| {
        let certificates = &mut state.instance.certificates;
        let key = name.to_ascii_lowercase();
        let current = certificates.get(&key);
        match current {
            Some(current) if if_match.is_given() => check(&if_match, current)?,
            Some(_) => {
                let message = format!("the certificate {name:?} exists; send its etag in If-Match to replace it");
                return Err(ApiError::precondition_failed(message).code(ErrorCode::Number(412_000)));
            }
            None => check_limit(certificates.len())?,
        }
        let created = CaCertificate::new(&name, body.certificate, body.is_verified, certificate, current, now)?;
        let shown = show(&context, &created);
        certificates.insert(key, created);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

fn check_limit(count: usize) -> Result<(), ApiError> {
    if count < MAX_CERTIFICATES {
        return Ok(());
    }
    Err(invalid(format!("the instance has {MAX_CERTIFICATES} certificates, its limit")))
}

/// Creates the certificate of a seed, unless there is one with its name. It has the members `name`, `certificate` and
/// `isVerified`.
pub(crate) fn seed(state: &mut state::State, mut fields: Fields, now: Timestamp) -> Result<(), ApiError> {
    let CertificateName(name) = CertificateName::new(fields.required("name", Fields::string)?)?;
    let text = fields.required("certificate", Fields::string)?;
    let certificate = parse_authority(&text, now).map_err(|error| fields.invalid("certificate", error))?;
    let is_verified = fields.boolean("isVerified")?.unwrap_or(false);
    fields.finish()?;
    let certificates = &mut state.instance.certificates;
    let key = name.to_ascii_lowercase();
    if !certificates.contains_key(&key) {
        check_limit(certificates.len())?;
        certificates.insert(key, CaCertificate::new(&name, text, is_verified, certificate, None, now)?);
    }
    Ok(())
}

async fn delete(
    State(context): State<SharedContext>,
    _: InstancePath,
    CertificateName(name): CertificateName,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    context.store.with(|state| {
        let key = name.to_ascii_lowercase();
        let Some(certificate) = state.instance.certificates.get(&key) else { return Ok(StatusCode::NO_CONTENT) };
        check_required(&if_match, certificate)?;
        if let Some(group) = state.instance.group_that_refers_to(&name) {
            let message = format!("the enrollment group {group:?} refers to the certificate {name:?}; change it first");
            return Err(ApiError::conflict(message).code(ErrorCode::Number(409_000)));
        }
        state.instance.certificates.remove(&key);
        Ok(StatusCode::OK)
    })
}

async fn generate_code(
    State(context): State<SharedContext>,
    _: InstancePath,
    CertificateName(name): CertificateName,
    if_match: IfMatch,
) -> Result<Response, ApiError> {
    let shown = context.store.with(|state| {
        let certificate = find(&mut state.instance, &name)?;
        check_required(&if_match, certificate)?;
        certificate.generate_code(context.clock.timestamp())?;
        let mut shown = show(&context, certificate);
        shown["properties"]["verificationCode"] = json!(certificate.code);
        Ok::<_, ApiError>(shown)
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

async fn verify(
    State(context): State<SharedContext>,
    _: InstancePath,
    CertificateName(name): CertificateName,
    if_match: IfMatch,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let now = context.clock.timestamp();
    let proof = read_proof(fields).map_err(|error| error.code(ErrorCode::Number(400_000)))?;
    let proof = parse_certificate(&proof).map_err(|error| invalid(format!("certificate: {error}")))?;
    let shown = context.store.with(|state| {
        let certificate = find(&mut state.instance, &name)?;
        check_required(&if_match, certificate)?;
        certificate.check_proof(&proof, now).map_err(|error| {
            let message = format!("Proof-Of-Possession failed for the certificate {name:?}: {error}");
            ApiError::bad_request(message).code(ErrorCode::Number(PROOF_FAILED))
        })?;
        certificate.set_verified(now)?;
        Ok::<_, ApiError>(show(&context, certificate))
    })?;
    Ok(json_response(StatusCode::OK, &shown))
}

/// The body of a PUT.
struct CertificateBody {
    certificate: String,
    is_verified: bool,
}

impl CertificateBody {
    fn read(fields: Fields, version: ArmVersion) -> Result<Self, ApiError> {
        let mut fields = fields.without_nulls();
        if version.wraps_certificates() {
            let properties = fields.required("properties", Fields::object)?.without_nulls();
            for set_by_service in ["id", "name", "type", "etag", "systemData"] {
                fields.any(set_by_service);
            }
            fields.finish()?;
            fields = properties;
        }
        for set_by_service in ["subject", "expiry", "thumbprint", "created", "updated"] {
            fields.any(set_by_service);
        }
        let certificate = fields.required("certificate", Fields::string)?;
        let is_verified = fields.boolean("isVerified")?.unwrap_or(false);
        fields.finish()?;
        Ok(Self { certificate, is_verified })
    }
}

fn read_proof(mut fields: Fields) -> Result<String, ApiError> {
    let certificate = fields.required("certificate", Fields::string)?;
    fields.finish()?;
    Ok(certificate)
}

/// Returns the JSON of a certificate.
fn show(context: &Context, found: &CaCertificate) -> Value {
    let certificate = &found.certificate;
    json!({
        "id": format!("{}/certificates/{}", instance_id(context), found.name),
        "name": found.name,
        "type": "Microsoft.Devices/ProvisioningServices/Certificates",
        "etag": found.etag.row_version(),
        "properties": {
            "subject": certificate.subject().to_string(),
            "expiry": http_date(certificate.not_after()),
            "thumbprint": certificate.sha1_thumbprint().to_string(),
            "isVerified": found.is_verified,
            "certificate": found.text,
            "created": http_date(found.created),
            "updated": http_date(found.updated),
        },
    })
}
