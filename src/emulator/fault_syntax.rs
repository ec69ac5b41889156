//! The text form of faults.

use std::{collections::HashSet, str::FromStr, time::Duration};

use super::fault::{Fault, FaultKind};

/// Parses the text form, `KIND[,OPTION]...`, as in `429:retry-after=2,method=PUT,path=/devices,times=3`.
///
/// | kind | fault |
/// | --- | --- |
/// | `400` to `599` | [`FaultKind::Status`]; with `:retry-after=SECONDS` its header, with `:retry-after-date=+TIME` [`FaultKind::StatusUntil`] |
/// | `delay=TIME` | [`FaultKind::Delay`] |
/// | `close-on-connect` | [`FaultKind::CloseOnConnect`] |
/// | `close-before` | [`FaultKind::CloseBeforeHandling`] |
/// | `close-after` | [`FaultKind::CloseAfterHandling`] |
/// | `truncate` | [`FaultKind::TruncateBody`] |
/// | `not-json` | [`FaultKind::NotJson`] |
/// | `redirect=URL` | [`FaultKind::Redirect`] |
///
/// The options are `method=METHOD`, `path=PART`, and `times=N` or `times=always`; the default is once. A TIME is a
/// whole number with its unit: `500ms`, `5s` or `2m`. A comma in a path or a URL is written `%2C`.
///
/// ```
/// use iot_enroll::emulator::Fault;
///
/// let fault: Fault = "503:retry-after-date=+5s,times=always".parse()?;
/// let wrong = "delay=soon".parse::<Fault>().unwrap_err();
/// assert_eq!(wrong.position(), 7);
/// # Ok::<(), iot_enroll::emulator::FaultSyntaxError>(())
/// ```
impl FromStr for Fault {
    type Err = FaultSyntaxError;

    fn from_str(text: &str) -> Result<Self, FaultSyntaxError> {
        let mut parts = Part { text, position: 1 }.split(',');
        let kind = parts.next().map_or(Err(FaultSyntaxError::new(1, KINDS)), Part::kind)?;
        let mut fault = Self::new(kind);
        let mut seen = HashSet::new();
        for option in parts {
            let (name, value) = option.name_and_value(OPTIONS)?;
            if !seen.insert(name.text) {
                return Err(name.error("duplicate option"));
            }
            fault = match name.text {
                "method" if METHODS.iter().any(|method| method.eq_ignore_ascii_case(value.text)) => {
                    fault.method(value.text)
                }
                "method" => return Err(value.error("expected a method: GET, PUT, PATCH, POST or DELETE")),
                "path" if value.text.is_empty() => return Err(value.error("expected a part of the path")),
                "path" => fault.path_contains(value.text),
                "times" if value.text == "always" => fault.always(),
                "times" => match value.text.parse() {
                    Ok(count) if count > 0 => fault.times(count),
                    _ => return Err(value.error("expected a positive number, or always")),
                },
                _ => return Err(name.error(OPTIONS)),
            };
        }
        fault.check().map_err(|problem| FaultSyntaxError::new(1, problem))?;
        Ok(fault)
    }
}

const KINDS: &str = "expected a status from 400 to 599, delay=TIME, close-on-connect, close-before, close-after, \
     truncate, not-json or redirect=URL";
/// The methods of requests that the emulated services answer.
const METHODS: [&str; 5] = ["GET", "PUT", "PATCH", "POST", "DELETE"];

const OPTIONS: &str = "expected method=METHOD, path=PART, times=N or times=always";
const STATUS_OPTIONS: &str = "expected retry-after=SECONDS or retry-after-date=+TIME";

/// A syntax error in the text form of a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct FaultSyntaxError {
    position: usize,
    problem: String,
}

impl FaultSyntaxError {
    fn new(position: usize, problem: impl Into<String>) -> Self {
        Self { position, problem: problem.into() }
    }

    /// Returns the position of the invalid part, in characters from 1.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

/// A part of the text form and its position.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    position: usize,
}

impl Part<'_> {
    fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut position = self.position;
        self.text.split(separator).map(move |text| {
            let part = Self { text, position };
            position += text.chars().count() + 1;
            part
        })
    }

    /// Splits the part at the first separator.
    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let position = self.position + before.chars().count() + 1;
        Some((Self { text: before, ..self }, Self { text: after, position }))
    }

    fn name_and_value(self, expected: &str) -> Result<(Self, Self), FaultSyntaxError> {
        self.split_once('=').ok_or_else(|| self.error(expected))
    }

    fn error(self, problem: &str) -> FaultSyntaxError {
        FaultSyntaxError::new(self.position, format!("{problem}; found {:?}", self.text))
    }

    fn kind(self) -> Result<FaultKind, FaultSyntaxError> {
        if self.text.starts_with(|c: char| c.is_ascii_digit()) {
            return self.status();
        }
        match (self.text, self.split_once('=')) {
            ("close-on-connect", _) => Ok(FaultKind::CloseOnConnect),
            ("close-before", _) => Ok(FaultKind::CloseBeforeHandling),
            ("close-after", _) => Ok(FaultKind::CloseAfterHandling),
            ("truncate", _) => Ok(FaultKind::TruncateBody),
            ("not-json", _) => Ok(FaultKind::NotJson),
            (_, Some((Part { text: "delay", .. }, time))) => time.time().map(FaultKind::Delay),
            (_, Some((Part { text: "redirect", .. }, url))) if !url.text.is_empty() => {
                Ok(FaultKind::Redirect(url.text.to_owned()))
            }
            _ => Err(self.error(KINDS)),
        }
    }

    fn status(self) -> Result<FaultKind, FaultSyntaxError> {
        let (status, option) = match self.split_once(':') {
            Some((status, option)) => (status, Some(option)),
            None => (self, None),
        };
        let status = status.text.parse().map_err(|_| status.error(KINDS))?;
        let Some(option) = option else { return Ok(FaultKind::Status { status, retry_after: None }) };
        let (name, value) = option.name_and_value(STATUS_OPTIONS)?;
        match (name.text, value.text.strip_prefix('+')) {
            ("retry-after", None) => {
                let seconds = value.text.parse().map_err(|_| value.error("expected a whole number of seconds"))?;
                Ok(FaultKind::Status { status, retry_after: Some(Duration::from_secs(seconds)) })
            }
            ("retry-after-date", Some(time)) => {
                let retry_after = Self { text: time, position: value.position + 1 }.time()?;
                Ok(FaultKind::StatusUntil { status, retry_after })
            }
            _ => Err(option.error(STATUS_OPTIONS)),
        }
    }

    /// Parses a whole number with its unit.
    fn time(self) -> Result<Duration, FaultSyntaxError> {
        let unit = self.text.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.text.len());
        let (number, unit) = self.text.split_at(unit);
        let time = number.parse().ok().and_then(|number: u64| match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            _ => None,
        });
        time.ok_or_else(|| self.error("expected a time, as in 500ms, 5s or 2m"))
    }
}
