//! Names of the CA certificates of an instance.

use serde::{Deserialize, Serialize};

use crate::{
    certificate::NameError,
    transport::{case_insensitive_name, check_name},
};

/// The maximum length of a certificate name.
pub const MAX_CERTIFICATE_NAME: usize = 64;

/// The name of a CA certificate of a provisioning service instance: 1 to 64 ASCII letters, digits and `-` `.` `_`.
///
/// This is the rule of the ARM template reference for `provisioningServices/certificates`. Names are compared without
/// regard to case, and keep the case in which they were written.
///
/// ```
/// use iot_enroll::dps::DpsCertificateName;
///
/// let name: DpsCertificateName = "root-2026".parse()?;
/// assert_eq!(name, "Root-2026".parse()?);
/// assert!("root 2026".parse::<DpsCertificateName>().is_err());
/// # Ok::<(), iot_enroll::certificate::NameError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DpsCertificateName(String);

impl DpsCertificateName {
    /// Checks a text and returns it as a name.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or contains another character, or if it is `.` or `..`, which a URL cannot
    /// contain.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let (what, rule) = ("a certificate name", "letters, digits and - . _");
        check_name(&text, what, rule, MAX_CERTIFICATE_NAME, |c| {
            c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
        })?;
        if matches!(text.as_str(), "." | "..") {
            return Err(NameError::Character { what, character: '.', position: 1, rule: "more than dots" });
        }
        Ok(Self(text))
    }
}

case_insensitive_name!(DpsCertificateName);
