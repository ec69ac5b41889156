//! The Device Provisioning Service, device side: a device proves who it is, and is told the hub that is for it.
//!
//! The calls are those of the [Runtime Registration](https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration)
//! REST API. They need no token of the application, and do not count to its rate.
//!
//! # Where the documentation is silent
//! - **Checks** come in this order: fault, route (404, 405), version (400), id scope, without regard to case (404),
//!   registration id (400), body (415, 413, 400), proof (401), existence (404).
//! - **Query parameters and members of bodies** that are not known are passed over, as devices in the field send more than is
//!   described: `forceRegistration`, for one. A `tpm` in a body is refused (400). The body of a look-up is not looked at.
//! - **The id in the body** is required, and is the path's without regard to case.
//! - **A device that registers again** while its registration goes on, with the same proof, is told the same operation: its
//!   first answer may have been lost. Otherwise a new operation takes the place of the old one.
//! - **An operation** is told to nobody who does not prove anew, with the same certificate or a key from the same place, that
//!   it is theirs (401). One of another device is unknown (404).
//! - **Polls** are counted; look-ups are not.
//! - **A device that is there already** keeps all that it has, and is provisioned from then on. One that is not is made with
//!   its id as name, enabled, and an IoT Edge device where its group is for these. The model id that it sends in its payload,
//!   `{"modelId": …}`, becomes the template of a device that has none.
//! - **A registration ends** when its device is deleted: it is unknown then (404).

use axum::{
    Router,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
    routing::{get as on_get, post as on_post, put as on_put},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    application::{Application, Shared},
    clock,
    devices::Device,
    error::ApiError,
    gate,
    id::Resource,
    json::{self, Fields, Json},
    random,
    registration_proof::{self, Claim, Proof},
    store::{Etag, State as Everything},
};

/// The versions of the API that devices in use send.
const VERSIONS: [&str; 3] = ["2019-03-31", "2021-06-01", "2021-10-01"];

/// The routes, below nothing.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/{idScope}/registrations/{id}", on_post(look_up))
        .route("/{idScope}/registrations/{id}/register", on_put(register))
        .route("/{idScope}/registrations/{id}/operations/{operationId}", on_get(poll))
}

/// What is known of a device that has registered.
pub(super) struct Registration {
    /// The id as the device wrote it last.
    id: String,
    operation_id: String,
    proof: Proof,
    progress: Progress,
    created: OffsetDateTime,
    updated: OffsetDateTime,
    etag: Etag,
}

enum Progress {
    Assigning {
        /// How many polls are still to be answered so.
        polls: u32,
        /// For the device, where it has none.
        template: Option<String>,
    },
    Assigned {
        device_id: String,
    },
}

// The calls

async fn register(
    State(application): State<Shared>,
    target: Target,
    claim: Claim,
    headers: HeaderMap,
    Json(fields): Json,
) -> Result<Response, ApiError> {
    let template = read_body(fields, &target.id)?;
    let operation_id = application.store.with(|state| {
        let proof = registration_proof::check(&application, state, &claim, &target.id)?;
        let former = target.find(state);
        if let Some(former) = former.as_ref()
            && matches!(former.progress, Progress::Assigning { .. })
            && former.proof.is_as(&proof)
        {
            return Ok(former.operation_id.clone());
        }
        let now = application.clock.now();
        let mut registration = Registration {
            id: target.id.clone(),
            operation_id: new_operation_id()?,
            proof,
            progress: Progress::Assigning { polls: application.assign_after, template },
            created: former.map_or(now, |former| former.created),
            updated: now,
            etag: Etag::new()?,
        };
        if application.assign_after == 0 {
            registration.assign(state, now)?;
        }
        let operation_id = registration.operation_id.clone();
        state.registrations.insert(target.key(), registration);
        Ok::<_, ApiError>(operation_id)
    })?;
    let mut response = assigning(&application, &operation_id);
    let location = format!(
        "{}/{}/registrations/{}/operations/{operation_id}?api-version={}",
        application.origin(&headers),
        application.id_scope,
        target.id,
        target.version
    );
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

async fn poll(State(application): State<Shared>, target: Target, claim: Claim) -> Result<Response, ApiError> {
    application.store.with(|state| {
        let proof = registration_proof::check(&application, state, &claim, &target.id)?;
        let operation = target.operation_id.as_deref();
        if target.find(state).is_none_or(|registration| Some(registration.operation_id.as_str()) != operation) {
            return Err(ApiError::provisioning(404_202, "Operation not found."));
        }
        // Taken out, since an assignment changes the devices as well.
        let Some(mut registration) = state.registrations.remove(&target.key()) else { return Err(target.not_found()) };
        let polled = registration.poll(&application, state, &proof);
        state.registrations.insert(target.key(), registration);
        polled
    })
}

async fn look_up(State(application): State<Shared>, target: Target, claim: Claim) -> Result<Response, ApiError> {
    let shown = application.store.with(|state| {
        registration_proof::check(&application, state, &claim, &target.id)?;
        target.find(state).map(|registration| registration.show(&application)).ok_or_else(|| target.not_found())
    })?;
    Ok(json::answer(StatusCode::OK, &shown))
}

/// Checks the body of a registration, and takes from it the model that the device says it is.
fn read_body(mut fields: Fields, id: &str) -> Result<Option<String>, ApiError> {
    let given = fields.required("registrationId", Fields::string)?;
    if !given.eq_ignore_ascii_case(id) {
        return Err(fields.refuse("registrationId", format_args!("found {given:?}, and the path says {id:?}")));
    }
    if fields.any("tpm").is_some_and(|tpm| !tpm.is_null()) {
        return Err(fields.refuse("tpm", "TPM attestation is not played here"));
    }
    let payload = fields.any("payload").unwrap_or_default();
    Ok(payload["modelId"].as_str().filter(|model| !model.is_empty()).map(str::to_owned))
}

// What the path names

/// What a request is about, its version checked, its id scope, and the form of its registration id.
struct Target {
    version: &'static str,
    id: String,
    operation_id: Option<String>,
}

impl FromRequestParts<Shared> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, application: &Shared) -> Result<Self, ApiError> {
        let version = read_version(parts.uri.query().unwrap_or_default())?;
        if !gate::path_parameter(parts, "idScope").await?.eq_ignore_ascii_case(&application.id_scope) {
            return Err(ApiError::provisioning(404_201, "Id scope not found."));
        }
        let id = gate::path_parameter(parts, "id").await?;
        if !Device::is_id(&id) {
            return Err(ApiError::bad_request(format!("{id:?} is no registration id: use {}", Device::ID_RULE)));
        }
        let operation_id = gate::path_parameter(parts, "operationId").await.ok();
        Ok(Self { version, id, operation_id })
    }
}

