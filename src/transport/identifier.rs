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

        $crate::certificate::text_conversions!($name, $crate::certificate::NameError);
    )*};
}
pub(crate) use case_insensitive_name;
