//! TLS: an authority of the emulator's own, a server certificate, and the certificates that clients present.
//!
//! # Where the documentation is silent
//! - **Client certificates** are asked for and not required, without naming authorities. A handshake fails only where a
//!   client does not have the key of the certificate it presents: whether the certificate is of any use is for the service
//!   to say, in an answer that can be read.
//! - **A half-open connection**, whose handshake is not done, lasts 10 seconds at the most. There are 256 of them at the
//!   most: the oldest makes way for the newest.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
        SignatureScheme,
        client::danger::HandshakeSignatureValid,
        crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
        pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use webpki::RawPublicKeyEntity;

use super::server::EmulatorError;
use crate::certificate::{AuthorityError, Certificate, CertificateAuthority, CommonName, IssueOptions, Lifetime};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most handshakes at a time.
const MAX_HANDSHAKES: usize = 256;

/// The lifetime of the authority and of the server certificate. By the system's clock, not the emulator's: clients go by it.
const LIFETIME: Lifetime = Lifetime::Days(30);

/// By what names clients may call.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What the emulator needs to speak TLS.
pub(super) struct Tls {
    pub(super) acceptor: TlsAcceptor,
    /// The certificate of the authority, as PEM.
    pub(super) authority: String,
}

impl Tls {
    /// Makes an authority and the certificate of the server. The authority's key is forgotten at once: it signs nothing else.
    pub(super) fn new() -> Result<Self, EmulatorError> {
        let options = IssueOptions::new().lifetime(LIFETIME);
        let name = |text| CommonName::new(text).map_err(AuthorityError::from);
        let authority = CertificateAuthority::new_root(&name("iot-enroll emulator CA")?, &options)?;
        let authority = authority.into_authority(options.issue_time())?;
        let server = authority.issue_server(&name("iot-enroll emulator")?, &NAMES, &options)?;
        let certificate = server.certificate.der().to_vec().into();
        let key = PrivatePkcs8KeyDer::from(server.key.to_pkcs8_der().map_err(AuthorityError::from)?.to_vec());
        let config = config(certificate, key).map_err(|error| EmulatorError::Tls(error.to_string()))?;
        Ok(Self { acceptor: Arc::new(config).into(), authority: authority.certificate().to_pem() })
    }
}

fn config(certificate: CertificateDer<'static>, key: PrivatePkcs8KeyDer<'static>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let any_client = AnyClient(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(Arc::new(any_client))
        .with_single_cert(vec![certificate], key.into())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates that a client presented, its own first: all that is known of them is that the client has the key of the
/// first. None without TLS.
#[derive(Clone, Default)]
pub(super) struct Presented(Arc<[Certificate]>);

impl Presented {
    pub(super) fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// What cannot be read leads nowhere. The first can be: the handshake has used its key.
    fn read(certificates: &[CertificateDer<'_>]) -> Self {
        Self(certificates.iter().filter_map(|der| Certificate::from_der(der).ok()).collect())
    }
}

/// The handshakes under way.
#[derive(Default)]
pub(super) struct Handshakes {
    tasks: JoinSet<Option<TlsStream<TcpStream>>>,
    /// Those that are not done, the oldest first.
    under_way: VecDeque<AbortHandle>,
}

impl Handshakes {
    pub(super) fn begin(&mut self, acceptor: &TlsAcceptor, stream: TcpStream) {
        self.under_way.retain(|handshake| !handshake.is_finished());
        if self.under_way.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.abort();
        }
        let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        self.under_way.push_back(self.tasks.spawn(async move {
            let failure = match handshake.await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => error.to_string(),
                Err(late) => late.to_string(),
            };
            tracing::debug!(error = failure, "TLS handshake failed");
            None
        }));
    }

    /// The next one that comes to an end, with what the client presented where it succeeded. `None` where there are none.
    pub(super) async fn next(&mut self) -> Option<Option<(TlsStream<TcpStream>, Presented)>> {
        let ended = self.tasks.join_next().await?;
        // One that made way for another failed as well.
        Some(ended.ok().flatten().map(|stream| {
            let presented = Presented::read(stream.get_ref().1.peer_certificates().unwrap_or_default());
            (stream, presented)
        }))
    }
}

/// Takes every client certificate whose key the client proves to have, and clients without one.
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

    /// As rustls does it, by the bare key: webpki reads version 3 certificates alone.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key_info = key_info(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key_info).map_err(|_| CertificateError::BadEncoding)?;
        // A scheme of TLS 1.2 does not say which curve; the key fits one of these.
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

/// The public key of a certificate.
fn key_info(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let certificate = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    Ok(certificate.public_key().to_vec().into())
}
