//! The objects of a token: private keys that are found or created, and their public keys.

use std::sync::Arc;

use cryptoki::{
    error::Error,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
    types::Ulong,
};

use super::{
    error::TokenError,
    key::{P256, P384, Scheme, TokenKey, unsigned_integer},
    token::{OpenToken, TokenSession},
    uri::{Pkcs11Uri, hex},
};
use crate::certificate::{
    KeyAlgorithm, PrivateKey,
    der::{DerReader, OBJECT_IDENTIFIER, OCTET_STRING, der_sequence},
    oid::dotted_oid,
    public_key::{MAX_RSA_BITS, MIN_RSA_BITS, bit_length, curve_name},
};

impl TokenSession {
    /// Finds the private key of a URI.
    ///
    /// # Errors
    /// Returns [`TokenError::NoKey`] or [`TokenError::SeveralKeys`] unless exactly one private key has the attributes of the
    /// URI, [`TokenError::NotForSigning`], [`TokenError::PinForEachUse`] or [`TokenError::Unsupported`] if it cannot sign,
    /// [`TokenError::NoPublicKey`] if the token does not have its public key.
    pub fn find_key(&self, uri: &Pkcs11Uri) -> Result<PrivateKey, TokenError> {
        let (handle, name) = self.find(uri)?;
        self.key(uri, handle, name)
    }

    /// Finds the private key of a URI for a new CA, as [`create_key`](Self::create_key) would create it.
    ///
    /// # Errors
    /// Returns [`TokenError::Extractable`] if the key can be read from the token; otherwise the errors of
    /// [`find_key`](Self::find_key).
    pub fn find_guarded_key(&self, uri: &Pkcs11Uri) -> Result<PrivateKey, TokenError> {
        let (handle, name) = self.find(uri)?;
        self.check_guarded(handle, &name)?;
        self.key(uri, handle, name)
    }

    /// Returns the only private key with the attributes of a URI, and its description.
    fn find(&self, uri: &Pkcs11Uri) -> Result<(ObjectHandle, String), TokenError> {
        let token = &self.0;
        let found = token.with_session("list its keys", |session| {
            let template = wanted(uri, ObjectClass::PRIVATE_KEY);
            let found = session.find_objects(&template)?;
            found.into_iter().map(|handle| Ok((handle, describe(session, handle)?))).collect::<Result<Vec<_>, _>>()
        })?;
        match <[_; 1]>::try_from(found) {
            Ok([found]) => Ok(found),
            Err(found) if found.is_empty() => Err(TokenError::NoKey {
                token: token.label.clone(),
                wanted: uri.wanted_key(),
                present: self.list_private_keys()?,
            }),
            Err(found) => {
                let found = found.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(", ");
                Err(TokenError::SeveralKeys { token: token.label.clone(), wanted: uri.wanted_key(), found })
            }
        }
    }

    /// Creates a pair of keys in the token, with the label `object` of the URI, and its `id` or a random one. The private key
    /// can never be read from the token.
    ///
    /// # Errors
    /// Returns [`TokenError::KeyExists`] if a key has that label or ID, [`TokenError::NoLabel`] if the URI has none,
    /// [`TokenError::WriteProtected`] if the token takes no keys, [`TokenError::CreatedUnusable`] if the new key cannot sign or
    /// can be read, and other errors if the token fails.
    pub fn create_key(&self, uri: &Pkcs11Uri, algorithm: KeyAlgorithm) -> Result<PrivateKey, TokenError> {
        let token = &self.0;
        let label = uri.object.as_ref().ok_or(TokenError::NoLabel)?;
        if token.is_write_protected {
            return Err(TokenError::WriteProtected { token: token.label.clone() });
        }
        let label = Attribute::Label(label.as_bytes().to_vec());
        let given_id = uri.id.as_ref().map(|id| Attribute::Id(id.clone()));
        for taken in std::iter::once(&label).chain(&given_id) {
            self.check_free(taken)?;
        }
        let id = match given_id {
            Some(id) => id,
            None => Attribute::Id(random_id(token)?),
        };
        let (mechanism, public, private) = key_pair(algorithm, label, id);
        let failed = |error: &Error| token.failed("create a key", error);
        let session = token.sessions.open_to_write().map_err(|error| failed(&error))?;
        let (_, handle) = session.generate_key_pair(&mechanism, &public, &private).map_err(|error| failed(&error))?;
        let name = describe(&session, handle).unwrap_or_else(|_| uri.wanted_key());
        drop(session);
        self.check_guarded(handle, &name).and_then(|()| self.key(uri, handle, name.clone())).map_err(|error| {
            TokenError::CreatedUnusable { token: token.label.clone(), key: name, error: Box::new(error) }
        })
    }

