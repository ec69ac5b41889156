//! Name constraints (RFC 5280 section 4.2.1.10): each form of name in and out of permitted and excluded subtrees.

use super::{
    chain::{C, CN, Chain, Extension, NAME_CONSTRAINTS, O, OU, SUBJECT_ALT_NAME, name, rdn},
    der::{IA5, PRINTABLE, TELETEX, UTF8, explicit, implicit, int, join, null, oid, seq, set, string},
    mutation::{List, Meant, Place},
};

const PERMITTED: u8 = 0;
const EXCLUDED: u8 = 1;

pub(super) fn dns(text: &str) -> Vec<u8> {
    implicit(2, text.as_bytes())
}

fn mail(text: &str) -> Vec<u8> {
    implicit(1, text.as_bytes())
}

fn uri(text: &str) -> Vec<u8> {
    implicit(6, text.as_bytes())
}

fn ip(bytes: &[u8]) -> Vec<u8> {
    implicit(7, bytes)
}

fn directory(parts: &[Vec<u8>]) -> Vec<u8> {
    explicit(4, &seq(parts))
}

fn subtrees(kind: u8, bases: &[Vec<u8>]) -> Vec<u8> {
    explicit(kind, &join(&bases.iter().map(|base| seq(&[base])).collect::<Vec<_>>()))
}

fn constraint(value: Vec<u8>) -> Extension {
    Extension::new(NAME_CONSTRAINTS, true, value)
}

/// A base, a name, and whether the name is within it; nothing where documents differ.
type Pair = (Vec<u8>, Vec<u8>, Option<bool>);

/// DNS names: within by added labels (RFC 5280 section 4.2.1.10).
fn dns_pairs() -> Vec<(&'static str, Pair)> {
    let pair = |what, base, name, within| (what, (dns(base), dns(name), within));
    vec![
        pair("equal", "lab.example", "lab.example", Some(true)),
        pair("label more", "lab.example", "a.lab.example", Some(true)),
        pair("two labels more", "lab.example", "b.a.lab.example", Some(true)),
        pair("other case", "LAB.example", "a.lab.EXAMPLE", Some(true)),
        pair("elsewhere", "lab.example", "a.test.example", Some(false)),
        pair("no label border", "lab.example", "alab.example", Some(false)),
        pair("shorter", "lab.example", "example", Some(false)),
        pair("empty base", "", "a.lab.example", Some(true)),
        pair("dot base", ".lab.example", "a.lab.example", None),
        pair("dot base and equal", ".lab.example", "lab.example", None),
        pair("dot base and elsewhere", ".lab.example", "alab.example", Some(false)),
        pair("wildcard within", "lab.example", "*.lab.example", Some(true)),
        pair("wildcard across", "a.lab.example", "*.lab.example", None),
        pair("wildcard elsewhere", "lab.example", "*.test.example", Some(false)),
        pair("final dot", "lab.example", "a.lab.example.", None),
        pair("final dot in base", "lab.example.", "a.lab.example", None),
        pair("empty name", "lab.example", "", None),
        pair("only a dot", ".", "a.lab.example", None),
        pair("starred base", "*.lab.example", "a.lab.example", None),
        pair("with NUL", "lab.example", "evil.test\0.lab.example", None),
        pair("with a space", "lab.example", "a b.lab.example", None),
        pair("with an underscore", "lab.example", "a_b.lab.example", None),
    ]
}

fn mail_pairs() -> Vec<(&'static str, Pair)> {
    let pair = |what, base, name, within| (what, (mail(base), mail(name), within));
    vec![
        pair("mailbox equal", "a@lab.example", "a@lab.example", Some(true)),
        pair("mailbox in other case of the host", "a@lab.example", "a@LAB.example", Some(true)),
        pair("mailbox in other case", "a@lab.example", "A@lab.example", None),
        pair("another mailbox", "a@lab.example", "b@lab.example", Some(false)),
        pair("host equal", "lab.example", "b@lab.example", Some(true)),
        pair("host in other case", "lab.example", "b@LAB.EXAMPLE", Some(true)),
        pair("host with a label more", "lab.example", "b@x.lab.example", Some(false)),
        pair("another host", "lab.example", "b@test.example", Some(false)),
        pair("domain", ".lab.example", "b@x.lab.example", Some(true)),
        pair("domain itself", ".lab.example", "b@lab.example", Some(false)),
        pair("another domain", ".lab.example", "b@xlab.example", Some(false)),
        pair("no mailbox", "lab.example", "lab.example", None),
        pair("two at", "lab.example", "a@test.example@lab.example", None),
        pair("quoted at", "lab.example", "\"a@test.example\"@lab.example", None),
        pair("empty base", "", "a@lab.example", None),
        pair("empty name", "lab.example", "", None),
    ]
}

