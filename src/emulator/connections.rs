//! Accepts and serves connections.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::Router;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    context::{Context, SharedContext},
    mqtt::{PendingUpgrade, StreamChannel, serve as serve_mqtt},
    respond::respond,
    router::router,
    stop::{FLUSH, GRACE, wait_for_stop},
    tls::{Handshakes, PeerCertificates},
};

/// The pause after a connection cannot be accepted, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port, and TLS if it has it.
pub(super) struct Listener {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
}

/// Accepts connections until the emulator stops, then waits for the open ones.
pub(super) async fn serve(
    http: Listener,
    mqtt: Option<Listener>,
    context: SharedContext,
    stopped: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router(&context));
    let http_server = HttpServer { context: SharedContext::clone(&context), router, stopped: stopped.clone() };
    let mqtt = async {
        if let Some(listener) = mqtt {
            let server = MqttServer { context: SharedContext::clone(&context), stopped: stopped.clone() };
            accept(listener, server, &context, stopped.clone()).await;
        }
    };
    tokio::join!(accept(http, http_server, &context, stopped.clone()), mqtt);
}

/// Accepts the connections of one port until the emulator stops, then waits for the open ones. TLS handshakes run
/// concurrently.
async fn accept(
    Listener { listener, tls }: Listener,
    server: impl Server,
    context: &Context,
    mut stopped: watch::Receiver<bool>,
) {
    let mut handshakes = Handshakes::default();
    let mut connections = JoinSet::new();
    loop {
        let wait = handshakes.time_to_wait();
        tokio::select! {
            () = wait_for_stop(&mut stopped) => break,
            // Removes ended connections.
            Some(_) = connections.join_next() => {}
            Some(ended) = handshakes.next() => if let Some((stream, certificates)) = ended {
                connections.spawn(server.clone().serve(stream, certificates));
            },
            accepted = accept_after(wait, &listener) => match accepted {
                Ok(_) if context.faults.take_for_connection() => {}
                Ok((stream, _)) => {
                    // Small responses must not wait for acknowledgements. Without the option they are only slower.
                    let _ = stream.set_nodelay(true);
                    match &tls {
                        Some(tls) => handshakes.start(tls, stream),
                        None => {
                            connections.spawn(server.clone().serve(stream, PeerCertificates::default()));
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop((listener, handshakes));
    while connections.join_next().await.is_some() {}
}

/// Accepts a connection after some time.
async fn accept_after(wait: Duration, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    listener.accept().await
}

/// Serves the connections of a protocol. Each has its own task, so that a slow one does not delay the others.
trait Server: Clone + Send + 'static {
    /// Serves a connection until it ends.
    fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificates: PeerCertificates,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// What the connections of MQTT share.
#[derive(Clone)]
struct MqttServer {
    context: SharedContext,
    stopped: watch::Receiver<bool>,
}

impl Server for MqttServer {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, certificates: PeerCertificates) {
        serve_mqtt(StreamChannel(stream), certificates, self.context, self.stopped).await;
    }
}

/// What the connections of HTTP share.
#[derive(Clone)]
struct HttpServer {
    context: SharedContext,
    router: TowerToHyperService<Router>,
    stopped: watch::Receiver<bool>,
}

impl Server for HttpServer {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, certificates: PeerCertificates) {
        let upgrade = PendingUpgrade::default();
        self.serve_requests(stream, &certificates, &upgrade).await;
        if let Some(channel) = upgrade.channel().await {
            serve_mqtt(channel, certificates, self.context, self.stopped).await;
        }
    }
}

impl HttpServer {
    /// Serves the requests of a connection, until it ends or is upgraded.
    async fn serve_requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificates: &PeerCertificates,
        upgrade: &PendingUpgrade,
    ) {
        let Self { context, router, stopped } = self;
        let mut stopped = stopped.clone();
        let in_progress = AtomicUsize::new(0);
        let service = service_fn(|mut request| {
            let in_progress = &in_progress;
            request.extensions_mut().insert(certificates.clone());
            request.extensions_mut().insert(upgrade.clone());
            async move {
                in_progress.fetch_add(1, Ordering::Relaxed);
                let response = respond(context, router, request).await;
                in_progress.fetch_sub(1, Ordering::Relaxed);
                response
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(context.read_timeout)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = wait_for_stop(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                let timeout = if in_progress.load(Ordering::Relaxed) > 0 { GRACE } else { FLUSH };
                tokio::time::timeout(timeout, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "connection ended");
        }
    }
}
