//! What the service said, and what never arrived.

use std::{error::Error as StdError, fmt, time::Duration};

use time::OffsetDateTime;

use super::{
    authorization::{AuthorizationError, rfc3339},
    call::Operation,
    network::{AttemptCount, NetworkFailure, certificate_out_of_time, error_chain},
    profile::ServiceProfile,
    redact::without_values,
    retry::AttemptFailure,
};

/// Why a call failed. Its variants are the worlds it can fail in: on this side, on the way, at the service, and in what
/// the service answered.
///
/// A message names the call, what was found and what to do; none holds a token or a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was sent: there was no token to send.
    #[error("{operation}: {cause}")]
    Authorization {
        /// The call.
        operation: Operation,
        /// Why there was none.
        cause: AuthorizationError,
    },
    /// No answer arrived.
    #[error(transparent)]
    Network(Box<NetworkError>),
    /// The service refused.
    #[error(transparent)]
    Service(Box<ServiceError>),
    /// An answer arrived that cannot be read.
    #[error(transparent)]
    Answer(Box<AnswerError>),
    /// The service sent the call elsewhere. The token was not sent there.
    #[error(
        "{operation}: answered {status}, a redirect to {target}; redirects are not followed. Check the \
         address"
    )]
    Redirect {
        /// The call.
        operation: Operation,
        /// The status of the answer.
        status: u16,
        /// The host it leads to, or what stands in its place.
        target: String,
    },
    /// The link to a list's next page cannot be followed. Nothing was sent there.
    #[error("{operation}: the link to the next page was not followed: {problem}")]
    NextLink {
        /// The call whose answer has the link.
        operation: Operation,
        /// What is wrong with it.
        problem: String,
    },
    /// The answer to a change guarded by an etag was lost, and its repetition was refused with 412, as it is when the
    /// first attempt was carried out, and also when somebody else changed the thing.
    #[error(
        "{operation}: an answer was lost, and the repeated request was refused with 412: either the first was carried \
         out or somebody else made a change. Read it again to see which. First failure: {first}"
    )]
    Lost {
        /// The call.
        operation: Operation,
        /// How the answer was lost.
        first: Box<Error>,
    },
    /// The entry of an enrollment group holds no certificate.
    #[error("{operation}: there is no certificate in this entry: set one first")]
    NoCertificate {
        /// The call.
        operation: Operation,
    },
}

impl Error {
    /// The call that failed.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        match self {
            Self::Authorization { operation, .. }
            | Self::Redirect { operation, .. }
            | Self::NextLink { operation, .. }
            | Self::Lost { operation, .. }
            | Self::NoCertificate { operation } => operation,
            Self::Network(error) => &error.operation,
            Self::Service(error) => &error.operation,
            Self::Answer(error) => &error.operation,
        }
    }

    /// Whether the thing does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoCertificate { .. }) || matches!(self, Self::Service(error) if error.status == 404)
    }

    /// The HTTP status of the answer, where one arrived that belongs to this failure.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Service(error) => Some(error.status),
            Self::Answer(error) => Some(error.status),
            Self::Redirect { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The service's code for the failure, such as `NotFound`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        if let Self::Service(error) = self { error.code.as_deref() } else { None }
    }

    /// The service's id for the request, by which its operators find it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        if let Self::Service(error) = self { error.request_id.as_deref() } else { None }
    }

    /// Whether the change asked for, by this or an earlier attempt, may have been made although this is a failure. Never
    /// so for a call that only reads.
    #[must_use]
    pub fn answer_was_lost(&self) -> bool {
        match self {
            Self::Network(error) => error.answer_was_lost,
            Self::Service(error) => error.answer_was_lost,
            Self::Answer(error) => error.operation.changes() && (200..300).contains(&error.status),
            Self::Lost { .. } => true,
            _ => false,
        }
    }

    /// What trying again depends on.
    pub(super) fn attempt_failure(&self) -> AttemptFailure {
        match self {
            Self::Network(error) => AttemptFailure::Network(error.failure),
            Self::Service(error) => AttemptFailure::Status(error.status, error.retry_after),
            _ => AttemptFailure::Final,
        }
    }

    /// Notes that this ended a call after so many attempts, an earlier one of which may have been carried out.
    pub(crate) fn after(mut self, count: u32, lost: bool) -> Self {
        match &mut self {
            Self::Network(error) => {
                error.attempts = count;
                error.answer_was_lost |= lost;
            }
            Self::Service(error) => {
                error.attempts = count;
                error.answer_was_lost |= lost;
            }
            _ => {}
        }
        self
    }
}

