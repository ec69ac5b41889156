//! The certificates of an IoT Edge device, and the part of its configuration that names them.
//!
//! IoT Edge 1.2 and later need three certificates: the identity of the device, with which it registers at the Device
//! Provisioning Service; the Edge CA, which signs the server certificates of its modules; and a trust bundle, with the root
//! that its modules and downstream devices trust.
//!
//! ```
//! use iot_enroll::certificate::{DeviceId, IssueOptions, edge::{EdgeCertificates, EdgeHostname}};
//!
//! let hostname = EdgeHostname::new("edge-1.plant.example")?;
//! let certificates = EdgeCertificates::issue(&DeviceId::new("edge-1")?, &hostname, None, &IssueOptions::new())?;
//! assert_eq!(certificates.edge_ca.certificate.subject().common_name(), Some("edge-1 Edge CA"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    AlternativeName, AlternativeNameError, AuthorityError, Certificate, CertificateAuthority, CommonName, DeviceId,
    IssueOptions, IssuedCertificate, LeafParams, MAX_COMMON_NAME, NameError, Profile, Timestamp,
    authority::self_signed,
    files::{FileError, FileSet, IfExists, Readers, check_replaceable_file, write_file},
    timestamp::moment,
};

/// What follows the name of a device in the common name of its Edge CA. With a space, it is never a host name.
const EDGE_CA: &str = " Edge CA";

/// The shortest validity of an Edge CA whose end is that of its issuer: the default lifetime of the certificates that IoT
/// Edge creates for itself.
const MIN_VALIDITY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The ID of the module that every gateway has. IoT Edge adds the ID of a module to its server certificate, as a DNS name beside
/// the host name (`module/cert/server.rs` of edgelet's workload API).
const EDGE_HUB: &str = "edgeHub";

/// The file with the certificates that modules and downstream devices trust.
const TRUST_BUNDLE: &str = "trust_bundle.pem";

/// The file with a part of `/etc/aziot/config.toml`.
const CONFIG: &str = "config.toml";

/// Returns the common name of an Edge CA.
///
/// IoT Edge puts the host name into the common name of server certificates. If the Edge CA had the same name, clients would
/// take such a certificate for a self-signed one. So ` Edge CA` is appended to a name without a space, which could be a host
/// name. Of a name that is too long for that, the first 47 characters are kept, then a hyphen and the first 8 hexadecimal digits
/// of the SHA-256 of the name, so that it is still unique.
///
/// # Errors
/// Returns a [`NameError`] if the result is not a common name.
pub fn edge_ca_name(name: &CommonName) -> Result<CommonName, NameError> {
    if name.as_str().contains(' ') {
        return Ok(name.clone());
    }
    if name.as_str().chars().count() + EDGE_CA.len() <= MAX_COMMON_NAME {
        return CommonName::new(format!("{name}{EDGE_CA}"));
    }
    let digits: String = Sha256::digest(name.as_str()).iter().take(4).map(|octet| format!("{octet:02x}")).collect();
    let kept = MAX_COMMON_NAME - EDGE_CA.len() - 1 - digits.len();
    let start: String = name.as_str().chars().take(kept).collect();
    CommonName::new(format!("{start}-{digits}{EDGE_CA}"))
}

/// The host name of an IoT Edge device, which is the `hostname` setting and a name in its server certificates: a DNS name
/// without wildcard, or an IP address, of at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeHostname(AlternativeName);

/// The reason why a text is not the host name of an IoT Edge device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeHostnameError {
    /// It is neither a DNS name nor an IP address.
    #[error(transparent)]
    Name(#[from] AlternativeNameError),
    /// It has a wildcard.
    #[error("the host name of a device has no wildcard")]
    Wildcard,
    /// It is too long for the common name of a server certificate.
    #[error("the host name of an IoT Edge device has at most 64 characters, since it becomes a common name")]
    Length,
}

