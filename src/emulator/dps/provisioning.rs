//! The operations of the device API: register, poll, look up. They do not depend on the protocol that the device uses.
//!
//! # Where the documentation is silent
//! - **Members of bodies** that are unknown are ignored, since devices in the field send more than is documented, such
//!   as `forceRegistration`. A `tpm` in a body is an error (400).
//! - **The ID in the body** is required and must be that of the request, without regard to case.
//! - **A device that registers again** during its registration, with the same credential and for the same key if it requests
//!   a certificate, gets the same operation: the first response may have been lost. Otherwise a new operation replaces the
//!   previous one.
//! - **An operation** is shown only to a device that proves its identity with the same certificate, or with a key of
//!   the same group (401). The operation of another device is unknown (404).
//! - **Polls** are counted, look-ups are not.
//! - **An issued certificate** is in the first answer `assigned` of its operation, and in no other: the emulator does not
//!   keep it.
//! - **An existing device** keeps its properties and becomes provisioned. An unknown device is created with its ID as
//!   display name, enabled, and as an IoT Edge device if its group is for those. The model ID in its payload,
//!   `{"modelId": …}`, becomes the template of a device that has none.
//! - **A registration ends** when its device is deleted in the application; it is unknown then (404). At the instance it
//!   ends when its record or its enrollment is deleted.
//! - **The hub** at the instance is the first one of the enrollment, or the linked one. A device that registers again
//!   moves to another hub by its reprovision policy.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    admission::{Credential, admit},
    device_version::DeviceVersion,
    error::{DpsError, ID_SCOPE_NOT_FOUND, INVALID_ARGUMENT, REGISTRATION_NOT_FOUND, UNAUTHORIZED},
    model::{ENROLLMENT_ID_RULE, Instance, Kind, ReprovisionPolicy, is_enrollment_id},
    operational::{RequestedKey, read_request, refuse_request},
    registration::{Admission, Assignment, OperationId, Progress, Registration},
    rules::Scope,
};
use crate::emulator::{
    central::model::{Device, Resource, id_key},
    context::Context,
    etag::Etag,
    fields::Fields,
    random::RandomError,
    state::State,
};

/// The substatus of a device that was not moved from another hub.
const INITIAL_ASSIGNMENT: &str = "initialAssignment";

/// The result of an operation.
pub(crate) enum Outcome {
    /// The device has to poll the operation.
    Assigning { operation_id: OperationId },
    /// The `registrationState` of an assigned device.
    Assigned { operation_id: OperationId, state: Value },
}

impl Outcome {
    /// Returns the JSON of the response.
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Assigning { operation_id } => {
                json!({ "operationId": operation_id.to_string(), "status": "assigning" })
            }
            Self::Assigned { operation_id, state } => {
                json!({ "operationId": operation_id.to_string(), "status": "assigned", "registrationState": state })
            }
        }
    }

    /// Issues the requested certificate of an assigned device, and adds its chain.
    fn with_certificate(mut self, context: &Context, id: &str, key: &[u8]) -> Result<Self, DpsError> {
        if let Self::Assigned { state, .. } = &mut self {
            let chain = context.operational_ca.issue(id, key, context.clock.timestamp());
            state["issuedCertificateChain"] =
                json!(chain.map_err(|error| DpsError::from_status(500, error.to_string()))?);
        }
        Ok(self)
    }
}

/// A device as it identifies itself: a valid registration ID and a credential.
pub(crate) struct Identity<'a> {
    scope: Scope,
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
        let Some(scope) = Scope::find(context, id_scope) else {
            return Err(DpsError::new(ID_SCOPE_NOT_FOUND, "Id scope not found."));
        };
        let (is_id, rule) = match scope {
            Scope::Application => (Device::is_id(id), Device::ID_RULE),
            Scope::Instance => (is_enrollment_id(id), ENROLLMENT_ID_RULE),
        };
        if !is_id {
            let message = format!("{id:?} is not a valid registration ID: use {rule}");
            return Err(DpsError::new(INVALID_ARGUMENT, message));
        }
        Ok(Self { scope, id, credential })
    }

    fn admit(&self, context: &Context, state: &State) -> Result<Admission, DpsError> {
        admit(context, state, self.scope, self.credential, self.id)
    }

    /// Finds the registration, unless its device has been deleted.
    fn find<'s>(&self, state: &'s State) -> Option<&'s Registration> {
        let is_provisioned = |id: &str| state.devices.get(id).is_some_and(|device| device.properties.provisioned);
        registrations(state, self.scope).get(&id_key(self.id)).map(Box::as_ref).filter(|registration| {
            match &registration.progress {
                Progress::Assigned(assignment) if self.scope == Scope::Application => {
                    is_provisioned(&assignment.device_id)
                }
                _ => true,
            }
        })
    }

    fn not_found(&self) -> DpsError {
        DpsError::new(REGISTRATION_NOT_FOUND, format!("Registration {:?} not found.", self.id))
    }
}

