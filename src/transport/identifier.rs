//! Names that services compare without regard to case.

use crate::certificate::NameError;

/// Checks a name: its length, then its characters.
pub(crate) fn check_name(
    text: &str,
    what: &'static str,
    rule: &'static str,
    max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    let found = text.chars().count();
    if found == 0 || found > max {
        return Err(NameError::Length { what, max, found });
    }
    match text.chars().enumerate().find(|(_, character)| !allowed(*character)) {
        Some((index, character)) => Err(NameError::Character { what, character, position: index + 1, rule }),
        None => Ok(()),
    }
}

/// Implements the traits of a name that is kept as it was written and compared without regard to ASCII case. The type has
/// one field, a `String`, and a function `new`.
macro_rules! case_insensitive_name {
    ($($name:ident)*) => {$(
        impl $name {
            /// Returns the text as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                let lower = |name: &Self| name.0.to_ascii_lowercase();
                lower(self).cmp(&lower(other))
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.to_ascii_lowercase().hash(state);
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::certificate::NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = crate::certificate::NameError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = crate::certificate::NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}
pub(crate) use case_insensitive_name;
