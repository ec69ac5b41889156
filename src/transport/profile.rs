//! How services differ from each other, as far as sending a call is concerned.

use std::num::NonZeroU32;

/// One kind of service.
#[derive(Debug)]
pub(crate) struct ServiceProfile {
    /// What messages call it, with its article, as in "an IoT Central application".
    pub(crate) name: &'static str,
    /// What messages call it for short, as in "the application".
    pub(crate) short_name: &'static str,
    /// A role that allows changes.
    pub(crate) role: &'static str,
    /// The path in front of every call's own.
    pub(crate) base_path: &'static [&'static str],
    /// How many requests a second the service takes.
    pub(crate) rate: NonZeroU32,
    /// Reads the body of an error. Its fields are `None` where the body does not have the service's form.
    pub(crate) parse_error: fn(&str) -> ErrorDetails,
}

/// What the body of an error says.
#[derive(Debug, Default)]
pub(crate) struct ErrorDetails {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) request_id: Option<String>,
}
