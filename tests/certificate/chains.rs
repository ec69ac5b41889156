//! Chains are refused for what RFC 5280 section 6.1 refuses, with the reason, as `openssl verify` refuses them.

use iot_enroll::certificate::{Certificate, ChainError, chain};

use crate::forge::{
    ANY_USAGE, CLIENT_AUTH, CN, ECDSA_SHA256, ECDSA_SHA384, EMAIL, Forge, IA5, Key, NOW, O, SERVER_AUTH, UTF8,
    algorithm, alternative_names, authority, common_name, constraints, der, extended_usage, extension, extension_of,
    identifiers, name, openssl_verifies, rdn, sequence, usage,
};
use crate::support::DAY;

/// Root, intermediate and leaf before they are made.
struct Lab {
    keys: [Key; 3],
    root: Forge,
    intermediate: Forge,
    leaf: Forge,
}

impl Lab {
    fn new() -> Self {
        Self {
            keys: [Key::new(), Key::new(), Key::new()],
            root: Forge::authority("Root", "Root"),
            intermediate: Forge::authority("Factory", "Root"),
            leaf: Forge::leaf("dev-01", "Factory"),
        }
    }

    /// What is presented, and the trust anchor.
    fn make(&self) -> ([Certificate; 2], Certificate) {
        let [root, intermediate, leaf] = &self.keys;
        let presented = [self.leaf.make(leaf, intermediate), self.intermediate.make(intermediate, root)];
        (presented, self.root.make(root, root))
    }

    /// Why the chain is not valid; that openssl does not call it valid either.
    fn refusal(&self, case: &str) -> String {
        self.refusal_here(case, &["-x509_strict"])
    }

    fn refusal_here(&self, case: &str, options: &[&str]) -> String {
        let (presented, root) = self.make();
        assert_ne!(openssl_verifies(&presented, std::slice::from_ref(&root), options), Some(true), "openssl: {case}");
        match chain::verify(&presented, &root, NOW) {
            Ok(_) => panic!("{case}: valid"),
            Err(error) => error.to_string(),
        }
    }

    /// That the chain is valid, here and for openssl.
    fn accepted(&self, case: &str) {
        let (presented, root) = self.make();
        assert_ne!(openssl_verifies(&presented, std::slice::from_ref(&root), &[]), Some(false), "openssl: {case}");
        assert_eq!(chain::verify(&presented, &root, NOW).map(|path| path.len()), Ok(3), "{case}");
    }
}

fn lab(change: impl FnOnce(&mut Lab)) -> Lab {
    let mut lab = Lab::new();
    change(&mut lab);
    lab
}

#[test]
fn two_signature_algorithms_are_one_too_many() {
    Lab::new().accepted("one algorithm");
    let lab = lab(|lab| lab.leaf.inner = algorithm(ECDSA_SHA384));
    let said = lab.refusal("another inner algorithm");
    let wanted = "CN=dev-01 names two signature algorithms: ecdsa-with-SHA256 beside the signature, ecdsa-with-SHA384 in \
                  the signed part";
    assert_eq!(said, wanted);
    // Parameters count as well.
    let parameters = sequence(&[der(0x06, ECDSA_SHA256), der(0x05, &[])]);
    let said = self::lab(|lab| lab.leaf.inner = parameters).refusal("other parameters");
    assert!(said.contains("names two signature algorithms"), "{said}");
}

