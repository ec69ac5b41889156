//! Single mutations of good chains.

use super::{
    chain::{
        AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, C, CLIENT_AUTH, CN, Cert, Chain, EXTENDED_KEY_USAGE, Extension, KEY_USAGE,
        NAME_CONSTRAINTS, O, OU, Rng, SERVER_AUTH, SUBJECT_ALT_NAME, SUBJECT_KEY_ID, authority_key_id,
        basic_constraints, common_name, extended_key_usage, generalized, key_id, key_usage, name, rdn, subject_key_id,
        utc,
    },
    der::{
        BMP, IA5, PRINTABLE, TELETEX, UNIVERSAL, UTF8, bits, boolean, explicit, flags, implicit, int, join, long_tlv,
        null, octets, oid, seq, set, string, tlv,
    },
    keys::{Hash, P256, RSA, Scheme, pss_algorithm, public_key},
    name_constraint,
};

/// Which certificate of a chain a mutation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The device's certificate.
    Leaf,
    /// A certificate between.
    Ca,
    /// The enrolled certificate.
    Anchor,
}

/// What the generator means the result to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    Good,
    Bad,
    /// Documents differ, or the mutation is good at one place and bad at another.
    Open,
}

/// Changes a chain.
type Make = Box<dyn Fn(Chain, &mut Rng) -> Chain>;

/// Changes a certificate.
type Change = fn(&mut Cert);

/// Encodes a name.
type Encode = fn(&str) -> Vec<u8>;

/// Changes an encoding, or what stands in it.
type Finish = fn(Vec<u8>) -> Vec<u8>;

pub(super) struct Mutation {
    /// `place: what`.
    pub(super) class: String,
    pub(super) meant: Meant,
    /// The number of certificates that it needs.
    pub(super) lengths: std::ops::RangeInclusive<usize>,
    pub(super) make: Make,
}

pub(super) struct List(pub(super) Vec<Mutation>);

impl List {
    /// A mutation of a certificate at one place.
    pub(super) fn at(
        &mut self,
        place: Place,
        meant: Meant,
        what: &str,
        change: impl Fn(&mut Chain, usize, &mut Rng) + 'static,
    ) {
        let (name, lengths) = match place {
            Place::Leaf => ("leaf", 2..=5),
            Place::Ca => ("ca", 3..=5),
            Place::Anchor => ("anchor", 2..=5),
        };
        self.0.push(Mutation {
            class: format!("{name}: {what}"),
            meant,
            lengths,
            make: Box::new(move |mut chain, rng| {
                let at = match place {
                    Place::Leaf => 0,
                    Place::Ca => 1 + rng.below(chain.last() - 1),
                    Place::Anchor => chain.last(),
                };
                change(&mut chain, at, rng);
                chain
            }),
        });
    }

    /// A mutation of a certificate at each place.
    pub(super) fn everywhere(
        &mut self,
        meant: Meant,
        what: &str,
        change: impl Fn(&mut Chain, usize, &mut Rng) + Clone + 'static,
    ) {
        for place in [Place::Leaf, Place::Ca, Place::Anchor] {
            self.at(place, meant, what, change.clone());
        }
    }

    /// A mutation of a certificate that issues another.
    pub(super) fn authorities(
        &mut self,
        meant: Meant,
        what: &str,
        change: impl Fn(&mut Chain, usize, &mut Rng) + Clone + 'static,
    ) {
        for place in [Place::Ca, Place::Anchor] {
            self.at(place, meant, what, change.clone());
        }
    }

    /// A mutation of a certificate whose signature counts.
    pub(super) fn signed(
        &mut self,
        meant: Meant,
        what: &str,
        change: impl Fn(&mut Chain, usize, &mut Rng) + Clone + 'static,
    ) {
        for place in [Place::Leaf, Place::Ca] {
            self.at(place, meant, what, change.clone());
        }
    }

    /// A mutation of the chain as a whole.
    pub(super) fn chain(
        &mut self,
        meant: Meant,
        what: &str,
        lengths: std::ops::RangeInclusive<usize>,
        change: impl Fn(Chain, &mut Rng) -> Chain + 'static,
    ) {
        self.0.push(Mutation { class: format!("chain: {what}"), meant, lengths, make: Box::new(change) });
    }
}

pub(super) fn all() -> Vec<Mutation> {
    let mut list = List(Vec::new());
    list.chain(Meant::Good, "unchanged", 2..=5, |chain, _| chain);
    extensions(&mut list);
    basic(&mut list);
    usages(&mut list);
    key_ids(&mut list);
    path_lengths(&mut list);
    names(&mut list);
    times(&mut list);
    fields(&mut list);
    signatures(&mut list);
    algorithms(&mut list);
    alternative_names(&mut list);
    shapes(&mut list);
    name_constraint::mutations(&mut list);
    list.0
}

const UNKNOWN: &str = "1.3.6.1.4.1.55555.1.7";

/// An extension that a certificate may have: its name, its identifier, a good value and whether it is to be critical.
fn known_extensions() -> Vec<(&'static str, &'static str, Vec<u8>, bool)> {
    let uri = implicit(6, b"http://lab.example/x");
    vec![
        ("basicConstraints", BASIC_CONSTRAINTS, seq::<Vec<u8>>(&[]), true),
        ("keyUsage", KEY_USAGE, flags(&[0, 5]), true),
        ("extKeyUsage", EXTENDED_KEY_USAGE, seq(&[oid(CLIENT_AUTH)]), false),
        ("subjectKeyIdentifier", SUBJECT_KEY_ID, octets(&[7; 20]), false),
        ("authorityKeyIdentifier", AUTHORITY_KEY_ID, seq(&[implicit(0, &[7; 20])]), false),
        ("subjectAltName", SUBJECT_ALT_NAME, seq(&[implicit(2, b"device-01.lab.example")]), false),
        ("issuerAltName", "2.5.29.18", seq(&[implicit(2, b"ca.lab.example")]), false),
        ("nameConstraints", NAME_CONSTRAINTS, seq(&[explicit(1, &seq(&[implicit(2, b"elsewhere.example")]))]), true),
        ("certificatePolicies", "2.5.29.32", seq(&[seq(&[oid("1.3.6.1.4.1.55555.2.1")])]), false),
        (
            "policyMappings",
            "2.5.29.33",
            seq(&[seq(&[oid("1.3.6.1.4.1.55555.2.1"), oid("1.3.6.1.4.1.55555.2.2")])]),
            true,
        ),
        ("policyConstraints", "2.5.29.36", seq(&[implicit(0, &[5])]), true),
        ("inhibitAnyPolicy", "2.5.29.54", int(5), true),
        ("cRLDistributionPoints", "2.5.29.31", seq(&[seq(&[explicit(0, &explicit(0, &uri))])]), false),
        ("freshestCRL", "2.5.29.46", seq(&[seq(&[explicit(0, &explicit(0, &uri))])]), false),
        ("authorityInfoAccess", "1.3.6.1.5.5.7.1.1", seq(&[seq(&[oid("1.3.6.1.5.5.7.48.1"), uri.clone()])]), false),
        ("subjectInfoAccess", "1.3.6.1.5.5.7.1.11", seq(&[seq(&[oid("1.3.6.1.5.5.7.48.5"), uri])]), false),
        (
            "subjectDirectoryAttributes",
            "2.5.29.9",
            seq(&[seq(&[oid("1.3.6.1.5.5.7.9.4"), set(&[string(PRINTABLE, "XX")])])]),
            false,
        ),
        ("privateKeyUsagePeriod", "2.5.29.16", seq(&[implicit(0, b"20250101000000Z")]), false),
        ("tlsFeature", "1.3.6.1.5.5.7.1.24", seq(&[int(5)]), false),
        ("ocspNoCheck", "1.3.6.1.5.5.7.48.1.5", null(), false),
        ("sctList", "1.3.6.1.4.1.11129.2.4.2", octets(&timestamps()), false),
        ("netscapeCertType", "2.16.840.1.113730.1.1", flags(&[0, 5]), false),
        ("netscapeComment", "2.16.840.1.113730.1.13", string(IA5, "lab"), false),
        ("unknown", UNKNOWN, octets(b"x"), false),
    ]
}

