//! Common names, device IDs, and the file names that are made of them.

use super::text_conversions::text_conversions;

/// The maximum length of a common name in characters (`ub-common-name`, RFC 5280 appendix A.1).
pub const MAX_COMMON_NAME: usize = 64;

/// The maximum length of a file stem in bytes: 255, the limit of most file systems, less the longest suffix.
const MAX_STEM: usize = 240;

/// The maximum length of a registration ID of the Device Provisioning Service in characters.
pub const MAX_DEVICE_ID: usize = 128;

/// The common name of a certificate: 1 to 64 characters without control characters, and without white space at either end.
///
/// The length is `ub-common-name` of RFC 5280 appendix A.1, counted in characters, not in bytes.
///
/// ```
/// use iot_enroll::certificate::CommonName;
///
/// let name: CommonName = "Test Root Cert".parse()?;
/// assert_eq!(name.file_stem()?, "testRootCert");
/// assert!(CommonName::try_from(" padded").is_err());
/// # Ok::<(), iot_enroll::certificate::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommonName(String);

impl CommonName {
    /// Creates a common name from text.
    ///
    /// # Errors
    /// Returns a [`NameError`] if the text is empty, too long, begins or ends with white space, or has a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let what = "a common name";
        let length = check_length(&text, what, MAX_COMMON_NAME)?;
        let bad = text
            .chars()
            .enumerate()
            .find(|&(index, c)| is_unprintable(c) || (c.is_whitespace() && (index == 0 || index + 1 == length)));
        match bad {
            Some((index, character)) => Err(NameError::Character {
                what,
                character,
                position: index + 1,
                rule: if is_unprintable(character) { "no control characters" } else { "no white space at either end" },
            }),
            None => Ok(Self(text)),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the stem of the file names for this name, as `create_test_cert.js` forms it: [`camel_case`].
    ///
    /// # Errors
    /// Returns a [`NameError`] if the stem is empty or too long, or if a character has a meaning in paths.
    pub fn file_stem(&self) -> Result<String, NameError> {
        let forbidden = |c: &char| matches!(c, '/' | '\\') || (cfg!(windows) && r#":*?"<>|"#.contains(*c));
        if let Some((index, character)) = self.0.chars().enumerate().find(|(_, c)| forbidden(c)) {
            return Err(NameError::Character {
                what: "a file name",
                character,
                position: index + 1,
                rule: "no character with a meaning in paths",
            });
        }
        let stem = camel_case(&self.0);
        match stem.len() {
            0 => Err(NameError::NoStem(self.0.clone())),
            1..=MAX_STEM => Ok(stem),
            found => Err(NameError::Length { what: "a file name (in bytes)", max: MAX_STEM, found }),
        }
    }
}

/// The ID of a device, which is also its registration ID at the Device Provisioning Service: 1 to 128 letters, digits and
/// `-` `.` `_` `:`. The first is a letter or digit, the last a letter, digit or `-`.
///
/// Microsoft's documents disagree about the last character. The article "Azure IoT Hub Device Provisioning Service
/// concepts" allows a letter, a digit or `-`; the REST reference of the service allows no special character at either end.
/// This type accepts what one of them allows, and leaves the decision to the service.
///
/// The service ignores case when it compares IDs. This type keeps the case and compares exactly.
///
/// ```
/// use iot_enroll::certificate::DeviceId;
///
/// let id = DeviceId::try_from("sensor-1")?;
/// assert_eq!(id.as_str(), "sensor-1");
/// assert!("sensor 1".parse::<DeviceId>().is_err());
/// # Ok::<(), iot_enroll::certificate::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// Creates a device ID from text.
    ///
    /// # Errors
    /// Returns a [`NameError`] if the text is empty, too long, or has a character that is not allowed at its position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let what = "a device ID";
        let length = check_length(&text, what, MAX_DEVICE_ID)?;
        for (index, character) in text.chars().enumerate() {
            let special = matches!(character, '-' | '.' | '_' | ':');
            let allowed = index > 0 && (character == '-' || index + 1 < length);
            if !(character.is_ascii_alphanumeric() || special && allowed) {
                let rule = match special {
                    false => "letters, digits and - . _ :",
                    true if index == 0 => "a letter or digit first",
                    true => "a letter, digit or - last",
                };
                return Err(NameError::Character { what, character, position: index + 1, rule });
            }
        }
        Ok(Self(text))
    }