/// Returns the registrations of an ID scope.
fn registrations(state: &State, scope: Scope) -> &BTreeMap<String, Box<Registration>> {
    match scope {
        Scope::Application => &state.registrations,
        Scope::Instance => &state.instance.registrations,
    }
}

fn registrations_mut(state: &mut State, scope: Scope) -> &mut BTreeMap<String, Box<Registration>> {
    match scope {
        Scope::Application => &mut state.registrations,
        Scope::Instance => &mut state.instance.registrations,
    }
}

/// Starts the registration of a device. The body is that of the request.
pub(crate) fn register(
    context: &Context,
    device: &Identity<'_>,
    body: Fields,
    version: DeviceVersion,
) -> Result<Outcome, DpsError> {
    let RegistrationBody { template, requested_key } = RegistrationBody::read(body, device.id, version)?;
    context.store.with(|state| {
        let admission = device.admit(context, state)?;
        let requested_key = requested_key.filter(|_| device.scope == Scope::Instance);
        let previous = device.find(state);
        if let Some(previous) = previous
            && matches!(previous.progress, Progress::Assigning { .. })
            && previous.admission.has_same_credential(&admission)
            && previous.requested_key == requested_key
        {
            return Ok(Outcome::Assigning { operation_id: previous.operation_id });
        }
        let now = context.clock.timestamp();
        let mut registration = Registration {
            id: device.id.into(),
            operation_id: OperationId::new()?,
            admission,
            progress: Progress::Assigning {
                polls: context.assign_after,
                template,
                previous_hub: previous.and_then(Registration::hub).cloned(),
            },
            requested_key,
            created: previous.map_or(now, |previous| previous.created),
            updated: now,
            etag: Etag::new()?,
        };
        if context.assign_after == 0 {
            assign(&mut registration, device.scope, context, state)?;
        }
        let operation_id = registration.operation_id;
        registrations_mut(state, device.scope).insert(id_key(device.id), Box::new(registration));
        Ok(Outcome::Assigning { operation_id })
    })
}

/// Returns the progress of an operation.
pub(crate) fn poll(context: &Context, device: &Identity<'_>, operation_id: &str) -> Result<Outcome, DpsError> {
    let (outcome, requested_key) = context.store.with(|state| {
        let admission = device.admit(context, state)?;
        if device.find(state).is_none_or(|registration| registration.operation_id.to_string() != operation_id) {
            return Err(DpsError::new(REGISTRATION_NOT_FOUND, "Operation not found."));
        }
        // Removed for the time being, since an assignment also changes the devices.
        let Some(mut registration) = registrations_mut(state, device.scope).remove(&id_key(device.id)) else {
            return Err(device.not_found());
        };
        let outcome = advance(&mut registration, device.scope, context, state, &admission);
        let requested_key = match &outcome {
            Ok(Outcome::Assigned { .. }) => registration.requested_key.take(),
            _ => None,
        };
        registrations_mut(state, device.scope).insert(id_key(device.id), registration);
        outcome.map(|outcome| (outcome, requested_key))
    })?;
    // Not under the lock, since signing takes time.
    match requested_key {
        Some(key) => outcome.with_certificate(context, device.id, &key),
        None => Ok(outcome),
    }
}

/// Returns the `registrationState` of a device. The body is that of the request, if it has one.
pub(crate) fn look_up(context: &Context, device: &Identity<'_>, body: Option<&Fields>) -> Result<Value, DpsError> {
    body.map_or(Ok(()), refuse_request)?;
    context.store.with(|state| {
        device.admit(context, state)?;
        let registration = device.find(state).ok_or_else(|| device.not_found())?;
        Ok(registration.show_to_device())
    })
}

