//! What can be wrong with a registration, each by its name, with what was found and what to do.

use std::fmt;

use time::OffsetDateTime;

use super::{
    admission::{EnrolledCertificate, OwnAttestation, SYMMETRIC_KEY},
    id_scope::IdScope,
};
use crate::certificate::{ChainError, Objection, Thumbprint, chain::moment};

/// Why a registration failed, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The certificate's common name is not the registration id.
    WrongCommonName {
        /// The registration id.
        id: String,
        /// The common name, where there is one.
        found: Option<String>,
    },
    /// A certificate of the chain has run out.
    Expired {
        /// Its subject.
        subject: String,
        /// When it ran out.
        not_after: OffsetDateTime,
        /// What time it is, by the server's clock where it told it.
        at: OffsetDateTime,
    },
    /// A certificate of the chain is not valid yet.
    NotYetValid {
        /// Its subject.
        subject: String,
        /// When it begins.
        not_before: OffsetDateTime,
        /// What time it is, by the server's clock where it told it.
        at: OffsetDateTime,
    },
    /// The clock here and the server's are apart, and that makes the difference.
    ClockSkewed {
        /// What the clock here says.
        ours: OffsetDateTime,
        /// What the server's said.
        theirs: OffsetDateTime,
        /// What is not valid by the server's clock, and how it is by ours.
        consequence: String,
    },
    /// The extended key usage leaves client authentication out.
    NoClientAuthentication {
        /// The subject of the device's certificate.
        subject: String,
    },
    /// Something else about the device's certificate that services do not accept.
    Certificate {
        /// The subject of the device's certificate.
        subject: String,
        /// What they dislike.
        objection: Objection,
    },
    /// The chain leads to the enrolled certificate, and does not hold: above all, one of it may not sign the one below it.
    ChainUnsound(ChainError),
    /// The certificate was sent without those that lead from it to the enrolled one.
    ChainNotSent {
        /// The subject of the last certificate that was sent.
        subject: String,
        /// Its issuer, which was not.
        issuer: String,
        /// The enrolled certificates, where they are known.
        enrolled: Vec<EnrolledCertificate>,
        /// Whether the chain is known to lead to one of those.
        leads_there: bool,
    },
    /// The chain ends at a root that is not enrolled.
    ChainLeadsElsewhere {
        /// The subject of the root.
        root: String,
        /// Its SHA-1 thumbprint.
        thumbprint: Thumbprint,
        /// The enrolled certificates, where they are known.
        enrolled: Vec<EnrolledCertificate>,
    },
    /// The chain leads to an entry that is not verified.
    EntryNotVerified(EnrolledCertificate),
    /// The enrollment group that would let the device in is disabled.
    GroupDisabled {
        /// The group.
        group: String,
    },
    /// The device is disabled.
    DeviceDisabled {
        /// The device.
        id: String,
    },
    /// The device has an attestation of its own, which counts before any group, and it is another.
    AttestationDiffers {
        /// The device.
        id: String,
        /// What it has.
        own: OwnAttestation,
        /// The SHA-1 thumbprint of the certificate that was presented; nothing where a symmetric key was used.
        presented: Option<Thumbprint>,
    },
    /// Nothing lets this device in: no enrollment group of the kind, and no attestation of its own.
    NothingEnrolled {
        /// The device.
        id: String,
        /// What was presented: `x509` or `symmetricKey`.
        kind: &'static str,
    },
    /// The symmetric key is none that the application has for this device.
    WrongSymmetricKey {
        /// The device.
        id: String,
    },
    /// The symmetric key is that of a group, and not of the device.
    GroupKeyUsed {
        /// The group.
        group: String,
    },
    /// The service knows no such id scope, or it belongs to another application.
    WrongIdScope {
        /// The scope that was named.
        given: IdScope,
        /// The application's, where it is known.
        actual: Option<IdScope>,
    },
    /// What answered is not the service: it knows nothing at the address, and says so in another form.
    NotTheService {
        /// The host.
        host: String,
        /// The HTTP status of its answer.
        status: u16,
    },
    /// Somebody else answers in the service's place.
    TlsIntercepted {
        /// The host that should have answered.
        host: String,
        /// The subject of the certificate that was presented.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// Why it was not trusted.
        reason: String,
    },
    /// The server's certificate is not valid by the clock here.
    ServerCertificateOutOfTime {
        /// The host.
        host: String,
        /// When the server's certificate begins.
        not_before: OffsetDateTime,
        /// When it ends.
        not_after: OffsetDateTime,
        /// What the clock here says.
        at: OffsetDateTime,
    },
    /// The server did not ask for the device's certificate, as the service does: something between ends TLS.
    CertificateNotAskedFor {
        /// The host.
        host: String,
        /// The issuer of the server's certificate.
        issuer: String,
    },
    /// A certificate cannot be presented over plain HTTP.
    PlainHttp {
        /// The host.
        host: String,
    },
}