/// A call to which no answer arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct NetworkError {
    /// The call.
    pub operation: Operation,
    /// The host and port it went to.
    pub host: String,
    /// Where it failed.
    pub failure: NetworkFailure,
    /// What the operating system and the protocols said, outermost first.
    pub cause: String,
    /// How many times it was tried.
    pub attempts: u32,
    /// Whether a change, by this or an earlier attempt, may have been made.
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
            cause: certificate_out_of_time(&error).unwrap_or_else(|| error_chain(&error)),
            attempts: 1,
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, host, cause, .. } = self;
        let (what, remedy) = match self.failure {
            NetworkFailure::Connect => {
                ("no connection to", "Check the address, and the network and proxy settings here")
            }
            NetworkFailure::Tls => (
                "no trusted connection to",
                "Check the address; if a private authority issued the server's certificate, add it as a root",
            ),
            NetworkFailure::CertificateOutOfTime => {
                ("no trusted connection to", "Check the clock here; if it is right, the server needs a new certificate")
            }
            NetworkFailure::TimedOut => ("no answer in time from", "Try again, or allow more time"),
            NetworkFailure::Broken => ("the connection ended before the answer from", "Try again"),
            NetworkFailure::Request => {
                ("no request can be made of this to", "Shorten what was asked for, such as the filter")
            }
            NetworkFailure::NotHttp => ("no HTTP from", "Check the address and port"),
        };
        write!(f, "{operation}: {what} {host}{}: {cause}. {remedy}", AttemptCount(self.attempts))
    }
}

impl StdError for NetworkError {}

/// What the service answered instead of doing what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServiceError {
    /// The call.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The service's code, from the body or the header `x-ms-error-code`.
    pub code: Option<String>,
    /// The service's words, shortened, or the beginning of a body that is not in its form.
    pub message: String,
    /// The service's id for the request, from the body or the header `x-ms-request-id`.
    pub request_id: Option<String>,
    /// How long the service asks to wait. [`Duration::MAX`] stands for a number too large to hold.
    pub retry_after: Option<Duration>,
    /// How many times it was tried.
    pub attempts: u32,
    /// Whether a change, by this or an earlier attempt, may have been made.
    pub answer_was_lost: bool,
    pub(super) token_expired: Option<OffsetDateTime>,
    /// How long the client waits in all.
    pub(super) budget: Duration,
    pub(super) profile: &'static ServiceProfile,
}

impl ServiceError {
    fn remedy(&self) -> String {
        let ServiceProfile { short_name, role, .. } = self.profile;
        match self.status {
            401 => format!("Check that the token belongs to this {short_name} and was neither revoked nor expired"),
            403 => format!("Use a token whose role allows this, such as {role}"),
            404 => format!("Check the id and the {short_name}'s address"),
            409 => "It exists already or is being changed: read it, then decide".to_owned(),
            412 => "It has changed since it was read, or is gone: read it again and repeat the change with its new etag, or \
                    without one if it is gone"
                .to_owned(),
            422 => "The service read the request but does not accept its values: correct what it names".to_owned(),
            429 => {
                format!("Lower the rate of requests; everything that uses this {short_name} shares its limit")
            }
            500..=599 => "The fault is at the service: try again later".to_owned(),
            _ => "Correct what the service names".to_owned(),
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the service answered {}{}", self.operation, self.status, AttemptCount(self.attempts))?;
        match &self.code {
            Some(code) => write!(f, " {code}: ")?,
            None => f.write_str(": ")?,
        }
        f.write_str(if self.message.is_empty() { "it gave no reason" } else { self.message.trim_end_matches('.') })?;
        if let Some(id) = &self.request_id {
            write!(f, " (request id {id})")?;
        }
        f.write_str(". ")?;
        match &self.token_expired {
            Some(at) => write!(f, "The token expired at {}: make a new one in the application", rfc3339(at))?,
            None => f.write_str(&self.remedy())?,
        }
        match self.retry_after {
            Some(Duration::MAX) => f.write_str("; it asks to wait for longer than can be counted"),
            Some(asked) if asked > self.budget => write!(
                f,
                "; it asks to wait {} s, and this client waits {} s in all",
                asked.as_secs(),
                self.budget.as_secs()
            ),
            _ => Ok(()),
        }
    }
}

impl StdError for ServiceError {}

/// An answer that cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct AnswerError {
    /// The call.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The content type it came with.
    pub content_type: Option<String>,
    /// What is wrong with it.
    pub problem: AnswerProblem,
    /// How it begins. Left out where it looks like JSON: that may hold keys.
    pub excerpt: Option<String>,
    pub(super) profile: &'static ServiceProfile,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.content_type.as_deref().unwrap_or("no content type");
        write!(f, "{}: the answer {} ({kind}) cannot be read: {}", self.operation, self.status, self.problem)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "; it begins {excerpt:?}")?;
        }
        write!(f, ". Check that the address is that of {}", self.profile.name)
    }
}

impl StdError for AnswerError {}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerProblem {
    /// Larger than any true answer.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// How many bytes are read.
        limit: usize,
    },
    /// Not JSON, or JSON that breaks off.
    #[error("it is not JSON ({0})")]
    NotJson(String),
    /// JSON, but not what the API describes.
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
