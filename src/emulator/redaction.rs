//! Removes secrets from recorded requests and responses.

use axum::http::{HeaderMap, HeaderName};
use serde_json::{Map, Value, json};

/// What is shown instead of a secret.
const REDACTED: &str = "(redacted)";

/// Parts of the names of headers, parameters and members whose values are secret, in lower case.
const SECRET_NAMES: [&str; 7] = ["auth", "cookie", "token", "secret", "password", "signature", "connectionstring"];

/// Names with values that are not secret although they look so: the public keys of a TPM, the position in a list, and what
/// describes a credential.
const PUBLIC_NAMES: [&str; 5] =
    ["endorsementkey", "storagerootkey", "$skiptoken", "certificateauthorityname", "x-ms-continuation"];

/// Parts of texts that are secret wherever they are, in lower case.
const SECRET_PARTS: [&str; 5] = ["sharedaccess", "sig=", "bearer ", "private key-----", "accountkey="];

/// Removes secrets by the names of members and by the content of texts.
pub(super) struct Redaction<'a> {
    /// Texts that are secret wherever they are.
    secrets: Vec<&'a str>,
}

impl<'a> Redaction<'a> {
    pub(super) fn new(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        Self { secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect() }
    }

    /// Returns a text, or [`REDACTED`] if it contains a secret.
    pub(super) fn text(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let is_secret = SECRET_PARTS.iter().any(|part| lower.contains(part))
            || self.secrets.iter().any(|secret| text.contains(secret));
        if is_secret { REDACTED.to_owned() } else { text.to_owned() }
    }

    /// Returns the headers as an object. Values of repeated headers are separated by commas.
    pub(super) fn headers(&self, headers: &HeaderMap) -> Value {
        let value = |name: &HeaderName| {
            let values = headers.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(", ")
        };
        headers.keys().map(|name| (name.to_string(), json!(self.named(name.as_str(), &value(name))))).collect()
    }

    /// Returns the parameters of a query as an array of names and values.
    pub(super) fn query(&self, query: &str) -> Value {
        form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| json!([self.text(&name), self.named(&name, &value)]))
            .collect()
    }

    /// Returns a body that is JSON. In anything else, secrets could not be found.
    pub(super) fn body(&self, body: &[u8]) -> Option<Value> {
        serde_json::from_slice(body).ok().map(|value| self.value(value))
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => json!(self.text(&text)),
            Value::Array(all) => all.into_iter().map(|value| self.value(value)).collect(),
            Value::Object(members) => Value::Object(self.members(members)),
            other => other,
        }
    }

    fn members(&self, members: Map<String, Value>) -> Map<String, Value> {
        let member = |(name, value): (String, Value)| {
            let value = if is_secret_name(&name) { self.secret(value) } else { self.value(value) };
            (self.text(&name), value)
        };
        members.into_iter().map(member).collect()
    }

    /// Removes all texts and numbers below a member with a secret name.
    fn secret(&self, value: Value) -> Value {
        match value {
            Value::Array(all) => all.into_iter().map(|value| self.secret(value)).collect(),
            Value::Object(members) => {
                let member = |(name, value): (String, Value)| (self.text(&name), self.secret(value));
                Value::Object(members.into_iter().map(member).collect())
            }
            Value::String(_) | Value::Number(_) => json!(REDACTED),
            other => other,
        }
    }

    fn named(&self, name: &str, value: &str) -> String {
        if is_secret_name(name) { REDACTED.to_owned() } else { self.text(value) }
    }
}

/// Returns whether the value of a header, parameter or member is secret by its name.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !PUBLIC_NAMES.contains(&name.as_str())
        && (name.ends_with("key")
            || name == "sig"
            || name == "verificationcode"
            || SECRET_NAMES.iter().any(|part| name.contains(part)))
}
