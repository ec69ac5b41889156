//! Names of subscriptions, resource groups and instances.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    certificate::NameError,
    transport::{case_insensitive_name, check_name},
};

/// The provider and type of an instance in its resource ID.
const PROVIDER: &str = "Microsoft.Devices";
const TYPE: &str = "provisioningServices";

/// The ID of a subscription: a UUID, such as `00000000-0000-0000-0000-000000000001`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// Checks a text and returns it as an ID.
    ///
    /// # Errors
    /// [`NameError`] if it is not 32 hexadecimal digits in five groups with hyphens between them.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        const LENGTH: usize = "00000000-0000-0000-0000-000000000000".len();
        let text = text.into();
        let what = "a subscription ID";
        let rule = "32 hexadecimal digits, grouped as in 00000000-0000-0000-0000-000000000000";
        check_name(&text, what, rule, LENGTH, |c| c.is_ascii_hexdigit() || c == '-')?;
        let misplaced = text.chars().enumerate().find(|(index, c)| (*c == '-') != matches!(index, 8 | 13 | 18 | 23));
        match misplaced {
            Some((index, character)) => Err(NameError::Character { what, character, position: index + 1, rule }),
            None if text.len() < LENGTH => Err(NameError::Length { what, max: LENGTH, found: text.len() }),
            None => Ok(Self(text)),
        }
    }
}

/// The name of a resource group: 1 to 90 letters, digits and `-` `.` `_` `(` `)`, without a dot at the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceGroupName(String);

impl ResourceGroupName {
    /// Checks a text and returns it as a name.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or has a character that is not allowed at its position.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let (what, rule) = ("a resource group name", "letters, digits and - . _ ( )");
        check_name(&text, what, rule, 90, |c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '(' | ')'))?;
        if text.ends_with('.') {
            let position = text.chars().count();
            return Err(NameError::Character { what, character: '.', position, rule: "no dot at the end" });
        }
        Ok(Self(text))
    }
}

/// The name of an instance of the Device Provisioning Service: 1 to 64 ASCII letters, digits and hyphens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

impl InstanceName {
    /// Checks a text and returns it as a name.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, too long, or contains another character.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let (what, rule) = ("the name of a DPS instance", "letters, digits and hyphens");
        check_name(&text, what, rule, 64, |c| c.is_ascii_alphanumeric() || c == '-')?;
        Ok(Self(text))
    }
}

case_insensitive_name!(SubscriptionId ResourceGroupName InstanceName);

/// The resource ID of an instance. It is compared without regard to case.
///
/// ```
/// use iot_enroll::arm::InstanceId;
///
/// let id: InstanceId = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/lab\
///                       /providers/Microsoft.Devices/provisioningServices/contoso-dps"
///     .parse()?;
/// assert_eq!(id.name.as_str(), "contoso-dps");
/// # Ok::<(), iot_enroll::arm::InstanceIdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The subscription that it belongs to.
    pub subscription: SubscriptionId,
    /// The resource group that it belongs to.
    pub resource_group: ResourceGroupName,
    /// Its name.
    pub name: InstanceName,
}

impl InstanceId {
    /// Returns the path of the resource, followed by more segments.
    pub(super) fn path<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut path = instances_path(&self.subscription, Some(&self.resource_group));
        path.push(self.name.as_str());
        path.extend(more);
        path
    }
}

/// Returns the path of the instances of a subscription or resource group.
pub(super) fn instances_path<'a>(
    subscription: &'a SubscriptionId,
    resource_group: Option<&'a ResourceGroupName>,
) -> Vec<&'a str> {
    let mut path = vec!["subscriptions", subscription.as_str()];
    if let Some(group) = resource_group {
        path.extend(["resourceGroups", group.as_str()]);
    }
    path.extend(["providers", PROVIDER, TYPE]);
    path
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.path(&[]).join("/"))
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        let segments: Vec<_> = text.trim_matches('/').split('/').collect();
        let fixed = [(0, "subscriptions"), (2, "resourceGroups"), (4, "providers"), (5, PROVIDER), (6, TYPE)];
        if segments.len() != 8 || !fixed.iter().all(|(index, name)| segments[*index].eq_ignore_ascii_case(name)) {
            return Err(InstanceIdError::Form);
        }
        Ok(Self {
            subscription: segments[1].parse()?,
            resource_group: segments[3].parse()?,
            name: segments[7].parse()?,
        })
    }
}

/// Explains why a text is not the resource ID of an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceIdError {
    /// It does not have the form of one.
    #[error(
        "a resource ID of a DPS instance has the form \
         /subscriptions/ID/resourceGroups/NAME/providers/{PROVIDER}/{TYPE}/NAME"
    )]
    Form,
    /// A name in it is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
}
