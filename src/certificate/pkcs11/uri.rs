//! PKCS#11 URIs (RFC 7512).

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::certificate::hex::hexadecimal;

/// A PKCS#11 URI (RFC 7512) that names a private key in a token.
///
/// ```
/// use iot_enroll::certificate::pkcs11::Pkcs11Uri;
///
/// let uri: Pkcs11Uri = "pkcs11:token=lab;object=root?pin-source=file:pin".parse()?;
/// assert_eq!(uri.object(), Some("root"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The attributes `token`, `serial`, `manufacturer`, `model` and `slot-id` select the token, `object`, `id` and
/// `type=private` the key. `module-path` names the module, and `pin-source` a file with the PIN. A URI never holds a PIN:
/// `pin-value` is refused, because other users can see the arguments of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pkcs11Uri {
    text: String,
    pub(super) token: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) slot_id: Option<u64>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    module_path: Option<PathBuf>,
    pin_file: Option<PathBuf>,
}

/// The reason why a text is not the URI of a private key in a token. No message repeats a part of the text: it may be a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pkcs11UriError {
    /// The text does not begin with `pkcs11:`.
    #[error("a PKCS#11 URI begins with pkcs11:")]
    Scheme,
    /// The URI holds a PIN.
    #[error("a PIN in a PKCS#11 URI is not accepted: other users and the shell's history can see it")]
    PinValue,
    /// An attribute has no value, or its name is not one of RFC 7512; holds its position, from 1.
    #[error(
        "the attribute number {0} of the PKCS#11 URI is not known: use token, serial, manufacturer, model, slot-id, object, \
         id and type before the question mark, separated by semicolons, and module-path and pin-source after it, separated \
         by &"
    )]
    Unknown(usize),
    /// An attribute of RFC 7512 is not supported; holds its name.
    #[error("the attribute {0} of PKCS#11 URIs is not supported")]
    Unsupported(&'static str),
    /// An attribute is on the wrong side of the question mark; holds its name.
    #[error("the attribute {0} is on the wrong side of the question mark in the PKCS#11 URI")]
    Misplaced(&'static str),
    /// An attribute occurs twice; holds its name.
    #[error("the attribute {0} occurs twice in the PKCS#11 URI")]
    Repeated(&'static str),
    /// The value of an attribute is malformed; holds its name and what is expected.
    #[error("the attribute {name} of the PKCS#11 URI must be {expected}")]
    Value {
        /// The name of the attribute.
        name: &'static str,
        /// What its value must be.
        expected: &'static str,
    },
    /// Nothing in the URI names a key.
    #[error("the PKCS#11 URI names no key: add object=LABEL or id=%01")]
    NoObject,
}

/// The attributes of the path and of the query, and those that are not supported (RFC 7512 section 2.3).
const PATH: [&str; 8] = ["token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type"];
const QUERY: [&str; 2] = ["module-path", "pin-source"];
const UNSUPPORTED: [&str; 6] = [
    "library-manufacturer",
    "library-version",
    "library-description",
    "slot-manufacturer",
    "slot-description",
    "module-name",
];

impl Pkcs11Uri {
    /// Returns whether a text has the scheme of a PKCS#11 URI, in upper or lower case.
    #[must_use]
    pub fn is_uri(text: &str) -> bool {
        without_scheme(text).is_some()
    }

    /// Returns the label of the key, `object`.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// Returns the path of the PKCS#11 module, `module-path`.
    #[must_use]
    pub fn module_path(&self) -> Option<&Path> {
        self.module_path.as_deref()
    }

    /// Returns the file that holds the PIN, `pin-source`.
    #[must_use]
    pub fn pin_file(&self) -> Option<&Path> {
        self.pin_file.as_deref()
    }

    /// Describes the wanted token, such as `with the label "lab"`. Empty if every token will do.
    pub(super) fn wanted_token(&self) -> String {
        let mut wanted = Vec::new();
        let mut add = |what: &str, value: Option<&String>| {
            wanted.extend(value.map(|value| format!("the {what} {value:?}")));
        };
        add("label", self.token.as_ref());
        add("serial number", self.serial.as_ref());
        add("manufacturer", self.manufacturer.as_ref());
        add("model", self.model.as_ref());
        wanted.extend(self.slot_id.map(|slot| format!("the slot ID {slot}")));
        if wanted.is_empty() { String::new() } else { format!(" with {}", wanted.join(" and ")) }
    }

    /// Describes the wanted key, such as `"root"` or `with the ID 01`.
    pub(super) fn wanted_key(&self) -> String {
        let id = self.id.as_ref().map(|id| format!("with the ID {}", hex(id)));
        [self.object.as_ref().map(|label| format!("{label:?}")), id].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Returns an ID in hexadecimal, as other programs show it.
pub(super) fn hex(id: &[u8]) -> String {
    hexadecimal(id).to_ascii_lowercase()
}

fn without_scheme(text: &str) -> Option<&str> {
    const SCHEME: &str = "pkcs11:";
    let scheme = text.get(..SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| &text[SCHEME.len()..])
}

impl FromStr for Pkcs11Uri {
    type Err = Pkcs11UriError;

    fn from_str(text: &str) -> Result<Self, Pkcs11UriError> {
        let rest = without_scheme(text).ok_or(Pkcs11UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let attributes = |part: &'static [&'static str], text: &str, separator| -> Vec<_> {
            text.split(separator).map(|attribute| (part, attribute.to_owned())).collect()
        };
        let mut all = if path.is_empty() { Vec::new() } else { attributes(&PATH, path, ';') };
        if !query.is_empty() {
            all.extend(attributes(&QUERY, query, '&'));
        }
        let mut uri = Self {
            text: text.to_owned(),
            token: None,
            serial: None,
            manufacturer: None,
            model: None,
            slot_id: None,
            object: None,
            id: None,
            module_path: None,
            pin_file: None,
        };
        let mut seen = Vec::new();
        // A PIN is reported before anything else.
        if all.iter().any(|(_, attribute)| is_pin(attribute.split_once('=').map_or(attribute, |(name, _)| name))) {
            return Err(Pkcs11UriError::PinValue);
        }
        for (number, (part, attribute)) in all.iter().enumerate() {
            let unknown = Pkcs11UriError::Unknown(number + 1);
            let Some((name, value)) = attribute.split_once('=') else { return Err(unknown) };
            let find = |names: &[&'static str]| names.iter().copied().find(|known| *known == name);
            let Some(name) = find(part) else {
                return Err(match (find(&UNSUPPORTED), find(&PATH).or(find(&QUERY))) {
                    (Some(name), _) => Pkcs11UriError::Unsupported(name),
                    (_, Some(name)) => Pkcs11UriError::Misplaced(name),
                    _ => unknown,
                });
            };
            if seen.contains(&name) {
                return Err(Pkcs11UriError::Repeated(name));
            }
            seen.push(name);
            uri.set(name, value)?;
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err(Pkcs11UriError::NoObject);
        }
        Ok(uri)
    }
}

/// Returns whether the name of an attribute asks for a PIN, also if it is misspelled.
fn is_pin(name: &str) -> bool {
    let name = percent_decode(name).unwrap_or_else(|| name.as_bytes().to_vec());
    let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let letters: String = letters.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    letters != "pinsource" && (letters.contains("pin") || letters.contains("pass") || letters.contains("secret"))
}

impl Pkcs11Uri {
    fn set(&mut self, name: &'static str, value: &str) -> Result<(), Pkcs11UriError> {
        let error = |expected| Pkcs11UriError::Value { name, expected };
        let octets = percent_decode(value).ok_or(error("encoded with % and two hexadecimal digits"))?;
        if octets.is_empty() {
            return Err(error("a text that is not empty"));
        }
        if octets.contains(&0) && name != "id" {
            return Err(error("a text without a null character (%00)"));
        }
        if name == "id" {
            self.id = Some(octets);
            return Ok(());
        }
        let text = String::from_utf8(octets).map_err(|_| error("valid UTF-8"))?;
        match name {
            "token" => self.token = Some(text),
            "serial" => self.serial = Some(text),
            "manufacturer" => self.manufacturer = Some(text),
            "model" => self.model = Some(text),
            "object" => self.object = Some(text),
            "slot-id" => self.slot_id = Some(text.parse().map_err(|_| error("a number"))?),
            "module-path" => self.module_path = Some(text.into()),
            "pin-source" => {
                let file = text.strip_prefix("file:").filter(|file| !file.is_empty());
                let file = file.ok_or(error("file: and the path of a file with the PIN"))?;
                self.pin_file = Some(local_path(file).into());
            }
            // The only other attribute.
            _ if text != "private" => return Err(error("private: only private keys can sign")),
            _ => {}
        }
        Ok(())
    }
}

/// Returns the path that follows the scheme `file:`. An absolute path may be written as the URI of a file on this host (RFC
/// 8089): `file:///run/pin` or `file://localhost/run/pin`.
fn local_path(file: &str) -> &str {
    const HOST: &str = "localhost";
    let Some(rest) = file.strip_prefix("//") else { return file };
    let host = rest.get(..HOST.len()).filter(|host| host.eq_ignore_ascii_case(HOST));
    let path = host.and_then(|host| rest.get(host.len()..)).unwrap_or(rest);
    if path.starts_with('/') { path } else { file }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Decodes percent-encoded octets (RFC 3986 section 2.1). `None` if a percent sign is not followed by two digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        octets.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(octets)
}
