//! Opening of PFX files: verifies the integrity, decrypts the parts, and lists the bags of all levels.

use zeroize::Zeroizing;

use super::error::PfxError;
use crate::certificate::{
    ber,
    der::{CONTEXT_0, DerReader, OCTET_STRING, SEQUENCE, SET},
    pbe::{self, Budget, Password, PbeError},
    read::pfx_bytes,
};

/// The keys and certificates of a PFX file, in the order of the file.
#[derive(Default)]
pub(super) struct Archive {
    pub(super) keys: Vec<Bag>,
    pub(super) certificates: Vec<Bag>,
    /// What else is in the file.
    pub(super) others: Vec<&'static str>,
}

/// A key in PKCS#8 or a certificate, in DER, with its attributes.
pub(super) struct Bag {
    pub(super) der: Zeroizing<Vec<u8>>,
    pub(super) local_key_id: Option<Vec<u8>>,
    pub(super) friendly_name: Option<String>,
}

/// The deepest nesting of `SafeContents`.
const MAX_DEPTH: usize = 16;

const UTF8_STRING: u8 = 0x0c;
const BMP_STRING: u8 = 0x1e;
/// `[0] IMPLICIT OCTET STRING`.
const ENCRYPTED_CONTENT: u8 = 0x80;

const DATA: &str = "1.2.840.113549.1.7.1";
const SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
const ENVELOPED_DATA: &str = "1.2.840.113549.1.7.3";
const ENCRYPTED_DATA: &str = "1.2.840.113549.1.7.6";

const KEY_BAG: &str = "1.2.840.113549.1.12.10.1.1";
const SHROUDED_KEY_BAG: &str = "1.2.840.113549.1.12.10.1.2";
const CERTIFICATE_BAG: &str = "1.2.840.113549.1.12.10.1.3";
const REVOCATION_LIST_BAG: &str = "1.2.840.113549.1.12.10.1.4";
const SECRET_BAG: &str = "1.2.840.113549.1.12.10.1.5";
const SAFE_CONTENTS_BAG: &str = "1.2.840.113549.1.12.10.1.6";
const X509_CERTIFICATE: &str = "1.2.840.113549.1.9.22.1";
const FRIENDLY_NAME: &str = "1.2.840.113549.1.9.20";
const LOCAL_KEY_ID: &str = "1.2.840.113549.1.9.21";

impl Archive {
    /// Opens a PFX file with the first password that works.
    pub(super) fn open(bytes: &[u8], passwords: &[Password]) -> Result<Self, PfxError> {
        let bytes = pfx_bytes(bytes);
        let pfx = ber::to_der(&bytes).map_err(|error| PfxError::Damaged(error.to_string()))?;
        if !ber::is_padding(&bytes[pfx.consumed..]) {
            return Err(PfxError::Damaged(format!("bytes follow its end, at byte {}", pfx.consumed)));
        }
        let damaged = || PfxError::damaged("its outermost structure");
        let mut pfx = DerReader::new(&pfx.der).inside(SEQUENCE).ok_or_else(damaged)?;
        match pfx.number().ok_or_else(damaged)? {
            3 => {}
            version => return Err(PfxError::Unsupported(format!("version {version} of the format"))),
        }
        let (kind, mut content) = content_info(&mut pfx).ok_or_else(damaged)?;
        if kind != DATA {
            return Err(unsupported_content(&kind));
        }
        let content = content.content(OCTET_STRING).ok_or_else(damaged)?;
        let mac_data = if pfx.is_empty() { None } else { Some(pfx.inside(SEQUENCE).ok_or_else(damaged)?) };
        let safe = normalise(content)?;
        let mut budget = Budget::new();
        for password in passwords {
            if let Some(mac_data) = mac_data {
                match pbe::verify_mac(mac_data, content, password, &mut budget) {
                    Err(PbeError::Password) => continue,
                    other => other?,
                }
            }
            let mut opening = Opening { password, budget, verified: mac_data.is_some(), archive: Self::default() };
            match opening.authenticated_safe(&safe) {
                Ok(()) => return Ok(opening.archive),
                Err(PfxError::Password) => budget = opening.budget,
                Err(other) => return Err(other),
            }
        }
        Err(PfxError::Password)
    }
}