impl Cause {
    /// The cause as one word, for tables and scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::WrongCommonName { .. } => "wrong-common-name",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::ClockSkewed { .. } => "clock-skewed",
            Self::NoClientAuthentication { .. } => "no-client-authentication",
            Self::Certificate { .. } => "certificate",
            Self::ChainUnsound(_) => "chain-unsound",
            Self::ChainNotSent { .. } => "chain-not-sent",
            Self::ChainLeadsElsewhere { .. } => "chain-leads-elsewhere",
            Self::EntryNotVerified(_) => "entry-not-verified",
            Self::GroupDisabled { .. } => "group-disabled",
            Self::DeviceDisabled { .. } => "device-disabled",
            Self::AttestationDiffers { .. } => "attestation-differs",
            Self::NothingEnrolled { .. } => "nothing-enrolled",
            Self::WrongSymmetricKey { .. } => "wrong-symmetric-key",
            Self::GroupKeyUsed { .. } => "group-key-used",
            Self::WrongIdScope { .. } => "wrong-id-scope",
            Self::NotTheService { .. } => "not-the-service",
            Self::TlsIntercepted { .. } => "tls-intercepted",
            Self::ServerCertificateOutOfTime { .. } => "server-certificate-out-of-time",
            Self::CertificateNotAskedFor { .. } => "certificate-not-asked-for",
            Self::PlainHttp { .. } => "plain-http",
        }
    }

    /// Whether every other device would meet it too, so that there is no use in trying.
    #[must_use]
    pub fn concerns_all_devices(&self) -> bool {
        matches!(
            self,
            Self::WrongIdScope { .. }
                | Self::NotTheService { .. }
                | Self::TlsIntercepted { .. }
                | Self::ServerCertificateOutOfTime { .. }
                | Self::CertificateNotAskedFor { .. }
                | Self::PlainHttp { .. }
        )
    }
}

