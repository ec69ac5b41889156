//! The names in certificates and of their files: common names, device ids, and the original script's file names.

use std::{fmt, str::FromStr};

/// The most characters a common name may have (`ub-common-name`, RFC 5280 appendix A.1).
pub const MAX_COMMON_NAME: usize = 64;

/// The most bytes of the stem of a file's name: 255, the limit of most file systems, less the longest ending.
const MAX_STEM: usize = 240;

/// The most characters a registration id of the Device Provisioning Service may have.
pub const MAX_DEVICE_ID: usize = 128;

/// The common name of a certificate's subject: 1 to 64 characters, none of them a control character.
///
/// The length is `ub-common-name` of RFC 5280 appendix A.1, counted in characters and not in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommonName(String);

impl CommonName {
    /// Takes a text as a common name.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long, begins or ends with white space, or has a control character.
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
                rule: if is_unprintable(character) { "no control characters" } else { "no white space first or last" },
            }),
            None => Ok(Self(text)),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The stem of the files that belong to this name, as `create_test_cert.js` forms it: [`camel_case`].
    ///
    /// # Errors
    /// [`NameError`] when nothing is left of the name, or when a character in it has a meaning in paths.
    pub fn file_stem(&self) -> Result<String, NameError> {
        let forbidden = |c: &char| matches!(c, '/' | '\\') || (cfg!(windows) && r#":*?"<>|"#.contains(*c));
        if let Some((index, character)) = self.0.chars().enumerate().find(|(_, c)| forbidden(c)) {
            return Err(NameError::Character {
                what: "a name that files are called by",
                character,
                position: index + 1,
                rule: "nothing that has a meaning in paths",
            });
        }
        let stem = camel_case(&self.0);
        match stem.len() {
            0 => Err(NameError::NoStem(self.0.clone())),
            1..=MAX_STEM => Ok(stem),
            found => {
                Err(NameError::Length { what: "a name that files are called by (in bytes)", max: MAX_STEM, found })
            }
        }
    }
}

/// The ID of a device, which is its registration ID at the Device Provisioning Service: 1 to 128 letters, digits and
/// `-` `.` `_` `:`, the first a letter or digit, the last a letter, digit or `-`.
///
/// Microsoft's documents disagree about the last character. The article "Azure IoT Hub Device Provisioning Service
/// concepts" allows a letter, a digit or `-` there; the REST reference of the service allows no special character first or
/// last. An ID that one of them allows at its end is accepted, and the service decides.
///
/// The service compares IDs without regard to case; this type keeps the case it was given and compares exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// Takes a text as a device ID.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or has a character that is not allowed at its position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let what = "a device id";
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

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the common name of a certificate.
    ///
    /// # Errors
    /// [`NameError::Length`] when it has more than the 64 characters that X.509 allows there.
    pub fn common_name(&self) -> Result<CommonName, NameError> {
        CommonName::new(self.0.as_str())
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}
text!(CommonName);
text!(DeviceId);

/// Why a text may not be the name of something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or longer than the field allows.
    #[error("{what} has 1 to {max} characters, found {found}")]
    Length {
        /// What the name is for.
        what: &'static str,
        /// The most characters allowed.
        max: usize,
        /// The characters found.
        found: usize,
    },
    /// A character that may not stand where it stands.
    #[error("{what} has {rule}, found {character:?} at position {position}")]
    Character {
        /// What the name is for.
        what: &'static str,
        /// The character found.
        character: char,
        /// Where, counted in characters from 1.
        position: usize,
        /// What is allowed.
        rule: &'static str,
    },
    /// A name of separators alone, which leaves nothing to call a file by.
    #[error("{0:?} leaves nothing to name files by: it needs a character other than space, - . and _")]
    NoStem(String),
}

/// Control characters, and those that turn the direction of the text around them.
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

/// Camel case by the rule of the npm package `camelcase`, version 4.1, which `create_test_cert.js` names its files by.
///
/// White space around the text goes, words are the runs between `_` `.` `-` and space, and where the text mixes cases a
/// capital after a small letter begins a word and a run of capitals ends before its last one. All words are joined, all
/// but the first with a capital. Later versions of the package also begin a word after digits; the script does not use
/// them.
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
    let parted = if lower == text { lower } else { part_words(text).to_lowercase() };
    join_words(parted.trim_start_matches(is_separator))
}

fn is_separator(character: char) -> bool {
    matches!(character, '_' | '.' | '-' | ' ')
}

/// Puts a hyphen where a change of case begins a word. Characters without case count as both.
fn part_words(text: &str) -> String {
    let is_lower = |c: char| c.to_lowercase().eq([c]);
    let is_upper = |c: char| c.to_uppercase().eq([c]);
    let mut parted: Vec<char> = Vec::with_capacity(text.len() + 8);
    let (mut after_lower, mut after_upper, mut after_two_upper) = (false, false, false);
    for character in text.chars() {
        let letter = character.is_ascii_alphabetic();
        if after_lower && letter && is_upper(character) {
            parted.push('-');
            (after_lower, after_upper, after_two_upper) = (false, true, after_upper);
        } else if after_upper && after_two_upper && letter && is_lower(character) {
            parted.insert(parted.len() - 1, '-');
            (after_lower, after_upper, after_two_upper) = (true, false, false);
        } else {
            (after_lower, after_upper, after_two_upper) = (is_lower(character), is_upper(character), after_upper);
        }
        parted.push(character);
    }
    parted.into_iter().collect()
}

/// Removes each run of separators and makes the ASCII letter after it a capital. A run before anything else stays, but
/// for what precedes the last underscore in it: to the package's rule an underscore is itself the beginning of a word.
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
