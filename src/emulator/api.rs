//! Which API a request is for, by its path.

use std::borrow::Cow;

use super::mqtt::WEBSOCKET_PATH;

/// An API on the emulator's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Central,
    DpsDevice,
    DpsService,
    Arm,
    /// What the services do not have: the emulator's own paths.
    Emulator,
}

/// The constant segments of Resource Manager's paths.
const ARM_SEGMENTS: &[&str] = &[
    "subscriptions",
    "resourceGroups",
    "providers",
    "Microsoft.Devices",
    "provisioningServices",
    "certificates",
    "generateVerificationCode",
    "verify",
    "listkeys",
    "keys",
];

/// The constant segments of the service API's paths, at the positions that have no ID.
const DPS_SERVICE_SEGMENTS: &[&str] =
    &["enrollmentGroups", "enrollments", "registrations", "attestationmechanism", "query"];

impl Api {
    /// Returns the API of a path.
    pub(super) fn from_path(path: &str) -> Self {
        if path == "/health" || path.starts_with("/__admin/") {
            return Self::Emulator;
        }
        let mut segments = path.split('/').skip(1);
        let first = segments.next().unwrap_or_default();
        let is_first = |name: &str| first.eq_ignore_ascii_case(name);
        if is_first("subscriptions") || is_first("providers") {
            Self::Arm
        } else if is_first("enrollmentGroups") || is_first("enrollments") || is_first("registrations") {
            Self::DpsService
        } else if path == WEBSOCKET_PATH || segments.next() == Some("registrations") && first != "api" {
            Self::DpsDevice
        } else {
            Self::Central
        }
    }

    /// Returns a path as the routes spell it.
    ///
    /// Resource Manager compares paths without regard to case. The service API does too, by choice, and both accept a
    /// slash at the end: the service SDK for Node.js sends `/enrollmentgroups/{id}/attestationmechanism` and
    /// `/enrollments/`.
    pub(super) fn canonical_path(self, path: &str) -> Cow<'_, str> {
        let (constants, is_constant): (_, fn(usize, &str) -> bool) = match self {
            Self::Central | Self::DpsDevice | Self::Emulator => return Cow::Borrowed(path),
            // IDs and names are at the odd positions, except in `providers/Microsoft.Devices/provisioningServices`.
            Self::Arm => (ARM_SEGMENTS, |position, segment| {
                position % 2 == 0 || segment.eq_ignore_ascii_case("Microsoft.Devices")
            }),
            Self::DpsService => (DPS_SERVICE_SEGMENTS, |position, _| position % 2 == 0),
        };
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        let mut canonical = String::with_capacity(path.len());
        for (position, segment) in trimmed.split('/').enumerate() {
            let constant = constants.iter().find(|constant| constant.eq_ignore_ascii_case(segment));
            canonical.push('/');
            canonical.push_str(constant.filter(|_| is_constant(position, segment)).copied().unwrap_or(segment));
        }
        Cow::Owned(canonical)
    }
}
