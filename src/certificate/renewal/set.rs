//! Renewal of the files of one certificate.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::{
    certificate::{RenewedCertificate, renew_self_signed},
    error::RenewalError,
    issuers::{Issuers, default_directories},
    options::RenewalOptions,
};
use crate::certificate::{
    Certificate, CertificateAuthority, ContentKind, KeyEncoding, KeyError, PrivateKey, Timestamp, camel_case, chain,
    content_kinds,
    files::{
        FileError, FileSet, Passwords, PfxOptions, RenewedKey, Replacement, Snapshot, parse_key, read_certificates,
        replace_all,
    },
    pfx::{self, DEFAULT_PASSWORD, PfxEncryption, PfxError},
};

/// Renews the files of certificates.
pub struct Renewer<'a> {
    pub(super) options: RenewalOptions,
    pub(super) threads: NonZeroUsize,
    pub(super) issuers: Issuers,
    authority: Option<&'a CertificateAuthority>,
    directories: Option<Vec<PathBuf>>,
    passwords: Passwords<'a>,
}

/// The outcome of the renewal of one set.
#[derive(Debug)]
pub enum Renewed {
    /// The certificate was renewed, or would be if it were no dry run.
    Done(Box<RenewedSet>),
    /// The certificate is not due, and nothing was changed.
    NotDue(Box<NotDue>),
}

/// A renewed set.
#[derive(Debug)]
#[non_exhaustive]
pub struct RenewedSet {
    /// The files.
    pub files: FileSet,
    /// The old certificate.
    pub old: Certificate,
    /// The new certificate.
    pub certificate: Certificate,
    /// The certificates above it, the issuer first; empty if it is self-signed.
    pub issuers: Vec<Certificate>,
    /// The requested end of the validity, if the issuer ends earlier and the validity was shortened to that.
    pub shortened_from: Option<Timestamp>,
    /// Whether the key is new.
    pub has_new_key: bool,
    /// Whether there is a file with the private key.
    pub has_key_file: bool,
    /// Whether there is a PFX file.
    pub has_pfx: bool,
}

/// A certificate that is not due for renewal.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotDue {
    /// The certificate.
    pub certificate: Certificate,
    /// When it will be due.
    pub due_at: Timestamp,
}

/// What is known about the key of a set without a key file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyHolder {
    /// The key should be beside the certificate.
    Files,
    /// The device keeps its key, as the manifest of a fleet says.
    Device,
}

/// A set before its files are replaced.
enum Prepared {
    NotDue(Box<NotDue>),
    /// The replacement is `None` in a dry run.
    Ready(Box<RenewedSet>, Option<Box<Replacement>>),
}

/// A set that waits for others of its directory.
struct Waiting {
    /// Its position in the batch.
    at: usize,
    holder: KeyHolder,
    set: Box<RenewedSet>,
    replacement: Replacement,
}

/// How often a set is tried again that another process replaces at the same time.
const ATTEMPTS: usize = 20;

impl<'a> Renewer<'a> {
    /// Creates a renewer that uses one thread.
    #[must_use]
    pub fn new(options: RenewalOptions) -> Self {
        Self {
            // All certificates of a run have the same time of issue.
            options: options.at(options.issue_time()),
            threads: NonZeroUsize::MIN,
            issuers: Issuers::default(),
            authority: None,
            directories: None,
            passwords: Passwords::new(),
        }
    }

