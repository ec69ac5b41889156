//! The query of a device group.

use super::{
    condition::{Condition, Field, FlagField, Operator, Parser, SyntaxError, Test, TextField, Token},
    device_properties::DeviceProperties,
};

/// The query of a device group: `SELECT * FROM devices WHERE $template = "dtmi:contoso:Thermostat;1"`.
///
/// ```text
/// query     = "SELECT" "*" "FROM" "devices" ["WHERE" condition]
/// condition = conjunction *("OR" conjunction)
/// conjunction = operand *("AND" operand)
/// operand   = "(" condition ")" / "NOT" operand / field ("=" / "!=") value
/// field     = "$id" / "$displayName" / "$template" / "organizations"        with a string
///           / "$enabled" / "$provisioned" / "$simulated"                    with true or false
/// string    = in double quotes, with the escapes \" \\ \n \r \t
/// ```
///
/// # Where the documentation is silent
/// - **Keywords**, `devices`, `true` and `false` ignore case. The names of fields and strings do not.
/// - **`organizations`**, or `$organizations`, equals an ID if that is one of the device's organizations.
/// - **A missing template** is unequal to every string.
/// - **Properties and telemetry** of a template are not emulated and cannot be tested.
/// - **Nesting** is at most 64 deep.
#[derive(Debug, Clone)]
pub struct GroupQuery(Option<Condition>);

impl GroupQuery {
    /// Parses a query.
    ///
    /// # Errors
    /// Returns [`SyntaxError`] if the text is not a query, names an unknown field, or compares a field with a value of
    /// another type.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser::new(text, true)?;
        parser.expect_word("SELECT")?;
        parser.expect_symbol("*")?;
        parser.expect_word("FROM")?;
        parser.expect_word("devices")?;
        if *parser.token() == Token::End {
            return Ok(Self(None));
        }
        if !parser.skip_word("WHERE")? {
            return Err(parser.unexpected("WHERE or the end"));
        }
        let condition = parser.condition(&test)?;
        parser.expect_end()?;
        Ok(Self(Some(condition)))
    }

    /// Returns whether a device belongs to the group.
    #[must_use]
    pub fn matches(&self, device: &DeviceProperties) -> bool {
        self.0.as_ref().is_none_or(|condition| condition.holds(device))
    }
}

fn test(parser: &mut Parser<'_>) -> Result<Test, SyntaxError> {
    let field = match parser.token() {
        Token::Word("$id") => Field::Text(TextField::Id),
        Token::Word("$displayName") => Field::Text(TextField::DisplayName),
        Token::Word("$template") => Field::Text(TextField::Template),
        Token::Word("organizations" | "$organizations") => Field::Text(TextField::Organizations),
        Token::Word("$enabled") => Field::Flag(FlagField::Enabled),
        Token::Word("$provisioned") => Field::Flag(FlagField::Provisioned),
        Token::Word("$simulated") => Field::Flag(FlagField::Simulated),
        _ => {
            return Err(parser.unexpected(
                "a field ($id, $displayName, $template, $enabled, $provisioned, $simulated or organizations), NOT or \"(\"",
            ));
        }
    };
    parser.advance()?;
    let equal = match parser.token() {
        Token::Symbol("=") => true,
        Token::Symbol("!=") => false,
        _ => return Err(parser.unexpected("= or !=")),
    };
    parser.advance()?;
    match field {
        Field::Flag(field) => Ok(Test::Flag { field, wanted: parser.boolean()? == equal }),
        Field::Text(field) => {
            let Token::Double(value) = parser.token().clone() else {
                return Err(parser.unexpected("a string in double quotes"));
            };
            parser.advance()?;
            let operator = if equal { Operator::Equal } else { Operator::NotEqual };
            Ok(Test::Text { field, operator, value })
        }
    }
}
