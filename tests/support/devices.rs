//! Authorities and devices of the tests.
#![allow(dead_code, reason = "each test uses its part")]

use super::DAY;
use iot_enroll::{
    certificate::{
        Certificate, CertificateAuthority, CommonName, DeviceId, IssueOptions, IssuedCertificate, KeyAlgorithm,
        Lifetime, PrivateKey, Timestamp,
    },
    dps::device::{Credential, DeviceCertificate},
};

pub(crate) const DEVICE: &str = "sensor-1";

pub(crate) fn id(text: &str) -> DeviceId {
    text.parse().expect("an id")
}

pub(crate) fn root(name: &str) -> CertificateAuthority {
    root_at(name, &IssueOptions::default())
}

/// A root that was made then.
pub(crate) fn root_at(name: &str, options: &IssueOptions) -> CertificateAuthority {
    let name = CommonName::new(name).expect("a name");
    let issued = CertificateAuthority::new_root(&name, options).expect("a root");
    issued.into_authority(options.issue_time()).expect("an authority")
}

pub(crate) fn intermediate(name: &str, parent: &CertificateAuthority) -> CertificateAuthority {
    let options = IssueOptions::default();
    let issued = parent.issue_intermediate(&CommonName::new(name).expect("a name"), &options).expect("an intermediate");
    issued.into_authority(options.issue_time()).expect("an authority")
}

pub(crate) fn issue(id: &str, parent: &CertificateAuthority) -> IssuedCertificate {
    issue_at(id, parent, &IssueOptions::default())
}

pub(crate) fn issue_at(id: &str, parent: &CertificateAuthority, options: &IssueOptions) -> IssuedCertificate {
    parent.issue_device(&self::id(id), options).expect("a device certificate")
}

/// Options of so many days ago, for a certificate of that many days.
pub(crate) fn days_ago(days: u32, lifetime: u32) -> IssueOptions {
    options(Timestamp::now() - DAY * days, lifetime)
}

pub(crate) fn options(at: Timestamp, days: u32) -> IssueOptions {
    IssueOptions::new().at(at).lifetime(Lifetime::Days(days))
}

pub(crate) fn of_kind(algorithm: KeyAlgorithm) -> IssueOptions {
    IssueOptions::new().algorithm(algorithm)
}

/// The device with all of its chain.
pub(crate) fn credential(issued: &IssuedCertificate) -> Credential {
    sending(issued, whole(issued))
}

/// The device with its certificate only, without its chain.
pub(crate) fn leaf_only(issued: &IssuedCertificate) -> Credential {
    sending(issued, vec![issued.certificate.clone()])
}

pub(crate) fn sending(issued: &IssuedCertificate, certificates: Vec<Certificate>) -> Credential {
    DeviceCertificate::new(certificates, &issued.key).expect("a credential").into()
}

pub(crate) fn whole(issued: &IssuedCertificate) -> Vec<Certificate> {
    issued.fullchain().cloned().collect()
}

/// A certificate made with another library, with what ours would not make.
pub(crate) fn foreign(id: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Credential {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, id);
    change(&mut parameters);
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let key = PrivateKey::read(&key.serialize_der(), None).expect("a key");
    DeviceCertificate::new(vec![Certificate::from_der(certificate.der()).expect("read")], &key).expect("both").into()
}

/// An authority made with another library, with what ours would not make.
pub(crate) struct Foreign {
    /// Its certificate, and those above it.
    pub(crate) certificates: Vec<Certificate>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Foreign {
    pub(crate) fn new(name: &str, parent: Option<&Self>, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut parameters);
        let made = match parent {
            Some(parent) => parameters.signed_by(&key, &parent.issuer),
            None => parameters.self_signed(&key),
        };
        let own = Certificate::from_der(made.expect("a certificate").der()).expect("read");
        let above = parent.map(|parent| parent.certificates.clone()).unwrap_or_default();
        Self { certificates: [vec![own], above].concat(), issuer: rcgen::Issuer::new(parameters, key) }
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificates[0]
    }

    /// A device with the whole chain.
    pub(crate) fn device(&self, id: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Credential {
        let device = Self::new(id, Some(self), |parameters| {
            parameters.is_ca = rcgen::IsCa::NoCa;
            change(parameters);
        });
        let key = PrivateKey::read(&device.issuer.key().serialize_der(), None).expect("a key");
        DeviceCertificate::new(device.certificates, &key).expect("a credential").into()
    }
}
