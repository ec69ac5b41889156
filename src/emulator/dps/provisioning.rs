//! The operations of the device API: register, poll, look up. They do not depend on the protocol that the device uses.
//!
//! # Where the documentation is silent
//! - **Members of bodies** that are unknown are ignored, since devices in the field send more than is documented, such
//!   as `forceRegistration`. A `tpm` in a body is an error (400).
//! - **The ID in the body** is required and must be that of the request, without regard to case.
//! - **A device that registers again** during its registration, with the same credential, gets the same operation: the
//!   first response may have been lost. Otherwise a new operation replaces the previous one.
//! - **An operation** is shown only to a device that proves its identity with the same certificate, or with a key of
//!   the same group (401). The operation of another device is unknown (404).
//! - **Polls** are counted, look-ups are not.
//! - **An existing device** keeps its properties and becomes provisioned. An unknown device is created with its ID as
//!   display name, enabled, and as an IoT Edge device if its group is for those. The model ID in its payload,
//!   `{"modelId": …}`, becomes the template of a device that has none.
//! - **A registration ends** when its device is deleted; it is unknown then (404).

use serde_json::{Value, json};

use super::{
    admission::{Credential, admit},
    error::{DpsError, ID_SCOPE_NOT_FOUND, INVALID_ARGUMENT, REGISTRATION_NOT_FOUND, UNAUTHORIZED},
    registration::{Admission, Progress, Registration},
};
use crate::{
    certificate::Timestamp,
    emulator::{
        central::model::{Device, Resource, id_key},
        context::Context,
        etag::Etag,
        fields::Fields,
        random::{self, RandomError},
        state::State,
    },
};

/// The result of an operation.
pub(crate) enum Outcome {
    /// The device has to poll the operation.
    Assigning { operation_id: String },
    /// The `registrationState` of an assigned device.
    Assigned { operation_id: String, state: Value },
}

impl Outcome {
    /// Returns the JSON of the response.
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Assigning { operation_id } => json!({ "operationId": operation_id, "status": "assigning" }),
            Self::Assigned { operation_id, state } => {
                json!({ "operationId": operation_id, "status": "assigned", "registrationState": state })
            }
        }
    }
}

/// A device as it identifies itself: a valid registration ID and a credential.
pub(crate) struct Identity<'a> {
    id: &'a str,
    credential: Credential<'a>,
}

impl<'a> Identity<'a> {
    /// Checks the ID scope, without regard to case, and the form of the registration ID.
    pub(crate) fn new(
        context: &Context,
        id_scope: &str,
        id: &'a str,
        credential: Credential<'a>,
    ) -> Result<Self, DpsError> {
        if !id_scope.eq_ignore_ascii_case(&context.id_scope) {
            return Err(DpsError::new(ID_SCOPE_NOT_FOUND, "Id scope not found."));
        }
        if !Device::is_id(id) {
            let message = format!("{id:?} is not a valid registration ID: use {}", Device::ID_RULE);
            return Err(DpsError::new(INVALID_ARGUMENT, message));
        }
        Ok(Self { id, credential })
    }

    fn admit(&self, context: &Context, state: &State) -> Result<Admission, DpsError> {
        admit(context, state, self.credential, self.id)
    }

    /// Finds the registration, unless its device has been deleted.
    fn find<'s>(&self, state: &'s State) -> Option<&'s Registration> {
        let is_provisioned = |id: &str| state.devices.get(id).is_some_and(|device| device.properties.provisioned);
        state.registrations.get(&id_key(self.id)).filter(|registration| match &registration.progress {
            Progress::Assigning { .. } => true,
            Progress::Assigned { device_id } => is_provisioned(device_id),
        })
    }

    fn not_found(&self) -> DpsError {
        DpsError::new(REGISTRATION_NOT_FOUND, format!("Registration {:?} not found.", self.id))
    }
}

