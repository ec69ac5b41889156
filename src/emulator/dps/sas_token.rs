//! The shared access signature (SAS) tokens of devices.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{certificate::Timestamp, emulator::central::model::SymmetricKey};

/// A token for a device that has not expired: `SharedAccessSignature sr=…&sig=…&se=…&skn=registration`.
///
/// Choice: the policy name `skn` is optional, since the Python SDK omits it. Another name is an error.
pub(crate) struct SasToken {
    /// The signed text: the resource as it is spelled in the token, a line feed, the expiry.
    signed: String,
    signature: Vec<u8>,
}

impl SasToken {
    /// Parses a token and checks that it is for the device and has not expired.
    pub(crate) fn parse(text: &str, id_scope: &str, id: &str, now: Timestamp) -> Option<Self> {
        let fields = text.strip_prefix("SharedAccessSignature ")?;
        let raw = |name: &str| {
            let mut values = fields.split('&').filter_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            values.next().filter(|_| values.next().is_none())
        };
        // A plus sign is literal: a client that does not escape base64 does not mean a space.
        let decoded = |name: &str| {
            let encoded = raw(name)?.replace('+', "%2B").replace('=', "%3D");
            form_urlencoded::parse(encoded.as_bytes()).next().map(|(text, _)| text.into_owned())
        };
        let (resource, expiry) = (raw("sr")?, raw("se")?);
        let has_skn = fields.split('&').any(|field| field == "skn" || field.starts_with("skn="));
        let expected = format!("{id_scope}/registrations/{id}");
        let is_valid = decoded("sr")?.eq_ignore_ascii_case(&expected)
            && (!has_skn || decoded("skn")? == "registration")
            && expiry.parse::<i64>().is_ok_and(|expiry| expiry > now.unix_seconds());
        let signature = BASE64_STANDARD.decode(decoded("sig")?).ok()?;
        is_valid.then(|| Self { signed: format!("{resource}\n{expiry}"), signature })
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