#[test]
fn authorities_have_to_be_for_client_authentication() {
    for usages in [&[CLIENT_AUTH][..], &[SERVER_AUTH, CLIENT_AUTH], &[ANY_USAGE]] {
        let lab = lab(|lab| lab.intermediate.extensions.push(extended_usage(usages)));
        let (presented, root) = lab.make();
        assert!(chain::verify(&presented, &root, NOW).is_ok(), "{usages:?}");
    }
    for at_root in [false, true] {
        let said = lab(|lab| {
            let authority = if at_root { &mut lab.root } else { &mut lab.intermediate };
            authority.extensions.push(extended_usage(&[SERVER_AUTH]));
        })
        .refusal("for servers only");
        let who = if at_root { "Root" } else { "Factory" };
        let wanted = "may not issue client certificates: its extended key usage lacks client authentication";
        assert_eq!(said, format!("CN={who} {wanted}"));
    }
    // A certificate of a server is not judged here.
    let server = lab(|lab| lab.leaf.extensions.push(extended_usage(&[SERVER_AUTH])));
    let (presented, root) = server.make();
    assert!(chain::verify(&presented, &root, NOW).is_ok());
}

#[test]
fn critical_extensions_that_are_not_processed_are_named() {
    let policies = sequence(&[sequence(&[der(0x06, &[0x2a, 0x03])])]);
    for (case, extension) in [
        ("policies", extension(32, true, &policies)),
        (
            "distribution points",
            extension(31, true, &sequence(&[sequence(&[der(0xa0, &der(0xa0, &der(0x86, b"http://a/b")))])])),
        ),
        ("names", extension(17, true, &sequence(&[der(0x82, b"a.example")]))),
        ("inhibited mapping", extension(36, true, &sequence(&[der(0x81, &[0])]))),
    ] {
        lab(|lab| lab.leaf.extensions.push(extension)).accepted(case);
    }
    for (name, extension) in [
        ("1.2.3.4", extension_of(&[0x2a, 0x03, 0x04], true, &der(0x05, &[]))),
        ("issuerAltName", extension(18, true, &sequence(&[der(0x82, b"a.example")]))),
        ("subjectDirectoryAttributes", extension(9, true, &sequence(&[]))),
        (
            "authorityInfoAccess",
            extension_of(
                &[0x2b, 6, 1, 5, 5, 7, 1, 1],
                true,
                &sequence(&[sequence(&[der(0x06, &[0x2b, 6, 1, 5, 5, 7, 0x30, 1]), der(0x86, b"http://a/b")])]),
            ),
        ),
    ] {
        for at in 0..3 {
            let lab =
                lab(|lab| [&mut lab.leaf, &mut lab.intermediate, &mut lab.root][at].extensions.push(extension.clone()));
            let said = lab.refusal(name);
            let who = ["dev-01", "Factory", "Root"][at];
            assert_eq!(said, format!("CN={who} has a critical extension that is not supported: {name}"));
        }
    }
    // A policy that has to be explicit is one that only policies could meet.
    let (presented, root) = lab(|lab| {
        lab.intermediate.extensions.push(extension(36, true, &sequence(&[der(0x80, &[0])])));
    })
    .make();
    let said = chain::verify(&presented, &root, NOW).expect_err("not valid").to_string();
    assert!(said.ends_with("not supported: policyConstraints"), "{said}");
}

