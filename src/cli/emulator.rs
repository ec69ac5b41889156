//! `emulator`: IoT Central on a loopback port, until it is told to stop.

use std::{net::SocketAddr, num::NonZeroU32};

use serde_json::json;

use super::{output::Output, service::block_on};
use crate::{
    central::Authorization,
    emulator::{Emulator as Server, Fault},
};

/// Serve an IoT Central application on a loopback port, to try things out and to test against
///
/// The first line on standard output is a JSON document with the address, a token and the id scope. It keeps its state
/// in memory and serves until it is told to stop by Ctrl-C or SIGTERM.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll emulator --listen 127.0.0.1:8080 --token 'SharedAccessSignature sr=local'
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
    /// Make it misbehave: KIND[,method=METHOD][,path=PART][,times=N|always]; may be given more than once. KIND is a status
    /// such as 503, 429:retry-after=2 or 429:retry-after-date=+2s, delay=500ms, close-on-connect, close-before, close-after, truncate, not-json or
    /// redirect=URL; a comma in a path or a URL is written %2C
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
            let mut builder = Server::builder().listen(self.listen).rate(Some(self.rate));
            if let Some(token) = self.token {
                if let Err(error) = Authorization::parse(token.clone()) {
                    output.note(format_args!("this program's other commands do not send such a token: {error}"));
                }
                builder = builder.token(token);
            }
            let server = builder.start().await?;
            for fault in self.faults {
                server.inject(fault)?;
            }
            let stop = stop_signal()?;
            let line = json!({
                "endpoint": server.endpoint(),
                "token": server.token(),
                "idScope": server.id_scope(),
            });
            Output::raw(format!("{line}\n").as_bytes())?;
            output.progress("Serving until Ctrl-C.");
            stop.await;
            server.stop().await;
            Ok(())
        })
    }
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
