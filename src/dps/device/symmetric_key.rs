//! Symmetric keys: the derivation of device keys, and the tokens that they sign.

use std::{fmt, time::SystemTime};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::id_scope::IdScope;
use crate::{
    certificate::{DeviceId, Timestamp},
    transport::{Secret, SharedAccessToken, TOKEN_LIFETIME},
};

/// The length of a key in bytes that the Device Provisioning Service accepts.
const MIN_KEY: usize = 16;
const MAX_KEY: usize = 64;

/// A symmetric key of a device or of an enrollment group.
///
/// Its memory is wiped when it is dropped, `Debug` hides it, and keys are compared in constant time.
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

impl SymmetricKey {
    /// Parses a key in base64 (RFC 4648 section 4), as the services show it. Ignores white space around it.
    ///
    /// # Errors
    /// [`SymmetricKeyError`] if it is not base64 or has another length. The error never repeats the text.
    pub fn from_base64(text: &str) -> Result<Self, SymmetricKeyError> {
        let key = BASE64_STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| SymmetricKeyError::Base64)?;
        match key.len() {
            MIN_KEY..=MAX_KEY => Ok(Self(key)),
            found => Err(SymmetricKeyError::Length(found)),
        }
    }

    /// Returns the key in base64.
    #[must_use]
    pub fn to_base64(&self) -> Secret {
        BASE64_STANDARD.encode(&*self.0).into()
    }

    /// Returns a token with which a device registers: `sr` is its registration, `skn` is `registration`.
    pub(super) fn token(&self, scope: &IdScope, id: &DeviceId, now: SystemTime) -> SharedAccessToken {
        let expires_at = Timestamp::from(now) + TOKEN_LIFETIME;
        SharedAccessToken::sign(&self.0, &format!("{scope}/registrations/{id}"), "registration", expires_at)
    }
}

/// Derives the key of a device from the key of its enrollment group: HMAC-SHA-256 of the registration ID.
///
/// Case matters: `Sensor-1` and `sensor-1` have different keys.
///
/// ```
/// use iot_enroll::dps::device::{SymmetricKey, derive_device_key};
/// ///
/// let group = SymmetricKey::from_base64("8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==")?;
/// let key = derive_device_key(&group, &"sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".parse()?);
/// assert_eq!(key.to_base64().expose(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn derive_device_key(group_key: &SymmetricKey, id: &DeviceId) -> SymmetricKey {
    derive_key(group_key, id.as_str())
}

/// Derives the key for any ID, as [`derive_device_key`] does: an application has devices whose IDs are no registration IDs.
pub(crate) fn derive_key(group_key: &SymmetricKey, id: &str) -> SymmetricKey {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &group_key.0);
    SymmetricKey(Zeroizing::new(hmac::sign(&key, id.as_bytes()).as_ref().to_vec()))
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

/// Explains why a text is not a symmetric key. No message repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SymmetricKeyError {
    /// It is not base64.
    #[error("the symmetric key is not base64: copy it again, as one line")]
    Base64,
    /// It is too short or too long.
    #[error("a symmetric key has {MIN_KEY} to {MAX_KEY} bytes; found {0}")]
    Length(usize),
}
