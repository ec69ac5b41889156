//! Queries for devices: filter, order and size.

use std::{fmt, marker::PhantomData, num::NonZeroU8, str::FromStr};

use super::endpoint::ApiVersion;
use crate::transport::setters;

/// A condition for devices: the `OData` expression of the parameter `$filter`.
///
/// ```
/// use iot_enroll::central::{Field, Filter};
///
/// let filter = Filter::field(Field::DISPLAY_NAME)
///     .contains("baker's")
///     .or(Filter::field(Field::ID).eq("device1"))
///     .and(Filter::field(Field::ENABLED).eq(true));
/// assert_eq!(
///     filter.to_string(),
///     "(contains(displayName, 'baker''s') ge 0 or id eq 'device1') and enabled eq true"
/// );
/// ```
///
/// The types rule out conditions that the service does not support:
///
/// ```compile_fail
/// # use iot_enroll::central::{Field, Filter};
/// Filter::field(Field::ENABLED).contains("x");
/// ```
///
/// The versions of the API differ in what they compare the result of `contains` with. Version 2022-07-31 compares it
/// with a number, like a position: `ge 0` if the text occurs, `lt 0` if not. (The documentation of the function
/// describes only this form; a request for another resource shows the function without a comparison.) Version
/// 2022-10-31-preview compares it with a boolean. [`to_text`](Self::to_text) writes either form, `Display` the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The expression for version 2022-07-31.
    numeric: String,
    /// The expression for version 2022-10-31-preview.
    boolean: String,
    binding: Binding,
}

/// The precedence of an expression's outermost operator, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    /// Unknown.
    Raw,
    Or,
    And,
    /// The expression has no operator.
    Single,
}

impl Filter {
    /// Starts a condition on a field.
    pub fn field<T>(field: Field<T>) -> Condition<T> {
        Condition(field)
    }

    /// Takes an expression unchanged. It is put in parentheses when it is combined with others.
    #[must_use]
    pub fn raw(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { numeric: text.clone(), boolean: text, binding: Binding::Raw }
    }

    /// Requires both conditions.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.join(" and ", other, Binding::And)
    }

    /// Requires one of the conditions.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.join(" or ", other, Binding::Or)
    }

    /// Returns the expression for a version of the API.
    #[must_use]
    pub fn to_text(&self, version: ApiVersion) -> &str {
        match version {
            ApiVersion::V2022_07_31 => &self.numeric,
            ApiVersion::V2022_10_31Preview => &self.boolean,
        }
    }

    fn join(self, operator: &str, other: Self, binding: Binding) -> Self {
        let (mut left, right) = (self.within(binding), other.within(binding));
        left.numeric.extend([operator, &right.numeric]);
        left.boolean.extend([operator, &right.boolean]);
        Self { binding, ..left }
    }

    /// Puts the expression in parentheses if an operator with this precedence would split it.
    fn within(self, binding: Binding) -> Self {
        if self.binding >= binding {
            return self;
        }
        let parenthesize = |text| format!("({text})");
        Self { numeric: parenthesize(self.numeric), boolean: parenthesize(self.boolean), binding: Binding::Single }
    }

    fn single(text: String) -> Self {
        Self { numeric: text.clone(), boolean: text, binding: Binding::Single }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.numeric)
    }
}

/// A field of devices to filter by, with its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<T> {
    name: &'static str,
    of: PhantomData<T>,
}

/// The type of text fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {}

/// The type of boolean fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boolean {}

impl<T> Field<T> {
    const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Returns the field as the service writes it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl Field<Text> {
    /// `id`: the ID.
    pub const ID: Self = Self::new("id");
    /// `displayName`: the display name.
    pub const DISPLAY_NAME: Self = Self::new("displayName");
    /// `template`: the ID of the device template.
    pub const TEMPLATE: Self = Self::new("template");
    /// `scopes`: the IDs of the organizations.
    pub const SCOPES: Self = Self::new("scopes");
}

impl Field<Boolean> {
    /// `enabled`: whether the device can connect.
    pub const ENABLED: Self = Self::new("enabled");
    /// `provisioned`: whether the device has connected.
    pub const PROVISIONED: Self = Self::new("provisioned");
    /// `simulated`: whether the application simulates the device.
    pub const SIMULATED: Self = Self::new("simulated");
}

/// The left side of a condition: a field to compare.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Condition<T>(Field<T>);

#[allow(clippy::should_implement_trait, reason = "the names are the service's")]
impl Condition<Text> {
    /// Matches if the field is equal to the text.
    #[must_use]
    pub fn eq(self, text: &str) -> Filter {
        self.compare("eq", text)
    }

    /// Matches if the field is not equal to the text.
    #[must_use]
    pub fn ne(self, text: &str) -> Filter {
        self.compare("ne", text)
    }

    /// Matches if the field sorts before the text.
    #[must_use]
    pub fn lt(self, text: &str) -> Filter {
        self.compare("lt", text)
    }

    /// Matches if the field is equal to the text or sorts before it.
    #[must_use]
    pub fn le(self, text: &str) -> Filter {
        self.compare("le", text)
    }

    /// Matches if the field sorts after the text.
    #[must_use]
    pub fn gt(self, text: &str) -> Filter {
        self.compare("gt", text)
    }

