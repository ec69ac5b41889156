//! Device certificates for a list of devices and for a fleet.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    error::ProvisionError,
    fleet::{FleetIssuance, FleetRequest, FleetSummary},
    record::{CertificateRecord, ProvisionedDevice},
    step::{Outcome, Step, Steps},
};
use crate::certificate::{
    AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, DeviceIssuer, IssueOptions,
    KeyError, Timestamp, chain,
    files::{self, FileError, FileSet, IfExists, PfxOptions},
};

/// The device certificates that a workflow issues.
pub(super) struct Issuance<'a> {
    /// The devices of the list.
    pub(super) devices: &'a [DeviceId],
    pub(super) fleet: Option<&'a FleetRequest>,
    /// The directory for the certificates of the list.
    pub(super) directory: &'a Path,
    /// The directory of the old certificates, if the devices keep their keys.
    pub(super) old_directory: Option<&'a Path>,
    pub(super) options: IssueOptions,
    pub(super) pfx: Option<PfxOptions<'a>>,
}

/// A device, its files, and its certificate if it has one.
pub(super) struct DevicePlan {
    id: DeviceId,
    set: FileSet,
    found: Option<Certificate>,
    kept_key: Option<KeptKey>,
}

/// The key of a device that gets a new certificate for its old key.
struct KeptKey {
    old_set: FileSet,
    public_key: Vec<u8>,
}

impl DevicePlan {
    fn is_missing(&self) -> bool {
        self.found.is_none()
    }

    /// Reports the device with its certificate. A key that is kept stays in its file.
    fn report(&self, certificate: &Certificate) -> ProvisionedDevice {
        let pfx = Some(self.set.pfx()).filter(|pfx| pfx.exists());
        let mut record = CertificateRecord::new(certificate, &self.set, pfx);
        if let Some(KeptKey { old_set, .. }) = &self.kept_key {
            record.private_key = Some(old_set.private_key());
        }
        ProvisionedDevice { id: self.id.to_string(), record, assigned_hub: None }
    }

    /// Returns the error for files that cannot be used for the device.
    fn unfit(&self, reason: impl Into<String>) -> ProvisionError {
        ProvisionError::Device { id: self.id.clone(), path: self.set.certificate(), reason: reason.into() }
    }
}

