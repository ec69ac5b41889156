//! The command line: one file a command group.
#![allow(clippy::doc_markdown, reason = "the comments on arguments are what people read, who see no markup")]

mod args;
mod cert;
mod cert_expiring;
mod cert_fleet;
mod cert_inspect;
mod certificate_search;
mod completions;
mod deployment_manifest;
mod device;
mod device_group;
mod device_import;
mod device_register;
mod device_register_many;
mod emulator;
mod enrollment_group;
mod examples;
mod fleet_ids;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hint;
mod import_rows;
mod json_file;
mod man;
mod many_devices;
mod next_command;
mod output;
mod progress;
mod provision;
mod results_argument;
mod rollover;
mod secret_arguments;
mod service;
mod service_error;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::{Format, Output};

/// X.509 enrollment and certificates for Azure IoT Central.
#[derive(Parser)]
#[command(name = "iot-enroll", version, max_term_width = 120, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// How results and errors are printed
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "human")]
    output: Format,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print each request; given twice, more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use color
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: clap::ColorChoice,
}

#[derive(Subcommand)]
enum Command {
    /// Issue, inspect and verify certificates; needs no service
    #[command(subcommand)]
    Cert(cert::Command),
    Provision(Box<provision::Provision>),
    Rollover(Box<rollover::Rollover>),
    /// Enrollment groups and their certificates
    EnrollmentGroup(Box<enrollment_group::Command>),
    /// Devices and their attestation
    #[command(subcommand)]
    Device(Box<device::Command>),
    /// Device groups: queries over the devices
    #[command(subcommand)]
    DeviceGroup(Box<device_group::Command>),
    /// Deployment manifests for IoT Edge devices
    #[command(subcommand)]
    DeploymentManifest(Box<deployment_manifest::Command>),
    Emulator(emulator::Emulator),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    Man(man::Man),
}

/// Runs the program with the arguments of the process.
///
/// The exit status is 0 if it succeeded, 1 if it failed, and 2 if the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    survive_file_size_limit();
    let arguments: Vec<_> = env::args_os().collect();
    // Errors of the command line itself are in the format that it asks for.
    let before_parsing = Output::new(output::asked_for(&arguments), false);
    let (Cli { global, command }, matches) = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return before_parsing.finish(Err(error)),
    };
    match global.color {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let output = Output::new(global.output, global.quiet);
    init_tracing(global.verbose);
    let checked = secret_arguments::check_files(&built(), &matches, &output);
    output.finish(checked.and_then(|()| run(command, &output)))
}

/// Makes a write beyond the limit of `ulimit -f` fail like any other write. By default the system ends the process with
/// SIGXFSZ, without a message and with temporary files left behind.
#[cfg(unix)]
fn survive_file_size_limit() {
    use tokio::signal::unix::{SignalKind, signal};
    // The same on every Unix that Rust supports, except for Linux on MIPS.
    const SIGXFSZ: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 31 } else { 25 };
    // Once there is a handler it stays. Without one the program works, except at that limit.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        let _context = runtime.enter();
        let _ = signal(SignalKind::from_raw(SIGXFSZ));
    }
}

/// There is no such limit elsewhere.
#[cfg(not(unix))]
fn survive_file_size_limit() {}

/// Parses the arguments. No error repeats what may be a secret.
fn parse(arguments: &[OsString]) -> anyhow::Result<(Cli, clap::ArgMatches)> {
    let mut command = built();
    secret_arguments::check(&command, arguments)?;
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((cli, matches))
    });
    parsed.map_err(|error| secret_arguments::conceal(&command, arguments, error))
}

/// The command line, with the global options in every command.
fn built() -> clap::Command {
    let mut command = examples::break_lines(Cli::command());
    command.build();
    command
}

fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Cert(command) => command.run(output),
        Command::Provision(provision) => provision.run(output),
        Command::Rollover(rollover) => rollover.run(output),
        Command::EnrollmentGroup(command) => command.run(output),
        Command::Device(command) => command.run(output),
        Command::DeviceGroup(command) => command.run(output),
        Command::DeploymentManifest(command) => command.run(output),
        Command::Emulator(emulator) => emulator.run(output),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(examples::break_lines(Cli::command()), output),
    }
}

fn init_tracing(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "iot_enroll=debug",
        _ => "debug,h2=info",
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
        .init();
}
