//! The disagreements that are accepted. Each row gives the section of `docs/chain-validation.md` with the reason.

/// Who judges a chain otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Judge {
    /// `openssl verify` and webpki.
    Both,
    OpenSsl,
    Webpki,
    /// What the generator means a chain to be, by RFC 5280.
    Generator,
}

use Judge::{Both, Generator, OpenSsl, Webpki};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Direction {
    OnlyWeAccept,
    OnlyWeRefuse,
}

use Direction::{OnlyWeAccept, OnlyWeRefuse};

pub(super) struct Row {
    /// The heading of the section that gives the reason.
    pub(super) section: &'static str,
    pub(super) judges: &'static [Judge],
    pub(super) direction: Direction,
    /// The classes of mutations; `*` stands for any text.
    pub(super) classes: &'static [&'static str],
}

/// The row that lists a disagreement, and the number of the class in it.
pub(super) fn find(class: &str, judge: Judge, direction: Direction) -> Option<(usize, usize)> {
    ACCEPTED.iter().enumerate().find_map(|(at, row)| {
        let listed = row.direction == direction && row.judges.contains(&judge);
        let pattern = row.classes.iter().position(|pattern| listed && matches(pattern, class))?;
        Some((at, pattern))
    })
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
        }),
    }
}

const fn row(
    section: &'static str,
    judges: &'static [Judge],
    direction: Direction,
    classes: &'static [&'static str],
) -> Row {
    Row { section, judges, direction, classes }
}

