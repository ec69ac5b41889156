//! `cert fleet`: device certificates by the thousand.

use std::{
    borrow::Cow,
    fs, io,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

use super::{
    args::{IssuerFiles, KeyPassword, Pfx, PfxPassword, algorithm, days, lifetime},
    cert::tell_weak,
    emulator::stop_signal,
    fleet_ids::{IdFile, Requests, digits, numbered},
    output::{GOOD, Output, Usage},
    progress::bar,
};
use crate::{
    certificate::{
        CommonName, IssueOptions, KeyAlgorithm, Timestamp,
        files::{self, FileSet, Passwords},
        fleet::{Fleet as Maker, FleetControl, FleetError, FleetReport, IfExists},
    },
    workflow::{FleetDevices, lossy_path},
};

/// Make the certificates of many devices under a CA
///
/// Each device's files are named after its ID, in directories of a thousand devices: 0000/ID_cert.pem, 0000/ID_key.pem,
/// 0000/ID_fullchain.pem and, with --pfx, 0000/ID.pfx. manifest.csv lists them in the order of the IDs; device import and
/// the web page's import read it. A tar file contains it, and FILE.manifest.csv is a copy. --resume continues a run that
/// was interrupted.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert fleet mytestrootcert --count 1000 --prefix sensor-
  iot-enroll cert fleet mytestrootcert --devices devices.csv --pfx --out factory
  iot-enroll cert fleet --ca-cert company_cert.pem --ca-key company_key.pem --devices devices.csv
  iot-enroll cert fleet mytestrootcert --count 1000000 --format tar --out - | zstd > fleet.tar.zst")]
#[command(mut_arg("pfx_password_file", |argument| argument.requires("pfx").help_heading("Making certificates")))]
#[command(group(clap::ArgGroup::new("issuer").required(true).args(["parent", "ca_cert"])))]
#[command(group(clap::ArgGroup::new("which").required(true).args(["count", "ids", "csr_dir"])))]
pub(super) struct Fleet {
    /// The common name of the issuer; its files are looked up in --dir, and its certificate must have that name
    parent: Option<CommonName>,
    #[command(flatten)]
    issuer: IssuerFiles,
    #[command(flatten)]
    key_password: KeyPassword,
    /// How many devices, with IDs made of the prefix and a number from 1 with leading zeros
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// The beginning of the IDs
    #[arg(long, default_value = "device-", conflicts_with_all = ["ids", "csr_dir"])]
    prefix: String,
    /// The least digits of these numbers, so that the fleet can grow past a power of ten [default: as many as N has]
    #[arg(long, value_name = "DIGITS", value_parser = digits(), conflicts_with_all = ["ids", "csr_dir"])]
    digits: Option<u8>,
    /// A file with the IDs, one a line, or CSV with a column IOTC_DEVICEID, deviceId or id; - is standard input
    #[arg(long = "devices", alias = "ids", value_name = "FILE")]
    ids: Option<PathBuf>,
    /// A directory of certificate requests (PKCS#10), one a file, whose common names are the IDs: no keys are made
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pfx", "algorithm"])]
    csr_dir: Option<PathBuf>,
    /// Files in directories, or one tar stream
    #[arg(long, default_value = "files")]
    format: Format,
    /// The directory or the tar file to write; - is standard output [default: fleet, or fleet.tar]
    #[arg(long, value_name = "DIR|FILE|-")]
    out: Option<PathBuf>,
    /// Resume an interrupted run of the same command; the list of devices may have grown at its end
    #[arg(long)]
    resume: bool,
    /// The directory where PARENT is looked up
    #[arg(long, value_name = "DIR", default_value = ".", help_heading = "Making certificates")]
    dir: PathBuf,
    /// How many days the certificates are valid [default: 1 year]
    #[arg(
        long,
        value_name = "DAYS",
        value_parser = days,
        allow_negative_numbers = true,
        help_heading = "Making certificates"
    )]
    days: Option<NonZeroU32>,
    /// The algorithm of new keys
    #[arg(long, default_value = "ec-p256", value_parser = algorithm(), help_heading = "Making certificates")]
    algorithm: KeyAlgorithm,
    /// Write PFX files too
    #[arg(long, help_heading = "Making certificates")]
    pfx: bool,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt the PFX files with 3DES and SHA-1, as Windows Server 2016 and macOS require
    #[arg(long, requires = "pfx", help_heading = "Making certificates")]
    pfx_legacy: bool,
    /// How many threads to use, at most 512 [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Files in directories
    Files,
    /// A tar stream
    Tar,
}

#[derive(Serialize)]
struct Summary<'a> {
    devices: u64,
    resumed: u64,
    #[serde(serialize_with = "lossy_path")]
    out: &'a Path,
    manifest: Option<Cow<'a, str>>,
}

