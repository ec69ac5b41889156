//! New certificates with the contents of old ones.

use time::OffsetDateTime;

use super::{error::RenewalError, options::RenewalOptions};
use crate::certificate::{
    AuthorityError, Certificate, CertificateAuthority, PrivateKey, Profile, SignatureError, Timestamp, Validity, chain,
    der::{
        BIT_STRING, CONTEXT_3, DerReader, Element, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, der_frame, der_sequence,
    },
    device_issuer::key_identifier,
    profile::{CLOCK_SKEW, random_serial},
};

/// A renewed certificate.
#[derive(Debug)]
#[non_exhaustive]
pub struct RenewedCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// The certificates above it, the issuer first; empty if the certificate is self-signed.
    pub issuers: Vec<Certificate>,
    /// The requested end of the validity, if the issuer ends earlier and the validity was shortened to that.
    pub shortened_from: Option<Timestamp>,
}

impl CertificateAuthority {
    /// Renews a certificate that this CA issued, or an earlier certificate of this CA with the same name and key did.
    ///
    /// Subject and extensions are those of the old certificate. The serial number, validity and signature are new. With a
    /// new key, the public key and the subject key identifier change. The authority key identifier is that of this CA.
    /// Extensions that are not known are copied.
    ///
    /// # Errors
    /// Returns [`RenewalError::OtherIssuer`] or [`RenewalError::OtherKey`] if another CA issued the certificate, and other
    /// errors if the new certificate would not be valid.
    pub fn renew(
        &self,
        old: &Certificate,
        new_key: Option<&PrivateKey>,
        options: &RenewalOptions,
    ) -> Result<RenewedCertificate, RenewalError> {
        self.check_issued_by_this(old)?;
        let at = options.issue_time();
        // Also checks that the CA can sign now.
        let is_authority = old.basic_constraints().is_some_and(|constraints| constraints.authority);
        self.path_length_below(if is_authority { Profile::Intermediate } else { Profile::Device }, at)?;
        let (validity, shortened_from) = validity(old, options, at, Some(self.certificate()))?;
        let is_extended = validity.not_after > old.not_after();
        if shortened_from.is_some() && !is_extended && new_key.is_none() && options.lifetime.is_none() {
            return Err(RenewalError::IssuerEndsFirst {
                subject: old.to_string(),
                issuer: self.certificate().to_string(),
                not_after: self.certificate().not_after(),
            });
        }
        let changes = Changes {
            issuer: self.certificate().subject().der(),
            authority_identifier: self.certificate().subject_key_identifier(),
            validity,
            new_key,
            signer: self.key(),
        };
        let certificate = changes.apply(old)?;
        self.check_issued(&certificate, at)?;
        // A certificate that is only for servers needs a chain that allows servers.
        if certificate.allows_server_authentication() && !certificate.allows_client_authentication() {
            self.check_server_chain(&certificate)?;
        }
        let issuers = std::iter::once(self.certificate()).chain(self.issuers()).cloned().collect();
        Ok(RenewedCertificate { certificate, issuers, shortened_from })
    }

    /// Checks that the key of this CA signed a certificate, under this name.
    pub(super) fn check_issued_by_this(&self, certificate: &Certificate) -> Result<(), RenewalError> {
        let (subject, authority) = (certificate.to_string(), self.certificate().to_string());
        if !certificate.names_issuer(self.certificate()) {
            return Err(RenewalError::OtherIssuer { subject, issuer: certificate.issuer().to_string(), authority });
        }
        match certificate.verify_signature(self.certificate()) {
            Ok(()) => Ok(()),
            Err(SignatureError::Wrong) => Err(RenewalError::OtherKey { subject, authority }),
            Err(error) => Err(RenewalError::Unverifiable { subject, authority, error }),
        }
    }
}

/// Renews a self-signed certificate. `key` is its key, or the new one if `is_new` is set.
pub(super) fn renew_self_signed(
    old: &Certificate,
    key: &PrivateKey,
    options: &RenewalOptions,
) -> Result<RenewedCertificate, RenewalError> {
    let at = options.issue_time();
    let (validity, _) = validity(old, options, at, None)?;
    let is_new = !key.belongs_to(old);
    let new_identifier = key_identifier(&key.public_key());
    let changes = Changes {
        issuer: old.subject().der(),
        authority_identifier: match old.subject_key_identifier() {
            Some(_) if is_new => Some(&new_identifier),
            identifier => identifier,
        },
        validity,
        new_key: is_new.then_some(key),
        signer: key,
    };
    let certificate = changes.apply(old)?;
    chain::verify(std::slice::from_ref(&certificate), std::slice::from_ref(&certificate), at)
        .map_err(|error| crate::certificate::authority::invalid(&certificate, error))?;
    Ok(RenewedCertificate { certificate, issuers: Vec::new(), shortened_from: None })
}

