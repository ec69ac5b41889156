//! Misbehaviour on request: what networks, proxies and services do to a client, made to happen where a test wants it.

use std::{
    collections::HashSet,
    pin::Pin,
    str::FromStr,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;

use super::{
    error::{ApiError, RetryAfter},
    server::EmulatorError,
};

/// A fault: what goes wrong, for which requests, how often.
///
/// It strikes before anything but the authorization is looked at, also on unknown routes. Requests that are not authorized,
/// those of a probe for example, are refused as always and use no fault up: those to the application without its token, and
/// those of a device with neither certificate nor token. [`CloseOnConnect`](FaultKind::CloseOnConnect) strikes every
/// connection. Where several faults match a request, only the one injected first strikes.
///
/// ```
/// use iot_enroll::emulator::{Fault, FaultKind};
///
/// // The first two uploads of a certificate get 503.
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
    /// How often it still strikes; `None`: always.
    left: Option<u32>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The request is answered with this error, in the service's form, and is not carried out.
    Status {
        /// 400 to 599.
        status: u16,
        /// The `Retry-After` header, in whole seconds, rounded up.
        retry_after: Option<Duration>,
    },
    /// As [`Status`](Self::Status), with the `Retry-After` header as a date, by the emulator's clock.
    StatusUntil {
        /// 400 to 599.
        status: u16,
        /// How far ahead the date is; it is rounded up to a whole second.
        retry_after: Duration,
    },
    /// The next connection is closed when it is made, before anything is read from it. It knows neither method nor path.
    CloseOnConnect,
    /// The connection breaks when the head of the request has come, before its body is read or anything carried out.
    CloseBeforeHandling,
    /// The request is carried out, and the connection breaks before the answer.
    CloseAfterHandling,
    /// The request is carried out, and the connection breaks in the middle of the answer's body; before the answer where
    /// it has none.
    TruncateBody,
    /// The request is answered with 200 and a web page, as by a proxy that wants a login, and is not carried out.
    NotJson,
    /// The request is answered with 307 and this `Location`, and is not carried out.
    Redirect(String),
    /// The request is carried out after this time.
    Delay(Duration),
}

