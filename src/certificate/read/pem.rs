//! Reading of PEM sections, with any text around them and even if their line ends are lost.
//!
//! `rustls-pemfile` decodes the content of a section. It knows seven labels and silently skips sections with others,
//! requires every boundary on its own line, and treats the headers of encrypted keys (RFC 1421) as data. This layer above
//! it finds the sections and their labels, and gives it their base64.

use zeroize::Zeroizing;

/// A section of a PEM text.
pub(super) struct Section {
    /// The label of its BEGIN line.
    pub(super) label: String,
    /// The label of its END line, if it differs.
    pub(super) end_label: Option<String>,
    /// The headers of a traditionally encrypted key (RFC 1421).
    pub(super) encryption: Option<Encryption>,
    /// Its content, or what is damaged.
    pub(super) content: Result<Zeroizing<Vec<u8>>, String>,
}

/// How a private key is encrypted in traditional PEM (RFC 1421).
#[derive(Clone)]
pub(in crate::certificate) struct Encryption {
    #[cfg_attr(not(feature = "issue"), expect(dead_code, reason = "private keys are read with `issue`"))]
    /// The value of `DEK-Info`: a cipher, a comma, and its initialisation vector in hexadecimal.
    pub(in crate::certificate) dek_info: String,
}

pub(super) const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The longest line in which the end of a label is searched for.
const MAX_LABEL_LINE: usize = 128;

/// The longest label that messages show. All known labels are much shorter.
const MAX_LABEL: usize = 64;

/// Returns the sections of a text in their order.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut open: Option<(Boundary<'_>, usize)> = None;
    for boundary in boundaries(text) {
        if boundary.begins {
            if let Some((begin, _)) = open.take() {
                sections.push(Section::damaged(&begin, "has no END line"));
            }
            let start = boundary.end;
            open = Some((boundary, start));
        } else if let Some((begin, start)) = open.take() {
            sections.push(Section::read(&begin, &boundary, &text[start..boundary.start]));
        }
    }
    if let Some((begin, _)) = open {
        sections.push(Section::damaged(&begin, "has no END line"));
    }
    sections
}

/// A BEGIN or END line: its position and its label.
struct Boundary<'a> {
    begins: bool,
    start: usize,
    end: usize,
    label: &'a str,
    is_whole: bool,
}

/// Returns the boundaries of a text in their order.
fn boundaries(text: &str) -> impl Iterator<Item = Boundary<'_>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let (start, begins) = next_boundary(text, position)?;
        let label_start = start + if begins { BEGIN.len() } else { END.len() };
        let rest = &text[label_start..];
        // A label is short and on one line. Line ends may be escaped as two characters.
        let line = rest
            .char_indices()
            .enumerate()
            .find(|(count, (_, c))| *count == MAX_LABEL_LINE || matches!(c, '\n' | '\r' | '\\'))
            .map_or(rest, |(_, (end, _))| &rest[..end]);
        let (label, end, is_whole) = match line.find(DASHES) {
            Some(dashes) => (&line[..dashes], label_start + dashes + DASHES.len(), true),
            None => (line, label_start + line.len(), false),
        };
        position = end;
        Some(Boundary { begins, start, end, label: label.trim_matches([' ', '\t', '-']), is_whole })
    })
}

/// Returns where the next boundary begins, and whether it is a BEGIN line.
fn next_boundary(text: &str, mut position: usize) -> Option<(usize, bool)> {
    loop {
        let start = position + text.get(position..)?.find(DASHES)?;
        // Some tools write more than five dashes.
        let dashes = text[start..].bytes().take_while(|&byte| byte == b'-').count();
        let last_five = start + dashes - DASHES.len();
        if text[last_five..].starts_with(BEGIN) {
            return Some((last_five, true));
        }
        if text[last_five..].starts_with(END) {
            return Some((last_five, false));
        }
        position = start + dashes;
    }
}

impl Section {
    fn damaged(begin: &Boundary<'_>, what: &str) -> Self {
        let label = printable(begin.label);
        let content = Err(format!("the section {label} {what}"));
        Self { label, end_label: None, encryption: None, content }
    }

    fn read(begin: &Boundary<'_>, end: &Boundary<'_>, body: &str) -> Self {
        let (label, end_label) = (printable(begin.label), printable(end.label));
        if !begin.is_whole || !end.is_whole {
            let which = if begin.is_whole { "END" } else { "BEGIN" };
            let content = Err(format!("the {which} line of the section {label} does not end in five dashes"));
            return Self { label, end_label: Some(end_label), encryption: None, content };
        }
        let body = Body::of(body);
        let encryption = body.is_encrypted.then(|| Encryption { dek_info: body.dek_info.unwrap_or_default() });
        let content =
            decode(&body.base64, label.ends_with("KEY")).map_err(|reason| format!("the section {label} {reason}"));
        Self { end_label: (end_label != label).then_some(end_label), label, encryption, content }
    }
}

