//! The command line: one file a command group.
#![allow(clippy::doc_markdown, reason = "the comments on arguments are what people read, who see no markup")]

mod args;
mod cert;
mod cert_expiring;
mod cert_fleet;
mod cert_inspect;
mod certificate_search;
mod completions;
mod csv_rows;
mod deployment_manifest;
mod device;
mod device_group;
mod device_import;
mod device_register;
mod device_register_many;
mod emulator;
mod enrollment_group;
mod fleet_ids;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hint;
mod import_rows;
mod json_file;
mod many_devices;
mod output;
mod progress;
mod provision;
mod results;
mod rollover;
mod service;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::output::{Format, Output};

/// X.509 enrollment and certificates for Azure IoT Central.
#[derive(Parser)]
#[command(name = "iot-enroll", version, max_term_width = 120, propagate_version = true, infer_long_args = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// How results are printed: sentences, or one JSON document
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "human")]
    output: Format,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more: each request; twice: more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Whether to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: clap::ColorChoice,
}

#[derive(Subcommand)]
enum Command {
    /// Make and look at certificates; needs no service
    #[command(subcommand)]
    Cert(cert::Command),
    Provision(Box<provision::Provision>),
    Rollover(Box<rollover::Rollover>),
    /// Enrollment groups and their certificates
    EnrollmentGroup(Box<enrollment_group::Command>),
    /// Devices and how they prove who they are
    #[command(subcommand)]
    Device(Box<device::Command>),
    /// Queries over the devices
    #[command(subcommand)]
    DeviceGroup(Box<device_group::Command>),
    /// What runs on IoT Edge devices
    #[command(subcommand)]
    DeploymentManifest(Box<deployment_manifest::Command>),
    Emulator(emulator::Emulator),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

/// Runs the program with the arguments of the process.
///
/// The exit status is 0 when it was done, 1 when it failed, and 2 when the command line was wrong.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    match global.color {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    let output = Output::new(global.output, global.quiet);
    init_tracing(global.verbose);
    match run(command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Output::report(&error),
    }
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