impl Fault {
    /// A fault that strikes the next request, whatever it is.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, method: None, path: String::new(), left: Some(1) }
    }

    /// Strikes only requests with this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: Some(method.to_ascii_uppercase()), ..self }
    }

    /// Strikes only requests whose path, as sent and without the query, contains this.
    #[must_use]
    pub fn path_contains(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// Strikes so many times.
    #[must_use]
    pub fn times(self, count: u32) -> Self {
        Self { left: Some(count), ..self }
    }

    /// Strikes every time.
    #[must_use]
    pub fn always(self) -> Self {
        Self { left: None, ..self }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.kind != FaultKind::CloseOnConnect
            && self.method.as_deref().is_none_or(|expected| expected == method)
            && path.contains(&self.path)
    }

    /// Says why it cannot be carried out.
    fn check(&self) -> Result<(), String> {
        match &self.kind {
            FaultKind::Status { status, .. } | FaultKind::StatusUntil { status, .. }
                if !(400..600).contains(status) =>
            {
                Err(format!("{status} is not the status of an error: use 400 to 599"))
            }
            FaultKind::Redirect(url) if HeaderValue::from_str(url).is_err() => {
                Err(format!("{url:?} cannot be sent as a Location"))
            }
            FaultKind::CloseOnConnect if self.method.is_some() || !self.path.is_empty() => {
                Err("a connection that is closed at once has no method and no path yet".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Reads the text form, `KIND[,OPTION]...`, as in `429:retry-after=2,method=PUT,path=/devices,times=3`.
///
/// | kind | what goes wrong |
/// | --- | --- |
/// | `400` to `599` | [`FaultKind::Status`]; with `:retry-after=SECONDS` its header, with `:retry-after-date=+TIME` [`FaultKind::StatusUntil`] |
/// | `delay=TIME` | [`FaultKind::Delay`] |
/// | `close-on-connect` | [`FaultKind::CloseOnConnect`] |
/// | `close-before` | [`FaultKind::CloseBeforeHandling`] |
/// | `close-after` | [`FaultKind::CloseAfterHandling`] |
/// | `truncate` | [`FaultKind::TruncateBody`] |
/// | `not-json` | [`FaultKind::NotJson`] |
/// | `redirect=URL` | [`FaultKind::Redirect`] |
///
/// The options are `method=METHOD`, `path=PART`, and `times=N` or `times=always`; without `times` it strikes once. A
/// TIME is a whole number with its unit: `500ms`, `5s` or `2m`. A comma in a path or a URL is written `%2C`.
///
/// ```
/// use iot_enroll::emulator::Fault;
///
/// let fault: Fault = "503:retry-after-date=+5s,times=always".parse()?;
/// let wrong = "delay=soon".parse::<Fault>().unwrap_err();
/// assert_eq!(wrong.position(), 7);
/// # Ok::<(), iot_enroll::emulator::FaultSyntaxError>(())
/// ```
impl FromStr for Fault {
    type Err = FaultSyntaxError;

    fn from_str(text: &str) -> Result<Self, FaultSyntaxError> {
        let mut parts = Part { text, position: 1 }.split(',');
        let kind = parts.next().map_or(Err(FaultSyntaxError::new(1, KINDS)), Part::kind)?;
        let mut fault = Self::new(kind);
        let mut seen = HashSet::new();
        for option in parts {
            let (name, value) = option.name_and_value(OPTIONS)?;
            if !seen.insert(name.text) {
                return Err(name.refuse("this option is given more than once"));
            }
            fault = match name.text {
                "method" if !value.text.is_empty() && value.text.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                    fault.method(value.text)
                }
                "method" => return Err(value.refuse("expected a method, as in PUT")),
                "path" if value.text.is_empty() => return Err(value.refuse("expected a part of the path")),
                "path" => fault.path_contains(value.text),
                "times" if value.text == "always" => fault.always(),
                "times" => match value.text.parse() {
                    Ok(count) if count > 0 => fault.times(count),
                    _ => return Err(value.refuse("expected a number from 1 on, or always")),
                },
                _ => return Err(name.refuse(OPTIONS)),
            };
        }
        fault.check().map_err(|problem| FaultSyntaxError::new(1, problem))?;
        Ok(fault)
    }
}

const KINDS: &str = "expected a status from 400 to 599, delay=TIME, close-on-connect, close-before, close-after, \
     truncate, not-json or redirect=URL";
const OPTIONS: &str = "expected method=METHOD, path=PART, times=N or times=always";
const STATUS_OPTIONS: &str = "expected retry-after=SECONDS or retry-after-date=+TIME";

/// Where the text form of a fault is wrong, and what is allowed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct FaultSyntaxError {
    position: usize,
    problem: String,
}

impl FaultSyntaxError {
    fn new(position: usize, problem: impl Into<String>) -> Self {
        Self { position, problem: problem.into() }
    }

    /// The character at which the part that is wrong begins, counted from 1.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

/// A part of the text form, and where it begins.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    position: usize,
}

impl Part<'_> {
    fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut position = self.position;
        self.text.split(separator).map(move |text| {
            let part = Self { text, position };
            position += text.chars().count() + 1;
            part
        })
    }

    /// What is before and after the first of these characters.
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let position = self.position + before.chars().count() + 1;
        Some((Self { text: before, ..self }, Self { text: after, position }))
    }

    fn name_and_value(self, expected: &str) -> Result<(Self, Self), FaultSyntaxError> {
        self.split_once('=').ok_or_else(|| self.refuse(expected))
    }

    fn refuse(self, problem: &str) -> FaultSyntaxError {
        FaultSyntaxError::new(self.position, format!("{problem}; found {:?}", self.text))
    }

    fn kind(self) -> Result<FaultKind, FaultSyntaxError> {
        if self.text.starts_with(|c: char| c.is_ascii_digit()) {
            return self.status();
        }
        match (self.text, self.split_once('=')) {
            ("close-on-connect", _) => Ok(FaultKind::CloseOnConnect),
            ("close-before", _) => Ok(FaultKind::CloseBeforeHandling),
            ("close-after", _) => Ok(FaultKind::CloseAfterHandling),
            ("truncate", _) => Ok(FaultKind::TruncateBody),
            ("not-json", _) => Ok(FaultKind::NotJson),
            (_, Some((Part { text: "delay", .. }, time))) => time.time().map(FaultKind::Delay),
            (_, Some((Part { text: "redirect", .. }, url))) if !url.text.is_empty() => {
                Ok(FaultKind::Redirect(url.text.to_owned()))
            }
            _ => Err(self.refuse(KINDS)),
        }
    }

    fn status(self) -> Result<FaultKind, FaultSyntaxError> {
        let (status, option) = match self.split_once(':') {
            Some((status, option)) => (status, Some(option)),
            None => (self, None),
        };
        let status = status.text.parse().map_err(|_| status.refuse(KINDS))?;
        let Some(option) = option else { return Ok(FaultKind::Status { status, retry_after: None }) };
        let (name, value) = option.name_and_value(STATUS_OPTIONS)?;
        match (name.text, value.text.strip_prefix('+')) {
            ("retry-after", None) => {
                let seconds = value.text.parse().map_err(|_| value.refuse("expected a whole number of seconds"))?;
                Ok(FaultKind::Status { status, retry_after: Some(Duration::from_secs(seconds)) })
            }
            ("retry-after-date", Some(time)) => {
                let retry_after = Self { text: time, position: value.position + 1 }.time()?;
                Ok(FaultKind::StatusUntil { status, retry_after })
            }
            _ => Err(option.refuse(STATUS_OPTIONS)),
        }
    }

    /// A whole number with its unit.
    fn time(self) -> Result<Duration, FaultSyntaxError> {
        let unit = self.text.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.text.len());
        let (number, unit) = self.text.split_at(unit);
        let time = number.parse().ok().and_then(|number: u64| match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            _ => None,
        });
        time.ok_or_else(|| self.refuse("expected a time, as in 500ms, 5s or 2m"))
    }
}

