//! The end of a run: prints its error and returns the exit status.

use std::{io, process::ExitCode};

use clap::error::ErrorKind;

use super::{
    error::{AlreadyReported, Undetermined, UsageError},
    hint::hint,
    output::{ErrorReport, Format, Output},
    service_answer::ServiceAnswer,
};

/// The exit status of wrong usage, which is clap's.
const WRONG_USAGE: u8 = 2;

/// The exit status of a check that could not be completed.
const UNDETERMINED: u8 = 3;

/// Prints the error of a run, or the notes that were kept, and returns the exit status.
pub(super) fn finish(output: &Output, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        output.flush_notes();
        return ExitCode::SUCCESS;
    };
    match error.downcast::<Undetermined>() {
        Ok(Undetermined(error)) => {
            report(output, &error);
            ExitCode::from(UNDETERMINED)
        }
        Err(error) => report(output, &error),
    }
}

fn report(output: &Output, error: &anyhow::Error) -> ExitCode {
    if error.is::<AlreadyReported>() {
        output.flush_notes();
        return ExitCode::FAILURE;
    }
    if let Some(error) = error.downcast_ref() {
        return report_parser_error(output, error);
    }
    output.error(&ErrorReport {
        message: message(error),
        hint: hint(error),
        service: ServiceAnswer::of(error).and_then(|answer| serde_json::to_value(answer).ok()),
    });
    if error.is::<UsageError>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
}

/// Joins an error and its causes. Many errors repeat their cause, which is then left out.
fn message(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Prints an error of clap, or the help or version that was asked for.
fn report_parser_error(output: &Output, error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        match output.format() {
            // An error that cannot be printed is wrong usage all the same.
            Format::Human => drop(error.print()),
            Format::Json => output.error(&parser_error(error)),
        }
        return ExitCode::from(WRONG_USAGE);
    }
    match error.print() {
        Err(failure) if failure.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("could not write to standard output: {failure}");
            output.error(&ErrorReport { message, ..ErrorReport::default() });
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Takes the message and the tips from an error of clap, without usage and color.
fn parser_error(error: &clap::Error) -> ErrorReport {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ErrorReport {
            message: "a subcommand is missing".to_owned(),
            hint: Some("--help lists the subcommands".to_owned()),
            service: None,
        };
    }
    let text = error.render().to_string();
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = text.split("\n\n");
    let message = one_line(parts.next().unwrap_or_default());
    let tips: Vec<_> = parts.filter_map(|part| one_line(part).strip_prefix("tip: ").map(str::to_owned)).collect();
    ErrorReport {
        message: message.strip_prefix("error: ").unwrap_or(&message).to_owned(),
        hint: (!tips.is_empty()).then(|| tips.join("; ")),
        service: None,
    }
}
