//! CSV files for the NVS partition generator of ESP-IDF (`nvs_partition_gen`).

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{Bundle, ConvertError, Symbol};
use crate::certificate::KeyEncoding;

/// The maximum length of keys and namespaces, without NUL (`NVS_KEY_NAME_MAX_SIZE`).
const MAX_KEY: usize = 15;

/// The maximum length of strings, without NUL. `nvs_set_str` takes 3999, but `nvs_partition_gen` 0.3 writes a string only if its
/// entries, of 32 bytes each, leave one of the 126 of a page free beside the header.
const MAX_STRING: usize = 3967;

/// A namespace in NVS, of 1 to 15 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NvsNamespace(String);

impl NvsNamespace {
    /// Creates a namespace from text.
    ///
    /// # Errors
    /// Returns [`ConvertError::NvsNamespace`] if it is empty, too long, or has other characters than letters, digits,
    /// hyphens, dots and underscores. NVS itself allows more, but CSV gives some a meaning.
    pub fn new(text: &str) -> Result<Self, ConvertError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ConvertError::NvsNamespace)
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NvsNamespace {
    /// Returns `certs`.
    fn default() -> Self {
        Self("certs".to_owned())
    }
}

impl fmt::Display for NvsNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NvsNamespace {
    type Err = ConvertError;

    fn from_str(text: &str) -> Result<Self, ConvertError> {
        Self::new(text)
    }
}

/// The options of a CSV file for NVS.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NvsOptions {
    namespace: NvsNamespace,
    name: Symbol,
    as_blobs: bool,
}

impl NvsOptions {
    /// Creates options with the namespace `certs`, and strings named `device_cert` and `device_key`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: NvsNamespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets the beginning of the keys of the entries.
    #[must_use]
    pub fn name(mut self, name: Symbol) -> Self {
        self.name = name;
        self
    }

    /// Sets whether the values are blobs, which may be long and are read with `nvs_get_blob`, instead of strings.
    #[must_use]
    pub fn as_blobs(mut self, as_blobs: bool) -> Self {
        self.as_blobs = as_blobs;
        self
    }
}

impl Bundle {
    /// Returns a CSV file for `nvs_partition_gen`, with the PEM of the certificates in the entry `NAME_cert`, and that of the
    /// private key in `NAME_key`.
    ///
    /// The values are in the file itself. A string is the PEM. A blob is the PEM and a NUL, as mbed TLS reads PEM.
    ///
    /// # Errors
    /// Returns [`ConvertError::NvsKey`] if the name is too long, [`ConvertError::NvsString`] if a string would be longer than
    /// 3967 bytes, and [`ConvertError::Key`] if the private key cannot be encoded that way.
    pub fn to_nvs_csv(&self, options: &NvsOptions, key: KeyEncoding<'_>) -> Result<Zeroizing<String>, ConvertError> {
        let certificates = self.certificates_pem();
        let key = self.key_pem(key)?;
        let lengths = certificates.len() + key.as_ref().map_or(0, |key| key.len());
        // Room for everything, so that no part of the key is left in memory by a reallocation.
        let mut csv = Zeroizing::new(String::with_capacity(2 * lengths + 256));
        csv.extend(["key,type,encoding,value\n", options.namespace.as_str(), ",namespace,,\n"]);
        let entries = [
            ("cert", Some(&*certificates).filter(|pem| !pem.is_empty())),
            ("key", key.as_ref().map(|key| key.as_str())),
        ];
        for (what, pem) in entries {
            let Some(pem) = pem else { continue };
            let key = format!("{}_{what}", options.name);
            if key.len() > MAX_KEY {
                return Err(ConvertError::NvsKey(key));
            }
            if options.as_blobs {
                let value = Zeroizing::new([pem.as_bytes(), &[0]].concat());
                let value = Zeroizing::new(BASE64_STANDARD.encode(&*value));
                csv.extend([&key, ",data,base64,", &value, "\n"]);
            } else if pem.len() > MAX_STRING {
                return Err(ConvertError::NvsString { key, length: pem.len(), limit: MAX_STRING });
            } else {
                // The quotes of CSV allow line ends, and PEM has no quotes.
                csv.extend([&key, ",data,string,\"", pem, "\"\n"]);
            }
        }
        Ok(csv)
    }
}
