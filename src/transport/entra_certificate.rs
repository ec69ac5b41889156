//! The assertion with which an application signs in by certificate.
//!
//! The assertion is a JSON Web Token, signed with the certificate's key (RFC 7523 section 3, and Microsoft's
//! "certificate credentials"). `azure_identity` has a credential for this too, but it needs OpenSSL.

use std::{fmt, fs, future::Future, path::Path, pin::Pin, sync::Arc, time::SystemTime};

use aws_lc_rs::rand;
use azure_core::{Error, error::ErrorKind, http::ClientMethodOptions};
use azure_identity::ClientAssertion;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rcgen::PKCS_RSA_SHA256;
use serde_json::{Value, json};

use super::{clock::Clock, secret::Secret};
use crate::certificate::{Certificate, PrivateKey, ReadError, pfx};

/// The lifetime of an assertion in seconds.
const LIFETIME: u64 = 300;

/// A certificate with its key, read from a file.
pub(super) struct CertificateAssertion {
    key: PrivateKey,
    /// The certificate of the key first.
    certificates: Vec<Certificate>,
}

impl CertificateAssertion {
    /// Reads a PEM or PFX file that holds an RSA key and its certificate.
    pub(super) fn read(path: &Path, password: Option<&Secret>) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let password = password.map(Secret::expose);
        let (key, mut certificates) = match Certificate::read_all(&bytes) {
            // Without a password, the empty one and the usual ones are tried.
            Err(ReadError::Pfx) => pfx::read_identity(&bytes, password).map_err(|error| error.to_string())?,
            certificates => {
                let certificates = certificates.map_err(|error| error.to_string())?;
                (PrivateKey::read(&bytes, password).map_err(|error| error.to_string())?, certificates)
            }
        };
        if key.algorithm() != &PKCS_RSA_SHA256 {
            return Err("its key is not an RSA key, and Microsoft Entra accepts no other".to_owned());
        }
        let own = certificates.iter().position(|certificate| key.belongs_to(certificate));
        certificates.swap(0, own.ok_or("none of its certificates matches its private key")?);
        Ok(Self { key, certificates })
    }

    /// Returns the source of assertions that identify an application to an audience.
    pub(super) fn about(self, client: &str, audience: &str, send_chain: bool, clock: Arc<dyn Clock>) -> Assertion {
        Assertion { certificate: self, client: client.to_owned(), audience: audience.to_owned(), send_chain, clock }
    }
}

/// Signs a new assertion for each token.
pub(super) struct Assertion {
    certificate: CertificateAssertion,
    client: String,
    audience: String,
    /// Whether to send the certificates. Applications that trust them by subject and issuer need them.
    send_chain: bool,
    clock: Arc<dyn Clock>,
}

impl Assertion {
    fn sign(&self) -> azure_core::Result<String> {
        let failed = || Error::with_message(ErrorKind::Credential, "the assertion could not be signed");
        let certificates = &self.certificate.certificates;
        let mut header = json!({
            "alg": "RS256",
            "typ": "JWT",
            "x5t": BASE64_URL_SAFE_NO_PAD.encode(certificates[0].sha1_thumbprint().as_bytes()),
        });
        if self.send_chain {
            header["x5c"] = certificates.iter().map(|it| json!(BASE64_STANDARD.encode(it.der()))).collect();
        }
        let mut number = [0; 16];
        rand::fill(&mut number).map_err(|_| failed())?;
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "aud": self.audience,
            "iss": self.client,
            "sub": self.client,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(number),
            "nbf": now,
            "exp": now + LIFETIME,
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.certificate.key.sign(signed.as_bytes()).map_err(|_| failed())?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl ClientAssertion for Assertion {
    fn secret<'this, 'options, 'all>(
        &'this self,
        _options: Option<ClientMethodOptions<'options>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<String>> + Send + 'all>>
    where
        'this: 'all,
        'options: 'all,
        Self: 'all,
    {
        Box::pin(async { self.sign() })
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").finish_non_exhaustive()
    }
}
