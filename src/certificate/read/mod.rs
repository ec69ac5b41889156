//! One reader for every encoding: PEM, DER, base64 of either, PKCS#7, PFX.
//!
//! [`decode`] splits the bytes of a file into items, each with its kind and its DER. The readers of certificates, private
//! keys, requests and PFX files pick the items of their kind, so that all of them accept the same encodings.

mod error;
mod kind;
mod pem;
mod pkcs7;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

#[cfg(feature = "issue")]
pub(super) use self::pem::Encryption;
pub use self::{error::ReadError, kind::ContentKind};
use super::{
    Certificate, ber,
    der::{SEQUENCE, der_element, der_header},
    issuer::find_leaf,
};

/// One object of a file.
pub(super) struct Item {
    pub(super) kind: ContentKind,
    /// The label of its PEM section. `None` if it was not PEM.
    pub(super) label: Option<String>,
    /// How its PEM section is encrypted, if it is a traditionally encrypted private key (RFC 1421).
    #[cfg(feature = "issue")]
    pub(super) encryption: Option<Encryption>,
    /// Its DER. PKCS#7 and PFX may be BER.
    pub(super) der: Result<Zeroizing<Vec<u8>>, Damage>,
}

/// Which part of an item is damaged, and how.
#[derive(Debug, Clone)]
pub(super) enum Damage {
    /// The PEM section around it.
    Pem(String),
    /// The end of its DER.
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

/// The deepest nesting of base64: a PEM file in a Kubernetes secret in a key vault secret has three layers.
const MAX_LAYERS: usize = 3;

/// Splits the bytes of a file into items.
///
/// # Errors
/// Returns [`ReadError::Empty`] if there are none, [`ReadError::Unrecognised`] if the encoding is not known.
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

/// Returns the items of bytes that begin with a whole element of a known kind.
fn der_items(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut rest = bytes;
    // Where the last PEM section begins. Searched only once, to keep the time linear in the size.
    let pem = bytes.windows(pem::BEGIN.len()).rposition(|window| window == pem::BEGIN.as_bytes());
    loop {
        let (kind, element) = match whole_element(rest) {
            // The structure of BER is that of its DER.
            Some(element) => {
                (ContentKind::of_der(element).or_else(|| ContentKind::of_der(&ber::to_der(element).ok()?.der)), element)
            }
            // Only BER has indefinite lengths.
            None if rest.starts_with(&[SEQUENCE, 0x80]) => {
                let normalised = ber::to_der(rest).ok()?;
                let kind = ContentKind::of_der(&normalised.der).or_else(|| ContentKind::of_beginning(rest));
                (kind, &rest[..normalised.consumed])
            }
            None => return None,
        };
        let kind = match kind {
            Some(kind) => kind,
            // Complete, but of an unknown kind.
            None if items.is_empty() && ber::is_padding(&rest[element.len()..]) && looks_binary(element) => {
                ContentKind::Other("DER of an unknown kind".into())
            }
            None => return None,
        };
        rest = &rest[element.len()..];
        let mut item = Item::of_der(kind, element);
        let is_next = |rest| whole_element(rest).is_some_and(|element| ContentKind::of_der(element).is_some());
        // A file may have several certificates in DER, with or without padding between them.
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

/// Returns whether bytes are not text. Text that begins with the digit 0 looks like the start of a sequence.
fn looks_binary(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

/// Returns a damaged item for truncated bytes, if they begin like an object of a known kind.
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

/// Returns the items of a PEM section. The content determines their kind, even under the label of another known kind.
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
        // The structure of encrypted content is not known.
        let item = Item::of_der(ContentKind::EncryptedPrivateKey, &der);
        #[cfg(feature = "issue")]
        let item = Item { encryption: Some(encryption), ..item };
        #[cfg(not(feature = "issue"))]
        let _ = encryption;
        return vec![labelled(item)];
    }
    let has_aux = label.to_ascii_uppercase().contains("TRUSTED");
    // OpenSSL appends the trusted uses to the certificate.
    let der = if has_aux { whole_element(&der).unwrap_or(&der) } else { &der[..] };
    match der_items(der) {
        Some(items) if items.iter().all(|item| !matches!(item.kind, ContentKind::Other(_))) => {
            items.into_iter().map(labelled).collect()
        }
        // The parser of that kind reports the damage.
        _ => match cut_off_der(der) {
            Some(items) if whole_element(der).is_none() => items.into_iter().map(labelled).collect(),
            _ => vec![labelled(Item::of_der(kind, der))],
        },
    }
}

/// Returns the ASCII text of a file. Other characters become `?`.
///
/// UTF-16, with or without a byte-order mark, is ASCII with a NUL beside every character, even if a shell appended it to a
/// file in another encoding. The text may hold a private key, so it is wiped when dropped.
fn ascii_text(bytes: &[u8]) -> Zeroizing<String> {
    let bytes = bytes.trim_ascii_end();
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | 0xff)).map_or(0, |last| last + 1);
    let plain: Zeroizing<Vec<u8>> = Zeroizing::new(bytes[..end].iter().copied().filter(|&byte| byte != 0).collect());
    // Each byte becomes at most one byte.
    let mut text = Zeroizing::new(String::with_capacity(plain.len()));
    for chunk in plain.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

/// Returns the items of base64 without header lines: the whole text, or the quoted parts of it.
fn base64_items(text: &str, layers: usize) -> Option<Vec<Item>> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '?' || pem::is_invisible(c));
    // The last part of a `data:` URL (RFC 2397).
    let payload = |base64: &str| base64.rfind(";base64,").map_or(0, |start| start + ";base64,".len());
    let items = |base64: &str| decode_layer(&decode_base64(&base64[payload(base64)..])?, layers);
    let Some(quote) = ['"', '\''].into_iter().find(|&quote| text.contains(quote)) else {
        return items(text);
    };
    // JSON and settings: a quoted value, a list of certificates as in `x5c`, an object with a certificate in a member.
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

