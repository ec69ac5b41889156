//! `cert fleet`: certificates for many devices.

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
    args::{CERTIFICATES, Pfx, PfxPassword, algorithm, days, lifetime},
    certificate_text::{note_shortened, note_weak_signature},
    error::UsageError,
    fleet_ids::{IdFile, Requests, digits, numbered},
    issuer::{Issuer, MISSING_ISSUER},
    output::{GOOD, Output},
    progress::bar,
    stop_signal::stop_signal,
};
use crate::{
    certificate::{
        CertificateAuthority, IssueOptions, KeyAlgorithm, Timestamp,
        fleet::{Fleet as FleetIssuer, FleetControl, FleetError, FleetReport, IfExists},
    },
    workflow::{FleetDevices, lossy_path},
};

/// Issue certificates for many devices
///
/// Writes the files of each device into directories of a thousand devices: 0000/ID_cert.pem, 0000/ID_key.pem,
/// 0000/ID_fullchain.pem and, with --pfx, 0000/ID.pfx. manifest.csv lists the devices in order; device import and the
/// import page of IoT Central read it. With --format tar, the manifest is in the tar file and copied to FILE.manifest.csv.
///
/// --resume resumes an interrupted run of the same command.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert fleet mytestrootcert --count 1000 --prefix sensor-
  iot-enroll cert fleet mytestrootcert --devices devices.csv --pfx --out factory
  iot-enroll cert fleet --ca-cert company_cert.pem --ca-key company_key.pem --devices devices.csv
  iot-enroll cert fleet mytestrootcert --count 1000000 --format tar --out - | zstd > fleet.tar.zst")]
#[command(mut_arg("pfx_password_file", |argument| argument.requires("pfx").help_heading(CERTIFICATES)))]
#[command(group(clap::ArgGroup::new("issuer").required(true).args(["parent", "ca_cert"])))]
#[command(group(clap::ArgGroup::new("which").required(true).args(["count", "ids", "csr_dir"])))]
pub(super) struct Fleet {
    #[command(flatten)]
    issuer: Issuer,
    /// Number of devices, whose IDs are the prefix and a number from 1
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Prefix of the IDs
    #[arg(long, default_value = "device-", conflicts_with_all = ["ids", "csr_dir"])]
    prefix: String,
    /// Minimum number of digits, padded with zeros [default: as many as N has]
    ///
    /// Set it to let the fleet grow past a power of ten without changing the IDs of earlier devices.
    #[arg(long, value_name = "DIGITS", value_parser = digits(), conflicts_with_all = ["ids", "csr_dir"])]
    digits: Option<u8>,
    /// File with the device IDs, one a line or CSV; - is standard input
    ///
    /// A CSV file needs a column IOTC_DEVICEID, deviceId or id.
    #[arg(long = "devices", alias = "ids", value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Directory of certificate requests (PKCS#10) to sign instead of creating keys
    ///
    /// Each file holds one request, whose common name is the device ID.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["pfx", "algorithm"])]
    csr_dir: Option<PathBuf>,
    /// Output format
    #[arg(long, default_value = "files")]
    format: Format,
    /// Output directory or tar file; - is standard output [default: fleet or fleet.tar]
    #[arg(long, value_name = "DIR|FILE|-")]
    out: Option<PathBuf>,
    /// Resume an interrupted run of the same command
    ///
    /// The list of devices may have grown at its end.
    #[arg(long)]
    resume: bool,
    /// Directory with the files of PARENT
    #[arg(long, value_name = "DIR", default_value = ".", help_heading = CERTIFICATES)]
    dir: PathBuf,
    /// Validity of the certificates in days [default: 1 year]
    #[arg(
        long,
        value_name = "DAYS",
        value_parser = days,
        allow_negative_numbers = true,
        help_heading = CERTIFICATES
    )]
    days: Option<NonZeroU32>,
    /// Algorithm of new private keys
    #[arg(long, default_value = "ec-p256", value_parser = algorithm(), help_heading = CERTIFICATES)]
    algorithm: KeyAlgorithm,
    /// Also write PFX files
    #[arg(long, help_heading = CERTIFICATES)]
    pfx: bool,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt PFX files with 3DES and SHA-1 for Windows Server 2016 and macOS
    #[arg(long, requires = "pfx", help_heading = CERTIFICATES)]
    pfx_legacy: bool,
    /// Number of threads, at most 512 [default: one for each core]
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

/// Where the certificates are written.
enum Destination {
    Directory(PathBuf),
    TarFile(PathBuf),
    /// A pipe or device, which can only be appended to.
    TarStream(PathBuf),
    TarStdout,
}