#[test]
fn malformed_and_doubled_extensions_are_named_and_the_rest_is_read() {
    let number = der(0x02, &[1]);
    for (name, extension, reason) in [
        ("keyUsage", usage(0x80), "it occurs more than once"),
        ("keyUsage", extension(15, false, &number), "it occurs more than once"),
        ("extendedKeyUsage", extension(37, false, &sequence(&[])), "it allows no usage at all"),
        ("extendedKeyUsage", extension(37, false, &number), "it does not decode"),
        ("basicConstraints", extension(19, true, &sequence(&[number.clone(), number.clone()])), "it does not decode"),
        ("basicConstraints", extension(19, true, &sequence(&[der(0x02, &[0xff])])), "its path length is negative"),
        ("subjectAltName", alternative_names(&[]), "it holds no name"),
        ("subjectAltName", alternative_names(&[der(0x82, b"\xff")]), "it holds a name that is no text"),
        ("subjectKeyIdentifier", extension(14, false, b"bare"), "it does not decode"),
        ("nameConstraints", extension(30, true, &sequence(&[])), "it constrains nothing"),
        ("cRLDistributionPoints", extension(31, false, b"\x30\x03abc"), "it does not decode"),
        (
            "cRLDistributionPoints",
            extension(31, false, &sequence(&[sequence(std::slice::from_ref(&number))])),
            "it does not decode",
        ),
    ] {
        let (presented, root) = lab(|lab| lab.leaf.extensions.push(extension)).make();
        let leaf = &presented[0];
        let found = leaf.malformed_extensions();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].name.eq_ignore_ascii_case(name), "{found:?}");
        assert_eq!(found[0].reason, reason, "{name}");
        assert_eq!(leaf.subject().common_name(), Some("dev-01"));
        assert!(leaf.key_usage().is_some_and(|usage| usage.digital_signature));
        let said = chain::verify(&presented, &root, NOW).expect_err("not valid").to_string();
        assert_eq!(said, format!("CN=dev-01 has a malformed extension, {}: {reason}", found[0].name));
    }
    // Also what has no frame of an extension, and what no version but the third has.
    let (presented, _) = lab(|lab| lab.leaf.extensions.push(sequence(&[der(0x06, &[0x55, 0x1d, 0x0e])]))).make();
    assert_eq!(presented[0].malformed_extensions()[0].name, "subjectKeyIdentifier");
    let said = lab(|lab| lab.leaf.version = None).refusal("extensions in version 1");
    assert_eq!(said, "CN=dev-01 is of X.509 version 1 and has extensions, which only version 3 has");
    let said = lab(|lab| {
        lab.intermediate.version = None;
        lab.intermediate.extensions.clear();
    })
    .refusal("an authority of version 1");
    assert!(said.starts_with("CN=Factory is not an authority"), "{said}");
}

#[test]
fn key_identifiers_that_are_there_fit() {
    let identifier = |value: &[u8]| extension(14, false, &der(0x04, value));
    let named = |value: &[u8]| extension(35, false, &sequence(&[der(0x80, value)]));
    let with = |of_issuer: &[u8], in_leaf: &[u8]| {
        lab(|lab| {
            lab.intermediate.extensions.push(identifier(of_issuer));
            lab.leaf.extensions.push(named(in_leaf));
        })
    };
    with(b"one", b"one").accepted("the same");
    let said = with(b"one", b"two").refusal_here("another", &[]);
    assert_eq!(said, "the authority key identifier of CN=dev-01 is not that of its issuer, CN=Factory");
    let serial = |issuer: &str, serial: u8| {
        let issuer = der(0xa1, &der(0xa4, &common_name(issuer)));
        let value = sequence(&[issuer, der(0x82, &[0x11, 0x22, serial])]);
        lab(|lab| lab.leaf.extensions.push(extension(35, false, &value)))
    };
    serial("Root", 0x33).accepted("issuer and serial number");
    serial("Root", 0x34).refusal_here("another serial number", &[]);
    serial("Other", 0x33).refusal_here("another issuer", &[]);
    let critical = extension(14, true, &der(0x04, b"one"));
    let said = lab(|lab| lab.intermediate.extensions.push(critical)).refusal("critical");
    assert!(said.contains("subjectKeyIdentifier: it is marked critical"), "{said}");
}

