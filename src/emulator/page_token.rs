//! The opaque tokens of pages: where the next page starts, authenticated by a key of the emulator.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Creates the token for the page after a sort key of a listing.
pub(super) fn seal(key: &hmac::Key, listing: &str, after: &[String]) -> String {
    let after = json!(after).to_string();
    let tag = hmac::sign(key, format!("{listing}\n{after}").as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode([tag.as_ref(), after.as_bytes()].concat())
}

/// Returns the sort key in a token. `None` if the token is not for this listing.
pub(super) fn open(key: &hmac::Key, listing: &str, token: &str) -> Option<Vec<String>> {
    let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (tag, after) = token.split_at_checked(hmac::HMAC_SHA256.digest_algorithm().output_len())?;
    let after = str::from_utf8(after).ok()?;
    hmac::verify(key, format!("{listing}\n{after}").as_bytes(), tag).ok()?;
    let Value::Array(parts) = serde_json::from_str(after).ok()? else { return None };
    parts.into_iter().map(|part| part.as_str().map(str::to_owned)).collect()
}
