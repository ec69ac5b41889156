//! TLS: the emulator's certificate authority, its server certificate, and the certificates of clients.
//!
//! # Where the documentation is silent
//! - **Client certificates** are requested but optional, without a list of authorities. A handshake fails only if the
//!   client does not have the private key of its certificate. Whether the certificate admits the device is decided by
//!   the service, whose response explains it.
//! - **A pending handshake** lasts at most 10 seconds. At most 256 are pending: further connections wait until one ends, or
//!   until the oldest is 2 seconds old and is replaced. Thousands of devices that connect at once are served in turn, and
//!   connections that send nothing do not keep them out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
        SignatureScheme,
        client::danger::HandshakeSignatureValid,
        crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
        pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use webpki::RawPublicKeyEntity;

use super::{
    error::EmulatorError, hosts::Hosts, server_certificates::ServerCertificates, stored_authority::StoredAuthority,
};
use crate::certificate::{
    AuthorityError, Certificate, CertificateAuthority, CommonName, IssueOptions, Lifetime, Timestamp,
};

/// The maximum duration of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of pending handshakes.
const MAX_HANDSHAKES: usize = 256;

/// The age from which a pending handshake can be replaced by a new one.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lifetime of a CA that ends with the emulator. It starts at the time of the system clock, which clients use, not of the
/// emulator's clock.
const LIFETIME: Lifetime = Lifetime::Days(30);

/// The lifetime of a CA in a state file.
const STORED_LIFETIME: Lifetime = Lifetime::Days(365);

/// The time before its end at which a CA in a state file is replaced: the lifetime of a server certificate.
const RENEWAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The TLS server configurations, which have the same certificate.
pub(super) struct Tls {
    pub(super) http: TlsAcceptor,
    pub(super) mqtt: TlsAcceptor,
    /// The CA certificate, as PEM.
    pub(super) ca_pem: String,
}

impl Tls {
    /// Creates a CA that ends with the emulator, and the server certificate for all hosts.
    pub(super) fn new(hosts: &Hosts) -> Result<Self, EmulatorError> {
        Self::with_authority(new_authority(LIFETIME).map_err(|error| tls_error(&error))?, hosts)
    }

    /// Creates the server certificate for all hosts under the stored CA, or under a new one that is stored if there is none or
    /// its end is near.
    pub(super) fn with_stored(stored: &mut Option<StoredAuthority>, hosts: &Hosts) -> Result<Self, EmulatorError> {
        let now = Timestamp::now();
        if let Some(found) = stored.as_ref().filter(|found| found.not_after() >= Some(now + RENEWAL)) {
            return Self::with_authority(found.authority(now).map_err(|error| tls_error(&error))?, hosts);
        }
        let authority = new_authority(STORED_LIFETIME).map_err(|error| tls_error(&error))?;
        *stored = Some(StoredAuthority::new(&authority).map_err(|error| tls_error(&error))?);
        Self::with_authority(authority, hosts)
    }

    fn with_authority(authority: CertificateAuthority, hosts: &Hosts) -> Result<Self, EmulatorError> {
        let ca_pem = authority.certificate().to_pem();
        let certificates = ServerCertificates::new(authority, hosts.clone())?;
        // Without ALPN, since clients name the protocol differently or not at all.
        let mqtt = config(certificates).map_err(|error| EmulatorError::Tls(error.to_string()))?;
        let mut http = mqtt.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { http: Arc::new(http).into(), mqtt: Arc::new(mqtt).into(), ca_pem })
    }
}

fn tls_error(error: &AuthorityError) -> EmulatorError {
    EmulatorError::Tls(error.to_string())
}

fn new_authority(lifetime: Lifetime) -> Result<CertificateAuthority, AuthorityError> {
    let options = IssueOptions::new().lifetime(lifetime);
    let ca = CertificateAuthority::new_root(&CommonName::new("iot-enroll emulator CA")?, &options)?;
    ca.into_authority(options.issue_time())
}

fn config(certificates: ServerCertificates) -> Result<ServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let any_client = AnyClient(provider.signature_verification_algorithms);
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(any_client))
        .with_cert_resolver(Arc::new(certificates)))
}

/// The certificates that a client presented, its own first. The handshake proved only that the client has the private
/// key of the first. Empty without TLS.
#[derive(Clone, Default)]
pub(super) struct PeerCertificates(Arc<[Certificate]>);

impl PeerCertificates {
    pub(super) fn as_slice(&self) -> &[Certificate] {
        &self.0
    }

    /// Parses the certificates. Unreadable ones are skipped, since no chain leads over them. The first is readable: the
    /// handshake used its key.
    fn read(certificates: &[CertificateDer<'_>]) -> Self {
        Self(certificates.iter().filter_map(|der| Certificate::from_der(der).ok()).collect())
    }
}

/// The pending handshakes.
#[derive(Default)]
pub(super) struct Handshakes {
    tasks: JoinSet<Option<TlsStream<TcpStream>>>,
    /// The oldest first.
    pending: VecDeque<(Instant, AbortHandle)>,
}

impl Handshakes {
    /// Returns the time to wait before the next handshake can start, unless one ends before.
    pub(super) fn time_to_wait(&mut self) -> Duration {
        self.pending.retain(|(_, handshake)| !handshake.is_finished());
        match self.pending.front() {
            Some((started, _)) if self.pending.len() >= MAX_HANDSHAKES => PATIENCE.saturating_sub(started.elapsed()),
            _ => Duration::ZERO,
        }
    }

    /// Starts a handshake. The oldest ends if there are too many.
    pub(super) fn start(&mut self, acceptor: &TlsAcceptor, stream: TcpStream) {
        if self.pending.len() >= MAX_HANDSHAKES
            && let Some((_, oldest)) = self.pending.pop_front()
        {
            oldest.abort();
        }
        let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let task = self.tasks.spawn(async move {
            let failure = match handshake.await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            tracing::debug!(error = failure, "TLS handshake failed");
            None
        });
        self.pending.push_back((Instant::now(), task));
    }

    /// Waits for the next handshake to end, and returns its stream and the client's certificates if it succeeded.
    /// Returns `None` if no handshake is pending.
    pub(super) async fn next(&mut self) -> Option<Option<(TlsStream<TcpStream>, PeerCertificates)>> {
        let ended = self.tasks.join_next().await?;
        // An aborted handshake has failed as well.
        Some(ended.ok().flatten().map(|stream| {
            let certificates = PeerCertificates::read(stream.get_ref().1.peer_certificates().unwrap_or_default());
            (stream, certificates)
        }))
    }
}

/// Accepts every client certificate whose private key the client has, and clients without a certificate.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    /// Verifies by the public key, as rustls does, but not with the certificate: webpki reads version 3 certificates
    /// only.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key_info = key_info(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key_info).map_err(|_| CertificateError::BadEncoding)?;
        // A TLS 1.2 scheme does not name the curve. One of these algorithms fits the key.
        let candidates = self.0.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, candidates) = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let valid = |algorithm| key.verify_signature(algorithm, message, signed.signature()).is_ok();
        if candidates.iter().copied().any(valid) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &key_info(certificate)?, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Returns the public key of a certificate.
fn key_info(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let certificate = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    Ok(certificate.public_key().to_vec().into())
}