/// One attempt to open the contents with one password.
struct Opening<'a> {
    password: &'a Password,
    budget: Budget,
    /// Whether the integrity check has proved the password right.
    verified: bool,
    archive: Archive,
}

impl Opening<'_> {
    fn authenticated_safe(&mut self, der: &[u8]) -> Result<(), PfxError> {
        let damaged = || PfxError::damaged("its list of contents");
        let mut safes = DerReader::new(der).inside(SEQUENCE).ok_or_else(damaged)?;
        while !safes.is_empty() {
            let (kind, mut content) = content_info(&mut safes).ok_or_else(damaged)?;
            match kind.as_str() {
                DATA => {
                    let contents = content.content(OCTET_STRING).ok_or_else(damaged)?;
                    self.safe_contents(&normalise(contents)?, 0)?;
                }
                ENCRYPTED_DATA => {
                    let mut data = content.inside(SEQUENCE).ok_or_else(damaged)?;
                    data.number().ok_or_else(damaged)?;
                    let mut info = data.inside(SEQUENCE).ok_or_else(damaged)?;
                    info.oid().ok_or_else(damaged)?;
                    let mut encryption = info;
                    info.element().ok_or_else(damaged)?;
                    // The encrypted content may be absent, and is empty then.
                    if !info.is_empty() {
                        let encrypted = info.content(ENCRYPTED_CONTENT).ok_or_else(damaged)?;
                        let contents = self.decrypt(&mut encryption, encrypted)?;
                        self.decrypted(|opening| opening.safe_contents(&contents, 0))?;
                    }
                }
                _ => return Err(unsupported_content(&kind)),
            }
        }
        Ok(())
    }

    /// Adds the bags of `SafeContents` in DER.
    fn safe_contents(&mut self, der: &[u8], depth: usize) -> Result<(), PfxError> {
        let damaged = || PfxError::damaged("the list of its keys and certificates");
        let mut bags = DerReader::new(der).inside(SEQUENCE).ok_or_else(damaged)?;
        while !bags.is_empty() {
            let mut bag = bags.inside(SEQUENCE).ok_or_else(damaged)?;
            let kind = bag.oid().ok_or_else(damaged)?;
            let mut value = bag.inside(CONTEXT_0).ok_or_else(damaged)?;
            let attributes = Attributes::read(bag);
            match kind.as_str() {
                KEY_BAG => {
                    let key = value.element().ok_or_else(damaged)?;
                    self.archive.keys.push(attributes.bag(Zeroizing::new(key.to_vec())));
                }
                SHROUDED_KEY_BAG => {
                    let mut info = value.inside(SEQUENCE).ok_or_else(damaged)?;
                    let mut encryption = info;
                    info.element().ok_or_else(damaged)?;
                    let encrypted = info.content(OCTET_STRING).ok_or_else(damaged)?;
                    let key = self.decrypt(&mut encryption, encrypted)?;
                    self.decrypted(|_| if key.first() == Some(&SEQUENCE) { Ok(()) } else { Err(damaged()) })?;
                    self.archive.keys.push(attributes.bag(key));
                }
                CERTIFICATE_BAG => {
                    let mut bag = value.inside(SEQUENCE).ok_or_else(damaged)?;
                    // The other kind is SDSI certificates, which are base64 of S-expressions.
                    if bag.oid().ok_or_else(damaged)? == X509_CERTIFICATE {
                        let mut value = bag.inside(CONTEXT_0).ok_or_else(damaged)?;
                        let certificate = value.content(OCTET_STRING).ok_or_else(damaged)?;
                        self.archive.certificates.push(attributes.bag(Zeroizing::new(certificate.to_vec())));
                    } else {
                        self.archive.others.push("an SDSI certificate");
                    }
                }
                SAFE_CONTENTS_BAG => {
                    if depth == MAX_DEPTH {
                        return Err(PfxError::Damaged(format!("its contents are nested more than {MAX_DEPTH} deep")));
                    }
                    self.safe_contents(value.element().ok_or_else(damaged)?, depth + 1)?;
                }
                // They are not read.
                REVOCATION_LIST_BAG => self.archive.others.push("a revocation list"),
                SECRET_BAG => self.archive.others.push("a secret that is not a private key"),
                _ => self.archive.others.push("an object of an unknown kind"),
            }
        }
        Ok(())
    }

    /// Decrypts one BER element and rewrites it as DER.
    fn decrypt(&mut self, encryption: &mut DerReader<'_>, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, PfxError> {
        let plain = pbe::decrypt(encryption, encrypted, self.password, &mut self.budget)?;
        self.decrypted(|_| normalise(&plain))
    }

    /// Reads decrypted data. One wrong password in 256 results in valid padding, so without an integrity check, data that
    /// does not decode means a wrong password.
    fn decrypted<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, PfxError>) -> Result<T, PfxError> {
        let verified = self.verified;
        read(self).map_err(|error| match error {
            PfxError::Damaged(_) if !verified => PfxError::Password,
            other => other,
        })
    }
}

