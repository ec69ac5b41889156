//! X.509 certificates and what is read from them.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::ParsedExtension,
    prelude::FromDer,
    x509::{SubjectPublicKeyInfo, X509Version},
};

use super::{
    Name, PublicKeyAlgorithm, ReadError, SignatureError, Thumbprint, hex::hexadecimal, oid::oid_name, pem::pem_block,
    signature::p521_verification,
};

/// An X.509 certificate: its DER and what was read from it.
///
/// Two certificates are equal when their DER is.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    version: u32,
    subject: Name,
    issuer: Name,
    serial_number: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    public_key: Vec<u8>,
    public_key_algorithm: PublicKeyAlgorithm,
    signature_algorithm: String,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    allows_client_authentication: bool,
    subject_key_identifier: Option<Vec<u8>>,
    authority_key_identifier: Option<Vec<u8>>,
    unknown_critical_extension: Option<String>,
}

/// The basic constraints extension (RFC 5280 section 4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the subject is an authority.
    pub authority: bool,
    /// How many further authorities may follow it in a chain; any number when absent.
    pub path_length: Option<u32>,
}

/// The part of the key usage extension (RFC 5280 section 4.2.1.3) that enrollment depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// `keyCertSign`: the key may sign certificates.
    pub certificate_signing: bool,
    /// `digitalSignature`: the key may sign a TLS handshake.
    pub digital_signature: bool,
}

impl Certificate {
    /// Reads a certificate from exactly its DER.
    ///
    /// # Errors
    /// [`ReadError::Certificate`] when the bytes are not one certificate and nothing else.
    pub fn from_der(der: &[u8]) -> Result<Self, ReadError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| ReadError::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(ReadError::Certificate(format!("{} bytes follow its end", rest.len())));
        }
        Self::from_parsed(der, &parsed).map_err(|error| ReadError::Certificate(error.to_string()))
    }

    fn from_parsed(der: &[u8], parsed: &X509Certificate<'_>) -> Result<Self, X509Error> {
        let mut certificate = Self {
            der: der.to_vec(),
            version: match parsed.version() {
                X509Version(version) => version + 1,
            },
            subject: Name::from_parsed(parsed.subject()),
            issuer: Name::from_parsed(parsed.issuer()),
            serial_number: parsed.raw_serial().to_vec(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            public_key: parsed.public_key().raw.to_vec(),
            public_key_algorithm: PublicKeyAlgorithm::of(parsed.public_key()),
            signature_algorithm: oid_name(&parsed.signature_algorithm.algorithm),
            basic_constraints: None,
            key_usage: None,
            allows_client_authentication: true,
            subject_key_identifier: None,
            authority_key_identifier: None,
            unknown_critical_extension: None,
        };
        // Also refuses an extension that occurs twice (RFC 5280 section 4.2).
        parsed.extensions_map()?;
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    certificate.basic_constraints = Some(BasicConstraints {
                        authority: constraints.ca,
                        path_length: constraints.path_len_constraint,
                    });
                }
                ParsedExtension::KeyUsage(usage) => {
                    certificate.key_usage = Some(KeyUsage {
                        certificate_signing: usage.key_cert_sign(),
                        digital_signature: usage.digital_signature(),
                    });
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.allows_client_authentication = usage.client_auth || usage.any;
                }
                ParsedExtension::SubjectKeyIdentifier(id) => certificate.subject_key_identifier = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    certificate.authority_key_identifier = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::ParseError { error } => return Err(error.clone().into()),
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::Unparsed if extension.critical => {
                    certificate.unknown_critical_extension = Some(oid_name(&extension.oid));
                }
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in PEM, ending in a line end (RFC 7468 section 5).
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE", &self.der)
    }

    /// Base64 of the whole PEM, header lines included, on one line: what the service's `certificate` fields carry.
    #[must_use]
    pub fn to_base64_pem(&self) -> String {
        BASE64_STANDARD.encode(self.to_pem())
    }

    /// The SHA-1 thumbprint, which the services print and compare.
    #[must_use]
    pub fn sha1_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha1(&self.der)
    }

    /// The SHA-256 thumbprint.
    #[must_use]
    pub fn sha256_thumbprint(&self) -> Thumbprint {
        Thumbprint::sha256(&self.der)
    }

    /// The version: 3, or 1 for certificates without extensions.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Whether subject and issuer are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject.matches(&self.issuer)
    }

    /// The serial number in upper-case hexadecimal, an even number of digits.
    #[must_use]
    pub fn serial_number(&self) -> String {
        hexadecimal(&self.serial_number)
    }

    /// The first moment at which the certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The last moment at which the certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The public key, as the DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// What kind of key it is.
    #[must_use]
    pub fn public_key_algorithm(&self) -> &PublicKeyAlgorithm {
        &self.public_key_algorithm
    }

    /// The algorithm the issuer signed with, by its registered name.
    #[must_use]
    pub fn signature_algorithm(&self) -> &str {
        &self.signature_algorithm
    }

    /// The basic constraints, where the certificate has them.
    #[must_use]
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.basic_constraints
    }

    /// The key usage, where the certificate limits it.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    /// Whether the extended key usage is absent, or names `clientAuth` or any usage.
    #[must_use]
    pub fn allows_client_authentication(&self) -> bool {
        self.allows_client_authentication
    }

    /// The subject key identifier, where the certificate has one.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.subject_key_identifier.as_deref()
    }

    /// The key identifier of the issuer, where the certificate names one.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<&[u8]> {
        self.authority_key_identifier.as_deref()
    }

    /// A critical extension that is not known here, by name or object identifier. A chain over such a certificate must
    /// be refused (RFC 5280 section 4.2).
    #[must_use]
    pub fn unknown_critical_extension(&self) -> Option<&str> {
        self.unknown_critical_extension.as_deref()
    }

    /// Checks that this certificate's signature was made by the issuer's key. Looks at nothing else.
    ///
    /// # Errors
    /// [`SignatureError::Wrong`] when another key made it, [`SignatureError::Unsupported`] when the algorithm is not one
    /// of RSA, RSA-PSS or ECDSA with SHA-2.
    pub fn verify_signature(&self, issuer: &Self) -> Result<(), SignatureError> {
        let unreadable = |_| SignatureError::Unsupported(self.signature_algorithm.clone());
        let (_, parsed) = X509Certificate::from_der(&self.der).map_err(unreadable)?;
        let (_, key) = SubjectPublicKeyInfo::from_der(&issuer.public_key).map_err(unreadable)?;
        let outcome = match p521_verification(&issuer.public_key_algorithm, &parsed.signature_algorithm.algorithm) {
            Some(algorithm) => aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
                .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
                .map_err(|_| X509Error::SignatureVerificationError),
            None => parsed.verify_signature(Some(&key)),
        };
        outcome.map_err(|error| match error {
            X509Error::SignatureUnsupportedAlgorithm => SignatureError::Unsupported(self.signature_algorithm.clone()),
            _ => SignatureError::Wrong,
        })
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("sha1_thumbprint", &self.sha1_thumbprint())
            .finish_non_exhaustive()
    }
}
