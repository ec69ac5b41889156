//! Search of a file or directory tree, including tar files, for certificates.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{input::certificates_of, output::Output};
use crate::certificate::{Certificate, ReadError, files::MAX_FILE, pfx};

/// The outcome of a search.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SearchReport {
    /// The number of files, including members of tar files.
    files: usize,
    /// The number of files with other content.
    without_certificate: usize,
    /// Files of a kind that is not searched, and that can hold certificates.
    not_read: Vec<UnreadFile>,
    /// Certificate files that could not be read.
    pub(super) unreadable: Vec<UnreadFile>,
}

#[derive(Serialize)]
pub(super) struct UnreadFile {
    #[serde(serialize_with = "crate::workflow::lossy_path")]
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

impl SearchReport {
    /// Notes which files were skipped.
    pub(super) fn note_skipped(&self, output: &Output) {
        if self.without_certificate > 0 {
            output.note(format_args!("files without a certificate: {} of {}", self.without_certificate, self.files));
        }
        if let Some(UnreadFile { file, reason }) = self.not_read.first() {
            let count = self.not_read.len();
            output.note(format_args!("files not read: {count}, such as {}: {reason}", file.display()));
        }
    }
}

/// Calls `found` with each certificate and its path. A file that cannot be read does not stop the search.
pub(super) fn search(
    path: &Path,
    pfx_password: Option<Zeroizing<String>>,
    found: &mut dyn FnMut(&Path, &Certificate),
) -> anyhow::Result<SearchReport> {
    let mut search = Search { pfx_password, found, visited: HashSet::new(), report: SearchReport::default() };
    let unreadable = || format!("could not read {}", path.display());
    if fs::metadata(path).with_context(unreadable)?.is_dir() {
        search.directory(path).with_context(unreadable)?;
    } else if let Err(error) = search.file(path) {
        search.unreadable(path, error.to_string());
    }
    Ok(search.report)
}

struct Search<'a> {
    pfx_password: Option<Zeroizing<String>>,
    found: &'a mut dyn FnMut(&Path, &Certificate),
    /// The directories searched so far: symbolic links can form a loop.
    visited: HashSet<PathBuf>,
    report: SearchReport,
}

impl Search<'_> {
    fn directory(&mut self, directory: &Path) -> io::Result<()> {
        if !self.visited.insert(fs::canonicalize(directory)?) {
            return Ok(());
        }
        let mut paths =
            fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let searched = match fs::metadata(&path) {
                Ok(kind) if kind.is_dir() => self.directory(&path),
                Ok(kind) if kind.is_file() => self.file(&path),
                Ok(_) => {
                    self.not_read(&path, "neither a file nor a directory");
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = searched {
                self.unreadable_unless_key(&path, error.to_string());
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        let start = file.fill_buf()?;
        if is_tar(start) || named(path, &["tar"]) {
            return self.tar(path, file);
        }
        self.contents(path, file)
    }

    /// Searches the members of a tar file. Only one is in memory at a time.
    fn tar(&mut self, path: &Path, file: impl Read) -> io::Result<()> {
        for member in tar::Archive::new(file).entries()? {
            let member = member?;
            if !member.header().entry_type().is_file() {
                continue;
            }
            let mut name = path.as_os_str().to_owned();
            name.push(":");
            name.push(&*member.path()?);
            self.contents(Path::new(&name), member)?;
        }
        Ok(())
    }

    fn contents(&mut self, path: &Path, contents: impl Read) -> io::Result<()> {
        let mut bytes = Zeroizing::new(Vec::new());
        contents.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        self.report.files += 1;
        let boundaries = pem_certificates(&bytes);
        if is_tar(&bytes) {
            self.unreadable(path, "a tar file inside a tar file is not searched");
        } else if bytes.len() as u64 > MAX_FILE {
            let reason = format!("larger than {} MiB", MAX_FILE >> 20);
            if boundaries > 0 || looks_like_certificate(path, &bytes) {
                self.unreadable(path, reason);
            } else {
                self.not_read(path, reason);
            }
        } else {
            self.certificates(path, &bytes, boundaries);
        }
        Ok(())
    }

    fn certificates(&mut self, path: &Path, bytes: &[u8], boundaries: usize) {
        let malformed = |read: usize| {
            format!("{} of {boundaries} certificates have malformed BEGIN or END lines", boundaries - read)
        };
        let pfx_password = || Ok(self.pfx_password.clone());
        match certificates_of(bytes, pfx_password, |pfx, password| pfx::read_in_file_order(pfx, password)) {
            Ok(certificates) => {
                for certificate in &certificates {
                    (self.found)(path, certificate);
                }
                if boundaries > certificates.len() {
                    self.unreadable(path, malformed(certificates.len()));
                }
            }
            Err(error) => match error.downcast_ref::<ReadError>() {
                Some(ReadError::NoCertificate(_)) if boundaries > 0 => self.unreadable(path, malformed(0)),
                // Private keys and certificate requests.
                Some(ReadError::NoCertificate(_)) => self.report.without_certificate += 1,
                Some(_) if boundaries == 0 && !looks_like_certificate(path, bytes) => {
                    if is_compressed(bytes) {
                        self.not_read(path, "compressed");
                    } else {
                        self.report.without_certificate += 1;
                    }
                }
                _ if boundaries == 0 => self.unreadable_unless_key(path, format!("{error:#}")),
                _ => self.unreadable(path, format!("{error:#}")),
            },
        }
    }

    fn not_read(&mut self, path: &Path, reason: impl Into<String>) {
        self.report.not_read.push(UnreadFile { file: path.to_owned(), reason: reason.into() });
    }

    /// Adds a file that cannot be read. One that is named as the private key of a set should hold no certificate.
    fn unreadable_unless_key(&mut self, path: &Path, reason: impl Into<String>) {
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with("_key.pem")) {
            self.not_read(path, reason);
        } else {
            self.unreadable(path, reason);
        }
    }

    fn unreadable(&mut self, path: &Path, reason: impl Into<String>) {
        self.report.unreadable.push(UnreadFile { file: path.to_owned(), reason: reason.into() });
    }
}

/// Counts the PEM certificates by their boundaries. A certificate with one mistyped boundary still counts.
fn pem_certificates(bytes: &[u8]) -> usize {
    count(bytes, b"CERTIFICATE--").div_ceil(2)
}

/// Returns whether a file should hold certificates, by its name or content.
fn looks_like_certificate(path: &Path, bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    named(path, &["cer", "crt", "der", "jks", "p12", "p7b", "p7c", "pem", "pfx"])
        || count(start, b"-----BEGIN") > 0
        || count(bytes, b"BEGIN CERTIFICAT") > 0
}

fn named(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

fn count(bytes: &[u8], part: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, part).count()
}

/// Returns whether a file is a tar file, by the magic in its header (POSIX.1-2017 `pax`, "ustar Interchange Format").
fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Returns whether a file is compressed by gzip, zip, xz, Zstandard or bzip2.
fn is_compressed(bytes: &[u8]) -> bool {
    [&b"\x1f\x8b"[..], b"PK\x03\x04", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"]
        .iter()
        .any(|magic| bytes.starts_with(magic))
}
