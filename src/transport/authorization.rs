//! The `Authorization` header: a fixed token, a credential that renews its tokens, or a key that signs them.

use std::{fmt, pin::Pin, sync::Arc, time::SystemTime};

use super::{
    secret::Secret,
    shared_access::{ConnectionString, SharedAccessKey, TOKEN_LIFETIME},
};
use crate::certificate::Timestamp;

/// The scheme of API tokens and of tokens signed with a shared key (SAS).
const SHARED_ACCESS_SIGNATURE: &str = "SharedAccessSignature";

/// The scheme of Microsoft Entra tokens (RFC 6750 section 2.1).
const BEARER: &str = "Bearer";

/// An expiry above this counts milliseconds: as seconds it would lie beyond the year 5000.
const MAX_SECONDS: i64 = 100_000_000_000;

/// Authorizes requests: holds a token, a credential that provides tokens, or a key that signs them. `Debug` hides them.
///
/// ```
/// use iot_enroll::transport::Authorization;
///
/// let authorization = Authorization::parse("SharedAccessSignature sr=app&sig=abc&skn=ops&se=4102444800000")?;
/// assert_eq!(authorization.expires_at().unwrap().to_string(), "2100-01-01T00:00:00Z");
/// assert!(!format!("{authorization:?}").contains("abc"));
/// # Ok::<(), iot_enroll::transport::AuthorizationError>(())
/// ```
#[derive(Clone)]
pub struct Authorization(Source);

#[derive(Clone)]
enum Source {
    /// The whole value of the header.
    Fixed(Secret),
    Credential(Arc<dyn TokenCredential>),
    SharedAccess {
        key: SharedAccessKey,
        /// The only host that tokens are sent to, if the key came with one.
        host: Option<String>,
    },
}

/// Provides bearer tokens and renews them, such as a Microsoft Entra credential.
pub trait TokenCredential: Send + Sync + 'static {
    /// Returns a valid token, without the word `Bearer`.
    ///
    /// It is called for each request, so an implementation should cache its token until it is about to expire.
    ///
    /// # Errors
    /// [`AuthorizationError::Credential`]. Its text must not contain a secret.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Secret, AuthorizationError>> + Send + '_>>;
}