/// What the body of a registration asks for.
struct RegistrationBody {
    /// The model ID in the payload.
    template: Option<String>,
    requested_key: Option<RequestedKey>,
}

impl RegistrationBody {
    fn read(mut fields: Fields, id: &str, version: DeviceVersion) -> Result<Self, DpsError> {
        let given = fields.required("registrationId", Fields::string)?;
        if !given.eq_ignore_ascii_case(id) {
            let problem = format_args!("found {given:?}, but the request is for {id:?}");
            return Err(fields.invalid("registrationId", problem).into());
        }
        if fields.any("tpm").is_some_and(|tpm| !tpm.is_null()) {
            return Err(fields.invalid("tpm", "TPM attestation is not emulated").into());
        }
        let requested_key = read_request(&mut fields, id, version)?;
        let payload = fields.any("payload").unwrap_or_default();
        let template = payload["modelId"].as_str().filter(|model| !model.is_empty()).map(str::to_owned);
        Ok(Self { template, requested_key })
    }
}

/// Counts a poll, and assigns the device with the last one.
fn advance(
    registration: &mut Registration,
    scope: Scope,
    context: &Context,
    state: &mut State,
    admission: &Admission,
) -> Result<Outcome, DpsError> {
    if !registration.admission.has_same_credential(admission) {
        return Err(DpsError::new(UNAUTHORIZED, "Unauthorized"));
    }
    let operation_id = registration.operation_id;
    match &mut registration.progress {
        Progress::Assigning { polls: 0, .. } => assign(registration, scope, context, state)?,
        Progress::Assigning { polls, .. } => {
            *polls -= 1;
            return Ok(Outcome::Assigning { operation_id });
        }
        Progress::Assigned(_) => {}
    }
    Ok(Outcome::Assigned { operation_id, state: registration.show_to_device() })
}

/// Assigns the device and completes the registration.
fn assign(
    registration: &mut Registration,
    scope: Scope,
    context: &Context,
    state: &mut State,
) -> Result<(), RandomError> {
    let assignment = match scope {
        Scope::Application => assign_to_application(registration, context, state)?,
        Scope::Instance => assign_to_instance(registration, context, &state.instance),
    };
    registration.complete(assignment, context.clock.timestamp())
}

/// Creates or updates the device in the application.
fn assign_to_application(
    registration: &Registration,
    context: &Context,
    state: &mut State,
) -> Result<Assignment, RandomError> {
    let template = match &registration.progress {
        Progress::Assigning { template, .. } => template.clone(),
        Progress::Assigned(_) => None,
    };
    let device_id = if let Some(device) = state.devices.get_mut(&registration.id) {
        device.provision(template)?;
        device.properties.id.as_str().into()
    } else {
        let is_for_iot_edge = registration.admission.is_for_iot_edge();
        state.devices.insert(Device::new_provisioned(&registration.id, template, is_for_iot_edge)?);
        registration.id.clone()
    };
    Ok(Assignment { hub: Arc::clone(&context.assigned_hub), device_id, substatus: INITIAL_ASSIGNMENT.into() })
}

/// Chooses the hub and the device ID by the enrollment, and by the hub of the previous registration.
fn assign_to_instance(registration: &Registration, context: &Context, instance: &Instance) -> Assignment {
    let enrollment = match registration.group_id() {
        Some(group) => instance.find(Kind::Group, group),
        None => instance.find(Kind::Individual, &registration.id),
    };
    let settings = enrollment.map(|enrollment| &enrollment.settings);
    let hub = settings.and_then(|settings| settings.hub.as_ref()).unwrap_or(&context.instance.hub);
    let (hub, substatus) = match (registration.hub(), settings) {
        (Some(previous), Some(settings)) if previous != hub => match settings.reprovision_policy {
            ReprovisionPolicy { updates_hub: false, .. } => (previous, INITIAL_ASSIGNMENT),
            ReprovisionPolicy { migrates_data: true, .. } => (hub, "deviceDataMigrated"),
            ReprovisionPolicy { .. } => (hub, "deviceDataReset"),
        },
        _ => (hub, INITIAL_ASSIGNMENT),
    };
    let device_id = settings.and_then(|settings| settings.device_id.as_deref()).unwrap_or(&registration.id);
    Assignment { hub: Arc::clone(hub), device_id: device_id.into(), substatus: substatus.into() }
}
