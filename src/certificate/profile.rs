//! The kinds of certificates that are issued: their extensions, validity and serial numbers.

use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SerialNumber,
};

use super::{AuthorityError, Certificate, CommonName, IssueOptions, Lifetime, Timestamp, Validity};

/// How far `notBefore` is backdated, so that a device whose clock is slightly slow can use a new certificate at once.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A kind of certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// A self-signed root CA.
    Root,
    /// An intermediate CA.
    Intermediate,
    /// The CA of an IoT Edge device, which signs the server certificates of its modules.
    EdgeAuthority,
    /// A device certificate, for TLS client authentication.
    Device,
    /// A proof of possession, which is uploaded once.
    Verification,
    /// A TLS server certificate.
    Server,
}

impl Profile {
    /// Returns whether certificates of this kind may sign others.
    #[must_use]
    pub fn is_authority(self) -> bool {
        matches!(self, Self::Root | Self::Intermediate | Self::EdgeAuthority)
    }

    /// Returns how many further CAs may follow below a certificate of this kind, if the kind limits it.
    ///
    /// IoT Edge 1.2 and later sign server certificates with the Edge CA itself. Version 1.1 puts a workload CA between.
    pub(super) fn path_length(self) -> Option<u8> {
        (self == Self::EdgeAuthority).then_some(1)
    }

    /// Returns the default lifetime: 10 years for a root, 5 years for an intermediate, 2 years for an Edge CA, 1 year for a
    /// device or server, 1 day for a proof of possession.
    #[must_use]
    pub fn default_lifetime(self) -> Lifetime {
        match self {
            Self::Root => Lifetime::Years(10),
            Self::Intermediate => Lifetime::Years(5),
            Self::EdgeAuthority => Lifetime::Years(2),
            Self::Device | Self::Server => Lifetime::Years(1),
            Self::Verification => Lifetime::Days(1),
        }
    }

    /// Returns the parameters of a certificate (RFC 5280 sections 4.1 and 4.2): version 3, a random serial number, subject
    /// and authority key identifiers, critical basic constraints and key usage, client authentication for leaves, server
    /// authentication for servers.
    pub(super) fn params(
        self,
        name: &CommonName,
        validity: Validity,
        path_length: Option<u8>,
    ) -> Result<CertificateParams, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        params.not_before = validity.not_before.date_time();
        params.not_after = validity.not_after.date_time();
        params.use_authority_key_identifier_extension = true;
        if self.is_authority() {
            params.is_ca = IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![match self {
                Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
                _ => ExtendedKeyUsagePurpose::ClientAuth,
            }];
        }
        Ok(params)
    }

    /// Returns the validity of a new certificate in whole seconds: backdated by a few minutes, and never outside the
    /// issuer's. The second value is the requested end, if the issuer ends earlier.
    pub(super) fn validity(
        self,
        options: &IssueOptions,
        issuer: Option<&Certificate>,
    ) -> Result<(Validity, Option<Timestamp>), AuthorityError> {
        let lifetime = options.lifetime_or(self.default_lifetime());
        let time = options.issue_time().whole_second();
        let requested = lifetime.end(time).ok_or(AuthorityError::Lifetime(lifetime))?;
        let mut validity = Validity { not_before: time - CLOCK_SKEW, not_after: requested };
        if let Some(issuer) = issuer {
            validity.not_before = validity.not_before.max(issuer.not_before());
            validity.not_after = validity.not_after.min(issuer.not_after());
        }
        Ok((validity, (validity.not_after < requested).then_some(requested)))
    }
}

/// The length of serial numbers in octets: the longest that RFC 5280 section 4.1.2.2 allows.
pub(super) const SERIAL_LENGTH: usize = 20;

/// Returns a random serial number of 158 random bits. The first octet is positive and not zero, so that every serial
/// number has the same length.
pub(super) fn random_serial() -> Result<[u8; SERIAL_LENGTH], AuthorityError> {
    random_serials().map(|[serial]| serial)
}

/// Returns several random serial numbers. One call for many is faster: the call costs more than the octets do.
pub(super) fn random_serials<const N: usize>() -> Result<[[u8; SERIAL_LENGTH]; N], AuthorityError> {
    let mut serials = [[0; SERIAL_LENGTH]; N];
    rand::fill(serials.as_flattened_mut()).map_err(|_| AuthorityError::Random)?;
    for serial in &mut serials {
        serial[0] = serial[0] & 0x7f | 0x40;
    }
    Ok(serials)
}
