//! The command line. It is not a part of the public API.
//!
//! Each command group has a file. `args`, `service`, `dps_service`, `any_service`, `issuer` and `registration` hold options
//! that commands share; `report`
//! turns an error into a message, a hint and an exit status.
#![allow(
    clippy::doc_markdown,
    rustdoc::bare_urls,
    reason = "the comments on arguments are printed as help, without markup"
)]

mod any_service;
mod args;
mod cert;
mod cert_convert;
mod cert_edge;
mod cert_expiring;
mod cert_fleet;
mod cert_inspect;
mod cert_issue;
mod cert_pair;
mod cert_renew;
mod cert_request;
mod cert_server;
mod cert_verify;
mod certificate_search;
mod certificate_text;
mod completions;
mod deployment_manifest;
mod device;
mod device_attestation;
mod device_compute_key;
mod device_group;
mod device_import;
mod device_register;
mod device_register_certificate;
mod device_register_many;
mod dps;
mod dps_certificate;
mod dps_enrollment;
mod dps_enrollment_group;
mod dps_registration;
mod dps_service;
mod dps_settings;
mod dps_show;
mod emulator;
mod emulator_check;
mod enrollment_group;
mod error;
mod examples;
mod fleet_ids;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(feature = "pkcs11")]
mod hidden_question;
mod hint;
mod import_rows;
mod input;
mod issuer;
mod json_file;
mod man;
mod many_devices;
mod migrate;
mod migrate_apply;
mod migrate_move;
mod migrate_plan;
mod migrate_rehearse;
mod migrate_status;
mod next_command;
mod output;
mod planned_services;
mod progress;
mod prometheus;
mod provision;
mod provision_target;
mod random_source;
mod registration;
mod report;
mod results_argument;
mod rollover;
mod secret_arguments;
mod secrets;
mod service;
mod service_answer;
mod stop_signal;
mod token_key;
#[cfg(feature = "pkcs11")]
mod token_login;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    output::{Format, Output},
    random_source::check_random_source,
    report::finish,
};

/// X.509 enrollment and certificates for Azure IoT Central and DPS
#[derive(Parser)]
#[command(name = "iot-enroll", version, max_term_width = 120, propagate_version = true)]
#[command(after_help = "Examples:
  iot-enroll provision --emulator --register
  iot-enroll cert root mytestrootcert
  iot-enroll cert device sample-device-01 mytestrootcert
  iot-enroll device list --app contoso --token-file token")]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// Format of results and errors
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "human")]
    output: Format,
    /// Print only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print each request; -vv prints more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use color
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: clap::ColorChoice,
}

#[derive(Subcommand)]
enum Command {
    /// Issue and examine certificates, without a service
    #[command(subcommand)]
    Cert(cert::Command),
    Provision(Box<provision::Provision>),
    Rollover(Box<rollover::Rollover>),
    /// Move the devices of an application to a DPS instance, keys unchanged
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Manage enrollment groups and their certificates
    EnrollmentGroup(Box<enrollment_group::Command>),
    /// Manage, import and register devices
    #[command(subcommand)]
    Device(Box<device::Command>),
    /// Manage device groups, which are queries over devices
    #[command(subcommand)]
    DeviceGroup(Box<device_group::Command>),
    /// Manage deployment manifests for IoT Edge devices
    #[command(subcommand)]
    DeploymentManifest(Box<deployment_manifest::Command>),
    /// Manage a DPS instance: its certificates, enrollments and registrations
    Dps(Box<dps::Command>),
    Emulator(emulator::Emulator),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Runs the program with the arguments of the process.
///
/// The exit status is 0 on success, 1 on failure, 2 for wrong usage, and 3 if a check could not be completed.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    // Errors of the parser have the format that the command line asks for.
    let before_parsing = Output::new(Format::requested_by(&arguments), false);
    if let Err(error) = check_random_source() {
        return finish(&before_parsing, Err(error.into()));
    }
    ignore_file_size_signal();
    let Parsed { cli: Cli { global, command }, matches, line } = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return finish(&before_parsing, Err(error)),
    };
    match global.color {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let output = Output::new(global.output, global.quiet);
    init_tracing(global.verbose);
    let checked = secret_arguments::check_files(&line, &matches, &output);
    finish(&output, checked.and_then(|()| run(command, &output)))
}

