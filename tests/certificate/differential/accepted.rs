//! The disagreements that are accepted, each with its reason in `docs/chain-validation.md`.

/// Another judge of a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Judge {
    OpenSsl,
    Webpki,
    /// What the generator means a chain to be, by RFC 5280.
    Generator,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Direction {
    OnlyWeAccept,
    OnlyWeRefuse,
}

pub(super) struct Row {
    /// The section of the document that gives the reason.
    pub(super) section: &'static str,
    pub(super) judge: Judge,
    pub(super) direction: Direction,
    /// The classes, by a part of their names.
    pub(super) classes: &'static [&'static str],
}

impl Row {
    pub(super) fn covers(&self, class: &str, judge: Judge, direction: Direction) -> bool {
        self.judge == judge && self.direction == direction && self.classes.iter().any(|part| class.contains(part))
    }
}

pub(super) const ACCEPTED: &[Row] = &[];
