//! The certificates and keys in a directory: an application tells only thumbprints, and a move needs certificates.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf, absolute},
};

use crate::certificate::{
    Certificate, ReadError, Thumbprint,
    files::{FileError, Passwords, read_certificates_with, read_key},
};

/// How well a file fits a certificate: the lower, the better. Its own file is better than the chain of another certificate, and
/// one without a password is better than a PFX file.
type Rank = (bool, bool);

/// The files below a directory that hold certificates. Little of each is kept, because there may be a million.
#[derive(Default)]
pub(super) struct CaFiles {
    by_thumbprint: HashMap<Thumbprint, (Rank, PathBuf)>,
    /// The certificates that no CA has, by their common names in lower case.
    leaves: HashMap<String, PathBuf>,
    files: Vec<PathBuf>,
    /// Files that look like certificates and could not be read.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

impl CaFiles {
    /// Reads every file below the directory. Symbolic links are followed.
    pub(super) fn read(directory: &Path, passwords: Passwords<'_>) -> io::Result<Self> {
        let mut found = Self::default();
        found.add_directory(&absolute(directory)?, passwords, &mut HashSet::new())?;
        Ok(found)
    }

    fn add_directory(
        &mut self,
        directory: &Path,
        passwords: Passwords<'_>,
        visited: &mut HashSet<PathBuf>,
    ) -> io::Result<()> {
        // Links can form a loop.
        if !visited.insert(fs::canonicalize(directory)?) {
            return Ok(());
        }
        let mut paths =
            fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            match fs::metadata(&path) {
                Ok(kind) if kind.is_dir() => {
                    if let Err(error) = self.add_directory(&path, passwords, visited) {
                        self.unreadable.push((path, error.to_string()));
                    }
                }
                Ok(kind) if kind.is_file() => self.add_file(path, passwords),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf, passwords: Passwords<'_>) {
        // The plan is JSON, which has no other text.
        if path.to_str().is_none() {
            return self.unreadable.push((path, "its path is not valid UTF-8".to_owned()));
        }
        match read_certificates_with(&path, passwords) {
            Ok(certificates) => {
                for (position, certificate) in certificates.iter().enumerate() {
                    self.add_certificate(certificate, position, &path);
                }
                self.files.push(path);
            }
            // A key, and any other file.
            Err(FileError::Certificate { error: ReadError::NoCertificate(_) | ReadError::Empty, .. }) => {
                self.files.push(path);
            }
            Err(error) if looks_like_certificate(&path) => {
                // Its key may be readable, as in a PFX file with another password.
                self.unreadable.push((path, error.to_string()));
            }
            Err(_) => {}
        }
    }

    fn add_certificate(&mut self, certificate: &Certificate, position: usize, path: &Path) {
        let rank = (position > 0, has_extension(path, &["pfx", "p12"]));
        let thumbprint = certificate.sha1_thumbprint();
        if self.by_thumbprint.get(&thumbprint).is_none_or(|(known, _)| rank < *known) {
            self.by_thumbprint.insert(thumbprint, (rank, path.to_owned()));
        }
        let is_authority = certificate.basic_constraints().is_some_and(|constraints| constraints.authority);
        if let Some(name) = certificate.subject().common_name().filter(|_| !is_authority) {
            self.leaves.entry(name.to_ascii_lowercase()).or_insert_with(|| path.to_owned());
        }
    }

    /// Returns the file that holds the certificate with this thumbprint.
    pub(super) fn file(&self, thumbprint: Thumbprint) -> Option<&PathBuf> {
        self.by_thumbprint.get(&thumbprint).map(|(_, path)| path)
    }

    /// Returns the file of a device's certificate, by its common name.
    pub(super) fn leaf(&self, id: &str) -> Option<&PathBuf> {
        self.leaves.get(&id.to_ascii_lowercase())
    }

    /// Finds the files of the private keys of these certificates. First those are tried that are named as `cert root` names
    /// them, then all.
    pub(super) fn find_keys(
        &self,
        certificates: &[(Certificate, PathBuf)],
        passwords: Passwords<'_>,
    ) -> HashMap<Thumbprint, PathBuf> {
        let mut found = HashMap::new();
        for (certificate, path) in certificates {
            let candidates = named_keys(path).into_iter().chain([path.clone()]);
            let mut candidates = candidates.filter(|path| path.is_file());
            let is_key = |path: &PathBuf| read_key(path, passwords).is_ok_and(|key| key.belongs_to(certificate));
            if let Some(key) = candidates.find(is_key) {
                found.insert(certificate.sha1_thumbprint(), key);
            }
        }
        for path in &self.files {
            if certificates.iter().all(|(certificate, _)| found.contains_key(&certificate.sha1_thumbprint())) {
                break;
            }
            let Ok(key) = read_key(path, passwords) else { continue };
            for (certificate, _) in certificates.iter().filter(|(certificate, _)| key.belongs_to(certificate)) {
                found.entry(certificate.sha1_thumbprint()).or_insert_with(|| path.clone());
            }
        }
        found
    }
}

/// Returns the names that the key of a certificate file may have.
fn named_keys(certificate: &Path) -> Vec<PathBuf> {
    let Some(name) = certificate.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let stem = ["_cert.pem", "_fullchain.pem"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    stem.map(|stem| certificate.with_file_name(format!("{stem}_key.pem"))).into_iter().collect()
}

fn looks_like_certificate(path: &Path) -> bool {
    has_extension(path, &["cer", "crt", "der", "p12", "p7b", "p7c", "pem", "pfx"])
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Reads the certificate with a thumbprint from a file.
pub(super) fn read_certificate(
    path: &Path,
    thumbprint: Thumbprint,
    passwords: Passwords<'_>,
) -> Result<Option<Certificate>, FileError> {
    let certificates = read_certificates_with(path, passwords)?;
    Ok(certificates.into_iter().find(|certificate| certificate.sha1_thumbprint() == thumbprint))
}
