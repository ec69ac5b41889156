//! The error of a registration, with what was observed on the way.

use std::{error::Error as StdError, fmt, time::Duration};

use super::{Cause, assignment::Assignment, operational::IssuedCertificateError};
use crate::{
    certificate::{Certificate, DeviceId, Timestamp},
    transport::{AnswerProblem, AttemptCount, NetworkFailure},
};

/// The error of a registration. [`diagnose`](super::diagnose) finds its cause.
///
/// No message contains a key or a token.
#[derive(Debug)]
#[non_exhaustive]
pub struct RegistrationError {
    /// The device.
    pub id: DeviceId,
    /// What failed.
    pub kind: RegistrationErrorKind,
    /// What was observed on the way.
    pub observations: Box<Observations>,
}

/// What failed in a registration.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistrationErrorKind {
    /// Nothing was sent, because the service would certainly refuse it.
    NotSent(Box<Cause>),
    /// No answer arrived.
    Network {
        /// The stage at which the request failed.
        failure: NetworkFailure,
        /// Why it failed.
        cause: String,
        /// The number of requests.
        attempts: u32,
    },
    /// The service refused the request.
    Refused(Box<Refusal>),
    /// The service accepted the request, and the registration failed.
    Ended {
        /// The service's status: `failed` or `disabled`.
        status: String,
        /// The service's error code.
        error_code: Option<u64>,
        /// The service's message.
        message: String,
    },
    /// The device was not assigned in time.
    TimedOut {
        /// The time limit of a registration.
        budget: Duration,
        /// How long the service last asked to wait.
        asked: Duration,
    },
    /// The service answered with a redirect, which was not followed.
    Redirect {
        /// The HTTP status of the answer.
        status: u16,
        /// The host that the redirect points to, or the text found in its place.
        target: String,
    },
    /// An answer arrived that cannot be read.
    Answer {
        /// The HTTP status.
        status: u16,
        /// What is wrong with the answer.
        problem: AnswerProblem,
        /// The start of the answer.
        excerpt: String,
    },
    /// The device is registered, but the certificate that it was issued cannot be used.
    IssuedCertificate {
        /// Where the device is assigned. Its certificate chain is `None`.
        assignment: Box<Assignment>,
        /// What is wrong with the certificate.
        error: IssuedCertificateError,
    },
    /// TLS cannot be set up.
    Tls(String),
}

/// The service's error answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The service's error code, such as 401002.
    pub error_code: Option<u64>,
    /// The service's ID of the request, which its support asks for.
    pub tracking_id: Option<String>,
    /// The service's message, shortened; or the start of the body if it does not have the service's form.
    pub message: String,
    /// How long the service asks to wait.
    pub retry_after: Option<Duration>,
    /// The number of requests.
    pub attempts: u32,
}

/// What was observed during a registration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Observations {
    /// The host, with the port unless it is the scheme's default.
    pub host: String,
    /// The time of the local clock at the end.
    pub at: Timestamp,
    /// The `Date` header of the last answer.
    pub server_date: Option<Timestamp>,
    /// The certificate that the server presented, if it can be parsed.
    pub server_certificate: Option<Certificate>,
    /// Why that certificate was not trusted, if it was not.
    pub distrust: Option<Distrust>,
    /// Whether the server requested a client certificate in the TLS handshake.
    pub asked_for_certificate: bool,
    /// Whether the last request was answered, at least in part.
    pub answered: bool,
}

impl Observations {
    /// Returns the date of the last answer, unless the server's certificate refutes it: the certificate is valid by the
    /// local clock and not at that date.
    pub(super) fn credible_date(&self) -> Option<Timestamp> {
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
    /// It has expired or is not valid yet, by the local clock.
    OutOfTime,
    /// For another reason, such as an unknown issuer or another host name. The text names it.
    Other(String),
}

impl RegistrationError {
    /// Returns whether nothing was sent, because the service would certainly refuse it.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        matches!(self.kind, RegistrationErrorKind::NotSent(_))
    }

    /// Returns whether the service or the network failed, and not the device: no connection, a broken connection, a
    /// time-out, or an answer 429 or 5xx. Other devices are likely to fail the same way.
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

    /// Returns the HTTP status of the answer that this error is about.
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

    /// Returns the service's error code, such as 401002.
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
        if let Kind::IssuedCertificate { assignment, error } = &self.kind {
            return write!(
                f,
                "{} is registered at {}, but the certificate that the service issued cannot be used: {error}",
                self.id, assignment.assigned_hub
            );
        }
        write!(f, "{} was not registered: ", self.id)?;
        match &self.kind {
            Kind::NotSent(cause) => write!(f, "nothing was sent: {cause}"),
            Kind::Network { failure, cause, attempts } => {
                write!(f, "{} {}{}: {cause}", failure.summary(), self.observations.host, AttemptCount(*attempts))?;
                // The diagnosis explains failures of TLS.
                f.write_str(match failure {
                    NetworkFailure::Connect => {
                        ". Check the address of the provisioning service, and the network and proxy settings of this machine"
                    }
                    NetworkFailure::TimedOut | NetworkFailure::Broken => ". Register again; registration is idempotent",
                    NetworkFailure::NotHttp => ". Check the address of the provisioning service",
                    NetworkFailure::Tls | NetworkFailure::CertificateOutOfTime | NetworkFailure::Request => "",
                })
            }
            Kind::Refused(refusal) => refusal.fmt(f),
            Kind::Ended { status, error_code, message } => {
                write!(f, "the service ended the registration as {status}")?;
                if let Some(code) = error_code {
                    write!(f, " with code {code}")?;
                }
                if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
            }
            Kind::TimedOut { budget, asked } => write!(
                f,
                "not assigned within {} s, the time limit of a registration; the service last asked to wait {}. Register \
                 again; registration is idempotent",
                budget.as_secs(),
                Wait(*asked)
            ),
            Kind::Redirect { status, target } => write!(
                f,
                "the service answered {status}, a redirect to {target}; redirects are not followed. Check the address of \
                 the provisioning service"
            ),
            Kind::Answer { status, problem, excerpt } => {
                write!(f, "cannot read the answer {status}: {problem}")?;
                if !excerpt.is_empty() {
                    write!(f, "; it starts with {excerpt:?}")?;
                }
                f.write_str(". Check that the address is that of a Device Provisioning Service")
            }
            Kind::Tls(reason) => write!(f, "cannot set up TLS: {reason}"),
            // Printed above: the device was registered.
            Kind::IssuedCertificate { error, .. } => error.fmt(f),
        }
    }
}

impl StdError for RegistrationError {}

impl Refusal {
    /// Returns whether the service does not know the operation, or no longer does.
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
        write!(f, ": {}", if message.is_empty() { "no reason given" } else { message })?;
        if let Some(id) = &self.tracking_id {
            write!(f, " (tracking ID {id})")?;
        }
        match self.retry_after {
            Some(wait) if !wait.is_zero() => write!(f, ". Register again after {}, as the service asks", Wait(wait)),
            _ => Ok(()),
        }
    }
}

/// Prints a waiting time. A service may ask for an absurd one.
struct Wait(Duration);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if self.0 > DAY { f.write_str("more than a day") } else { write!(f, "{} s", self.0.as_secs()) }
    }
}
