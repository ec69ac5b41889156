//! The errors of calls to a service.

use std::{error::Error as StdError, fmt, time::Duration};

use super::{
    authorization::AuthorizationError,
    call::Operation,
    network::{AttemptCount, NetworkFailure, network_cause},
    profile::{Refused, ServiceProfile},
    redact::without_values,
    retry::AttemptFailure,
};
use crate::certificate::Timestamp;

/// The error of a call. Its variants tell where the call failed: here, on the way, at the service, or in the service's
/// answer.
///
/// A message names the call, what failed, and what to do. None contains a token or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was sent because no token is available.
    #[error("{operation}: {cause}")]
    Authorization {
        /// The call.
        operation: Operation,
        /// Why no token is available.
        cause: AuthorizationError,
    },
    /// No answer arrived.
    #[error(transparent)]
    Network(Box<NetworkError>),
    /// The service answered with an error.
    #[error(transparent)]
    Service(Box<ServiceError>),
    /// An answer arrived that cannot be read.
    #[error(transparent)]
    Answer(Box<AnswerError>),
    /// The service answered with a redirect. Redirects are not followed, so that the token does not reach another host.
    #[error(
        "{operation}: the service answered {status}, a redirect to {target}; redirects are not followed. Check the address"
    )]
    Redirect {
        /// The call.
        operation: Operation,
        /// The HTTP status of the answer.
        status: u16,
        /// The host that the redirect points to, or the text found in its place.
        target: String,
    },
    /// The link or continuation token to the next page of a list was not followed. Nothing was sent to it.
    #[error("{operation}: the link to the next page was not followed: {problem}")]
    NextLink {
        /// The call whose answer contains it.
        operation: Operation,
        /// Why it was not followed.
        problem: String,
    },
    /// The outcome of a change is unknown: its answer was lost, and the retry failed with 412, or with 409 if it creates
    /// a resource.
    ///
    /// The retry fails so if the first attempt was carried out, and also if another client made a change. Read the
    /// resource to find out.
    #[error(
        "{operation}: the answer was lost and the retry failed with {status}: either the first attempt was carried out, or \
         another client made a change. Read the resource to find out. First failure: {first}"
    )]
    OutcomeUnknown {
        /// The call.
        operation: Operation,
        /// The HTTP status of the retry.
        status: u16,
        /// How the answer was lost.
        first: Box<Error>,
    },
    /// The resource to create exists.
    #[error("{operation}: it exists already: update it, or replace it")]
    AlreadyExists {
        /// The call that would have created it.
        operation: Operation,
    },
    /// The service answered that there is nothing here, in another way than with 404.
    #[error("{operation}: {problem}")]
    NotFound {
        /// The call.
        operation: Operation,
        /// What is missing.
        problem: &'static str,
    },
    /// The resource is being created or deleted, so that a part of it that is needed is missing.
    #[error("{operation}: it is not active: its state is {state}. Wait until it is active")]
    NotActive {
        /// The call.
        operation: Operation,
        /// The state, such as `Activating`.
        state: String,
    },
    /// Other clients changed the resource again and again between its reading and its change. Nothing was changed.
    #[error(
        "{operation}: nothing was changed: at each of {attempts} attempts, another client changed it first. Run it again"
    )]
    Contention {
        /// The call.
        operation: Operation,
        /// The number of attempts.
        attempts: u32,
    },
    /// An update was not sent, because it would remove something that it does not name: an update replaces the whole
    /// record, and the service does not return this part of it. Give it again with the update.
    #[error(
        "{operation}: nothing was sent: the update would remove {member}, which the service does not return: give it again \
         with the update"
    )]
    WouldRemove {
        /// The call.
        operation: Operation,
        /// The part of the record, such as `the certificate in signingCertificates.primary`.
        member: String,
    },
    /// A call was not sent, because it has more items than the service accepts.
    #[error("{operation}: nothing was sent: one call takes at most {max} items; found {found}")]
    TooManyItems {
        /// The call.
        operation: Operation,
        /// The number of items.
        found: usize,
        /// The maximum.
        max: usize,
    },
    /// A call was not sent, because the caller withdrew it before its turn.
    #[error("{operation}: nothing was sent: it was withdrawn")]
    Withdrawn {
        /// The call.
        operation: Operation,
    },
}

