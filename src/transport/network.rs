//! Why no answer arrived: what an HTTP client's error says about the connection, in words.

use std::{error::Error as StdError, fmt, io};

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, pki_types::UnixTime};

use crate::certificate::{Timestamp, chain::moment};

/// The stage at which a request failed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkFailure {
    /// The host was not found or refused the connection. Nothing was sent.
    Connect,
    /// The TLS handshake failed, for instance because the server's certificate is not trusted. Nothing was sent.
    Tls,
    /// The server's certificate has expired or is not valid yet, by the local clock. Nothing was sent.
    CertificateOutOfTime,
    /// No answer arrived in time.
    TimedOut,
    /// The connection broke before the answer was complete.
    Broken,
    /// The request cannot be written, for instance because its URL is too long. Nothing was sent.
    Request,
    /// The answer is not HTTP.
    NotHttp,
}

impl NetworkFailure {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::Request
        } else if is_not_http(error) {
            Self::NotHttp
        } else if error.is_connect() {
            match tls_error(error) {
                Some(TlsError::InvalidCertificate(problem)) if is_out_of_time(problem) => Self::CertificateOutOfTime,
                Some(_) => Self::Tls,
                None if is_tls(error) => Self::Tls,
                None => Self::Connect,
            }
        } else if error.is_timeout() {
            Self::TimedOut
        } else {
            Self::Broken
        }
    }

    /// Returns what happened. A host follows in the message.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect to",
            Self::Tls | Self::CertificateOutOfTime => "no trusted TLS connection to",
            Self::TimedOut => "no answer in time from",
            Self::Broken => "the connection broke before the answer from",
            Self::Request => "cannot write this request to",
            Self::NotHttp => "no HTTP answer from",
        }
    }
}

/// Returns whether TLS failed, which reports its failures as `InvalidData` inside the connector's errors.
pub(crate) fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let within = error.downcast_ref::<io::Error>().is_some_and(|error| {
        error.kind() == io::ErrorKind::InvalidData || error.get_ref().is_some_and(|inner| is_tls(inner))
    });
    within || error.source().is_some_and(is_tls)
}

/// Returns the TLS error among an error and its causes.
pub(super) fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let inner = || error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error
        .downcast_ref()
        .or_else(|| inner().and_then(|inner| tls_error(inner)))
        .or_else(|| error.source().and_then(tls_error))
}

fn is_not_http(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) || error.source().is_some_and(is_not_http)
}

/// Describes why a request failed. Names of types and variants of the libraries below never appear in it.
pub(crate) fn network_cause(error: &(dyn StdError + 'static)) -> String {
    match tls_error(error) {
        Some(error) => tls_cause(error),
        None if is_not_http(error) => "what arrived does not have the form of HTTP".to_owned(),
        None if is_cut(error) => "the server closed the connection".to_owned(),
        None => root_cause(error),
    }
}

/// Returns whether a connection ended without the closing messages of its protocol.
fn is_cut(error: &(dyn StdError + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
        || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
        || error.source().is_some_and(is_cut)
}

/// Returns the text of an error's innermost cause, which is mostly the operating system's.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

/// Returns whether a certificate was refused only because of its validity.
pub(crate) fn is_out_of_time(problem: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(problem, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// Describes why TLS failed.
pub(crate) fn tls_cause(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(problem) => certificate_cause(problem),
        TlsError::AlertReceived(alert) => alert_cause(*alert),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what it answered is not TLS and may be plain HTTP: check the address and port".to_owned()
        }
        TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol => {
            "the server supports no TLS version, cipher suite or protocol that this client supports".to_owned()
        }
        TlsError::NoCertificatesPresented => "the server presented no certificate".to_owned(),
        TlsError::InvalidMessage(_)
        | TlsError::InappropriateMessage { .. }
        | TlsError::InappropriateHandshakeMessage { .. }
        | TlsError::PeerMisbehaved(_)
        | TlsError::PeerSentOversizedRecord
        | TlsError::DecryptError => "the server's messages violate the TLS protocol".to_owned(),
        // Verifiers of the operating system report their own words so.
        TlsError::General(reason) => reason.clone(),
        _ => "TLS failed for a reason that has no name".to_owned(),
    }
}

/// Describes why the server's certificate was refused.
fn certificate_cause(problem: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok()?;
        Timestamp::from_unix_seconds(seconds).map(moment)
    };
    let clock = |time| at(time).map_or_else(String::new, |time| format!(", and the clock here says {time}"));
    let when = |word: &str, time| at(time).map_or_else(String::new, |time| format!(" {word} {time}"));
    let plain = match problem {
        CertificateError::Expired => "the server's certificate has expired",
        CertificateError::ExpiredContext { time, not_after } => {
            return format!("the server's certificate expired{}{}", when("at", not_after), clock(time));
        }
        CertificateError::NotValidYet => "the server's certificate is not valid yet",
        CertificateError::NotValidYetContext { time, not_before } => {
            return format!("the server's certificate is not valid{}{}", when("until", not_before), clock(time));
        }
        CertificateError::UnknownIssuer => "the server's certificate was not issued by a trusted CA",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another host name"
        }
        CertificateError::Revoked => "the server's certificate is revoked",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate does not allow server authentication (serverAuth)"
        }
        CertificateError::BadSignature => "the CA that the server's certificate names has not signed it",
        CertificateError::BadEncoding => "the server's certificate is malformed",
        CertificateError::UnhandledCriticalExtension => {
            "the server's certificate has a critical extension that is not supported"
        }
        _ => {
            "the server's certificate does not meet the rules for servers, for instance because it is a CA certificate"
        }
    };
    plain.to_owned()
}

/// Describes an alert that ended a connection (RFC 8446 section 6.2, RFC 5246 section 7.2.2).
fn alert_cause(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not know the issuer of the certificate (unknown_ca)",
        AlertDescription::BadCertificate => "it found the certificate invalid (bad_certificate)",
        AlertDescription::CertificateUnknown => "it does not accept the certificate (certificate_unknown)",
        AlertDescription::CertificateExpired => "it found the certificate expired (certificate_expired)",
        AlertDescription::CertificateRevoked => "it found the certificate revoked (certificate_revoked)",
        AlertDescription::UnsupportedCertificate => {
            "it does not support this kind of certificate (unsupported_certificate)"
        }
        AlertDescription::CertificateRequired => "it requires a client certificate (certificate_required)",
        AlertDescription::AccessDenied => "it denied access (access_denied)",
        AlertDescription::DecryptError => "it could not verify a signature (decrypt_error)",
        AlertDescription::HandshakeFailure => {
            "it found no acceptable combination of security parameters (handshake_failure)"
        }
        AlertDescription::ProtocolVersion => "it does not support this version of TLS (protocol_version)",
        AlertDescription::UnrecognisedName => "it does not serve this host name (unrecognized_name)",
        AlertDescription::InternalError => "it failed internally (internal_error)",
        other => return format!("the server ended the TLS connection with alert {}", u8::from(other)),
    };
    format!("the server ended the TLS connection: {meaning}")
}

/// Prints " after N attempts" if there was more than one.
pub(crate) struct AttemptCount(pub(crate) u32);

impl fmt::Display for AttemptCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " after {} attempts", self.0) } else { Ok(()) }
    }
}
