//! Symmetric keys: derived for each device from its group's, and the tokens they sign.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use form_urlencoded::byte_serialize;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::IdScope;
use crate::certificate::DeviceId;

/// How many bytes a key has: what the Device Provisioning Service takes.
const MIN_KEY: usize = 16;
const MAX_KEY: usize = 64;

/// How long a token is good: longer than a registration may take.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// A symmetric key of a device or of an enrollment group. Its memory is wiped when it is dropped, and `Debug` hides it.
///
/// Two keys are compared in constant time.
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

impl SymmetricKey {
    /// Reads a key in base64 (RFC 4648 section 4), as the services show it. White space around it does not count.
    ///
    /// # Errors
    /// [`SymmetricKeyError`], which never repeats the text.
    pub fn from_base64(text: &str) -> Result<Self, SymmetricKeyError> {
        let key = BASE64_STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| SymmetricKeyError::Base64)?;
        match key.len() {
            MIN_KEY..=MAX_KEY => Ok(Self(key)),
            found => Err(SymmetricKeyError::Length(found)),
        }
    }

    /// The key in base64.
    #[must_use]
    pub fn to_base64(&self) -> SecretString {
        BASE64_STANDARD.encode(&*self.0).into()
    }

    /// A token by which a device registers: `sr` is its registration, `skn` is `registration`.
    pub(super) fn token(&self, scope: &IdScope, id: &DeviceId, now: SystemTime) -> RegistrationToken {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let resource = encoded(&format!("{scope}/registrations/{id}"));
        let expiry = now + TOKEN_LIFETIME;
        let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let signature = BASE64_STANDARD.encode(self.sign(format!("{resource}\n{expiry}").as_bytes()));
        let signature = encoded(&signature);
        let header = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration");
        RegistrationToken { header: header.into(), signature: signature.into() }
    }

    fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), text)
    }
}

/// A token, and the part of it that is secret.
pub(super) struct RegistrationToken {
    pub(super) header: SecretString,
    pub(super) signature: SecretString,
}

/// The key of one device of an enrollment group: HMAC-SHA-256 of the registration id under the group's key.
///
/// The id counts as it is written: `Sensor-1` and `sensor-1` have different keys.
///
/// ```
/// use iot_enroll::dps::device::{SymmetricKey, derive_device_key};
/// use secrecy::ExposeSecret;
///
/// let group = SymmetricKey::from_base64("8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==")?;
/// let key = derive_device_key(&group, &"sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".parse()?);
/// assert_eq!(key.to_base64().expose_secret(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn derive_device_key(group_key: &SymmetricKey, id: &DeviceId) -> SymmetricKey {
    SymmetricKey(Zeroizing::new(group_key.sign(id.as_str().as_bytes()).as_ref().to_vec()))
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey")
    }
}

/// Why a text is not a symmetric key. No message repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SymmetricKeyError {
    /// Not base64.
    #[error("the symmetric key is not base64: copy it again, as one line")]
    Base64,
    /// Too short or too long.
    #[error("a symmetric key has {MIN_KEY} to {MAX_KEY} bytes, found {0}")]
    Length(usize),
}
