//! What a service answered to a command that failed, for programs that read the error.

use super::device_register::Failed;
use crate::{
    central::Error,
    dps::device::RegistrationErrorKind,
    workflow::{ProvisionError, RolloverError},
};

/// A refusal by a service.
pub(super) struct ServiceAnswer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The service's code for the failure, such as `NotFound` or `401002`.
    pub(super) code: Option<String>,
    /// The service's ID for the request, by which its operators find it.
    pub(super) request_id: Option<String>,
}

/// The answer behind an error, if a service gave one.
pub(super) fn service_answer(error: &anyhow::Error) -> Option<ServiceAnswer> {
    error.chain().find_map(|cause| {
        if let Some(failed) = cause.downcast_ref::<Failed>() {
            return of_registration(failed);
        }
        let error = cause.downcast_ref::<Error>().or_else(|| central_error(cause))?;
        Some(ServiceAnswer {
            status: error.status()?,
            code: error.code().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
        })
    })
}

/// The error of the IoT Central client that a workflow ended with. These errors are transparent: the chain of causes does
/// not show them.
fn central_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let provision = match cause.downcast_ref::<RolloverError>() {
        Some(RolloverError::Central(error)) => return Some(error),
        Some(RolloverError::Provision(error)) => Some(error),
        _ => cause.downcast_ref::<ProvisionError>(),
    };
    match provision {
        Some(ProvisionError::Central(error)) => Some(error),
        _ => None,
    }
}

fn of_registration(failed: &Failed) -> Option<ServiceAnswer> {
    let error = &failed.unregistered.error;
    let request_id = match &error.kind {
        RegistrationErrorKind::Refused(refusal) => refusal.tracking_id.clone(),
        _ => None,
    };
    Some(ServiceAnswer { status: error.status()?, code: error.error_code().map(|code| code.to_string()), request_id })
}