impl Error {
    /// Returns the call that failed.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        match self {
            Self::Authorization { operation, .. }
            | Self::Redirect { operation, .. }
            | Self::NextLink { operation, .. }
            | Self::OutcomeUnknown { operation, .. }
            | Self::AlreadyExists { operation }
            | Self::Withdrawn { operation }
            | Self::NotFound { operation, .. }
            | Self::NotActive { operation, .. }
            | Self::Contention { operation, .. }
            | Self::WouldRemove { operation, .. }
            | Self::TooManyItems { operation, .. } => operation,
            Self::Network(error) => &error.operation,
            Self::Service(error) => &error.operation,
            Self::Answer(error) => &error.operation,
        }
    }

    /// Returns whether the resource does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. }) || matches!(self, Self::Service(error) if error.status == 404)
    }

    /// Returns the HTTP status of the answer that this error is about.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Service(error) => Some(error.status),
            Self::Answer(error) => Some(error.status),
            Self::Redirect { status, .. } => Some(*status),
            Self::Contention { .. } => Some(412),
            _ => None,
        }
    }

    /// Returns the service's error code, such as `NotFound`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        if let Self::Service(error) = self { error.code.as_deref() } else { None }
    }

    /// Returns the service's ID of the request, which its support asks for.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        if let Self::Service(error) = self { error.request_id.as_deref() } else { None }
    }

    /// Returns whether this or an earlier attempt may have made the change although the call failed. It is never true
    /// for a call that only reads.
    #[must_use]
    pub fn answer_was_lost(&self) -> bool {
        match self {
            Self::Network(error) => error.answer_was_lost,
            Self::Service(error) => error.answer_was_lost,
            Self::Answer(error) => error.operation.changes() && (200..300).contains(&error.status),
            Self::OutcomeUnknown { .. } => true,
            _ => false,
        }
    }

    /// Returns what the decision to retry depends on.
    pub(super) fn attempt_failure(&self) -> AttemptFailure {
        match self {
            Self::Network(error) => AttemptFailure::Network(error.failure),
            Self::Service(error) => AttemptFailure::Status(error.status, error.retry_after),
            _ => AttemptFailure::Final,
        }
    }

    /// Records the number of attempts, and whether an earlier one may have been carried out.
    pub(crate) fn after(mut self, count: u32, lost: bool) -> Self {
        let (attempts, answer_was_lost) = match &mut self {
            Self::Network(error) => (&mut error.attempts, &mut error.answer_was_lost),
            Self::Service(error) => (&mut error.attempts, &mut error.answer_was_lost),
            _ => return self,
        };
        *attempts = count;
        *answer_was_lost |= lost;
        self
    }
}

/// The error of a call to which no answer arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct NetworkError {
    /// The call.
    pub operation: Operation,
    /// The host that it was sent to, with the port unless it is the scheme's default.
    pub host: String,
    /// The stage at which it failed.
    pub failure: NetworkFailure,
    /// Why it failed.
    pub cause: String,
    /// The number of attempts.
    pub attempts: u32,
    /// Whether this or an earlier attempt may have made the change.
    pub answer_was_lost: bool,
}

impl NetworkError {
    pub(super) fn new(operation: Operation, host: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let failure = NetworkFailure::of(&error);
        let sent = !matches!(
            failure,
            NetworkFailure::Request
                | NetworkFailure::Connect
                | NetworkFailure::Tls
                | NetworkFailure::CertificateOutOfTime
        );
        Self {
            answer_was_lost: sent && operation.changes(),
            operation,
            host: host.to_owned(),
            failure,
            cause: network_cause(&error),
            attempts: 1,
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, host, failure, cause, attempts, .. } = self;
        let remedy = match failure {
            NetworkFailure::Connect => "Check the address, and the network and proxy settings of this machine",
            NetworkFailure::Tls => {
                "Check the address; if a private CA issued the server's certificate, add that CA as a trusted root"
            }
            NetworkFailure::CertificateOutOfTime => {
                "Check the clock of this machine; if it is right, the server needs a new certificate"
            }
            NetworkFailure::TimedOut => "Try again, or allow more time",
            NetworkFailure::Broken => "Try again",
            NetworkFailure::Request => {
                "Correct the request: a value has characters that cannot be sent, or is too long, such as a filter"
            }
            NetworkFailure::NotHttp => "Check the address and port",
        };
        write!(f, "{operation}: {} {host}{}: {cause}. {remedy}", failure.summary(), AttemptCount(*attempts))
    }
}

impl StdError for NetworkError {}

