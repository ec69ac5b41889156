//! `emulator`: serve the emulator until a signal stops it.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempPath;

use super::{emulator_check, error::UsageError, output::Output, service::block_on, stop_signal::stop_signal};
use crate::{
    central::Authorization,
    certificate::{Certificate, files::check_replaceable_file},
    emulator::{Builder, Emulator as Server, EmulatorError, Fault, RemoteAccess},
};

/// Serve an emulated IoT Central application and DPS on a loopback port
///
/// The first line on standard output is a JSON document with endpoint, token and idScope and, with --tls, caFile: the file
/// with the certificate that clients must trust. With --mqtt, its member mqtt is the host and port for MQTT. Its members arm and dps are for the DPS instance. Then the emulator serves
/// until Ctrl-C, SIGTERM or SIGHUP.
///
/// All services share the port: the REST API of IoT Central, the Device Provisioning Service (DPS), where devices register,
/// its service API, and Azure Resource Manager. IoT Central has enrollment groups, devices, device groups, device templates,
/// organizations and deployment manifests in the API versions 2022-07-31, 2022-10-31-preview and 2022-06-30-preview. The DPS
/// instance has certificates, enrollment groups, individual enrollments and registration records. The state is kept in
/// memory, and with --state in a file.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll emulator --listen 127.0.0.1:8080 --token 'SharedAccessSignature sr=local'
  iot-enroll emulator --tls --ca-out emulator-ca.pem
  iot-enroll emulator --tls --mqtt 127.0.0.1:8883
  iot-enroll emulator --fault 503,method=PUT,times=2 --fault close-after,path=/verify")]
pub(super) struct Emulator {
    /// Address to listen on; port 0 picks a free port
    ///
    /// Addresses that other machines can reach need --allow-remote.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = address)]
    listen: SocketAddr,
    /// Allow addresses that other machines can reach, as in a container
    ///
    /// It needs --tls, and a value of --token has at least 16 characters. With 0.0.0.0 or [::], endpoint has the first name
    /// of --host, or localhost.
    #[arg(long)]
    allow_remote: bool,
    /// Allow remote access without TLS: the network can read tokens and keys
    #[arg(long, requires = "allow_remote")]
    allow_plain_http: bool,
    /// Name or address by which clients reach the emulator; can be repeated
    ///
    /// It is added to the server certificate. *.NAME is all names one level below NAME. Requests for other hosts are refused.
    /// Loopback addresses, localhost and the names below localhost are always known.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Check whether the emulator at URL serves, and exit with status 0 or 1
    #[arg(long, value_name = "URL", value_parser = emulator_check::url, conflicts_with_all = SERVING)]
    check: Option<reqwest::Url>,
    /// With --check, file with the CA certificate of an emulator with TLS, in PEM
    #[arg(long, value_name = "FILE", alias = "ca-file", requires = "check")]
    tls_ca: Option<PathBuf>,
    /// Value of the Authorization header that requests must have [default: random]
    #[arg(long)]
    token: Option<String>,
    /// Requests per second to each service; more are answered with status 429
    #[arg(long, value_name = "REQUESTS_PER_SECOND", default_value = "20")]
    rate: NonZeroU32,
    /// Serve over TLS, which devices need to register with a certificate
    ///
    /// The server certificate is valid for localhost, the names below it, the loopback addresses and the names of --host. Its
    /// CA is created at each start, unless --state keeps it. Devices can register with a symmetric key without TLS.
    #[arg(long)]
    tls: bool,
    /// Address for devices that register over MQTT
    ///
    /// MQTT 3.1.1 over TLS; the SDKs of Azure expect port 8883, and port 0 picks a free port. MQTT over WebSocket is then on
    /// the HTTPS port, at /$iothub/websocket. A packet has at most 256 KiB. Addresses that other machines can reach need
    /// --allow-remote.
    #[arg(long, value_name = "ADDRESS", requires = "tls", value_parser = address)]
    mqtt: Option<SocketAddr>,
    /// File for the CA certificate that clients must trust [default: a temporary file]
    ///
    /// The temporary file is removed when the emulator stops. A file that is named here stays, and overwrites the CA
    /// certificate of an earlier run.
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_out: Option<PathBuf>,
    /// File that keeps the state across restarts, created if missing
    ///
    /// An emulator that is started with the file of an earlier run has the same resources, tokens, ID scopes, keys and CA. It is
    /// written when the emulator stops on Ctrl-C, SIGTERM or SIGHUP. It holds secrets, so that only its owner can read it. If
    /// another program changed it in the meantime, the state is written to a new file beside it.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// JSON file with groups, devices and certificates to start with
    ///
    /// Resources that exist, from --state, stay as they are. If one is invalid, the emulator does not start.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Number of polls that answer "assigning" before a device is assigned
    #[arg(long, value_name = "POLLS", default_value = "1")]
    assign_after: u32,
    /// Retry-After of these answers, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    retry_after: u32,
    /// Inject a fault; can be repeated
    ///
    /// SPEC is KIND[,method=METHOD][,path=PART][,times=N|,times=always]. KIND is one of: a status such as 503,
    /// 429:retry-after=2, 429:retry-after-date=+2s, delay=500ms, close-on-connect, close-before, close-after, truncate,
    /// not-json, redirect=URL. PART is a part of the path; write a comma in PART or URL as %2C.
    ///
    /// By default a fault occurs once. Requests without a valid token are refused as usual and do not count.
    #[arg(long = "fault", value_name = "SPEC")]
    faults: Vec<Fault>,
}