/// Starts the registration of a device. The body is that of the request.
pub(crate) fn register(context: &Context, device: &Identity<'_>, body: Fields) -> Result<Outcome, DpsError> {
    let template = read_template(body, device.id)?;
    context.store.with(|state| {
        let admission = device.admit(context, state)?;
        let previous = device.find(state);
        if let Some(previous) = previous
            && matches!(previous.progress, Progress::Assigning { .. })
            && previous.admission.has_same_credential(&admission)
        {
            return Ok(Outcome::Assigning { operation_id: previous.operation_id.clone() });
        }
        let now = context.clock.timestamp();
        let mut registration = Registration {
            id: device.id.to_owned(),
            operation_id: new_operation_id()?,
            admission,
            progress: Progress::Assigning { polls: context.assign_after, template },
            created: previous.map_or(now, |previous| previous.created),
            updated: now,
            etag: Etag::new()?,
        };
        if context.assign_after == 0 {
            assign(&mut registration, state, now)?;
        }
        let operation_id = registration.operation_id.clone();
        state.registrations.insert(id_key(device.id), registration);
        Ok(Outcome::Assigning { operation_id })
    })
}

/// Returns the progress of an operation.
pub(crate) fn poll(context: &Context, device: &Identity<'_>, operation_id: &str) -> Result<Outcome, DpsError> {
    context.store.with(|state| {
        let admission = device.admit(context, state)?;
        if device.find(state).is_none_or(|registration| registration.operation_id != operation_id) {
            return Err(DpsError::new(REGISTRATION_NOT_FOUND, "Operation not found."));
        }
        // Removed for the time being, since an assignment also changes the devices.
        let Some(mut registration) = state.registrations.remove(&id_key(device.id)) else {
            return Err(device.not_found());
        };
        let outcome = advance(&mut registration, context, state, &admission);
        state.registrations.insert(id_key(device.id), registration);
        outcome
    })
}

/// Returns the `registrationState` of a device.
pub(crate) fn look_up(context: &Context, device: &Identity<'_>) -> Result<Value, DpsError> {
    context.store.with(|state| {
        device.admit(context, state)?;
        let registration = device.find(state).ok_or_else(|| device.not_found())?;
        Ok(registration.show(&context.assigned_hub))
    })
}

/// Checks the body of a registration and returns the model ID in it.
fn read_template(mut fields: Fields, id: &str) -> Result<Option<String>, DpsError> {
    let given = fields.required("registrationId", Fields::string)?;
    if !given.eq_ignore_ascii_case(id) {
        let problem = format_args!("found {given:?}, but the request is for {id:?}");
        return Err(fields.invalid("registrationId", problem).into());
    }
    if fields.any("tpm").is_some_and(|tpm| !tpm.is_null()) {
        return Err(fields.invalid("tpm", "TPM attestation is not emulated").into());
    }
    let payload = fields.any("payload").unwrap_or_default();
    Ok(payload["modelId"].as_str().filter(|model| !model.is_empty()).map(str::to_owned))
}

/// Creates an operation ID that cannot be guessed, in the form of the service's.
fn new_operation_id() -> Result<String, RandomError> {
    Ok(format!("4.{}.{}", random::hexadecimal::<8>()?.to_ascii_lowercase(), random::uuid()?))
}

/// Counts a poll, and assigns the device with the last one.
fn advance(
    registration: &mut Registration,
    context: &Context,
    state: &mut State,
    admission: &Admission,
) -> Result<Outcome, DpsError> {
    if !registration.admission.has_same_credential(admission) {
        return Err(DpsError::new(UNAUTHORIZED, "Unauthorized"));
    }
    let operation_id = registration.operation_id.clone();
    match &mut registration.progress {
        Progress::Assigning { polls: 0, .. } => assign(registration, state, context.clock.timestamp())?,
        Progress::Assigning { polls, .. } => {
            *polls -= 1;
            return Ok(Outcome::Assigning { operation_id });
        }
        Progress::Assigned { .. } => {}
    }
    Ok(Outcome::Assigned { operation_id, state: registration.show(&context.assigned_hub) })
}

/// Creates or updates the device in the application and completes the registration.
fn assign(registration: &mut Registration, state: &mut State, now: Timestamp) -> Result<(), RandomError> {
    let Progress::Assigning { template, .. } = &registration.progress else { return Ok(()) };
    let device_id = if let Some(device) = state.devices.get_mut(&registration.id) {
        device.provision(template.clone())?;
        device.properties.id.clone()
    } else {
        let is_for_iot_edge = registration.admission.is_for_iot_edge();
        state.devices.insert(Device::new_provisioned(&registration.id, template.clone(), is_for_iot_edge)?);
        registration.id.clone()
    };
    registration.complete(device_id, now)
}
