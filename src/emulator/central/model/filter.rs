//! The `$filter` of lists of devices and device templates.

use super::{
    condition::{Condition, Field, FlagField, Operator, Parser, SyntaxError, Test, TextField, Token},
    device_properties::DeviceProperties,
};
use crate::emulator::central::api_version::ApiVersion;

/// The kind of resource that a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedResource {
    Devices,
    /// Only `displayName` can be tested.
    Templates,
}

/// The variant of the filter language, which decides on its fields and comparisons.
#[derive(Clone, Copy)]
struct Language {
    listed: ListedResource,
    version: ApiVersion,
}

/// A `$filter` for lists of devices: `contains(displayName, 'thermostat') and enabled eq true`.
///
/// ```text
/// filter     = conjunction *("or" conjunction)
/// conjunction = operand *("and" operand)
/// operand    = "(" filter ")" / text-field operator string / flag-field ("eq" / "ne") boolean
///            / "contains" "(" text-field "," string ")" [operator value]
/// text-field = "id" / "displayName" / "template" / "scopes" / "type"
/// flag-field = "enabled" / "provisioned" / "simulated"
/// operator   = "eq" / "ne" / "lt" / "le" / "gt" / "ge"
/// string     = in single quotes; a quote in it is doubled
/// ```
///
/// # Where the documentation is silent
/// - **Names and keywords** ignore case, since the article has `Enabled ne true`. Strings are compared by code points.
/// - **`contains` as a number**, in version 2022-07-31, is 1 if the text is contained and -1 otherwise, which fits
///   every comparison in the article: `ge 0`, `gt 0` and `gt -1` find the devices that contain it, `lt 0` and `le -1`
///   the others. In the preview version `contains` is a boolean and is compared with `eq` or `ne`. Neither version
///   accepts the other form; `2022-06-30-preview` accepts both. All accept it without a comparison.
/// - **`type`** is a field in version `2022-06-30-preview`, in which `az iot central device list --edge-only` sends
///   `type eq 'GatewayDevice' or type eq 'EdgeDevice'`. An IoT Edge device has the type `EdgeDevice`, others have none.
/// - **`scopes`** is the list of the device's organizations: `eq`, `lt`, `contains` and so on are true if they are true
///   for one of them. `ne` is the opposite of `eq`.
/// - **A missing template** is unequal to every string, and neither less nor greater.
/// - **`not`**, fields without a comparison, values on the left and `null` are not in the article and are errors.
/// - **Nesting** is at most 64 deep.
#[derive(Debug, Clone)]
pub struct Filter(Condition);

impl Filter {
    /// Parses a filter, which must be percent-decoded.
    ///
    /// # Errors
    /// Returns [`SyntaxError`] if the text is not a filter, names an unknown field, or compares a field with a value of
    /// another type.
    pub fn parse(text: &str, version: ApiVersion) -> Result<Self, SyntaxError> {
        Self::parse_for(text, version, ListedResource::Devices)
    }

    pub(crate) fn parse_for(text: &str, version: ApiVersion, listed: ListedResource) -> Result<Self, SyntaxError> {
        let language = Language { listed, version };
        let mut parser = Parser::new(text, false)?;
        let condition = parser.condition(&|parser| test(parser, language))?;
        parser.expect_end()?;
        Ok(Self(condition))
    }

    /// Returns whether a device matches the filter.
    #[must_use]
    pub fn matches(&self, device: &DeviceProperties) -> bool {
        self.0.holds(device)
    }
}

impl Language {
    fn fields(self) -> &'static str {
        match (self.listed, self.version) {
            (ListedResource::Templates, _) => "a field (displayName) or contains(",
            (ListedResource::Devices, ApiVersion::Preview2022_06_30) => {
                "a field (id, displayName, template, scopes, type, enabled, provisioned or simulated) or contains("
            }
            (ListedResource::Devices, _) => {
                "a field (id, displayName, template, scopes, enabled, provisioned or simulated) or contains("
            }
        }
    }

    fn field(self, name: &str) -> Option<Field> {
        let field = match name.to_ascii_lowercase().as_str() {
            "id" => Field::Text(TextField::Id),
            "displayname" => return Some(Field::Text(TextField::DisplayName)),
            "template" => Field::Text(TextField::Template),
            "scopes" => Field::Text(TextField::Organizations),
            "type" if self.version == ApiVersion::Preview2022_06_30 => Field::Text(TextField::Type),
            "enabled" => Field::Flag(FlagField::Enabled),
            "provisioned" => Field::Flag(FlagField::Provisioned),
            "simulated" => Field::Flag(FlagField::Simulated),
            _ => return None,
        };
        (self.listed == ListedResource::Devices).then_some(field)
    }
}

