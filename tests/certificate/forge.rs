//! Certificates with any contents, well-formed or not, which no library would make; and what `openssl verify` says of them.

use std::fs;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use iot_enroll::certificate::{Certificate, Timestamp};

use crate::support::openssl;

/// 2030-05-17T12:30:45Z.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_seconds(1_905_251_445).expect("a time");

// String types

pub(crate) const UTF8: u8 = 0x0c;
pub(crate) const NUMERIC: u8 = 0x12;
pub(crate) const PRINTABLE: u8 = 0x13;
pub(crate) const TELETEX: u8 = 0x14;
pub(crate) const IA5: u8 = 0x16;
pub(crate) const UNIVERSAL: u8 = 0x1c;
pub(crate) const BMP: u8 = 0x1e;

// Object identifiers

pub(crate) const CN: &[u8] = &[0x55, 0x04, 0x03];
pub(crate) const O: &[u8] = &[0x55, 0x04, 0x0a];
pub(crate) const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
pub(crate) const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = vec![tag];
    match length {
        0..0x80 => element.push(u8::try_from(length).expect("short")),
        0x80..0x100 => element.extend([0x81, u8::try_from(length).expect("an octet")]),
        _ => {
            element.push(0x82);
            element.extend(u16::try_from(length).expect("two octets").to_be_bytes());
        }
    }
    element.extend_from_slice(content);
    element
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

pub(crate) fn algorithm(oid: &[u8]) -> Vec<u8> {
    sequence(&[der(0x06, oid)])
}

/// An attribute, a relative distinguished name of one attribute, and a name.
pub(crate) fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    sequence(&[der(0x06, oid), der(tag, value)])
}

pub(crate) fn rdn(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    der(0x31, &attribute(oid, tag, value))
}

pub(crate) fn name(rdns: &[Vec<u8>]) -> Vec<u8> {
    sequence(rdns)
}

pub(crate) fn common_name(text: &str) -> Vec<u8> {
    name(&[rdn(CN, UTF8, text.as_bytes())])
}

/// An extension of `id-ce`.
pub(crate) fn extension(arc: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    extension_of(&[0x55, 0x1d, arc], critical, value)
}

pub(crate) fn extension_of(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[0xff]) } else { Vec::new() };
    sequence(&[der(0x06, oid), critical, der(0x04, value)])
}

pub(crate) fn authority(path_length: Option<u8>) -> Vec<u8> {
    let path_length = path_length.map(|length| der(0x02, &[length])).unwrap_or_default();
    extension(19, true, &sequence(&[der(0x01, &[0xff]), path_length]))
}

pub(crate) fn usage(bits: u8) -> Vec<u8> {
    extension(15, true, &der(0x03, &[0, bits]))
}

pub(crate) fn extended_usage(usages: &[&[u8]]) -> Vec<u8> {
    extension(37, false, &sequence(&usages.iter().map(|oid| der(0x06, oid)).collect::<Vec<_>>()))
}

pub(crate) fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    extension(17, false, &sequence(names))
}

pub(crate) fn constraints(permitted: &[Vec<u8>], excluded: &[Vec<u8>]) -> Vec<u8> {
    let list = |tag, bases: &[Vec<u8>]| match bases {
        [] => Vec::new(),
        _ => der(tag, &bases.iter().map(|base| sequence(std::slice::from_ref(base))).collect::<Vec<_>>().concat()),
    };
    extension(30, true, &sequence(&[list(0xa0, permitted), list(0xa1, excluded)]))
}

/// The subject key identifier and the key identifier of the issuer. Without them openssl takes a
/// self-issued certificate for self-signed.
pub(crate) fn identifiers(own: &[u8], issuer: &[u8]) -> [Vec<u8>; 2] {
    [extension(14, false, &der(0x04, own)), extension(35, false, &sequence(&[der(0x80, issuer)]))]
}

/// An ECDSA key on P-256.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"))
    }

    fn info(&self) -> Vec<u8> {
        let curve = der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let algorithm = sequence(&[der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]), curve]);
        sequence(&[algorithm, der(0x03, &[&[0], self.0.public_key().as_ref()].concat())])
    }
}

/// What a certificate is made of.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) version: Option<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Vec<u8>,
    pub(crate) inner: Vec<u8>,
    pub(crate) outer: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl Forge {
    pub(crate) fn new(subject: Vec<u8>, issuer: Vec<u8>) -> Self {
        Self {
            version: Some(2),
            subject,
            issuer,
            validity: sequence(&[der(0x17, b"300101000000Z"), der(0x17, b"310101000000Z")]),
            inner: algorithm(ECDSA_SHA256),
            outer: algorithm(ECDSA_SHA256),
            extensions: Vec::new(),
        }
    }

    /// An authority without limits.
    pub(crate) fn authority(subject: &str, issuer: &str) -> Self {
        Self::new(common_name(subject), common_name(issuer)).with(authority(None)).with(usage(0x06))
    }

    pub(crate) fn leaf(subject: &str, issuer: &str) -> Self {
        Self::new(common_name(subject), common_name(issuer)).with(usage(0x80))
    }

    pub(crate) fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The certificate in DER.
    pub(crate) fn der(&self, key: &Key, signer: &Key) -> Vec<u8> {
        let version = self.version.map(|version| der(0xa0, &der(0x02, &[version]))).unwrap_or_default();
        let extensions = match &self.extensions[..] {
            [] => Vec::new(),
            all => der(0xa3, &sequence(all)),
        };
        let content = sequence(&[
            version,
            der(0x02, &[0x11, 0x22, 0x33]),
            self.inner.clone(),
            self.issuer.clone(),
            self.validity.clone(),
            self.subject.clone(),
            key.info(),
            extensions,
        ]);
        let signature = signer.0.sign(&SystemRandom::new(), &content).expect("a signature");
        sequence(&[content, self.outer.clone(), der(0x03, &[&[0], signature.as_ref()].concat())])
    }

    pub(crate) fn make(&self, key: &Key, signer: &Key) -> Certificate {
        Certificate::from_der(&self.der(key, signer)).expect("a readable certificate")
    }
}

/// Returns whether `openssl verify` accepts a chain for a TLS client. `None` without openssl, which is reported.
pub(crate) fn openssl_verifies(presented: &[Certificate], anchors: &[Certificate], options: &[&str]) -> Option<bool> {
    let directory = crate::support::temporary_directory();
    let put = |name: &str, certificates: &[Certificate]| {
        let text: String = certificates.iter().map(Certificate::to_pem).collect();
        fs::write(directory.path().join(name), text).expect("written");
    };
    put("leaf.pem", &presented[..1]);
    put("others.pem", &presented[1..]);
    put("anchors.pem", anchors);
    let time = NOW.unix_seconds().to_string();
    let mut arguments = vec!["verify", "-partial_chain", "-purpose", "sslclient", "-attime", &time];
    arguments.extend(options);
    arguments.extend(["-trusted", "anchors.pem"]);
    if presented.len() > 1 {
        arguments.extend(["-untrusted", "others.pem"]);
    }
    arguments.push("leaf.pem");
    openssl(directory.path(), &arguments).map(|output| output.status.success())
}
