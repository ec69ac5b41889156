//! The certificate authority of a workflow: found in files, or created.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    error::ProvisionError,
    step::{Outcome, Step, Steps},
};
use crate::certificate::{
    AuthorityError, CertificateAuthority, CommonName, IssueOptions, KeyAlgorithm, Timestamp, chain,
    files::{self, FileError, FileSet, IfExists, PfxOptions},
};

/// Where the certificate authority comes from.
#[derive(Debug, Clone)]
pub enum AuthoritySource {
    /// The root of this name in the directory, created if missing.
    Root(CommonName),
    /// An existing CA, a root or an intermediate.
    Files {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// An existing CA that the caller has read, such as one whose key is in a PKCS#11 token.
    Authority(Arc<CertificateAuthority>),
}

/// The files of the certificate authority.
pub(super) struct AuthorityFiles<'a> {
    pub(super) source: &'a AuthoritySource,
    pub(super) directory: &'a Path,
    pub(super) key_password: Option<&'a str>,
    pub(super) algorithm: KeyAlgorithm,
    pub(super) pfx: Option<PfxOptions<'a>>,
    pub(super) at: Timestamp,
}

/// A root that was to be created.
pub(super) enum CreatedRoot {
    /// This run created it.
    Created(Arc<CertificateAuthority>),
    /// Another run created it first. It is not reported yet.
    Found(Arc<CertificateAuthority>),
}

impl AuthorityFiles<'_> {
    /// Reads the CA; none if it is a root that does not exist yet.
    pub(super) fn find(&self) -> Result<Option<Arc<CertificateAuthority>>, ProvisionError> {
        let (found, certificate, key) = match self.source {
            AuthoritySource::Authority(authority) => {
                chain::check_authority(authority.certificate(), self.at).map_err(AuthorityError::Unfit)?;
                return Ok(Some(Arc::clone(authority)));
            }
            AuthoritySource::Files { certificate, key } => {
                let found = files::read_authority(certificate, key, self.key_password, self.at);
                (found, certificate.clone(), key.clone())
            }
            AuthoritySource::Root(name) => {
                let set = FileSet::new(self.directory, name)?;
                if set.existing()?.is_empty() {
                    set.check_spelling()?;
                    return Ok(None);
                }
                (set.read_authority(self.key_password, self.at), set.certificate(), set.private_key())
            }
        };
        let checked = found.and_then(|found| match chain::check_authority(found.certificate(), self.at) {
            Ok(()) => Ok(Some(Arc::new(found))),
            // A CA for servers only cannot be enrolled.
            Err(error) => Err(FileError::Authority { certificate, key, error: AuthorityError::Unfit(error) }),
        });
        checked.map_err(ProvisionError::from_authority_files)
    }

    /// Returns the files of a root and its name. No device may have the same files.
    pub(super) fn root_files(&self) -> Result<Option<(FileSet, &CommonName)>, ProvisionError> {
        let AuthoritySource::Root(name) = self.source else { return Ok(None) };
        Ok(Some((FileSet::new(self.directory, name)?, name)))
    }

    /// Fails if a root cannot be written to the directory.
    pub(super) fn check_directory(&self) -> Result<(), ProvisionError> {
        Ok(files::check_writable(self.directory)?)
    }

    /// Creates the root; nothing in a dry run.
    pub(super) fn create(&self, dry_run: bool, steps: &mut Steps<'_>) -> Result<Option<CreatedRoot>, ProvisionError> {
        let Some((set, name)) = self.root_files()? else { return Ok(None) };
        let path = set.certificate();
        if dry_run {
            steps.finish(Step::Root, Outcome::Planned, format!("would create {name} in {}", path.display()));
            return Ok(None);
        }
        steps.start(Step::Root, "creating a root certificate");
        let options = IssueOptions::new().algorithm(self.algorithm).at(self.at);
        let issued = CertificateAuthority::new_root(name, &options)?;
        match set.write(&issued, self.pfx, IfExists::Fail) {
            Ok(()) => {}
            Err(FileError::Exists(_)) => {
                let found = set.read_authority(self.key_password, Timestamp::now());
                let found = found.map_err(ProvisionError::from_authority_files)?;
                return Ok(Some(CreatedRoot::Found(Arc::new(found))));
            }
            Err(error) => return Err(error.into()),
        }
        steps.finish(Step::Root, Outcome::Done, format!("created {name} in {}", path.display()));
        Ok(Some(CreatedRoot::Created(Arc::new(issued.into_authority(self.at)?))))
    }
}

/// Reports a CA that was found.
pub(super) fn report_found(authority: &CertificateAuthority, steps: &mut Steps<'_>) {
    let certificate = authority.certificate();
    let detail = format!("found {}, valid until {}", certificate.subject(), certificate.not_after().date());
    steps.finish(Step::Root, Outcome::Unchanged, detail);
}
