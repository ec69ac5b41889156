//! Printing: results to standard output, everything else to standard error.

use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use serde::Serialize;
use serde_json::Value;

use super::error::UsageError;

/// The format of results and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Text and tables
    Human,
    /// One JSON document on standard output; on standard error if it is an error
    Json,
}

impl Format {
    /// Returns the format that the arguments ask for, before they are parsed: errors of the parser have it too.
    pub(super) fn requested_by(arguments: &[OsString]) -> Self {
        let mut arguments = arguments.iter().skip(1).map(|argument| argument.to_string_lossy());
        while let Some(argument) = arguments.next().filter(|argument| argument != "--") {
            let value = match argument.strip_prefix("--output") {
                Some("") => arguments.next().map(Cow::into_owned),
                Some(value) => value.strip_prefix('=').map(str::to_owned),
                // -o json, -o=json, -ojson, and the same after the other short options, as in -qo json.
                None => match argument.strip_prefix('-').filter(|short| !short.starts_with('-')) {
                    Some(short) => match short.trim_start_matches(['q', 'v']).strip_prefix('o') {
                        Some("") => arguments.next().map(Cow::into_owned),
                        Some(value) => Some(value.trim_start_matches('=').to_owned()),
                        None => None,
                    },
                    None => None,
                },
            };
            if value.as_deref() == Some("json") {
                return Self::Json;
            }
        }
        Self::Human
    }
}

/// An error as it is printed.
#[derive(Default, Serialize)]
pub(super) struct ErrorReport {
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    /// The service's answer, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Value>,
}

/// Prints results to standard output, and notes, progress and errors to standard error.
#[derive(Clone)]
pub(super) struct Output {
    format: Format,
    quiet: bool,
    /// With JSON, the notes so far: an error is one document that contains them.
    notes: Arc<Mutex<Vec<String>>>,
}

pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const DIM: Style = Style::new().dimmed();

/// The control sequences of these styles.
const STYLE_SEQUENCES: [&str; 6] = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];

impl Output {
    pub(super) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet, notes: Arc::default() }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Returns whether progress is shown.
    pub(super) fn shows_progress(&self) -> bool {
        !self.quiet && self.format == Format::Human
    }

    /// Prints a result: the value as JSON, or the text.
    pub(super) fn result(
        &self,
        value: &(impl Serialize + ?Sized),
        human: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let mut text = match self.format {
            Format::Json => escaped(&serde_json::to_string_pretty(value)?),
            Format::Human => without_controls(&human()),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self::raw(text.as_bytes())
    }

    /// Prints bytes unchanged, except for color if standard output does not take it.
    pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = AutoStream::new(io::stdout(), stdout_choice()).lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        match written {
            // A reader such as `head` has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("could not write to standard output"),
        }
    }

    /// Prints a note, which is no failure. With JSON it is kept until the run ends.
    pub(super) fn note(&self, text: impl Display) {
        if self.quiet {
            return;
        }
        if self.format == Format::Json {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_string());
        } else {
            Self::print_note(&text.to_string());
        }
    }

    /// Prints a warning at once, also if notes are kept or suppressed.
    pub(super) fn warning(text: impl Display) {
        Self::diagnostic(format_args!("{WARN}warning{WARN:#}: {}", clean_lines(&text.to_string())));
    }

    fn print_note(text: &str) {
        Self::diagnostic(format_args!("{WARN}note{WARN:#}: {}", clean_lines(text)));
    }

    /// Prints the notes that were kept.
    pub(super) fn flush_notes(&self) {
        self.take_notes().iter().for_each(|note| Self::print_note(note));
    }

    fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Prints progress.
    pub(super) fn progress(&self, text: impl Display) {
        if self.shows_progress() {
            Self::diagnostic(text);
        }
    }

    fn diagnostic(text: impl Display) {
        // If standard error cannot be written, there is no other place to report that.
        let _ = writeln!(anstream::stderr().lock(), "{}", without_controls(&text.to_string()));
    }

    /// Prints an error. With JSON, the notes so far are a part of the document.
    pub(super) fn error(&self, error: &ErrorReport) {
        if self.format == Format::Human {
            Self::diagnostic(format_args!("{BAD}error{BAD:#}: {}", clean_lines(&error.message)));
            if let Some(hint) = &error.hint {
                Self::diagnostic(format_args!("  {DIM}hint{DIM:#}: {}", clean_lines(hint)));
            }
            return;
        }
        let mut value = serde_json::to_value(error).unwrap_or_default();
        let notes = self.take_notes();
        if !notes.is_empty() {
            value["notes"] = notes.into();
        }
        let text = serde_json::to_string_pretty(&serde_json::json!({ "error": value })).unwrap_or_default();
        // If standard error cannot be written, there is no other place to report that.
        let _ = writeln!(anstream::stderr().lock(), "{}", escaped(&text));
    }

    /// Prints failures that do not stop the run, such as refused devices.
    pub(super) fn failures(&self, messages: &[String]) {
        let report = |message: String| self.error(&ErrorReport { message, ..ErrorReport::default() });
        match self.format {
            Format::Json if messages.is_empty() => {}
            Format::Json => report(messages.join("; ")),
            Format::Human => messages.iter().cloned().for_each(report),
        }
    }

    /// Asks for confirmation on the terminal. Without a terminal, `--yes` is required.
    ///
    /// `question` is a complete question, such as "delete the device d1?".
    pub(super) fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
        if yes {
            return Ok(());
        }
        let (stdin, stderr) = (io::stdin(), io::stderr());
        if !stdin.is_terminal() || !stderr.is_terminal() {
            let error =
                UsageError::new(format!("confirmation required, but there is no terminal to ask on: {question}"));
            return Err(error.with_hint("--yes confirms without asking").into());
        }
        let _ = write!(anstream::stderr().lock(), "{WARN}{}{WARN:#} [y/N] ", clean(question));
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            bail!("not confirmed: nothing was changed")
        }
    }
}