    /// Returns the ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the ID as the common name of a certificate.
    ///
    /// # Errors
    /// Returns [`NameError::Length`] if the ID has more than the 64 characters that X.509 allows in a common name.
    pub fn common_name(&self) -> Result<CommonName, NameError> {
        CommonName::new(self.0.as_str())
    }
}

text_conversions!(CommonName, NameError);
text_conversions!(DeviceId, NameError);
#[cfg(feature = "serde")]
super::serde_text::impl_serde_as_text!(CommonName);
#[cfg(feature = "serde")]
super::serde_text::impl_serde_as_text!(DeviceId);

/// The reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty, or longer than the field allows.
    #[error("{what} has 1 to {max} characters, found {found}")]
    Length {
        /// What the text was read as.
        what: &'static str,
        /// The maximum length.
        max: usize,
        /// The length of the text.
        found: usize,
    },
    /// A character is not allowed at its position.
    #[error("{what} has {rule}, found {character:?} at position {position}")]
    Character {
        /// What the text was read as.
        what: &'static str,
        /// The character found.
        character: char,
        /// Its position in characters, counted from 1.
        position: usize,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A name has only separators, so that its file stem is empty.
    #[error("{0:?} cannot name files: it needs a character other than space, - . and _")]
    NoStem(String),
}

/// Returns whether a character is a control character, or changes the direction of text.
pub(super) fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_length(text: &str, what: &'static str, max: usize) -> Result<usize, NameError> {
    match text.chars().count() {
        found if found == 0 || found > max => Err(NameError::Length { what, max, found }),
        found => Ok(found),
    }
}

/// Converts text to camel case as the npm package `camelcase` 4.1 does, which `create_test_cert.js` uses for file names.
///
/// White space around the text is removed. Words are separated by `_` `.` `-` and space. In text of mixed case, a capital
/// after a small letter also starts a word, and a run of capitals ends before its last one. The words are joined, each
/// except the first with a capital. Later versions of the package also start a word after digits; the script does not use
/// those.
///
/// ```
/// use iot_enroll::certificate::camel_case;
///
/// assert_eq!(camel_case("sample-device-01"), "sampleDevice01");
/// assert_eq!(camel_case("Test Root Cert"), "testRootCert");
/// assert_eq!(camel_case("mytestrootcert"), "mytestrootcert");
/// ```
#[must_use]
pub fn camel_case(text: &str) -> String {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let lower = text.to_lowercase();
    if text.chars().count() == 1 {
        return lower;
    }
    let separated = if lower == text { lower } else { separate_words(text).to_lowercase() };
    join_words(separated.trim_start_matches(is_separator))
}

fn is_separator(character: char) -> bool {
    matches!(character, '_' | '.' | '-' | ' ')
}

/// Inserts a hyphen where a change of case starts a word. Characters without case count as both cases.
fn separate_words(text: &str) -> String {
    let is_lower = |c: char| c.to_lowercase().eq([c]);
    let is_upper = |c: char| c.to_uppercase().eq([c]);
    let mut separated: Vec<char> = Vec::with_capacity(text.len() + 8);
    let (mut after_lower, mut after_upper, mut after_two_upper) = (false, false, false);
    for character in text.chars() {
        let letter = character.is_ascii_alphabetic();
        if after_lower && letter && is_upper(character) {
            separated.push('-');
            (after_lower, after_upper, after_two_upper) = (false, true, after_upper);
        } else if after_upper && after_two_upper && letter && is_lower(character) {
            separated.insert(separated.len() - 1, '-');
            (after_lower, after_upper, after_two_upper) = (true, false, false);
        } else {
            (after_lower, after_upper, after_two_upper) = (is_lower(character), is_upper(character), after_upper);
        }
        separated.push(character);
    }
    separated.into_iter().collect()
}

/// Removes each run of separators and capitalizes the ASCII letter after it. A run before another character stays, from
/// its last underscore on: in the rule of the package, an underscore itself starts a word.
fn join_words(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_separator) {
        let (before, tail) = rest.split_at(start);
        joined.push_str(before);
        let after = tail.trim_start_matches(is_separator);
        let run = &tail[..tail.len() - after.len()];
        rest = after;
        match after.chars().next() {
            None => {}
            Some(next) if next.is_ascii_alphanumeric() => {
                joined.push(next.to_ascii_uppercase());
                rest = &after[1..];
            }
            Some(_) => joined.push_str(&run[run.rfind('_').unwrap_or(0)..]),
        }
    }
    joined.push_str(rest);
    joined
}