impl fmt::Display for Cause {
    #[expect(clippy::too_many_lines, reason = "a text for each cause")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCommonName { id, found: Some(found) } => write!(
                f,
                "the certificate's common name is {found}, and the registration id is {id}: they have to be equal but for \
                 case. Register it as {found}, or give the certificate of {id}"
            ),
            Self::WrongCommonName { id, found: None } => {
                write!(f, "the certificate has no common name, which has to be the registration id, {id}")
            }
            Self::Expired { subject, not_after, at } => write!(
                f,
                "{subject} expired at {}, and it is {}: issue a new certificate",
                moment(*not_after),
                moment(*at)
            ),
            Self::NotYetValid { subject, not_before, at } => write!(
                f,
                "{subject} is valid only from {} on, and it is {}: wait until then, or set right the clock of the machine \
                 that issued it and issue it again",
                moment(*not_before),
                moment(*at)
            ),
            Self::ClockSkewed { ours, theirs, consequence } => write!(
                f,
                "the clocks differ: the one here says {}, and the server's said {}, so that {consequence}. Set the one that is \
                 wrong, which is most likely the one here",
                moment(*ours),
                moment(*theirs)
            ),
            Self::NoClientAuthentication { subject } => write!(
                f,
                "the extended key usage of {subject} leaves out client authentication (clientAuth): issue a certificate \
                 that has it"
            ),
            Self::Certificate { subject, objection } => write!(f, "the service does not take {subject}: {objection}"),
            Self::ChainUnsound(error) => {
                write!(
                    f,
                    "the chain leads to the enrolled certificate and does not hold: {error}. Issue that certificate anew"
                )
            }
            Self::ChainNotSent { subject, issuer, enrolled, leads_there } => {
                write!(f, "the chain was not sent: it ended at {subject}, without its issuer {issuer}")?;
                if *leads_there {
                    f.write_str(", which leads to the enrolled certificate")?;
                } else {
                    write!(f, ", and unless {issuer} itself is enrolled the service cannot follow it")?;
                }
                tell_enrolled(f, enrolled)?;
                f.write_str(". Give the file with the whole chain, _fullchain.pem, in place of the certificate alone")
            }
            Self::ChainLeadsElsewhere { root, thumbprint, enrolled } if enrolled.is_empty() => write!(
                f,
                "the chain leads to {root}, {thumbprint}, unless another certificate of it is enrolled: see whether one is"
            ),
            Self::ChainLeadsElsewhere { root, thumbprint, enrolled } => {
                write!(f, "the chain leads elsewhere: to {root}, {thumbprint}, and no certificate of it is enrolled")?;
                tell_enrolled(f, enrolled)?;
                write!(f, ". Enroll {root}, or issue the device's certificate under one of those")
            }
            Self::EntryNotVerified(entry) => write!(
                f,
                "the chain leads to {entry}, which is not verified: prove possession of its key, or attest it"
            ),
            Self::GroupDisabled { group } => {
                write!(f, "the enrollment group {group}, to which the device belongs, is disabled: enable it")
            }
            Self::DeviceDisabled { id } => write!(f, "the device {id} is disabled: enable it"),
            Self::AttestationDiffers { id, own, presented } => {
                write!(f, "the device {id} has an attestation of its own, which counts before any group: ")?;
                match own {
                    OwnAttestation::X509(thumbprints) => {
                        let thumbprints: Vec<_> = thumbprints.iter().map(ToString::to_string).collect();
                        write!(f, "the certificate {}", thumbprints.join(" or "))?;
                    }
                    OwnAttestation::Other(kind) => write!(f, "{kind}")?,
                }
                match presented {
                    None if matches!(own, OwnAttestation::Other(kind) if kind == SYMMETRIC_KEY) => {
                        f.write_str(". It used another symmetric key")?;
                    }
                    Some(thumbprint) => write!(f, ". It presented the certificate {thumbprint}")?,
                    None => f.write_str(". It used a symmetric key")?,
                }
                f.write_str(". Register with the other, or set this one or remove the attestation")
            }
            Self::NothingEnrolled { id, kind } => write!(
                f,
                "nothing lets the device in: the application has no enrollment group of the kind {kind} with something in \
                 it, and no attestation for {id}"
            ),
            Self::WrongSymmetricKey { id } => write!(
                f,
                "the symmetric key is not the one that the application has for {id}: take it from the device's \
                 credentials, or derive it from its group's key for exactly this id"
            ),
            Self::GroupKeyUsed { group } => {
                write!(f, "the symmetric key is that of the enrollment group {group}: derive the device's own from it")
            }
            Self::WrongIdScope { given, actual: Some(actual) } if !given.matches(actual) => {
                write!(f, "the id scope {given} is not this application's, which is {actual}: use that")
            }
            Self::WrongIdScope { given, actual: Some(_) } => write!(
                f,
                "the id scope {given} is the application's, and the server does not know it: check the address of the \
                 provisioning service"
            ),
            Self::WrongIdScope { given, actual: None } => write!(
                f,
                "the service does not know the id scope {given}: copy it from the application's page Device connection"
            ),
            Self::NotTheService { host, status } => write!(
                f,
                "{host} answered {status}, and not in the form of the Device Provisioning Service: check the address of the \
                 provisioning service"
            ),
            Self::TlsIntercepted { host, subject, issuer, reason } => write!(
                f,
                "somebody else answers in place of {host}: the certificate presented is {subject}, issued by {issuer}, \
                 which is not to be trusted for it ({reason}). If this is a proxy, let it pass {host} through, for no device \
                 can register otherwise; if you know {issuer} and it is right, add it as a root to trust"
            ),
            Self::ServerCertificateOutOfTime { host, not_before, not_after, at } => write!(
                f,
                "the certificate of {host} is valid from {} to {}, and the clock here says {}: set the clock; if it is right, \
                 a TLS-intercepting proxy answers in place of the service",
                moment(*not_before),
                moment(*not_after),
                moment(*at)
            ),
            Self::CertificateNotAskedFor { host, issuer } => write!(
                f,
                "{host} did not ask for the device's certificate, as the service does; its own was issued by {issuer}. \
                 Something between ends the TLS connection, such as a proxy: let it pass {host} through, or check the address"
            ),
            Self::PlainHttp { host } => {
                write!(f, "a certificate cannot be presented to {host} over plain http: give an address with https")
            }
        }
    }
}

/// Which certificates are enrolled.
fn tell_enrolled(f: &mut fmt::Formatter<'_>, enrolled: &[EnrolledCertificate]) -> fmt::Result {
    for (index, entry) in enrolled.iter().enumerate() {
        write!(f, "{}{entry}", if index == 0 { ". Enrolled: " } else { ", " })?;
    }
    Ok(())
}
