//! `emulator`: IoT Central on a loopback port, until it is told to stop.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::json;
use tempfile::TempPath;

use super::{
    output::{Output, Usage},
    service::block_on,
};
use crate::{
    central::Authorization,
    certificate::Certificate,
    emulator::{Emulator as Server, EmulatorError, Fault},
};

/// Serve an IoT Central application on a loopback port, to try things out and to test against
///
/// The first line on standard output is a JSON document with endpoint, token and idScope, and with --tls caFile, the file
/// with the certificate that clients have to trust. The application's REST API and the Device Provisioning Service, where
/// devices register, are on the one port. The API has versions 2022-07-31, 2022-10-31-preview and 2022-06-30-preview of
/// enrollment groups, devices, device groups, device templates, organizations and deployment manifests. The state is kept in
/// memory. The emulator serves until Ctrl-C or SIGTERM.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll emulator --listen 127.0.0.1:8080 --token 'SharedAccessSignature sr=local'
  iot-enroll emulator --tls --ca-out emulator-ca.pem
  iot-enroll emulator --fault 503,method=PUT,times=2 --fault close-after,path=/verify")]
pub(super) struct Emulator {
    /// The address to listen on, which has to be a loopback address; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    listen: SocketAddr,
    /// The value of the Authorization header that requests have to have [default: a random one]
    #[arg(long)]
    token: Option<String>,
    /// How many requests a second are served before they are answered 429
    #[arg(long, value_name = "REQUESTS_PER_SECOND", default_value = "20")]
    rate: NonZeroU32,
    /// Serve over TLS, with a certificate for localhost and the loopback addresses, from an authority that is made anew
    /// each time. Devices need it to register by certificate; by symmetric key they can without
    #[arg(long)]
    tls: bool,
    /// Where to write the certificate that clients have to trust, as PEM. One of an earlier run is replaced, and it stays when the
    /// emulator stops [default: a new file in the folder for temporary files, removed when the emulator stops]
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_out: Option<PathBuf>,
    /// How many polls of a device that registers are answered that it is still being assigned
    #[arg(long, value_name = "POLLS", default_value = "1")]
    assign_after: u32,
    /// How long a device that registers is told to wait between polls
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    retry_after: u32,
    /// Make it misbehave: KIND[,method=METHOD][,path=PART][,times=N|,times=always]; may be given more than once. KIND is a
    /// status such as 503, 429:retry-after=2 or 429:retry-after-date=+2s, delay=500ms, close-on-connect, close-before,
    /// close-after, truncate, not-json or redirect=URL. Without times it strikes once. Requests without the token are
    /// refused as always and do not count. A comma in a path or a URL is written %2C
    #[arg(long = "fault", value_name = "SPEC")]
    faults: Vec<Fault>,
}

/// An address, in which localhost may stand for 127.0.0.1.
fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| "expected an address and a port, such as 127.0.0.1:8080".to_owned())
}

impl Emulator {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(async {
            let mut builder = Server::builder()
                .listen(self.listen)
                .rate(Some(self.rate))
                .tls(self.tls)
                .assign_after(self.assign_after)
                .registration_retry_after(Duration::from_secs(self.retry_after.into()));
            if let Some(token) = self.token {
                if let Err(error) = Authorization::parse(token.clone()) {
                    output.note(format_args!("this program's other commands do not send such a token: {error}"));
                }
                builder = builder.token(token);
            }
            let server = builder.start().await.map_err(|error| match error {
                EmulatorError::NotLoopback(_) | EmulatorError::Token => Usage::error(error.to_string()),
                other => other.into(),
            })?;
            for fault in self.faults {
                server.inject(fault)?;
            }
            let stop = stop_signal()?;
            let mut line = json!({
                "endpoint": server.endpoint(),
                "token": server.token(),
                "idScope": server.id_scope(),
            });
            let ca_file = server.ca_pem().map(|pem| write_ca(pem, self.ca_out.as_deref())).transpose()?;
            if let Some(file) = &ca_file {
                line["caFile"] = json!(std::path::absolute(file.path())?.display().to_string());
            }
            Output::raw(format!("{line}\n").as_bytes())?;
            output.progress("Serving until Ctrl-C.");
            stop.await;
            server.stop().await;
            Ok(())
        })
    }
}

/// Where the authority's certificate is.
enum CaFile {
    Chosen(PathBuf),
    /// Removed when it is dropped.
    Temporary(TempPath),
}

impl CaFile {
    fn path(&self) -> &Path {
        match self {
            Self::Chosen(path) => path,
            Self::Temporary(path) => path,
        }
    }
}

/// Writes the authority's certificate in one piece, so that nobody who waits for it reads a half.
fn write_ca(pem: &str, chosen: Option<&Path>) -> anyhow::Result<CaFile> {
    let write = |folder: &Path| -> io::Result<TempPath> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("iot-enroll-ca-").suffix(".pem");
        // It is no secret: programs of other users may call the emulator.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(pem.as_bytes())?;
        Ok(file.into_temp_path())
    };
    let Some(chosen) = chosen else {
        let folder = std::env::temp_dir();
        let written =
            write(&folder).with_context(|| format!("cannot write the CA certificate in {}", folder.display()))?;
        return Ok(CaFile::Temporary(written));
    };
    check_replaceable(chosen, pem)?;
    let folder = chosen.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = write(folder).and_then(|file| Ok(file.persist(chosen)?));
    written.with_context(|| format!("cannot write the CA certificate to {}", chosen.display()))?;
    Ok(CaFile::Chosen(chosen.to_owned()))
}

/// Only what an emulator wrote there before is replaced: a key or another certificate would be lost.
fn check_replaceable(chosen: &Path, pem: &str) -> anyhow::Result<()> {
    if chosen.symlink_metadata().is_err() {
        return Ok(());
    }
    let subject = |bytes: &[u8]| match Certificate::read_all(bytes).as_deref() {
        Ok([certificate]) => Some(certificate.subject().to_string()),
        _ => None,
    };
    let found = fs::read(chosen).ok().and_then(|bytes| subject(&bytes));
    if found.is_none() || found != subject(pem.as_bytes()) {
        bail!("{} exists and is no certificate of an emulator: name another file with --ca-out", chosen.display());
    }
    Ok(())
}

/// Ends when the process is asked to. Listens from the call on, so that no signal is missed.
#[cfg(unix)]
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the process is asked to.
#[cfg(not(unix))]
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to be told to stop, serving on is the better of two.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
