//! The server certificates: one for all hosts, and one for each name that a client asks for and only a wildcard covers.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::PrivatePkcs8KeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{error::EmulatorError, hosts::Hosts};
use crate::certificate::{AuthorityError, CertificateAuthority, CommonName, IssueOptions, Lifetime};

/// The lifetime of a certificate. It starts at the time of the system clock, which clients use, not of the emulator's clock.
const LIFETIME: Lifetime = Lifetime::Days(30);

/// The number of certificates for single names that are kept.
const MAX_NAMES: usize = 64;

/// Selects the certificate by the name that the client asks for.
///
/// A certificate for `*.localhost` does not help most clients: OpenSSL, Node.js and webpki accept no wildcard directly below
/// a top-level name. So a certificate with the name itself is issued when it is first asked for.
pub(super) struct ServerCertificates {
    authority: CertificateAuthority,
    hosts: Hosts,
    /// The names in every certificate.
    names: Vec<String>,
    for_all: Arc<CertifiedKey>,
    by_name: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl ServerCertificates {
    pub(super) fn new(authority: CertificateAuthority, hosts: Hosts) -> Result<Self, EmulatorError> {
        let names = hosts.certificate_names();
        let for_all = issue(&authority, &names).map_err(EmulatorError::Tls)?;
        Ok(Self { authority, hosts, names, for_all, by_name: Mutex::default() })
    }

    /// Returns the certificate for a name in lower case.
    fn for_name(&self, name: &str) -> Arc<CertifiedKey> {
        if self.names.iter().any(|known| known == name) || !self.hosts.contains(name) {
            return Arc::clone(&self.for_all);
        }
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = by_name.get(name) {
            return Arc::clone(found);
        }
        let names = [self.names.as_slice(), &[name.to_owned()]].concat();
        // The other certificate lacks the name, so that the client refuses it and says why.
        let Ok(issued) = issue(&self.authority, &names) else { return Arc::clone(&self.for_all) };
        if by_name.len() >= MAX_NAMES {
            by_name.clear();
        }
        by_name.insert(name.to_owned(), Arc::clone(&issued));
        issued
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(match hello.server_name() {
            Some(name) => self.for_name(&name.to_ascii_lowercase()),
            None => Arc::clone(&self.for_all),
        })
    }
}

impl fmt::Debug for ServerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificates").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Issues a certificate, or describes the problem.
fn issue(authority: &CertificateAuthority, names: &[String]) -> Result<Arc<CertifiedKey>, String> {
    let text = |error: AuthorityError| error.to_string();
    let name = CommonName::new("iot-enroll emulator").map_err(|error| error.to_string())?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = authority.issue_server(&name, &names, &IssueOptions::new().lifetime(LIFETIME)).map_err(text)?;
    let key = issued.key.to_pkcs8_der().map_err(|error| error.to_string())?;
    let key = any_supported_type(&PrivatePkcs8KeyDer::from(key.to_vec()).into()).map_err(|error| error.to_string())?;
    let chain = vec![issued.certificate.der().to_vec().into()];
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