/// A list with one signed certificate timestamp (RFC 6962 section 3.3).
fn timestamps() -> Vec<u8> {
    let signature = [4, 3, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1];
    let timestamp = [&[0][..], &[7; 32], &[0; 8], &[0, 0], &signature].concat();
    let length = u8::try_from(timestamp.len()).expect("short");
    [&[0, length + 2, 0, length], &timestamp[..]].concat()
}

/// A value of these is refused by none that is good at each place.
fn fit(oid: &str, value: &[u8], cert: &Cert, at: usize) -> Vec<u8> {
    let own = cert.extensions.iter().find(|extension| extension.oid == oid);
    match own {
        Some(own) => own.value.clone(),
        None if oid == KEY_USAGE => flags(if at == 0 { &[0] } else { &[5, 6] }),
        None => value.to_vec(),
    }
}

fn extensions(list: &mut List) {
    for (name, oid, value, critical) in known_extensions() {
        let required = [BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_KEY_ID, AUTHORITY_KEY_ID].contains(&oid);
        if required {
            list.everywhere(Meant::Open, &format!("{name} missing"), move |chain, at, _| chain.certs[at].remove(oid));
        }
        for critical_now in [false, true] {
            let what = if critical_now { "critical" } else { "not critical" };
            let value = value.clone();
            let meant = match (critical_now == critical, oid) {
                (_, NAME_CONSTRAINTS) => Meant::Open,
                (true, _) if !critical_now => Meant::Good,
                (_, UNKNOWN) => Meant::Bad,
                _ => Meant::Open,
            };
            list.everywhere(meant, &format!("{name} {what}"), move |chain, at, _| {
                let value = fit(oid, &value, &chain.certs[at], at);
                chain.certs[at].set(Extension::new(oid, critical_now, value));
            });
        }
        let good = value.clone();
        list.everywhere(Meant::Bad, &format!("{name} doubled"), move |chain, at, rng| {
            let cert = &mut chain.certs[at];
            let value = fit(oid, &good, cert, at);
            cert.set(Extension::new(oid, critical, value.clone()));
            let again = if rng.one_in(2) { value } else { good.clone() };
            let position = rng.below(cert.extensions.len() + 1);
            cert.extensions.insert(position, Extension::new(oid, critical, again));
        });
        let good = value.clone();
        list.everywhere(Meant::Open, &format!("{name} with explicit FALSE"), move |chain, at, _| {
            let value = fit(oid, &good, &chain.certs[at], at);
            chain.certs[at].set(Extension { oid, critical: boolean(false), value });
        });
        for critical_now in [false, true] {
            let what = if critical_now { "critical" } else { "not critical" };
            let good = value.clone();
            list.everywhere(Meant::Open, &format!("{name} malformed, {what}"), move |chain, at, rng| {
                let mut value = fit(oid, &good, &chain.certs[at], at);
                match rng.below(7) {
                    0 => value = vec![0xde, 0xad, 0xbe, 0xef],
                    1 => drop(value.pop()),
                    2 => value = boolean(true),
                    3 => value.push(0),
                    4 => value = seq(&[seq(&[value])]),
                    5 => value[0] = 0x31,
                    _ => value = seq(&[int(1), octets(b"x")]),
                }
                chain.certs[at].set(Extension::new(oid, critical_now, value));
            });
            list.everywhere(Meant::Open, &format!("{name} empty, {what}"), move |chain, at, _| {
                chain.certs[at].set(Extension::new(oid, critical_now, Vec::new()));
            });
            let empty =
                if oid == KEY_USAGE || oid == "2.16.840.1.113730.1.1" { flags(&[]) } else { seq::<Vec<u8>>(&[]) };
            list.everywhere(Meant::Open, &format!("{name} with nothing in it, {what}"), move |chain, at, _| {
                chain.certs[at].set(Extension::new(oid, critical_now, empty.clone()));
            });
        }
    }
    list.everywhere(Meant::Bad, "extensions as an empty sequence", |chain, at, _| {
        chain.certs[at].raw_extensions = Some(explicit(3, &seq::<Vec<u8>>(&[])));
    });
    list.everywhere(Meant::Bad, "extensions are no sequence", |chain, at, _| {
        chain.certs[at].raw_extensions = Some(explicit(3, &octets(b"x")));
    });
    list.everywhere(Meant::Open, "critical as BER TRUE", |chain, at, rng| {
        let cert = &mut chain.certs[at];
        let which = rng.below(cert.extensions.len());
        cert.extensions[which].critical = tlv(0x01, &[1]);
    });
    list.everywhere(Meant::Good, "extensions in another order", |chain, at, _| chain.certs[at].extensions.reverse());
    list.everywhere(Meant::Good, "many unknown extensions", |chain, at, _| {
        const OIDS: [&str; 4] =
            ["1.3.6.1.4.1.55555.1.1", "1.3.6.1.4.1.55555.1.2", "1.3.6.1.4.1.55555.1.3", "1.3.6.1.4.1.55555.1.4"];
        for oid in OIDS {
            chain.certs[at].set(Extension::new(oid, false, octets(b"x")));
        }
    });
}

fn basic(list: &mut List) {
    let values = [
        ("CA:FALSE by default", seq::<Vec<u8>>(&[]), Meant::Open),
        ("CA:FALSE explicit", seq(&[boolean(false)]), Meant::Open),
        ("CA:TRUE", seq(&[boolean(true)]), Meant::Open),
        ("CA as BER TRUE", seq(&[tlv(0x01, &[1])]), Meant::Open),
        ("path length without CA", seq(&[int(3)]), Meant::Open),
        ("CA:FALSE with path length", seq(&[boolean(false), int(3)]), Meant::Open),
        ("negative path length", seq(&[boolean(true), tlv(0x02, &[0xff])]), Meant::Bad),
        ("path length 128", seq(&[boolean(true), int(128)]), Meant::Open),
        ("path length 2^31", seq(&[boolean(true), int(1 << 31)]), Meant::Open),
        ("path length 2^32", seq(&[boolean(true), int(1 << 32)]), Meant::Open),
        ("path length 2^64", seq(&[boolean(true), tlv(0x02, &[1, 0, 0, 0, 0, 0, 0, 0, 0])]), Meant::Open),
        ("path length with a leading zero", seq(&[boolean(true), tlv(0x02, &[0, 5])]), Meant::Open),
        ("path length without digits", seq(&[boolean(true), tlv(0x02, &[])]), Meant::Bad),
        ("more after the path length", seq(&[boolean(true), int(5), int(5)]), Meant::Bad),
    ];
    for (what, value, meant) in values {
        list.everywhere(meant, &format!("basicConstraints {what}"), move |chain, at, _| {
            chain.certs[at].set(Extension::new(BASIC_CONSTRAINTS, true, value.clone()));
        });
    }
}