#[derive(Default)]
struct Attributes {
    local_key_id: Option<Vec<u8>>,
    friendly_name: Option<String>,
}

impl Attributes {
    /// Reads the attributes at the end of a bag. Those that do not decode are ignored: they are only names.
    fn read(mut bag: DerReader<'_>) -> Self {
        let mut attributes = Self::default();
        let Some(mut set) = bag.inside(SET) else { return attributes };
        while let Some(mut attribute) = set.inside(SEQUENCE) {
            let (Some(kind), Some(mut values)) = (attribute.oid(), attribute.inside(SET)) else { continue };
            match kind.as_str() {
                LOCAL_KEY_ID => attributes.local_key_id = values.content(OCTET_STRING).map(<[u8]>::to_vec),
                FRIENDLY_NAME => {
                    attributes.friendly_name = match values.tag() {
                        Some(BMP_STRING) => values.content(BMP_STRING).map(|utf16| {
                            let units: Vec<_> =
                                utf16.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                            String::from_utf16_lossy(&units)
                        }),
                        _ => values.content(UTF8_STRING).map(|text| String::from_utf8_lossy(text).into_owned()),
                    };
                }
                _ => {}
            }
        }
        attributes
    }

    fn bag(self, der: Zeroizing<Vec<u8>>) -> Bag {
        Bag { der, local_key_id: self.local_key_id, friendly_name: self.friendly_name }
    }
}

/// Reads a `ContentInfo`. Returns the content type and a reader of the content.
fn content_info<'a>(reader: &mut DerReader<'a>) -> Option<(String, DerReader<'a>)> {
    let mut info = reader.inside(SEQUENCE)?;
    Some((info.oid()?, info.inside(CONTEXT_0)?))
}

fn unsupported_content(kind: &str) -> PfxError {
    PfxError::Unsupported(match kind {
        SIGNED_DATA => "a signature instead of a password (public-key integrity mode)".to_owned(),
        ENVELOPED_DATA => "encryption for a certificate instead of a password (public-key privacy mode)".to_owned(),
        _ => format!("the content type {kind}"),
    })
}

/// Rewrites a content, which must be exactly one element, as DER.
fn normalise(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, PfxError> {
    let normalised =
        ber::to_der(bytes).map_err(|error| PfxError::Damaged(format!("its content cannot be decoded: {error}")))?;
    if normalised.consumed == bytes.len() {
        Ok(normalised.der)
    } else {
        Err(PfxError::damaged("the end of its content"))
    }
}
