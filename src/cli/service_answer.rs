//! The service's answer behind an error, for programs that read the error as JSON.

use std::error::Error as StdError;

use serde::Serialize;

use super::registration::RegistrationFailure;
use crate::{
    arm::FindError,
    central::Error,
    dps::device::RegistrationErrorKind,
    workflow::{ProvisionError, RolloverError},
};

/// An answer with an error status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceAnswer {
    /// The HTTP status.
    status: u16,
    /// The service's error code, such as `NotFound` or `401002`.
    code: Option<String>,
    /// The service's ID of the request, which its support asks for.
    request_id: Option<String>,
}

impl ServiceAnswer {
    /// Returns the answer behind an error, if a service gave one.
    pub(super) fn of(error: &anyhow::Error) -> Option<Self> {
        error.chain().find_map(|cause| match cause.downcast_ref::<RegistrationFailure>() {
            Some(failure) => Self::of_registration(failure),
            None => Self::of_client(client_error(cause)?),
        })
    }

    fn of_client(error: &Error) -> Option<Self> {
        Some(Self {
            status: error.status()?,
            code: error.code().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
        })
    }

    fn of_registration(failure: &RegistrationFailure) -> Option<Self> {
        let error = &failure.unregistered.error;
        let request_id = match &error.kind {
            RegistrationErrorKind::Refused(refusal) => refusal.tracking_id.clone(),
            _ => None,
        };
        Some(Self { status: error.status()?, code: error.error_code().map(|code| code.to_string()), request_id })
    }
}

/// Returns the error of a service's client that this error is, or is transparent for. The chain of causes does not show
/// the error inside a transparent one.
pub(super) fn client_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let provision = match error.downcast_ref::<RolloverError>() {
        Some(RolloverError::Service(error)) => return Some(error),
        Some(RolloverError::Provision(error)) => Some(error),
        _ => error.downcast_ref::<ProvisionError>(),
    };
    match (provision, error.downcast_ref::<FindError>()) {
        (Some(ProvisionError::Service(error)), _) | (_, Some(FindError::Call(error))) => Some(error),
        (_, Some(FindError::NotVisible { error, .. })) => Some(error),
        _ => error.downcast_ref::<Error>(),
    }
}