fn usages(list: &mut List) {
    let bits: [(&str, &'static [u8]); 9] = [
        ("digitalSignature", &[0]),
        ("keyEncipherment", &[2]),
        ("keyAgreement", &[4]),
        ("keyCertSign", &[5]),
        ("cRLSign", &[6]),
        ("digitalSignature and keyCertSign", &[0, 5]),
        ("decipherOnly", &[8]),
        ("all", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("digitalSignature and decipherOnly", &[0, 8]),
    ];
    for (what, bits) in bits {
        let authority = bits.contains(&5);
        list.at(Place::Leaf, Meant::Open, &format!("keyUsage {what}"), |chain, at, _| {
            chain.certs[at].set(key_usage(bits));
        });
        let meant = if authority { Meant::Good } else { Meant::Bad };
        list.authorities(meant, &format!("keyUsage {what}"), |chain, at, _| chain.certs[at].set(key_usage(bits)));
    }
    list.everywhere(Meant::Open, "keyUsage with trailing zero bits", |chain, at, _| {
        let value = bits_of(at);
        chain.certs[at].set(Extension::new(KEY_USAGE, true, value));
    });
    let usages: [(&str, &'static [&'static str], Meant); 7] = [
        ("clientAuth", &[CLIENT_AUTH], Meant::Good),
        ("serverAuth", &[SERVER_AUTH], Meant::Bad),
        ("serverAuth and clientAuth", &[SERVER_AUTH, CLIENT_AUTH], Meant::Good),
        ("codeSigning", &["1.3.6.1.5.5.7.3.3"], Meant::Bad),
        ("any", &["2.5.29.37.0"], Meant::Good),
        ("an unknown one", &[UNKNOWN], Meant::Bad),
        ("an unknown one and clientAuth", &[UNKNOWN, CLIENT_AUTH], Meant::Good),
    ];
    for (what, usages, meant) in usages {
        for critical in [false, true] {
            let not = if critical { "critical" } else { "not critical" };
            list.everywhere(meant, &format!("extKeyUsage {what}, {not}"), move |chain, at, _| {
                let value = extended_key_usage(usages).value;
                chain.certs[at].set(Extension::new(EXTENDED_KEY_USAGE, critical, value));
            });
        }
    }
    list.everywhere(Meant::Bad, "extKeyUsage clientAuth and then no identifier", |chain, at, _| {
        chain.certs[at].set(Extension::new(EXTENDED_KEY_USAGE, false, seq(&[oid(CLIENT_AUTH), int(1)])));
    });
}

/// `keyUsage` as BER writers leave it, with all its bits.
fn bits_of(at: usize) -> Vec<u8> {
    if at == 0 { bits(0, &[0x80]) } else { bits(0, &[0x06, 0]) }
}

fn key_ids(list: &mut List) {
    list.everywhere(Meant::Open, "subjectKeyIdentifier of another key", |chain, at, _| {
        chain.certs[at].set(Extension::new(SUBJECT_KEY_ID, false, octets(&[9; 20])));
    });
    list.everywhere(Meant::Open, "authorityKeyIdentifier of another key", |chain, at, _| {
        chain.certs[at].set(Extension::new(AUTHORITY_KEY_ID, false, seq(&[implicit(0, &[9; 20])])));
    });
    list.everywhere(Meant::Open, "empty key identifiers", |chain, at, _| {
        chain.certs[at].set(Extension::new(SUBJECT_KEY_ID, false, octets(&[])));
    });
    for (what, own_serial) in [("issuer and serial number", true), ("issuer and another serial number", false)] {
        list.signed(Meant::Open, &format!("authorityKeyIdentifier by {what}"), move |chain, at, _| {
            let issuer = &chain.certs[at + 1];
            let serial = if own_serial { issuer.serial.clone() } else { vec![0x11] };
            let names = explicit(1, &explicit(4, &issuer.issuer));
            let value = seq(&[implicit(0, &key_id(chain.certs[at].signer)), names, implicit(2, &serial)]);
            chain.certs[at].set(Extension::new(AUTHORITY_KEY_ID, false, value));
        });
    }
    list.signed(Meant::Open, "authorityKeyIdentifier by another issuer", |chain, at, _| {
        let serial = chain.certs[at + 1].serial.clone();
        let names = explicit(1, &explicit(4, &name("Somebody else")));
        let value = seq(&[implicit(0, &key_id(chain.certs[at].signer)), names, implicit(2, &serial)]);
        chain.certs[at].set(Extension::new(AUTHORITY_KEY_ID, false, value));
    });
    list.signed(Meant::Open, "authorityKeyIdentifier with a serial number and no issuer", |chain, at, _| {
        let serial = chain.certs[at + 1].serial.clone();
        let value = seq(&[implicit(0, &key_id(chain.certs[at].signer)), implicit(2, &serial)]);
        chain.certs[at].set(Extension::new(AUTHORITY_KEY_ID, false, value));
    });
    list.everywhere(Meant::Open, "authorityKeyIdentifier without a key", |chain, at, _| {
        chain.certs[at].set(Extension::new(AUTHORITY_KEY_ID, false, seq::<Vec<u8>>(&[])));
    });
}

fn path_lengths(list: &mut List) {
    // Certificates of authorities below the one that limits them: one fewer than its place.
    for place in [Place::Ca, Place::Anchor] {
        list.at(place, Meant::Good, "path length exact", |chain, at, _| {
            chain.certs[at].set(basic_constraints(Some(at as u64 - 1)));
        });
        list.at(place, Meant::Good, "path length roomy", |chain, at, _| {
            chain.certs[at].set(basic_constraints(Some(at as u64 + 4)));
        });
    }
    list.chain(Meant::Bad, "path length one short", 3..=5, |mut chain, rng| {
        let at = 2 + rng.below(chain.last() - 1);
        chain.certs[at].set(basic_constraints(Some(at as u64 - 2)));
        chain
    });
    list.chain(Meant::Bad, "path length 0 far above", 4..=5, |mut chain, _| {
        let top = chain.last();
        chain.certs[top].set(basic_constraints(Some(0)));
        chain
    });
    // An authority that issued to itself with another key does not count (RFC 5280 section 4.2.1.9).
    for (what, spare, meant) in [("exact", 0, Meant::Good), ("one short", 1, Meant::Bad)] {
        list.chain(meant, &format!("path length {what} but for a self-issued CA"), 4..=5, move |mut chain, rng| {
            let at = 1 + rng.below(chain.last() - 1);
            let subject = chain.certs[at + 1].subject.clone();
            chain.set_subject(at, subject);
            let top = chain.last();
            // What is between the top and the leaf, less the self-issued one.
            let counted = (1..top).filter(|&at| chain.certs[at].subject != chain.certs[at].issuer).count() as u64;
            for at in 1..top {
                chain.certs[at].set(basic_constraints(None));
            }
            match counted.checked_sub(spare) {
                Some(limit) => chain.certs[top].set(basic_constraints(Some(limit))),
                None => chain.certs[top].set(basic_constraints(Some(0))),
            }
            chain
        });
    }
    list.chain(Meant::Good, "self-issued CA", 3..=5, |mut chain, rng| {
        let at = 1 + rng.below(chain.last() - 1);
        let subject = chain.certs[at + 1].subject.clone();
        chain.set_subject(at, subject);
        for at in 1..=chain.last() {
            chain.certs[at].set(basic_constraints(None));
        }
        chain
    });
    list.chain(Meant::Open, "self-issued leaf", 2..=5, |mut chain, _| {
        let issuer = chain.certs[0].issuer.clone();
        chain.certs[0].subject = issuer;
        chain
    });
    list.chain(Meant::Open, "self-issued CA limits itself to 0", 3..=5, |mut chain, _| {
        let subject = chain.certs[2].subject.clone();
        chain.set_subject(1, subject);
        for at in 1..=chain.last() {
            chain.certs[at].set(basic_constraints(None));
        }
        chain.certs[1].set(basic_constraints(Some(0)));
        chain
    });
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn names(list: &mut List) {
    let lab = |common_name: Vec<u8>| seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), common_name]);
    // The same name as the issuer's subject, `C=XX, O=Lab, CN=CA n`, in another encoding.
    let same: [(&str, Encode); 12] = [
        ("with a zero-width space", |cn| rdn(CN, UTF8, &format!("{cn}\u{200b}"))),
        ("in PrintableString", |cn| rdn(CN, PRINTABLE, cn)),
        ("in TeletexString", |cn| rdn(CN, TELETEX, cn)),
        ("in BMPString", |cn| rdn(CN, BMP, cn)),
        ("in UniversalString", |cn| rdn(CN, UNIVERSAL, cn)),
        ("in IA5String", |cn| rdn(CN, IA5, cn)),
        ("in lower case", |cn| rdn(CN, UTF8, &cn.to_lowercase())),
        ("in PrintableString and lower case", |cn| rdn(CN, PRINTABLE, &cn.to_lowercase())),
        ("with two spaces", |cn| rdn(CN, UTF8, &cn.replace(' ', "  "))),
        ("with a space before", |cn| rdn(CN, UTF8, &format!(" {cn}"))),
        ("with a space after", |cn| rdn(CN, PRINTABLE, &format!("{cn} "))),
        ("with a tab", |cn| rdn(CN, UTF8, &cn.replace(' ', "\t"))),
    ];
    for (what, encode) in same {
        list.signed(Meant::Open, &format!("issuer {what}"), move |chain, at, _| {
            chain.certs[at].issuer = lab(encode(&common_name(at + 1)));
        });
    }
    // Names that display alike, or nearly so.
    let other: [(&str, Encode); 15] = [
        ("without its O", |cn| seq(&[rdn(C, PRINTABLE, "XX"), rdn(CN, UTF8, cn)])),
        ("with an OU more", |cn| {
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(OU, UTF8, "x"), rdn(CN, UTF8, cn)])
        }),
        ("in another order", |cn| seq(&[rdn(O, UTF8, "Lab"), rdn(C, PRINTABLE, "XX"), rdn(CN, UTF8, cn)])),
        ("reversed", |cn| seq(&[rdn(CN, UTF8, cn), rdn(O, UTF8, "Lab"), rdn(C, PRINTABLE, "XX")])),
        ("in one value", |cn| seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, &format!("Lab, CN={cn}"))])),
        ("in one value the other way", |cn| seq(&[rdn(C, PRINTABLE, &format!("XX, O=Lab, CN={cn}"))])),
        ("with OU for O", |cn| seq(&[rdn(C, PRINTABLE, "XX"), rdn(OU, UTF8, "Lab"), rdn(CN, UTF8, cn)])),
        ("in one set", |cn| {
            let value = |attribute, text| seq(&[oid(attribute), string(UTF8, text)]);
            seq(&[rdn(C, PRINTABLE, "XX"), set(&[value(O, "Lab"), value(CN, cn)])])
        }),
        ("with the CN twice", |cn| {
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, cn), rdn(CN, UTF8, cn)])
        }),
        ("without the spaces", |cn| {
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, &cn.replace(' ', ""))])
        }),
        ("cut off by NUL", |cn| {
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, &format!("{cn}\0.example"))])
        }),
        ("in full width", |cn| {
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, &cn.replace('C', "\u{ff23}"))])
        }),
        ("as DER in hexadecimal", |cn| {
            let hex: String = string(UTF8, cn).iter().map(|byte| format!("{byte:02x}")).collect();
            seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, &format!("#{hex}"))])
        }),
        ("empty", |_| seq::<Vec<u8>>(&[])),
        ("no sequence", |_| set::<Vec<u8>>(&[])),
    ];
    for (what, encode) in other {
        list.signed(Meant::Bad, &format!("issuer {what}"), move |chain, at, _| {
            chain.certs[at].issuer = encode(&common_name(at + 1));
        });
    }
    // Subjects of authorities in other string types and characters, and an issuer below that is the same, nearly the
    // same, or another.
    let pairs: [(&str, Meant, Vec<u8>, Vec<u8>); 22] = [
        ("Latin-1 Teletex names that differ", Meant::Bad, rdn(CN, TELETEX, "\u{e9}"), rdn(CN, TELETEX, "\u{e8}")),
        ("Teletex and UTF-8 of one name", Meant::Open, rdn(CN, TELETEX, "Caf\u{e9}"), rdn(CN, UTF8, "Caf\u{e9}")),
        ("BMP and UTF-8 of one name", Meant::Open, rdn(CN, BMP, "Caf\u{e9}"), rdn(CN, UTF8, "Caf\u{e9}")),
        ("other case beyond ASCII", Meant::Open, rdn(CN, UTF8, "\u{c9}cole"), rdn(CN, UTF8, "\u{e9}cole")),
        ("composed and decomposed", Meant::Open, rdn(CN, UTF8, "\u{e9}"), rdn(CN, UTF8, "e\u{301}")),
        ("sharp s", Meant::Open, rdn(CN, UTF8, "Stra\u{df}e"), rdn(CN, UTF8, "STRASSE")),
        ("ligature", Meant::Open, rdn(CN, UTF8, "\u{fb01}eld"), rdn(CN, UTF8, "field")),
        ("soft hyphen", Meant::Open, rdn(CN, UTF8, "la\u{ad}b"), rdn(CN, UTF8, "lab")),
        ("no-break space", Meant::Open, rdn(CN, UTF8, "a\u{a0}b"), rdn(CN, UTF8, "a b")),
        ("invalid UTF-8 that differs", Meant::Bad, utf8(&[0xff]), utf8(&[0xfe])),
        ("invalid UTF-8, the same", Meant::Open, utf8(&[0xff]), utf8(&[0xff])),
        ("BMP with half a character", Meant::Open, raw_rdn(BMP, &[0, 65, 0]), raw_rdn(BMP, &[0, 65, 0])),
        ("BMP surrogates that differ", Meant::Bad, raw_rdn(BMP, &[0xd8, 0]), raw_rdn(BMP, &[0xd8, 1])),
        ("Universal beyond Unicode that differs", Meant::Bad, universal(0x0011_0000), universal(0x0011_0001)),
        ("Printable with forbidden characters", Meant::Open, rdn(CN, PRINTABLE, "a@b_c"), rdn(CN, PRINTABLE, "a@b_c")),
        ("a number for a text", Meant::Open, raw_rdn(2, &[1]), raw_rdn(2, &[1])),
        ("numbers for texts that differ", Meant::Bad, raw_rdn(2, &[1]), raw_rdn(2, &[2])),
        ("a number and its text", Meant::Bad, raw_rdn(2, &[65]), rdn(CN, UTF8, "A")),
        ("100 characters", Meant::Open, rdn(CN, UTF8, &"x".repeat(100)), rdn(CN, UTF8, &"x".repeat(100))),
        ("an empty value", Meant::Open, rdn(CN, UTF8, ""), rdn(CN, UTF8, "")),
        ("empty and blank", Meant::Open, rdn(CN, UTF8, ""), rdn(CN, UTF8, " ")),
        (
            "an unknown attribute in other case",
            Meant::Open,
            rdn("1.3.6.1.4.1.55555.3.1", UTF8, "abc"),
            rdn("1.3.6.1.4.1.55555.3.1", UTF8, "ABC"),
        ),
    ];
    for (what, meant, subject, issuer) in pairs {
        list.authorities(meant, &format!("subject with {what}"), move |chain, at, _| {
            chain.set_subject(at, seq(&[rdn(O, UTF8, "Lab"), subject.clone()]));
            chain.certs[at - 1].issuer = seq(&[rdn(O, UTF8, "Lab"), issuer.clone()]);
        });
    }
    list.authorities(Meant::Good, "subject with mail and domain in IA5String", |chain, at, _| {
        let subject = seq(&[
            rdn("0.9.2342.19200300.100.1.25", IA5, "example"),
            rdn("1.2.840.113549.1.9.1", IA5, "ca@lab.example"),
            rdn(CN, UTF8, "x"),
        ]);
        chain.set_subject(at, subject);
    });
    list.authorities(Meant::Good, "subject with two attributes in one set", |chain, at, _| {
        let value = |attribute, text| seq(&[oid(attribute), string(UTF8, text)]);
        chain.set_subject(at, seq(&[set(&[value(O, "Lab"), value(CN, "x")])]));
    });
    list.authorities(Meant::Open, "set of two attributes not sorted", |chain, at, _| {
        let value = |attribute, text| seq(&[oid(attribute), string(UTF8, text)]);
        chain.set_subject(at, seq(&[set(&[value(O, "Lab"), value(CN, "x")])]));
        chain.certs[at - 1].issuer = seq(&[tlv(0x31, &join(&[value(O, "Lab"), value(CN, "x")]))]);
    });
    list.authorities(Meant::Bad, "subject empty", |chain, at, _| chain.set_subject(at, seq::<Vec<u8>>(&[])));
    list.at(Place::Leaf, Meant::Open, "subject empty", |chain, at, _| chain.set_subject(at, seq::<Vec<u8>>(&[])));
    for critical in [false, true] {
        let what = if critical { "critical" } else { "not critical" };
        list.at(
            Place::Leaf,
            Meant::Open,
            &format!("subject empty, with subjectAltName {what}"),
            move |chain, at, _| {
                chain.set_subject(at, seq::<Vec<u8>>(&[]));
                let value = seq(&[implicit(2, b"device-01.lab.example")]);
                chain.certs[at].set(Extension::new(SUBJECT_ALT_NAME, critical, value));
            },
        );
    }
    let leaves: [(&str, Vec<u8>); 6] = [
        ("in BMPString", rdn(CN, BMP, "device-01")),
        ("in TeletexString", rdn(CN, TELETEX, "device-01")),
        ("with invalid UTF-8", utf8(&[0xff])),
        ("a number", raw_rdn(2, &[1])),
        ("with 100 characters", rdn(CN, UTF8, &"x".repeat(100))),
        ("with a long country", rdn(C, PRINTABLE, "Country")),
    ];
    for (what, attribute) in leaves {
        list.at(Place::Leaf, Meant::Open, &format!("subject {what}"), move |chain, at, _| {
            chain.set_subject(at, seq(&[&attribute]));
        });
    }
    list.everywhere(Meant::Bad, "subject no name", |chain, at, _| chain.set_subject(at, seq(&[octets(b"x")])));
    list.everywhere(Meant::Open, "subject with an empty set", |chain, at, _| {
        chain.set_subject(at, seq(&[tlv(0x31, &[]), rdn(CN, UTF8, "x")]));
    });
}

