//! Keys are created in the token, and stay there.

use std::fs;

use crate::lab::{Lab, run, uri};
use crate::support::openssl;

const ALGORITHMS: [&str; 5] = ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"];

#[test]
fn a_chain_of_cas_with_keys_of_each_kind_verifies_with_openssl() {
    let Some(lab) = Lab::start() else { return };
    for algorithm in ALGORITHMS {
        let (root, intermediate, device) =
            (format!("root-{algorithm}"), format!("inter-{algorithm}"), format!("d-{algorithm}"));
        let (root_key, own_key) = (uri(&root), uri(&intermediate));
        lab.run(&["cert", "root", &root, "--ca-key", &root_key, "--algorithm", algorithm]).ok();
        let issue = ["cert", "intermediate", &intermediate, &root, "--ca-key", &root_key, "--key", &own_key];
        // Long RSA keys take seconds to create.
        let own_algorithm = if algorithm > "rsa-2048" { "ec-p256" } else { algorithm };
        lab.run(&[&issue[..], &["--algorithm", own_algorithm]].concat()).ok();
        lab.run(&["cert", "device", &device, &intermediate, "--ca-key", &own_key, "--no-pfx"]).ok();
        let file = |name: &str, suffix: &str| {
            let files = lab.files();
            let stem: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            let is_it = |file: &&String| {
                let found: String = file.trim_end_matches(suffix).chars().filter(char::is_ascii_alphanumeric).collect();
                file.ends_with(suffix) && found.eq_ignore_ascii_case(&stem)
            };
            files.iter().find(is_it).unwrap_or_else(|| panic!("{name}{suffix} in {files:?}")).clone()
        };
        let (root, intermediate) = (file(&root, "_cert.pem"), file(&intermediate, "_cert.pem"));
        let verify = ["verify", "-CAfile", &root, "-untrusted", &intermediate, &file(&device, "_cert.pem")];
        let Some(verified) = openssl(lab.path(), &verify) else { return };
        assert!(verified.status.success(), "{algorithm}: {}", String::from_utf8_lossy(&verified.stderr));
    }
    // Only the devices have key files.
    let keys: Vec<_> = lab.files().into_iter().filter(|name| name.contains("_key.") || name.contains(".pfx")).collect();
    assert_eq!(keys.len(), ALGORITHMS.len(), "{keys:?}");
    assert!(keys.iter().all(|name| name.starts_with('d')), "{keys:?}");
}

#[test]
fn the_result_says_where_the_key_is() {
    let Some(lab) = Lab::start() else { return };
    let key = uri("root");
    let shown = lab.run(&["cert", "root", "lab-root", "--ca-key", &key, "-o", "json"]);
    assert!(shown.stderr.contains("neither a key file nor a PFX file was written"), "{}", shown.stderr);
    let record = shown.json();
    assert_eq!((record["privateKey"].as_str(), record["pfx"].is_null()), (Some(&*key), true), "{record}");
    assert_eq!(lab.files(), ["labRoot_cert.pem", "labRoot_fullchain.pem"]);
}

#[test]
fn an_existing_key_is_used_only_if_that_is_requested() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let again = lab.run(&["cert", "root", "other", "--ca-key", &uri("root")]).fails(1);
    assert!(again.contains("already has the key") && again.contains("--existing-key"), "{again}");
    lab.run(&["cert", "root", "other", "--ca-key", &uri("root"), "--existing-key"]).ok();
    // The algorithm is that of the key.
    let both = ["cert", "root", "third", "--ca-key", &uri("root"), "--existing-key", "--algorithm", "rsa-2048"];
    lab.run(&both).fails(2);
    let missing = lab.run(&["cert", "root", "third", "--ca-key", &uri("nope"), "--existing-key"]).fails(1);
    assert!(missing.contains("has no private key \"nope\""), "{missing}");
    assert!(!lab.exists("third_cert.pem"));
    // An ID is taken too.
    let id = "pkcs11:token=lab;object=a;id=%01?pin-source=file:pin";
    lab.run(&["cert", "root", "a", "--ca-key", id]).ok();
    let id = id.replace("object=a", "object=b");
    assert!(lab.run(&["cert", "root", "b", "--ca-key", &id]).fails(1).contains("\"a\" (ID 01)"));
}