/// The faults that are still to strike.
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

    /// The fault that strikes this request.
    pub(super) fn strike(&self, method: &str, path: &str) -> Option<FaultKind> {
        self.first(|fault| fault.matches(method, path))
    }

    /// Whether this connection is to be closed at once.
    pub(super) fn strike_connection(&self) -> bool {
        self.first(|fault| fault.kind == FaultKind::CloseOnConnect).is_some()
    }

    fn first(&self, strikes: impl Fn(&Fault) -> bool) -> Option<FaultKind> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|fault| fault.left != Some(0));
        let fault = faults.iter_mut().find(|fault| strikes(fault))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.kind.clone())
    }
}

/// The connection is to be broken. The HTTP server closes a connection whose service fails.
#[derive(Debug, thiserror::Error)]
#[error("the connection was broken by a fault")]
pub(super) struct Severed;

pub(super) fn status(status: u16, retry_after: Option<RetryAfter>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::new(status, "a fault was injected here").retry_after(retry_after).into_response()
}

/// Whole seconds, rounded up: less would be too early.
pub(super) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

pub(super) fn not_json() -> Response {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to continue.</body></html>";
    let media_type = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], page).into_response()
}

pub(super) fn redirect(url: &str) -> Response {
    // `Faults::add` has made sure that it can be sent.
    let location = HeaderValue::from_str(url).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

/// The response with its whole length announced and half of its body.
pub(super) async fn truncate(response: Response) -> Result<Response, Severed> {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, usize::MAX).await.map_err(|_| Severed)?;
    if whole.is_empty() {
        return Err(Severed);
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = Some(whole.slice(..whole.len() / 2));
    Ok(Response::from_parts(parts, Body::new(Truncated { half, flushed: false })))
}

/// A body that fails after its first half.
struct Truncated {
    half: Option<Bytes>,
    flushed: bool,
}

impl hyper::body::Body for Truncated {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Severed>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        if !self.flushed {
            // While the body has nothing to give, the server sends what it has. An error would discard that.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(Severed)))
    }
}
