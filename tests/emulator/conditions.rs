//! Filters and queries: any text, and a comparison with a reference evaluator.

use iot_enroll::emulator::{ApiVersion, DeviceProperties, Fault, Filter, GroupQuery};
use proptest::prelude::*;

/// A condition that is written and evaluated without the parser under test.
#[derive(Debug, Clone)]
enum ReferenceCondition {
    Text { field: usize, operator: usize, value: String },
    Flag { field: usize, equal: bool, value: bool },
    Contains { field: usize, text: String, comparison: Option<(usize, i64)> },
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

const TEXTS: [&str; 4] = ["id", "displayName", "template", "scopes"];
const FLAGS: [&str; 3] = ["enabled", "provisioned", "simulated"];
const OPERATORS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];

fn compare<T: Ord>(operator: usize, left: &T, right: &T) -> bool {
    let ordering = left.cmp(right);
    match OPERATORS[operator] {
        "eq" => ordering.is_eq(),
        "ne" => ordering.is_ne(),
        "lt" => ordering.is_lt(),
        "le" => ordering.is_le(),
        "gt" => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}

fn values(device: &DeviceProperties, field: usize) -> Vec<String> {
    match TEXTS[field] {
        "id" => vec![device.id.clone()],
        "displayName" => vec![device.display_name.clone()],
        "template" => device.template.iter().cloned().collect(),
        _ => device.organizations.clone(),
    }
}

impl ReferenceCondition {
    fn holds(&self, device: &DeviceProperties) -> bool {
        match self {
            Self::Text { field, operator: 1, value } => !values(device, *field).contains(value),
            Self::Text { field, operator, value } => {
                values(device, *field).iter().any(|found| compare(*operator, found, value))
            }
            Self::Flag { field, equal, value } => {
                let found = [device.enabled, device.provisioned, device.simulated][*field];
                (found == *value) == *equal
            }
            Self::Contains { field, text, comparison } => {
                let number = if values(device, *field).iter().any(|found| found.contains(text)) { 1 } else { -1 };
                comparison.map_or(number == 1, |(operator, value)| compare(operator, &number, &value))
            }
            Self::And(left, right) => left.holds(device) & right.holds(device),
            Self::Or(left, right) => left.holds(device) | right.holds(device),
            Self::Not(inner) => !inner.holds(device),
        }
    }

    /// Returns the condition as a `$filter`, with as few brackets as possible.
    fn filter(&self) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let operand = |condition: &Self| match condition {
            Self::Or(..) => format!("({})", condition.filter()),
            _ => condition.filter(),
        };
        match self {
            Self::Text { field, operator, value } => {
                format!("{} {} {}", TEXTS[*field], OPERATORS[*operator], quote(value))
            }
            Self::Flag { field, equal, value } => {
                format!("{} {} {value}", FLAGS[*field], if *equal { "eq" } else { "ne" })
            }
            Self::Contains { field, text, comparison } => {
                let contains = format!("contains({}, {})", TEXTS[*field], quote(text));
                match comparison {
                    Some((operator, value)) => format!("{contains} {} {value}", OPERATORS[*operator]),
                    None => contains,
                }
            }
            Self::And(left, right) => format!("{} and {}", operand(left), operand(right)),
            Self::Or(left, right) => format!("{} or {}", left.filter(), right.filter()),
            Self::Not(_) => unreachable!("filters have no not"),
        }
    }

    /// Returns the condition for the query of a group, with as few brackets as possible.
    fn query(&self) -> String {
        match self {
            Self::Text { field, operator, value } => {
                let field = ["$id", "$displayName", "$template", "organizations"][*field];
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{field} {} \"{value}\"", if *operator == 0 { "=" } else { "!=" })
            }
            Self::Flag { field, equal, value } => {
                format!("${} {} {value}", FLAGS[*field], if *equal { "=" } else { "!=" })
            }
            Self::Contains { .. } => unreachable!("queries have no contains"),
            Self::And(left, right) => {
                let operand = |condition: &Self| match condition {
                    Self::Or(..) => format!("({})", condition.query()),
                    _ => condition.query(),
                };
                format!("{} AND {}", operand(left), operand(right))
            }
            Self::Or(left, right) => format!("{} or {}", left.query(), right.query()),
            Self::Not(inner) => match **inner {
                Self::And(..) | Self::Or(..) => format!("NOT ({})", inner.query()),
                _ => format!("not {}", inner.query()),
            },
        }
    }
}