impl Issuance<'_> {
    /// Looks for the devices' files and checks that the missing certificates can be issued and written. Changes nothing.
    /// `root` has the files of the root, which no device may have.
    pub(super) fn plan(
        &self,
        authority: Option<&CertificateAuthority>,
        root: Option<(FileSet, &CommonName)>,
    ) -> Result<Vec<DevicePlan>, ProvisionError> {
        let devices = self.find_devices(authority, root)?;
        if let Some(authority) = authority
            && devices.iter().any(DevicePlan::is_missing)
        {
            let issuer = DeviceIssuer::new(authority, &self.options)?;
            devices.iter().filter(|device| device.is_missing()).try_for_each(|device| issuer.check(&device.id))?;
        }
        if let Some(fleet) = self.fleet() {
            fleet.check(authority, self.devices)?;
        }
        Ok(devices)
    }

    /// Fails if a directory cannot be written. One that is complete may be read-only.
    pub(super) fn check_directories(&self, devices: &[DevicePlan]) -> Result<(), ProvisionError> {
        if devices.iter().any(DevicePlan::is_missing) {
            files::check_writable(self.directory)?;
        }
        if let Some(fleet) = self.fleet {
            files::check_writable(&fleet.directory)?;
        }
        Ok(())
    }

    /// Returns whether certificates will be issued, or were issued that are not valid at this time yet.
    pub(super) fn needs_clock(&self, devices: &[DevicePlan], at: Timestamp) -> bool {
        self.fleet.is_some()
            || devices.iter().any(|device| device.found.as_ref().is_none_or(|found| found.not_before() > at))
    }

    fn fleet(&self) -> Option<FleetIssuance<'_>> {
        Some(FleetIssuance::new(self.fleet?, &self.options, self.pfx))
    }

    fn find_devices(
        &self,
        authority: Option<&CertificateAuthority>,
        root: Option<(FileSet, &CommonName)>,
    ) -> Result<Vec<DevicePlan>, ProvisionError> {
        let mut owners = HashMap::new();
        if let Some((set, name)) = root {
            owners.insert(set.identity(), (name.to_string(), true));
        }
        let mut devices = Vec::new();
        for id in self.devices {
            let set = FileSet::new(self.directory, &id.common_name()?)?;
            if let Some((first, is_root)) = owners.insert(set.identity(), (id.to_string(), false)) {
                let (second, path) = (id.to_string(), set.certificate());
                return Err(if !is_root && first.eq_ignore_ascii_case(&second) {
                    ProvisionError::DuplicateDevice { first, second }
                } else {
                    ProvisionError::SameFiles { first, second, path }
                });
            }
            let kept_key = self.old_directory.map(|directory| KeptKey::read(directory, id)).transpose()?;
            let mut device = DevicePlan { id: id.clone(), set, found: None, kept_key };
            if device.set.existing()?.is_empty() {
                device.set.check_spelling()?;
            } else {
                device.found = Some(self.find_certificate(&device, authority)?);
            }
            devices.push(device);
        }
        Ok(devices)
    }

    /// Reads the certificate that a device has. It has to be issued by this CA and valid, with its chain and key.
    fn find_certificate(
        &self,
        device: &DevicePlan,
        authority: Option<&CertificateAuthority>,
    ) -> Result<Certificate, ProvisionError> {
        let DevicePlan { id, set, kept_key, .. } = device;
        let certificates =
            if kept_key.is_some() { files::read_certificates(&set.fullchain())? } else { set.read_certificates()? };
        let certificate = certificates[0].clone();
        if certificate.subject().common_name() != Some(id.as_str()) {
            return Err(device.unfit(format!("it is for {}", certificate.subject())));
        }
        let Some(authority) = authority else {
            return Err(device.unfit(format!("it was issued by {}, whose files are not here", certificate.issuer())));
        };
        chain::verify(&certificates, authority.certificate(), self.options.issue_time()).map_err(
            |error| match error {
                ChainError::NotYetValid { subject, not_before, at } => {
                    ProvisionError::NotYetValid { path: set.certificate(), subject, not_before, at }
                }
                error => device.unfit(error.to_string()),
            },
        )?;
        if let Some(KeptKey { old_set, public_key }) = kept_key {
            if *certificate.uncompressed_public_key() != **public_key {
                return Err(device.unfit(format!("it is for another key than {}", old_set.certificate().display())));
            }
            return Ok(certificate);
        }
        // The device presents its whole chain, and proves that it has the key.
        let fullchain = set.fullchain();
        if !fullchain.exists() {
            return Err(FileError::Incomplete { found: set.certificate(), missing: fullchain }.into());
        }
        check_key(&set.private_key(), &certificate).map_err(|reason| device.unfit(reason))?;
        Ok(certificate)
    }

    /// Issues the missing certificates; nothing in a dry run, where there is no authority.
    pub(super) async fn issue(
        &self,
        authority: Option<&Arc<CertificateAuthority>>,
        devices: Vec<DevicePlan>,
        steps: &mut Steps<'_>,
    ) -> Result<(Vec<ProvisionedDevice>, Option<FleetSummary>), ProvisionError> {
        let devices = self.issue_list(authority.map(|authority| &**authority), devices, steps)?;
        let fleet = match self.fleet() {
            Some(fleet) => fleet.issue(authority, steps).await?,
            None => None,
        };
        Ok((devices, fleet))
    }

    fn issue_list(
        &self,
        authority: Option<&CertificateAuthority>,
        devices: Vec<DevicePlan>,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<ProvisionedDevice>, ProvisionError> {
        let mut provisioned = Vec::new();
        for mut device in devices {
            if device.is_missing()
                && let Some(authority) = authority
            {
                steps.start(Step::Device, &format!("issuing a certificate for {}", device.id));
                match self.issue_device(authority, &device) {
                    Ok((certificate, is_shortened)) => {
                        let shortened = if is_shortened { ", as long as its issuer" } else { "" };
                        let (path, until) = (device.set.certificate(), certificate.not_after().date());
                        let detail =
                            format!("created {} in {}, valid until {until}{shortened}", device.id, path.display());
                        steps.finish(Step::Device, Outcome::Done, detail);
                        provisioned.push(device.report(&certificate));
                        continue;
                    }
                    // Another run issued it first.
                    Err(ProvisionError::Files(FileError::Exists(_))) => {
                        device.found = Some(self.find_certificate(&device, Some(authority))?);
                    }
                    Err(error) => return Err(error),
                }
            }
            let DevicePlan { id, set, found, .. } = &device;
            if let Some(certificate) = found {
                let detail = format!("found {id}, valid until {}", certificate.not_after().date());
                steps.finish(Step::Device, Outcome::Unchanged, detail);
                provisioned.push(device.report(certificate));
            } else {
                let detail = format!("would create {id} in {}", set.certificate().display());
                steps.finish(Step::Device, Outcome::Planned, detail);
            }
        }
        Ok(provisioned)
    }

    /// Issues a device's certificate, for a new key or the one it keeps. Returns whether the CA's own end shortened it.
    fn issue_device(
        &self,
        authority: &CertificateAuthority,
        device: &DevicePlan,
    ) -> Result<(Certificate, bool), ProvisionError> {
        let Some(KeptKey { public_key, .. }) = &device.kept_key else {
            let issued = authority.issue_device(&device.id, &self.options)?;
            device.set.write(&issued, self.pfx, IfExists::Fail)?;
            return Ok((issued.certificate, issued.shortened_from.is_some()));
        };
        let issuer = DeviceIssuer::new(authority, &self.options)?;
        let (der, _) = issuer.issue_for_key(&device.id, public_key)?;
        let certificate = Certificate::from_der(&der).map_err(AuthorityError::from)?;
        let above = std::iter::once(authority.certificate()).chain(authority.issuers());
        let fullchain: Vec<_> = std::iter::once(&certificate).chain(above).collect();
        device.set.write_without_key(&fullchain, IfExists::Fail)?;
        Ok((certificate, issuer.shortened_from().is_some()))
    }
}