#[test]
fn path_length_and_validity_are_those_of_every_authority() {
    let limited = |length| lab(|lab| lab.root.extensions[0] = authority(Some(length)));
    limited(1).accepted("one authority of one");
    let said = limited(0).refusal("one authority of none");
    assert_eq!(said, "CN=Root allows 0 authorities below it, and there are 1");
    let ended = sequence(&[der(0x17, b"290101000000Z"), der(0x17, b"300101000000Z")]);
    for at in 0..3 {
        let said = lab(|lab| [&mut lab.leaf, &mut lab.intermediate, &mut lab.root][at].validity = ended.clone());
        let said = said.refusal("expired");
        assert!(said.starts_with(&format!("CN={} expired at 2030-01-01", ["dev-01", "Factory", "Root"][at])), "{said}");
    }
    // Times that others write are read.
    for (not_before, not_after) in [
        (der(0x17, b"3001010000Z"), der(0x17, b"310101000000+0130")),
        (der(0x18, b"20300101000000.5Z"), der(0x18, b"99991231235959Z")),
        (der(0x18, b"2030010100Z"), der(0x18, b"20310101000000-0800")),
    ] {
        let (presented, root) = lab(|lab| lab.leaf.validity = sequence(&[not_before, not_after])).make();
        assert!(chain::verify(&presented, &root, NOW).is_ok());
        assert!(presented[0].not_before() < NOW && NOW < presented[0].not_after());
    }
}

#[test]
fn times_that_do_not_denote_one_moment_are_malformed() {
    let not_before = der(0x17, b"250101000000Z");
    for not_after in [
        der(0x18, b"20610101000000"),
        der(0x18, b"206101010000"),
        der(0x17, b"310101000000"),
        der(0x18, b"20610101000000+2500"),
        der(0x17, b"310101000000+1300"),
        der(0x18, b"20610101000000-0199"),
    ] {
        let forged = lab(|lab| lab.leaf.validity = sequence(&[not_before.clone(), not_after.clone()]));
        let der = forged.leaf.der(&forged.keys[2], &forged.keys[1]);
        assert!(Certificate::from_der(&der).is_err(), "{not_after:02x?}");
    }
}

/// One chain under an intermediate with constraints: its leaf's subject, alternative names, and whether openssl agrees.
fn constrained(permitted: &[Vec<u8>], excluded: &[Vec<u8>], subject: Vec<u8>, names: &[Vec<u8>]) -> Lab {
    lab(|lab| {
        lab.intermediate.extensions.push(constraints(permitted, excluded));
        lab.leaf.subject = subject;
        if !names.is_empty() {
            lab.leaf.extensions.push(alternative_names(names));
        }
    })
}

fn dns(name: &str) -> Vec<u8> {
    der(0x82, name.as_bytes())
}

fn mail(address: &str) -> Vec<u8> {
    der(0x81, address.as_bytes())
}

fn uri(uri: &str) -> Vec<u8> {
    der(0x86, uri.as_bytes())
}

fn ip(octets: &[u8]) -> Vec<u8> {
    der(0x87, octets)
}

fn directory(name: &[u8]) -> Vec<u8> {
    der(0xa4, name)
}