fn uri_pairs() -> Vec<(&'static str, Pair)> {
    let pair = |what, base, name, within| (what, (uri(base), uri(name), within));
    vec![
        pair("host equal", "lab.example", "https://lab.example/x", Some(true)),
        pair("host with port and user", "lab.example", "https://user@lab.example:8443/x", Some(true)),
        pair("host in other case", "lab.example", "https://LAB.example", Some(true)),
        pair("host with a label more", "lab.example", "https://x.lab.example/", Some(false)),
        pair("another host", "lab.example", "https://test.example/lab.example", Some(false)),
        pair("domain", ".lab.example", "https://x.lab.example/", Some(true)),
        pair("domain itself", ".lab.example", "https://lab.example/", Some(false)),
        pair("user that looks like the host", "lab.example", "https://lab.example@test.example/", Some(false)),
        pair("query that looks like the host", "lab.example", "https://test.example?@lab.example", Some(false)),
        pair("fragment that looks like the host", "lab.example", "https://test.example#@lab.example", Some(false)),
        pair("backslash", "lab.example", "https://test.example\\@lab.example", None),
        pair("no authority", "lab.example", "urn:uuid:1", None),
        pair("an address", "lab.example", "https://10.1.2.3/", None),
        pair("an address of version 6", "lab.example", "https://[2001:db8::1]/", None),
        pair("no host", "lab.example", "https:///x", None),
        pair("empty", "lab.example", "", None),
    ]
}

fn ip_pairs() -> Vec<(&'static str, Pair)> {
    let v6 = |last: u8| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let v6_base = [&v6(0)[..], &[0xff; 15], &[0]].concat();
    let pair = |what, base: &[u8], name: &[u8], within| (what, (ip(base), ip(name), within));
    vec![
        pair("v4 within", &[10, 1, 0, 0, 255, 255, 0, 0], &[10, 1, 2, 3], Some(true)),
        pair("v4 outside", &[10, 1, 0, 0, 255, 255, 0, 0], &[10, 2, 2, 3], Some(false)),
        pair("v4 in all", &[0; 8], &[10, 2, 2, 3], Some(true)),
        pair("v4 single", &[10, 1, 2, 3, 255, 255, 255, 255], &[10, 1, 2, 3], Some(true)),
        pair("v4 base with host bits", &[10, 1, 2, 3, 255, 255, 0, 0], &[10, 1, 9, 9], None),
        pair("v4 mask with holes", &[10, 0, 3, 0, 255, 0, 255, 0], &[10, 9, 3, 9], None),
        pair("v6 within", &v6_base, &v6(7), Some(true)),
        pair("v6 outside", &v6_base, &[1; 16], Some(false)),
        pair("v4 base for a v6 address", &[10, 1, 0, 0, 255, 255, 0, 0], &v6(7), Some(false)),
        pair("v6 base for a v4 address", &v6_base, &[10, 1, 2, 3], Some(false)),
        pair("base of 5 bytes", &[10, 1, 0, 0, 255], &[10, 1, 2, 3], None),
        pair("address of 5 bytes", &[10, 1, 0, 0, 255, 255, 0, 0], &[10, 1, 2, 3, 4], None),
        pair("empty base", &[], &[10, 1, 2, 3], None),
    ]
}