/// Returns a label without characters that could confuse a terminal.
fn printable(label: &str) -> String {
    label.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_LABEL).collect()
}

/// The text between two boundaries.
struct Body {
    base64: Zeroizing<String>,
    is_encrypted: bool,
    dek_info: Option<String>,
}

impl Body {
    fn of(text: &str) -> Self {
        let text = unquoted(&unescaped(text));
        let mut body =
            Self { base64: Zeroizing::new(String::with_capacity(text.len() + 2)), is_encrypted: false, dek_info: None };
        for line in text.split(['\n', '\r']) {
            body.line(line);
        }
        body
    }

    /// Adds a line. A line with a colon has headers: base64 has no colon.
    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if line.contains(':') {
            if !["Proc-Type", "DEK-Info"].into_iter().any(|name| line.trim_start().starts_with(name)) {
                return;
            }
            // If line ends were lost, the data follows on the same line.
            while let Some((name, value)) = words.clone().next().and_then(|word| word.split_once(':')) {
                words.next();
                let value = if value.is_empty() { words.next().unwrap_or_default() } else { value };
                match name {
                    "Proc-Type" => self.is_encrypted = value.ends_with("ENCRYPTED"),
                    "DEK-Info" => self.dek_info = Some(value.to_owned()),
                    _ => {}
                }
            }
        }
        for word in words {
            self.base64.extend(word.chars().filter(|c| !is_invisible(*c)));
        }
    }
}

/// Decodes the base64 of a section. This is the only function that calls `rustls-pemfile`, always with a label that it
/// knows: the caller determines the kind of the object.
fn decode(base64: &str, secret: bool) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    use rustls_pemfile::Item;
    if base64.is_empty() {
        return Err("is empty");
    }
    let padding = match base64.trim_end_matches('=').len() % 4 {
        2 => "==",
        3 => "=",
        0 => "",
        _ => return Err("is cut short: its base64 lacks characters"),
    };
    // Private keys are decoded in constant time.
    let label = if secret { "PRIVATE KEY" } else { "CERTIFICATE" };
    let base64 = base64.trim_end_matches('=');
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() + 80));
    pem.extend([BEGIN, label, DASHES, "\n", base64, padding, "\n", END, label, DASHES, "\n"]);
    match rustls_pemfile::read_one_from_slice(pem.as_bytes()) {
        Ok(Some((Item::X509Certificate(der), _))) => Ok(Zeroizing::new(der.to_vec())),
        Ok(Some((Item::Pkcs8Key(mut key), _))) => {
            let der = Zeroizing::new(key.secret_pkcs8_der().to_vec());
            zeroize::Zeroize::zeroize(&mut key);
            Ok(der)
        }
        _ => Err("is not base64"),
    }
}

/// Returns whether a character is invisible. Such characters get into text by copying.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{ad}')
}

/// Resolves the escapes of JSON, shells and C: line ends, `\/` and `\u002b`. Base64 has no backslash.
///
/// A text may have been escaped more than once, so that there are several backslashes. A backslash at the end of a line
/// continues the line.
pub(super) fn unescaped(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut rest = text;
    while let Some(start) = rest.find(['\\', '`']) {
        plain.push_str(&rest[..start]);
        rest = rest[start..].trim_start_matches(['\\', '`']);
        let mut characters = rest.chars();
        match characters.next() {
            Some('n' | 'r' | 't') => plain.push('\n'),
            Some('u') => {
                let code = rest.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                match code.and_then(char::from_u32) {
                    Some(c) => {
                        plain.push(c);
                        characters = rest[5..].chars();
                    }
                    None => plain.push('u'),
                }
            }
            Some(c) => plain.push(c),
            None => {}
        }
        rest = characters.as_str();
    }
    plain.push_str(rest);
    plain
}

/// Removes the quotes of a text whose lines are each quoted, as in the source of a program.
fn unquoted(text: &str) -> Zeroizing<String> {
    let Some(quote) = ['"', '\''].into_iter().find(|&quote| text.contains(quote)) else {
        return Zeroizing::new(text.to_owned());
    };
    let mut plain = Zeroizing::new(String::with_capacity(text.len() + 1));
    // The text begins inside quotes. Between two quoted lines there is only punctuation that joins them.
    for (index, part) in text.split(quote).enumerate() {
        if index % 2 == 0 {
            plain.push_str(part);
        } else if !part.chars().all(|c| c.is_whitespace() || ",+;.&_()".contains(c)) {
            return Zeroizing::new(text.to_owned());
        }
        plain.push('\n');
    }
    plain
}
