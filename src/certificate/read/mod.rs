//! One reader for every encoding: PEM, DER, base64 of either, PKCS#7, PFX, recognised before anything parses it.
//!
//! [`decode`] takes the bytes of a file apart into items, each with its kind and its DER. What reads certificates, private
//! keys, requests or PFX files picks the items of its kind, so that all of them accept the same encodings.

mod kind;
mod pem;
mod pkcs7;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

pub use self::kind::ContentKind;
#[cfg(feature = "issue")]
pub(super) use self::pem::Encryption;
use super::{
    Certificate, ber,
    der::{SEQUENCE, der_element, der_header},
};

/// One object of a file.
pub(super) struct Item {
    pub(super) kind: ContentKind,
    /// The label of the PEM section that it was in.
    #[cfg_attr(not(feature = "issue"), expect(dead_code, reason = "private keys are read with `issue`"))]
    pub(super) label: Option<String>,
    /// How its section is encrypted, if it is a private key of the time before PKCS#8.
    #[cfg(feature = "issue")]
    pub(super) encryption: Option<Encryption>,
    /// Exactly its DER; of PKCS#7 and PFX perhaps BER.
    pub(super) der: Result<Zeroizing<Vec<u8>>, Damage>,
}

/// What is damaged about an item.
#[derive(Debug, Clone)]
pub(super) enum Damage {
    /// The PEM section around it.
    Pem(String),
    /// Where its DER ends.
    Der(String),
}

impl Damage {
    #[cfg(feature = "issue")]
    pub(super) fn reason(&self) -> &str {
        let (Self::Pem(reason) | Self::Der(reason)) = self;
        reason
    }
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        match damage {
            Damage::Pem(reason) => Self::Pem(reason),
            Damage::Der(reason) => Self::Certificate(reason),
        }
    }
}

/// How often base64 may be in base64: a PEM file in a secret of Kubernetes in a secret of a key vault.
const MAX_LAYERS: usize = 3;

/// Takes the bytes of a file apart.
///
/// # Errors
/// [`ReadError::Empty`] when there is nothing, [`ReadError::Unrecognised`] when it is in no encoding that is read.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Item>, ReadError> {
    let bytes = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"]
        .into_iter()
        .find_map(|mark| bytes.strip_prefix(mark))
        .unwrap_or(bytes);
    if bytes.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Err(ReadError::Empty);
    }
    decode_layer(bytes, MAX_LAYERS).ok_or(ReadError::Unrecognised)
}

fn decode_layer(bytes: &[u8], layers: usize) -> Option<Vec<Item>> {
    if let Some(items) = der_items(bytes) {
        return Some(items);
    }
    let text = ascii_text(bytes);
    if text.contains(pem::BEGIN) {
        return Some(pem::sections(&text).into_iter().flat_map(items_of_section).collect());
    }
    base64_items(&text, layers.checked_sub(1)?).or_else(|| cut_off_der(bytes))
}

/// Returns what the bytes hold if they begin with a whole element of a kind that is known: it, and those after it.
fn der_items(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut rest = bytes;
    // Where the last PEM section begins. Looked for once, so that many elements take no longer than their bytes.
    let pem = bytes.windows(pem::BEGIN.len()).rposition(|window| window == pem::BEGIN.as_bytes());
    loop {
        let (kind, element) = match whole_element(rest) {
            // The outline of BER is that of the DER it stands for.
            Some(element) => {
                (ContentKind::of_der(element).or_else(|| ContentKind::of_der(&ber::to_der(element).ok()?.der)), element)
            }
            // What has an indefinite length ends where its BER does.
            None if rest.starts_with(&[SEQUENCE, 0x80]) => {
                let normalised = ber::to_der(rest).ok()?;
                let kind = ContentKind::of_der(&normalised.der).or_else(|| ContentKind::of_beginning(rest));
                (kind, &rest[..normalised.consumed])
            }
            None => return None,
        };
        let kind = match kind {
            Some(kind) => kind,
            // Whatever it is, it is whole.
            None if items.is_empty() && ber::is_padding(&rest[element.len()..]) && looks_binary(element) => {
                ContentKind::Other("DER of an unknown kind".into())
            }
            None => return None,
        };
        rest = &rest[element.len()..];
        let mut item = Item::of_der(kind, element);
        let is_next = |rest| whole_element(rest).is_some_and(|element| ContentKind::of_der(element).is_some());
        // Files of several certificates in DER, with or without padding between them.
        let next = rest.iter().position(|byte| !matches!(byte, 0 | 0xff) && !byte.is_ascii_whitespace());
        let next = &rest[next.unwrap_or(rest.len())..];
        if is_next(next) {
            items.push(item);
            rest = next;
            continue;
        }
        if pem.is_some_and(|pem| pem >= bytes.len() - rest.len()) {
            items.push(item);
            items.extend(pem::sections(&ascii_text(rest)).into_iter().flat_map(items_of_section));
            return Some(items);
        }
        if !ber::is_padding(rest) {
            item.der = Err(Damage::Der(format!("{} bytes follow its end", rest.len())));
        }
        items.push(item);
        return Some(items);
    }
}