/// The options that do not go with `--check`.
const SERVING: [&str; 14] = [
    "listen",
    "allow_remote",
    "allow_plain_http",
    "hosts",
    "token",
    "rate",
    "tls",
    "mqtt",
    "ca_out",
    "assign_after",
    "retry_after",
    "faults",
    "state",
    "import",
];

/// Parses an address. localhost is 127.0.0.1.
fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = numeric.as_deref().unwrap_or(text).parse();
    parsed.map_err(|_| "expected an address and a port, such as 127.0.0.1:8080".to_owned())
}

impl Emulator {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        if let Some(url) = &self.check {
            return block_on(emulator_check::check(url, self.tls_ca.as_deref(), output));
        }
        block_on(async {
            let started = self.builder().start().await;
            if !matches!(started, Err(EmulatorError::Token))
                && let Some(Err(error)) = self.token.clone().map(Authorization::parse)
            {
                output.note(format_args!("the other commands of this program cannot send this token: {error}"));
            }
            let server = started.map_err(start_error)?;
            for fault in &self.faults {
                server.inject(fault.clone())?;
            }
            let stop = stop_signal()?;
            let mut line = first_line(&server);
            let ca_file = server.ca_pem().map(|pem| write_ca(pem, self.ca_out.as_deref())).transpose()?;
            if let Some(file) = &ca_file {
                line["caFile"] = json!(std::path::absolute(file.path())?.display().to_string());
            }
            self.warn_of_remote_access(&server);
            Output::raw(format!("{line}\n").as_bytes())?;
            output.progress("Serving. Press Ctrl-C to stop.");
            stop.await;
            server.stop_and_save().await?;
            Ok(())
        })
    }

    fn builder(&self) -> Builder {
        let mut builder = Server::builder()
            .listen(self.listen)
            .rate(Some(self.rate))
            .tls(self.tls)
            .remote_access(self.remote_access())
            .assign_after(self.assign_after)
            .registration_retry_after(Duration::from_secs(self.retry_after.into()));
        if let Some(address) = self.mqtt {
            allow_many_connections();
            builder = builder.mqtt(address);
        }
        for host in &self.hosts {
            builder = builder.host(host);
        }
        if let Some(file) = &self.state {
            builder = builder.state_file(file);
        }
        if let Some(file) = &self.import {
            builder = builder.import_file(file);
        }
        if let Some(token) = &self.token {
            builder = builder.token(token.as_str());
        }
        builder
    }

    fn remote_access(&self) -> RemoteAccess {
        match (self.allow_remote, self.allow_plain_http) {
            (false, _) => RemoteAccess::Refused,
            (true, false) => RemoteAccess::OverTls,
            (true, true) => RemoteAccess::OverPlainHttp,
        }
    }

    /// Says that other machines can reach the emulator, also with `--quiet`.
    fn warn_of_remote_access(&self, server: &Server) {
        if server.is_remote() {
            let unencrypted = if self.tls { "" } else { ", and the network can read tokens and keys: it has no TLS" };
            let mqtt = server.mqtt_address().map(|address| (address, "MQTT on "));
            let reachable = |(address, _): &(SocketAddr, &str)| !address.ip().to_canonical().is_loopback();
            let addresses = [Some((server.address(), "")), mqtt].into_iter().flatten().filter(reachable);
            let addresses: Vec<_> = addresses.map(|(address, what)| format!("{what}{address}")).collect();
            let addresses = addresses.join(" and ");
            Output::warning(format_args!("other machines can reach the emulator on {addresses}{unencrypted}"));
        }
    }
}

