//! Distinguished names are compared by RFC 5280 section 7.1 and written by RFC 4514.

use iot_enroll::certificate::{Certificate, Name, chain};

use crate::forge::{
    BMP, CN, EMAIL, Forge, IA5, Key, NOW, NUMERIC, O, PRINTABLE, TELETEX, UNIVERSAL, UTF8, attribute, authority, der,
    identifiers, name, openssl_verifies, rdn, usage,
};

fn subject(der: &[u8]) -> Name {
    let key = Key::new();
    Forge::new(der.to_vec(), name(&[])).make(&key, &key).subject().clone()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|character| u32::from(character).to_be_bytes()).collect()
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("Latin-1")).collect()
}

#[test]
fn a_common_name_is_read_from_every_string_type() {
    let text = "Zürich-7";
    let encodings =
        [(UTF8, text.as_bytes().to_vec()), (TELETEX, latin1(text)), (BMP, utf16(text)), (UNIVERSAL, utf32(text))];
    for (tag, value) in encodings {
        let name = subject(&name(&[rdn(CN, tag, &value)]));
        assert_eq!(name.common_name(), Some(text), "{tag:#x}");
        assert_eq!(name.to_string(), "CN=Zürich-7", "{tag:#x}");
    }
    for (tag, text) in [(PRINTABLE, "a@b"), (IA5, "a*b"), (NUMERIC, "12 34"), (0x1a, "visible")] {
        assert_eq!(subject(&name(&[rdn(CN, tag, text.as_bytes())])).common_name(), Some(text), "{tag:#x}");
    }
    assert_eq!(subject(&name(&[rdn(CN, BMP, &utf16("dev😀"))])).common_name(), Some("dev😀"));
    for (tag, value) in [
        (UTF8, &b"a\xff"[..]),
        (BMP, b"\0a\0"),
        (BMP, b"\xd8\x00\0a"),
        (UNIVERSAL, b"\0\x11\0\0"),
        (UNIVERSAL, b"\0\0\0"),
        (0x04, b"octets"),
    ] {
        let name = subject(&name(&[rdn(CN, tag, value)]));
        assert_eq!(name.common_name(), None, "{tag:#x}");
        assert!(name.to_string().starts_with("CN=#"), "{name}");
    }
    let two = subject(&name(&[rdn(CN, UTF8, b"first"), rdn(CN, BMP, &utf16("last"))]));
    assert_eq!(two.common_name(), Some("last"));
}

#[test]
fn text_has_the_escapes_of_rfc_4514() {
    let shown = |text: &str| subject(&name(&[rdn(CN, UTF8, text.as_bytes())])).to_string();
    for (text, expected) in [
        ("a, O=b", "CN=a\\, O=b"),
        ("a+b;c<d>e\"f\\g", "CN=a\\+b\\;c\\<d\\>e\\\"f\\\\g"),
        ("#1", "CN=\\#1"),
        ("a#1", "CN=a#1"),
        (" a ", "CN=\\ a\\ "),
        (" ", "CN=\\ "),
        ("", "CN="),
        ("a\0b", "CN=a\\00b"),
        // What a terminal or a log would obey.
        ("a\nb", "CN=a\\0Ab"),
        ("\u{1b}[2Ja", "CN=\\1B[2Ja"),
        ("a\u{9b}b", "CN=a\\C2\\9Bb"),
        ("a\u{202e}b", "CN=a\\E2\\80\\AEb"),
        ("a=b", "CN=a=b"),
    ] {
        assert_eq!(shown(text), expected);
    }
    let set = der(0x31, &[attribute(CN, UTF8, b"a"), attribute(O, PRINTABLE, b"b")].concat());
    let mixed = subject(&name(&[rdn(&[0x55, 0x04, 0x06], PRINTABLE, b"DE"), set, rdn(EMAIL, IA5, b"x@y.z")]));
    assert_eq!(mixed.to_string(), "C=DE, CN=a + O=b, Email=x@y.z");
    // A type without a name has its value in hexadecimal.
    let unknown = subject(&name(&[rdn(&[0x2a, 0x03, 0x04], UTF8, b"hi"), rdn(&[0x55, 0x04, 0x05], PRINTABLE, b"7")]));
    assert_eq!(unknown.to_string(), "1.2.3.4=#0C026869, serialNumber=7");
    assert_eq!(subject(&name(&[])).to_string(), "");
    assert!(!format!("{unknown:?}").contains("OID("));
}

