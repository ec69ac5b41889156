//! Shared access keys: connection strings, and the tokens that the keys sign.

use std::{fmt, str::FromStr, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::{address::Address, secret::Secret};
use crate::certificate::Timestamp;

/// The lifetime of a signed token. The service SDKs use the same.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// The key of a shared access policy, which signs tokens for the service that it belongs to.
///
/// Its memory is wiped when it is dropped, and `Debug` hides the key.
///
/// ```
/// use iot_enroll::transport::{Secret, SharedAccessKey};
///
/// let key = SharedAccessKey::new("provisioningserviceowner", &Secret::from("AAECAwQFBgcICQoLDA0ODw=="))?;
/// assert_eq!(format!("{key:?}"), "SharedAccessKey(provisioningserviceowner)");
/// # Ok::<(), iot_enroll::transport::SharedAccessKeyError>(())
/// ```
#[derive(Clone)]
pub struct SharedAccessKey {
    policy: String,
    key: Zeroizing<Vec<u8>>,
}

impl SharedAccessKey {
    /// Takes the name of a policy and its key in base64 (RFC 4648 section 4), as the service shows them.
    ///
    /// # Errors
    /// [`SharedAccessKeyError`] if the name is empty or has other than printable ASCII characters, or if the key is empty
    /// or not base64. The error never repeats the key.
    pub fn new(policy: impl Into<String>, key: &Secret) -> Result<Self, SharedAccessKeyError> {
        let policy = policy.into();
        if policy.is_empty() || !policy.chars().all(|c| c.is_ascii_graphic()) {
            return Err(SharedAccessKeyError::Policy);
        }
        let key = BASE64_STANDARD.decode(key.expose().trim()).map(Zeroizing::new);
        match key {
            Ok(key) if !key.is_empty() => Ok(Self { policy, key }),
            _ => Err(SharedAccessKeyError::Base64),
        }
    }

    /// Returns the name of the policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Signs a token for a host, with its port if it has one: the value of the header `Authorization`.
    ///
    /// A client that has the key signs its own tokens: see
    /// [`Authorization::from_shared_access_key`](super::Authorization::from_shared_access_key).
    #[must_use]
    pub fn token(&self, host: &str, expires_at: Timestamp) -> Secret {
        SharedAccessToken::sign(&self.key, host, &self.policy, expires_at).header
    }
}

impl fmt::Debug for SharedAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedAccessKey({})", self.policy)
    }
}

/// A signed token: the value of the header, and its secret part.
pub(crate) struct SharedAccessToken {
    pub(crate) header: Secret,
    pub(crate) signature: Secret,
}

impl SharedAccessToken {
    /// Signs a token for a resource: HMAC-SHA-256 of the encoded resource and the expiry, with the decoded key.
    pub(crate) fn sign(key: &[u8], resource: &str, policy: &str, expires_at: Timestamp) -> Self {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let resource = encoded(resource);
        let expiry = expires_at.unix_seconds();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        let signature = encoded(&BASE64_STANDARD.encode(signature));
        let policy = encoded(policy);
        let header = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}");
        Self { header: header.into(), signature: signature.into() }
    }
}

/// Explains why a shared access key cannot be used. No message repeats the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SharedAccessKeyError {
    /// The name of the policy is empty or contains an invalid character.
    #[error("the name of the shared access policy is empty, or has white space or characters outside ASCII")]
    Policy,
    /// The key is empty or not base64.
    #[error("the shared access key is not base64: copy it again, as one line")]
    Base64,
}

/// The connection string of a service: its host, and the key of a shared access policy.
///
/// `Debug` hides the key. A client with the [`Authorization`](super::Authorization) of a connection string sends tokens to
/// this host only.
///
/// ```
/// use iot_enroll::transport::ConnectionString;
///
/// let text = "HostName=contoso.azure-devices-provisioning.net;SharedAccessKeyName=ops;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==";
/// let connection: ConnectionString = text.parse()?;
/// assert_eq!(connection.host(), "contoso.azure-devices-provisioning.net");
/// assert!(!format!("{connection:?}").contains("AAECAwQ"));
/// # Ok::<(), iot_enroll::transport::ConnectionStringError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionString {
    host: String,
    key: SharedAccessKey,
}

impl ConnectionString {
    /// Returns the host in lower case, with its port if it has one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &SharedAccessKey {
        &self.key
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        let (mut host, mut policy, mut key) = (None, None, None);
        // Files of variables have the value in quotation marks.
        let text = text.trim().trim_matches(['"', '\'']);
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or(ConnectionStringError::Form)?;
            let field = match name.trim() {
                name if name.eq_ignore_ascii_case("HostName") => &mut host,
                name if name.eq_ignore_ascii_case("SharedAccessKeyName") => &mut policy,
                name if name.eq_ignore_ascii_case("SharedAccessKey") => &mut key,
                // Connection strings of other services have more fields.
                _ => continue,
            };
            if field.replace(value.trim()).is_some() {
                return Err(ConnectionStringError::Form);
            }
        }
        let given = |field: Option<_>, name| field.ok_or(ConnectionStringError::Missing(name));
        let (host, policy) = (given(host, "HostName")?, given(policy, "SharedAccessKeyName")?);
        let key = Secret::from(given(key, "SharedAccessKey")?);
        let address = Address::parse(&format!("https://{host}"), "").map_err(|_| ConnectionStringError::Host)?;
        Ok(Self { host: address.host().to_owned(), key: SharedAccessKey::new(policy, &key)? })
    }
}

/// Explains why a text is not a connection string. No message repeats any part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// It does not have the form `NAME=VALUE;…`, or has a field twice.
    #[error("the connection string does not have the form HostName=…;SharedAccessKeyName=…;SharedAccessKey=…")]
    Form,
    /// A field is missing.
    #[error("the connection string has no {0}: copy the primary connection string of a shared access policy")]
    Missing(&'static str),
    /// `HostName` is not a host.
    #[error("the HostName of the connection string is not the name of a host")]
    Host,
    /// The policy or its key cannot be used.
    #[error("in the connection string, {0}")]
    Key(#[from] SharedAccessKeyError),
}
