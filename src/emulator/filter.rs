//! `$filter` of the lists of devices and of device templates.

use super::{
    condition::{Condition, Field, FlagField, Operator, Parser, SyntaxError, Test, TextField, Token},
    devices::DeviceProperties,
    gate::ApiVersion,
};

/// What a list holds, and its filter can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Devices,
    /// Only `displayName` can be asked for.
    Templates,
}

/// What decides which fields there are and how they are compared.
#[derive(Clone, Copy)]
struct Language {
    listed: Listed,
    version: ApiVersion,
}

/// A `$filter` of the list of devices: `contains(displayName, 'thermostat') and enabled eq true`.
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
/// - **Names and keywords** are read without regard to case, as the article writes `Enabled ne true`; strings are compared
///   with regard to case, by their characters' code points.
/// - **`contains` as a number**, in version 2022-07-31, is 1 where the text is contained and -1 where it is not, so that
///   each comparison of the article says what it looks like: `ge 0`, `gt 0` and `gt -1` find the devices that contain it,
///   `lt 0` and `le -1` the others. In the preview version `contains` is a boolean, and is compared with `eq` or `ne`.
///   Each of these refuses the other's form; `2022-06-30-preview` takes both, and all take it without a comparison.
/// - **`type`** is a field in version `2022-06-30-preview`, where `az iot central device list --edge-only` asks for
///   `type eq 'GatewayDevice' or type eq 'EdgeDevice'`. An IoT Edge device has the type `EdgeDevice`, another has none.
/// - **`scopes`** is a list, the device's organizations: `eq`, `lt`, `contains` and so on hold where they hold of one of
///   them; `ne` holds where `eq` does not.
/// - **A device without a template** has one that is unequal to every string and neither less nor greater.
/// - **`not`**, fields without a comparison, values on the left and `null` are not in the article and are refused.
/// - **Nesting** goes 64 deep.
#[derive(Debug, Clone)]
pub struct Filter(Condition);

impl Filter {
    /// Reads a filter, as it is when percent-decoded.
    ///
    /// # Errors
    /// [`SyntaxError`] where the text is not a filter, names an unknown field, or compares a field with a value of another
    /// type.
    pub fn parse(text: &str, version: ApiVersion) -> Result<Self, SyntaxError> {
        Self::parse_for(text, version, Listed::Devices)
    }

    pub(super) fn parse_for(text: &str, version: ApiVersion, listed: Listed) -> Result<Self, SyntaxError> {
        let language = Language { listed, version };
        let mut parser = Parser::new(text, false)?;
        let condition = parser.condition(&|parser| test(parser, language))?;
        parser.expect_end()?;
        Ok(Self(condition))
    }

    /// Whether the device is one of those that are looked for.
    #[must_use]
    pub fn matches(&self, device: &DeviceProperties) -> bool {
        self.0.holds(device)
    }
}

impl Language {
    fn fields(self) -> &'static str {
        match (self.listed, self.version) {
            (Listed::Templates, _) => "a field (displayName) or contains(",
            (Listed::Devices, ApiVersion::Preview2022_06_30) => {
                "a field (id, displayName, template, scopes, type, enabled, provisioned or simulated) or contains("
            }
            (Listed::Devices, _) => {
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
        (self.listed == Listed::Devices).then_some(field)
    }
}

fn test(parser: &mut Parser<'_>, language: Language) -> Result<Test, SyntaxError> {
    if parser.is_word("not") {
        return Err(SyntaxError::new(parser.position(), "there is no not here; use ne, or the opposite operator"));
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
        Listed::Devices => "a field of strings (id, displayName, template or scopes)",
        Listed::Templates => "a field of strings (displayName)",
    };
    let Field::Text(field) = field(parser, language, strings)? else {
        return Err(SyntaxError::new(position, "contains looks into strings, and this field is true or false"));
    };
    parser.expect_symbol(",")?;
    let text = string(parser)?;
    parser.expect_symbol(")")?;
    let (if_found, if_not) = comparison(parser, language.version)?;
    Ok(Test::Contains { field, text, if_found, if_not })
}

/// What the comparison after `contains` makes of a text that is found, and of one that is not.
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
        _ => Err(parser.unexpected("a whole number, which this version compares contains with")),
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

/// Whether it is `eq`, of the two that booleans have.
fn equality(parser: &mut Parser<'_>) -> Result<bool, SyntaxError> {
    let equal = parser.is_word("eq");
    if !equal && !parser.is_word("ne") {
        return Err(parser.unexpected("eq or ne, by which booleans are compared"));
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
