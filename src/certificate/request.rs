//! Certificate signing requests (PKCS#10, RFC 2986), for devices whose key never leaves them.

use rcgen::{CertificateParams, DistinguishedName, DnType};
use x509_parser::{oid_registry::Oid, prelude::FromDer, x509::SubjectPublicKeyInfo};

use super::{
    CommonName, Name, PrivateKey, PublicKeyAlgorithm, ReadError, SignatureAlgorithm, SignatureError,
    der::{BIT_STRING, CONTEXT_0, DerReader, Element, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET},
    ec_point::uncompressed,
    key::RcgenKey,
    oid::oid_name,
    pem::pem_block,
    read::{ContentKind, Damage, decode, list_kinds},
};

/// A certificate signing request with a valid signature, which proves possession of the private key.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    der: Vec<u8>,
    subject: Name,
    public_key: Vec<u8>,
    public_key_algorithm: PublicKeyAlgorithm,
    ignored: Vec<String>,
}

impl CertificateRequest {
    /// Creates a request for a common name, signed with the key. It asks for no extensions.
    ///
    /// # Errors
    /// Returns [`RequestError::Creation`] if the cryptographic library fails.
    pub fn new(name: &CommonName, key: &PrivateKey) -> Result<Self, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        let request = params.serialize_request(&RcgenKey::new(key)).map_err(|_| RequestError::Creation)?;
        Self::from_der(request.der())
    }

    /// Reads a request in any encoding that [`Certificate::read_all`](super::Certificate::read_all) accepts, and checks its
    /// signature and its key.
    ///
    /// Requested extensions and attributes are not used, so they may be malformed or absent.
    ///
    /// # Errors
    /// Returns a [`RequestError`] if there is not exactly one request, if its signature was not made by its key, or if the
    /// services do not accept keys of its kind.
    pub fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        let items = decode(bytes).map_err(|error| RequestError::NoRequest(error.to_string()))?;
        let requests: Vec<_> = items.iter().filter(|item| item.kind == ContentKind::CertificateRequest).collect();
        match requests.as_slice() {
            [] => Err(RequestError::NoRequest(format!("it holds {}", list_kinds(&items)))),
            [request] => match &request.der {
                Ok(der) => Self::from_der(der),
                Err(Damage::Pem(reason)) => Err(RequestError::Pem(ReadError::Pem(reason.clone()))),
                Err(Damage::Der(reason)) => Err(RequestError::Malformed(reason.clone())),
            },
            several => Err(RequestError::Several(several.len())),
        }
    }

    /// Reads a request from exactly its DER, with the checks of [`read`](Self::read).
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read), except those about other encodings.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        // Part by part (RFC 2986 section 4.2): x509-parser refuses requests whose attributes are absent or malformed. The
        // signature is checked over the original bytes.
        let malformed = |what: &str| RequestError::Malformed(what.to_owned());
        let whole = Element::only_tagged(der, SEQUENCE).ok_or_else(|| malformed("it is not one sequence"))?;
        let mut outer = whole.elements();
        let signed = sequence(&mut outer).ok_or_else(|| malformed("its signed part is missing"))?;
        let algorithm = sequence(&mut outer).and_then(SignatureAlgorithm::from_der);
        let algorithm = algorithm.ok_or_else(|| malformed("its signature algorithm does not decode"))?;
        let signature = match outer.content(BIT_STRING) {
            // The first octet counts unused bits.
            Some([0, signature @ ..]) if outer.is_empty() => signature,
            _ => return Err(malformed("its signature does not decode")),
        };
        let mut info =
            DerReader::new(signed).inside(SEQUENCE).ok_or_else(|| malformed("its signed part is not a sequence"))?;
        info.content(INTEGER).ok_or_else(|| malformed("its version does not decode"))?;
        let subject = sequence(&mut info).and_then(Name::from_der);
        let subject = subject.ok_or_else(|| malformed("its subject does not decode"))?;
        let public_key = sequence(&mut info).and_then(|der| SubjectPublicKeyInfo::from_der(der).ok());
        let (_, public_key) = public_key.ok_or_else(|| malformed("its public key does not decode"))?;
        let public_key_algorithm = PublicKeyAlgorithm::of(&public_key);
        if !public_key_algorithm.is_accepted() {
            return Err(RequestError::Key(public_key_algorithm));
        }
        algorithm.verify(public_key.raw, signed, signature).map_err(|error| match error {
            SignatureError::Wrong => RequestError::Signature,
            SignatureError::Unsupported(algorithm) | SignatureError::KeyRestricted(algorithm) => {
                RequestError::SignatureAlgorithm(algorithm)
            }
            _ => malformed("its public key is malformed"),
        })?;
        // The signature was checked with the key as it is in the request.
        let public_key = uncompressed(public_key.raw).ok_or(RequestError::Point)?.into_owned();
        Ok(Self { der: der.to_vec(), subject, public_key, public_key_algorithm, ignored: attributes(info) })
    }

    /// Returns the request in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the request in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_block("CERTIFICATE REQUEST", &self.der)
    }

    /// Returns the requested subject.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// Returns the public key as the DER of its `SubjectPublicKeyInfo`, with an EC point uncompressed: not every reader of
    /// certificates decompresses points (RFC 5480 section 2.2).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Returns the kind of the public key.
    #[must_use]
    pub fn public_key_algorithm(&self) -> &PublicKeyAlgorithm {
        &self.public_key_algorithm
    }

    /// Returns the names of the ignored extensions and attributes, and which of them are malformed.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }
}