impl Authorization {
    /// Takes the value of the header: `SharedAccessSignature …`, as an application shows its API tokens, or `Bearer …`.
    /// It is sent unchanged. Trim what was read from a file.
    ///
    /// # Errors
    /// [`AuthorizationError`] if the scheme is another, if no token follows it, or if the token contains white space, a
    /// control character or a character outside ASCII. The error never repeats the text.
    pub fn parse(text: impl Into<Secret>) -> Result<Self, AuthorizationError> {
        let text = text.into();
        let value = text.expose();
        if value.is_empty() {
            return Err(AuthorizationError::Empty);
        }
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if ![SHARED_ACCESS_SIGNATURE, BEARER].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(AuthorizationError::Scheme);
        }
        check(token, scheme.len() + 2)?;
        Ok(Self(Source::Fixed(text)))
    }

    /// Takes a credential, which is asked for a token before each request.
    #[must_use]
    pub fn from_credential(credential: impl TokenCredential) -> Self {
        Self(Source::Credential(Arc::new(credential)))
    }

    /// Takes the key of a shared access policy. It signs a token for the host of each request, which is valid for an hour.
    #[must_use]
    pub fn from_shared_access_key(key: SharedAccessKey) -> Self {
        Self(Source::SharedAccess { key, host: None })
    }

    /// Takes the key of a connection string. A client of another host than the connection string's cannot be built.
    #[must_use]
    pub fn from_connection_string(connection: &ConnectionString) -> Self {
        let host = Some(connection.host().to_owned());
        Self(Source::SharedAccess { key: connection.key().clone(), host })
    }

    /// Returns when a `SharedAccessSignature` token expires: its field `se`, in seconds or milliseconds since 1970.
    /// Returns `None` for other tokens.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let expiry = self.field("se")?.parse::<i64>().ok()?;
        let seconds = if expiry > MAX_SECONDS { expiry / 1000 } else { expiry };
        Timestamp::from_unix_seconds(seconds)
    }

    /// Returns when the token expired, if it did.
    pub(super) fn expired(&self, now: SystemTime) -> Option<Timestamp> {
        self.expires_at().filter(|at| *at <= now.into())
    }

    fn field(&self, name: &str) -> Option<&str> {
        let Source::Fixed(value) = &self.0 else { return None };
        let fields = value.expose().split_once(' ')?.1;
        fields
            .split('&')
            .find_map(|field| field.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// Returns whether requests are authorized by a shared access signature.
    pub(super) fn is_shared_access(&self) -> bool {
        match &self.0 {
            Source::Fixed(value) => {
                let scheme = value.expose().split(' ').next();
                scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SHARED_ACCESS_SIGNATURE))
            }
            Source::Credential(_) => false,
            Source::SharedAccess { .. } => true,
        }
    }

    /// Checks that tokens may be sent to a host.
    pub(super) fn check_host(&self, found: &str) -> Result<(), AuthorizationError> {
        match &self.0 {
            Source::SharedAccess { host: Some(host), .. } if !host.eq_ignore_ascii_case(found) => {
                Err(AuthorizationError::OtherHost { expected: host.clone(), found: found.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Returns the value of the header for one request to a host.
    pub(super) async fn header(&self, now: SystemTime, host: &str) -> Result<Secret, AuthorizationError> {
        match &self.0 {
            Source::Fixed(value) => Ok(value.clone()),
            Source::Credential(credential) => {
                let token = credential.token().await?;
                check(token.expose(), 1)?;
                Ok(format!("{BEARER} {}", token.expose()).into())
            }
            // A signature takes microseconds, so tokens are not cached.
            Source::SharedAccess { key, .. } => Ok(key.token(host, Timestamp::from(now) + TOKEN_LIFETIME)),
        }
    }
}

/// Checks that a token has printable ASCII characters only. Counts positions from `first_position`.
fn check(token: &str, first_position: usize) -> Result<(), AuthorizationError> {
    if token.is_empty() {
        return Err(AuthorizationError::NoToken);
    }
    match token.chars().position(|c| !c.is_ascii_graphic()) {
        Some(index) => Err(AuthorizationError::Character { position: first_position + index }),
        None => Ok(()),
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Fixed(_) => "Authorization(token)",
            Source::Credential(_) => "Authorization(credential)",
            Source::SharedAccess { .. } => "Authorization(key)",
        })
    }
}

/// Explains why no token can be sent. No message repeats any part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// The text is empty.
    #[error("the token is empty")]
    Empty,
    /// The text is neither an API token nor a bearer token.
    #[error(
        "the token is neither an API token, which begins with \"SharedAccessSignature \", nor a Microsoft Entra token, \
         which begins with \"Bearer \""
    )]
    Scheme,
    /// No token follows the scheme.
    #[error("the token ends after its first word: copy the whole token")]
    NoToken,
    /// The token contains a character that no token has.
    #[error(
        "the token contains white space, a line break or another invalid character at position {position}: copy it again \
         as one line"
    )]
    Character {
        /// The position of the character, counted in characters from 1.
        position: usize,
    },
    /// The token has expired.
    #[error("the token expired at {at}: generate a new one")]
    Expired {
        /// When it expired.
        at: Timestamp,
    },
    /// The connection string belongs to another host.
    #[error("the connection string is for the host {expected}, not for {found}: use that of the same instance")]
    OtherHost {
        /// The host of the connection string.
        expected: String,
        /// The host of the client.
        found: String,
    },
    /// A credential could not provide a token.
    #[error("the credential provided no token: {0}")]
    Credential(String),
}