fn utf8(bytes: &[u8]) -> Vec<u8> {
    raw_rdn(UTF8, bytes)
}

fn universal(character: u32) -> Vec<u8> {
    raw_rdn(UNIVERSAL, &character.to_be_bytes())
}

fn raw_rdn(tag: u8, content: &[u8]) -> Vec<u8> {
    set(&[seq(&[oid(CN), tlv(tag, content)])])
}

fn times(list: &mut List) {
    let validity: [(&str, Meant, Vec<u8>, Vec<u8>); 25] = [
        ("expired", Meant::Bad, utc("200101000000Z"), utc("250101000000Z")),
        ("not yet valid", Meant::Bad, utc("270101000000Z"), utc("350101000000Z")),
        ("ending now", Meant::Good, utc("200101000000Z"), utc("260601000000Z")),
        ("ended a second ago", Meant::Bad, utc("200101000000Z"), utc("260531235959Z")),
        ("beginning now", Meant::Good, utc("260601000000Z"), utc("350101000000Z")),
        ("beginning in a second", Meant::Bad, utc("260601000001Z"), utc("350101000000Z")),
        ("ending before it begins", Meant::Bad, utc("350101000000Z"), utc("200101000000Z")),
        ("for a second", Meant::Good, utc("260601000000Z"), utc("260601000000Z")),
        ("without an end", Meant::Good, utc("200101000000Z"), generalized("99991231235959Z")),
        ("since 1950", Meant::Good, utc("500101000000Z"), utc("491231235959Z")),
        ("GeneralizedTime before 2050", Meant::Open, generalized("20200101000000Z"), generalized("20350101000000Z")),
        ("GeneralizedTime before 1950", Meant::Good, generalized("19000101000000Z"), utc("350101000000Z")),
        ("with a fraction", Meant::Open, utc("200101000000Z"), generalized("20600101000000.5Z")),
        ("with an offset", Meant::Open, utc("200101000000+0000"), utc("350101000000Z")),
        ("in UTCTime with an offset that matters", Meant::Open, utc("200101000000Z"), utc("260531230000-0200")),
        ("without seconds", Meant::Open, utc("2001010000Z"), utc("350101000000Z")),
        ("without a time zone", Meant::Open, utc("200101000000"), utc("350101000000Z")),
        ("in month 13", Meant::Bad, utc("200101000000Z"), utc("351301000000Z")),
        ("on February 30", Meant::Bad, utc("200101000000Z"), utc("350230000000Z")),
        ("at 24 o'clock", Meant::Bad, utc("200101000000Z"), utc("350101240000Z")),
        ("at a leap second", Meant::Open, utc("200101000000Z"), utc("350630235960Z")),
        ("empty", Meant::Bad, utc(""), utc("350101000000Z")),
        ("with letters", Meant::Bad, utc("2001010000xxZ"), utc("350101000000Z")),
        ("a text", Meant::Bad, string(PRINTABLE, "200101000000Z"), utc("350101000000Z")),
        ("year 0", Meant::Open, generalized("00000101000000Z"), utc("350101000000Z")),
    ];
    for (what, meant, not_before, not_after) in validity {
        list.everywhere(meant, &format!("time {what}"), move |chain, at, _| {
            chain.certs[at].not_before.clone_from(&not_before);
            chain.certs[at].not_after.clone_from(&not_after);
        });
    }
    list.everywhere(Meant::Bad, "time: one only", |chain, at, _| chain.certs[at].not_after.clear());
    list.everywhere(Meant::Bad, "time: three", |chain, at, _| {
        chain.certs[at].not_after = join(&[utc("350101000000Z"), utc("360101000000Z")]);
    });
}

