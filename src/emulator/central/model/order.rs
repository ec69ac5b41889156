//! The order of lists of devices and device templates.

/// The order of a list.
///
/// Choice: without `$orderby`, resources are sorted by ID, devices by ID in lower case. Names are sorted by code
/// points, equal ones by ID. Descending order is the exact reverse of ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Id,
    DisplayName,
    DisplayNameDescending,
}

impl Order {
    /// Parses the value of `$orderby`, without regard to case, as `$filter` is.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (field, direction, more) = (words.next()?, words.next().unwrap_or("asc"), words.next());
        match direction.to_ascii_lowercase().as_str() {
            _ if more.is_some() || !field.eq_ignore_ascii_case("displayName") => None,
            "asc" => Some(Self::DisplayName),
            "desc" => Some(Self::DisplayNameDescending),
            _ => None,
        }
    }

    /// Returns the sort key of a resource.
    pub(crate) fn key(self, display_name: &str, id: &str) -> Vec<String> {
        match self {
            Self::Id => vec![id.to_owned()],
            Self::DisplayName | Self::DisplayNameDescending => vec![display_name.to_owned(), id.to_owned()],
        }
    }
}