/// Returns the validity of a renewed certificate: as long as the old one, unless a lifetime is given, and never outside the
/// issuer's. The second value is the requested end, if the issuer ends earlier.
fn validity(
    old: &Certificate,
    options: &RenewalOptions,
    at: Timestamp,
    issuer: Option<&Certificate>,
) -> Result<(Validity, Option<Timestamp>), RenewalError> {
    let time = at.whole_second();
    let not_before = time - CLOCK_SKEW;
    let requested = match options.lifetime {
        Some(lifetime) => lifetime.end(time).ok_or(AuthorityError::Lifetime(lifetime))?,
        None if old.not_after() >= NO_END => NO_END,
        None => (not_before + old.not_after().duration_since(old.not_before())).min(NO_END),
    };
    if requested <= time {
        return Err(RenewalError::NoLifetime(old.to_string()));
    }
    let mut validity = Validity { not_before, not_after: requested };
    if let Some(issuer) = issuer {
        validity.not_before = validity.not_before.max(issuer.not_before());
        validity.not_after = validity.not_after.min(issuer.not_after());
    }
    Ok((validity, (validity.not_after < requested).then_some(requested)))
}

/// 9999-12-31T23:59:59Z, the end of a certificate without a known end (RFC 5280 section 4.1.2.5).
const NO_END: Timestamp = Timestamp::from_unix_seconds(253_402_300_799).expect("the last second of Timestamp");

/// What differs between an old certificate and the new one.
struct Changes<'a> {
    /// The subject of the issuer in DER.
    issuer: &'a [u8],
    /// The subject key identifier of the issuer.
    authority_identifier: Option<&'a [u8]>,
    validity: Validity,
    new_key: Option<&'a PrivateKey>,
    signer: &'a PrivateKey,
}

impl Changes<'_> {
    /// Signs a certificate with these changes. Everything else is copied byte for byte: rcgen, which encodes the other
    /// certificates, has no model for every extension and name.
    fn apply(&self, old: &Certificate) -> Result<Certificate, RenewalError> {
        let structure = || RenewalError::Structure(old.to_string());
        let mut parts = signed_parts(old.der()).ok_or_else(structure)?;
        let new_key_info = self.new_key.map(PrivateKey::public_key);
        let version = parts.optional(0xa0).ok_or_else(structure)?.map_or(&[][..], |version| version.whole);
        let mut next = || parts.next_element().ok_or_else(structure);
        let (_serial_number, _algorithm, _issuer, _validity) = (next()?, next()?, next()?, next()?);
        let (subject, old_key_info) = (next()?.whole, next()?.whole);
        let mut tail = Vec::new();
        for part in parts.all().ok_or_else(structure)? {
            if part.tag == CONTEXT_3 {
                tail.extend(self.extensions(old, part, new_key_info.as_deref())?);
            } else {
                // The unique identifiers of version 2.
                tail.extend_from_slice(part.whole);
            }
        }
        let serial_number = der_frame(INTEGER, &[&random_serial()?]);
        let algorithm = self.signer.signature_algorithm_der();
        let validity = der_sequence(&[&time(self.validity.not_before), &time(self.validity.not_after)]);
        let key_info = new_key_info.as_deref().unwrap_or(old_key_info);
        let signed =
            der_sequence(&[version, &serial_number, algorithm, self.issuer, &validity, subject, key_info, &tail]);
        let signature = self.signer.sign(&signed).map_err(|_| AuthorityError::Encoding)?;
        // A bit string begins with the number of unused bits, none.
        let signature = der_frame(BIT_STRING, &[&[0], &signature]);
        let der = der_sequence(&[&signed, algorithm, &signature]);
        Ok(Certificate::from_der(&der).map_err(AuthorityError::Certificate)?)
    }

    /// Returns the extensions of the new certificate, with their explicit tag.
    fn extensions(
        &self,
        old: &Certificate,
        tagged: Element<'_>,
        new_key_info: Option<&[u8]>,
    ) -> Result<Vec<u8>, RenewalError> {
        let structure = || RenewalError::Structure(old.to_string());
        let list = tagged.elements().tagged(SEQUENCE).and_then(|list| list.elements().all()).ok_or_else(structure)?;
        let mut extensions = Vec::new();
        for element in list {
            let extension = RawExtension::read(element).ok_or_else(structure)?;
            match extension.id {
                SUBJECT_KEY_IDENTIFIER => match new_key_info {
                    Some(key_info) => {
                        let identifier = der_frame(OCTET_STRING, &[&key_identifier(key_info)]);
                        extensions.extend(extension.with_value(&identifier));
                    }
                    None => extensions.extend_from_slice(element.whole),
                },
                AUTHORITY_KEY_IDENTIFIER => match self.authority_key_identifier(old) {
                    AuthorityIdentifier::Unchanged => extensions.extend_from_slice(element.whole),
                    AuthorityIdentifier::Replaced(identifier) => {
                        let identifier = der_sequence(&[&der_frame(KEY_IDENTIFIER, &[identifier])]);
                        extensions.extend(extension.with_value(&identifier));
                    }
                    AuthorityIdentifier::Removed => {}
                },
                id => {
                    if let Some((_, name)) = BOUND.iter().find(|(bound, _)| *bound == id) {
                        let (subject, extension) = (old.to_string(), (*name).to_owned());
                        return Err(RenewalError::BoundExtension { subject, extension });
                    }
                    extensions.extend_from_slice(element.whole);
                }
            }
        }
        if extensions.is_empty() {
            return Ok(Vec::new());
        }
        Ok(der_frame(CONTEXT_3, &[&der_sequence(&[&extensions])]))
    }

    fn authority_key_identifier(&self, old: &Certificate) -> AuthorityIdentifier<'_> {
        let Some(found) = old.authority_key_identifier_extension() else { return AuthorityIdentifier::Unchanged };
        // The name and serial number of one certificate of the issuer, which may be renewed as well.
        let names_certificate = found.issuer.is_some() || found.serial_number.is_some();
        match self.authority_identifier {
            Some(identifier) if !names_certificate && found.key_identifier.as_deref() == Some(identifier) => {
                AuthorityIdentifier::Unchanged
            }
            Some(identifier) => AuthorityIdentifier::Replaced(identifier),
            None if names_certificate || self.new_key.is_some_and(|key| std::ptr::eq(key, self.signer)) => {
                AuthorityIdentifier::Removed
            }
            None => AuthorityIdentifier::Unchanged,
        }
    }
}

