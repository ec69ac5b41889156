//! Makes text from a service fit for a message.

use super::secret::Secret;

/// The most characters of an answer that a message repeats.
const MAX_EXCERPT: usize = 300;

/// Makes text from a service fit for a message: puts it on one line, shortens it, and removes the request's secrets in
/// case the service repeats them.
pub(crate) fn sanitize(text: &str, secrets: &[Secret]) -> String {
    let secrets = secrets.iter().map(Secret::expose).filter(|secret| !secret.is_empty());
    let clean = secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"));
    let line = clean.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_EXCERPT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns what serde says about an answer, without the values it quotes, which may be keys.
pub(crate) fn without_values(error: &serde_json::Error) -> String {
    let text = without_type_name(error.to_string());
    match (text.find('"'), text.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &text[..=first], &text[last..]),
        _ => text,
    }
}

/// Replaces "expected struct Page with 2 elements", which names a type of this crate, by "expected an object".
fn without_type_name(text: String) -> String {
    let Some((before, rest)) = text.split_once("expected struct ") else { return text };
    let rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    let rest = match rest.strip_prefix(" with ").and_then(|rest| rest.split_once(" element")) {
        Some((_, rest)) => rest.strip_prefix('s').unwrap_or(rest),
        None => rest,
    };
    format!("{before}expected an object{rest}")
}