/// Returns whether a text begins like the base64 of DER, of PEM, or of the base64 of DER. Few words do.
fn begins_as_base64(text: &str) -> bool {
    // The tag and the length of a sequence.
    let is_der = matches!(text.as_bytes(), [b'M', b'A'..=b'I', ..]);
    is_der || ["LS0t", "TU"].into_iter().any(|start| text.starts_with(start))
}

/// Decodes base64 or base64url without header lines, with or without padding and line ends. Text after padding is decoded
/// separately, since the outputs of several encoders may have been joined.
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

/// The largest PKCS#7 file that is searched for a leaf. Larger files are not chains, and the search is quadratic.
const MAX_CHAIN: usize = 100;

/// Returns the kinds of the objects in a file, in its order. The label of damaged objects determines their kind.
///
/// # Errors
/// Returns a [`ReadError`] if the file is empty or its encoding is not known.
pub fn content_kinds(bytes: &[u8]) -> Result<Vec<ContentKind>, ReadError> {
    Ok(decode(bytes)?.into_iter().map(|item| item.kind).collect())
}

/// Returns the first PFX in the bytes without its outer encoding, or the bytes unchanged if there is none.
#[cfg(feature = "pfx")]
pub(super) fn pfx_bytes(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let pfx = decode(bytes).ok().and_then(|items| items.into_iter().find(|item| item.kind == ContentKind::Pfx));
    pfx.and_then(|item| item.der.ok()).unwrap_or_else(|| Zeroizing::new(bytes.to_vec()))
}

/// Returns what PKCS#7 signed data contains besides X.509 certificates.
#[cfg(feature = "issue")]
pub(super) fn beside_certificates(pkcs7: &[u8]) -> Result<Vec<&'static str>, ReadError> {
    pkcs7::read(pkcs7).map(|data| data.others).map_err(ReadError::Pkcs7)
}

/// Returns which kind of PKCS#7 a structure is.
#[cfg(feature = "issue")]
pub(super) fn pkcs7_kind(pkcs7: &[u8]) -> ContentKind {
    ContentKind::of_der(pkcs7).or_else(|| ContentKind::of_beginning(pkcs7)).unwrap_or(ContentKind::Pkcs7)
}

/// Lists the kinds of the items in a file, for an error about a missing kind.
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
    /// Returns a [`ReadError`] that says what was found instead.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        Self::read_all(bytes)?.into_iter().next().ok_or(ReadError::Empty)
    }

    /// Reads the first certificate of a PEM text. Other text and other sections are ignored.
    ///
    /// # Errors
    /// Returns a [`ReadError`] if there is no PEM section with a certificate.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ReadError> {
        let items = decode(pem.as_ref())?;
        let is_certificate = |item: &&Item| item.kind == ContentKind::Certificate && item.label.is_some();
        match items.iter().find(is_certificate).map(|item| &item.der) {
            Some(Ok(der)) => Self::from_der(der),
            Some(Err(damage)) => Err(damage.clone().into()),
            None => Err(ReadError::NoCertificate(list_kinds(&items))),
        }
    }

    /// Reads every certificate of a file: PEM, DER, base64 of either, or PKCS#7. Returns at least one.
    ///
    /// PEM may be surrounded by other text, and have CRLF, a byte-order mark, UTF-16 as Windows shells write it, or the
    /// quotes and `\n` of JSON. DER may be followed by line ends, text, NUL or FF padding, and further certificates.
    ///
    /// The order is that of the file. PKCS#7 has no order: the first of its certificates that issued none of the others is
    /// moved to the front.
    ///
    /// ```
    /// use iot_enroll::certificate::Certificate;
    ///
    /// # let root = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/authorities/ec-sec1_cert.pem"));
    /// # let fullchain = format!("{root}{root}");
    /// for certificate in Certificate::read_all(fullchain.as_bytes())? {
    ///     println!("{certificate}, issued by {}", certificate.issuer());
    /// }
    /// # Ok::<(), iot_enroll::certificate::ReadError>(())
    /// ```
    ///
    /// # Errors
    /// Returns a [`ReadError`] that says what was found instead. A PFX file is [`ReadError::Pfx`]: it needs a password and
    /// is read by `pfx::read` of the feature `pfx`.
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

    /// Reads every certificate of PKCS#7 signed data, as [`read_all`](Self::read_all) does.
    pub(super) fn all_from_pkcs7(bytes: &[u8]) -> Result<Vec<Self>, ReadError> {
        let data = pkcs7::read(bytes).map_err(ReadError::Pkcs7)?;
        let mut certificates =
            data.certificates.iter().map(|der| Self::from_der(der)).collect::<Result<Vec<_>, ReadError>>()?;
        if certificates.len() <= MAX_CHAIN
            && let Some(leaf) = find_leaf(&certificates)
        {
            certificates[..=leaf].rotate_right(1);
        }
        Ok(certificates)
    }
}

/// Reads the first certificate in any [encoding](Certificate::read_all), as [`Certificate::read`] does.
impl TryFrom<&[u8]> for Certificate {
    type Error = ReadError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Self::read(bytes)
    }
}