impl EdgeHostname {
    /// Creates a host name from text.
    ///
    /// # Errors
    /// Returns an [`EdgeHostnameError`] if it cannot be the host name of an IoT Edge device.
    pub fn new(text: &str) -> Result<Self, EdgeHostnameError> {
        let name = AlternativeName::new(text)?;
        match name.to_string() {
            _ if name.is_wildcard() => Err(EdgeHostnameError::Wildcard),
            text if text.len() > MAX_COMMON_NAME => Err(EdgeHostnameError::Length),
            _ => Ok(Self(name)),
        }
    }
}

impl FromStr for EdgeHostname {
    type Err = EdgeHostnameError;

    fn from_str(text: &str) -> Result<Self, EdgeHostnameError> {
        Self::new(text)
    }
}

impl std::fmt::Display for EdgeHostname {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The certificates of an IoT Edge device.
#[derive(Debug)]
#[non_exhaustive]
pub struct EdgeCertificates {
    /// The identity of the device, with the device ID as its common name.
    pub identity: IssuedCertificate,
    /// The CA of the device.
    pub edge_ca: IssuedCertificate,
}

/// The configuration of an IoT Edge device that its certificates do not determine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EdgeSettings {
    hostname: EdgeHostname,
    id_scope: Option<String>,
    installed_in: Option<String>,
}

impl EdgeSettings {
    /// Creates settings for a device with that host name.
    #[must_use]
    pub fn new(hostname: EdgeHostname) -> Self {
        Self { hostname, id_scope: None, installed_in: None }
    }

    /// Sets the ID scope of the Device Provisioning Service. Without one, the setting is a comment.
    #[must_use]
    pub fn id_scope(mut self, id_scope: impl Into<Option<String>>) -> Self {
        self.id_scope = id_scope.into();
        self
    }

    /// Sets the directory on the device that will hold the files, as an absolute path there. Without one, the configuration
    /// names the files where they are written.
    #[must_use]
    pub fn installed_in(mut self, directory: impl Into<Option<String>>) -> Self {
        self.installed_in = directory.into();
        self
    }
}

/// The files of an IoT Edge device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EdgeFiles {
    /// The identity of the device.
    pub identity: FileSet,
    /// The CA of the device.
    pub edge_ca: FileSet,
    /// The certificate that modules and downstream devices trust.
    pub trust_bundle: PathBuf,
    /// The part of `/etc/aziot/config.toml` that names the files.
    pub config: PathBuf,
}

impl EdgeFiles {
    /// Checks that no file is a file of this CA, through any path or link.
    ///
    /// # Errors
    /// Returns [`FileError::SigningAuthority`] with the shared file.
    pub fn check_apart(&self, authority: &CertificateAuthority) -> Result<(), FileError> {
        self.identity.check_apart(authority)?;
        self.edge_ca.check_apart(authority)?;
        for ours in [&self.trust_bundle, &self.config] {
            let Ok(found) = ours.canonicalize() else { continue };
            if authority.files().iter().any(|theirs| theirs.canonicalize().is_ok_and(|theirs| theirs == found)) {
                return Err(FileError::SigningAuthority(ours.clone()));
            }
        }
        Ok(())
    }

    /// Checks that an existing configuration is that of this device. Files of another are never overwritten.
    fn check_config_owner(&self, registration_id: &str) -> Result<(), FileError> {
        let Ok(existing) = fs::read_to_string(&self.config) else { return Ok(()) };
        let setting = |line: &str| line.strip_prefix("registration_id = \"")?.strip_suffix('"').map(str::to_owned);
        match existing.lines().find_map(setting) {
            Some(found) if found == registration_id => Ok(()),
            found => Err(FileError::SharedFiles {
                path: self.config.clone(),
                name: registration_id.to_owned(),
                other: found.unwrap_or_else(|| "another configuration".to_owned()),
            }),
        }
    }
}

impl CertificateAuthority {
    /// Issues the CA certificate of an IoT Edge device, which may sign the server certificates of its modules.
    ///
    /// # Errors
    /// Returns [`AuthorityError::ShortValidity`] if the validity was shortened to less than 90 days because this CA
    /// expires; otherwise the errors of [`issue_intermediate`](Self::issue_intermediate).
    pub fn issue_edge_ca(
        &self,
        name: &CommonName,
        options: &IssueOptions,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let name = edge_ca_name(name)?;
        let options = options.with_fixed_time();
        let issued = self.issue(Profile::EdgeAuthority, &name, |_| (), &options)?;
        // Its purpose is to sign server certificates.
        self.check_server_chain(&issued.certificate)?;
        check_left(&issued, options.issue_time())?;
        Ok(issued)
    }

