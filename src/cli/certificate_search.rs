//! Every certificate at a path: in a file, in the folders below, in tar files.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{args::certificates_of, output::Output};
use crate::certificate::{Certificate, ReadError, files::MAX_FILE, pfx};

/// What was looked at.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Searched {
    /// How many files and members of tar files were looked at.
    pub(super) files: usize,
    /// How many of them hold something else.
    without_certificate: usize,
    /// What cannot be told to hold none, and is of no kind that is read.
    not_read: Vec<Fault>,
    /// What should hold a certificate, and could not be read.
    pub(super) unreadable: Vec<Fault>,
}

/// A file and what is the matter with it.
#[derive(Serialize)]
pub(super) struct Fault {
    #[serde(serialize_with = "crate::workflow::lossy_path")]
    pub(super) file: PathBuf,
    pub(super) reason: String,
}

impl Searched {
    /// Tells what was passed over.
    pub(super) fn tell(&self, output: &Output) {
        if self.without_certificate > 0 {
            output.note(format_args!("files without a certificate: {} of {}", self.without_certificate, self.files));
        }
        if let Some(Fault { file, reason }) = self.not_read.first() {
            let count = self.not_read.len();
            output.note(format_args!("files not read: {count}, such as {}: {reason}", file.display()));
        }
    }
}

/// Calls `found` with each certificate and where it is. What cannot be read does not end the search.
pub(super) fn search(
    path: &Path,
    pfx_password: Option<Zeroizing<String>>,
    found: &mut dyn FnMut(&Path, &Certificate),
) -> anyhow::Result<Searched> {
    let mut search = Search { pfx_password, found, folders: HashSet::new(), searched: Searched::default() };
    let unreadable = || format!("could not read {}", path.display());
    if fs::metadata(path).with_context(unreadable)?.is_dir() {
        search.folder(path).with_context(unreadable)?;
    } else if let Err(error) = search.file(path) {
        search.unreadable(path, error.to_string());
    }
    Ok(search.searched)
}

struct Search<'a> {
    pfx_password: Option<Zeroizing<String>>,
    found: &'a mut dyn FnMut(&Path, &Certificate),
    /// Where it has been: links may lead in a circle.
    folders: HashSet<PathBuf>,
    searched: Searched,
}

impl Search<'_> {
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        if !self.folders.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        let mut paths =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let searched = match fs::metadata(&path) {
                Ok(kind) if kind.is_dir() => self.folder(&path),
                Ok(kind) if kind.is_file() => self.file(&path),
                Ok(_) => {
                    self.not_read(&path, "it is neither a file nor a folder");
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = searched {
                self.unreadable(&path, error.to_string());
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

    /// A tar file, one member in memory at a time.
    fn tar(&mut self, path: &Path, file: impl Read) -> io::Result<()> {
        for member in tar::Archive::new(file).entries()? {
            let member = member?;
            if !member.header().entry_type().is_file() {
                continue;
            }
            let mut place = path.as_os_str().to_owned();
            place.push(":");
            place.push(&*member.path()?);
            self.contents(Path::new(&place), member)?;
        }
        Ok(())
    }

    fn contents(&mut self, path: &Path, contents: impl Read) -> io::Result<()> {
        let mut bytes = Zeroizing::new(Vec::new());
        contents.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        self.searched.files += 1;
        let marked = marked(&bytes);
        if is_tar(&bytes) {
            self.unreadable(path, "it is a tar file in a tar file, which is not read");
        } else if bytes.len() as u64 > MAX_FILE {
            let reason = format!("it has more than {} MiB", MAX_FILE >> 20);
            if marked > 0 || claims(path, &bytes) {
                self.unreadable(path, reason);
            } else {
                self.not_read(path, reason);
            }
        } else {
            self.certificates(path, &bytes, marked);
        }
        Ok(())
    }

    fn certificates(&mut self, path: &Path, bytes: &[u8], marked: usize) {
        let lost = |read: usize| {
            format!(
                "{} of its {marked} certificates could not be read: their BEGIN and END lines are not those of a certificate",
                marked - read
            )
        };
        let pfx_password = || Ok(self.pfx_password.clone());
        match certificates_of(bytes, pfx_password, |pfx, password| pfx::read_in_file_order(pfx, password)) {
            Ok(certificates) => {
                for certificate in &certificates {
                    (self.found)(path, certificate);
                }
                if marked > certificates.len() {
                    self.unreadable(path, lost(certificates.len()));
                }
            }
            Err(error) => match error.downcast_ref::<ReadError>() {
                Some(ReadError::NoCertificate(_)) if marked > 0 => self.unreadable(path, lost(0)),
                // Keys and requests.
                Some(ReadError::NoCertificate(_)) => self.searched.without_certificate += 1,
                Some(_) if marked == 0 && !claims(path, bytes) => {
                    if is_compressed(bytes) {
                        self.not_read(path, "it is compressed");
                    } else {
                        self.searched.without_certificate += 1;
                    }
                }
                _ => self.unreadable(path, format!("{error:#}")),
            },
        }
    }

    fn not_read(&mut self, path: &Path, reason: impl Into<String>) {
        self.searched.not_read.push(Fault { file: path.to_owned(), reason: reason.into() });
    }

    fn unreadable(&mut self, path: &Path, reason: impl Into<String>) {
        self.searched.unreadable.push(Fault { file: path.to_owned(), reason: reason.into() });
    }
}

/// How many PEM certificates there are by their boundaries. Where one of the two is mistyped the other still counts.
fn marked(bytes: &[u8]) -> usize {
    count(bytes, b"CERTIFICATE--").div_ceil(2)
}

/// Whether it is meant to hold certificates, by its name or its beginning.
fn claims(path: &Path, bytes: &[u8]) -> bool {
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
    bytes.windows(part.len()).filter(|window| *window == part).count()
}

/// POSIX.1-2017 `pax`, "ustar Interchange Format": the magic is in each header.
fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// gzip, zip, xz, Zstandard and bzip2, by their magic numbers.
fn is_compressed(bytes: &[u8]) -> bool {
    [&b"\x1f\x8b"[..], b"PK\x03\x04", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"]
        .iter()
        .any(|magic| bytes.starts_with(magic))
}