/// The error that a service answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServiceError {
    /// The call.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The service's error code, from the body or the header `x-ms-error-code`.
    pub code: Option<String>,
    /// The service's message, shortened; or the start of the body if it does not have the service's form. Says that
    /// the body is not shown if it may contain keys.
    pub message: String,
    /// The service's ID of the request, from the body or the header `x-ms-request-id`.
    pub request_id: Option<String>,
    /// How long the service asks to wait. [`Duration::MAX`] stands for a number that is too large.
    pub retry_after: Option<Duration>,
    /// The number of attempts.
    pub attempts: u32,
    /// Whether this or an earlier attempt may have made the change.
    pub answer_was_lost: bool,
    pub(super) token_expired: Option<Timestamp>,
    /// Whether the request was authorized by a shared access signature.
    pub(super) shared_access: bool,
    /// The client's budget for a call.
    pub(super) budget: Duration,
    pub(super) profile: &'static ServiceProfile,
}

impl ServiceError {
    fn remedy(&self) -> String {
        let ServiceProfile { short_name, role, remedy, .. } = self.profile;
        if let Some(text) = remedy(Refused { status: self.status, shared_access: self.shared_access }) {
            return text.to_owned();
        }
        match self.status {
            401 => format!("Check that the token belongs to this {short_name} and is neither revoked nor expired"),
            403 => format!("Use a token whose role allows this, such as {role}"),
            404 => format!("Check the ID and the {short_name}'s address"),
            409 => "It exists already or is being changed: read it, then decide".to_owned(),
            412 => {
                "It was changed or deleted since it was read: read it again, then repeat the change; if an etag was \
                 given, with its new etag, or without an etag if it is gone"
                    .to_owned()
            }
            422 => "The service does not accept the values of the request: correct what it names".to_owned(),
            429 => {
                format!("Lower the request rate; everything that uses this {short_name} shares its limit")
            }
            500..=599 => "The service failed: try again later".to_owned(),
            _ => "Correct what the service names".to_owned(),
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the service answered {}{}", self.operation, self.status, AttemptCount(self.attempts))?;
        match &self.code {
            // After the number of attempts, another number would not be understood.
            Some(code) if self.attempts > 1 => write!(f, " (code {code}): ")?,
            Some(code) => write!(f, " {code}: ")?,
            None => f.write_str(": ")?,
        }
        f.write_str(if self.message.is_empty() { "no reason given" } else { self.message.trim_end_matches('.') })?;
        if let Some(id) = &self.request_id {
            write!(f, " (request ID {id})")?;
        }
        f.write_str(". ")?;
        match &self.token_expired {
            Some(at) => write!(f, "The token expired at {at}: generate a new one")?,
            None => f.write_str(&self.remedy())?,
        }
        match self.retry_after {
            Some(Duration::MAX) => f.write_str("; it asks to wait longer than can be counted"),
            Some(asked) if asked > self.budget => {
                let (asked, budget) = (asked.as_secs(), self.budget.as_secs());
                write!(f, "; it asks to wait {asked} s, longer than the limit of {budget} s for a call")
            }
            _ => Ok(()),
        }
    }
}

impl StdError for ServiceError {}

/// The error of a call whose answer cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct AnswerError {
    /// The call.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The content type of the answer.
    pub content_type: Option<String>,
    /// What is wrong with the answer.
    pub problem: AnswerProblem,
    /// The start of the answer. Omitted if it may contain keys: it looks like JSON, or the call returns keys.
    pub excerpt: Option<String>,
    pub(super) profile: &'static ServiceProfile,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.content_type.as_deref().unwrap_or("no content type");
        write!(f, "{}: cannot read the answer {} ({kind}): {}", self.operation, self.status, self.problem)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "; it starts with {excerpt:?}")?;
        }
        write!(f, ". Check that the address is that of {}", self.profile.name)
    }
}

impl StdError for AnswerError {}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerProblem {
    /// It is larger than any valid answer.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// How many bytes are read.
        limit: usize,
    },
    /// It is not JSON, or the JSON is incomplete.
    #[error("it is not JSON ({0})")]
    NotJson(String),
    /// It is JSON, but not what the API describes.
    #[error("it is not what the API describes ({0})")]
    Shape(String),
}

impl AnswerProblem {
    /// Tells JSON of another shape from text that is not JSON.
    pub(crate) fn of_json(error: &serde_json::Error) -> Self {
        let text = without_values(error);
        if error.is_data() { Self::Shape(text) } else { Self::NotJson(text) }
    }
}
