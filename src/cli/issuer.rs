//! The CA that signs a certificate, as options name it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;

use super::{
    args::{KeyPassword, PfxPassword},
    error::UsageError,
    output::Output,
    token_key::{find_key, token_uri},
};
use crate::{
    certificate::{
        CertificateAuthority, CommonName, Timestamp,
        files::{self, FileSet, Passwords},
    },
    workflow::AuthoritySource,
};

pub(super) const MISSING_ISSUER: &str = "an issuer is required: PARENT, or --ca-cert and --ca-key";

/// The CA that signs.
#[derive(clap::Args)]
pub(super) struct Issuer {
    /// Common name of the issuing CA, whose files are in --dir
    parent: Option<CommonName>,
    /// Certificate of the issuing CA, with its chain if it has one (instead of PARENT)
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Private key of the issuing CA, a file or the PKCS#11 URI of a key in a token
    ///
    /// A URI needs a build with the feature pkcs11. The PIN of the token is the first line of the file that pin-source names in
    /// the URI, or else IOT_ENROLL_PIN, or it is asked for.
    #[arg(long, value_name = "FILE|URI", requires = "issuer")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
}

impl Issuer {
    /// Returns whether the key of the CA is in a token. Refuses options that are only for files then.
    pub(super) fn is_in_token(&self) -> anyhow::Result<bool> {
        let is_in_token = self.ca_key.as_deref().and_then(token_uri).is_some();
        if is_in_token {
            self.key_password.refuse_for_token()?;
        }
        Ok(is_in_token)
    }

    /// Reads the CA, or returns `None` if the options name none. PARENT is looked up in `directory`.
    pub(super) fn read(
        &self,
        directory: &Path,
        pfx_password: &PfxPassword,
        at: Timestamp,
        output: &Output,
    ) -> anyhow::Result<Option<CertificateAuthority>> {
        if let (Some(certificate), Some(key)) = (&self.ca_cert, &self.ca_key) {
            return read_authority(certificate, key, &self.key_password, pfx_password, at, output).map(Some);
        }
        let Some(parent) = &self.parent else { return Ok(None) };
        let unreadable = || format!("could not read the CA {parent}");
        let files = FileSet::new(directory, parent)?;
        let Some(key) = &self.ca_key else {
            let key_password = self.key_password.given()?;
            let key_password = key_password.as_ref().map(|password| password.as_str());
            return files.read_authority(key_password, at).map(Some).with_context(unreadable);
        };
        let Some(uri) = token_uri(key) else {
            let error = UsageError::new("--ca-key FILE needs --ca-cert FILE, the certificate of the key");
            return Err(error
                .with_hint("PARENT is found with its own key file; only a PKCS#11 URI goes with it")
                .into());
        };
        self.key_password.refuse_for_token()?;
        files.read_certificate().with_context(unreadable)?;
        let key = find_key(uri, output)?;
        files.read_authority_with_key(key, at).map(Some).with_context(unreadable)
    }
}

/// Reads a CA from the file of its certificate and the file or PKCS#11 URI of its key.
pub(super) fn read_authority(
    certificate: &Path,
    key: &Path,
    key_password: &KeyPassword,
    pfx_password: &PfxPassword,
    at: Timestamp,
    output: &Output,
) -> anyhow::Result<CertificateAuthority> {
    let pfx_password = pfx_password.given()?;
    let passwords = Passwords::new().pfx(pfx_password.as_ref().map(|password| password.as_str()));
    if let Some(uri) = token_uri(key) {
        key_password.refuse_for_token()?;
        // A PIN is asked for only if the rest is in order.
        files::read_certificates_with(certificate, passwords)?;
        return Ok(files::read_authority_with_key(certificate, find_key(uri, output)?, passwords, at)?);
    }
    let key_password = key_password.given()?;
    let passwords = passwords.key(key_password.as_ref().map(|password| password.as_str()));
    Ok(files::read_authority(certificate, key, passwords, at)?)
}

/// Returns the CA of a workflow. One whose key is in a token is read here, since only the program can ask for a PIN.
pub(super) fn authority_source(certificate: &Path, key: &Path, output: &Output) -> anyhow::Result<AuthoritySource> {
    let Some(uri) = token_uri(key) else {
        return Ok(AuthoritySource::Files { certificate: certificate.to_owned(), key: key.to_owned() });
    };
    files::read_certificates(certificate)?;
    let authority = files::read_authority_with_key(certificate, find_key(uri, output)?, None, Timestamp::now())?;
    Ok(AuthoritySource::Authority(Arc::new(authority)))
}
