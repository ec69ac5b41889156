//! The TLS configuration of a registration: presents the device's certificate, and records the handshake for the
//! diagnosis.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use rustls_platform_verifier::Verifier;

use crate::certificate::Certificate;

/// Returns the cryptography provider, which is the same everywhere in this crate.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Returns a verifier that trusts the platform's roots and these.
pub(super) fn verifier(roots: &[Certificate]) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if roots.is_empty() {
        return Ok(Arc::new(Verifier::new(provider())?));
    }
    let roots = roots.iter().map(|root| CertificateDer::from(root.der().to_vec()));
    // Only the verifiers of these platforms take extra roots. reqwest has the same condition.
    #[cfg(any(all(unix, not(target_os = "android")), windows))]
    return Ok(Arc::new(Verifier::new_with_extra_roots(roots, provider())?));
    #[cfg(not(any(all(unix, not(target_os = "android")), windows)))]
    {
        drop(roots);
        Err(Error::General("this platform's verifier takes no extra roots".to_owned()))
    }
}

/// What happened in the TLS handshakes of one registration.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    server: Mutex<Option<PresentedCertificate>>,
    client_certificate_requested: AtomicBool,
}

#[derive(Debug, Clone)]
struct PresentedCertificate {
    der: Vec<u8>,
    error: Option<Error>,
}

impl Handshake {
    /// Returns the certificate that the server last presented, if it can be parsed, and why it was not trusted.
    pub(super) fn server(&self) -> (Option<Certificate>, Option<Error>) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(PresentedCertificate { der, error }) = server else { return (None, None) };
        (Certificate::from_der(&der).ok(), error)
    }

    /// Returns whether the server requested a client certificate.
    pub(super) fn client_certificate_requested(&self) -> bool {
        self.client_certificate_requested.load(Ordering::Relaxed)
    }
}

/// Returns the TLS configuration for one registration.
pub(super) fn configuration(
    verifier: Arc<dyn ServerCertVerifier>,
    handshake: &Arc<Handshake>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Error> {
    let verifier = RecordingVerifier { verifier, handshake: Arc::clone(handshake) };
    let resolver = RecordingResolver { identity, handshake: Arc::clone(handshake) };
    let mut configuration = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(resolver));
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// Delegates to another verifier and records the server's certificate and the result.
struct RecordingVerifier {
    verifier: Arc<dyn ServerCertVerifier>,
    handshake: Arc<Handshake>,
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let presented = PresentedCertificate { der: end_entity.to_vec(), error: result.as_ref().err().cloned() };
        *self.handshake.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented);
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl fmt::Debug for RecordingVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordingVerifier")
    }
}

/// Presents the device's certificate and records that the server requested one. The hints, which name the CAs that the
/// server accepts, are ignored: the service itself should answer for a certificate that it does not accept.
struct RecordingResolver {
    identity: Option<Arc<CertifiedKey>>,
    handshake: Arc<Handshake>,
}

impl ResolvesClientCert for RecordingResolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.handshake.client_certificate_requested.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}

impl fmt::Debug for RecordingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordingResolver")
    }
}