    /// Matches if the field is equal to the text or sorts after it.
    #[must_use]
    pub fn ge(self, text: &str) -> Filter {
        self.compare("ge", text)
    }

    /// Matches if the field contains the text.
    #[must_use]
    pub fn contains(self, text: &str) -> Filter {
        self.search(text, "ge 0", "eq true")
    }

    /// Matches if the field does not contain the text.
    #[must_use]
    pub fn does_not_contain(self, text: &str) -> Filter {
        self.search(text, "lt 0", "eq false")
    }

    fn compare(self, operator: &str, text: &str) -> Filter {
        Filter::single(format!("{} {operator} {}", self.0.name, quote(text)))
    }

    fn search(self, text: &str, numeric: &str, boolean: &str) -> Filter {
        let call = format!("contains({}, {})", self.0.name, quote(text));
        Filter { numeric: format!("{call} {numeric}"), boolean: format!("{call} {boolean}"), binding: Binding::Single }
    }
}

#[allow(clippy::should_implement_trait, reason = "the names are the service's")]
impl Condition<Boolean> {
    /// Matches if the field has this value.
    #[must_use]
    pub fn eq(self, value: bool) -> Filter {
        Filter::single(format!("{} eq {value}", self.0.name))
    }

    /// Matches if the field does not have this value.
    #[must_use]
    pub fn ne(self, value: bool) -> Filter {
        Filter::single(format!("{} ne {value}", self.0.name))
    }
}

/// Returns a text as a literal: in quotes, with quotes inside doubled (`OData` 4.01 ABNF, `string`).
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The order of a list: the parameter `$orderby`. The service sorts only by `displayName`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OrderBy {
    /// `displayName`
    DisplayName,
    /// `displayName desc`
    DisplayNameDescending,
}

impl OrderBy {
    /// Returns the order as the service reads it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DisplayName => "displayName",
            Self::DisplayNameDescending => "displayName desc",
        }
    }
}

impl fmt::Display for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderBy {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["displayName"] | ["displayName", "asc"] => Ok(Self::DisplayName),
            ["displayName", "desc"] => Ok(Self::DisplayNameDescending),
            _ => Err(QueryError::OrderBy(text.chars().take(64).collect())),
        }
    }
}

/// The maximum number of items on a page: the parameter `$top`, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Top(NonZeroU8);

impl Top {
    /// The service's maximum.
    pub const MAX: Self = Self(NonZeroU8::new(100).unwrap());

    /// Checks a number and returns it as the size of a page.
    ///
    /// # Errors
    /// [`QueryError::Top`] if it is not in the range 1 to 100.
    pub fn new(number: usize) -> Result<Self, QueryError> {
        let small = u8::try_from(number).ok().and_then(NonZeroU8::new).map(Self);
        small.filter(|top| *top <= Self::MAX).ok_or_else(|| QueryError::Top(number.to_string()))
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get() as usize
    }
}

impl Default for Top {
    /// Returns [`MAX`](Self::MAX), which needs the fewest requests.
    fn default() -> Self {
        Self::MAX
    }
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Top {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let refuse = |_| QueryError::Top(text.chars().take(32).collect());
        text.parse().map_err(refuse).and_then(Self::new)
    }
}

/// Explains why a query is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The service does not support the order.
    #[error("the service does not support the order {0:?}: use \"displayName\" or \"displayName desc\"")]
    OrderBy(String),
    /// The size of a page is out of range.
    #[error("a page has 1 to 100 items; found {0:?}")]
    Top(String),
}

/// Selects the devices to list, their order and their number.
///
/// ```
/// use iot_enroll::central::{DeviceQuery, Field, Filter, OrderBy};
///
/// let ten_by_name = DeviceQuery::new()
///     .filter(Filter::field(Field::PROVISIONED).eq(true))
///     .order_by(OrderBy::DisplayName)
///     .limit(10_usize);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeviceQuery {
    /// The condition for the devices. Default: all devices.
    pub filter: Option<Filter>,
    /// The order. Default: the service's order.
    pub order_by: Option<OrderBy>,
    /// The maximum number of devices on a page. Default: 100 (the service's own default is 25).
    pub top: Top,
    /// The maximum number of devices. Default: unlimited. No more pages are requested than it needs.
    pub limit: Option<usize>,
}

setters!(DeviceQuery {
    filter: Option<Filter>,
    order_by: Option<OrderBy>,
    top: Top,
    limit: Option<usize>,
});

impl DeviceQuery {
    /// Returns a query for all devices.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the query parameters for a version of the API.
    pub(super) fn parameters(&self, version: ApiVersion) -> Vec<(&'static str, String)> {
        let [filter, order_by, top] = match version {
            ApiVersion::V2022_07_31 => ["$filter", "$orderby", "$top"],
            ApiVersion::V2022_10_31Preview => ["filter", "orderby", "maxpagesize"],
        };
        let size = self.limit.map_or(self.top.get(), |limit| limit.min(self.top.get()));
        let parameters = [
            (filter, self.filter.as_ref().map(|it| it.to_text(version).to_owned())),
            (order_by, self.order_by.map(|it| it.to_string())),
            (top, Some(size.to_string())),
        ];
        parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