impl Target {
    /// By what the registration is kept: ids are compared without regard to case.
    fn key(&self) -> String {
        self.id.to_ascii_lowercase()
    }

    /// The registration, unless its device is gone.
    fn find<'a>(&self, state: &'a Everything) -> Option<&'a Registration> {
        let provisioned = |id: &str| state.devices.get(id).is_some_and(|device| device.properties.provisioned);
        state.registrations.get(&self.key()).filter(|registration| match &registration.progress {
            Progress::Assigning { .. } => true,
            Progress::Assigned { device_id } => provisioned(device_id),
        })
    }

    fn not_found(&self) -> ApiError {
        ApiError::provisioning(404_202, format!("Registration {:?} not found.", self.id))
    }
}

fn read_version(query: &str) -> Result<&'static str, ApiError> {
    let mut given: Vec<_> =
        form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == gate::API_VERSION).collect();
    given.dedup();
    let version = match given.as_slice() {
        [(_, version)] => VERSIONS.into_iter().find(|known| known == version),
        _ => None,
    };
    version.ok_or_else(|| {
        let message =
            format!("the query parameter {} must be there once, as one of {}", gate::API_VERSION, VERSIONS.join(", "));
        ApiError::bad_request(message)
    })
}

/// An id that nobody guesses, in the form of the service's.
fn new_operation_id() -> Result<String, ApiError> {
    Ok(format!("4.{}.{}", random::hexadecimal::<8>()?.to_ascii_lowercase(), random::uuid()?))
}

// The model

impl Registration {
    fn poll(&mut self, application: &Application, state: &mut Everything, proof: &Proof) -> Result<Response, ApiError> {
        if !self.proof.is_as(proof) {
            return Err(ApiError::provisioning(401_002, "Unauthorized"));
        }
        match &mut self.progress {
            Progress::Assigning { polls: 0, .. } => self.assign(state, application.clock.now())?,
            Progress::Assigning { polls, .. } => {
                *polls -= 1;
                return Ok(assigning(application, &self.operation_id));
            }
            Progress::Assigned { .. } => {}
        }
        let answer = json!({
            "operationId": self.operation_id, "status": "assigned", "registrationState": self.show(application)
        });
        Ok(json::answer(StatusCode::OK, &answer))
    }

    /// Lets the device into the application.
    fn assign(&mut self, state: &mut Everything, now: OffsetDateTime) -> Result<(), ApiError> {
        let Progress::Assigning { template, .. } = &self.progress else { return Ok(()) };
        let etag = Etag::new()?;
        let device_id = if let Some(device) = state.devices.get_mut(&self.id) {
            device.provision(template.clone())?;
            device.properties.id.clone()
        } else {
            state.devices.insert(Device::new_provisioned(&self.id, template.clone(), self.proof.is_for_iot_edge())?);
            self.id.clone()
        };
        (self.etag, self.updated) = (etag, now);
        self.progress = Progress::Assigned { device_id };
        Ok(())
    }

    /// The `registrationState`.
    fn show(&self, application: &Application) -> Value {
        let mut shown = json!({
            "registrationId": self.id,
            "createdDateTimeUtc": clock::timestamp(self.created),
            "status": "assigning",
            "lastUpdatedDateTimeUtc": clock::timestamp(self.updated),
            "etag": self.etag.as_str(),
        });
        if let Progress::Assigned { device_id } = &self.progress {
            shown["status"] = json!("assigned");
            shown["substatus"] = json!("initialAssignment");
            shown["assignedHub"] = json!(application.assigned_hub);
            shown["deviceId"] = json!(device_id);
        }
        let (name, section) = self.proof.show();
        shown[name] = section;
        shown
    }
}

fn assigning(application: &Application, operation_id: &str) -> Response {
    let answer = json!({ "operationId": operation_id, "status": "assigning" });
    let mut response = json::answer(StatusCode::ACCEPTED, &answer);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(application.registration_retry_after));
    response
}
