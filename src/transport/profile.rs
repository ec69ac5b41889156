//! What differs between services when a call is sent.

use std::num::NonZeroU32;

/// Describes one kind of service.
#[derive(Debug)]
pub(crate) struct ServiceProfile {
    /// Its name in messages, with an article, such as "an IoT Central application".
    pub(crate) name: &'static str,
    /// Its short name in messages, such as "application".
    pub(crate) short_name: &'static str,
    /// A role that allows changes.
    pub(crate) role: &'static str,
    /// The path before that of each call.
    pub(crate) base_path: &'static [&'static str],
    /// The service's limit in requests per second.
    pub(crate) rate: NonZeroU32,
    /// Reads the body of an error. Fields that the body does not have are `None`.
    pub(crate) parse_error: fn(&str) -> ErrorDetails,
    /// Returns what to do about an error answer, if the service needs other advice than the general one.
    pub(crate) remedy: fn(Refused) -> Option<&'static str>,
}

/// An error answer that advice is given about.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    /// Whether the request was authorized by a shared access signature.
    pub(crate) shared_access: bool,
}

/// What the body of an error says.
#[derive(Debug, Default)]
pub(crate) struct ErrorDetails {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) request_id: Option<String>,
}