fn directory_pairs() -> Vec<(&'static str, Pair)> {
    let leaf = || [rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab One"), rdn(CN, UTF8, "device-01")];
    let pair = |what, base: &[Vec<u8>], within| (what, (directory(base), directory(&leaf()), within));
    vec![
        pair("prefix", &[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab One")], Some(true)),
        pair("equal", &leaf(), Some(true)),
        pair("empty base", &[], Some(true)),
        pair("other string type", &[rdn(C, UTF8, "XX"), rdn(O, PRINTABLE, "Lab One")], Some(true)),
        pair("Teletex", &[rdn(C, PRINTABLE, "XX"), rdn(O, TELETEX, "Lab One")], None),
        pair("other case", &[rdn(C, PRINTABLE, "xx"), rdn(O, UTF8, "LAB one")], Some(true)),
        pair("other spaces", &[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, " Lab   One ")], Some(true)),
        pair("another value", &[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab Two")], Some(false)),
        pair("beginning of the value", &[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab")], Some(false)),
        pair("another type", &[rdn(C, PRINTABLE, "XX"), rdn(OU, UTF8, "Lab One")], Some(false)),
        pair("not from the beginning", &[rdn(O, UTF8, "Lab One")], Some(false)),
        pair("longer", &[leaf().to_vec(), vec![rdn(OU, UTF8, "x")]].concat(), Some(false)),
        pair(
            "in one set",
            &[set(&[seq(&[oid(C), string(PRINTABLE, "XX")]), seq(&[oid(O), string(UTF8, "Lab One")])])],
            Some(false),
        ),
        pair("text alike", &[rdn(C, PRINTABLE, "XX, O=Lab One")], Some(false)),
    ]
}

/// Forms that nothing is known about but their bytes.
fn other_pairs() -> Vec<(&'static str, Pair)> {
    let upn = |text: &str| explicit(0, &join(&[oid("1.3.6.1.4.1.311.20.2.3"), explicit(0, &string(UTF8, text))]));
    vec![
        ("other name", (upn("a"), upn("a"), None)),
        ("another other name", (upn("a"), upn("b"), None)),
        ("registered identifier", (implicit(8, &[0x2a, 3]), implicit(8, &[0x2a, 3, 4]), None)),
        (
            "EDI party",
            (explicit(5, &explicit(1, &string(UTF8, "p"))), explicit(5, &explicit(1, &string(UTF8, "p"))), None),
        ),
        ("X.400 address", (explicit(3, &seq(&[seq::<Vec<u8>>(&[])])), explicit(3, &seq(&[seq::<Vec<u8>>(&[])])), None)),
        ("unknown form", (implicit(9, b"x"), implicit(9, b"x"), None)),
        ("DNS base for an address", (dns("lab.example"), ip(&[10, 1, 2, 3]), Some(true))),
        ("other name for a DNS name", (upn("a"), dns("a.lab.example"), None)),
        ("registered identifier for a DNS name", (implicit(8, &[0x2a, 3]), dns("a.lab.example"), None)),
    ]
}

fn add_name(chain: &mut Chain, at: usize, name: &[u8]) {
    chain.certs[at].set(Extension::new(SUBJECT_ALT_NAME, false, seq(&[name])));
}

pub(super) fn mutations(list: &mut List) {
    let forms = [
        ("DNS", dns_pairs()),
        ("mail", mail_pairs()),
        ("URI", uri_pairs()),
        ("IP", ip_pairs()),
        ("directory", directory_pairs()),
        ("form", other_pairs()),
    ];
    for (form, pairs) in forms {
        for (what, (base, name, within)) in pairs {
            for kind in [PERMITTED, EXCLUDED] {
                let title = if kind == PERMITTED { "permitted" } else { "excluded" };
                let foreign = what.contains(" for ");
                // A constraint of another form does not apply, permitted or excluded.
                let good = within.map(|within| (form == "form" && foreign) || within == (kind == PERMITTED));
                let meant = good.map_or(Meant::Open, |good| if good { Meant::Good } else { Meant::Bad });
                let class = format!("{title} {form}, {what}");
                let (base_, name_) = (base.clone(), name.clone());
                // The subjects of the chain are directory names as well, and some are outside.
                let with_subjects = if form == "directory" { Meant::Open } else { meant };
                list.authorities(with_subjects, &class, move |chain, at, _| {
                    chain.certs[at].set(constraint(seq(&[subtrees(kind, std::slice::from_ref(&base_))])));
                    add_name(chain, 0, &name_);
                });
                if form == "directory" {
                    let base = base.clone();
                    let meant = if what == "equal" { Meant::Open } else { meant };
                    list.authorities(meant, &format!("{class}, as the subject"), move |chain, at, _| {
                        // Those between have no subject of their own in the way: they are within as well.
                        chain.certs[at].set(constraint(seq(&[subtrees(kind, std::slice::from_ref(&base))])));
                        let parts = [rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab One")];
                        for below in 1..at {
                            let own = rdn(CN, UTF8, &format!("Sub {below}"));
                            chain.set_subject(below, seq(&[&parts[..], &[own]].concat()));
                        }
                        chain.set_subject(0, seq(&[&parts[..], &[rdn(CN, UTF8, "device-01")]].concat()));
                    });
                }
            }
        }
    }
    subjects(list);
    subtleties(list);
}

/// Names in the subject.
fn subjects(list: &mut List) {
    const MAIL: &str = "1.2.840.113549.1.9.1";
    for (what, address, meant) in [("within", "a@lab.example", Meant::Good), ("outside", "a@test.example", Meant::Bad)]
    {
        list.authorities(meant, &format!("permitted mail, in the subject, {what}"), move |chain, at, _| {
            chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[mail("lab.example")])])));
            chain.set_subject(0, seq(&[rdn(CN, UTF8, "device-01"), rdn(MAIL, IA5, address)]));
        });
    }
    list.authorities(Meant::Bad, "excluded mail, in the subject", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(EXCLUDED, &[mail("lab.example")])])));
        chain.set_subject(0, seq(&[rdn(CN, UTF8, "device-01"), rdn(MAIL, IA5, "a@lab.example")]));
    });
    list.authorities(Meant::Open, "excluded mail, in the subject and another in subjectAltName", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(EXCLUDED, &[mail("lab.example")])])));
        chain.set_subject(0, seq(&[rdn(CN, UTF8, "device-01"), rdn(MAIL, IA5, "a@lab.example")]));
        add_name(chain, 0, &mail("a@test.example"));
    });
    for (what, host) in
        [("within", "device-01.lab.example"), ("outside", "device-01.test.example"), ("no host", "device 1")]
    {
        list.authorities(Meant::Open, &format!("permitted DNS, CN {what}"), move |chain, at, _| {
            chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[dns("lab.example")])])));
            chain.set_subject(0, name(host));
        });
    }
    list.authorities(Meant::Open, "permitted directory, subject empty", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[directory(&[rdn(C, PRINTABLE, "XX")])])])));
        chain.set_subject(0, seq::<Vec<u8>>(&[]));
        chain.certs[0].set(Extension::new(SUBJECT_ALT_NAME, true, seq(&[dns("a.lab.example")])));
    });
}

