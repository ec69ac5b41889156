//! A filter's text means what the filter was built to mean.

use iot_enroll::central::{ApiVersion, Field, Filter};
use proptest::prelude::*;

/// An expression as it was meant, or as it was read.
#[derive(Debug, Clone, PartialEq)]
enum Expression {
    /// Field, operator and literal; `contains` and `lacks` are operators too.
    Condition(String, String, Literal),
    All(Vec<Self>),
    Any(Vec<Self>),
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Text(String),
    Boolean(bool),
}

use Expression::{All, Any, Condition};

impl Expression {
    /// Without an `All` directly in an `All`, or an `Any` in an `Any`: how they are grouped means nothing.
    fn flat(self) -> Self {
        match self {
            All(parts) => All(parts
                .into_iter()
                .flat_map(|part| match part.flat() {
                    All(inner) => inner,
                    other => vec![other],
                })
                .collect()),
            Any(parts) => Any(parts
                .into_iter()
                .flat_map(|part| match part.flat() {
                    Any(inner) => inner,
                    other => vec![other],
                })
                .collect()),
            condition @ Condition(..) => condition,
        }
    }

    /// How many pairs of brackets it needs: one for each `Any` in an `All`.
    fn brackets(&self) -> usize {
        match self {
            Condition(..) => 0,
            Any(parts) => parts.iter().map(Self::brackets).sum(),
            All(parts) => parts.iter().map(|part| part.brackets() + usize::from(matches!(part, Any(_)))).sum(),
        }
    }

    fn filter(&self) -> Filter {
        let text_field = |name: &str| {
            let fields = [Field::ID, Field::DISPLAY_NAME, Field::TEMPLATE, Field::SCOPES];
            Filter::field(fields.into_iter().find(|field| field.name() == name).expect("a field"))
        };
        let boolean_field = |name: &str| {
            let fields = [Field::ENABLED, Field::PROVISIONED, Field::SIMULATED];
            Filter::field(fields.into_iter().find(|field| field.name() == name).expect("a field"))
        };
        match self {
            Condition(field, operator, Literal::Boolean(value)) => match operator.as_str() {
                "eq" => boolean_field(field).eq(*value),
                _ => boolean_field(field).ne(*value),
            },
            Condition(field, operator, Literal::Text(text)) => {
                let field = text_field(field);
                match operator.as_str() {
                    "eq" => field.eq(text),
                    "ne" => field.ne(text),
                    "lt" => field.lt(text),
                    "le" => field.le(text),
                    "gt" => field.gt(text),
                    "ge" => field.ge(text),
                    "contains" => field.contains(text),
                    _ => field.does_not_contain(text),
                }
            }
            All(parts) => parts.iter().map(Self::filter).reduce(Filter::and).expect("parts"),
            Any(parts) => parts.iter().map(Self::filter).reduce(Filter::or).expect("parts"),
        }
    }
}

/// Reads what the article describes: comparisons, `contains` compared, `and` before `or`, brackets.
struct Reader<'a> {
    rest: &'a str,
    version: ApiVersion,
}