    /// Fails if a private key can be read from the token.
    fn check_guarded(&self, handle: ObjectHandle, name: &str) -> Result<(), TokenError> {
        const GUARDS: [AttributeType; 2] = [AttributeType::Sensitive, AttributeType::Extractable];
        let found = self.0.with_session("read the key", |session| session.get_attributes(handle, &GUARDS))?;
        if found.contains(&Attribute::Sensitive(true)) && found.contains(&Attribute::Extractable(false)) {
            Ok(())
        } else {
            Err(TokenError::Extractable { key: name.to_owned() })
        }
    }

    /// Fails if a private or public key has that label or ID.
    fn check_free(&self, attribute: &Attribute) -> Result<(), TokenError> {
        let existing = self.0.with_session("list its keys", |session| {
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                let found = session.find_objects(&[Attribute::Class(class), attribute.clone()])?;
                if let Some(handle) = found.first() {
                    return describe(session, *handle).map(Some);
                }
            }
            Ok(None)
        })?;
        existing.map_or(Ok(()), |key| Err(TokenError::KeyExists { token: self.0.label.clone(), key }))
    }

    /// Lists the first private keys of the token.
    fn list_private_keys(&self) -> Result<String, TokenError> {
        const SHOWN: usize = 5;
        let (mut names, count) = self.0.with_session("list its keys", |session| {
            let found = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
            let names = found.iter().take(SHOWN).map(|handle| describe(session, *handle));
            Ok((names.collect::<Result<Vec<_>, _>>()?, found.len()))
        })?;
        if count > SHOWN {
            names.push(format!("{} more", count - SHOWN));
        }
        Ok(if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }

    /// Reads what is needed to sign with a private key.
    fn key(&self, uri: &Pkcs11Uri, handle: ObjectHandle, name: String) -> Result<PrivateKey, TokenError> {
        let token = &self.0;
        let found = token.with_session("read the key", |session| Found::read(session, handle))?;
        if found.signs == Some(false) {
            return Err(TokenError::NotForSigning { key: name });
        }
        if found.asks_each_time {
            return Err(TokenError::PinForEachUse { key: name });
        }
        let unsupported = |kind: String| TokenError::Unsupported { key: name.clone(), kind };
        let (scheme, public_key) = match found.kind {
            Some(KeyType::EC) => {
                let parameters = found.parameters.as_deref().unwrap_or_default();
                (Scheme::of_curve(parameters).ok_or_else(|| unsupported(curve(parameters)))?, found.point())
            }
            Some(KeyType::RSA) => {
                let bits = found.modulus.as_deref().map(bit_length);
                if let Some(bits) = bits.filter(|bits| !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(bits)) {
                    return Err(unsupported(format!("RSA of {bits} bits")));
                }
                (Scheme::Rsa, found.rsa_public_key())
            }
            kind => return Err(unsupported(kind.map_or_else(|| "that the token does not tell".to_owned(), kind_name))),
        };
        let no_public_key = || TokenError::NoPublicKey { token: token.label.clone(), key: name.clone() };
        let public_key = public_key.and_then(|bits| scheme.read_public_key(&bits)).ok_or_else(no_public_key)?;
        if let Err(wanted) = scheme.check(token) {
            return Err(TokenError::NoMechanism { token: token.label.clone(), key: name, wanted });
        }
        let token = Arc::clone(token);
        Ok(PrivateKey::remote(TokenKey { token, handle, scheme, public_key, name, uri: uri.to_string() }))
    }
}

/// The attributes of a private key and of its public key.
#[derive(Default)]
struct Found {
    kind: Option<KeyType>,
    signs: Option<bool>,
    asks_each_time: bool,
    parameters: Option<Vec<u8>>,
    point: Option<Vec<u8>>,
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
}