fn subtleties(list: &mut List) {
    list.authorities(Meant::Bad, "permitted DNS, one of two names outside", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[dns("lab.example")])])));
        let names = seq(&[dns("a.lab.example"), dns("a.test.example")]);
        chain.certs[0].set(Extension::new(SUBJECT_ALT_NAME, false, names));
    });
    list.authorities(Meant::Good, "permitted DNS, in the second of two", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[dns("test.example"), dns("lab.example")])])));
        add_name(chain, 0, &dns("a.lab.example"));
    });
    list.authorities(Meant::Bad, "permitted and excluded DNS, in both", |chain, at, _| {
        let value = join(&[subtrees(PERMITTED, &[dns("lab.example")]), subtrees(EXCLUDED, &[dns("a.lab.example")])]);
        chain.certs[at].set(constraint(seq(&[value])));
        add_name(chain, 0, &dns("x.a.lab.example"));
    });
    list.chain(Meant::Bad, "constraints of two CAs, within one only", 3..=5, |mut chain, _| {
        chain.certs[1].set(constraint(seq(&[subtrees(PERMITTED, &[dns("a.example"), dns("b.example")])])));
        chain.certs[2].set(constraint(seq(&[subtrees(PERMITTED, &[dns("a.example")])])));
        add_name(&mut chain, 0, &dns("x.b.example"));
        chain
    });
    list.chain(Meant::Good, "constraints of two CAs, within both", 3..=5, |mut chain, _| {
        chain.certs[1].set(constraint(seq(&[subtrees(PERMITTED, &[dns("a.example"), dns("b.example")])])));
        chain.certs[2].set(constraint(seq(&[subtrees(PERMITTED, &[dns("a.example")])])));
        add_name(&mut chain, 0, &dns("x.a.example"));
        chain
    });
    list.chain(Meant::Bad, "a CA outside the constraints above", 3..=5, |mut chain, rng| {
        let at = 2 + rng.below(chain.last() - 1);
        chain.certs[at].set(constraint(seq(&[subtrees(EXCLUDED, &[directory(&[rdn(C, PRINTABLE, "YY")])])])));
        chain.set_subject(at - 1, seq(&[rdn(C, PRINTABLE, "YY"), rdn(CN, UTF8, "Sub")]));
        chain
    });
    list.chain(Meant::Open, "a self-issued CA outside the constraints above", 3..=5, |mut chain, _| {
        let subject = chain.certs[2].subject.clone();
        chain.set_subject(1, subject.clone());
        for at in 1..=chain.last() {
            chain.certs[at].set(super::chain::basic_constraints(None));
        }
        let value = seq(&[subtrees(EXCLUDED, &[explicit(4, &subject)])]);
        chain.certs[2].set(constraint(value));
        chain
    });
    list.at(Place::Leaf, Meant::Open, "nameConstraints on the device's certificate", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(EXCLUDED, &[dns("elsewhere.example")])])));
    });
    let malformed: [(&str, Vec<u8>); 8] = [
        ("empty permitted", seq(&[explicit(PERMITTED, &[])])),
        ("empty excluded", seq(&[explicit(EXCLUDED, &[])])),
        ("minimum 1", seq(&[explicit(EXCLUDED, &seq(&[dns("x.example"), implicit(0, &[1])]))])),
        ("minimum 0 written out", seq(&[explicit(EXCLUDED, &seq(&[dns("x.example"), implicit(0, &[0])]))])),
        ("maximum", seq(&[explicit(EXCLUDED, &seq(&[dns("x.example"), implicit(1, &[9])]))])),
        (
            "excluded before permitted",
            seq(&[subtrees(EXCLUDED, &[dns("x.example")]), subtrees(PERMITTED, &[dns("example")])]),
        ),
        ("a third list", seq(&[subtrees(EXCLUDED, &[dns("x.example")]), explicit(2, &seq(&[dns("y.example")]))])),
        ("a base that is no name", seq(&[explicit(EXCLUDED, &seq(&[null()]))])),
    ];
    for (what, value) in malformed {
        list.authorities(Meant::Open, &format!("nameConstraints with {what}"), move |chain, at, _| {
            chain.certs[at].set(constraint(value.clone()));
            add_name(chain, 0, &dns("a.lab.example"));
        });
    }
    list.authorities(Meant::Open, "nameConstraints not critical, name outside", |chain, at, _| {
        let value = seq(&[subtrees(PERMITTED, &[dns("lab.example")])]);
        chain.certs[at].set(Extension::new(NAME_CONSTRAINTS, false, value));
        add_name(chain, 0, &dns("a.test.example"));
    });
    list.authorities(Meant::Open, "nameConstraints and a malformed subjectAltName", |chain, at, _| {
        chain.certs[at].set(constraint(seq(&[subtrees(PERMITTED, &[dns("lab.example")])])));
        chain.certs[0].set(Extension::new(SUBJECT_ALT_NAME, false, int(1)));
    });
    list.authorities(Meant::Open, "many nameConstraints", |chain, at, _| {
        let bases: Vec<_> = (0..1500).map(|number| dns(&format!("h{number}.example"))).collect();
        chain.certs[at].set(constraint(seq(&[subtrees(EXCLUDED, &bases)])));
        let names: Vec<_> = (0..1500).map(|number| dns(&format!("n{number}.example"))).collect();
        chain.certs[0].set(Extension::new(SUBJECT_ALT_NAME, false, seq(&names)));
    });
}
