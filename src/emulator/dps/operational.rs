//! Operational certificates: the request of a device (`csr`), and the CA that signs it.
//!
//! # Where the documentation is silent
//! - **Every enrollment of the instance** issues certificates, whether it names a certificate policy or not: a test then
//!   needs no namespace. The ID scope of the application issues none, since its enrollment groups cannot name a policy: the
//!   device is assigned, without a certificate.
//! - **Versions** before `2025-07-01-preview` have no `csr`. It is an error there (400): a device that sends one expects a
//!   certificate, and other unknown members are ignored.
//! - **A request** that is refused is an error before the credential is checked (400). Its common name is compared with the
//!   registration ID without regard to case, and the certificate has the ID as in the request.
//! - **The CA** is a P-384 root with an issuing CA below it. Both are created with the first certificate, and are lost with
//!   the emulator unless a state file keeps them. Certificates are valid for 30 days, which is within the policies of the service.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{device_version::DeviceVersion, error::DpsError};
use crate::{
    certificate::{
        AuthorityError, Certificate, CertificateAuthority, CertificateRequest, CommonName, DeviceId, DeviceIssuer,
        IssueOptions, KeyAlgorithm, Lifetime, PublicKeyAlgorithm, Timestamp, chain,
    },
    emulator::{
        fields::{FieldError, Fields},
        stored_authority::StoredAuthority,
    },
};

/// The validity of an operational certificate. Policies of the service have 7 to 90 days.
const LIFETIME: Lifetime = Lifetime::Days(30);

/// The public key that a device requests a certificate for, as the DER of its `SubjectPublicKeyInfo`.
pub(crate) type RequestedKey = Box<[u8]>;

/// Removes the request from the body of a registration and checks it. Returns its public key.
pub(crate) fn read_request(
    fields: &mut Fields,
    id: &str,
    version: DeviceVersion,
) -> Result<Option<RequestedKey>, FieldError> {
    if fields.is_null("csr") {
        fields.any("csr");
    }
    let Some(text) = fields.string("csr")? else { return Ok(None) };
    let invalid = |problem: String| fields.invalid("csr", problem);
    if !version.takes_request() {
        let versions = DeviceVersion::ISSUING.join(" or ");
        return Err(invalid(format!("api-version {} has no such field: use {versions}", version.as_str())));
    }
    if text.trim_start().starts_with("-----BEGIN") {
        return Err(invalid("it is PEM, but must be the base64 of the DER".to_owned()));
    }
    let der = BASE64_STANDARD.decode(&text).map_err(|_| invalid("it is not base64".to_owned()))?;
    let request = CertificateRequest::from_der(&der).map_err(|error| invalid(error.to_string()))?;
    match request.public_key_algorithm() {
        PublicKeyAlgorithm::EcP384 => {}
        other => return Err(invalid(format!("its key must be EC P-384, found {other}"))),
    }
    // The certificate needs the ID as its common name, which is shorter.
    DeviceId::new(id).and_then(|id| id.common_name()).map_err(|error| invalid(error.to_string()))?;
    match request.subject().common_name() {
        Some(name) if name.eq_ignore_ascii_case(id) => Ok(Some(request.public_key().into())),
        Some(name) => Err(invalid(format!("its common name must be the registration ID {id:?}, found {name:?}"))),
        None => Err(invalid(format!("its subject has no common name, which must be the registration ID {id:?}"))),
    }
}

/// Checks that the body of a look-up has no certificate request.
pub(crate) fn refuse_request(fields: &Fields) -> Result<(), DpsError> {
    if fields.has("csr") && !fields.is_null("csr") {
        return Err(fields.invalid("csr", "a look-up takes no certificate request: register again").into());
    }
    Ok(())
}

/// The CA of operational certificates, which is created when it is first needed.
#[derive(Default)]
pub(crate) struct OperationalCa(Mutex<Option<Arc<CertificateAuthority>>>);

impl OperationalCa {
    /// Creates the CA that a state file has, if it has one.
    pub(crate) fn load(stored: Option<&StoredAuthority>, now: Timestamp) -> Self {
        // One that is no longer valid is replaced when it is needed, like any other.
        Self(Mutex::new(stored.and_then(|stored| stored.authority(now).ok()).map(Arc::new)))
    }

    /// Returns the CA for a state file, if there is one.
    pub(crate) fn store(&self) -> Option<StoredAuthority> {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_deref().and_then(|authority| StoredAuthority::new(authority).ok())
    }

    /// Issues a certificate. Returns its chain in base64, the certificate first, the root last.
    pub(crate) fn issue(&self, id: &str, key: &[u8], now: Timestamp) -> Result<Vec<String>, AuthorityError> {
        let authority = self.authority(now)?;
        let issuer = DeviceIssuer::new(&authority, &IssueOptions::new().lifetime(LIFETIME).at(now))?;
        let (leaf, _) = issuer.issue_for_key(&DeviceId::new(id)?, key)?;
        let above = std::iter::once(authority.certificate()).chain(authority.issuers());
        let chain = std::iter::once(leaf.as_slice()).chain(above.map(Certificate::der));
        Ok(chain.map(|der| BASE64_STANDARD.encode(der)).collect())
    }

    /// Returns the CA. Creates another if its certificates are not valid at this time, as after a jump of the clock.
    fn authority(&self, now: Timestamp) -> Result<Arc<CertificateAuthority>, AuthorityError> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_valid = |authority: &&Arc<CertificateAuthority>| {
            let mut chain = std::iter::once(authority.certificate()).chain(authority.issuers());
            chain.all(|certificate| chain::check_authority(certificate, now).is_ok())
        };
        if let Some(authority) = current.as_ref().filter(is_valid) {
            return Ok(Arc::clone(authority));
        }
        let authority = Arc::new(new_authority(now)?);
        *current = Some(Arc::clone(&authority));
        Ok(authority)
    }
}

fn new_authority(now: Timestamp) -> Result<CertificateAuthority, AuthorityError> {
    let options = IssueOptions::new().algorithm(KeyAlgorithm::EcP384).at(now);
    let root = CertificateAuthority::new_root(&CommonName::new("iot-enroll emulator operational root")?, &options)?;
    let name = CommonName::new("iot-enroll emulator operational CA")?;
    root.into_authority(now)?.issue_intermediate(&name, &options)?.into_authority(now)
}
