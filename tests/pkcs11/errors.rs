//! Each failure says what is wrong and what to do.

use std::fs;

use crate::{
    lab::{Lab, TOKEN, run, uri},
    support::openssl,
};

/// Issues a device certificate with that key, which must fail.
#[track_caller]
fn refused(lab: &Lab, key: &str, status: i32, parts: &[&str]) {
    let error = lab.run(&["cert", "device", "d1", "lab-root", "--ca-key", key, "--no-pfx"]).fails(status);
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    assert!(!lab.exists("d1_cert.pem") && !lab.exists("d1_key.pem"));
}

#[test]
fn a_module_that_cannot_be_loaded_is_named() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    fs::write(lab.path().join("text.so"), "no library").expect("written");
    for (module, reason) in [
        ("/nope/module.so", "No such file or directory"),
        (".", "could not be loaded"),
        ("./text.so", "could not be loaded"),
        ("./tokens", "it is a directory"),
    ] {
        let key = format!("{}&module-path={module}", uri("root"));
        refused(&lab, &key, 1, &[&format!("the PKCS#11 module {module}"), reason, "PKCS11_MODULE_PATH"]);
    }
    // A library of another kind.
    if let Some(libm) = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"]
        .into_iter()
        .find(|path| fs::exists(path).is_ok_and(|exists| exists))
    {
        refused(&lab, &format!("{}&module-path={libm}", uri("root")), 1, &["it is not a PKCS#11 module"]);
    }
    let issue = ["cert", "device", "d1", "lab-root", "--ca-key", &uri("root")];
    let none = run(lab.command(&issue).env_remove("PKCS11_MODULE_PATH")).fails(2);
    assert!(none.contains("no PKCS#11 module is named") && none.contains("module-path=FILE"), "{none}");
    // The URI takes precedence.
    let key = format!("{}&module-path={}", uri("root"), lab.module().display());
    let issue = ["cert", "device", "d1", "lab-root", "--ca-key", &key, "--no-pfx"];
    run(lab.command(&issue).env("PKCS11_MODULE_PATH", "/nope.so")).ok();
}

#[test]
fn exactly_one_token_and_one_key_must_match() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let Some(()) = lab.create_token("spare") else { return };
    refused(
        &lab,
        "pkcs11:token=nope;object=root?pin-source=file:pin",
        1,
        &["no token with the label \"nope\"", "\"lab\"", "\"spare\""],
    );
    refused(
        &lab,
        "pkcs11:model=SoftHSM%20v2;object=root?pin-source=file:pin",
        1,
        &["several tokens", "slot-id=NUMBER"],
    );
    refused(&lab, &uri("other"), 1, &["no private key \"other\"; it has \"root\"", "cert root"]);
    refused(&lab, "pkcs11:token=lab?pin-source=file:pin", 2, &["names no key: add object=LABEL"]);
    // A key of another certificate.
    lab.run(&["cert", "root", "other", "--ca-key", &uri("other")]).ok();
    refused(&lab, &uri("other"), 1, &["does not belong to the certificate"]);
    // The ID distinguishes two keys with one label.
    lab.run(&["cert", "root", "file", "--no-pfx"]).ok();
    for id in ["aa", "bb"] {
        let Some(()) = lab.import("file_key.pem", "twice", id, &[]) else { return };
    }
    refused(&lab, &uri("twice"), 1, &["several private keys \"twice\"", "ID aa", "ID bb"]);
    let key = "pkcs11:token=lab;object=twice;id=%AA?pin-source=file:pin";
    lab.run(&["cert", "device", "d1", "file", "--ca-key", key, "--no-pfx"]).ok();
}

#[test]
fn a_key_that_cannot_sign_certificates_is_refused() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    for (name, arguments) in [
        (
            "RSA of 1024 bits",
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "k.pem"][..],
        ),
        (
            "EC on secp256k1",
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-out", "k.pem"],
        ),
    ] {
        let Some(made) = openssl(lab.path(), arguments) else { return };
        assert!(made.status.success());
        let Some(()) = lab.import("k.pem", name, &format!("{:02x}", name.len()), &[]) else { return };
        let key = format!("pkcs11:token={TOKEN};object={}?pin-source=file:pin", name.replace(' ', "%20"));
        refused(&lab, &key, 1, &[name, "is not supported"]);
    }
    lab.run(&["cert", "root", "file", "--no-pfx"]).ok();
    let Some(()) = lab.import("file_key.pem", "alone", "cc", &["--no-public-key"]) else { return };
    refused(&lab, &uri("alone"), 1, &["has no public key that belongs to the private key \"alone\""]);
    for (fault, reason) in [("unsigning", "may not sign"), ("asking", "takes the PIN for each signature")] {
        let Some(mut command) = lab.faulty(fault, &["cert", "device", "d1", "lab-root", "--ca-key", &uri("root")])
        else {
            return;
        };
        let error = run(&mut command).fails(1);
        assert!(error.contains(reason) && error.contains("hint: create another key"), "{error}");
    }
    let issue = ["cert", "device", "d1", "lab-root", "--ca-key", &uri("root")];
    let Some(mut command) = lab.faulty("hashing", &issue) else { return };
    let error = run(&mut command).fails(1);
    assert!(error.contains("has no mechanism") && error.contains("CKM_ECDSA"), "{error}");
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    lab.secret("wrong", "0000000000");
    let key = uri("root").replace("file:pin", "file:wrong");
    refused(&lab, &key, 1, &["the PIN of the token \"lab\" is wrong", "fewer tries left"]);
    for (fault, key, parts) in [
        ("none", &key, ["is wrong", "check the PIN"]),
        ("final", &key, ["the next wrong one locks it", "check the PIN"]),
        ("locks", &uri("root"), ["is locked", "--init-pin"]),
    ] {
        let before = lab.logins();
        let issue = ["cert", "fleet", "lab-root", "--ca-key", key, "--count", "100", "--threads", "4"];
        let Some(mut command) = lab.faulty(fault, &issue) else { return };
        let error = run(&mut command).fails(1);
        assert!(parts.iter().all(|part| error.contains(part)), "{fault}: {error}");
        assert_eq!(lab.logins() - before, 1, "{fault}: the PIN was tried once");
    }
    // A token that says it is locked is not asked.
    let before = lab.logins();
    let Some(mut command) = lab.faulty("locked", &["cert", "device", "d1", "lab-root", "--ca-key", &uri("root")])
    else {
        return;
    };
    assert!(run(&mut command).fails(1).contains("is locked"));
    assert_eq!(lab.logins(), before);
}

#[test]
fn two_keys_of_one_token_take_one_login() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let own = "pkcs11:token=lab;object=inter";
    let issue = ["cert", "intermediate", "inter", "lab-root", "--ca-key", &uri("root"), "--key", own];
    let Some(mut command) = lab.faulty("none", &issue) else { return };
    run(&mut command).ok();
    assert_eq!(lab.logins(), 1);
}

#[test]
fn a_removed_token_says_what_to_do() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let Some(mut command) = lab.faulty("removed:0", &["cert", "device", "d1", "lab-root", "--ca-key", &uri("root")])
    else {
        return;
    };
    let error = run(&mut command).fails(1);
    assert!(error.contains("CKR_DEVICE_REMOVED") && error.contains("hint: insert the token again"), "{error}");
    assert!(!lab.exists("d1_cert.pem"));
}
