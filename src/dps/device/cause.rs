//! The causes of failed registrations, each with what was found and what to do.

use std::fmt;

use super::{
    admission::{EnrolledCertificate, OwnAttestation, SYMMETRIC_KEY},
    id_scope::IdScope,
};
use crate::certificate::{ChainError, Objection, Thumbprint, Timestamp, chain::moment};

/// The cause of a failed registration, or what will make one fail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The certificate's common name differs from the registration ID.
    WrongCommonName {
        /// The registration ID.
        id: String,
        /// The common name, if there is one.
        found: Option<String>,
    },
    /// A certificate in the chain has expired.
    Expired {
        /// The subject.
        subject: String,
        /// When it expired.
        not_after: Timestamp,
        /// The current time, by the server's clock if known.
        at: Timestamp,
    },
    /// A certificate in the chain is not valid yet.
    NotYetValid {
        /// The subject.
        subject: String,
        /// When its validity starts.
        not_before: Timestamp,
        /// The current time, by the server's clock if known.
        at: Timestamp,
    },
    /// The local clock and the server's clock differ, and only one of them makes the credential valid.
    ClockSkewed {
        /// The time of the local clock.
        ours: Timestamp,
        /// The time of the server's clock.
        theirs: Timestamp,
        /// What is valid by one clock and not by the other.
        consequence: String,
    },
    /// The extended key usage does not include client authentication.
    NoClientAuthentication {
        /// The subject of the device's certificate.
        subject: String,
    },
    /// The service does not accept the device's certificate for another reason.
    Certificate {
        /// The subject of the device's certificate.
        subject: String,
        /// The reason.
        objection: Objection,
    },
    /// The chain leads to the enrolled certificate but is invalid, for instance because a certificate in it may not
    /// sign others.
    ChainUnsound(ChainError),
    /// The device sent its certificate without the chain to the enrolled certificate.
    ChainNotSent {
        /// The subject of the last certificate that was sent.
        subject: String,
        /// Its issuer, which was not sent.
        issuer: String,
        /// The enrolled certificates, if known.
        enrolled: Vec<EnrolledCertificate>,
        /// Whether the chain is known to lead to one of them.
        leads_there: bool,
    },
    /// The chain ends at a root that is not enrolled.
    ChainLeadsElsewhere {
        /// The subject of the root.
        root: String,
        /// The SHA-1 thumbprint of the root.
        thumbprint: Thumbprint,
        /// The enrolled certificates, if known.
        enrolled: Vec<EnrolledCertificate>,
    },
    /// The chain leads to an entry that is not verified.
    EntryNotVerified(EnrolledCertificate),
    /// The chain leads to a CA certificate of the service that no enrollment group refers to.
    NoGroupRefers {
        /// The name of the certificate.
        certificate: String,
        /// Its SHA-1 thumbprint.
        thumbprint: Thumbprint,
    },
    /// The device's enrollment group is disabled.
    GroupDisabled {
        /// The ID of the group.
        group: String,
    },
    /// The device is disabled.
    DeviceDisabled {
        /// The ID of the device.
        id: String,
    },
    /// The device has an individual attestation, which overrides every group, and used another credential.
    AttestationDiffers {
        /// The ID of the device.
        id: String,
        /// The individual attestation.
        own: OwnAttestation,
        /// The SHA-1 thumbprint of the certificate that was presented, or `None` if a symmetric key was used.
        presented: Option<Thumbprint>,
    },
    /// No enrollment group of this kind and no individual attestation exists for the device.
    NothingEnrolled {
        /// The ID of the device.
        id: String,
        /// The kind of the credential: `x509` or `symmetricKey`.
        kind: &'static str,
    },
    /// The symmetric key is not the device's.
    WrongSymmetricKey {
        /// The ID of the device.
        id: String,
    },
    /// The symmetric key is the key of a group instead of the device's.
    GroupKeyUsed {
        /// The ID of the group.
        group: String,
    },
    /// The service does not know the ID scope, or it belongs to another application or instance.
    WrongIdScope {
        /// The ID scope that was used.
        given: IdScope,
        /// The right ID scope, if known.
        actual: Option<IdScope>,
    },
    /// The server is not a Device Provisioning Service: it answered 404 in another form.
    NotTheService {
        /// The host.
        host: String,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The server's certificate is not trusted, as with a TLS-intercepting proxy.
    TlsIntercepted {
        /// The host.
        host: String,
        /// The subject of the server's certificate.
        subject: String,
        /// Its issuer.
        issuer: String,
        /// Why it is not trusted.
        reason: String,
    },
    /// The server's certificate is not valid by the local clock.
    ServerCertificateOutOfTime {
        /// The host.
        host: String,
        /// When the validity of the server's certificate starts.
        not_before: Timestamp,
        /// When it ends.
        not_after: Timestamp,
        /// The time of the local clock.
        at: Timestamp,
    },
    /// The server did not request the device's certificate, which the service does. A proxy may terminate TLS.
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
    /// Returns the name of the cause, for tables and scripts.
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
            Self::NoGroupRefers { .. } => "no-group-refers",
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

    /// Returns whether the cause affects all devices.
    #[must_use]
    pub fn affects_all_devices(&self) -> bool {
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
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCommonName { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::ClockSkewed { .. }
            | Self::NoClientAuthentication { .. }
            | Self::Certificate { .. } => self.fmt_certificate(f),
            Self::ChainUnsound(_) | Self::ChainNotSent { .. } | Self::ChainLeadsElsewhere { .. } => self.fmt_chain(f),
            Self::EntryNotVerified(_)
            | Self::NoGroupRefers { .. }
            | Self::GroupDisabled { .. }
            | Self::DeviceDisabled { .. }
            | Self::AttestationDiffers { .. }
            | Self::NothingEnrolled { .. }
            | Self::WrongSymmetricKey { .. }
            | Self::GroupKeyUsed { .. } => self.fmt_enrollment(f),
            Self::WrongIdScope { .. }
            | Self::NotTheService { .. }
            | Self::TlsIntercepted { .. }
            | Self::ServerCertificateOutOfTime { .. }
            | Self::CertificateNotAskedFor { .. }
            | Self::PlainHttp { .. } => self.fmt_service(f),
        }
    }
}