    /// Checks that the server certificate of the IoT Edge hub, for that host name, would be valid under an Edge CA of this CA:
    /// CAs may constrain the names below them. An Edge CA does not constrain names itself, so a certificate under this CA shows
    /// that.
    fn check_edge_hostname(&self, hostname: &EdgeHostname, at: Timestamp) -> Result<(), AuthorityError> {
        let common_name = CommonName::new(hostname.to_string())?;
        let check = |names: &[&AlternativeName]| {
            let server = LeafParams::server(common_name.clone()).alternative_names(names.iter().copied().cloned());
            match self.issue_leaf(&server, &IssueOptions::new().at(at)) {
                Err(AuthorityError::Invalid { error, .. }) => Ok(Some(error)),
                other => other.map(|_| None),
            }
        };
        if let Some(error) = check(&[&hostname.0])? {
            return Err(AuthorityError::Hostname { hostname: hostname.to_string(), error });
        }
        let Ok(hub) = AlternativeName::new(EDGE_HUB) else { return Ok(()) };
        match check(&[&hostname.0, &hub])? {
            Some(error) => Err(AuthorityError::ModuleName { module: EDGE_HUB.to_owned(), error }),
            None => Ok(()),
        }
    }

    /// Issues a self-signed CA certificate of an IoT Edge device, which is also the trust bundle.
    ///
    /// # Errors
    /// Returns the errors of [`new_root`](Self::new_root).
    pub fn new_edge_ca(name: &CommonName, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self_signed(Profile::EdgeAuthority, &edge_ca_name(name)?, |_| (), options)
    }
}

/// Checks that an Edge CA is valid for long enough, unless a shorter validity was requested.
fn check_left(issued: &IssuedCertificate, at: Timestamp) -> Result<(), AuthorityError> {
    let least = at.checked_add(MIN_VALIDITY);
    let own = issued.certificate.not_after();
    // The chain is valid for as long as all its certificates are.
    let not_after = issued.fullchain().map(Certificate::not_after).min().unwrap_or(own);
    let is_shortened = issued.shortened_from.is_some() || not_after < own;
    if is_shortened && least.is_some_and(|least| not_after < least) {
        return Err(AuthorityError::ShortValidity {
            subject: issued.certificate.subject().to_string(),
            not_after: moment(not_after),
        });
    }
    Ok(())
}

impl EdgeCertificates {
    /// Issues the certificates of a device with that host name, under a CA or self-signed.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Hostname`] if the CA or one above it does not allow server certificates for the host name,
    /// [`AuthorityError::ModuleName`] if it does not allow the DNS name that IoT Edge adds to them, and other errors if a certificate cannot be issued.
    pub fn issue(
        device: &DeviceId,
        hostname: &EdgeHostname,
        authority: Option<&CertificateAuthority>,
        options: &IssueOptions,
    ) -> Result<Self, AuthorityError> {
        let name = device.common_name()?;
        let (identity, edge_ca) = match authority {
            Some(authority) => {
                authority.check_edge_hostname(hostname, options.issue_time())?;
                (authority.issue_device(device, options)?, authority.issue_edge_ca(&name, options)?)
            }
            None => (
                CertificateAuthority::self_signed_device(device, options)?,
                CertificateAuthority::new_edge_ca(&name, options)?,
            ),
        };
        Ok(Self { identity, edge_ca })
    }

    /// Returns the certificate that modules and downstream devices must trust: the topmost known one.
    #[must_use]
    pub fn trust_anchor(&self) -> &Certificate {
        self.edge_ca.issuers.last().unwrap_or(&self.edge_ca.certificate)
    }

