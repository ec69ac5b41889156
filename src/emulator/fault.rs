//! Faults: what networks, proxies and services do to a client, injected where a test needs it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderValue;

use super::error::EmulatorError;

/// A fault: its kind, the requests it affects and how often.
///
/// A fault occurs right after authorization, also on unknown paths. Unauthorized requests, such as those of a probe,
/// are refused as usual and do not use up faults: requests to IoT Central, Resource Manager and the service API of DPS
/// without a valid token, and requests of devices with neither certificate nor token. [`CloseOnConnect`](FaultKind::CloseOnConnect) affects every connection. If
/// several faults match a request, only the first injected one occurs.
///
/// Over MQTT, a request of a device has the method and the path that it has over HTTP. `NotJson` and `Redirect` do not
/// affect it. A fault with the method `CONNECT` affects the CONNECT packet of a client, whose path is
/// `/{idScope}/registrations/{registrationId}`.
///
/// ```
/// use iot_enroll::emulator::{Fault, FaultKind};
///
/// // The first two uploads of a certificate fail with 503.
/// let fault = Fault::new(FaultKind::Status { status: 503, retry_after: None })
///     .method("PUT")
///     .path_contains("/certificates/")
///     .times(2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    kind: FaultKind,
    method: Option<String>,
    path: String,
    /// How often the fault still occurs. `None` is always.
    left: Option<u32>,
}

/// The kind of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The response is an error in the form of the service. The request is not executed.
    Status {
        /// The status, 400 to 599.
        status: u16,
        /// The `Retry-After` header, rounded up to whole seconds.
        retry_after: Option<Duration>,
    },
    /// Like [`Status`](Self::Status), with the `Retry-After` header as a date by the emulator's clock.
    StatusUntil {
        /// The status, 400 to 599.
        status: u16,
        /// The time until the date, which is rounded up to a whole second.
        retry_after: Duration,
    },
    /// The next connection is closed as soon as it is accepted, before its requests are known.
    CloseOnConnect,
    /// The connection breaks after the head of the request. The request is not executed.
    CloseBeforeHandling,
    /// The request is executed, and the connection breaks before the response.
    CloseAfterHandling,
    /// The request is executed, and the connection breaks in the middle of the response body, or before a response
    /// without a body.
    TruncateBody,
    /// The response is 200 with a web page, like that of a captive portal. The request is not executed.
    NotJson,
    /// The response is 307 with this `Location`. The request is not executed.
    Redirect(String),
    /// The request is executed after this time.
    Delay(Duration),
}

impl Fault {
    /// Creates a fault that affects the next request.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, method: None, path: String::new(), left: Some(1) }
    }

    /// Limits the fault to requests with this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: Some(method.to_ascii_uppercase()), ..self }
    }

    /// Limits the fault to requests whose path, as sent and without the query, contains this text.
    #[must_use]
    pub fn path_contains(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// Sets how many times the fault occurs. Default: once.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { left: Some(count), ..self }
    }

    /// Lets the fault occur every time.
    #[must_use]
    pub fn always(self) -> Self {
        Self { left: None, ..self }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.kind != FaultKind::CloseOnConnect
            && self.method.as_deref().is_none_or(|expected| expected == method)
            && path.contains(&self.path)
    }

    /// Returns whether the fault is possible without HTTP.
    fn is_for_messages(&self) -> bool {
        !matches!(self.kind, FaultKind::NotJson | FaultKind::Redirect(_))
    }

    /// Checks that the fault is possible, and describes the problem otherwise.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.kind {
            FaultKind::Status { status, .. } | FaultKind::StatusUntil { status, .. }
                if !(400..600).contains(status) =>
            {
                Err(format!("{status} is not an error status: use 400 to 599"))
            }
            FaultKind::Redirect(url) if HeaderValue::from_str(url).is_err() => {
                Err(format!("{url:?} cannot be sent as a Location"))
            }
            FaultKind::CloseOnConnect if self.method.is_some() || !self.path.is_empty() => {
                Err("a connection that is closed on accept has neither method nor path".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The injected faults.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, fault: Fault) -> Result<(), EmulatorError> {
        fault.check().map_err(EmulatorError::Fault)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the fault that affects a request, and counts it.
    pub(super) fn take_for_request(&self, method: &str, path: &str) -> Option<FaultKind> {
        self.take_first(|fault| fault.matches(method, path))
    }

    /// Returns the fault that affects a message, and counts it.
    pub(super) fn take_for_message(&self, method: &str, path: &str) -> Option<FaultKind> {
        self.take_first(|fault| fault.is_for_messages() && fault.matches(method, path))
    }

    /// Returns the fault that affects the CONNECT packet of an MQTT client, and counts it. Only faults with the method
    /// CONNECT do: others are meant for the requests that follow.
    pub(super) fn take_for_connect(&self, path: &str) -> Option<FaultKind> {
        self.take_first(|fault| fault.method.is_some() && fault.is_for_messages() && fault.matches("CONNECT", path))
    }

    /// Returns whether to close a new connection, and counts the fault.
    pub(super) fn take_for_connection(&self) -> bool {
        self.take_first(|fault| fault.kind == FaultKind::CloseOnConnect).is_some()
    }

    fn take_first(&self, matches: impl Fn(&Fault) -> bool) -> Option<FaultKind> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|fault| fault.left != Some(0));
        let fault = faults.iter_mut().find(|fault| matches(fault))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.kind.clone())
    }
}

/// Rounds a duration up to whole seconds.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
