//! Shared access signature (SAS) tokens.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{certificate::Timestamp, emulator::credential::SymmetricKey};

/// Decodes a percent-encoded text. A plus sign is literal: a client that does not escape base64 does not mean a space.
pub(crate) fn percent_decode(text: &str) -> String {
    let escaped = text.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
}

/// A token that has not expired: `SharedAccessSignature sr=…&sig=…&se=…&skn=…`.
pub(crate) struct SasToken {
    /// The resource (`sr`), decoded.
    pub(crate) resource: String,
    /// The name of the policy (`skn`), decoded.
    pub(crate) policy: Option<String>,
    /// The signed text: the resource as it is spelled in the token, a line feed, the expiry.
    signed: String,
    signature: Vec<u8>,
}

impl SasToken {
    /// Parses a token and checks that it has not expired.
    pub(crate) fn parse(text: &str, now: Timestamp) -> Option<Self> {
        let fields = text.strip_prefix("SharedAccessSignature ")?;
        let raw = |name: &str| {
            let mut values = fields.split('&').filter_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            values.next().filter(|_| values.next().is_none())
        };
        let decoded = |name: &str| raw(name).map(percent_decode);
        let (resource, expiry) = (raw("sr")?, raw("se")?);
        let has_policy = fields.split('&').any(|field| field == "skn" || field.starts_with("skn="));
        expiry.parse::<i64>().ok().filter(|expiry| *expiry > now.unix_seconds())?;
        Some(Self {
            resource: decoded("sr")?,
            policy: if has_policy { Some(decoded("skn")?) } else { None },
            signed: format!("{resource}\n{expiry}"),
            signature: BASE64_STANDARD.decode(decoded("sig")?).ok()?,
        })
    }

    /// Returns whether the token is for a device.
    ///
    /// Choice: the policy name is optional, since the Python SDK omits it. A name other than `registration` is an error.
    pub(crate) fn is_for_device(&self, id_scope: &str, id: &str) -> bool {
        self.resource.eq_ignore_ascii_case(&format!("{id_scope}/registrations/{id}"))
            && self.policy.as_deref().is_none_or(|policy| policy == "registration")
    }

    /// Returns whether one of the keys signed the token.
    pub(crate) fn is_signed_with(&self, key: &SymmetricKey) -> bool {
        key.keys().any(|key| self.is_signed_by(&key))
    }

    /// Returns whether a key that is derived for the device from one of a group's keys signed the token.
    pub(crate) fn is_signed_with_derived(&self, group: &SymmetricKey, id: &str) -> bool {
        group.keys().any(|key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let derived = |id: &str| hmac::sign(&key, id.as_bytes());
            [derived(id), derived(&id.to_ascii_lowercase())].iter().any(|key| self.is_signed_by(key.as_ref()))
        })
    }

    fn is_signed_by(&self, key: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok()
    }
}
