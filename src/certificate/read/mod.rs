//! One reader for every encoding: PEM, DER, base64 of either, PFX, recognised before anything parses it.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::{Certificate, der::der_element};

impl Certificate {
    /// Reads the first certificate of a file in any [encoding](Self::read_all).
    ///
    /// # Errors
    /// [`ReadError`] when there is none, saying what was found instead.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        Self::read_all(bytes).map(|mut all| all.swap_remove(0))
    }

    /// Reads every certificate of a file: PEM, DER, or base64 of either.
    ///
    /// PEM is read for what it is whatever surrounds it: other text before, between and after, CRLF, a byte-order mark,
    /// UTF-16 as Windows shells write it. The order of the file is kept, and there is at least one certificate.
    ///
    /// # Errors
    /// [`ReadError`], which says what was found. A PFX file is [`ReadError::Pfx`]: it needs a password and is read by
    /// `pfx::read` of the feature `pfx`.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        let bytes = plain_text(bytes);
        if contains(&bytes, PEM_BEGIN) {
            return Self::all_from_pem(&bytes);
        }
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Self::one_from_der(&bytes);
        }
        let compact: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if compact.is_empty() {
            return Err(ReadError::Empty);
        }
        let decoded = BASE64_STANDARD.decode(&compact).map_err(|_| ReadError::Unrecognised)?;
        let decoded = plain_text(&decoded);
        if contains(&decoded, PEM_BEGIN) {
            Self::all_from_pem(&decoded)
        } else if decoded.first() == Some(&DER_SEQUENCE) {
            Self::one_from_der(&decoded)
        } else {
            // Many a word is base64 by chance.
            Err(ReadError::Unrecognised)
        }
    }

    fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, ReadError> {
        let mut found = Vec::new();
        let certificates = pem_items(text)?
            .iter()
            .filter_map(|item| match item {
                rustls_pemfile::Item::X509Certificate(der) => Some(Self::from_der(der)),
                other => {
                    found.push(pem_label(other));
                    None
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(ReadError::NoCertificate(found.join(", "))) } else { Ok(certificates) }
    }

    fn one_from_der(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        if is_pfx(bytes) {
            return Err(ReadError::Pfx);
        }
        // DER ends by itself. A line end or a word after it is what editors and scripts append; other bytes are damage.
        let (.., rest) = der_element(bytes)
            .ok_or_else(|| ReadError::Certificate("it ends before its DER does, or is not DER".to_owned()))?;
        let end = if rest.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            bytes.len() - rest.len()
        } else {
            bytes.len()
        };
        Ok(vec![Self::from_der(&bytes[..end])?])
    }
}

/// Why no certificate could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// PEM without a certificate in it; holds the labels of what there was.
    #[error("it is PEM without a certificate{}", if .0.is_empty() { String::new() } else { format!(": it holds {}", .0) })]
    NoCertificate(String),
    /// PEM that is damaged.
    #[error("its PEM is damaged: {0}")]
    Pem(String),
    /// Neither PEM, DER, base64 nor PFX.
    #[error("it is neither PEM, DER, base64 of either, nor PFX")]
    Unrecognised,
    /// A certificate that cannot be decoded.
    #[error("it does not decode as an X.509 certificate: {0}")]
    Certificate(String),
    /// A PFX file where none is read.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
}

pub(super) const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const DER_SEQUENCE: u8 = 0x30;

/// Whether the bytes begin as a PFX does: a sequence whose first member is the version, 3 (RFC 7292 section 4). A
/// certificate's first member is a sequence.
pub(super) fn is_pfx(bytes: &[u8]) -> bool {
    let header = match bytes.get(1) {
        Some(length) if length & 0x80 == 0 || *length == 0x80 => 2,
        Some(length) => 2 + usize::from(length & 0x7f),
        None => return false,
    };
    bytes[0] == DER_SEQUENCE && bytes.get(header..header + 3) == Some(&[0x02, 0x01, 0x03])
}

/// The sections of a PEM text. The one place that knows which reader is in use.
pub(super) fn pem_items(text: &[u8]) -> Result<Vec<rustls_pemfile::Item>, ReadError> {
    let text = part_pem_lines(text);
    rustls_pemfile::read_all(&mut text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| ReadError::Pem(error.to_string()))
}

fn pem_label(item: &rustls_pemfile::Item) -> &'static str {
    use rustls_pemfile::Item;
    match item {
        Item::X509Certificate(_) => "a certificate",
        Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => "a private key",
        Item::SubjectPublicKeyInfo(_) => "a public key",
        Item::Csr(_) => "a certificate request",
        Item::Crl(_) => "a revocation list",
        _ => "something else",
    }
}

/// Puts every boundary on a line of its own, without white space around it: scripts glue words to boundaries, editors
/// indent them.
///
/// The text may hold a private key, so it is wiped afterwards; the capacity keeps it from moving while it grows.
pub(super) fn part_pem_lines(text: &[u8]) -> Zeroizing<String> {
    let text = String::from_utf8_lossy(text);
    let mut parted = Zeroizing::new(String::with_capacity(text.len() + text.len() / 4 + 64));
    for line in text.split(['\n', '\r']) {
        let mut line = line.trim();
        while let Some(start) = line.find("-----BEGIN ").or_else(|| line.find("-----END ")) {
            let end = line[start + 5..].find("-----").map_or(line.len(), |end| start + 5 + end + 5);
            parted.extend([&line[..start], "\n", &line[start..end], "\n"]);
            line = &line[end..];
        }
        parted.extend([line, "\n"]);
    }
    parted
}

/// The text without a byte-order mark and in UTF-8, as far as it is text; the same bytes otherwise.
pub(super) fn plain_text(bytes: &[u8]) -> Cow<'_, [u8]> {
    let from_utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>().into_bytes()
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(from_utf16(rest, u16::from_be_bytes)),
        _ => Cow::Borrowed(bytes),
    }
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
