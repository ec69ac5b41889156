//! What a list of devices shall hold: filter, order, size.

use std::{fmt, marker::PhantomData, num::NonZeroU8, str::FromStr};

use super::endpoint::ApiVersion;

/// A condition that devices of a list meet: the `OData` expression of the parameter `$filter`.
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
/// What the service does not know cannot be written:
///
/// ```compile_fail
/// # use iot_enroll::central::{Field, Filter};
/// Filter::field(Field::ENABLED).contains("x");
/// ```
///
/// Two versions of the API compare the result of `contains` with different things. 2022-07-31 compares it with a number,
/// as one does a position: `ge 0` where the text is there, `lt 0` where it is not. The documentation also shows it bare
/// once, but in a request for another resource; only the compared form is in its description of the function.
/// 2022-10-31-preview compares it with a boolean. [`to_text`](Self::to_text) writes either; `Display` writes the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// As 2022-07-31 reads it.
    numeric: String,
    /// As 2022-10-31-preview reads it.
    boolean: String,
    binding: Binding,
}

/// How the outermost operator of an expression holds it together, the loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    /// Not known.
    Raw,
    Or,
    And,
    /// There is none.
    Single,
}

impl Filter {
    /// Begins a condition on a field.
    pub fn field<T>(field: Field<T>) -> Condition<T> {
        Condition(field)
    }

    /// Takes an expression as it is. In a larger one it stands in brackets.
    #[must_use]
    pub fn raw(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { numeric: text.clone(), boolean: text, binding: Binding::Raw }
    }

    /// Both this and the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.join(" and ", other, Binding::And)
    }

    /// This or the other, or both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.join(" or ", other, Binding::Or)
    }

    /// The expression as this version of the API reads it.
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

    /// In brackets, where an operator that binds so would otherwise take it apart.
    fn within(self, binding: Binding) -> Self {
        if self.binding >= binding {
            return self;
        }
        let bracket = |text| format!("({text})");
        Self { numeric: bracket(self.numeric), boolean: bracket(self.boolean), binding: Binding::Single }
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

/// A field of devices that can be filtered by, and of what type it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<T> {
    name: &'static str,
    of: PhantomData<T>,
}

/// The type of fields that hold text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {}

/// The type of fields that hold true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boolean {}

impl<T> Field<T> {
    const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// The field as the service writes it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl Field<Text> {
    /// `id`: the id of the device.
    pub const ID: Self = Self::new("id");
    /// `displayName`: its name, as people see it.
    pub const DISPLAY_NAME: Self = Self::new("displayName");
    /// `template`: the id of its device template.
    pub const TEMPLATE: Self = Self::new("template");
    /// `scopes`: the ids of its organizations.
    pub const SCOPES: Self = Self::new("scopes");
}

impl Field<Boolean> {
    /// `enabled`: whether it may connect.
    pub const ENABLED: Self = Self::new("enabled");
    /// `provisioned`: whether it has connected.
    pub const PROVISIONED: Self = Self::new("provisioned");
    /// `simulated`: whether the application plays it.
    pub const SIMULATED: Self = Self::new("simulated");
}

/// A condition whose field is known; what it is compared with follows.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Condition<T>(Field<T>);

/// The comparisons are those of the service, named as it names them.
#[allow(clippy::should_implement_trait, reason = "the names are the service's")]
impl Condition<Text> {
    /// The field is this text.
    #[must_use]
    pub fn eq(self, text: &str) -> Filter {
        self.compare("eq", text)
    }

    /// The field is another text.
    #[must_use]
    pub fn ne(self, text: &str) -> Filter {
        self.compare("ne", text)
    }

    /// The field comes before this text.
    #[must_use]
    pub fn lt(self, text: &str) -> Filter {
        self.compare("lt", text)
    }

    /// The field is this text or comes before it.
    #[must_use]
    pub fn le(self, text: &str) -> Filter {
        self.compare("le", text)
    }

    /// The field comes after this text.
    #[must_use]
    pub fn gt(self, text: &str) -> Filter {
        self.compare("gt", text)
    }

    /// The field is this text or comes after it.
    #[must_use]
    pub fn ge(self, text: &str) -> Filter {
        self.compare("ge", text)
    }

    /// The field has this text in it.
    #[must_use]
    pub fn contains(self, text: &str) -> Filter {
        self.search(text, "ge 0", "eq true")
    }

    /// The field does not have this text in it.
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
    /// The field is this.
    #[must_use]
    pub fn eq(self, value: bool) -> Filter {
        Filter::single(format!("{} eq {value}", self.0.name))
    }

    /// The field is not this.
    #[must_use]
    pub fn ne(self, value: bool) -> Filter {
        Filter::single(format!("{} ne {value}", self.0.name))
    }
}

/// A text as a literal: in quotes, and each quote in it doubled (`OData` 4.01 ABNF, `string`).
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The order of a list: the parameter `$orderby`. The service sorts by `displayName` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OrderBy {
    /// `displayName`
    DisplayName,
    /// `displayName desc`
    DisplayNameDescending,
}

impl OrderBy {
    /// The order as the service reads it.
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

/// How many things a page of a list has at most: the parameter `$top`, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Top(NonZeroU8);

impl Top {
    /// The most the service gives at once.
    pub const MAX: Self = Self(NonZeroU8::new(100).unwrap());

    /// Takes a number as the size of a page.
    ///
    /// # Errors
    /// [`QueryError::Top`] when it is not one of 1 to 100.
    pub fn new(number: usize) -> Result<Self, QueryError> {
        let small = u8::try_from(number).ok().and_then(NonZeroU8::new).map(Self);
        small.filter(|top| *top <= Self::MAX).ok_or_else(|| QueryError::Top(number.to_string()))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get() as usize
    }
}

impl Default for Top {
    /// [`MAX`](Self::MAX): the fewest requests.
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

/// Why a list cannot be asked for so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Not an order of the service.
    #[error("{0:?} is not an order the service knows: write \"displayName\" or \"displayName desc\"")]
    OrderBy(String),
    /// Not a size of a page.
    #[error("a page has 1 to 100 things, found {0:?}")]
    Top(String),
}

/// Which devices to list, in what order, how many.
///
/// ```
/// use iot_enroll::central::{DeviceQuery, Field, Filter, OrderBy};
///
/// let ten_by_name = DeviceQuery {
///     filter: Some(Filter::field(Field::PROVISIONED).eq(true)),
///     order_by: Some(OrderBy::DisplayName),
///     limit: Some(10),
///     ..DeviceQuery::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceQuery {
    /// Which. All of them by default.
    pub filter: Option<Filter>,
    /// In what order. The service's own by default.
    pub order_by: Option<OrderBy>,
    /// How many a page has at most. 100 by default, where the service's own default is 25.
    pub top: Top,
    /// How many in all. Every one by default. No more are asked for than that takes.
    pub limit: Option<usize>,
}

impl DeviceQuery {
    /// The parameters, as this version of the API names them.
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