/// Generates few different texts, so that they are often equal.
fn text() -> impl Strategy<Value = String> {
    "[ab'\"\\\\ä]{0,2}"
}

fn device() -> impl Strategy<Value = DeviceProperties> {
    (text(), text(), proptest::option::of(text()), any::<[bool; 3]>(), proptest::collection::vec(text(), 0..3))
        .prop_map(|(id, display_name, template, [enabled, provisioned, simulated], organizations)| {
            let device = DeviceProperties::new(id);
            match template {
                Some(template) => device.template(template),
                None => device,
            }
            .display_name(display_name)
            .enabled(enabled)
            .provisioned(provisioned)
            .simulated(simulated)
            .organizations(organizations)
        })
}

fn joined(
    leaf: impl Strategy<Value = ReferenceCondition> + 'static,
    negation: bool,
) -> impl Strategy<Value = ReferenceCondition> {
    leaf.prop_recursive(5, 24, 2, move |inner| {
        let two = || (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        let joined = prop_oneof![
            two().prop_map(|(left, right)| ReferenceCondition::And(left, right)),
            two().prop_map(|(left, right)| ReferenceCondition::Or(left, right)),
        ];
        if negation {
            prop_oneof![joined, inner.prop_map(|inner| ReferenceCondition::Not(Box::new(inner)))].boxed()
        } else {
            joined.boxed()
        }
    })
}

fn flag() -> impl Strategy<Value = ReferenceCondition> {
    (0..3_usize, any::<bool>(), any::<bool>()).prop_map(|(field, equal, value)| ReferenceCondition::Flag {
        field,
        equal,
        value,
    })
}

fn compared(operators: usize) -> impl Strategy<Value = ReferenceCondition> {
    (0..4_usize, 0..operators, text()).prop_map(|(field, operator, value)| ReferenceCondition::Text {
        field,
        operator,
        value,
    })
}

fn filter() -> impl Strategy<Value = ReferenceCondition> {
    let contains = (0..4_usize, text(), proptest::option::of((0..6_usize, -2..3_i64)))
        .prop_map(|(field, text, comparison)| ReferenceCondition::Contains { field, text, comparison });
    joined(prop_oneof![compared(6), flag(), contains], false)
}

fn query() -> impl Strategy<Value = ReferenceCondition> {
    joined(prop_oneof![compared(2), flag()], true)
}

/// Generates texts from the words of both languages and from anything else.
fn random_words() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "SELECT * FROM devices WHERE ",
        "$id",
        "id",
        "enabled",
        "$enabled",
        "contains",
        "(",
        ")",
        ",",
        "'",
        "\"",
        "\\",
        "eq",
        "ne",
        "ge",
        "=",
        "!=",
        "!",
        "and",
        "or",
        "not",
        "true",
        "'a'",
        "\"a\"",
        "-",
        "0",
        "1.5",
        "ä",
        "\u{1f600}",
        "\n",
    ]);
    prop_oneof![proptest::collection::vec(word, 0..12).prop_map(|words| words.join(" ")), any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_agrees_with_a_reference_evaluator(condition in filter(), devices in proptest::collection::vec(device(), 8)) {
        let text = condition.filter();
        let filter = Filter::parse(&text, ApiVersion::Stable).expect(&text);
        for device in devices {
            prop_assert_eq!(filter.matches(&device), condition.holds(&device), "{} of {:?}", text, device);
        }
    }

    #[test]
    fn a_query_agrees_with_a_reference_evaluator(condition in query(), devices in proptest::collection::vec(device(), 8)) {
        let text = format!("SELECT * FROM devices WHERE {}", condition.query());
        let query = GroupQuery::parse(&text).expect(&text);
        for device in devices {
            prop_assert_eq!(query.matches(&device), condition.holds(&device), "{} of {:?}", text, device);
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic_and_positions_are_in_the_text(text in random_words()) {
        let within = 1..=text.chars().count() + 1;
        for version in [ApiVersion::Stable, ApiVersion::Preview] {
            if let Err(error) = Filter::parse(&text, version) {
                prop_assert!(within.contains(&error.position()), "{error}");
            }
        }
        if let Err(error) = GroupQuery::parse(&text) {
            prop_assert!(within.contains(&error.position()), "{error}");
        }
        if let Err(error) = text.parse::<Fault>() {
            prop_assert!(within.contains(&error.position()), "{error}");
        }
    }
}
