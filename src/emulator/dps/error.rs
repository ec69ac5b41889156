//! The errors of the Device Provisioning Service, for every protocol: `{"errorCode", "trackingId", "message",
//! "timestampUtc"}`.
//!
//! # Where the documentation is silent
//! Error codes are those of IoT Hub: three digits of the status and three more. Documented or observed are 400004
//! (invalid argument), 401000 and 401002 (unauthorized), 404201 and 404202 (not found) and 429001 (throttled). Other
//! statuses have the generic code that ends in 000. Invalid content of a body is 400 here and not 422 as at IoT
//! Central.

use serde_json::{Value, json};

use super::timestamp::timestamp;
use crate::{
    certificate::Timestamp,
    emulator::{fields::FieldError, random::RandomError},
};

/// The error code of an invalid argument.
pub(crate) const INVALID_ARGUMENT: u32 = 400_004;
/// The error code of a symmetric key or token that is not accepted.
pub(crate) const UNAUTHORIZED_TOKEN: u32 = 401_000;
/// The error code of a credential that is not accepted.
pub(crate) const UNAUTHORIZED: u32 = 401_002;
/// The error code of an unknown ID scope.
pub(crate) const ID_SCOPE_NOT_FOUND: u32 = 404_201;
/// The error code of an unknown enrollment.
pub(crate) const ENROLLMENT_NOT_FOUND: u32 = 404_201;
/// The error code of an unknown registration or operation.
pub(crate) const REGISTRATION_NOT_FOUND: u32 = 404_202;
/// The error code of a request over the rate limit.
pub(crate) const THROTTLED: u32 = 429_001;

/// An error of the Device Provisioning Service. The first three digits of its code are the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DpsError {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl DpsError {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Creates the error for a status, with its code.
    pub(crate) fn from_status(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            400 | 422 => INVALID_ARGUMENT,
            429 => THROTTLED,
            status => u32::from(status) * 1000,
        };
        Self::new(code, message)
    }

    /// Returns the status, as HTTP and MQTT have it.
    pub(crate) fn status(&self) -> u16 {
        u16::try_from(self.code / 1000).unwrap_or(500)
    }

    /// Returns the JSON of the error.
    pub(crate) fn body(&self, tracking_id: &str, now: Timestamp) -> Value {
        json!({
            "errorCode": self.code,
            "trackingId": tracking_id,
            "message": self.message,
            "timestampUtc": timestamp(now),
        })
    }
}

impl From<FieldError> for DpsError {
    fn from(error: FieldError) -> Self {
        Self::new(INVALID_ARGUMENT, error.to_string())
    }
}

impl From<RandomError> for DpsError {
    fn from(error: RandomError) -> Self {
        Self::from_status(500, error.to_string())
    }
}