#[test]
fn names_within_the_constraints_of_an_authority_are_accepted() {
    let organization = name(&[rdn(O, UTF8, b"Contoso")]);
    let below = name(&[rdn(O, 0x13, b"CONTOSO"), rdn(CN, UTF8, b"dev-01")]);
    let with_mail = name(&[rdn(CN, UTF8, b"dev-01"), rdn(EMAIL, IA5, b"a@example.com")]);
    let device = || common_name("dev-01");
    for (case, permitted, excluded, subject, names) in [
        ("a subject below", vec![directory(&organization)], vec![], below.clone(), vec![]),
        ("an alternative name below", vec![directory(&organization)], vec![], below.clone(), vec![directory(&below)]),
        ("not the excluded", vec![], vec![directory(&organization)], device(), vec![]),
        ("the host", vec![dns("example.com")], vec![], device(), vec![dns("EXAMPLE.com")]),
        ("below the host", vec![dns("example.com")], vec![], device(), vec![dns("a.b.example.com")]),
        ("leading dot", vec![dns(".example.com")], vec![], device(), vec![dns("a.example.com")]),
        ("one of two", vec![dns("a.example"), dns("b.example")], vec![], device(), vec![dns("b.example")]),
        ("a wildcard", vec![dns("example.com")], vec![], device(), vec![dns("*.example.com")]),
        ("beside the excluded", vec![], vec![dns("example.com")], device(), vec![dns("badexample.com")]),
        ("no name of the form", vec![dns("example.com")], vec![], device(), vec![ip(&[10, 0, 0, 1])]),
        ("an address", vec![ip(&[10, 0, 0, 0, 255, 0, 0, 0])], vec![], device(), vec![ip(&[10, 1, 2, 3])]),
        ("another address", vec![], vec![ip(&[10, 0, 0, 0, 255, 0, 0, 0])], device(), vec![ip(&[11, 1, 2, 3])]),
        ("the mail of a host", vec![mail("example.com")], vec![], device(), vec![mail("a@example.com")]),
        ("the mail of a domain", vec![mail(".example.com")], vec![], device(), vec![mail("a@b.example.com")]),
        ("a mailbox", vec![mail("a@example.com")], vec![], device(), vec![mail("a@EXAMPLE.com")]),
        ("mail in the subject", vec![mail("example.com")], vec![], with_mail, vec![]),
        ("a URI", vec![uri("example.com")], vec![], device(), vec![uri("https://example.com:8443/a?b")]),
        ("a URI of a domain", vec![uri(".example.com")], vec![], device(), vec![uri("https://a.example.com/")]),
    ] {
        constrained(&permitted, &excluded, subject, &names).accepted(case);
    }
    // A common name is the ID of a device and no DNS name; openssl takes one with a dot for a DNS name.
    let (presented, root) = constrained(&[dns("example.com")], &[], common_name("dev.01"), &[]).make();
    assert!(chain::verify(&presented, &root, NOW).is_ok());
}

