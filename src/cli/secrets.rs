//! Recognition of secrets by their form.

/// Returns whether a text has the form of a SAS token, bearer token, JSON Web Token, connection string or private key.
pub(super) fn is_secret(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']);
    let lower = text.to_ascii_lowercase();
    let bearer = lower.strip_prefix("bearer ").map(str::trim);
    lower.starts_with("sharedaccesssignature")
        || (lower.contains("sig=") && (lower.contains("sr=") || lower.contains("se=")))
        || bearer.is_some_and(|token| token.len() >= 16 && !token.contains(char::is_whitespace))
        || ["sharedaccesskey=", "accountkey=", "private key-----"].iter().any(|part| lower.contains(part))
        || is_json_web_token(text)
}

/// Returns whether a text has the form of RFC 7519 section 3: base64url parts separated by dots. The first is the header, a
/// JSON object, whose encoding starts with `eyJ`.
fn is_json_web_token(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.starts_with("eyJ")
        && text.len() >= 20
        && (2..=5).contains(&text.split('.').count())
        && text.bytes().all(|byte| is_base64url(byte) || byte == b'.')
}

/// Returns whether an invalid value may be a key or a password.
pub(super) fn may_be_secret(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    let random =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit) || text.ends_with('=');
    // A user name, or a query such as that of a shared access signature.
    let in_url = text.split_once("://").is_some_and(|(_, rest)| rest.contains(['@', '?', '#']));
    is_secret(text) || in_url || (text.len() >= 24 && text.bytes().all(is_base64) && random)
}