impl KeptKey {
    /// Reads the public key of a device from its old certificate. Its private key need not be here; if it is, it has to
    /// belong to the certificate.
    fn read(directory: &Path, id: &DeviceId) -> Result<Self, ProvisionError> {
        let old_set = FileSet::new(directory, &id.common_name()?)?;
        // Completes a set that a killed process had committed.
        old_set.existing()?;
        let unfit = |reason: String| ProvisionError::Device { id: id.clone(), path: old_set.certificate(), reason };
        let certificate = files::read_certificates(&old_set.certificate())?.swap_remove(0);
        if certificate.subject().common_name() != Some(id.as_str()) {
            return Err(unfit(format!("it is for {}", certificate.subject())));
        }
        let key = old_set.private_key();
        if key.exists() {
            check_key(&key, &certificate).map_err(unfit)?;
        }
        let public_key = certificate.uncompressed_public_key().into_owned();
        Ok(Self { old_set, public_key })
    }
}

/// Checks that a key file belongs to a certificate. Returns why it does not. A key that was encrypted since cannot be
/// checked, and is accepted.
fn check_key(path: &Path, certificate: &Certificate) -> Result<(), String> {
    match files::read_key(path, None) {
        Ok(key) if !key.belongs_to(certificate) => Err(format!("{} is the key of another certificate", path.display())),
        Ok(_) | Err(FileError::Key { error: KeyError::PasswordNeeded, .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