fn fields(list: &mut List) {
    let versions = [
        ("absent", Vec::new(), Meant::Bad),
        ("1 explicit", explicit(0, &int(0)), Meant::Bad),
        ("2", explicit(0, &int(1)), Meant::Bad),
        ("4", explicit(0, &int(3)), Meant::Bad),
        ("300", explicit(0, &int(299)), Meant::Bad),
        ("negative", explicit(0, &tlv(0x02, &[0xff])), Meant::Bad),
        ("with a leading zero", explicit(0, &tlv(0x02, &[0, 2])), Meant::Bad),
        ("no number", explicit(0, &null()), Meant::Bad),
    ];
    for (what, version, meant) in versions {
        list.everywhere(meant, &format!("version {what}"), move |chain, at, _| {
            chain.certs[at].version.clone_from(&version);
        });
    }
    for (what, version) in [("1", Vec::new()), ("2", explicit(0, &int(1))), ("3", explicit(0, &int(2)))] {
        list.everywhere(Meant::Open, &format!("version {what} without extensions"), move |chain, at, _| {
            chain.certs[at].version.clone_from(&version);
            chain.certs[at].extensions.clear();
        });
    }
    let serials: [(&str, Meant, &'static [u8]); 8] = [
        ("zero", Meant::Open, &[0]),
        ("negative", Meant::Open, &[0x80, 1]),
        ("minus one", Meant::Open, &[0xff]),
        ("of 20 bytes", Meant::Good, &[0x7f; 20]),
        ("of 21 bytes", Meant::Open, &[0x7f; 21]),
        ("of 40 bytes", Meant::Open, &[0x7f; 40]),
        ("with leading zeros", Meant::Open, &[0, 0, 1]),
        ("empty", Meant::Open, &[]),
    ];
    for (what, meant, serial) in serials {
        list.everywhere(meant, &format!("serial number {what}"), |chain, at, _| {
            chain.certs[at].serial = serial.to_vec();
        });
    }
    list.everywhere(Meant::Good, "unique identifiers", |chain, at, _| {
        chain.certs[at].unique_ids = join(&[tlv(0x81, &[0, 1, 2]), tlv(0x82, &[0, 3, 4])]);
    });
    list.everywhere(Meant::Open, "unique identifiers in the wrong order", |chain, at, _| {
        chain.certs[at].unique_ids = join(&[tlv(0x82, &[0, 1, 2]), tlv(0x81, &[0, 3, 4])]);
    });
    list.everywhere(Meant::Bad, "more at the end of the signed part", |chain, at, _| {
        chain.certs[at].finish_tbs = |content| tlv(0x30, &join(&[content, null()]));
    });
    list.everywhere(Meant::Open, "long form of a short length in the signed part", |chain, at, _| {
        chain.certs[at].finish_tbs = |content| long_tlv(0x30, &content);
    });
    list.everywhere(Meant::Bad, "indefinite length", |chain, at, _| {
        chain.certs[at].finish_tbs = |content| join(&[&[0x30, 0x80], &content[..], &[0, 0]]);
    });
    list.everywhere(Meant::Bad, "the signed part is a set", |chain, at, _| {
        chain.certs[at].finish_tbs = |content| tlv(0x31, &content);
    });
    list.everywhere(Meant::Bad, "cut off", |chain, at, _| {
        chain.certs[at].finish = |der| der[..der.len() - 1].to_vec();
    });
    list.everywhere(Meant::Open, "bytes after the end", |chain, at, _| {
        chain.certs[at].finish = |der| join(&[der, vec![1, 2, 3]]);
    });
    list.everywhere(Meant::Bad, "a fourth field", |chain, at, _| {
        chain.certs[at].finish_signature = |signature| join(&[bits(0, &signature), null()]);
    });
}

fn signatures(list: &mut List) {
    let finish: [(&str, Meant, Finish); 7] = [
        ("with a bit changed", Meant::Bad, |mut signature| {
            let middle = signature.len() - 3;
            signature[middle] ^= 4;
            bits(0, &signature)
        }),
        ("with its first byte changed", Meant::Bad, |mut signature| {
            signature[0] ^= 1;
            bits(0, &signature)
        }),
        ("cut off", Meant::Bad, |signature| bits(0, &signature[..signature.len() - 1])),
        ("with a byte more", Meant::Bad, |signature| bits(0, &join(&[signature, vec![0]]))),
        ("empty", Meant::Bad, |_| bits(0, &[])),
        ("zeros", Meant::Bad, |signature| bits(0, &vec![0; signature.len()])),
        ("with unused bits", Meant::Bad, |mut signature| {
            let end = signature.len() - 1;
            signature[end] &= 0xfe;
            bits(1, &signature)
        }),
    ];
    for (what, meant, finish) in finish {
        list.signed(meant, &format!("signature {what}"), move |chain, at, _| chain.certs[at].finish_signature = finish);
        list.at(Place::Anchor, Meant::Open, &format!("signature {what}"), move |chain, at, _| {
            chain.certs[at].finish_signature = finish;
        });
    }
    list.signed(Meant::Bad, "signature by an ECDSA key with r = 0", |chain, at, _| {
        chain.set_key(at + 1, P256[4]);
        chain.certs[at].finish_signature = |_| bits(0, &seq(&[int(0), int(1)]));
    });
    list.signed(Meant::Bad, "ECDSA signature in BER", |chain, at, _| {
        chain.set_key(at + 1, P256[4]);
        chain.certs[at].finish_signature = |signature| bits(0, &join(&[&[0x30, 0x81, signature[1]], &signature[2..]]));
    });
    list.signed(Meant::Bad, "signature of another key of the kind", |chain, at, _| {
        chain.set_key(at + 1, P256[3]);
        chain.certs[at].signer = P256[4];
    });
    list.signed(Meant::Bad, "signature of a key of another kind", |chain, at, _| {
        chain.set_key(at + 1, P256[4]);
        chain.certs[at].signer = RSA[3];
        chain.certs[at].sign_with(Scheme::RsaPkcs1(Hash::Sha256));
    });
    list.signed(Meant::Bad, "signed by itself", |chain, at, _| {
        let key = chain.keys[at];
        chain.certs[at].signer = key;
        chain.certs[at].sign_with(Scheme::usual(key));
    });
    list.everywhere(Meant::Open, "changed after it was signed", |chain, at, _| {
        chain.certs[at].finish = |der| {
            let mut der = der;
            let position = der.windows(3).position(|window| window == b"Lab").expect("the name is there");
            der[position] ^= 0x20;
            der
        };
    });
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn algorithms(list: &mut List) {
    use Hash::{Md5, Sha1, Sha224, Sha256, Sha384, Sha512};
    for key in ["p256-5", "p384-3", "p521-3"] {
        for hash in [Sha256, Sha384, Sha512] {
            list.signed(Meant::Good, &format!("signed by {key} with {hash:?}"), move |chain, at, _| {
                chain.set_key(at + 1, key);
                chain.certs[at].sign_with(Scheme::Ecdsa(hash));
            });
        }
    }
    for hash in [Sha1, Sha224] {
        list.signed(Meant::Open, &format!("ECDSA with {hash:?}"), move |chain, at, _| {
            chain.set_key(at + 1, P256[4]);
            chain.certs[at].sign_with(Scheme::Ecdsa(hash));
        });
    }
    for hash in [Sha256, Sha384, Sha512] {
        list.signed(Meant::Good, &format!("RSA PKCS#1 with {hash:?}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            chain.certs[at].sign_with(Scheme::RsaPkcs1(hash));
        });
        list.signed(Meant::Good, &format!("RSA-PSS with {hash:?}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            chain.certs[at].sign_with(Scheme::pss(hash));
        });
    }
    for hash in [Md5, Sha1, Sha224] {
        list.signed(Meant::Open, &format!("RSA PKCS#1 with {hash:?}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            chain.certs[at].sign_with(Scheme::RsaPkcs1(hash));
        });
        list.at(Place::Anchor, Meant::Open, &format!("signed with RSA PKCS#1 with {hash:?}"), move |chain, at, _| {
            chain.certs[at].signer = RSA[3];
            chain.set_key(at, RSA[3]);
            chain.certs[at].sign_with(Scheme::RsaPkcs1(hash));
            chain.certs[at].signer = RSA[3];
        });
    }
    for (what, hash, mgf, salt) in [
        ("an empty salt", Sha256, Sha256, 0),
        ("a salt of 20 bytes", Sha256, Sha256, 20),
        ("a salt of 64 bytes", Sha256, Sha256, 64),
        ("the longest salt", Sha256, Sha256, 222),
        ("SHA-1 in its mask", Sha256, Sha1, 32),
        ("SHA-512 in its mask", Sha256, Sha512, 32),
        ("SHA-256 in its mask", Sha384, Sha256, 48),
        ("SHA-1", Sha1, Sha1, 20),
    ] {
        list.signed(Meant::Open, &format!("RSA-PSS with {what}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            chain.certs[at].sign_with(Scheme::RsaPss { hash, mgf, salt });
        });
    }
    // Signed as SHA-256 with 32 bytes of salt; the parameters say something else, or the same in another way.
    let sha256 = || seq(&[oid("2.16.840.1.101.3.4.2.1"), null()]);
    let mgf = || seq(&[oid("1.2.840.113549.1.1.8"), seq(&[oid("2.16.840.1.101.3.4.2.1"), null()])]);
    let bare = || seq(&[oid("2.16.840.1.101.3.4.2.1")]);
    let bare_mgf = || seq(&[oid("1.2.840.113549.1.1.8"), seq(&[oid("2.16.840.1.101.3.4.2.1")])]);
    let pss = [
        ("no parameters", seq(&[oid("1.2.840.113549.1.1.10")]), Meant::Bad),
        ("NULL for parameters", seq(&[oid("1.2.840.113549.1.1.10"), null()]), Meant::Bad),
        ("default parameters", pss_algorithm(&[]), Meant::Bad),
        (
            "a hash without NULL",
            pss_algorithm(&[explicit(0, &bare()), explicit(1, &bare_mgf()), explicit(2, &int(32))]),
            Meant::Open,
        ),
        (
            "another salt length than it has",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &mgf()), explicit(2, &int(48))]),
            Meant::Bad,
        ),
        (
            "the trailer written out",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &mgf()), explicit(2, &int(32)), explicit(3, &int(1))]),
            Meant::Open,
        ),
        (
            "trailer 2",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &mgf()), explicit(2, &int(32)), explicit(3, &int(2))]),
            Meant::Bad,
        ),
        (
            "a negative salt length",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &mgf()), explicit(2, &tlv(2, &[0xff]))]),
            Meant::Bad,
        ),
        (
            "parameters in another order",
            pss_algorithm(&[explicit(1, &mgf()), explicit(0, &sha256()), explicit(2, &int(32))]),
            Meant::Bad,
        ),
        (
            "an unknown mask",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &seq(&[oid(UNKNOWN)])), explicit(2, &int(32))]),
            Meant::Bad,
        ),
        (
            "more after its parameters",
            pss_algorithm(&[explicit(0, &sha256()), explicit(1, &mgf()), explicit(2, &int(32)), null()]),
            Meant::Bad,
        ),
    ];
    for (what, algorithm, meant) in pss {
        list.signed(meant, &format!("RSA-PSS with {what}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            chain.certs[at].sign_with(Scheme::pss(Sha256));
            chain.certs[at].inner_algorithm.clone_from(&algorithm);
            chain.certs[at].outer_algorithm.clone_from(&algorithm);
        });
    }
    let mismatches: [(&str, Change); 6] = [
        ("another hash inside", |cert| cert.inner_algorithm = Scheme::Ecdsa(Sha384).algorithm()),
        ("RSA inside", |cert| cert.inner_algorithm = Scheme::RsaPkcs1(Sha256).algorithm()),
        ("SHA-1 inside", |cert| cert.inner_algorithm = Scheme::Ecdsa(Sha1).algorithm()),
        ("an unknown algorithm inside", |cert| cert.inner_algorithm = seq(&[oid(UNKNOWN)])),
        ("another hash outside", |cert| cert.outer_algorithm = Scheme::Ecdsa(Sha384).algorithm()),
        ("an unknown algorithm outside", |cert| cert.outer_algorithm = seq(&[oid(UNKNOWN)])),
    ];
    for (what, change) in mismatches {
        list.signed(Meant::Bad, &format!("algorithms that differ: {what}"), move |chain, at, _| {
            chain.set_key(at + 1, P256[4]);
            change(&mut chain.certs[at]);
        });
        list.at(Place::Anchor, Meant::Open, &format!("algorithms that differ: {what}"), move |chain, at, _| {
            chain.set_key(at, P256[4]);
            change(&mut chain.certs[at]);
        });
    }
    for (what, inner, outer) in [("inside", true, false), ("outside", false, true), ("inside and outside", true, true)]
    {
        list.signed(Meant::Open, &format!("RSA without NULL {what}"), move |chain, at, _| {
            chain.set_key(at + 1, RSA[3]);
            let bare = seq(&[oid("1.2.840.113549.1.1.11")]);
            let cert = &mut chain.certs[at];
            for (field, applies) in [(&mut cert.inner_algorithm, inner), (&mut cert.outer_algorithm, outer)] {
                if applies {
                    field.clone_from(&bare);
                }
            }
        });
        list.signed(Meant::Open, &format!("ECDSA with NULL {what}"), move |chain, at, _| {
            chain.set_key(at + 1, P256[4]);
            let bare = seq(&[oid("1.2.840.10045.4.3.2"), null()]);
            let cert = &mut chain.certs[at];
            for (field, applies) in [(&mut cert.inner_algorithm, inner), (&mut cert.outer_algorithm, outer)] {
                if applies {
                    field.clone_from(&bare);
                }
            }
        });
    }
    for (what, parameters) in [("an OCTET STRING", octets(b"x")), ("a sequence", seq(&[int(1)]))] {
        list.signed(Meant::Bad, &format!("ECDSA with {what} for parameters"), move |chain, at, _| {
            chain.set_key(at + 1, P256[4]);
            let algorithm = seq(&[oid("1.2.840.10045.4.3.2"), parameters.clone()]);
            chain.certs[at].inner_algorithm.clone_from(&algorithm);
            chain.certs[at].outer_algorithm = algorithm;
        });
    }
    list.everywhere(Meant::Open, "an unknown signature algorithm", |chain, at, _| {
        let algorithm = seq(&[oid(UNKNOWN)]);
        chain.certs[at].inner_algorithm.clone_from(&algorithm);
        chain.certs[at].outer_algorithm = algorithm;
    });
    for key in ["rsa1024-1", "ed25519-1", "secp256k1-1", "brainpool-1", "p224-1"] {
        list.authorities(Meant::Open, &format!("key {key}"), move |chain, at, _| chain.set_key(at, key));
        list.at(Place::Leaf, Meant::Open, &format!("key {key}"), move |chain, at, _| {
            chain.certs[at].public_key = public_key(key);
        });
    }
    list.everywhere(Meant::Open, "key with a compressed point", |chain, at, _| {
        chain.set_key(at, P256[4]);
        let point = public_key(P256[4]);
        let coordinates = &point[point.len() - 64..];
        let prefix = 2 | (coordinates[63] & 1);
        let algorithm = seq(&[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")]);
        chain.certs[at].public_key = seq(&[algorithm, bits(0, &[&[prefix], &coordinates[..32]].concat())]);
    });
    list.everywhere(Meant::Open, "key not on its curve", |chain, at, _| {
        chain.set_key(at, P256[4]);
        let mut key = public_key(P256[4]);
        let end = key.len() - 1;
        key[end] ^= 1;
        chain.certs[at].public_key = key;
    });
    list.everywhere(Meant::Open, "key of an unknown kind", |chain, at, _| {
        chain.certs[at].public_key = seq(&[seq(&[oid(UNKNOWN)]), bits(0, b"key")]);
    });
    list.everywhere(Meant::Open, "key as RSA-PSS", |chain, at, _| {
        chain.set_key(at, RSA[3]);
        let key = public_key(RSA[3]);
        let body = &key[key.len() - (4 + 1 + 270)..];
        chain.certs[at].public_key = seq(&[seq(&[oid("1.2.840.113549.1.1.10")]), body.to_vec()]);
        if let Some(below) = at.checked_sub(1) {
            chain.certs[below].sign_with(Scheme::pss(Sha256));
        } else {
            return;
        }
        if at == chain.last() && chain.certs[at].signer == RSA[3] {
            chain.certs[at].sign_with(Scheme::pss(Sha256));
        }
    });
    list.everywhere(Meant::Open, "RSA key without NULL", |chain, at, _| {
        chain.set_key(at, RSA[3]);
        let key = public_key(RSA[3]);
        let body = &key[key.len() - (4 + 1 + 270)..];
        chain.certs[at].public_key = seq(&[seq(&[oid("1.2.840.113549.1.1.1")]), body.to_vec()]);
    });
}

fn alternative_names(list: &mut List) {
    let names: [(&str, Meant, Vec<u8>); 19] = [
        ("a DNS name", Meant::Good, implicit(2, b"device-01.lab.example")),
        ("a wildcard", Meant::Good, implicit(2, b"*.lab.example")),
        ("an empty DNS name", Meant::Open, implicit(2, b"")),
        ("a DNS name with a space", Meant::Open, implicit(2, b"a b")),
        ("a DNS name beyond ASCII", Meant::Open, implicit(2, &[0xe9])),
        ("an IPv4 address", Meant::Good, implicit(7, &[10, 1, 2, 3])),
        ("an IPv6 address", Meant::Good, implicit(7, &[0x20; 16])),
        ("an address of 5 bytes", Meant::Open, implicit(7, &[1; 5])),
        ("an empty address", Meant::Open, implicit(7, &[])),
        ("a mail address", Meant::Good, implicit(1, b"device@lab.example")),
        ("an URI", Meant::Good, implicit(6, b"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")),
        ("a directory name", Meant::Good, explicit(4, &name("other"))),
        ("a directory name that is none", Meant::Open, explicit(4, &int(1))),
        ("a registered identifier", Meant::Good, implicit(8, &[0x2a, 3, 4])),
        (
            "an other name",
            Meant::Good,
            explicit(0, &join(&[oid("1.3.6.1.4.1.311.20.2.3"), explicit(0, &string(UTF8, "device@lab.example"))])),
        ),
        ("an other name without a value", Meant::Open, explicit(0, &oid("1.3.6.1.4.1.311.20.2.3"))),
        ("an EDI party", Meant::Open, explicit(5, &explicit(1, &string(UTF8, "party")))),
        ("an X.400 address", Meant::Open, explicit(3, &seq(&[seq::<Vec<u8>>(&[])]))),
        ("an unknown form", Meant::Bad, implicit(9, b"x")),
    ];
    for (what, meant, name) in names {
        list.at(Place::Leaf, meant, &format!("subjectAltName with {what}"), move |chain, at, rng| {
            chain.certs[at].set(Extension::new(SUBJECT_ALT_NAME, rng.one_in(2), seq(&[&name])));
        });
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn shapes(list: &mut List) {
    list.chain(Meant::Bad, "an intermediate is missing", 3..=5, |mut chain, rng| {
        chain.withheld.push(1 + rng.below(chain.last() - 1));
        chain
    });
    list.chain(Meant::Good, "an unrelated certificate", 2..=5, |mut chain, rng| {
        let other = Chain::random(2, rng);
        chain.extra.push(other.certs[rng.below(2)].clone());
        chain.extra_first = rng.one_in(2);
        chain
    });
    list.chain(Meant::Good, "with the enrolled certificate", 2..=5, |mut chain, rng| {
        chain.extra.push(chain.certs[chain.last()].clone());
        chain.extra_first = rng.one_in(2);
        chain
    });
    list.chain(Meant::Good, "in another order", 4..=5, |mut chain, _| {
        for at in (1..chain.last()).rev() {
            chain.withheld.push(at);
            chain.extra.push(chain.certs[at].clone());
        }
        chain
    });
    list.chain(Meant::Good, "an intermediate twice", 3..=5, |mut chain, rng| {
        chain.extra.push(chain.certs[1 + rng.below(chain.last() - 1)].clone());
        chain
    });
    list.chain(Meant::Open, "another intermediate with the same name and key, expired", 3..=5, |mut chain, rng| {
        let mut twin = chain.certs[1 + rng.below(chain.last() - 1)].clone();
        twin.not_before = utc("200101000000Z");
        twin.not_after = utc("250101000000Z");
        twin.serial = vec![0x22];
        chain.extra.push(twin);
        chain.extra_first = rng.one_in(2);
        chain
    });
    list.chain(Meant::Open, "another intermediate with the same name and another key", 3..=5, |mut chain, rng| {
        let mut twin = chain.certs[1 + rng.below(chain.last() - 1)].clone();
        twin.public_key = public_key(P256[4]);
        twin.set(subject_key_id(P256[4]));
        twin.serial = vec![0x22];
        chain.extra.push(twin);
        chain.extra_first = rng.one_in(2);
        chain
    });
    list.chain(Meant::Bad, "enrolled: the same name with another key", 2..=5, |mut chain, _| {
        let mut other = chain.certs[chain.last()].clone();
        other.public_key = public_key(P256[4]);
        if chain.keys[chain.last()] == P256[4] {
            other.public_key = public_key(P256[3]);
        }
        other.signer = P256[4];
        other.sign_with(Scheme::Ecdsa(Hash::Sha256));
        chain.enrolled = Some(other);
        chain
    });
    list.chain(Meant::Open, "enrolled: the same name and key, another certificate", 2..=5, |mut chain, _| {
        let mut other = chain.certs[chain.last()].clone();
        other.serial = vec![0x23];
        chain.enrolled = Some(other);
        chain
    });
    list.chain(Meant::Bad, "enrolled: another root", 2..=5, |mut chain, rng| {
        let mut other = Chain::random(2, rng).certs.remove(1);
        other.subject = name("Another root");
        other.issuer = name("Another root");
        chain.enrolled = Some(other);
        chain
    });
    list.chain(Meant::Good, "enrolled: an intermediate, with more above presented", 3..=5, |mut chain, rng| {
        chain.enrolled = Some(chain.certs[1 + rng.below(chain.last() - 1)].clone());
        chain
    });
    list.chain(Meant::Bad, "enrolled: another device's certificate", 2..=5, |mut chain, _| {
        let mut other = chain.certs[0].clone();
        other.subject = name("device-02");
        other.public_key = public_key(P256[4]);
        chain.enrolled = Some(other);
        chain
    });
    list.chain(Meant::Open, "enrolled: the device's own certificate", 2..=5, |mut chain, _| {
        chain.enrolled = Some(chain.certs[0].clone());
        chain
    });
    list.chain(Meant::Bad, "a device that signs", 2..=3, |mut chain, rng| {
        // The chain's leaf signs another.
        let key = "p256-5";
        let mut leaf = Chain::of_keys(vec![key, "p256-4"], rng).certs.remove(0);
        leaf.issuer.clone_from(&chain.certs[0].subject);
        leaf.subject = name("device-02");
        leaf.signer = chain.keys[0];
        leaf.sign_with(Scheme::usual(chain.keys[0]));
        leaf.set(authority_key_id(chain.keys[0]));
        chain.certs.insert(0, leaf);
        chain.keys.insert(0, key);
        chain
    });
    for length in [7, 8, 9, 10, 16, 17, 20] {
        let meant = if length <= 8 { Meant::Good } else { Meant::Open };
        list.chain(meant, &format!("{length} certificates"), 2..=2, move |_, rng| {
            // The keys come round again; the names do not.
            Chain::of_keys((0..length).map(|at| P256[at % 5]).collect(), rng)
        });
    }
    list.chain(Meant::Bad, "a ring of authorities", 4..=4, |mut chain, _| {
        chain.certs[2].issuer = name(&common_name(1));
        chain.certs[2].signer = chain.keys[1];
        chain.certs[2].sign_with(Scheme::usual(chain.keys[1]));
        chain
    });
}
