//! `cert fleet`: device certificates by the thousand.

use std::{
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
use time::OffsetDateTime;

use super::{
    args::{KeyPassword, Pfx, PfxPassword, algorithm, lifetime},
    cert::tell_weak,
    emulator::stop_signal,
    fleet_ids::{IdFile, Requests, digits, numbered},
    output::{GOOD, Output},
    progress::bar,
};
use crate::{
    certificate::{
        CommonName, IssueOptions, KeyAlgorithm,
        files::FileSet,
        fleet::{Fleet as Maker, FleetControl, FleetError, FleetReport},
    },
    workflow::FleetDevices,
};

/// Make the certificates of many devices under an authority
///
/// Each device's files are called by its id, in folders of a thousand devices: 0000/ID_cert.pem, 0000/ID_key.pem,
/// 0000/ID_fullchain.pem and, with --pfx, 0000/ID.pfx. manifest.csv lists them in the order of the ids; device
/// import and the web page's import read it. A tar file has it inside, and beside it as FILE.manifest.csv. A run that
/// ended early is finished by the same command with --resume.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert fleet mytestrootcert --count 1000 --prefix sensor-
  iot-enroll cert fleet mytestrootcert --ids devices.csv --pfx --out factory
  iot-enroll cert fleet mytestrootcert --count 1000000 --format tar --out - | zstd > fleet.tar.zst")]
#[command(mut_arg("pfx_password_file", |argument| argument.requires("pfx")))]
#[command(group(clap::ArgGroup::new("devices").required(true).args(["count", "ids", "csr_dir"])))]
pub(super) struct Fleet {
    /// The common name of the CA; its files are looked up in --dir, and its certificate has to have that name
    parent: CommonName,
    /// How many devices, with ids made of the prefix and a number from 1 with leading zeros
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// What the ids begin with
    #[arg(long, default_value = "device-", conflicts_with_all = ["ids", "csr_dir"])]
    prefix: String,
    /// How many digits these numbers have at least, so that the fleet can grow past a power of ten [default: as many as N
    /// has]
    #[arg(long, value_name = "DIGITS", value_parser = digits(), conflicts_with_all = ["ids", "csr_dir"])]
    digits: Option<u8>,
    /// The file of the ids, one on each line, or CSV with a header and a column IOTC_DEVICEID, deviceId or id; - is
    /// standard input
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// A folder of certificate requests (PKCS#10), whose common names are the ids, one in each file: no keys are made
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["pfx", "algorithm"])]
    csr_dir: Option<PathBuf>,
    /// Files in folders, or one tar stream
    #[arg(long, default_value = "files")]
    format: Format,
    /// The folder, or the tar file; - is standard output [default: fleet, or fleet.tar]
    #[arg(long, value_name = "FOLDER|FILE|-")]
    out: Option<PathBuf>,
    /// Go on with what an earlier run of the same command has left; the list of the devices may have grown at its end
    #[arg(long)]
    resume: bool,
    /// The folder where the authority is looked for by name
    #[arg(long, value_name = "FOLDER", default_value = ".", help_heading = "Making certificates")]
    dir: PathBuf,
    /// How many days the certificates are valid [default: 1 year]
    #[arg(long, help_heading = "Making certificates")]
    days: Option<NonZeroU32>,
    /// The kind of key
    #[arg(long, default_value = "ec-p256", value_parser = algorithm(), help_heading = "Making certificates")]
    algorithm: KeyAlgorithm,
    /// Make PFX files too
    #[arg(long, help_heading = "Making certificates")]
    pfx: bool,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt the PFX files in the older way that Windows Server 2016 and macOS still need
    #[arg(long, requires = "pfx", help_heading = "Making certificates")]
    pfx_legacy: bool,
    #[command(flatten)]
    key_password: KeyPassword,
    /// How many threads work, 512 at most [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Folders of files
    Files,
    /// A tar stream
    Tar,
}

#[derive(Serialize)]
struct Summary<'a> {
    devices: u64,
    resumed: u64,
    out: &'a Path,
    manifest: Option<&'a Path>,
}

impl Fleet {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let default = if self.format == Format::Tar { "fleet.tar" } else { "fleet" };
        let out = self.out.clone().unwrap_or_else(|| default.into());
        let to_stdout = out == Path::new("-");
        if to_stdout && self.format == Format::Files {
            return usage("standard output takes a tar stream: give --format tar with --out -");
        }
        let to_stream = to_stdout || (self.format == Format::Tar && is_stream(&out));
        if to_stream && self.resume {
            return usage("a stream cannot be gone on with: --resume needs a tar file");
        }
        if to_stdout && console::Term::stdout().is_term() {
            bail!("standard output is a terminal, which a tar stream with private keys is not for");
        }
        let (count, devices) = self.devices(output)?;
        let options =
            IssueOptions { algorithm: self.algorithm, lifetime: lifetime(self.days), at: OffsetDateTime::now_utc() };
        let password = self.key_password.given()?;
        let authority = FileSet::new(&self.dir, &self.parent)?
            .read_authority(password.as_ref().map(|password| password.as_str()), options.at)
            .with_context(|| format!("there is no authority {} to sign with", self.parent))?;
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
        let report = match self.format {
            Format::Files => maker.write_folders(devices, &out, self.resume, control),
            Format::Tar if to_stdout => maker.write_tar(devices, io::stdout(), control),
            Format::Tar if to_stream => {
                let file = fs::OpenOptions::new().write(true).open(&out);
                maker.write_tar(devices, file.with_context(|| format!("could not write {}", out.display()))?, control)
            }
            Format::Tar => maker.write_tar_file(devices, &out, self.resume, control),
        };
        progress.finish_and_clear();
        let report = report.map_err(|error| if to_stream { of_stream(error) } else { error.into() })?;
        if report.stopped {
            let on = if to_stream { NO_GOING_ON } else { "the same command with --resume goes on" };
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
            (None, None, None) => bail!("one of --count, --ids and --csr-dir says which devices"),
        }
    }
}

const NO_GOING_ON: &str = "a stream cannot be gone on with, only made anew";

/// The error of a stream with how far it came.
fn of_stream(error: FleetError) -> anyhow::Error {
    match error {
        FleetError::Interrupted { made, error } => {
            anyhow!(*error).context(format!("{made} devices have been made, and {NO_GOING_ON}"))
        }
        other => other.into(),
    }
}

/// A command line that is wrong in what its parts say together.
fn usage<T>(text: &str) -> anyhow::Result<T> {
    Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format_args!("{text}\n")).into())
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
    let summary = Summary { devices: *devices, resumed: *resumed, out, manifest };
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
