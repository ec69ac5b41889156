//! The versions of the IoT Central API.

/// A version of the IoT Central API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiVersion {
    /// `2022-07-31`, which is generally available.
    Stable,
    /// `2022-10-31-preview`.
    Preview,
    /// `2022-06-30-preview`, which `az iot central device list` sends. Its list parameters are those of `2022-07-31`.
    Preview2022_06_30,
}

impl ApiVersion {
    pub(crate) const ALL: [Self; 3] = [Self::Stable, Self::Preview, Self::Preview2022_06_30];

    /// Returns the value of the query parameter `api-version`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "2022-07-31",
            Self::Preview => "2022-10-31-preview",
            Self::Preview2022_06_30 => "2022-06-30-preview",
        }
    }

    /// Returns whether devices have a type in this version.
    pub(crate) fn has_device_types(self) -> bool {
        self != Self::Stable
    }
}