#[test]
fn names_outside_the_constraints_of_an_authority_are_refused() {
    let organization = name(&[rdn(O, UTF8, b"Contoso")]);
    let below = name(&[rdn(O, 0x1e, b"\0c\0o\0n\0t\0o\0s\0o"), rdn(CN, UTF8, b"dev-01")]);
    let with_mail = name(&[rdn(CN, UTF8, b"dev-01"), rdn(EMAIL, IA5, b"a@example.org")]);
    let device = || common_name("dev-01");
    let private = || ip(&[10, 0, 0, 0, 255, 0, 0, 0]);
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let (outside, inside) = ("does not permit the name", "excludes the name");
    for (case, permitted, excluded, subject, names, said) in [
        ("subject outside", vec![directory(&organization)], vec![], device(), vec![], outside),
        ("subject inside", vec![], vec![directory(&organization)], below.clone(), vec![], inside),
        ("directory outside", vec![directory(&organization)], vec![], below, vec![directory(&device())], outside),
        ("another host", vec![dns("example.com")], vec![], device(), vec![dns("example.org")], outside),
        ("a part of a label", vec![dns("example.com")], vec![], device(), vec![dns("badexample.com")], outside),
        ("only below the dot", vec![dns(".example.com")], vec![], device(), vec![dns("example.com")], outside),
        ("a second name", vec![dns("example.com")], vec![], device(), vec![dns("example.com"), dns("b.org")], outside),
        ("excluded", vec![], vec![dns("example.com")], device(), vec![dns("A.Example.COM")], inside),
        ("excluded and permitted", vec![dns("com")], vec![dns("b.com")], device(), vec![dns("a.b.com")], inside),
        ("another network", vec![private()], vec![], device(), vec![ip(&[11, 0, 0, 1])], outside),
        ("another protocol", vec![private()], vec![], device(), vec![ip(&v6)], outside),
        ("excluded network", vec![], vec![private()], device(), vec![ip(&[10, 9, 8, 7])], inside),
        ("another host's mail", vec![mail("example.com")], vec![], device(), vec![mail("a@b.example.com")], outside),
        ("another mailbox", vec![mail("a@example.com")], vec![], device(), vec![mail("A@example.com")], outside),
        ("mail in the subject", vec![mail("example.com")], vec![], with_mail, vec![], outside),
        ("excluded mail", vec![], vec![mail("example.com")], device(), vec![mail("a@EXAMPLE.com")], inside),
        (
            "another host's URI",
            vec![uri("example.com")],
            vec![],
            device(),
            vec![uri("https://a.example.com/")],
            outside,
        ),
        ("the domain itself", vec![uri(".example.com")], vec![], device(), vec![uri("https://example.com/")], outside),
    ] {
        let text = constrained(&permitted, &excluded, subject, &names).refusal_here(case, &[]);
        assert!(text.starts_with(&format!("CN=Factory {said} ")), "{case}: {text}");
    }
    let cannot = "cannot be compared with the name constraints of CN=Factory";
    let user = |host: &str| vec![uri(&format!("https://{host}/"))];
    for (case, permitted, excluded, names) in [
        ("an address in a URI", vec![uri("example.com")], vec![], user("10.0.0.1")),
        ("no host in a URI", vec![uri("example.com")], vec![], vec![uri("urn:a:b")]),
        ("no network", vec![ip(&[10, 0, 0, 0])], vec![], vec![ip(&[10, 0, 0, 1])]),
        ("an object identifier", vec![der(0x88, &[0x2a])], vec![], vec![der(0x88, &[0x2a])]),
        ("no mail address", vec![mail("example.com")], vec![], vec![mail("example.com")]),
    ] {
        let text = constrained(&permitted, &excluded, device(), &names).refusal_here(case, &[]);
        assert!(text.ends_with(cannot), "{case}: {text}");
    }
    // Refused here alone: a wildcard that covers an excluded host, another name of the same host, what only looks like the
    // host, masks with holes.
    for (case, permitted, excluded, names) in [
        ("a wildcard", vec![], vec![dns("b.example.com")], vec![dns("*.example.com")]),
        ("the root of the DNS", vec![], vec![dns("example.com")], vec![dns("a.example.com.")]),
        ("a user in a URI", vec![uri("example.com")], vec![], user("example.com@example.org")),
        ("no host name", vec![], vec![dns("example.com")], vec![dns("a b")]),
        ("a mask with holes", vec![], vec![ip(&[10, 0, 0, 0, 255, 0, 255, 0])], vec![ip(&[11, 0, 0, 1])]),
    ] {
        let (presented, root) = constrained(&permitted, &excluded, device(), &names).make();
        assert!(chain::verify(&presented, &root, NOW).is_err(), "{case}");
    }
}

#[test]
fn a_refused_name_is_shown_without_its_control_characters() {
    let refusal =
        |names: &[Vec<u8>]| constrained(&[dns("example.com")], &[], common_name("dev-01"), names).refusal("names");
    assert!(refusal(&[dns("a\0.example.com")]).contains("DNS:a\\00.example.com"));
    assert!(refusal(&[dns("a\n\u{1b}[2J.example.com")]).contains("DNS:a\\0A\\1B[2J.example.com"));
}

