//! The CA that signs a certificate, as options name it.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args::{KeyPassword, PfxPassword};
use crate::certificate::{
    CertificateAuthority, CommonName, Timestamp,
    files::{self, FileSet, Passwords},
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
    /// Private key of the issuing CA
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    #[command(flatten)]
    key_password: KeyPassword,
}

impl Issuer {
    /// Reads the CA, or returns `None` if the options name none. PARENT is looked up in `directory`.
    pub(super) fn read(
        &self,
        directory: &Path,
        pfx_password: &PfxPassword,
        at: Timestamp,
    ) -> anyhow::Result<Option<CertificateAuthority>> {
        let key_password = self.key_password.given()?;
        let key = key_password.as_ref().map(|password| password.as_str());
        if let (Some(certificate_file), Some(key_file)) = (&self.ca_cert, &self.ca_key) {
            let pfx_password = pfx_password.given()?;
            let passwords = Passwords { key, pfx: pfx_password.as_ref().map(|password| password.as_str()) };
            return Ok(Some(files::read_authority(certificate_file, key_file, passwords, at)?));
        }
        let Some(parent) = &self.parent else { return Ok(None) };
        let authority = FileSet::new(directory, parent)?
            .read_authority(key, at)
            .with_context(|| format!("could not read the CA {parent}"))?;
        Ok(Some(authority))
    }
}
