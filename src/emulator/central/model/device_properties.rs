//! The properties of a device.

use serde::{Deserialize, Serialize};

/// The properties of a device that `$filter` and the queries of device groups can test.
///
/// ```
/// use iot_enroll::emulator::DeviceProperties;
///
/// let device = DeviceProperties::new("thermostat-1").simulated(true);
/// assert_eq!(device.display_name, "thermostat-1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceProperties {
    /// The ID: 1 to 128 letters, digits and `-` `.` `_` `:`, the first a letter or digit, the last a letter, digit or
    /// `-`.
    pub id: String,
    /// The display name. Default: the ID.
    pub display_name: String,
    /// The ID of the device template. Default: none.
    pub template: Option<String>,
    /// Whether the device may connect. Default: true.
    pub enabled: bool,
    /// Whether the device has registered at the Device Provisioning Service. Default: false.
    pub provisioned: bool,
    /// Whether the service simulates the device. Default: false.
    pub simulated: bool,
    /// The IDs of the organizations that the device belongs to. Default: none.
    pub organizations: Vec<String>,
    /// Whether the device is an IoT Edge device. Default: false.
    pub iot_edge: bool,
}

impl DeviceProperties {
    /// Creates the properties of an enabled device; everything else has its default.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            display_name: id.clone(),
            id,
            template: None,
            enabled: true,
            provisioned: false,
            simulated: false,
            organizations: Vec::new(),
            iot_edge: false,
        }
    }

    /// Sets the display name.
    #[must_use]
    pub fn display_name(self, name: impl Into<String>) -> Self {
        Self { display_name: name.into(), ..self }
    }

    /// Sets the ID of the device template.
    #[must_use]
    pub fn template(self, id: impl Into<String>) -> Self {
        Self { template: Some(id.into()), ..self }
    }

    /// Sets whether the device may connect.
    #[must_use]
    pub fn enabled(self, enabled: bool) -> Self {
        Self { enabled, ..self }
    }

    /// Sets whether the device has registered at the Device Provisioning Service.
    #[must_use]
    pub fn provisioned(self, provisioned: bool) -> Self {
        Self { provisioned, ..self }
    }

    /// Sets whether the service simulates the device.
    #[must_use]
    pub fn simulated(self, simulated: bool) -> Self {
        Self { simulated, ..self }
    }

    /// Sets the IDs of the organizations that the device belongs to.
    #[must_use]
    pub fn organizations<I: Into<String>>(self, ids: impl IntoIterator<Item = I>) -> Self {
        Self { organizations: ids.into_iter().map(Into::into).collect(), ..self }
    }

    /// Sets whether the device is an IoT Edge device.
    #[must_use]
    pub fn iot_edge(self, iot_edge: bool) -> Self {
        Self { iot_edge, ..self }
    }
}

/// Returns the key that device IDs are compared by: the case does not matter.
pub(crate) fn id_key(id: &str) -> String {
    id.to_ascii_lowercase()
}