    /// Returns the files of a device in a directory, whether they exist or not.
    ///
    /// # Errors
    /// Returns a [`NameError`] if files cannot have the name of the device.
    pub fn files(directory: &Path, device: &DeviceId) -> Result<EdgeFiles, NameError> {
        let name = device.common_name()?;
        Ok(EdgeFiles {
            identity: FileSet::new(directory, &name)?,
            edge_ca: FileSet::new(directory, &edge_ca_name(&name)?)?,
            trust_bundle: directory.join(TRUST_BUNDLE),
            config: directory.join(CONFIG),
        })
    }

    /// Writes all files. The configuration is the last, so that it never names a file that does not exist.
    ///
    /// # Errors
    /// Returns [`FileError::Exists`] if one of the files exists and [`IfExists::Fail`] is given; otherwise the errors of
    /// [`FileSet::write`].
    pub fn write(&self, files: &EdgeFiles, settings: &EdgeSettings, if_exists: IfExists) -> Result<(), FileError> {
        let existing: Vec<_> =
            [&files.trust_bundle, &files.config].into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        existing.iter().try_for_each(|path| check_replaceable_file(path))?;
        // Before the check for existing files: those of another device are not overwritten on request either.
        files.check_config_owner(self.registration_id())?;
        for set in [&files.identity, &files.edge_ca] {
            set.check_available(if_exists)?;
        }
        if if_exists == IfExists::Fail && !existing.is_empty() {
            return Err(FileError::Exists(existing.into_iter().cloned().collect()));
        }
        files.identity.write(&self.identity, None, if_exists)?;
        files.edge_ca.write(&self.edge_ca, None, if_exists)?;
        write_file(&files.trust_bundle, self.trust_anchor().to_pem().as_bytes(), Readers::Everyone, if_exists)?;
        write_file(&files.config, self.config(files, settings)?.as_bytes(), Readers::Everyone, if_exists)
    }

    fn registration_id(&self) -> &str {
        self.identity.certificate.subject().common_name().unwrap_or_default()
    }

    /// Returns the part of `/etc/aziot/config.toml` that names the files.
    fn config(&self, files: &EdgeFiles, settings: &EdgeSettings) -> Result<String, FileError> {
        let uri = |path: &Path| file_uri(path, settings.installed_in.as_deref());
        let id_scope = match &settings.id_scope {
            Some(id_scope) => format!("id_scope = \"{}\"", id_scope.escape_default()),
            None => "# id_scope = \"\"  # the ID scope of the Device Provisioning Service".to_owned(),
        };
        let registration_id = self.registration_id();
        Ok(format!(
            "# A part of /etc/aziot/config.toml.\n\
             hostname = \"{}\"\n\
             trust_bundle_cert = \"{}\"\n\
             \n\
             [provisioning]\n\
             source = \"dps\"\n\
             global_endpoint = \"https://global.azure-devices-provisioning.net/\"\n\
             {id_scope}\n\
             \n\
             [provisioning.attestation]\n\
             method = \"x509\"\n\
             registration_id = \"{registration_id}\"\n\
             identity_cert = \"{}\"\n\
             identity_pk = \"{}\"\n\
             \n\
             [edge_ca]\n\
             cert = \"{}\"\n\
             pk = \"{}\"\n",
            settings.hostname,
            uri(&files.trust_bundle)?,
            uri(&files.identity.fullchain())?,
            uri(&files.identity.private_key())?,
            uri(&files.edge_ca.fullchain())?,
            uri(&files.edge_ca.private_key())?,
        ))
    }
}

/// Returns the URI of a file (RFC 8089), in its own directory or in one of the device.
fn file_uri(path: &Path, installed_in: Option<&str>) -> Result<String, FileError> {
    // The file may not exist yet, but its directory does.
    let own = directory_of(path);
    let resolved = || own.canonicalize().map_err(|error| FileError::io("find", own, error));
    let directory = installed_in.map(PathBuf::from).map_or_else(resolved, Ok)?;
    let path = directory.join(path.file_name().unwrap_or_default());
    let mut uri = "file://".to_owned();
    for &octet in path.as_os_str().as_encoded_bytes() {
        // Unreserved characters (RFC 3986 section 2.3), and the separator.
        if octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet) {
            uri.push(char::from(octet));
        } else {
            let _ = write!(uri, "%{octet:02X}");
        }
    }
    Ok(uri)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