impl Fleet {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        let destination = self.destination()?;
        let (count, devices) = self.devices(output)?;
        let options = IssueOptions::new().algorithm(self.algorithm).lifetime(lifetime(self.days));
        let options = options.at(Timestamp::now());
        let authority =
            self.issuer.read(&self.dir, &self.pfx_password, options.issue_time(), output)?.context(MISSING_ISSUER)?;
        let pfx = if self.pfx { Some(Pfx::new(&self.pfx_password, self.pfx_legacy)?) } else { None };
        let issuer = FleetIssuer::new(&authority, &options, pfx.as_ref().map(Pfx::options), threads(self.threads))?;
        note_issuer(&issuer, &authority, output);
        if let Some(pfx) = &pfx {
            pfx.note_default_password(output);
        }
        let stop = stop_flag()?;
        let progress = bar(output, count, "devices");
        let control = FleetControl { stop: &stop, progress: &|issued| progress.inc(issued) };
        let if_exists = if self.resume { IfExists::Resume } else { IfExists::Fail };
        let report = destination.write(&issuer, devices, if_exists, control);
        progress.finish_and_clear();
        let report = report?;
        if report.stopped {
            let next = if destination.is_stream() { NOT_RESUMABLE } else { "the same command with --resume resumes" };
            bail!("stopped after {} devices: {next}", report.devices);
        }
        destination.print(&report, output)
    }

    /// Decides where to write, before anything is done.
    fn destination(&self) -> anyhow::Result<Destination> {
        let default = if self.format == Format::Tar { "fleet.tar" } else { "fleet" };
        let out = self.out.clone().unwrap_or_else(|| default.into());
        let destination = match self.format {
            Format::Files if out == Path::new("-") => {
                bail!(UsageError::new("standard output only takes a tar stream: add --format tar"))
            }
            Format::Files => Destination::Directory(out),
            Format::Tar if out == Path::new("-") => Destination::TarStdout,
            Format::Tar if is_stream(&out) => Destination::TarStream(out),
            Format::Tar => Destination::TarFile(out),
        };
        if destination.is_stream() && self.resume {
            bail!(UsageError::new("a stream cannot be resumed: --resume needs a tar file"));
        }
        if matches!(destination, Destination::TarStdout) && console::Term::stdout().is_term() {
            bail!("standard output is a terminal: redirect the tar stream, which contains private keys");
        }
        Ok(destination)
    }

    fn devices(&self, output: &Output) -> anyhow::Result<(u64, FleetDevices)> {
        match (self.count, &self.ids, &self.csr_dir) {
            (Some(count), ..) => Ok((count.get(), numbered(&self.prefix, count.get(), self.digits)?)),
            (_, Some(ids), _) => {
                let ids = IdFile::open(ids, false)?;
                if let Some(header) = ids.lone_header() {
                    output
                        .note(format_args!("the first line, {header}, was read as the name of a column, not as an ID"));
                }
                Ok((ids.check()?, ids.devices()?))
            }
            (_, _, Some(directory)) => {
                let requests = Requests::check(directory, output)?;
                Ok((requests.count(), requests.devices()))
            }
            (None, None, None) => bail!("--count, --devices or --csr-dir is required"),
        }
    }
}

/// Returns the number of threads: one for each core unless it is given.
pub(super) fn threads(given: Option<u16>) -> NonZeroUsize {
    let given = given.and_then(|threads| NonZeroUsize::new(threads.into()));
    given.or(thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

const NOT_RESUMABLE: &str = "a stream cannot be resumed, only written again";

impl Destination {
    fn is_stream(&self) -> bool {
        matches!(self, Self::TarStream(_) | Self::TarStdout)
    }

    fn write(
        &self,
        issuer: &FleetIssuer<'_>,
        devices: FleetDevices,
        if_exists: IfExists,
        control: FleetControl<'_>,
    ) -> anyhow::Result<FleetReport> {
        let report = match self {
            Self::Directory(out) => issuer.write_directory(devices, out, if_exists, control),
            Self::TarFile(out) => issuer.write_tar_file(devices, out, if_exists, control),
            Self::TarStream(out) => {
                let file = fs::OpenOptions::new().write(true).open(out);
                let file = file.with_context(|| format!("could not write {}", out.display()))?;
                issuer.write_tar(devices, file, control)
            }
            Self::TarStdout => issuer.write_tar(devices, io::stdout(), control),
        };
        report.map_err(|error| match error {
            FleetError::Interrupted { made, error } if self.is_stream() => {
                anyhow!(*error).context(format!("stopped after {made} devices: {NOT_RESUMABLE}"))
            }
            error => error.into(),
        })
    }

    fn print(&self, report: &FleetReport, output: &Output) -> anyhow::Result<()> {
        let FleetReport { devices, resumed, .. } = report;
        let earlier = if *resumed > 0 { format!(", {resumed} of them in an earlier run") } else { String::new() };
        let issued = format!("{GOOD}Issued certificates for {devices} devices{GOOD:#}{earlier}");
        let out = match self {
            Self::Directory(out) | Self::TarFile(out) | Self::TarStream(out) => out,
            Self::TarStdout => {
                // Standard output has the tar stream.
                output.progress(issued);
                return Ok(());
            }
        };
        let manifest = report.manifest.as_deref();
        let summary =
            Summary { devices: *devices, resumed: *resumed, out, manifest: manifest.map(Path::to_string_lossy) };
        output.result(&summary, || {
            let listed = manifest.map(|manifest| format!("\nThe manifest is {}.", manifest.display()));
            format!("{issued}: {}{}", out.display(), listed.unwrap_or_default())
        })
    }
}

/// Returns whether a path is a pipe or device.
fn is_stream(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Notes what is unusual about the certificates because of their issuer.
fn note_issuer(issuer: &FleetIssuer<'_>, authority: &CertificateAuthority, output: &Output) {
    let issuer = issuer.issuer();
    note_shortened(issuer.validity().not_after, issuer.shortened_from(), output);
    note_weak_signature(Some(authority.issuers().last().unwrap_or(authority.certificate())), output);
}

/// Returns a flag that becomes true when the process receives a signal to stop.
pub(super) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signal = runtime.block_on(async { stop_signal() })?;
    // The thread ends with the process.
    thread::spawn(move || {
        runtime.block_on(signal);
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