/// Takes the next element whole, if it is a sequence.
fn sequence<'a>(reader: &mut DerReader<'a>) -> Option<&'a [u8]> {
    if reader.tag() == Some(SEQUENCE) { reader.element() } else { None }
}

/// `extensionRequest` (RFC 2985 section 5.4.2).
const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";

/// Returns the names of the attributes that follow a public key, and of the extensions among them.
fn attributes(mut rest: DerReader<'_>) -> Vec<String> {
    let mut names = Vec::new();
    // Many programs omit the field if it is empty.
    while !rest.is_empty() {
        let mut attributes = match rest.inside(CONTEXT_0) {
            Some(attributes) if names.is_empty() => attributes,
            _ => {
                names.push("malformed attributes".to_owned());
                return names;
            }
        };
        while !attributes.is_empty() {
            let attribute = attributes.inside(SEQUENCE);
            let Some((mut attribute, identifier)) =
                attribute.and_then(|mut attribute| attribute.content(OBJECT_IDENTIFIER).map(|oid| (attribute, oid)))
            else {
                names.push("malformed attributes".to_owned());
                return names;
            };
            if identifier != EXTENSION_REQUEST {
                names.push(attribute_name(identifier));
                continue;
            }
            match attribute.inside(SET).and_then(|mut values| values.inside(SEQUENCE)).and_then(extensions) {
                Some(extensions) => names.extend(extensions),
                None => names.push("malformed extensionRequest".to_owned()),
            }
        }
    }
    names
}

/// Returns the name of an attribute. The registry of [`oid_name`] has none.
fn attribute_name(identifier: &[u8]) -> String {
    let oid = Oid::new(identifier.into());
    match oid.to_id_string().as_str() {
        // RFC 2985 section 5.4, and appendix A of it.
        "1.2.840.113549.1.9.2" => "unstructuredName".to_owned(),
        "1.2.840.113549.1.9.7" => "challengePassword".to_owned(),
        "1.2.840.113549.1.9.8" => "unstructuredAddress".to_owned(),
        // Microsoft's certificate enrollment (MS-WCCE section 2.2.2.7).
        "1.3.6.1.4.1.311.2.1.14" => "certificate extensions of Microsoft".to_owned(),
        "1.3.6.1.4.1.311.13.2.1" => "enrollmentNameValuePair".to_owned(),
        "1.3.6.1.4.1.311.13.2.2" => "enrollmentCSP".to_owned(),
        "1.3.6.1.4.1.311.13.2.3" => "osVersion".to_owned(),
        "1.3.6.1.4.1.311.21.20" => "requestClientInfo".to_owned(),
        _ => oid_name(&oid),
    }
}

/// Returns the names of the extensions in a sequence (RFC 5280 section 4.1).
fn extensions(mut sequence: DerReader<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !sequence.is_empty() {
        let identifier = sequence.inside(SEQUENCE)?.content(OBJECT_IDENTIFIER)?;
        names.push(oid_name(&Oid::new(identifier.into())));
    }
    Some(names)
}

/// The reason why a certificate signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The input has no request; says what it has.
    #[error("there is no certificate request in it: {0}")]
    NoRequest(String),
    /// The input has several requests; holds their number.
    #[error("there are {0} certificate requests in it: put each into a file of its own")]
    Several(usize),
    /// The PEM is damaged.
    #[error(transparent)]
    Pem(ReadError),
    /// The request does not decode.
    #[error("it does not decode as a certificate request: {0}")]
    Malformed(String),
    /// Another key made the signature, or the request was changed.
    #[error("the request was not signed by the key in it")]
    Signature,
    /// The EC point of the key is not on its curve.
    #[error("its key is not a point on its curve")]
    Point,
    /// The signature algorithm is broken or unknown; holds its name.
    #[error("the request is signed with {0}, which is not supported")]
    SignatureAlgorithm(String),
    /// The services do not accept keys of this kind.
    #[error("its key is {0}; the services accept RSA of 2048 bits or more, and EC on P-256, P-384 or P-521")]
    Key(PublicKeyAlgorithm),
    /// A new request could not be created.
    #[error("the certificate request could not be created: the cryptographic library failed")]
    Creation,
}