#[test]
fn name_constraints_apply_below_and_those_with_distances_are_refused() {
    // Of the root: for the intermediate as well as for the leaf.
    let organization = name(&[rdn(O, UTF8, b"Contoso")]);
    let said =
        lab(|lab| lab.root.extensions.push(constraints(&[directory(&organization)], &[]))).refusal("both outside");
    assert!(said.contains("does not permit the name DirName:CN="), "{said}");
    // A self-issued authority is exempt, the leaf never is.
    let self_issued = |leaf: &str| {
        lab(|lab| {
            lab.root.extensions.push(constraints(&[], &[directory(&common_name("Root"))]));
            lab.root.extensions.extend(identifiers(b"root", b"root"));
            lab.intermediate.extensions.extend(identifiers(b"factory", b"root"));
            lab.intermediate.subject = common_name("Root");
            lab.leaf = Forge::leaf(leaf, "Root");
            lab.leaf.extensions.extend(identifiers(b"leaf", b"factory"));
        })
    };
    self_issued("dev-01").accepted("a self-issued authority");
    assert!(self_issued("Root").refusal("a self-issued leaf").starts_with("CN=Root excludes the name DirName:CN=Root"));
    // Both authorities constrain.
    let both = |host: &str| {
        lab(|lab| {
            lab.root.extensions.push(constraints(&[dns("com")], &[]));
            lab.intermediate.extensions.push(constraints(&[dns("a.com"), dns("a.org")], &[]));
            lab.leaf.extensions.push(alternative_names(&[dns(host)]));
        })
    };
    both("x.a.com").accepted("within both");
    assert!(both("x.a.org").refusal("within one").starts_with("CN=Root does not permit"));
    assert!(both("x.b.com").refusal("within the other").starts_with("CN=Factory does not permit"));
    let with_distance = |distance: Vec<u8>| {
        let subtree = sequence(&[dns("example.com"), distance]);
        lab(|lab| {
            lab.intermediate.extensions.push(extension(30, true, &sequence(&[der(0xa0, &subtree)])));
            lab.leaf.extensions.push(alternative_names(&[dns("example.com")]));
        })
    };
    with_distance(der(0x80, &[0])).accepted("a minimum of 0");
    for distance in [der(0x80, &[1]), der(0x81, &[5])] {
        let said = with_distance(distance).refusal("a distance");
        assert!(said.starts_with("the name DNS:example.com of CN=dev-01 cannot be compared"), "{said}");
    }
    // Not critical, they hold all the same.
    let said = lab(|lab| {
        lab.intermediate.extensions.push(extension(30, false, &sequence(&[der(0xa1, &sequence(&[dns("b.org")]))])));
        lab.leaf.extensions.push(alternative_names(&[dns("b.org")]));
    });
    assert!(said.refusal_here("not critical", &[]).starts_with("CN=Factory excludes the name DNS:b.org"));
}

#[test]
fn any_of_several_trust_anchors_will_do_in_any_order() {
    let lab = Lab::new();
    let (presented, root) = lab.make();
    let stranger = {
        let key = Key::new();
        Forge::authority("Stranger", "Stranger").make(&key, &key)
    };
    let namesake = {
        let key = Key::new();
        Forge::authority("Factory", "Root").make(&key, &lab.keys[0])
    };
    let anchors = [stranger.clone(), namesake.clone(), presented[1].clone(), root.clone()];
    for turn in 0..anchors.len() {
        let mut turned = anchors.clone();
        turned.rotate_left(turn);
        let path = chain::verify(&presented[..1], &turned, NOW).expect("an anchor");
        assert_eq!(path, [&presented[0], &presented[1]]);
    }
    let two = [stranger.clone(), root.clone()];
    let path = chain::verify(&presented, &two, NOW).expect("the root");
    assert_eq!(path.last(), Some(&&root));
    // One valid path suffices: the other anchor of that name is expired.
    let expired = {
        let mut expired = lab.intermediate.clone();
        expired.validity = sequence(&[der(0x17, b"290101000000Z"), der(0x17, b"300101000000Z")]);
        expired.make(&lab.keys[1], &lab.keys[0])
    };
    for anchors in [[expired.clone(), presented[1].clone()], [presented[1].clone(), expired.clone()]] {
        assert_eq!(chain::verify(&presented[..1], &anchors, NOW).map(|path| path[1].clone()), Ok(presented[1].clone()));
    }
    for presented in [
        [presented[0].clone(), expired.clone(), presented[1].clone()],
        [presented[0].clone(), presented[1].clone(), expired.clone()],
    ] {
        assert_eq!(chain::verify(&presented, &root, NOW).map(|path| path.len()), Ok(3));
    }
    let error = chain::verify(&[presented[0].clone(), expired], &root, NOW).expect_err("expired");
    assert!(matches!(error, ChainError::Expired { .. }), "{error}");
    // What came closest is told.
    let error = chain::verify(&presented[..1], &[stranger.clone(), namesake], NOW).expect_err("none");
    assert_eq!(error.to_string(), "CN=dev-01 was not signed by the key of CN=Factory");
    let full = [presented[0].clone(), presented[1].clone(), root];
    let error = chain::verify(&full, &stranger, NOW).expect_err("elsewhere");
    assert_eq!(error.to_string(), "the chain leads to another root, CN=Root, and not to CN=Stranger");
    assert_eq!(chain::verify(&full, &[], NOW), Err(ChainError::NoAnchor));
}

