//! What the program prints: results to standard output, everything else to standard error.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
    process::ExitCode,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use serde::Serialize;

use super::hint::hint;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Whole sentences and tables
    Human,
    /// One JSON document
    Json,
}

/// Prints. Results are for standard output; notes, progress and errors for standard error.
#[derive(Clone)]
pub(super) struct Output {
    format: Format,
    quiet: bool,
}

/// A failure that has been told already, as a result of the command: only the exit status is left to say.
#[derive(Debug)]
pub(super) struct Told;

impl Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Told {}

/// A command line that is wrong, whatever files, environment and service are, in a way that its parser does not see.
#[derive(Debug)]
pub(super) struct Usage(String);

impl Usage {
    pub(super) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The exit status of wrong usage, as clap has it.
const WRONG_USAGE: u8 = 2;

pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const DIM: Style = Style::new().dimmed();

/// What these styles are written with.
const OWN_SEQUENCES: [&str; 6] = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];

impl Output {
    pub(super) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether there is somebody to read how it goes on.
    pub(super) fn shows_progress(&self) -> bool {
        !self.quiet && self.format == Format::Human
    }

    /// Prints a result: the value as JSON, or the text for people.
    pub(super) fn result(
        &self,
        value: &(impl Serialize + ?Sized),
        human: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let mut text = match self.format {
            Format::Json => escaped(&serde_json::to_string_pretty(value)?),
            Format::Human => printable(&human()),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self::raw(text.as_bytes())
    }

    /// Prints bytes as they are, without colour where nobody sees it.
    pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = AutoStream::new(io::stdout(), stdout_choice()).lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        match written {
            // Whoever reads has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| anyhow::anyhow!("could not write to standard output: {error}")),
        }
    }

    /// Tells something that is worth knowing and is no failure.
    pub(super) fn note(&self, text: impl Display) {
        if !self.quiet {
            Self::diagnostic(format_args!("{WARN}note{WARN:#}: {}", clean_lines(&text.to_string())));
        }
    }

    /// Tells how it goes on.
    pub(super) fn progress(&self, text: impl Display) {
        if self.shows_progress() {
            Self::diagnostic(text);
        }
    }

    fn diagnostic(text: impl Display) {
        // When nobody can be told there is nobody to tell that to.
        let _ = writeln!(anstream::stderr().lock(), "{}", printable(&text.to_string()));
    }

    /// Tells an error with its causes and what to do about it; the exit status it stands for.
    pub(super) fn report(error: &anyhow::Error) -> ExitCode {
        if let Some(usage) = error.downcast_ref::<clap::Error>() {
            let _ = usage.print();
            return ExitCode::from(2);
        }
        if error.downcast_ref::<Told>().is_none() {
            Self::diagnostic(format_args!("{BAD}error{BAD:#}: {}", clean_lines(&chain(error))));
            if let Some(hint) = hint(error) {
                Self::diagnostic(format_args!("  {DIM}hint{DIM:#}: {hint}"));
            }
        }
        if error.downcast_ref::<Usage>().is_some() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
    }
}

fn stdout_choice() -> ColorChoice {
    AutoStream::choice(&io::stdout())
}

/// The text with what would do something to a terminal replaced. Of control sequences our own styles are left; a text from
/// elsewhere that could use them goes through [`clean`] first.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let own = OWN_SEQUENCES.into_iter().find(|sequence| character == '\x1b' && rest.starts_with(sequence));
        match own {
            Some(sequence) => printable.push_str(sequence),
            None => printable.push(if character == '\n' { character } else { harmless(character) }),
        }
        rest = &rest[own.map_or(character.len_utf8(), str::len)..];
    }
    printable
}

/// A text from elsewhere, such as a certificate's or a device's name, as it can stand within a line.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(harmless).collect()
}

fn harmless(character: char) -> char {
    if character.is_control() || turns_direction(character) { char::REPLACEMENT_CHARACTER } else { character }
}

fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Whether it turns the direction of writing, so that a text does not read as what it is (Unicode Standard Annex 9,
/// "Directional Formatting Characters").
fn turns_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON, with what would do something to a terminal written as escapes (RFC 8259 section 7), which read the same. All of it
/// stands in strings; those below U+0020 are escaped already.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, '\u{7f}'..='\u{9f}') || turns_direction(character) {
            // None of them is beyond U+FFFF.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The error and its causes on one line. Many errors tell their cause themselves; what was said is not said again.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Names and values, which are cleaned, below one another.
pub(super) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{DIM}{name:<width$}{DIM:#}  {}\n", clean(value))).collect()
}

/// Rows of cells, which are cleaned, in columns, each as wide as what it holds; the last is not filled up. On a terminal
/// the widest columns are cut until the table fits.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows = rows.into_iter().map(|row| row.map(|cell| clean(&cell)));
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or_default());
    if let Some((_, columns)) = Term::stdout().size_checked() {
        fit(&mut widths, usize::from(columns).saturating_sub(GAP.len() * (N - 1)));
    }
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| {
                pad_str(&truncate_str(cell, width, "…"), width, Alignment::Left, None).into_owned()
            });
            format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
        })
        .collect()
}

const GAP: &str = "  ";

/// No column is made narrower than this.
const NARROWEST: usize = 8;

fn fit(widths: &mut [usize], available: usize) {
    while widths.iter().sum::<usize>() > available {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// A boolean for people.
pub(super) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}
