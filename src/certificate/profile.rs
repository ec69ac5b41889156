//! What goes into each kind of certificate: extensions, validity, serial number.

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::{AuthorityError, Certificate, CommonName};

/// How far back `notBefore` is set, so that a device whose clock is a little slow can use a new certificate at once.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// The kinds of certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// A self-signed authority.
    Root,
    /// An authority under another.
    Intermediate,
    /// What a device presents.
    Device,
    /// A proof of possession, presented once.
    Verification,
    /// What a TLS server presents.
    Server,
}

impl Profile {
    /// Whether certificates of this kind may sign others.
    #[must_use]
    pub fn is_authority(self) -> bool {
        matches!(self, Self::Root | Self::Intermediate)
    }

    /// The lifetime where none is asked for: 10 years, 5 years, 1 year, 1 day; 90 days for a server.
    #[must_use]
    pub fn default_lifetime(self) -> Lifetime {
        match self {
            Self::Root => Lifetime::Years(10),
            Self::Intermediate => Lifetime::Years(5),
            Self::Device => Lifetime::Years(1),
            Self::Verification => Lifetime::Days(1),
            Self::Server => Lifetime::Days(90),
        }
    }

    /// The parameters of a certificate by RFC 5280 sections 4.1 and 4.2: version 3, a random serial number, subject and
    /// authority key identifiers, critical basic constraints and key usage, client authentication for leaves, server
    /// authentication for a server's.
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
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
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
}

/// How long a certificate is to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// So many days of 24 hours.
    Days(u32),
    /// To the same day so many years on.
    Years(u16),
}

impl std::fmt::Display for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days} days"),
            Self::Years(years) => write!(f, "{years} years"),
        }
    }
}

impl Lifetime {
    fn end(self, from: OffsetDateTime) -> Option<OffsetDateTime> {
        match self {
            Self::Days(days) => from.checked_add(Duration::days(days.into())),
            Self::Years(years) => {
                let year = from.year() + i32::from(years);
                from.replace_year(year).or_else(|_| from.replace_day(28).and_then(|day| day.replace_year(year))).ok()
            }
        }
    }
}

/// The first and the last moment of a certificate, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// The validity of a certificate made at that moment: from a few minutes before it, for the lifetime after it, and
    /// never outside the issuer's. The second value is the end that was asked for, where the issuer's cut it short.
    ///
    /// # Errors
    /// [`AuthorityError::Lifetime`] when it is no time at all, or ends after the year 9999, which X.509 cannot express.
    pub fn new(
        lifetime: Lifetime,
        at: OffsetDateTime,
        issuer: Option<&Certificate>,
    ) -> Result<(Self, Option<OffsetDateTime>), AuthorityError> {
        let at = at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
        let asked = lifetime.end(at).filter(|&end| end > at).ok_or(AuthorityError::Lifetime(lifetime))?;
        let start = at - CLOCK_SKEW;
        let Some(issuer) = issuer else { return Ok((Self { not_before: start, not_after: asked }, None)) };
        let validity = Self { not_before: start.max(issuer.not_before()), not_after: asked.min(issuer.not_after()) };
        Ok((validity, (validity.not_after < asked).then_some(asked)))
    }
}

/// The octets of a serial number: the most that RFC 5280 section 4.1.2.2 allows.
pub(super) const SERIAL_LENGTH: usize = 20;

/// Random octets, of which 158 bits are random: the first is positive and not zero, so that the length is always the
/// same.
pub(super) fn random_serial() -> Result<[u8; SERIAL_LENGTH], AuthorityError> {
    let mut bytes = [0; SERIAL_LENGTH];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}
