//! Certificates of devices and servers, with the names and usages that a caller chooses.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};

use super::{
    AlternativeName, AuthorityError, Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions,
    IssuedCertificate, Profile,
    authority::{invalid, self_signed},
    chain::{self, Usage},
};

/// The contents of a new certificate for a device or server.
///
/// ```
/// use iot_enroll::certificate::{AlternativeName, CommonName, IssueOptions, LeafParams};
///
/// let broker = LeafParams::server(CommonName::new("broker")?)
///     .alternative_names([AlternativeName::new("broker.example")?, AlternativeName::new("192.0.2.7")?])
///     .client_authentication();
/// let issued = broker.self_signed(&IssueOptions::new())?;
/// assert!(issued.certificate.allows_server_authentication());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LeafParams {
    profile: Profile,
    name: CommonName,
    alternative_names: Vec<AlternativeName>,
    client_authentication: bool,
}

impl LeafParams {
    /// Returns the contents of a device certificate, with the ID as its common name.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Name`] if the ID is longer than a common name may be.
    pub fn device(id: &DeviceId) -> Result<Self, AuthorityError> {
        Ok(Self::new(Profile::Device, id.common_name()?))
    }

    /// Returns the contents of a TLS server certificate. Its alternative name is the common name, if that is a DNS name or
    /// an IP address, until [others](Self::alternative_names) are set.
    #[must_use]
    pub fn server(name: CommonName) -> Self {
        let own_name = AlternativeName::new(name.as_str()).ok();
        Self::new(Profile::Server, name).alternative_names(own_name)
    }

    fn new(profile: Profile, name: CommonName) -> Self {
        Self { profile, name, alternative_names: Vec::new(), client_authentication: profile == Profile::Device }
    }

    /// Sets the subject alternative names, in this order. Repeated ones are dropped.
    #[must_use]
    pub fn alternative_names(mut self, names: impl IntoIterator<Item = AlternativeName>) -> Self {
        self.alternative_names.clear();
        for name in names {
            if !self.alternative_names.contains(&name) {
                self.alternative_names.push(name);
            }
        }
        self
    }

    /// Also allows TLS client authentication, as brokers need that connect to others. Devices always have it.
    #[must_use]
    pub fn client_authentication(mut self) -> Self {
        self.client_authentication = true;
        self
    }

    /// Issues a self-signed certificate.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoAlternativeName`] for a server without an alternative name; otherwise the errors of
    /// [`CertificateAuthority::new_root`].
    pub fn self_signed(&self, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        self.check()?;
        self_signed(self.profile, &self.name, |params| self.apply(params), options)
    }

    fn is_server(&self) -> bool {
        self.profile == Profile::Server
    }

    fn check(&self) -> Result<(), AuthorityError> {
        if self.is_server() && self.alternative_names.is_empty() {
            return Err(AuthorityError::NoAlternativeName(self.name.as_str().to_owned()));
        }
        Ok(())
    }

    /// Adds what differs from the profile.
    fn apply(&self, params: &mut CertificateParams) {
        params.subject_alt_names = self.alternative_names.iter().filter_map(AlternativeName::to_rcgen).collect();
        if self.is_server() && self.client_authentication {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
    }

    /// Returns the same contents with the common name among the alternative names, if OpenSSL would treat it as a DNS name:
    /// without a DNS name, it holds the common name to the name constraints for DNS names.
    fn with_common_name_as_dns_name(&self) -> Option<Self> {
        let common_name = AlternativeName::new(self.name.as_str()).ok().filter(|name| name.dns_name().is_some())?;
        let has_dns_name = self.alternative_names.iter().any(|name| name.dns_name().is_some());
        let names = self.alternative_names.iter().cloned().chain([common_name]);
        (!has_dns_name).then(|| self.clone().alternative_names(names))
    }
}

impl CertificateAuthority {
    /// Issues a certificate with these contents.
    ///
    /// # Errors
    /// Returns [`AuthorityError::NoAlternativeName`] for a server without an alternative name, and
    /// [`AuthorityError::Invalid`] if the certificate would not be valid, also if a CA above a server may not issue server
    /// certificates; otherwise the errors of [`new_root`](Self::new_root).
    pub fn issue_leaf(&self, leaf: &LeafParams, options: &IssueOptions) -> Result<IssuedCertificate, AuthorityError> {
        leaf.check()?;
        let issued = self.issue(leaf.profile, &leaf.name, |params| leaf.apply(params), options)?;
        if leaf.is_server()
            && let Some(shadow) = leaf.with_common_name_as_dns_name().filter(|_| self.constrains_names())
        {
            self.issue(shadow.profile, &shadow.name, |params| shadow.apply(params), options)?;
        }
        Ok(issued)
    }

    /// Checks that every CA of the chain may issue server certificates: OpenSSL and webpki hold a chain to the extended key
    /// usages of its CAs.
    pub(super) fn check_server_chain(&self, certificate: &Certificate) -> Result<(), AuthorityError> {
        let mut above = std::iter::once(self.certificate()).chain(self.issuers());
        above
            .try_for_each(|authority| chain::check_usage(Usage::Server, authority))
            .map_err(|error| invalid(certificate, error))
    }
}
