//! Why no answer arrived: what an HTTP client's error says about the connection.

use std::{error::Error as StdError, fmt, io};

use rustls::{CertificateError, pki_types::UnixTime};
use time::OffsetDateTime;

use crate::certificate::chain::moment;

/// Where on the way a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFailure {
    /// The host was not found or did not take the connection. Nothing was sent.
    Connect,
    /// TLS was not agreed on; above all, the server's certificate is not trusted. Nothing was sent.
    Tls,
    /// The server's certificate has expired or is not valid yet, by the clock here. Nothing was sent.
    CertificateOutOfTime,
    /// The time for an answer ran out.
    TimedOut,
    /// The connection ended before the answer did.
    Broken,
    /// The request cannot be written, as when its address is too long. Nothing was sent.
    Request,
    /// What was answered is not HTTP.
    NotHttp,
}

impl NetworkFailure {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::Request
        } else if is_not_http(error) {
            Self::NotHttp
        } else if error.is_connect() {
            if certificate_out_of_time(error).is_some() {
                Self::CertificateOutOfTime
            } else if is_tls(error) {
                Self::Tls
            } else {
                Self::Connect
            }
        } else if error.is_timeout() {
            Self::TimedOut
        } else {
            Self::Broken
        }
    }
}

/// TLS reports its failures as `InvalidData`, inside the connector's errors.
pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let within = error.downcast_ref::<io::Error>().is_some_and(|error| {
        error.kind() == io::ErrorKind::InvalidData || error.get_ref().is_some_and(|inner| is_tls(inner))
    });
    within || error.source().is_some_and(is_tls)
}

/// Returns what is wrong with the validity of a server's certificate, if that is why TLS failed.
pub(crate) fn certificate_out_of_time(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(problem)) = error.downcast_ref() {
        let at = |time: &UnixTime| {
            let seconds = i64::try_from(time.as_secs()).ok()?;
            OffsetDateTime::from_unix_timestamp(seconds).ok().map(moment)
        };
        let clock = |time| at(time).map_or_else(String::new, |time| format!(", and the clock here says {time}"));
        let when = |word: &str, time| at(time).map_or_else(String::new, |time| format!(" {word} {time}"));
        return match problem {
            CertificateError::Expired => Some("the server's certificate has expired".to_owned()),
            CertificateError::ExpiredContext { time, not_after } => {
                Some(format!("the server's certificate expired{}{}", when("at", not_after), clock(time)))
            }
            CertificateError::NotValidYet => Some("the server's certificate is not valid yet".to_owned()),
            CertificateError::NotValidYetContext { time, not_before } => {
                Some(format!("the server's certificate is not valid{}{}", when("until", not_before), clock(time)))
            }
            _ => None,
        };
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| certificate_out_of_time(inner)).or_else(|| error.source().and_then(certificate_out_of_time))
}

fn is_not_http(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) || error.source().is_some_and(is_not_http)
}

/// An error and its causes on one line, repetitions left out.
pub(crate) fn error_chain(error: &dyn StdError) -> String {
    let mut text = without_link(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = without_link(&error.to_string());
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The text without a link to the documentation of a library, which rustls adds to one of its errors.
fn without_link(text: &str) -> String {
    text.find(": https://docs.rs/").map_or(text, |link| &text[..link]).to_owned()
}

/// "after N attempts", where there was more than one.
pub(crate) struct AttemptCount(pub(crate) u32);

impl fmt::Display for AttemptCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " after {} attempts", self.0) } else { Ok(()) }
    }
}