fn whole_element(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.first() == Some(&SEQUENCE) { der_element(bytes).map(|(element, ..)| element) } else { None }
}

/// Whether bytes are no text: a text that begins with the digit 0 begins as a sequence does.
fn looks_binary(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

/// Returns what the bytes were before their end was lost, if they begin as something that is known.
fn cut_off_der(bytes: &[u8]) -> Option<Vec<Item>> {
    let kind = ContentKind::of_beginning(bytes)?;
    let reason = match der_header(bytes) {
        Some((header, length)) => {
            format!("it is cut short: {} of {} bytes are there", bytes.len(), header.saturating_add(length))
        }
        None => match ber::to_der(bytes) {
            Err(error) => error.to_string(),
            Ok(_) => return None,
        },
    };
    Some(vec![Item { der: Err(Damage::Der(reason)), ..Item::of_der(kind, &[]) }])
}

impl Item {
    fn of_der(kind: ContentKind, der: &[u8]) -> Self {
        Self {
            kind,
            label: None,
            #[cfg(feature = "issue")]
            encryption: None,
            der: Ok(Zeroizing::new(der.to_vec())),
        }
    }
}

/// Returns what a PEM section holds. Its content counts for what it is, also under another label that is known.
fn items_of_section(section: pem::Section) -> Vec<Item> {
    let pem::Section { label, end_label, encryption, content } = section;
    let of_label = ContentKind::of_label(&label);
    let of_end_label = end_label.as_deref().map(ContentKind::of_label);
    let labelled = |item: Item| Item { label: Some(label.clone()), ..item };
    let damaged = |kind, reason| labelled(Item { der: Err(Damage::Pem(reason)), ..Item::of_der(kind, &[]) });
    let unknown = || ContentKind::Other(format!("a section {label}").into());
    let kind = of_label.clone().or_else(|| of_end_label.clone().flatten());
    let der = match content {
        _ if of_end_label.as_ref().is_some_and(|end| *end != of_label) => {
            let end_label = end_label.unwrap_or_default();
            let reason = format!("the section {label} ends as {end_label}");
            return vec![damaged(kind.unwrap_or_else(unknown), reason)];
        }
        Err(reason) => return vec![damaged(kind.unwrap_or_else(unknown), reason)],
        Ok(der) => der,
    };
    let Some(kind) = kind else {
        return vec![labelled(Item::of_der(unknown(), &der))];
    };
    if let Some(encryption) = encryption {
        // What is encrypted has no outline yet.
        let item = Item::of_der(ContentKind::EncryptedPrivateKey, &der);
        #[cfg(feature = "issue")]
        let item = Item { encryption: Some(encryption), ..item };
        #[cfg(not(feature = "issue"))]
        let _ = encryption;
        return vec![labelled(item)];
    }
    let has_aux = label.to_ascii_uppercase().contains("TRUSTED");
    // OpenSSL puts what it trusts the certificate for after it.
    let der = if has_aux { whole_element(&der).unwrap_or(&der) } else { &der[..] };
    match der_items(der) {
        Some(items) if items.iter().all(|item| !matches!(item.kind, ContentKind::Other(_))) => {
            items.into_iter().map(labelled).collect()
        }
        // The parser of that kind says what is damaged.
        _ => match cut_off_der(der) {
            Some(items) if whole_element(der).is_none() => items.into_iter().map(labelled).collect(),
            _ => vec![labelled(Item::of_der(kind, der))],
        },
    }
}

/// Returns the text of a file, of which only ASCII counts.
///
/// UTF-16, with or without a byte-order mark, is ASCII with a NUL beside every character, also where a shell appended it
/// to a file in another encoding. The text may hold a private key, so it is wiped when dropped.
fn ascii_text(bytes: &[u8]) -> Zeroizing<String> {
    let bytes = bytes.trim_ascii_end();
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | 0xff)).map_or(0, |last| last + 1);
    let plain: Zeroizing<Vec<u8>> = Zeroizing::new(bytes[..end].iter().copied().filter(|&byte| byte != 0).collect());
    // A byte at most becomes a character of one byte.
    let mut text = Zeroizing::new(String::with_capacity(plain.len()));
    for chunk in plain.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