#[test]
fn a_search_among_many_authorities_ends() {
    // Authorities that all have one name and certify each other.
    let keys: Vec<Key> = (0..12).map(|_| Key::new()).collect();
    let mut presented = vec![Forge::leaf("dev-01", "Ring").make(&keys[0], &keys[1])];
    for (at, key) in keys.iter().enumerate() {
        presented.extend(
            keys.iter()
                .enumerate()
                .filter(|(signer, _)| *signer != at)
                .map(|(_, signer)| Forge::authority("Ring", "Ring").make(key, signer)),
        );
    }
    let elsewhere = {
        let key = Key::new();
        Forge::authority("Root", "Root").make(&key, &key)
    };
    let error = chain::verify(&presented, &elsewhere, NOW).expect_err("none leads there");
    assert!(matches!(error, ChainError::TooManyPaths | ChainError::TooLong { .. }), "{error}");
    let two = {
        let between = |issuer: usize, key: usize| {
            Forge::authority(["A", "B"][1 - issuer], ["A", "B"][issuer]).make(&keys[key], &keys[1 - key])
        };
        [Forge::leaf("dev-01", "A").make(&keys[5], &keys[0]), between(1, 0), between(0, 1)]
    };
    let error = chain::verify(&two, &elsewhere, NOW).expect_err("a ring");
    assert!(matches!(error, ChainError::Circular { .. }), "{error}");
}

#[test]
fn a_proof_of_possession_is_a_chain_as_well() {
    let keys = [Key::new(), Key::new()];
    let code = "70A1B2C3";
    let check = |authority: &Forge, proof: &Forge| {
        let authority = authority.make(&keys[0], &keys[0]);
        chain::verify_possession(&proof.make(&keys[1], &keys[0]), &authority, code, NOW)
            .map_err(|error| error.to_string())
    };
    let (authority, proof) = (Forge::authority("Root", "Root"), Forge::leaf(code, "Root"));
    assert_eq!(check(&authority, &proof), Ok(()));
    let refused = |authority: &Forge, proof: &Forge| check(authority, proof).expect_err("proves nothing");
    let said = refused(&authority, &Forge::leaf(code, "Other"));
    assert_eq!(said, "the issuer name of CN=70A1B2C3 is CN=Other, not CN=Root, whose key signed it");
    let constrained = authority.clone().with(constraints(&[directory(&name(&[rdn(O, UTF8, b"Contoso")]))], &[]));
    assert!(refused(&constrained, &proof).starts_with("CN=Root does not permit the name DirName:CN=70A1B2C3"));
    let critical = proof.clone().with(extension_of(&[0x2a, 0x03, 0x04], true, &der(0x05, &[])));
    assert!(refused(&authority, &critical).ends_with("not supported: 1.2.3.4"));
    let mut mixed = proof.clone();
    mixed.inner = algorithm(ECDSA_SHA384);
    assert!(refused(&authority, &mixed).contains("two signature algorithms"));
    let servers = authority.clone().with(extended_usage(&[SERVER_AUTH]));
    assert!(refused(&servers, &proof).contains("lacks client authentication"));
    let later = NOW + DAY * 300;
    let (authority, proof) = (authority.make(&keys[0], &keys[0]), proof.make(&keys[1], &keys[0]));
    assert!(matches!(chain::verify_possession(&proof, &authority, code, later), Err(ChainError::Expired { .. })));
}