/// Returns why the emulator did not start. Options that do not go together are wrong usage.
fn start_error(error: EmulatorError) -> anyhow::Error {
    let usage = UsageError::new(error.to_string());
    match error {
        EmulatorError::NotLoopback(_) => usage.with_hint("--allow-remote with --tls allows it").into(),
        EmulatorError::RemotePlainHttp(_) => {
            usage.with_hint("add --tls, or --allow-plain-http if everyone on the network may read them").into()
        }
        EmulatorError::Token | EmulatorError::ShortToken | EmulatorError::Host(_) => usage.into(),
        other => other.into(),
    }
}

/// Returns the first line of output, without the file of the CA.
fn first_line(server: &Server) -> Value {
    let mut line = json!({
        "endpoint": server.endpoint(),
        "token": server.token(),
        "idScope": server.id_scope(),
        "arm": {
            "endpoint": server.endpoint(),
            "token": server.arm_token(),
            "subscription": server.subscription(),
            "resourceGroup": server.resource_group(),
        },
        "dps": {
            "name": server.dps_name(),
            "idScope": server.dps_id_scope(),
            "serviceEndpoint": server.endpoint(),
            "connectionString": server.dps_connection_string(),
        },
    });
    if let Some(endpoint) = server.mqtt_endpoint() {
        line["mqtt"] = json!(endpoint);
    }
    line
}

/// Raises the limit of open files to that of the administrator, as far as connections need them: many systems set it to
/// 1,024, for programs that use `select`. Without it, fewer connections are accepted.
fn allow_many_connections() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};

        const ENOUGH: u64 = 1 << 15;
        let mut limit = getrlimit(Resource::Nofile);
        let raised = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
        if limit.current.is_some_and(|current| current < raised) {
            limit.current = Some(raised);
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// The file with the certificate of the emulator's CA.
enum CaFile {
    Named(PathBuf),
    /// A file that is removed when this is dropped.
    Temporary(TempPath),
}

impl CaFile {
    fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary(path) => path,
        }
    }
}

/// Writes the certificate of the CA atomically, so that a program that waits for the file never reads a part of it.
fn write_ca(pem: &str, named: Option<&Path>) -> anyhow::Result<CaFile> {
    let write = |directory: &Path| -> io::Result<TempPath> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("iot-enroll-ca-").suffix(".pem");
        // It is not a secret, and programs of other users may call the emulator.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let mut file = builder.tempfile_in(directory)?;
        file.write_all(pem.as_bytes())?;
        Ok(file.into_temp_path())
    };
    let Some(named) = named else {
        let directory = std::env::temp_dir();
        let written = write(&directory).map_err(|error| {
            let directory = directory.display();
            anyhow!("could not write the CA certificate in {directory}: {error}; --ca-out names a file elsewhere")
        });
        return Ok(CaFile::Temporary(written?));
    };
    check_overwritable(named, pem)?;
    let directory = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = write(directory).and_then(|file| Ok(file.persist(named)?));
    written.with_context(|| format!("could not write the CA certificate to {}", named.display()))?;
    Ok(CaFile::Named(named.to_owned()))
}

/// Checks that a file does not exist or is the CA certificate of an earlier emulator: a key or another certificate must not
/// be overwritten.
fn check_overwritable(file: &Path, pem: &str) -> anyhow::Result<()> {
    check_replaceable_file(file)?;
    if file.symlink_metadata().is_err() {
        return Ok(());
    }
    let subject = |bytes: &[u8]| match Certificate::read_all(bytes).as_deref() {
        Ok([certificate]) => Some(certificate.subject().to_string()),
        _ => None,
    };
    let found = fs::read(file).ok().and_then(|bytes| subject(&bytes));
    if found.is_none() || found != subject(pem.as_bytes()) {
        bail!(
            "{} exists and is not the CA certificate of an emulator: name another file with --ca-out",
            file.display()
        );
    }
    Ok(())
}