/// Returns what the base64 without header lines in a text stands for: all of the text, or what is in quotes in it.
fn base64_items(text: &str, layers: usize) -> Option<Vec<Item>> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '?' || pem::is_invisible(c));
    // The last part of a `data:` URL (RFC 2397).
    let payload = |base64: &str| base64.rfind(";base64,").map_or(0, |start| start + ";base64,".len());
    let items = |base64: &str| decode_layer(&decode_base64(&base64[payload(base64)..])?, layers);
    let Some(quote) = ['"', '\''].into_iter().find(|&quote| text.contains(quote)) else {
        return items(text);
    };
    // JSON and settings: a quoted value, a list of certificates as in `x5c`, an object with one among other things.
    let found: Vec<_> = text
        .split(quote)
        .skip(1)
        .step_by(2)
        .filter(|value| begins_as_base64(value.trim_start()))
        .filter_map(items)
        .flatten()
        .collect();
    if found.is_empty() { None } else { Some(found) }
}

/// Whether a text begins as the base64 of DER, of PEM, or of the base64 of DER does. Few words do.
fn begins_as_base64(text: &str) -> bool {
    // A sequence and its length.
    let is_der = matches!(text.as_bytes(), [b'M', b'A'..=b'I', ..]);
    is_der || ["LS0t", "TU"].into_iter().any(|start| text.starts_with(start))
}

/// Decodes base64 or base64url without header lines, padded or not, in lines or in one. What follows padding is decoded
/// by itself, as where the outputs of several encoders were joined.
fn decode_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = pem::unescaped(text);
    let mut compact = Zeroizing::new(String::with_capacity(text.len()));
    for c in text.chars().filter(|c| !c.is_whitespace() && !pem::is_invisible(*c)) {
        compact.push(match c {
            // RFC 4648 section 5.
            '-' => '+',
            '_' => '/',
            c if c.is_ascii() => c,
            _ => return None,
        });
    }
    let mut decoded = Zeroizing::new(Vec::with_capacity(compact.len() / 4 * 3 + 3));
    let mut rest = compact.as_str();
    while !rest.is_empty() {
        let padding = rest.find('=').unwrap_or(rest.len());
        let end = padding + rest[padding..].bytes().take_while(|&byte| byte == b'=').count();
        ENGINE.decode_vec(&rest[..end], &mut decoded).ok()?;
        rest = &rest[end..];
    }
    if decoded.is_empty() { None } else { Some(decoded) }
}

/// Returns which kinds of objects a file holds, in its order; damaged ones count by their label.
///
/// # Errors
/// [`ReadError`] when it is empty or in no encoding that is read.
pub fn content_kinds(bytes: &[u8]) -> Result<Vec<ContentKind>, ReadError> {
    Ok(decode(bytes)?.into_iter().map(|item| item.kind).collect())
}

/// Returns the first PFX in the bytes without what encloses it, or the bytes as they are if there is none.
#[cfg(feature = "pfx")]
pub(super) fn pfx_bytes(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let pfx = decode(bytes).ok().and_then(|items| items.into_iter().find(|item| item.kind == ContentKind::Pfx));
    pfx.and_then(|item| item.der.ok()).unwrap_or_else(|| Zeroizing::new(bytes.to_vec()))
}