fn stdout_choice() -> ColorChoice {
    AutoStream::choice(&io::stdout())
}

/// Replaces control characters, except for line feeds and the sequences of the styles above. Untrusted text could contain
/// these sequences too: it goes through [`clean`] first.
fn without_controls(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let style = STYLE_SEQUENCES.into_iter().find(|sequence| character == '\x1b' && rest.starts_with(sequence));
        match style {
            Some(sequence) => cleaned.push_str(sequence),
            None => cleaned.push(if character == '\n' { character } else { replace_control(character) }),
        }
        rest = &rest[style.map_or(character.len_utf8(), str::len)..];
    }
    cleaned
}

/// Replaces every control character, including line feeds, of an untrusted text such as the name in a certificate.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(replace_control).collect()
}

fn replace_control(character: char) -> char {
    if character.is_control() || changes_direction(character) { char::REPLACEMENT_CHARACTER } else { character }
}

fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Returns whether a character changes the direction of writing, and so can disguise a text (Unicode Standard Annex 9,
/// "Directional Formatting Characters").
fn changes_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes control characters in JSON as escapes (RFC 8259 section 7), which mean the same. They occur in strings only, and
/// those below U+0020 are escaped already.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, '\u{7f}'..='\u{9f}') || changes_direction(character) {
            // None of them is beyond U+FFFF.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Formats names and values, one pair a line. Values are cleaned.
pub(super) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{DIM}{name:<width$}{DIM:#}  {}\n", clean(value))).collect()
}

/// Formats rows of cells, which are cleaned, as a table. On a terminal the widest columns are truncated until the table
/// fits.
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

/// The least width of a truncated column, which leaves the start of an ID readable.
const MIN_COLUMN_WIDTH: usize = 8;

/// Narrows the widest columns until all fit.
fn fit(widths: &mut [usize], available: usize) {
    while widths.iter().sum::<usize>() > available {
        match widths.iter_mut().max() {
            Some(widest) if *widest > MIN_COLUMN_WIDTH => *widest -= 1,
            _ => return,
        }
    }
}

pub(super) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Returns a number of things, such as "1 device" or "2 devices".
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
