//! The TLS of a registration: the device's certificate is presented, and what the server presented is remembered.

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

/// The only provider of cryptography in this crate.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Trusts the roots of the platform and these.
pub(super) fn verifier(roots: &[Certificate]) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if roots.is_empty() {
        return Ok(Arc::new(Verifier::new(provider())?));
    }
    let roots = roots.iter().map(|root| CertificateDer::from(root.der().to_vec()));
    // As reqwest has it: these are the platforms whose verifier takes further roots.
    #[cfg(any(all(unix, not(target_os = "android")), windows))]
    return Ok(Arc::new(Verifier::new_with_extra_roots(roots, provider())?));
    #[cfg(not(any(all(unix, not(target_os = "android")), windows)))]
    {
        drop(roots);
        Err(Error::General("this platform's verifier takes no further roots".to_owned()))
    }
}

/// What the server did in the handshakes of one registration.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    server: Mutex<Option<ServerHello>>,
    asked: AtomicBool,
}

#[derive(Debug, Clone)]
struct ServerHello {
    certificate: Vec<u8>,
    refused: Option<Error>,
}

impl Handshake {
    /// The certificate that the server presented last, where it can be read, and why it was not trusted, if it was not.
    pub(super) fn server(&self) -> (Option<Certificate>, Option<Error>) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(ServerHello { certificate, refused }) = server else { return (None, None) };
        (Certificate::from_der(&certificate).ok(), refused)
    }

    /// Whether the server asked for a client certificate.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The configuration of one registration's connections.
pub(super) fn configuration(
    verifier: Arc<dyn ServerCertVerifier>,
    handshake: &Arc<Handshake>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Error> {
    let witness = Witness { verifier, handshake: Arc::clone(handshake) };
    let presenter = Presenter { identity, handshake: Arc::clone(handshake) };
    let mut configuration = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(witness))
        .with_client_cert_resolver(Arc::new(presenter));
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// Judges as another verifier does, and remembers.
struct Witness {
    verifier: Arc<dyn ServerCertVerifier>,
    handshake: Arc<Handshake>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let seen = ServerHello { certificate: end_entity.to_vec(), refused: verdict.as_ref().err().cloned() };
        *self.handshake.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        verdict
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

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// Presents the device's certificate, whatever authorities the server names: which it takes is for it to say.
struct Presenter {
    identity: Option<Arc<CertifiedKey>>,
    handshake: Arc<Handshake>,
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.handshake.asked.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presenter")
    }
}