pub(super) const ACCEPTED: &[Row] = &[
    // Accepted here, refused by both others.
    row(
        "The signature of the trust anchor",
        &[Both, Webpki],
        OnlyWeAccept,
        &["anchor: algorithms that differ: *", "anchor: signature with unused bits"],
    ),
    row(
        "DNS names that end in a dot",
        &[Both],
        OnlyWeAccept,
        &["*: permitted DNS, final dot", "*: permitted DNS, final dot in base", "*: permitted DNS, only a dot"],
    ),
    row("Hosts of URIs", &[Both], OnlyWeAccept, &["*: permitted URI, host with port and user"]),
    row(
        "Comparison of names",
        &[Both],
        OnlyWeAccept,
        &[
            "*: subject with no-break space",
            "*: subject with other case beyond ASCII",
            "*: subject with soft hyphen",
            "*: issuer with a zero-width space",
        ],
    ),
    row(
        "Usages of the first certificate",
        &[Both, OpenSsl, Generator],
        OnlyWeAccept,
        &["leaf: extKeyUsage *", "leaf: keyUsage *"],
    ),
    row(
        "`anyExtendedKeyUsage`",
        &[Both, OpenSsl],
        OnlyWeAccept,
        &["ca: extKeyUsage any, *", "anchor: extKeyUsage any, *"],
    ),
    row(
        "CA certificates as the first certificate",
        &[Both, OpenSsl, Webpki],
        OnlyWeAccept,
        &[
            "leaf: basicConstraints path length *",
            "leaf: basicConstraints CA:FALSE with path length",
            "leaf: basicConstraints CA:TRUE",
        ],
    ),
    row(
        "Encodings that are not DER",
        &[Both, OpenSsl, Webpki],
        OnlyWeAccept,
        &[
            "*: basicConstraints path length with a leading zero",
            "*: basicConstraints CA as BER TRUE",
            "*: critical as BER TRUE",
            "*: long form of a short length in the signed part",
            "*: set of two attributes not sorted",
            "*: nameConstraints with minimum 0 written out",
            "*: serial number empty",
            "*: serial number with leading zeros",
        ],
    ),
    row(
        "Forms of times",
        &[Both, OpenSsl, Webpki],
        OnlyWeAccept,
        &[
            "*: time in UTCTime with an offset that matters",
            "*: time with a fraction",
            "*: time with an offset",
            "*: time without seconds",
            "*: time GeneralizedTime before 1950",
            "*: time since 1950",
            "*: time year 0",
        ],
    ),
    // Accepted here and by webpki, refused by OpenSSL.
    row("The last second", &[OpenSsl], OnlyWeAccept, &["*: time ending now", "*: time for a second"]),
    row(
        "Rules for issuers",
        &[OpenSsl],
        OnlyWeAccept,
        &[
            "*: basicConstraints not critical",
            "*: basicConstraints with explicit FALSE",
            "*: keyUsage missing",
            "*: subjectKeyIdentifier missing",
            "*: authorityKeyIdentifier missing",
            "*: authorityKeyIdentifier with nothing in it, not critical",
            "*: authorityKeyIdentifier without a key",
            "leaf: subject empty",
            "leaf: subject empty, with subjectAltName not critical",
            "leaf: version 3 without extensions",
        ],
    ),
    row(
        "The key of the first certificate",
        &[OpenSsl],
        OnlyWeAccept,
        &["leaf: key not on its curve", "leaf: key of an unknown kind", "leaf: key rsa1024-1"],
    ),
    row("Common names are no DNS names", &[OpenSsl], OnlyWeAccept, &["*: permitted DNS, CN outside"]),
    row(
        "Names that do not decode",
        &[OpenSsl],
        OnlyWeAccept,
        &[
            "*: subject with BMP with half a character",
            "*: subject with a number for a text",
            "*: subject with invalid UTF-8, the same",
            "leaf: subject a number",
            "leaf: subject with invalid UTF-8",
        ],
    ),
    // Accepted here and by OpenSSL, refused by webpki.
    row(
        "Comparison of names",
        &[Webpki],
        OnlyWeAccept,
        &[
            "*: issuer in *",
            "*: issuer with two spaces",
            "*: issuer with a space *",
            "*: issuer with a tab",
            "*: subject with Teletex and UTF-8 of one name",
            "*: subject with BMP and UTF-8 of one name",
            "*: subject with an unknown attribute in other case",
            "*: subject with empty and blank",
        ],
    ),
    row("Enrolled device certificates", &[Webpki], OnlyWeAccept, &["chain: enrolled: the device's own certificate"]),
    row(
        "Name constraints in webpki",
        &[Webpki],
        OnlyWeAccept,
        &[
            "*: permitted directory, *",
            "*: excluded directory, *",
            "*: permitted mail, *",
            "*: excluded mail, *",
            "*: permitted URI, *",
            "*: excluded URI, *",
            "chain: a self-issued CA outside the constraints above",
        ],
    ),
    row(
        "Critical policy extensions",
        &[Webpki],
        OnlyWeAccept,
        &[
            "*: certificatePolicies *critical",
            "*: policyMappings *critical",
            "*: policyConstraints *critical",
            "*: inhibitAnyPolicy *critical",
        ],
    ),
    row(
        "Algorithms and forms that webpki does not know",
        &[Webpki],
        OnlyWeAccept,
        &[
            "*: ECDSA with NULL inside and outside",
            "*: ECDSA with Sha224",
            "*: RSA key without NULL",
            "*: RSA-PSS with *",
            "*: key as RSA-PSS",
            "*: key secp256k1-1",
            "*: unique identifiers",
            "*: version * without extensions",
            "*: basicConstraints path length *",
            "chain: * certificates",
        ],
    ),
    // Refused here, accepted by one or both.
    row(
        "Malformed and doubled extensions",
        &[Both, OpenSsl, Webpki],
        OnlyWeRefuse,
        &[
            "*: * doubled",
            "*: * malformed, *critical",
            "*: * empty, *critical",
            "*: * with nothing in it, *critical",
            "*: nameConstraints with empty *",
            "*: extKeyUsage clientAuth and then no identifier",
            "*: extensions as an empty sequence",
            "*: basicConstraints path length 2^*",
            "*: subject no name",
            "leaf: subjectAltName with a DNS name beyond ASCII",
            "leaf: subjectAltName with a directory name that is none",
            "leaf: subjectAltName with an other name without a value",
            "leaf: subjectAltName with an unknown form",
        ],
    ),
    row(
        "Critical extensions",
        &[Both, OpenSsl, Webpki],
        OnlyWeRefuse,
        &[
            "*: netscapeCertType critical",
            "*: ocspNoCheck *critical",
            "*: policyConstraints critical",
            "*: sctList critical",
        ],
    ),
    row(
        "Name constraints that cannot be compared",
        &[OpenSsl],
        OnlyWeRefuse,
        &[
            "*: excluded DNS, empty name",
            "*: excluded DNS, final dot*",
            "*: excluded DNS, only a dot",
            "*: excluded DNS, starred base",
            "*: excluded URI, an address*",
            "*: excluded mail, empty base",
            "*: permitted DNS, with NUL",
            "*: permitted DNS, with a space",
            "*: permitted IP, v4 mask with holes",
        ],
    ),
    row("Wildcards", &[OpenSsl], OnlyWeRefuse, &["*: excluded DNS, wildcard across"]),
    row("Hosts of URIs", &[OpenSsl], OnlyWeRefuse, &["*: excluded URI, host with port and user"]),
    row(
        "Algorithms that are not supported",
        &[OpenSsl],
        OnlyWeRefuse,
        &[
            "*: key brainpool-1",
            "*: key p224-1",
            "*: RSA PKCS#1 with Sha224",
            "*: RSA-PSS with * in its mask",
            "*: ECDSA with * for parameters",
        ],
    ),
    row(
        "Certificates that are not DER",
        &[OpenSsl],
        OnlyWeRefuse,
        &["*: bytes after the end", "*: indefinite length", "*: version 4", "*: version 300"],
    ),
    row("Long paths", &[OpenSsl], OnlyWeRefuse, &["chain: * certificates"]),
    row(
        "What webpki leaves out",
        &[Webpki],
        OnlyWeRefuse,
        &[
            "anchor: *",
            "chain: path length *",
            "*: keyUsage *",
            "*: authorityKeyIdentifier *",
            "*: subjectKeyIdentifier *",
            "*: empty key identifiers",
            "*: excluded mail, in the subject*",
            "*: permitted mail, in the subject, outside",
            "ca: subject empty",
        ],
    ),
];
