//! Conditions on devices and their parser, for `$filter` and the queries of device groups.

use std::collections::{HashMap, HashSet};

use super::device_properties::DeviceProperties;

/// The maximum nesting of brackets and negations, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// The `type` of an IoT Edge device.
const EDGE_DEVICE: &str = "EdgeDevice";

/// A syntax error in a `$filter` or in the query of a device group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct SyntaxError {
    position: usize,
    problem: String,
}

impl SyntaxError {
    pub(crate) fn new(position: usize, problem: impl Into<String>) -> Self {
        Self { position, problem: problem.into() }
    }

    /// Returns the position of the invalid part, in characters from 1. It is one past the last character if the text
    /// ends too early.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

/// A condition on a device.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Test(Test),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// A test of one field.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Text {
        field: TextField,
        operator: Operator,
        value: String,
    },
    /// Tests whether the field equals one of the values.
    OneOf {
        field: TextField,
        values: HashSet<String>,
        wanted: bool,
    },
    Flag {
        field: FlagField,
        wanted: bool,
    },
    /// Tests whether the field contains the text, with the result of either case.
    Contains {
        field: TextField,
        text: String,
        if_found: bool,
        if_not: bool,
    },
}

/// A field of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Text(TextField),
    Flag(FlagField),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TextField {
    Id,
    DisplayName,
    Template,
    Organizations,
    Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagField {
    Enabled,
    Provisioned,
    Simulated,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    fn any(parts: Vec<Self>) -> Self {
        one_or(merge_equalities(parts, Operator::Equal), Self::Any)
    }

    fn all(parts: Vec<Self>) -> Self {
        one_or(merge_equalities(parts, Operator::NotEqual), Self::All)
    }

    fn negated(self) -> Self {
        match self {
            Self::Test(Test::Text { field, operator: Operator::Equal, value }) => {
                Self::Test(Test::Text { field, operator: Operator::NotEqual, value })
            }
            Self::Test(Test::Text { field, operator: Operator::NotEqual, value }) => {
                Self::Test(Test::Text { field, operator: Operator::Equal, value })
            }
            Self::Test(Test::OneOf { field, values, wanted }) => {
                Self::Test(Test::OneOf { field, values, wanted: !wanted })
            }
            Self::Test(Test::Flag { field, wanted }) => Self::Test(Test::Flag { field, wanted: !wanted }),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    pub(crate) fn holds(&self, device: &DeviceProperties) -> bool {
        match self {
            Self::Test(test) => test.holds(device),
            Self::Not(inner) => !inner.holds(device),
            Self::All(parts) => parts.iter().all(|part| part.holds(device)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(device)),
        }
    }
}

/// Merges the equality tests of each field into one, since a group may be a list of tens of thousands of IDs that every
/// device is compared with. The operator is [`Operator::Equal`] in an OR and [`Operator::NotEqual`] in an AND. Faster
/// tests come first.
fn merge_equalities(parts: Vec<Condition>, operator: Operator) -> Vec<Condition> {
    let mut values: HashMap<TextField, Vec<String>> = HashMap::new();
    let mut merged = Vec::new();
    for part in parts {
        match part {
            Condition::Test(Test::Text { field, operator: found, value }) if found == operator => {
                values.entry(field).or_default().push(value);
            }
            other => merged.push(other),
        }
    }
    for (field, mut values) in values {
        merged.push(Condition::Test(match (values.pop(), values.is_empty()) {
            (Some(value), true) => Test::Text { field, operator, value },
            (last, _) => {
                values.extend(last);
                Test::OneOf { field, values: values.into_iter().collect(), wanted: operator == Operator::Equal }
            }
        }));
    }
    merged.sort_by_key(|part| match part {
        Condition::Test(Test::Flag { .. }) => 0,
        Condition::Test(Test::Text { .. } | Test::OneOf { .. }) => 1,
        Condition::Test(Test::Contains { .. }) => 2,
        Condition::Not(_) | Condition::All(_) | Condition::Any(_) => 3,
    });
    merged
}

fn one_or(mut parts: Vec<Condition>, several: impl FnOnce(Vec<Condition>) -> Condition) -> Condition {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            several(parts)
        }
    }
}

impl Test {
    fn holds(&self, device: &DeviceProperties) -> bool {
        match self {
            // A list is unequal if none of its members is equal.
            Self::Text { field, operator: Operator::NotEqual, value } => !field.any_of(device, |found| found == value),
            Self::Text { field, operator, value } => {
                field.any_of(device, |found| operator.compare(found, value.as_str()))
            }
            Self::OneOf { field, values, wanted } => field.any_of(device, |found| values.contains(found)) == *wanted,
            Self::Flag { field, wanted } => field.of(device) == *wanted,
            Self::Contains { field, text, if_found, if_not } => {
                if field.any_of(device, |found| found.contains(text.as_str())) { *if_found } else { *if_not }
            }
        }
    }
}

impl TextField {
    /// Returns whether the field's value, or one of its values, passes a test. A field without a value passes none.
    fn any_of(self, device: &DeviceProperties, mut test: impl FnMut(&str) -> bool) -> bool {
        match self {
            Self::Id => test(&device.id),
            Self::DisplayName => test(&device.display_name),
            Self::Template => device.template.as_deref().is_some_and(test),
            Self::Organizations => device.organizations.iter().any(|organization| test(organization)),
            Self::Type => device.iot_edge && test(EDGE_DEVICE),
        }
    }
}

impl FlagField {
    fn of(self, device: &DeviceProperties) -> bool {
        match self {
            Self::Enabled => device.enabled,
            Self::Provisioned => device.provisioned,
            Self::Simulated => device.simulated,
        }
    }
}

impl Operator {
    pub(crate) fn compare<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name or a keyword. A name may start with `$`.
    Word(&'a str),
    /// A string in single quotes. A quote in it is doubled.
    Single(String),
    /// A string in double quotes, with escapes.
    Double(String),
    Number(i64),
    Symbol(&'a str),
    End,
}

/// Parses a text token by token.
pub(crate) struct Parser<'a> {
    /// The text after the current token.
    rest: &'a str,
    /// The number of characters before `rest`.
    consumed: usize,
    token: Token<'a>,
    /// The position of the current token, in characters from 1.
    position: usize,
    depth: usize,
    /// Whether the language has NOT.
    negation: bool,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str, negation: bool) -> Result<Self, SyntaxError> {
        let mut parser = Self { rest: text, consumed: 0, token: Token::End, position: 1, depth: 0, negation };
        parser.advance()?;
        Ok(parser)
    }

    pub(crate) fn token(&self) -> &Token<'a> {
        &self.token
    }

    /// Returns the position of the current token, in characters from 1.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn is_word(&self, expected: &str) -> bool {
        matches!(self.token, Token::Word(word) if word.eq_ignore_ascii_case(expected))
    }

    /// Skips a word, in any case, if it is the current token, and returns whether it was.
    pub(crate) fn skip_word(&mut self, expected: &str) -> Result<bool, SyntaxError> {
        let found = self.is_word(expected);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(crate) fn expect_word(&mut self, expected: &str) -> Result<(), SyntaxError> {
        if self.skip_word(expected)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(crate) fn expect_symbol(&mut self, expected: &str) -> Result<(), SyntaxError> {
        if self.token != Token::Symbol(expected) {
            return Err(self.unexpected(&format!("\"{expected}\"")));
        }
        self.advance()
    }

    pub(crate) fn expect_end(&self) -> Result<(), SyntaxError> {
        if self.token == Token::End { Ok(()) } else { Err(self.unexpected("and, or, or the end")) }
    }

    /// Creates the error for an unexpected current token.
    pub(crate) fn unexpected(&self, expected: &str) -> SyntaxError {
        let found = match &self.token {
            Token::Word(text) | Token::Symbol(text) => format!("{text:?}"),
            Token::Single(text) | Token::Double(text) => format!("the string {text:?}"),
            Token::Number(number) => format!("the number {number}"),
            Token::End => "the end".to_owned(),
        };
        SyntaxError::new(self.position, format!("expected {expected}, found {found}"))
    }

    /// Parses `true` or `false`, in any case.
    pub(crate) fn boolean(&mut self) -> Result<bool, SyntaxError> {
        let value = self.is_word("true");
        if !value && !self.is_word("false") {
            return Err(self.unexpected("true or false"));
        }
        self.advance()?;
        Ok(value)
    }

    /// Parses a condition, with `test` for the tests in it. NOT binds tighter than AND, and AND tighter than OR.
    pub(crate) fn condition(
        &mut self,
        test: &impl Fn(&mut Self) -> Result<Test, SyntaxError>,
    ) -> Result<Condition, SyntaxError> {
        let mut parts = vec![self.conjunction(test)?];
        while self.skip_word("or")? {
            parts.push(self.conjunction(test)?);
        }
        Ok(Condition::any(parts))
    }

    fn conjunction(
        &mut self,
        test: &impl Fn(&mut Self) -> Result<Test, SyntaxError>,
    ) -> Result<Condition, SyntaxError> {
        let mut parts = vec![self.operand(test)?];
        while self.skip_word("and")? {
            parts.push(self.operand(test)?);
        }
        Ok(Condition::all(parts))
    }

    fn operand(&mut self, test: &impl Fn(&mut Self) -> Result<Test, SyntaxError>) -> Result<Condition, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(SyntaxError::new(self.position, format!("nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let operand = if self.token == Token::Symbol("(") {
            self.advance()?;
            let inner = self.condition(test)?;
            if self.token != Token::Symbol(")") {
                return Err(self.unexpected("and, or, or \")\""));
            }
            self.advance()?;
            inner
        } else if self.negation && self.skip_word("not")? {
            self.operand(test)?.negated()
        } else {
            Condition::Test(test(self)?)
        };
        self.depth -= 1;
        Ok(operand)
    }

    /// Advances to the next token.
    pub(crate) fn advance(&mut self) -> Result<(), SyntaxError> {
        let blank = self.rest.find(|c: char| !c.is_ascii_whitespace()).unwrap_or(self.rest.len());
        self.consume(blank);
        self.position = self.consumed + 1;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut chars = self.rest.chars();
        let first = chars.next();
        self.token = match first {
            None => Token::End,
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            Some('(' | ')' | ',' | '=' | '*') => Token::Symbol(self.consume(1)),
            Some('!') if chars.next() == Some('=') => Token::Symbol(self.consume(2)),
            Some('-' | '0'..='9') => {
                let digits =
                    self.rest[1..].find(|c: char| !is_word(c) && c != '.').map_or(self.rest.len(), |end| end + 1);
                let text = self.consume(digits);
                let number = text.parse().map_err(|_| {
                    SyntaxError::new(
                        self.position,
                        format!("expected a whole number of at most 64 bits, found {text:?}"),
                    )
                })?;
                Token::Number(number)
            }
            Some(c) if is_word(c) || c == '$' => {
                let end = self.rest[1..].find(|c| !is_word(c)).map_or(self.rest.len(), |end| end + 1);
                Token::Word(self.consume(end))
            }
            Some(c) => return Err(SyntaxError::new(self.position, format!("unexpected character {c:?}"))),
        };
        Ok(())
    }

    /// Consumes a number of bytes, up to the end of a character.
    fn consume(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.consumed += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn single_quoted(&mut self) -> Result<Token<'a>, SyntaxError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c != '\'' {
                text.push(c);
            } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
                text.push('\'');
            } else {
                self.consume(at + 1);
                return Ok(Token::Single(text));
            }
        }
        Err(SyntaxError::new(self.position, "unterminated string; double a quote inside of a string"))
    }

    fn double_quoted(&mut self) -> Result<Token<'a>, SyntaxError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().enumerate().skip(1);
        while let Some((count, (at, c))) = chars.next() {
            match c {
                '"' => {
                    self.consume(at + 1);
                    return Ok(Token::Double(text));
                }
                '\\' => match chars.next() {
                    Some((_, (_, c @ ('"' | '\\')))) => text.push(c),
                    Some((_, (_, 'n'))) => text.push('\n'),
                    Some((_, (_, 'r'))) => text.push('\r'),
                    Some((_, (_, 't'))) => text.push('\t'),
                    Some(_) => {
                        let problem = r#"unknown escape; use \", \\, \n, \r or \t"#;
                        return Err(SyntaxError::new(self.position + count, problem));
                    }
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err(SyntaxError::new(self.position, r#"unterminated string; write \" for a quote inside of a string"#))
    }
}