enum AuthorityIdentifier<'a> {
    Unchanged,
    Replaced(&'a [u8]),
    Removed,
}

/// An extension in DER (RFC 5280 section 4.1).
struct RawExtension<'a> {
    /// The content of the object identifier.
    id: &'a [u8],
    /// The object identifier and, if present, the element `critical`.
    before_value: Vec<u8>,
}

impl<'a> RawExtension<'a> {
    fn read(element: Element<'a>) -> Option<Self> {
        let mut parts = element.elements();
        let id = parts.tagged(OBJECT_IDENTIFIER)?;
        let critical = parts.optional(BOOLEAN)?;
        let before_value = [id.whole, critical.map_or(&[][..], |critical| critical.whole)].concat();
        parts.tagged(OCTET_STRING).filter(|_| parts.is_empty())?;
        Some(Self { id: id.content, before_value })
    }

    fn with_value(&self, value: &[u8]) -> Vec<u8> {
        der_sequence(&[&self.before_value, &der_frame(OCTET_STRING, &[value])])
    }
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
/// `[0] IMPLICIT OCTET STRING`, the key identifier in an authority key identifier.
const KEY_IDENTIFIER: u8 = 0x80;

const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 14];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 35];

/// Extensions that hold for one certificate only: dates of the use of its key, and what logs of certificate transparency
/// (RFC 6962 section 3.3) know of it.
const BOUND: [(&[u8], &str); 3] = [
    (&[0x55, 0x1d, 16], "privateKeyUsagePeriod"),
    (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02], "signedCertificateTimestampList"),
    (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x03], "ctPoison"),
];

/// Returns a reader of the parts of the signed content.
fn signed_parts(der: &[u8]) -> Option<DerReader<'_>> {
    DerReader::new(der).inside(SEQUENCE)?.inside(SEQUENCE)
}

/// Encodes a time in whole seconds as RFC 5280 section 4.1.2.5 requires: with two digits of the year until 2049.
fn time(time: Timestamp) -> Vec<u8> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let time: OffsetDateTime = time.date_time();
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    let rest = format!("{:02}{day:02}{hour:02}{minute:02}{second:02}Z", u8::from(month));
    if (1950..2050).contains(&year) {
        der_frame(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        der_frame(GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()])
    }
}