/// The messages. Each names what was found, then what to do.
impl Cause {
    fn fmt_certificate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCommonName { id, found: Some(found) } => write!(
                f,
                "the certificate's common name is {found} and the registration ID is {id}; they must be equal, except for \
                 case. Register the device as {found}, or use the certificate of {id}"
            ),
            Self::WrongCommonName { id, found: None } => write!(
                f,
                "the certificate has no common name, which must be the registration ID {id}. Issue a certificate with it"
            ),
            Self::Expired { subject, not_after, at } => {
                write!(
                    f,
                    "{subject} expired at {}; it is now {}. Issue a new certificate",
                    moment(*not_after),
                    moment(*at)
                )
            }
            Self::NotYetValid { subject, not_before, at } => write!(
                f,
                "{subject} is not valid until {}; it is now {}. Wait until then, or correct the clock of the machine that \
                 issued it and issue it again",
                moment(*not_before),
                moment(*at)
            ),
            Self::ClockSkewed { ours, theirs, consequence } => write!(
                f,
                "the clock of this machine says {}, the server's clock {}: {consequence}. Correct the wrong clock, which is \
                 probably the one of this machine",
                moment(*ours),
                moment(*theirs)
            ),
            Self::NoClientAuthentication { subject } => write!(
                f,
                "the extended key usage of {subject} does not include client authentication (clientAuth). Issue a \
                 certificate that has it"
            ),
            Self::Certificate { subject, objection } => write!(f, "the service does not accept {subject}: {objection}"),
            _ => Ok(()),
        }
    }

    fn fmt_chain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainUnsound(error) => write!(
                f,
                "the chain leads to the enrolled certificate but is invalid: {error}. Issue the certificate that it names again"
            ),
            Self::ChainNotSent { subject, issuer, enrolled, leads_there } => {
                write!(f, "the device did not send its chain: it ended at {subject}, without its issuer {issuer}")?;
                if *leads_there {
                    f.write_str(", which leads to the enrolled certificate")?;
                } else {
                    write!(f, "; unless {issuer} itself is enrolled, the service cannot complete the chain")?;
                }
                fmt_enrolled(f, enrolled)?;
                f.write_str(". Use the file with the whole chain, _fullchain.pem, instead of the certificate's own")
            }
            Self::ChainLeadsElsewhere { root, thumbprint, enrolled } if enrolled.is_empty() => write!(
                f,
                "the chain leads to {root}, {thumbprint}. Check that this certificate or an intermediate CA of the chain is \
                 enrolled"
            ),
            Self::ChainLeadsElsewhere { root, thumbprint, enrolled } => {
                write!(f, "the chain leads to {root}, {thumbprint}, and none of its certificates is enrolled")?;
                fmt_enrolled(f, enrolled)?;
                write!(f, ". Enroll {root}, or issue the device's certificate under an enrolled one")
            }
            _ => Ok(()),
        }
    }

    fn fmt_enrollment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntryNotVerified(entry) => write!(
                f,
                "the chain leads to {entry}, which is not verified. Prove possession of its key, or set it as verified"
            ),
            Self::NoGroupRefers { certificate, thumbprint } => write!(
                f,
                "the chain leads to {thumbprint}, the certificate {certificate} of the service, and no enrollment group \
                 refers to it. Let a group refer to it"
            ),
            Self::GroupDisabled { group } => {
                write!(f, "the device's enrollment group {group} is disabled. Enable it")
            }
            Self::DeviceDisabled { id } => {
                write!(f, "the device {id} is disabled, or its individual enrollment. Enable it")
            }
            Self::AttestationDiffers { id, own, presented } => {
                write!(f, "the device {id} has an individual attestation, which overrides enrollment groups: ")?;
                match own {
                    OwnAttestation::X509(thumbprints) => {
                        let thumbprints: Vec<_> = thumbprints.iter().map(ToString::to_string).collect();
                        write!(f, "the certificate {}", thumbprints.join(" or "))?;
                    }
                    OwnAttestation::Other(kind) => write!(f, "{kind}")?,
                }
                match presented {
                    None if matches!(own, OwnAttestation::Other(kind) if kind == SYMMETRIC_KEY) => {
                        f.write_str(". The device used another symmetric key")?;
                    }
                    Some(thumbprint) => write!(f, ". The device presented the certificate {thumbprint}")?,
                    None => f.write_str(". The device used a symmetric key")?,
                }
                f.write_str(
                    ". Register with the attested credential, or change or delete the attestation, which is an individual \
                     enrollment at DPS",
                )
            }
            Self::NothingEnrolled { id, kind } => write!(
                f,
                "the service has no {kind} enrollment group with a certificate or key, and nothing for {id} itself. Enroll \
                 one of them"
            ),
            Self::WrongSymmetricKey { id } => write!(
                f,
                "the symmetric key is not the one of {id}. Take it from the device's credentials, or derive it from its \
                 group's key for exactly this ID"
            ),
            Self::GroupKeyUsed { group } => write!(
                f,
                "the symmetric key is the key of the enrollment group {group}. Derive the device's own key from it"
            ),
            _ => Ok(()),
        }
    }

    fn fmt_service(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongIdScope { given, actual: Some(actual) } if !given.matches(actual) => {
                write!(
                    f,
                    "the ID scope {given} is not the one of the service whose enrollments were read, which is {actual}. Use \
                     that one, or name the service of {given}"
                )
            }
            Self::WrongIdScope { given, actual: Some(_) } => write!(
                f,
                "the ID scope {given} is the right one, and the server does not know it. Check the address of the \
                 provisioning service"
            ),
            Self::WrongIdScope { given, actual: None } => write!(
                f,
                "the service does not know the ID scope {given}. Copy it from the page Device connection of the IoT Central \
                 application, or from the overview of the DPS instance"
            ),
            Self::NotTheService { host, status } => write!(
                f,
                "{host} answered {status}, but not as a Device Provisioning Service does. Check the address of the \
                 provisioning service"
            ),
            Self::TlsIntercepted { host, subject, issuer, reason } => write!(
                f,
                "the certificate that {host} presented is not trusted: {reason}. It is {subject}, issued by {issuer}. If a \
                 TLS-intercepting proxy presents it, exempt {host} from interception; devices cannot register through such \
                 a proxy. If you trust {issuer}, add it as a trusted root"
            ),
            Self::ServerCertificateOutOfTime { host, not_before, not_after, at } => write!(
                f,
                "the certificate of {host} is valid from {} to {}, and the clock of this machine says {}. Correct the clock; \
                 if it is right, a TLS-intercepting proxy may be in use",
                moment(*not_before),
                moment(*not_after),
                moment(*at)
            ),
            Self::CertificateNotAskedFor { host, issuer } => write!(
                f,
                "{host} did not request the device's certificate, as the service does; its own was issued by {issuer}. A \
                 TLS-intercepting proxy may be in use: exempt {host} from interception, or check the address"
            ),
            Self::PlainHttp { host } => {
                write!(f, "a certificate cannot be presented to {host} over plain http. Use an https address")
            }
            _ => Ok(()),
        }
    }
}

/// Lists the enrolled certificates.
fn fmt_enrolled(f: &mut fmt::Formatter<'_>, enrolled: &[EnrolledCertificate]) -> fmt::Result {
    for (index, entry) in enrolled.iter().enumerate() {
        write!(f, "{}{entry}", if index == 0 { ". Enrolled: " } else { ", " })?;
    }
    Ok(())
}
