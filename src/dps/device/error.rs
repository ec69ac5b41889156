//! What became of a registration that did not succeed, and what was seen on the way.

use std::{error::Error as StdError, fmt, time::Duration};

use time::OffsetDateTime;

use super::Cause;
use crate::{
    certificate::{Certificate, DeviceId},
    transport::{AnswerProblem, AttemptCount, NetworkFailure},
};

/// Why a device was not registered. [`diagnose`](super::diagnose) tells the cause behind it.
///
/// Messages name what was found; none holds a key or a token.
#[derive(Debug)]
#[non_exhaustive]
pub struct RegistrationError {
    /// The device.
    pub id: DeviceId,
    /// What happened.
    pub kind: RegistrationErrorKind,
    /// What was seen on the way.
    pub observations: Box<Observations>,
}

/// What happened to a registration that did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistrationErrorKind {
    /// Nothing was sent, since the service is certain to refuse it.
    NotSent(Box<Cause>),
    /// No answer arrived.
    Network {
        /// Where on the way it failed.
        failure: NetworkFailure,
        /// What the operating system and the protocols said, outermost first.
        cause: String,
        /// How many requests were sent.
        attempts: u32,
    },
    /// The service refused.
    Refused(Box<Refusal>),
    /// The service took the registration up, and it came to a bad end.
    Ended {
        /// Its end as the service calls it: `failed`, `disabled`.
        status: String,
        /// The service's code.
        error_code: Option<u64>,
        /// The service's words.
        message: String,
    },
    /// The device was not assigned in time.
    TimedOut {
        /// The time that a registration has.
        budget: Duration,
        /// How long the service asked to wait last.
        asked: Duration,
    },
    /// The service sent the request elsewhere, and it was not followed.
    Redirect {
        /// The status of the answer.
        status: u16,
        /// The host it leads to, or what stands in its place.
        target: String,
    },
    /// An answer arrived that cannot be read.
    Answer {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        problem: AnswerProblem,
        /// How it begins.
        excerpt: String,
    },
    /// TLS cannot be set up here.
    Tls(String),
}

/// The service's refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The service's code, such as 401002.
    pub error_code: Option<u64>,
    /// The service's id for the request, by which its operators find it.
    pub tracking_id: Option<String>,
    /// The service's words, shortened, or the beginning of a body that is not in its form.
    pub message: String,
    /// How long the service asks to wait.
    pub retry_after: Option<Duration>,
    /// How many requests were sent.
    pub attempts: u32,
}

/// What was seen on the way of a registration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Observations {
    /// The host that was spoken to, with the port where it is not the scheme's own.
    pub host: String,
    /// What the clock here said at the end.
    pub at: OffsetDateTime,
    /// The `Date` of the last answer.
    pub server_date: Option<OffsetDateTime>,
    /// The certificate that the server presented, where it can be read.
    pub server_certificate: Option<Certificate>,
    /// Why that certificate was not trusted, if it was not.
    pub distrust: Option<Distrust>,
    /// Whether the server asked for a client certificate in the TLS handshake.
    pub asked_for_certificate: bool,
    /// Whether the last request was answered, at least in part.
    pub answered: bool,
}

impl Observations {
    /// The date of the last answer, unless the server's certificate shows that it is wrong: it is valid by the clock here
    /// and not by that date.
    pub(super) fn credible_date(&self) -> Option<OffsetDateTime> {
        let date = self.server_date?;
        let refuted = self.server_certificate.as_ref().is_some_and(|certificate| {
            let is_valid = |at| certificate.not_before() <= at && at <= certificate.not_after();
            is_valid(self.at) && !is_valid(date)
        });
        (!refuted).then_some(date)
    }
}

/// Why a server's certificate was not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distrust {
    /// It is not valid now, by the clock here.
    OutOfTime,
    /// Anything else, above all an unknown issuer or another name.
    Other(String),
}

