//! Progress on standard error: finished lines anywhere, a live line on a terminal.

use std::{fmt::Write, time::Duration};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::output::{BAD, DIM, GOOD, Output, clean};
use crate::workflow::{Outcome, RowFailure, StepReport, WorkflowEvent};

const SPINNING: &str = "{spinner} {msg}";
const COUNTED: &str = "{spinner} {msg}: {human_pos} of {human_len}, {rate}, {eta} left";

/// Prints the steps of a workflow as they finish.
pub(super) struct Steps<'a> {
    output: &'a Output,
    /// The step under way. Hidden unless standard error is a terminal.
    live: ProgressBar,
}

impl<'a> Steps<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let live = if output.shows_progress() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let steps = Self { output, live };
        steps.set_style(SPINNING);
        steps
    }

    fn set_style(&self, template: &str) {
        // The templates are constants. If one were malformed, the default would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.live.set_style(with_rate(style));
        }
    }

    /// Shows an event.
    pub(super) fn show(&self, event: &WorkflowEvent<'_>) {
        match event {
            WorkflowEvent::Started(_, text) => {
                self.live.set_message((*text).to_owned());
                self.live.enable_steady_tick(Duration::from_millis(100));
            }
            WorkflowEvent::Progressed { done, of, .. } => {
                if self.live.length() != Some(*of) {
                    self.live.set_length(*of);
                    self.set_style(COUNTED);
                }
                self.live.set_position(*done);
            }
            // The causes are in the results file, and the first ones are reported at the end.
            WorkflowEvent::RowFailed(_) | WorkflowEvent::DeviceFailed { .. } => {}
            WorkflowEvent::Finished(report) => {
                self.live.disable_steady_tick();
                self.live.unset_length();
                self.set_style(SPINNING);
                self.live.suspend(|| self.output.progress(line(report)));
            }
        }
    }

    /// Removes the live line.
    pub(super) fn finish(&self) {
        self.live.finish_and_clear();
    }
}

/// Formats a finished step as a line.
fn line(report: &StepReport) -> String {
    let StepReport { step, outcome, detail } = report;
    let (style, mark) = match outcome {
        Outcome::Done => (GOOD, "✓"),
        Outcome::Unchanged => (DIM, "="),
        Outcome::Planned => (DIM, "…"),
        Outcome::Failed => (BAD, "✗"),
    };
    format!("{style}{mark}{style:#} {:<12} {}", step.name(), clean(detail))
}

/// Formats the plan of a dry run.
pub(super) fn plan(steps: &[StepReport]) -> String {
    let plan: String = steps.iter().map(|step| format!("{}\n", line(step))).collect();
    format!("{plan}This was a dry run: nothing was changed.\n")
}

/// Shows the progress of a run over the rows of a file: a bar on a terminal, and the rows that fail.
pub(super) struct RowProgress<'a> {
    output: &'a Output,
    bar: ProgressBar,
}

impl<'a> RowProgress<'a> {
    pub(super) fn new(output: &'a Output, rows: u64) -> Self {
        Self { output, bar: bar(output, rows, "devices") }
    }

    /// Shows an event.
    pub(super) fn show(&self, event: &WorkflowEvent<'_>) {
        match event {
            WorkflowEvent::Progressed { done, of, .. } => {
                self.bar.set_length(*of);
                self.bar.set_position(*done);
            }
            WorkflowEvent::RowFailed(failure) => self.bar.suspend(|| self.output.progress(failure_line(failure))),
            WorkflowEvent::DeviceFailed { id, message } => self.bar.suspend(|| {
                self.output.progress(format_args!("{BAD}{}{BAD:#}: {}", clean(id), clean(message)));
            }),
            WorkflowEvent::Started(..) | WorkflowEvent::Finished(_) => {}
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn failure_line(failure: &RowFailure) -> String {
    let text = clean(&failure.to_string());
    match text.split_once(": ") {
        Some((line, message)) => format!("{BAD}{line}{BAD:#}: {message}"),
        None => text,
    }
}

/// Returns a bar with rate and time left. It is hidden unless standard error is a terminal.
pub(super) fn bar(output: &Output, length: u64, what: &str) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let template = format!("{{wide_bar}} {{human_pos}}/{{human_len}} {what}, {{rate}}, {{eta}} left");
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(with_rate(style)),
        Err(_) => bar,
    }
}

/// Adds the key `rate`: how many per second, as a whole number.
fn with_rate(style: ProgressStyle) -> ProgressStyle {
    style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        let _ = write!(text, "{:.0}/s", state.per_sec());
    })
}