impl Found {
    fn read(session: &Session, private_key: ObjectHandle) -> Result<Self, Error> {
        const ATTRIBUTES: [AttributeType; 9] = [
            AttributeType::KeyType,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
            AttributeType::Id,
            AttributeType::EcParams,
            AttributeType::EcPoint,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
            AttributeType::Label,
        ];
        let mut found = Self::default();
        let (mut id, mut label) = (Vec::new(), Vec::new());
        for attribute in session.get_attributes(private_key, &ATTRIBUTES)? {
            match attribute {
                Attribute::KeyType(kind) => found.kind = Some(kind),
                Attribute::Sign(signs) => found.signs = Some(signs),
                Attribute::AlwaysAuthenticate(asks) => found.asks_each_time = asks,
                Attribute::Id(value) => id = value,
                Attribute::Label(value) => label = value,
                other => found.set_public(other),
            }
        }
        // The public key has the ID of the private key (PKCS#11 3.1 section 4.6.2); some programs set only the label.
        let same = if id.is_empty() { Attribute::Label(label) } else { Attribute::Id(id) };
        let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY), same];
        template.extend(found.kind.map(Attribute::KeyType));
        if let [public_key] = session.find_objects(&template)?[..] {
            for attribute in session.get_attributes(public_key, &ATTRIBUTES)? {
                found.set_public(attribute);
            }
        }
        Ok(found)
    }

    fn set_public(&mut self, attribute: Attribute) {
        let (place, value) = match attribute {
            Attribute::EcParams(value) => (&mut self.parameters, value),
            Attribute::EcPoint(value) => (&mut self.point, value),
            Attribute::Modulus(value) => (&mut self.modulus, value),
            Attribute::PublicExponent(value) => (&mut self.exponent, value),
            _ => return,
        };
        if !value.is_empty() {
            *place = Some(value);
        }
    }

    /// Returns the point, which is in an OCTET STRING; some tokens omit that.
    fn point(&self) -> Option<Vec<u8>> {
        let point = self.point.as_deref()?;
        let mut reader = DerReader::new(point);
        match reader.content(OCTET_STRING).filter(|_| reader.is_empty()) {
            Some(inner) => Some(inner.to_vec()),
            None => Some(point.to_vec()),
        }
    }

    fn rsa_public_key(&self) -> Option<Vec<u8>> {
        let (modulus, exponent) = (self.modulus.as_deref()?, self.exponent.as_deref()?);
        Some(der_sequence(&[&unsigned_integer(modulus), &unsigned_integer(exponent)]))
    }
}

/// Returns the attributes that a key of the URI has.
fn wanted(uri: &Pkcs11Uri, class: ObjectClass) -> Vec<Attribute> {
    let label = uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec()));
    let id = uri.id.as_ref().map(|id| Attribute::Id(id.clone()));
    std::iter::once(Attribute::Class(class)).chain(label).chain(id).collect()
}

/// Describes an object by its label and ID.
fn describe(session: &Session, handle: ObjectHandle) -> Result<String, Error> {
    let (mut label, mut id) = (String::new(), String::new());
    for attribute in session.get_attributes(handle, &[AttributeType::Label, AttributeType::Id])? {
        match attribute {
            Attribute::Label(value) => label = String::from_utf8_lossy(&value).into_owned(),
            Attribute::Id(value) => id = hex(&value),
            _ => {}
        }
    }
    Ok(if id.is_empty() { format!("{label:?}") } else { format!("{label:?} (ID {id})") })
}

/// Returns the mechanism that creates a pair of keys, and the attributes of the public and the private key.
fn key_pair(
    algorithm: KeyAlgorithm,
    label: Attribute,
    id: Attribute,
) -> (Mechanism<'static>, Vec<Attribute>, Vec<Attribute>) {
    let (mechanism, kind) = match algorithm {
        KeyAlgorithm::EcP256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
        KeyAlgorithm::EcP384 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P384.to_vec())]),
        KeyAlgorithm::Rsa2048 => (Mechanism::RsaPkcsKeyPairGen, rsa_template(2048)),
        KeyAlgorithm::Rsa3072 => (Mechanism::RsaPkcsKeyPairGen, rsa_template(3072)),
        KeyAlgorithm::Rsa4096 => (Mechanism::RsaPkcsKeyPairGen, rsa_template(4096)),
    };
    // The pair is for signatures only: without the attributes that are false, many tokens allow more.
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        label.clone(),
        id.clone(),
    ];
    public.extend(kind);
    let private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        label,
        id,
    ];
    (mechanism, public, private)
}

fn rsa_template(bits: u64) -> Vec<Attribute> {
    const EXPONENT: [u8; 3] = [1, 0, 1];
    vec![Attribute::ModulusBits(Ulong::from(bits)), Attribute::PublicExponent(EXPONENT.to_vec())]
}

/// Returns a random ID for a pair of keys, which connects the private key with its public key.
fn random_id(token: &OpenToken) -> Result<Vec<u8>, TokenError> {
    let mut id = vec![0; 8];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| token.failed("create a key", &Error::NotSupported))?;
    Ok(id)
}

/// Names a curve that is not supported.
fn curve(parameters: &[u8]) -> String {
    match DerReader::new(parameters).content(OBJECT_IDENTIFIER) {
        Some(oid) => format!("EC on {}", curve_name(&dotted_oid(oid))),
        None => "EC without a named curve".to_owned(),
    }
}

fn kind_name(kind: KeyType) -> String {
    // The type has no text for people, only its name in the standard.
    kind.to_string()
}