impl RegistrationError {
    /// Whether nothing was sent, since the service was certain to refuse.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        matches!(self.kind, RegistrationErrorKind::NotSent(_))
    }

    /// Returns whether the service failed or the way there, and not the device: no connection, a connection that broke, a
    /// time-out, or an answer 429 or 5xx. Registering another device is likely to fail the same way.
    #[must_use]
    pub fn is_service_failure(&self) -> bool {
        match &self.kind {
            RegistrationErrorKind::Network { failure, .. } => match failure {
                NetworkFailure::Connect | NetworkFailure::TimedOut | NetworkFailure::Broken => true,
                NetworkFailure::Tls
                | NetworkFailure::CertificateOutOfTime
                | NetworkFailure::Request
                | NetworkFailure::NotHttp => false,
            },
            RegistrationErrorKind::TimedOut { .. } => true,
            RegistrationErrorKind::Refused(refusal) => refusal.status == 429 || refusal.status >= 500,
            _ => false,
        }
    }

    /// The HTTP status of the answer, where one arrived that belongs to this failure.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.kind {
            RegistrationErrorKind::Refused(refusal) => Some(refusal.status),
            RegistrationErrorKind::Redirect { status, .. } | RegistrationErrorKind::Answer { status, .. } => {
                Some(*status)
            }
            _ => None,
        }
    }

    /// The service's code for the failure, such as 401002.
    #[must_use]
    pub fn error_code(&self) -> Option<u64> {
        match &self.kind {
            RegistrationErrorKind::Refused(refusal) => refusal.error_code,
            RegistrationErrorKind::Ended { error_code, .. } => *error_code,
            _ => None,
        }
    }
}

impl fmt::Display for RegistrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RegistrationErrorKind as Kind;
        write!(f, "{} was not registered: ", self.id)?;
        match &self.kind {
            Kind::NotSent(cause) => write!(f, "nothing was sent: {cause}"),
            Kind::Network { failure, cause, attempts } => {
                let what = match failure {
                    NetworkFailure::Connect => "no connection to",
                    NetworkFailure::Tls | NetworkFailure::CertificateOutOfTime => "no TLS connection to",
                    NetworkFailure::TimedOut => "no answer in time from",
                    NetworkFailure::Broken => "the connection ended before the answer from",
                    NetworkFailure::Request => "no request can be made of this to",
                    NetworkFailure::NotHttp => "what is not HTTP came from",
                };
                write!(f, "{what} {}{}: {cause}", self.observations.host, AttemptCount(*attempts))?;
                match failure {
                    NetworkFailure::Connect => f.write_str(
                        ". Check the address of the provisioning service, and the network and proxy settings here",
                    ),
                    NetworkFailure::TimedOut | NetworkFailure::Broken => {
                        f.write_str("; to register again does no harm")
                    }
                    NetworkFailure::NotHttp => f.write_str(". Check the address of the provisioning service"),
                    NetworkFailure::Tls | NetworkFailure::CertificateOutOfTime | NetworkFailure::Request => Ok(()),
                }
            }
            Kind::Refused(refusal) => refusal.fmt(f),
            Kind::Ended { status, error_code, message } => {
                write!(f, "the service ended it as {status}")?;
                if let Some(code) = error_code {
                    write!(f, " with code {code}")?;
                }
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            Kind::TimedOut { budget, asked } => write!(
                f,
                "the service was still assigning it and asked to wait {}, and a registration has {} s in all; to \
                 register again does no harm",
                Wait(*asked),
                budget.as_secs()
            ),
            Kind::Redirect { status, target } => write!(
                f,
                "answered {status}, a redirect to {target}; redirects are not followed. Check the address of the \
                 provisioning service"
            ),
            Kind::Answer { status, problem, excerpt } => {
                write!(f, "the answer {status} cannot be read: {problem}")?;
                if !excerpt.is_empty() {
                    write!(f, "; it begins {excerpt:?}")?;
                }
                f.write_str(". Check that the address is that of a Device Provisioning Service")
            }
            Kind::Tls(reason) => write!(f, "TLS cannot be set up: {reason}"),
        }
    }
}

impl StdError for RegistrationError {}

impl Refusal {
    /// Whether the service does not know the operation that it was asked for, or not any more.
    pub(super) fn is_operation_gone(&self) -> bool {
        self.error_code == Some(404_202)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered {}{}", self.status, AttemptCount(self.attempts))?;
        if let Some(code) = self.error_code {
            write!(f, " with code {code}")?;
        }
        let message = self.message.trim_end_matches('.');
        write!(f, ": {}", if message.is_empty() { "it gave no reason" } else { message })?;
        if let Some(id) = &self.tracking_id {
            write!(f, " (tracking id {id})")?;
        }
        match self.retry_after {
            Some(wait) if !wait.is_zero() => write!(f, ". It asks to wait {}: register again after that", Wait(wait)),
            _ => Ok(()),
        }
    }
}

/// A time to wait, which a service may have made up.
struct Wait(Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if self.0 > DAY { f.write_str("more than a day") } else { write!(f, "{} s", self.0.as_secs()) }
    }
}
