//! The device API over HTTP:
//! [Runtime Registration](https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration).
//!
//! Its calls need no token of the application and do not count toward its rate.
//!
//! # Where the documentation is silent
//! - **Checks** come in this order: fault, path (404, 405), version (400), ID scope, without regard to case (404),
//!   registration ID (400), body (415, 413, 400), credential (401), existence (404).
//! - **Query parameters** that are unknown are ignored. The body of a look-up may be absent or anything; only a `csr` in it
//!   is an error (400).

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
    routing::{get as on_get, post as on_post, put as on_put},
};

use super::{
    admission::Credential,
    device_version::DeviceVersion,
    error::DpsError,
    provisioning::{self, Identity, Outcome},
};
use crate::emulator::{
    api_error::{ApiError, ErrorCode},
    body::{Json, MAX_READ, OptionalJson, json_response},
    context::{Context, SharedContext},
    origin::Origin,
    path::{path_parameter, unknown_method},
    tls::PeerCertificates,
    version::API_VERSION,
};

/// Returns the routes of the device API.
pub(crate) fn routes() -> Router<SharedContext> {
    Router::new()
        .route("/{idScope}/registrations/{id}", on_post(look_up))
        .route("/{idScope}/registrations/{id}/register", on_put(register))
        .route("/{idScope}/registrations/{id}/operations/{operationId}", on_get(poll))
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_READ))
}

async fn register(
    State(context): State<SharedContext>,
    device: DeviceRequest,
    origin: Origin,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let outcome = provisioning::register(&context, &device.identity(&context)?, fields, device.version)?;
    let mut response = respond(&context, &outcome);
    if let Outcome::Assigning { operation_id } = &outcome {
        let location = format!(
            "{origin}/{}/registrations/{}/operations/{operation_id}?{API_VERSION}={}",
            device.id_scope,
            device.id,
            device.version.as_str()
        );
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

async fn poll(State(context): State<SharedContext>, device: DeviceRequest) -> Result<Response, ApiError> {
    let operation_id = device.operation_id.as_deref().unwrap_or_default();
    let outcome = provisioning::poll(&context, &device.identity(&context)?, operation_id)?;
    Ok(respond(&context, &outcome))
}

async fn look_up(
    State(context): State<SharedContext>,
    device: DeviceRequest,
    OptionalJson(body): OptionalJson,
) -> Result<Response, ApiError> {
    let state = provisioning::look_up(&context, &device.identity(&context)?, body.as_ref())?;
    Ok(json_response(StatusCode::OK, &state))
}

fn respond(context: &Context, outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Assigning { .. } => {
            let mut response = json_response(StatusCode::ACCEPTED, &outcome.body());
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(context.registration_retry_after));
            response
        }
        Outcome::Assigned { .. } => json_response(StatusCode::OK, &outcome.body()),
    }
}

/// The path, version and credential of a request.
struct DeviceRequest {
    version: DeviceVersion,
    id_scope: String,
    id: String,
    operation_id: Option<String>,
    certificates: PeerCertificates,
    /// The `Authorization` header. Empty if it is not text. Secret.
    token: Option<String>,
}

impl FromRequestParts<SharedContext> for DeviceRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &SharedContext) -> Result<Self, ApiError> {
        let token = parts.headers.get(header::AUTHORIZATION).map(|token| token.to_str().unwrap_or_default().to_owned());
        let request = Self {
            version: DeviceVersion::parse(parts.uri.query().unwrap_or_default())?,
            id_scope: path_parameter(parts, "idScope").await?,
            id: path_parameter(parts, "id").await?,
            operation_id: path_parameter(parts, "operationId").await.ok(),
            certificates: parts.extensions.get().cloned().unwrap_or_default(),
            token,
        };
        // Checked before the body is read.
        request.identity(context)?;
        Ok(request)
    }
}

impl DeviceRequest {
    fn identity(&self, context: &Context) -> Result<Identity<'_>, DpsError> {
        let credential = match &self.token {
            Some(token) => Credential::Token(token),
            None => Credential::Certificates(self.certificates.as_slice()),
        };
        Identity::new(context, &self.id_scope, &self.id, credential)
    }
}

impl From<DpsError> for ApiError {
    fn from(error: DpsError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, error.message).code(ErrorCode::Number(error.code))
    }
}

impl From<&ApiError> for DpsError {
    fn from(error: &ApiError) -> Self {
        match error.code {
            Some(ErrorCode::Number(code)) => Self::new(code, &error.message),
            _ => Self::from_status(error.status.as_u16(), &error.message),
        }
    }
}