/// Names what is in a file, for an error that says what is not.
pub(super) fn list_kinds(items: &[Item]) -> String {
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let name = item.kind.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
        if names.len() == 8 {
            names.push("…".to_owned());
            break;
        }
    }
    names.join(", ")
}

impl Certificate {
    /// Reads the first certificate of a file in any [encoding](Self::read_all).
    ///
    /// # Errors
    /// [`ReadError`] when there is none, saying what was found instead.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        Self::read_all(bytes)?.into_iter().next().ok_or(ReadError::Empty)
    }

    /// Reads every certificate of a file: PEM, DER, base64 of either, or PKCS#7.
    ///
    /// PEM is read regardless of what surrounds it: other text, CRLF, a byte-order mark, UTF-16 as Windows shells write it, quotes
    /// and `\n` as JSON has them. After DER there may be line ends, text, NUL or FF padding, and further certificates. The
    /// order of the file is kept, and there is at least one certificate. PKCS#7 has no order: of its certificates the one
    /// that issued none of the others comes first.
    ///
    /// # Errors
    /// [`ReadError`], which says what was found. A PFX file is [`ReadError::Pfx`]: it needs a password and is read by
    /// `pfx::read` of the feature `pfx`.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        let items = decode(bytes)?;
        let mut certificates = Vec::new();
        for item in &items {
            match (&item.kind, &item.der) {
                (ContentKind::Certificate, Ok(der)) => certificates.push(Self::from_der(der)?),
                (ContentKind::Pkcs7, Ok(der)) => certificates.extend(Self::all_from_pkcs7(der)?),
                (ContentKind::Pkcs7, Err(Damage::Der(reason))) => return Err(ReadError::Pkcs7(reason.clone())),
                (ContentKind::Certificate | ContentKind::Pkcs7, Err(damage)) => return Err(damage.clone().into()),
                _ => {}
            }
        }
        if !certificates.is_empty() {
            return Ok(certificates);
        }
        if items.iter().any(|item| item.kind == ContentKind::Pfx) {
            return Err(ReadError::Pfx);
        }
        let damage = items.iter().find_map(|item| item.der.as_ref().err());
        Err(match damage {
            Some(Damage::Pem(reason)) => ReadError::Pem(reason.clone()),
            _ => ReadError::NoCertificate(list_kinds(&items)),
        })
    }

    fn all_from_pkcs7(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        let certificates = pkcs7::certificates(bytes).map_err(ReadError::Pkcs7)?;
        let mut certificates =
            certificates.iter().map(|der| Self::from_der(der)).collect::<Result<Vec<_>, ReadError>>()?;
        let issued_none = |at: &usize| {
            let subject = certificates[*at].subject();
            certificates.iter().enumerate().all(|(other, it)| other == *at || !it.issuer().matches(subject))
        };
        // Comparing each with each would take long in a file of thousands, which is no chain.
        if certificates.len() <= MAX_CHAIN
            && let Some(leaf) = (0..certificates.len()).find(issued_none)
        {
            certificates[..=leaf].rotate_right(1);
        }
        Ok(certificates)
    }
}

/// Up to how many certificates of PKCS#7 a leaf is looked for among them.
const MAX_CHAIN: usize = 100;

/// Why no certificate could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// An encoding that is read, without a certificate in it; holds what there was.
    #[error("it holds no certificate{}", if .0.is_empty() { String::new() } else { format!(", only {}", .0) })]
    NoCertificate(String),
    /// PEM that is damaged.
    #[error("its PEM is damaged: {0}")]
    Pem(String),
    /// Neither PEM, DER, base64, PKCS#7 nor PFX.
    #[error("it is neither PEM, DER, base64 of either, PKCS#7, nor PFX")]
    Unrecognised,
    /// A certificate that cannot be decoded.
    #[error("it does not decode as an X.509 certificate: {0}")]
    Certificate(String),
    /// PKCS#7 that cannot be decoded.
    #[error("its PKCS#7 is damaged: {0}")]
    Pkcs7(String),
    /// A PFX file where none is read.
    #[error("it is a PFX (PKCS#12) file, which takes a password to read")]
    Pfx,
}