#[test]
fn no_key_is_created_for_a_certificate_that_cannot_be_written_or_issued() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let key = uri("second");
    // Its files exist.
    lab.run(&["cert", "root", "lab-root", "--ca-key", &key]).fails(1);
    // No CA is allowed below this one.
    lab.run(&["cert", "root", "short", "--no-pfx"]).ok();
    lab.run(&["cert", "edge-ca", "edge", "short", "--no-pfx"]).ok();
    lab.run(&["cert", "intermediate", "last", "edge Edge CA", "--no-pfx"]).ok();
    let used_up = lab.run(&["cert", "intermediate", "below", "last", "--key", &key]).fails(1);
    assert!(used_up.contains("path length is used up"), "{used_up}");
    let missing = lab.run(&["cert", "root", "new", "--ca-key", &key, "--existing-key"]).fails(1);
    assert!(missing.contains("has no private key"), "{missing}");
}

#[test]
fn a_key_that_cannot_be_used_is_reported_as_created() {
    let Some(lab) = Lab::start() else { return };
    for (fault, reason) in [
        ("extractable", "can be read from the token"),
        ("unsigning", "may not sign"),
        ("asking", "takes the PIN for each signature"),
    ] {
        let create = ["cert", "root", "r", "--ca-key", &uri(fault)];
        let Some(mut command) = lab.faulty(fault, &create) else { return };
        let error = run(&mut command).fails(1);
        assert!(
            error.contains("was created in the token \"lab\" and stays there") && error.contains(reason),
            "{error}"
        );
        assert!(error.contains("hint: delete the key"), "{error}");
        // It is not accepted one command later.
        let Some(mut command) = lab.faulty(fault, &[&create[..], &["--existing-key"]].concat()) else { return };
        let error = run(&mut command).fails(1);
        assert!(error.contains(reason) && !error.contains("was created"), "{error}");
    }
    assert!(lab.files().is_empty());
}

#[test]
fn a_key_whose_certificate_is_not_written_stays_for_existing_key() {
    let Some(lab) = Lab::start() else { return };
    let create = ["cert", "root", "r", "--ca-key", &uri("r")];
    let Some(mut command) = lab.faulty("race", &create) else { return };
    let error = run(command.env("RACE", "r_cert.pem")).fails(1);
    assert!(
        error.contains("the key stays in the token, for --existing-key") && error.contains("r_cert.pem"),
        "{error}"
    );
    fs::remove_file(lab.path().join("r_cert.pem")).expect("removed");
    lab.run(&[&create[..], &["--existing-key"]].concat()).ok();
}

#[test]
fn an_intermediate_has_a_key_of_its_own() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let root = uri("root");
    let issue = ["cert", "intermediate", "i", "lab-root", "--ca-key", &root, "--key", &root, "--existing-key"];
    let error = lab.run(&issue).fails(1);
    assert!(error.contains("a CA needs a key of its own"), "{error}");
    assert!(!lab.exists("i_cert.pem"));
}

#[test]
fn only_a_uri_creates_a_key_in_a_token() {
    let Some(lab) = Lab::start() else { return };
    for arguments in [
        &["cert", "root", "r", "--ca-key", "key.pem"][..],
        &["cert", "root", "r", "--existing-key"],
        &[
            "cert",
            "root",
            "r",
            "--ca-key",
            "pkcs11:token=lab;id=%01?pin-source=file:pin",
            "--existing-key",
            "--force",
            "--algorithm",
            "ec-p256",
        ],
    ] {
        lab.run(arguments).fails(2);
    }
    let unnamed = lab.run(&["cert", "root", "r", "--ca-key", "pkcs11:token=lab;id=%01?pin-source=file:pin"]).fails(1);
    assert!(unnamed.contains("needs a label: add object=LABEL"), "{unnamed}");
    assert!(lab.files().is_empty());
}