    /// Sets the CA that signs. Otherwise the files of the issuer are found beside each certificate, in the two
    /// directories above it, or in the working directory, under the common name of the issuer.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<Option<&'a CertificateAuthority>>) -> Self {
        self.authority = authority.into();
        self
    }

    /// Sets the only directory in which the files of issuers are searched.
    #[must_use]
    pub fn issuer_directory(mut self, directory: impl Into<Option<PathBuf>>) -> Self {
        self.directories = directory.into().map(|directory| vec![directory]);
        self
    }

    /// Sets the passwords of private keys and PFX files. Without a password, a PFX file must open with [`DEFAULT_PASSWORD`]
    /// or the empty password, which it keeps.
    #[must_use]
    pub fn passwords(mut self, passwords: Passwords<'a>) -> Self {
        self.passwords = passwords;
        self
    }

    /// Sets the number of threads for many certificates.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Renews the certificate of a set, and replaces its files.
    ///
    /// The set keeps the files that it has: a PFX file is written only if there was one, with the same password and
    /// encryption. The key file is not touched, unless a new key is requested. The certificate may have expired.
    ///
    /// # Errors
    /// Returns a [`RenewalError`], also if the set is that of a name, and the certificate has another common name. Nothing was
    /// changed then, except that a replacement which a killed process had begun is finished.
    pub fn renew_set(&self, files: &FileSet) -> Result<Renewed, RenewalError> {
        files.recover()?;
        self.renew(files, &self.options, KeyHolder::Files)
    }

    pub(super) fn renew(
        &self,
        files: &FileSet,
        options: &RenewalOptions,
        holder: KeyHolder,
    ) -> Result<Renewed, RenewalError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let (set, replacement) = match self.prepare(files, options, holder)? {
                Prepared::NotDue(not_due) => return Ok(Renewed::NotDue(not_due)),
                Prepared::Ready(set, replacement) => (set, replacement),
            };
            let replaced = replacement.map(|replacement| replace_all(vec![*replacement])).transpose()?;
            match replaced.and_then(|mut outcomes| outcomes.pop()).unwrap_or(Ok(())) {
                Err(FileError::Changed(_)) if left > 0 => {}
                other => return other.map(|()| Renewed::Done(set)).map_err(RenewalError::File),
            }
        }
    }

    /// Renews several sets. Those of one directory are replaced together.
    pub(super) fn renew_batch(
        &self,
        sets: Vec<(FileSet, KeyHolder)>,
        options: &RenewalOptions,
    ) -> Vec<(FileSet, Result<Renewed, RenewalError>)> {
        let mut done: Vec<_> = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        for (files, holder) in sets {
            let outcome = match self.prepare(&files, options, holder) {
                Err(error) => Some(Err(error)),
                Ok(Prepared::NotDue(not_due)) => Some(Ok(Renewed::NotDue(not_due))),
                Ok(Prepared::Ready(set, None)) => Some(Ok(Renewed::Done(set))),
                Ok(Prepared::Ready(set, Some(replacement))) => {
                    if waiting.first().is_some_and(|first| first.set.files.directory() != files.directory()) {
                        self.replace_waiting(&mut waiting, options, &mut done);
                    }
                    waiting.push(Waiting { at: done.len(), holder, set, replacement: *replacement });
                    None
                }
            };
            done.push((files, outcome));
        }
        self.replace_waiting(&mut waiting, options, &mut done);
        let finished = |(files, outcome): (FileSet, Option<_>)| outcome.map(|outcome| (files, outcome));
        done.into_iter().filter_map(finished).collect()
    }

    fn replace_waiting(
        &self,
        waiting: &mut Vec<Waiting>,
        options: &RenewalOptions,
        done: &mut [(FileSet, Option<Result<Renewed, RenewalError>>)],
    ) {
        let (mut sets, mut replacements) = (Vec::new(), Vec::new());
        for Waiting { at, holder, set, replacement } in waiting.drain(..) {
            sets.push((at, holder, set));
            replacements.push(replacement);
        }
        match replace_all(replacements) {
            Ok(outcomes) => {
                for ((at, holder, set), outcome) in sets.into_iter().zip(outcomes) {
                    done[at].1 = Some(match outcome {
                        Ok(()) => Ok(Renewed::Done(set)),
                        Err(FileError::Changed(_)) => self.renew(&set.files, options, holder),
                        Err(error) => Err(error.into()),
                    });
                }
            }
            // Nothing was replaced. Each set is tried alone, which reports its error.
            Err(_) => {
                for (at, holder, set) in sets {
                    done[at].1 = Some(self.renew(&set.files, options, holder));
                }
            }
        }
    }

    /// Does everything up to the writing of files.
    fn prepare(&self, files: &FileSet, options: &RenewalOptions, holder: KeyHolder) -> Result<Prepared, RenewalError> {
        let is_due = |certificate: &Certificate| {
            options.threshold.is_none_or(|threshold| threshold.is_reached(certificate, options.issue_time()))
        };
        let Snapshot { certificate: old, key, pfx } = files.snapshot(is_due)?;
        let has_key_file = holder == KeyHolder::Files && (key.is_some() || options.has_new_key);
        if let Some(threshold) = options.threshold.filter(|_| !is_due(&old)) {
            let due_at = threshold.due_at(&old);
            return Ok(Prepared::NotDue(Box::new(NotDue { certificate: old, due_at })));
        }
        if is_proof(files, &old) {
            return Err(RenewalError::Proof(files.certificate()));
        }
        files.check_no_key_link(options.has_new_key)?;
        let encoding = self.key_encoding(files, key.as_ref().map(|key| key.as_slice()), options)?;
        let key = self.key_of(files, &old, key, options, holder)?;
        let pfx = self.pfx_of(files, &old, pfx)?;
        let new_key = options.has_new_key.then(|| new_key(&old)).transpose()?;
        let renewed = self.sign(files, &old, key.as_ref(), new_key.as_ref(), options)?;
        let RenewedCertificate { certificate, mut issuers, shortened_from } = renewed;
        extend(files, &certificate, &mut issuers, options.issue_time());
        let mut replacement = None;
        if !options.is_dry_run {
            let fullchain: Vec<_> = std::iter::once(&certificate).chain(&issuers).collect();
            let pfx = pfx.as_ref().map(|pfx| PfxOptions::new(&pfx.password).encryption(pfx.encryption));
            let key = match &new_key {
                Some(key) => RenewedKey::New(key, encoding),
                None => RenewedKey::Kept(key.as_ref()),
            };
            replacement = Some(Box::new(files.replacement(&old, &fullchain, key, pfx)?));
        }
        let set = RenewedSet {
            files: files.clone(),
            old,
            certificate,
            issuers,
            shortened_from,
            has_new_key: new_key.is_some(),
            has_key_file,
            has_pfx: pfx.is_some(),
        };
        Ok(Prepared::Ready(Box::new(set), replacement))
    }

    /// Returns the encoding of a new key: encrypted with the same password if the old key file is.
    fn key_encoding(
        &self,
        files: &FileSet,
        old: Option<&[u8]>,
        options: &RenewalOptions,
    ) -> Result<KeyEncoding<'a>, RenewalError> {
        let is_encrypted = |kind: &ContentKind| matches!(kind, ContentKind::EncryptedPrivateKey | ContentKind::Pfx);
        let kinds = old.filter(|_| options.has_new_key).and_then(|old| content_kinds(old).ok());
        if !kinds.is_some_and(|kinds| kinds.iter().any(is_encrypted)) {
            return Ok(KeyEncoding::new());
        }
        let path = files.private_key();
        let password = self.passwords.key.or(self.passwords.pfx);
        let password = password.ok_or(FileError::Key { path: path.clone(), error: KeyError::PasswordNeeded })?;
        // It must be the password of the old key.
        parse_key(&path, old.unwrap_or_default(), self.passwords)?;
        Ok(KeyEncoding::new().password(password))
    }

    /// Reads the private key of a set. `None` if it is not needed: it is replaced, or the device keeps it.
    fn key_of(
        &self,
        files: &FileSet,
        old: &Certificate,
        content: Option<Zeroizing<Vec<u8>>>,
        options: &RenewalOptions,
        holder: KeyHolder,
    ) -> Result<Option<PrivateKey>, RenewalError> {
        let path = files.private_key();
        let Some(content) = content else {
            return match holder {
                KeyHolder::Device if options.has_new_key => Err(RenewalError::DeviceKey(files.certificate())),
                // The key of a CA can be in a token, and is not needed unless the certificate is self-signed.
                KeyHolder::Files if !options.has_new_key && !is_authority(old) => {
                    Err(RenewalError::MissingKey { certificate: files.certificate(), key: path })
                }
                _ => Ok(None),
            };
        };
        match parse_key(&path, &content, self.passwords) {
            Ok(key) if key.belongs_to(old) => Ok(Some(key)),
            Ok(_) => Err(FileError::Mixed { certificate: files.certificate(), other: path }.into()),
            // A key that is replaced is not needed.
            Err(FileError::Key { .. }) if options.has_new_key => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the PFX file of a set, if there is one.
    fn pfx_of(
        &self,
        files: &FileSet,
        old: &Certificate,
        content: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Option<OldPfx>, RenewalError> {
        let path = files.pfx();
        let Some(bytes) = content else { return Ok(None) };
        let given = self.passwords.pfx;
        let candidates = match given {
            Some(password) => vec![password],
            None => vec![DEFAULT_PASSWORD, ""],
        };
        for password in candidates {
            let certificates = match pfx::read(&bytes, password) {
                Err(PfxError::Password) => continue,
                other => other.map_err(|error| RenewalError::pfx(&path, error))?,
            };
            if certificates.first() != Some(old) {
                return Err(FileError::Mixed { certificate: files.certificate(), other: path }.into());
            }
            let password = Zeroizing::new(password.to_owned());
            return Ok(Some(OldPfx { password, encryption: encryption_of(&bytes) }));
        }
        let error = if given.is_some() { PfxError::Password } else { PfxError::PasswordNeeded };
        Err(RenewalError::pfx(&path, error))
    }

    /// Signs the new certificate with the key of the issuer.
    fn sign(
        &self,
        files: &FileSet,
        old: &Certificate,
        key: Option<&PrivateKey>,
        new_key: Option<&PrivateKey>,
        options: &RenewalOptions,
    ) -> Result<RenewedCertificate, RenewalError> {
        if old.is_self_signed() {
            if let Some(authority) = self.authority {
                authority.check_issued_by_this(old)?;
            }
            let missing = || RenewalError::MissingKey { certificate: files.certificate(), key: files.private_key() };
            let given = self.authority.map(CertificateAuthority::key).filter(|key| key.belongs_to(old));
            return renew_self_signed(old, new_key.or(key).or(given).ok_or_else(missing)?, options);
        }
        match self.authority {
            Some(authority) => authority.renew(old, new_key, options),
            None => self.issuer_of(files, old, options)?.renew(old, new_key, options),
        }
    }

    fn issuer_of(
        &self,
        files: &FileSet,
        old: &Certificate,
        options: &RenewalOptions,
    ) -> Result<Arc<CertificateAuthority>, RenewalError> {
        let default;
        let directories = if let Some(directories) = &self.directories {
            directories
        } else {
            default = default_directories(files.directory());
            &default
        };
        self.issuers.find(old, directories, self.passwords.key, options.issue_time())
    }
}

impl fmt::Debug for Renewer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewer").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How the PFX file of a set was written.
struct OldPfx {
    password: Zeroizing<String>,
    encryption: PfxEncryption,
}

/// Returns the encryption of a PFX file: triple DES if it is used for a part of it.
fn encryption_of(bytes: &[u8]) -> PfxEncryption {
    /// `pbeWithSHAAnd3-KeyTripleDES-CBC` (RFC 7292 appendix C).
    const TRIPLE_DES: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03";
    let is_legacy = bytes.windows(TRIPLE_DES.len()).any(|window| window == TRIPLE_DES);
    if is_legacy { PfxEncryption::TripleDes } else { PfxEncryption::Aes256 }
}

/// Returns whether a set is a proof of possession, by the name of its files.
pub(super) fn is_proof(files: &FileSet, certificate: &Certificate) -> bool {
    let is_authority = certificate.basic_constraints().is_some_and(|constraints| constraints.authority);
    let stem = certificate.subject().common_name().map(camel_case);
    files.is_named_as_proof() && !is_authority && stem.as_deref() != Some("verification")
}

/// Adds the certificates above the last issuer from the old full chain: the file of the issuer may hold only its certificate.
fn extend(files: &FileSet, certificate: &Certificate, issuers: &mut Vec<Certificate>, at: Timestamp) {
    if issuers.last().is_none_or(Certificate::is_self_signed) {
        return;
    }
    let (path, known) = (files.fullchain(), issuers.len());
    let old = if path.is_file() { read_certificates(&path).unwrap_or_default() } else { Vec::new() };
    let is_issuer = |below: &Certificate, above: &Certificate| {
        is_authority(above) && below.names_issuer(above) && below.verify_signature(above).is_ok()
    };
    while let Some(last) = issuers.last().filter(|last| !last.is_self_signed()) {
        let next = old.iter().find(|above| !issuers.contains(above) && is_issuer(last, above));
        let Some(next) = next.cloned() else { break };
        issuers.push(next);
    }
    if let Some(anchor) = issuers.get(known..).and_then(<[_]>::last) {
        let presented: Vec<_> = std::iter::once(certificate).chain(issuers.iter()).cloned().collect();
        if chain::verify(&presented, std::slice::from_ref(anchor), at).is_err() {
            issuers.truncate(known);
        }
    }
}

fn new_key(old: &Certificate) -> Result<PrivateKey, RenewalError> {
    PrivateKey::generate_like(old.public_key_algorithm())?.ok_or_else(|| RenewalError::KeyAlgorithm {
        subject: old.to_string(),
        algorithm: old.public_key_algorithm().clone(),
    })
}

/// Returns the number of sets that a thread renews together: few if one takes long, so that all threads have work; else so
/// many that flushing them to the disk takes little time for each.
pub(super) fn batch_size(options: &RenewalOptions, has_pfx: bool) -> usize {
    if options.has_new_key || has_pfx { 16 } else { 128 }
}

/// Returns whether a certificate is a CA's.
pub(super) fn is_authority(certificate: &Certificate) -> bool {
    certificate.basic_constraints().is_some_and(|constraints| constraints.authority)
}

/// Returns the set that a file belongs to by its name, such as `sensor1_cert.pem`.
///
/// # Errors
/// Returns [`RenewalError::NotASet`] for another name, [`FileError::Missing`] if there is no such file either, and [`RenewalError::Tar`] for a tar file.
pub fn set_of_file(path: &Path) -> Result<FileSet, RenewalError> {
    FileSet::of_file(path).ok_or_else(|| {
        let is_tar = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"));
        if path.symlink_metadata().is_err() {
            return FileError::Missing(path.to_owned()).into();
        }
        if is_tar { RenewalError::Tar(path.to_owned()) } else { RenewalError::NotASet(path.to_owned()) }
    })
}
