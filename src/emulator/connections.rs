//! Accepts and serves connections.

use std::{
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
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    context::SharedContext,
    respond::respond,
    router::router,
    tls::{Handshakes, PeerCertificates},
};

/// The time that requests in progress have to finish after a stop.
const GRACE: Duration = Duration::from_secs(3);

/// The time that an idle connection has to close after a stop: its last response may still be in transit.
const FLUSH: Duration = Duration::from_millis(100);

/// The pause after a connection cannot be accepted, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the emulator stops, then waits for the open ones. TLS handshakes run concurrently.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    context: SharedContext,
    mut stopped: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router(&context));
    let server = Server { context, router, stopped: stopped.clone() };
    let mut handshakes = Handshakes::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = wait_for_stop(&mut stopped) => break,
            // Removes ended connections.
            Some(_) = connections.join_next() => {}
            Some(ended) = handshakes.next() => if let Some((stream, certificates)) = ended {
                connections.spawn(serve_connection(stream, certificates, server.clone()));
            },
            accepted = listener.accept() => match accepted {
                Ok(_) if server.context.faults.take_for_connection() => {}
                Ok((stream, _)) => {
                    // Small responses must not wait for acknowledgements. Without the option they are only slower.
                    let _ = stream.set_nodelay(true);
                    match &tls {
                        Some(tls) => handshakes.start(tls, stream),
                        None => {
                            connections.spawn(serve_connection(stream, PeerCertificates::default(), server.clone()));
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

/// Returns when the emulator is stopped or dropped.
async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// What all connections share.
#[derive(Clone)]
struct Server {
    context: SharedContext,
    router: TowerToHyperService<Router>,
    stopped: watch::Receiver<bool>,
}

/// Serves one connection until it ends. Each has its own task, so that a slow one does not delay the others.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, certificates: PeerCertificates, server: Server) {
    let Server { context, router, mut stopped } = server;
    let in_progress = AtomicUsize::new(0);
    let service = service_fn(|mut request| {
        let (context, router, in_progress) = (&context, &router, &in_progress);
        request.extensions_mut().insert(certificates.clone());
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
        .serve_connection(TokioIo::new(stream), service);
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