impl Reader<'_> {
    fn read(text: &str, version: ApiVersion) -> Expression {
        let mut reader = Reader { rest: text, version };
        let expression = reader.any();
        assert_eq!(reader.rest, "", "read to the end: {text}");
        expression
    }

    fn take(&mut self, token: &str) -> bool {
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn any(&mut self) -> Expression {
        let mut parts = vec![self.all()];
        while self.take(" or ") {
            parts.push(self.all());
        }
        if parts.len() == 1 { parts.remove(0) } else { Any(parts) }
    }

    fn all(&mut self) -> Expression {
        let mut parts = vec![self.part()];
        while self.take(" and ") {
            parts.push(self.part());
        }
        if parts.len() == 1 { parts.remove(0) } else { All(parts) }
    }

    fn part(&mut self) -> Expression {
        if self.take("(") {
            let inner = self.any();
            assert!(self.take(")"), "a closing bracket before {}", self.rest);
            return inner;
        }
        if self.take("contains(") {
            let field = self.word();
            assert!(self.take(", "), "a comma before {}", self.rest);
            let text = self.text();
            let [there, not_there] = match self.version {
                ApiVersion::V2022_07_31 => [") ge 0", ") lt 0"],
                _ => [") eq true", ") eq false"],
            };
            let operator = if self.take(there) { "contains" } else { "lacks" };
            assert!(operator == "contains" || self.take(not_there), "a comparison before {}", self.rest);
            return Condition(field, operator.to_owned(), Literal::Text(text));
        }
        let field = self.word();
        assert!(self.take(" "), "a space before {}", self.rest);
        let operator = self.word();
        assert!(self.take(" "), "a space before {}", self.rest);
        let literal = if self.take("true") {
            Literal::Boolean(true)
        } else if self.take("false") {
            Literal::Boolean(false)
        } else {
            Literal::Text(self.text())
        };
        Condition(field, operator, literal)
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn text(&mut self) -> String {
        assert!(self.take("'"), "a quote before {}", self.rest);
        let mut text = String::new();
        loop {
            let (before, rest) = self.rest.split_once('\'').expect("a closing quote");
            text.push_str(before);
            self.rest = rest;
            if !self.take("'") {
                return text;
            }
            text.push('\'');
        }
    }
}

fn condition() -> impl Strategy<Value = Expression> {
    let texts = prop_oneof!["[a-z' ()]{0,8}", "\\PC{0,8}", ".{0,8}"];
    let operators = ["eq", "ne", "lt", "le", "gt", "ge", "contains", "lacks"];
    let of_text = (
        prop::sample::select(vec!["id", "displayName", "template", "scopes"]),
        prop::sample::select(operators.to_vec()),
        texts.prop_map(Literal::Text),
    );
    let of_boolean = (
        prop::sample::select(vec!["enabled", "provisioned", "simulated"]),
        prop::sample::select(vec!["eq", "ne"]),
        any::<bool>().prop_map(Literal::Boolean),
    );
    prop_oneof![of_text.boxed(), of_boolean.boxed()]
        .prop_map(|(field, operator, literal)| Condition(field.to_owned(), operator.to_owned(), literal))
}

fn expression() -> impl Strategy<Value = Expression> {
    condition().prop_recursive(5, 40, 4, |inner| {
        let parts = prop::collection::vec(inner, 2..5);
        prop_oneof![parts.clone().prop_map(All), parts.prop_map(Any)]
    })
}

proptest! {
    #[test]
    fn a_filter_is_read_as_it_was_meant_with_no_bracket_too_many(meant in expression()) {
        let filter = meant.filter();
        let meant = meant.flat();
        for version in ApiVersion::ALL {
            let text = filter.to_text(version);
            prop_assert_eq!(Reader::read(text, version).flat(), meant.clone(), "{}", text);
        }
        // Quoted brackets aside.
        let outside: String = filter.to_string().split('\'').step_by(2).collect();
        let calls = outside.matches("contains(").count();
        prop_assert_eq!(outside.matches('(').count() - calls, meant.brackets(), "{}", filter);
    }

    #[test]
    fn any_text_survives_its_quotes(text in any::<String>()) {
        let filter = Filter::field(Field::ID).eq(&text);
        let literal = Literal::Text(text);
        let meant = Condition("id".to_owned(), "eq".to_owned(), literal);
        prop_assert_eq!(Reader::read(filter.to_text(ApiVersion::default()), ApiVersion::default()), meant);
    }
}

#[test]
fn the_articles_own_filters_are_written_as_it_writes_them() {
    let contains = Filter::field(Field::DISPLAY_NAME).contains("device1");
    assert_eq!(contains.to_string(), "contains(displayName, 'device1') ge 0");
    let without = Filter::field(Field::DISPLAY_NAME).does_not_contain("device1");
    assert_eq!(without.to_string(), "contains(displayName, 'device1') lt 0");
    let id = || Filter::field(Field::ID).eq("device1");
    for (filter, expected) in [
        (id().and(Filter::field(Field::SCOPES).eq("redmond")), "id eq 'device1' and scopes eq 'redmond'"),
        (id().and(Filter::field(Field::ENABLED).eq(true)), "id eq 'device1' and enabled eq true"),
        (id().or(Filter::field(Field::SIMULATED).eq(false)), "id eq 'device1' or simulated eq false"),
    ] {
        assert_eq!(filter.to_string(), expected);
    }
}

#[test]
fn raw_text_is_kept_and_stands_in_brackets_within_more() {
    let raw = Filter::raw("id eq 'a' or id eq 'b'");
    for version in ApiVersion::ALL {
        assert_eq!(raw.to_text(version), "id eq 'a' or id eq 'b'");
    }
    let enabled = Filter::field(Field::ENABLED).eq(true);
    let more = enabled.clone().and(raw.clone()).or(raw.and(enabled));
    let text = "enabled eq true and (id eq 'a' or id eq 'b') or (id eq 'a' or id eq 'b') and enabled eq true";
    assert_eq!(more.to_string(), text);
}

#[test]
fn a_long_filter_is_no_danger() {
    let one = || Filter::field(Field::ID).eq("x");
    let alternating =
        (0..2000).fold(one(), |filter, number| if number % 2 == 0 { filter.or(one()) } else { filter.and(one()) });
    assert_eq!(alternating.to_string().matches('(').count(), 1000);
    let flat = (0..100_000).fold(one(), |filter, _| filter.or(one()));
    assert_eq!(flat.to_string().matches(" or ").count(), 100_000);
}