/// Makes a write beyond the limit of `ulimit -f` fail like any other write. By default SIGXFSZ ends the process without a
/// message, and temporary files are left behind.
#[cfg(unix)]
fn ignore_file_size_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    // The number is the same on every Unix that Rust supports, except for Linux on MIPS.
    const SIGXFSZ: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 31 } else { 25 };
    // The handler stays after the runtime is dropped. Without it the program works, except at that limit.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        let _context = runtime.enter();
        let _ = signal(SignalKind::from_raw(SIGXFSZ));
    }
}

#[cfg(not(unix))]
fn ignore_file_size_signal() {}

/// The arguments, and the definition of the command line that they were parsed with.
struct Parsed {
    cli: Cli,
    matches: clap::ArgMatches,
    line: clap::Command,
}

/// Parses the arguments. No error repeats a value that may be a secret.
fn parse(arguments: &[OsString]) -> anyhow::Result<Parsed> {
    // Parsing completes the commands that the arguments select. The others are only needed to find the cause of an error, and
    // the examples to show help.
    let mut line = Cli::command();
    let mut matches = line.try_get_matches_from_mut(arguments);
    match matches.as_ref().map_err(clap::Error::kind) {
        Ok(_) => {}
        Err(ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) => {
            line = command_line();
            matches = line.try_get_matches_from_mut(arguments);
        }
        Err(_) => line.build(),
    }
    secret_arguments::check(&line, arguments)?;
    let parsed = matches.and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut line))?;
        Ok((cli, matches))
    });
    match parsed {
        Ok((cli, matches)) => Ok(Parsed { cli, matches, line }),
        Err(error) => Err(secret_arguments::conceal(&line, arguments, error)),
    }
}

/// Builds the whole command line: the global options in every command, and examples that can be pasted.
fn command_line() -> clap::Command {
    let mut command = examples::break_lines(Cli::command());
    command.build();
    command
}

fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Cert(command) => command.run(output),
        Command::Provision(provision) => provision.run(output),
        Command::Rollover(rollover) => rollover.run(output),
        Command::Migrate(command) => command.run(output),
        Command::EnrollmentGroup(command) => command.run(output),
        Command::Device(command) => command.run(output),
        Command::DeviceGroup(command) => command.run(output),
        Command::DeploymentManifest(command) => command.run(output),
        Command::Dps(command) => command.run(output),
        Command::Emulator(emulator) => emulator.run(output),
        Command::Completions(completions) => completions.run(&mut Cli::command()),
        Command::Man(man) => man.run(examples::break_lines(Cli::command()), output),
    }
}

fn init_tracing(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => Targets::new().with_target("iot_enroll", Level::DEBUG),
        _ => Targets::new().with_default(Level::DEBUG).with_target("h2", Level::INFO),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &clap::Command, long: &mut Vec<String>) {
        let summaries = command.get_arguments().map(|argument| (argument.get_id().as_str(), argument.get_help()));
        for (name, text) in summaries.chain([("about", command.get_about())]) {
            let text = text.map(ToString::to_string).unwrap_or_default();
            if text.lines().count() > 1 || text.chars().count() > 80 {
                long.push(format!("{} {name}: {text}", command.get_bin_name().unwrap_or_default()));
            }
        }
        command.get_subcommands().for_each(|inner| check(inner, long));
    }

    #[test]
    fn help_starts_with_one_short_line() {
        let mut long = Vec::new();
        check(&command_line(), &mut long);
        assert!(long.is_empty(), "{}", long.join("\n"));
    }
}
