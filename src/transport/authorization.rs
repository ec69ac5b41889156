//! The `Authorization` header: an API token, a bearer token, or a credential that renews its tokens.

use std::{fmt, pin::Pin, sync::Arc, time::SystemTime};

use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The scheme of an API token.
const API_TOKEN: &str = "SharedAccessSignature";

/// The scheme of a Microsoft Entra token (RFC 6750 section 2.1).
const BEARER: &str = "Bearer";

/// An expiry above this counts milliseconds: as seconds it would lie beyond the year 5000.
const MAX_SECONDS: i64 = 100_000_000_000;

/// What a request proves its right with. The token is wiped from memory when dropped, and never printed.
///
/// ```
/// use iot_enroll::central::Authorization;
///
/// let authorization = Authorization::parse("SharedAccessSignature sr=app&sig=abc&skn=ops&se=4102444800000")?;
/// assert_eq!(authorization.expires_at().unwrap().year(), 2100);
/// assert!(!format!("{authorization:?}").contains("abc"));
/// # Ok::<(), iot_enroll::central::AuthorizationError>(())
/// ```
#[derive(Clone)]
pub struct Authorization(Source);

#[derive(Clone)]
enum Source {
    /// The whole value of the header.
    Fixed(SecretString),
    Credential(Arc<dyn TokenCredential>),
}

/// Gives bearer tokens and renews them: for instance a Microsoft Entra credential for the scope
/// `https://apps.azureiotcentral.com/.default`.
pub trait TokenCredential: Send + Sync + 'static {
    /// A token that is valid now, without the word `Bearer`. Called once for each request, so keep a token that is still
    /// good.
    ///
    /// # Errors
    /// [`AuthorizationError::Credential`] with a text that holds no secret.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<SecretString, AuthorizationError>> + Send + '_>>;
}

impl Authorization {
    /// Takes the value of the header: an API token as the application shows it (`SharedAccessSignature …`), or
    /// `Bearer …`. It is sent as it is.
    ///
    /// # Errors
    /// [`AuthorizationError`], which never repeats the text, when it is neither of the two, has no token after the
    /// scheme, or has a line end, white space or another character that no token has. Trim what was read from a file.
    pub fn parse(text: impl Into<SecretString>) -> Result<Self, AuthorizationError> {
        let text = text.into();
        let value = text.expose_secret();
        if value.is_empty() {
            return Err(AuthorizationError::Empty);
        }
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if ![API_TOKEN, BEARER].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(AuthorizationError::Scheme);
        }
        check(token, scheme.len() + 2)?;
        Ok(Self(Source::Fixed(text)))
    }

    /// Takes a credential that gives a token for each request.
    #[must_use]
    pub fn from_credential(credential: impl TokenCredential) -> Self {
        Self(Source::Credential(Arc::new(credential)))
    }

    /// When an API token expires: its field `se`, in seconds or milliseconds since 1970. Nothing for other tokens.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        let expiry = self.field("se")?.parse::<i64>().ok()?;
        let seconds = if expiry > MAX_SECONDS { expiry / 1000 } else { expiry };
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    }

    /// When it expired, if it did.
    pub(super) fn expired(&self, now: SystemTime) -> Option<OffsetDateTime> {
        self.expires_at().filter(|at| *at <= OffsetDateTime::from(now))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let Source::Fixed(value) = &self.0 else { return None };
        let fields = value.expose_secret().split_once(' ')?.1;
        fields
            .split('&')
            .find_map(|field| field.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// The value of the header for one request.
    pub(super) async fn header(&self) -> Result<SecretString, AuthorizationError> {
        match &self.0 {
            Source::Fixed(value) => Ok(value.clone()),
            Source::Credential(credential) => {
                let token = credential.token().await?;
                check(token.expose_secret(), 1)?;
                Ok(format!("{BEARER} {}", token.expose_secret()).into())
            }
        }
    }
}

/// A token has no white space, control characters or anything beyond ASCII.
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
        })
    }
}

/// Why there is no token to send. No message repeats any part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// An empty text.
    #[error("the token is empty")]
    Empty,
    /// Neither an API token nor a bearer token.
    #[error(
        "the token is neither an API token, which begins with \"SharedAccessSignature \", nor a Microsoft Entra token, \
         which is written \"Bearer \" and the token"
    )]
    Scheme,
    /// Nothing after the scheme.
    #[error("nothing follows the first word of the token: copy the whole token")]
    NoToken,
    /// A character that no token has.
    #[error(
        "the token has a line end, white space or another character that no token has, at position {position}: \
         copy it again as one line"
    )]
    Character {
        /// Where, counted in characters from 1.
        position: usize,
    },
    /// An API token whose time is over.
    #[error("the token expired at {}: make a new one in the application", rfc3339(.at))]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// A credential that could give no token.
    #[error("the credential gave no token: {0}")]
    Credential(String),
}

pub(super) fn rfc3339(at: &OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}
