//! What the program prints: results to standard output, everything else to standard error.

use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    hint::hint,
    service_error::{ServiceAnswer, service_answer},
};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Whole sentences and tables
    Human,
    /// One JSON document; errors are one on standard error
    Json,
}

/// The format that the arguments ask for, before they are parsed.
pub(super) fn asked_for(arguments: &[OsString]) -> Format {
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
            return Format::Json;
        }
    }
    Format::Human
}

/// Prints. Results are for standard output; notes, progress and errors for standard error.
#[derive(Clone)]
pub(super) struct Output {
    format: Format,
    quiet: bool,
    /// With JSON, the notes so far: an error is one document, and they are a part of it.
    notes: Arc<Mutex<Vec<String>>>,
}

/// A failure that the command's result reports already: only the exit status is left.
#[derive(Debug)]
pub(super) struct Told;

impl Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Told {}

/// A question about certificates that has no answer: nothing was found, or something could not be read. The exit status
/// is 3, so that a monitor can tell it from "something expires".
#[derive(Debug)]
pub(super) struct Undetermined(anyhow::Error);

impl Undetermined {
    pub(super) fn error(error: impl Into<anyhow::Error>) -> anyhow::Error {
        Self(error.into()).into()
    }
}

impl Display for Undetermined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Undetermined {}

/// Wrong usage that the parser of the command line does not see. The exit status is 2.
#[derive(Debug)]
pub(super) struct Usage {
    text: String,
    hint: Option<String>,
}

impl Usage {
    pub(super) fn error(text: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), hint: None }.into()
    }

    /// The same with what to do about it.
    pub(super) fn with_hint(text: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        Self { text: text.into(), hint: Some(hint.into()) }.into()
    }

    pub(super) fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Usage {}

/// The exit status of wrong usage, as clap has it.
const WRONG_USAGE: u8 = 2;

/// The exit status of a question that has no answer.
const UNDETERMINED: u8 = 3;

pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const DIM: Style = Style::new().dimmed();

/// What these styles are written with.
const OWN_SEQUENCES: [&str; 6] = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"];

impl Output {
    pub(super) fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet, notes: Arc::default() }
    }

    /// Returns whether progress is shown.
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

    /// Prints something that is worth knowing and is no failure. With JSON it waits for the end of the run.
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

    fn print_note(text: &str) {
        Self::diagnostic(format_args!("{WARN}note{WARN:#}: {}", clean_lines(text)));
    }

    /// Ends a run: prints its error, or the notes that are left. Returns the exit status.
    pub(super) fn finish(&self, result: anyhow::Result<()>) -> ExitCode {
        match result.map_err(anyhow::Error::downcast::<Undetermined>) {
            Err(Ok(Undetermined(error))) => {
                self.finish(Err(error));
                ExitCode::from(UNDETERMINED)
            }
            Err(Err(error)) if !error.is::<Told>() => self.report(&error),
            other => {
                self.take_notes().iter().for_each(|note| Self::print_note(note));
                if other.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
        }
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
        // When nobody can be told there is nobody to tell that to.
        let _ = writeln!(anstream::stderr().lock(), "{}", printable(&text.to_string()));
    }

    /// Prints an error with its causes and what to do about it. Returns the exit status it stands for.
    fn report(&self, error: &anyhow::Error) -> ExitCode {
        if let Some(usage) = error.downcast_ref::<clap::Error>() {
            return self.report_usage(usage);
        }
        self.failure(&chain(error), hint(error), service_answer(error));
        if error.is::<Usage>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
    }

    fn failure(&self, message: &str, hint: Option<String>, service: Option<ServiceAnswer>) {
        if self.format == Format::Human {
            Self::diagnostic(format_args!("{BAD}error{BAD:#}: {}", clean_lines(message)));
            if let Some(hint) = hint {
                Self::diagnostic(format_args!("  {DIM}hint{DIM:#}: {hint}"));
            }
            return;
        }
        let mut error = json!({ "message": message });
        if let Some(hint) = hint {
            error["hint"] = hint.into();
        }
        if let Some(ServiceAnswer { status, code, request_id }) = service {
            error["service"] = json!({ "status": status, "code": code, "requestId": request_id });
        }
        let notes = self.take_notes();
        if !notes.is_empty() {
            error["notes"] = notes.into();
        }
        Self::document(&json!({ "error": error }));
    }

    /// Prints failures that do not end the run, such as devices that were refused.
    pub(super) fn failures(&self, messages: &[String]) {
        match self.format {
            Format::Json if messages.is_empty() => {}
            Format::Json => self.failure(&messages.join("; "), None, None),
            Format::Human => messages.iter().for_each(|message| self.failure(message, None, None)),
        }
    }

    /// Prints a JSON document on standard error.
    fn document(value: &Value) {
        let text = escaped(&serde_json::to_string_pretty(value).unwrap_or_default());
        // There is nobody left to report a failure to.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }

    /// Prints what the parser of the command line found, or the help or version that was asked for.
    pub(super) fn report_usage(&self, error: &clap::Error) -> ExitCode {
        if !error.use_stderr() || self.format == Format::Human {
            let printed = error.print();
            return match printed {
                _ if error.use_stderr() => ExitCode::from(WRONG_USAGE),
                Err(failure) if failure.kind() != io::ErrorKind::BrokenPipe => {
                    self.failure(&format!("could not write to standard output: {failure}"), None, None);
                    ExitCode::FAILURE
                }
                _ => ExitCode::SUCCESS,
            };
        }
        let (message, hint) = usage_text(error);
        self.failure(&message, hint, None);
        ExitCode::from(WRONG_USAGE)
    }

    /// Asks for confirmation on the terminal before something is deleted. Without a terminal, `--yes` is required.
    ///
    /// `question` is a whole question, such as "delete the device d1?".
    pub(super) fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
        if yes {
            return Ok(());
        }
        let (stdin, stderr) = (io::stdin(), io::stderr());
        if !stdin.is_terminal() || !stderr.is_terminal() {
            return Err(Usage::with_hint(
                format!("confirmation needed, and there is no terminal to ask on: {question}"),
                "--yes confirms it",
            ));
        }
        let _ = write!(anstream::stderr().lock(), "{WARN}{}{WARN:#} [y/N] ", clean(question));
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            anyhow::bail!("not confirmed: nothing was changed")
        }
    }
}

/// The message and the tips of an error of the command line's parser, without usage and colour.
fn usage_text(error: &clap::Error) -> (String, Option<String>) {
    let text = error.render().to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ("a subcommand is missing".to_owned(), Some("--help lists the subcommands".to_owned()));
    }
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = text.split("\n\n");
    let message = one_line(parts.next().unwrap_or_default());
    let tips: Vec<_> = parts.filter_map(|part| one_line(part).strip_prefix("tip: ").map(str::to_owned)).collect();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    (message, (!tips.is_empty()).then(|| tips.join("; ")))
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