/// Pairs of names, and whether they are the same.
fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>, bool)> {
    let cn = |tag, value: &[u8]| name(&[rdn(CN, tag, value)]);
    let two = |first: Vec<u8>, second: Vec<u8>| name(&[der(0x31, &[first, second].concat())]);
    let (a, b) = (attribute(CN, UTF8, b"a"), attribute(O, UTF8, b"b"));
    vec![
        ("UTF-8 and printable", cn(UTF8, b"Root"), cn(PRINTABLE, b"Root"), true),
        ("UTF-8 and Teletex", cn(UTF8, "Gerät".as_bytes()), cn(TELETEX, &latin1("Gerät")), true),
        ("Teletex and BMP", cn(TELETEX, &latin1("Gerät")), cn(BMP, &utf16("Gerät")), true),
        ("BMP and universal", cn(BMP, &utf16("日本")), cn(UNIVERSAL, &utf32("日本")), true),
        ("case", cn(UTF8, b"Root CA"), cn(PRINTABLE, b"rOOT ca"), true),
        ("white space", cn(UTF8, b"  Root   CA "), cn(UTF8, b"Root CA"), true),
        ("order in a set", two(a.clone(), b.clone()), two(b.clone(), a.clone()), true),
        ("other white space", cn(UTF8, b"RootCA"), cn(UTF8, b"Root CA"), false),
        ("Teletex by octet", cn(TELETEX, &latin1("Wärzel")), cn(TELETEX, &latin1("Würzel")), false),
        ("separator in a value", cn(UTF8, b"a, O=b"), name(&[rdn(CN, UTF8, b"a"), rdn(O, UTF8, b"b")]), false),
        ("plus in a value", cn(UTF8, b"a + O=b"), two(a.clone(), b.clone()), false),
        ("set and sequence", two(a.clone(), b.clone()), name(&[rdn(CN, UTF8, b"a"), rdn(O, UTF8, b"b")]), false),
        (
            "order",
            name(&[rdn(CN, UTF8, b"a"), rdn(O, UTF8, b"b")]),
            name(&[rdn(O, UTF8, b"b"), rdn(CN, UTF8, b"a")]),
            false,
        ),
        ("type", cn(UTF8, b"a"), name(&[rdn(O, UTF8, b"a")]), false),
        ("prefix", cn(UTF8, b"a"), name(&[rdn(CN, UTF8, b"a"), rdn(O, UTF8, b"b")]), false),
        ("text of hexadecimal", cn(0x04, b"ab"), cn(UTF8, b"#04026162"), false),
        ("octets and text", cn(0x04, b"ab"), cn(UTF8, b"ab"), false),
        ("value types", cn(0x04, b"ab"), cn(0x24, b"ab"), false),
    ]
}

#[test]
fn names_are_the_same_by_their_decoded_values() {
    for (case, one, two, same) in pairs() {
        let (one, two) = (subject(&one), subject(&two));
        assert_eq!(one.matches(&two), same, "{case}: {one} and {two}");
        assert_eq!(two.matches(&one), same, "{case}: the other way round");
        assert!(one.matches(&one) && two.matches(&two), "{case}");
    }
    // What cannot be decoded is the same as itself alone.
    let broken = [&b"a\xff"[..], b"a\xfe"].map(|value| subject(&name(&[rdn(CN, UTF8, value)])));
    assert!(broken[0].matches(&broken[0]) && !broken[0].matches(&broken[1]));
    // RFC 4518 folds every letter, openssl only ASCII; and drops what cannot be seen.
    let same = |one: &str, two: &str| {
        let name = |text: &str| subject(&name(&[rdn(CN, UTF8, text.as_bytes())]));
        name(one).matches(&name(two))
    };
    assert!(same("ÉCOLE", "école") && same("Soft\u{ad}ware", "software") && same("a\u{a0}b", "a b"));
    assert!(!same("straße", "strasse") && !same("e\u{301}", "é"));
}

#[test]
fn chains_hang_together_by_the_same_names_as_in_openssl() {
    let (root_key, key) = (Key::new(), Key::new());
    for (case, one, two, same) in pairs() {
        let root =
            Forge::new(one.clone(), one.clone()).with(authority(None)).with(usage(0x06)).make(&root_key, &root_key);
        let leaf = Forge::new(name(&[rdn(CN, UTF8, b"dev-01")]), two).with(usage(0x80)).make(&key, &root_key);
        let presented = [leaf];
        assert_eq!(chain::verify(&presented, &root, NOW).is_ok(), same, "{case}");
        if let Some(openssl) = openssl_verifies(&presented, std::slice::from_ref(&root), &[]) {
            assert_eq!(openssl, same, "openssl: {case}");
        }
    }
}

#[test]
fn a_name_that_only_looks_the_same_does_not_pass_the_path_length_by() {
    let keys = [Key::new(), Key::new(), Key::new()];
    let real = name(&[rdn(CN, UTF8, b"a"), rdn(O, UTF8, b"b")]);
    let disguised = name(&[rdn(CN, UTF8, b"a, O=b")]);
    let identified = |mut forge: Forge, own: &[u8], issuer: &[u8]| {
        forge.extensions.extend(identifiers(own, issuer));
        forge
    };
    let root = Forge::new(real.clone(), real.clone()).with(authority(Some(0))).with(usage(0x06));
    let root = identified(root, b"root", b"root").make(&keys[0], &keys[0]);
    let chain_over = |intermediate: &[u8]| {
        let between = Forge::new(intermediate.to_vec(), real.clone()).with(authority(None)).with(usage(0x06));
        let between = identified(between, b"between", b"root");
        let leaf = Forge::new(name(&[rdn(CN, UTF8, b"dev-01")]), intermediate.to_vec()).with(usage(0x80));
        let leaf = identified(leaf, b"leaf", b"between");
        [leaf.make(&keys[2], &keys[1]), between.make(&keys[1], &keys[0])]
    };
    let error = chain::verify(&chain_over(&disguised), &root, NOW).expect_err("too long");
    assert_eq!(error.to_string(), "CN=a, O=b allows 0 authorities below it, and there are 1");
    // One that is self-issued does not count.
    let presented: [Certificate; 2] = chain_over(&real);
    assert_eq!(chain::verify(&presented, &root, NOW).map(|path| path.len()), Ok(3));
    assert_ne!(openssl_verifies(&presented, std::slice::from_ref(&root), &[]), Some(false));
}