impl Fleet {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let default = if self.format == Format::Tar { "fleet.tar" } else { "fleet" };
        let out = self.out.clone().unwrap_or_else(|| default.into());
        let to_stdout = out == Path::new("-");
        if to_stdout && self.format == Format::Files {
            return Err(Usage::error("standard output takes a tar stream: give --format tar with --out -"));
        }
        let to_stream = to_stdout || (self.format == Format::Tar && is_stream(&out));
        if to_stream && self.resume {
            return Err(Usage::error("a stream cannot be resumed: --resume needs a tar file"));
        }
        if to_stdout && console::Term::stdout().is_term() {
            bail!("standard output is a terminal, and a tar stream with private keys is not written to one");
        }
        let (count, devices) = self.devices(output)?;
        let options = IssueOptions::new().algorithm(self.algorithm).lifetime(lifetime(self.days));
        let options = options.at(Timestamp::now());
        let password = self.key_password.given()?;
        let password = password.as_ref().map(|password| password.as_str());
        let authority = match (self.issuer.given(), &self.parent) {
            (Some((certificate, key)), _) => {
                let pfx = self.pfx_password.given()?;
                let passwords = Passwords { key: password, pfx: pfx.as_ref().map(|password| password.as_str()) };
                files::read_authority(certificate, key, passwords, options.issue_time())?
            }
            (None, Some(parent)) => FileSet::new(&self.dir, parent)?
                .read_authority(password, options.issue_time())
                .with_context(|| format!("there is no authority {parent} to sign with"))?,
            (None, None) => bail!("an issuer is needed: PARENT, or --ca-cert and --ca-key"),
        };
        let pfx = if self.pfx { Some(Pfx::new(&self.pfx_password, self.pfx_legacy)?) } else { None };
        let threads = self.threads.and_then(|threads| NonZeroUsize::new(threads.into()));
        let threads = threads.or(thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let maker = Maker::new(&authority, &options, pfx.as_ref().map(Pfx::options), threads)?;
        if let Some(asked) = maker.issuer().shortened_from() {
            output.note(format_args!(
                "the certificates end on {} with their issuer, not on {} as their lifetime would have it",
                maker.issuer().validity().not_after.date(),
                asked.date()
            ));
        }
        tell_weak(Some(authority.issuers().last().unwrap_or(authority.certificate())), output);
        if let Some(pfx) = &pfx {
            pfx.tell(output);
        }
        let stop = stop_flag()?;
        let progress = bar(output, count, "devices");
        let control = FleetControl { stop: &stop, progress: &|made| progress.inc(made) };
        let if_exists = if self.resume { IfExists::Resume } else { IfExists::Fail };
        let report = match self.format {
            Format::Files => maker.write_directory(devices, &out, if_exists, control),
            Format::Tar if to_stdout => maker.write_tar(devices, io::stdout(), control),
            Format::Tar if to_stream => {
                let file = fs::OpenOptions::new().write(true).open(&out);
                maker.write_tar(devices, file.with_context(|| format!("could not write {}", out.display()))?, control)
            }
            Format::Tar => maker.write_tar_file(devices, &out, if_exists, control),
        };
        progress.finish_and_clear();
        let report = report.map_err(|error| if to_stream { of_stream(error) } else { error.into() })?;
        if report.stopped {
            let on = if to_stream { NO_GOING_ON } else { "the same command with --resume continues" };
            bail!("stopped: {} devices have been made; {on}", report.devices);
        }
        tell(&report, &out, to_stdout, output)
    }

    fn devices(&self, output: &Output) -> anyhow::Result<(u64, FleetDevices)> {
        match (self.count, &self.ids, &self.csr_dir) {
            (Some(count), ..) => Ok((count.get(), numbered(&self.prefix, count.get(), self.digits)?)),
            (_, Some(ids), _) => {
                let ids = IdFile::open(ids, false)?;
                if let Some(header) = ids.lone_header() {
                    output.note(format_args!(
                        "the first line, {header}, was taken for the name of the column, not for an id"
                    ));
                }
                Ok((ids.check()?, ids.devices()?))
            }
            (_, _, Some(folder)) => {
                let requests = Requests::check(folder, output)?;
                Ok((requests.count(), requests.devices()))
            }
            (None, None, None) => bail!("one of --count, --devices and --csr-dir says which devices"),
        }
    }
}

const NO_GOING_ON: &str = "a stream cannot be resumed, only written again";

/// The error of a stream with how far it came.
fn of_stream(error: FleetError) -> anyhow::Error {
    match error {
        FleetError::Interrupted { made, error } => {
            anyhow!(*error).context(format!("{made} devices have been made, and {NO_GOING_ON}"))
        }
        other => other.into(),
    }
}

/// Whether something is there that bytes can only be appended to: a pipe, a device.
fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn tell(report: &FleetReport, out: &Path, to_stdout: bool, output: &Output) -> anyhow::Result<()> {
    let FleetReport { devices, resumed, .. } = report;
    let earlier = if *resumed > 0 { format!(", {resumed} of them by an earlier run") } else { String::new() };
    let text = || format!("{GOOD}Made the certificates of {devices} devices{GOOD:#}{earlier}: {}", out.display());
    if to_stdout {
        // Standard output is taken.
        output.progress(text());
        return Ok(());
    }
    let manifest = report.manifest.as_deref();
    let listed = manifest.map(Path::to_string_lossy);
    let summary = Summary { devices: *devices, resumed: *resumed, out, manifest: listed };
    output.result(&summary, || match manifest {
        Some(manifest) => format!("{}\nThey are listed in {}.", text(), manifest.display()),
        None => text(),
    })
}

/// Becomes true when the process is asked to stop.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signal = runtime.block_on(async { stop_signal() })?;
    // Ends with the process.
    thread::spawn(move || {
        runtime.block_on(signal);
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
