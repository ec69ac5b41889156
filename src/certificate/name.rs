//! Distinguished names (RFC 5280 section 4.1.2.4).

use std::fmt;

use x509_parser::x509::X509Name;

/// A distinguished name (RFC 5280 section 4.1.2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    der: Vec<u8>,
    text: String,
    common_name: Option<String>,
}

impl Name {
    pub(super) fn from_parsed(name: &X509Name<'_>) -> Self {
        Self {
            der: name.as_raw().to_vec(),
            text: name.to_string(),
            common_name: name.iter_common_name().last().and_then(|cn| cn.as_str().ok()).map(str::to_owned),
        }
    }

    /// The name as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The last common name in it, where there is one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Whether it is the same name, disregarding how its text is encoded, its case and repeated white space (RFC 5280
    /// section 7.1).
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let folded = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        self.der == other.der || folded(&self.text) == folded(&other.text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