fn test(parser: &mut Parser<'_>, language: Language) -> Result<Test, SyntaxError> {
    if parser.is_word("not") {
        return Err(SyntaxError::new(parser.position(), "not is not supported; use ne, or the opposite operator"));
    }
    if parser.skip_word("contains")? {
        return contains(parser, language);
    }
    match field(parser, language, language.fields())? {
        Field::Text(field) => {
            let operator = operator(parser)?;
            Ok(Test::Text { field, operator, value: string(parser)? })
        }
        Field::Flag(field) => {
            let equal = equality(parser)?;
            Ok(Test::Flag { field, wanted: parser.boolean()? == equal })
        }
    }
}

fn contains(parser: &mut Parser<'_>, language: Language) -> Result<Test, SyntaxError> {
    parser.expect_symbol("(")?;
    let position = parser.position();
    let strings = match language.listed {
        ListedResource::Devices => "a field of strings (id, displayName, template or scopes)",
        ListedResource::Templates => "a field of strings (displayName)",
    };
    let Field::Text(field) = field(parser, language, strings)? else {
        return Err(SyntaxError::new(position, "contains needs a field of strings, and this one is a boolean"));
    };
    parser.expect_symbol(",")?;
    let text = string(parser)?;
    parser.expect_symbol(")")?;
    let (if_found, if_not) = comparison(parser, language.version)?;
    Ok(Test::Contains { field, text, if_found, if_not })
}

/// Parses the comparison after `contains` and returns its results for a text that is found and for one that is not.
fn comparison(parser: &mut Parser<'_>, version: ApiVersion) -> Result<(bool, bool), SyntaxError> {
    if as_operator(parser.token()).is_none() {
        return Ok((true, false));
    }
    if version == ApiVersion::Preview {
        let equal = equality(parser)?;
        let value = parser.boolean()?;
        return Ok((value == equal, value != equal));
    }
    let operator = operator(parser)?;
    match *parser.token() {
        Token::Number(number) => {
            parser.advance()?;
            Ok((operator.compare(&1, &number), operator.compare(&-1, &number)))
        }
        Token::Word(_)
            if version == ApiVersion::Preview2022_06_30 && matches!(operator, Operator::Equal | Operator::NotEqual) =>
        {
            let value = parser.boolean()?;
            Ok((operator.compare(&true, &value), operator.compare(&false, &value)))
        }
        _ => Err(parser.unexpected("a whole number, since contains is a number in this version")),
    }
}

fn field(parser: &mut Parser<'_>, language: Language, expected: &str) -> Result<Field, SyntaxError> {
    let Token::Word(word) = *parser.token() else { return Err(parser.unexpected(expected)) };
    let field = language.field(word).ok_or_else(|| parser.unexpected(expected))?;
    parser.advance()?;
    Ok(field)
}

fn as_operator(token: &Token<'_>) -> Option<Operator> {
    let Token::Word(word) = token else { return None };
    Some(match word.to_ascii_lowercase().as_str() {
        "eq" => Operator::Equal,
        "ne" => Operator::NotEqual,
        "lt" => Operator::Less,
        "le" => Operator::LessOrEqual,
        "gt" => Operator::Greater,
        "ge" => Operator::GreaterOrEqual,
        _ => return None,
    })
}

fn operator(parser: &mut Parser<'_>) -> Result<Operator, SyntaxError> {
    let operator = as_operator(parser.token()).ok_or_else(|| parser.unexpected("eq, ne, lt, le, gt or ge"))?;
    parser.advance()?;
    Ok(operator)
}

/// Parses `eq` or `ne` and returns whether it is `eq`.
fn equality(parser: &mut Parser<'_>) -> Result<bool, SyntaxError> {
    let equal = parser.is_word("eq");
    if !equal && !parser.is_word("ne") {
        return Err(parser.unexpected("eq or ne, since this is a boolean"));
    }
    parser.advance()?;
    Ok(equal)
}

fn string(parser: &mut Parser<'_>) -> Result<String, SyntaxError> {
    let Token::Single(text) = parser.token().clone() else {
        return Err(parser.unexpected("a string in single quotes"));
    };
    parser.advance()?;
    Ok(text)
}
