//! A key in a token signs what a key in a file would sign.

use std::fs;

use crate::{
    lab::{Lab, run, uri},
    support::openssl,
};
use iot_enroll::certificate::{Certificate, CertificateRequest, CommonName, KeyAlgorithm, PrivateKey};

fn read(lab: &Lab, name: &str) -> Certificate {
    Certificate::read(&fs::read(lab.path().join(name)).expect("a file")).expect("a certificate")
}

#[test]
fn a_token_and_a_file_with_one_key_issue_the_same_certificates() {
    let Some(lab) = Lab::start() else { return };
    for algorithm in [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048] {
        let name = algorithm.name();
        let ca = format!("ca-{name}");
        let shown = lab.run(&["cert", "root", &ca, "--algorithm", name, "--no-pfx", "-o", "json"]).json();
        let text = |member: &str| shown[member].as_str().expect(member).to_owned();
        let (certificate, key_file) = (text("certificate"), text("privateKey"));
        let id = format!("0{}", algorithm as u8 + 1);
        let Some(()) = lab.import(&key_file, name, &id, &[]) else { return };
        let key = PrivateKey::generate(KeyAlgorithm::EcP256).expect("a key");
        let request = CertificateRequest::new(&CommonName::new("d1").expect("a name"), &key).expect("a request");
        fs::write(lab.path().join("d1.csr"), request.to_pem()).expect("written");
        let token_key = uri(name);
        let [by_file, by_token] = [("file", &key_file), ("token", &token_key)].map(|(directory, ca_key)| {
            let out = format!("{directory}-{name}");
            let issue = ["cert", "device", "d1", "--csr", "d1.csr", "--ca-cert", &certificate, "--ca-key", ca_key];
            lab.run(&[&issue[..], &["--dir", &out]].concat()).ok();
            read(&lab, &format!("{out}/d1_cert.pem"))
        });
        assert_ne!(by_file.serial_number(), by_token.serial_number());
        assert_eq!(by_file.subject().der(), by_token.subject().der());
        assert_eq!(by_file.issuer().der(), by_token.issuer().der());
        assert_eq!(by_file.public_key(), by_token.public_key());
        assert_eq!(format!("{:?}", by_file.extensions()), format!("{:?}", by_token.extensions()));
        assert_eq!(by_file.signature_algorithm().to_string(), by_token.signature_algorithm().to_string());
        let verify = ["verify", "-CAfile", &certificate, &format!("token-{name}/d1_cert.pem")];
        let Some(verified) = openssl(lab.path(), &verify) else { return };
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}

#[test]
fn every_certificate_command_takes_a_key_in_a_token() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let key = uri("root");
    let by_name = ["lab-root", "--ca-key", &key];
    let by_file = ["--ca-cert", "labRoot_cert.pem", "--ca-key", &key];
    for issuer in [&by_name[..], &by_file] {
        for (command, name) in [("device", "d1"), ("server", "s.example"), ("edge-ca", "e1"), ("intermediate", "i1")] {
            let issue = [&["cert", command, name][..], issuer, &["--no-pfx", "--force"]].concat();
            lab.run(&issue).ok();
        }
        let out = format!("edge{}", issuer.len());
        lab.run(&[&["cert", "edge", "e2"][..], issuer, &["--hostname", "e2.example", "--out", &out]].concat()).ok();
        let out = format!("fleet{}", issuer.len());
        lab.run(&[&["cert", "fleet"][..], issuer, &["--count", "3", "--out", &out]].concat()).ok();
    }
    let prove =
        ["cert", "verification", "--ca-cert", "labRoot_cert.pem", "--ca-key", &key, "--code", "C0DE", "--no-pfx"];
    lab.run(&prove).ok();
    lab.run(&["cert", "verify", "verification_cert.pem", "--ca-cert", "labRoot_cert.pem", "--code", "C0DE"]).ok();
    assert!(!lab.exists("labRoot_key.pem") && !lab.exists("labRoot.pfx"));
}

#[test]
fn a_token_that_lies_is_found_before_anything_is_written() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let issue = ["cert", "device", "d1", "lab-root", "--ca-key", &uri("root"), "--no-pfx"];
    let Some(mut command) = lab.faulty("lie:0", &issue) else { return };
    let error = run(&mut command).fails(1);
    assert!(error.contains("that its public key does not verify"), "{error}");
    assert!(!lab.exists("d1_cert.pem"));
    // The same for a new root. The key is there, and can be used when the token is repaired.
    let Some(mut command) = lab.faulty("lie:0", &["cert", "root", "r2", "--ca-key", &uri("r2")]) else { return };
    let error = run(&mut command).fails(1);
    assert!(error.contains("stays there for --existing-key"), "{error}");
    assert!(!lab.exists("r2_cert.pem"));
    lab.run(&["cert", "root", "r2", "--ca-key", &uri("r2"), "--existing-key"]).ok();
}

#[test]
fn a_token_that_only_hashes_itself_signs_with_rsa() {
    let Some(lab) = Lab::start() else { return };
    let key = uri("rsa");
    lab.run(&["cert", "root", "r", "--ca-key", &key, "--algorithm", "rsa-2048"]).ok();
    let issue = ["cert", "device", "d1", "r", "--ca-key", &key, "--no-pfx"];
    let Some(mut command) = lab.faulty("hashing", &issue) else { return };
    run(&mut command).ok();
    lab.run(&["cert", "verify", "d1_fullchain.pem", "--ca-cert", "r_cert.pem"]).ok();
}

#[test]
fn certificates_of_keys_in_tokens_and_below_them_are_renewed() {
    let Some(lab) = Lab::start() else { return };
    let (root, plant) = (uri("root"), uri("plant"));
    let by_root = ["--ca-cert", "lab_cert.pem", "--ca-key", &root];
    lab.run(&["cert", "root", "lab", "--ca-key", &root]).ok();
    lab.run(&[&["cert", "intermediate", "plant", "--key", &plant][..], &by_root].concat()).ok();
    lab.run(&[&["cert", "device", "d1", "--no-pfx"][..], &by_root].concat()).ok();
    for name in ["d1", "plant", "lab"] {
        let file = format!("{name}_cert.pem");
        let old = read(&lab, &file);
        let renewed = lab.run(&[&["-o", "json", "cert", "renew", &file][..], &by_root].concat()).json();
        let key = &renewed["certificates"][0]["privateKey"];
        assert_eq!(key.as_str(), (name == "d1").then_some("./d1_key.pem"), "{renewed}");
        let new = read(&lab, &file);
        assert_ne!(new.serial_number(), old.serial_number());
        assert_eq!(new.public_key(), old.public_key());
        assert_eq!(lab.path().join(format!("{name}_key.pem")).exists(), name == "d1");
        let Some(verified) = openssl(lab.path(), &["verify", "-CAfile", "lab_cert.pem", &file]) else { return };
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    // Without the key, nothing is replaced.
    let old = read(&lab, "lab_cert.pem");
    lab.run(&["cert", "renew", "lab_cert.pem"]).fails(1);
    assert_eq!(read(&lab, "lab_cert.pem"), old);
}

#[test]
fn the_key_of_another_ca_of_the_chain_signs_nothing() {
    let Some(lab) = Lab::start() else { return };
    lab.create_root();
    let (root, own) = (uri("root"), uri("factory"));
    lab.run(&["cert", "intermediate", "factory-1", "lab-root", "--ca-key", &root, "--key", &own]).ok();
    lab.run(&["cert", "root", "file-root", "--no-pfx"]).ok();
    lab.run(&["cert", "intermediate", "file-1", "file-root", "--no-pfx"]).ok();
    let before = lab.files();
    let chain = ["--ca-cert", "factory1_fullchain.pem", "--ca-key", &root];
    for arguments in [
        &["cert", "device", "d1", "factory-1", "--ca-key", &root][..],
        &["cert", "intermediate", "i1", "factory-1", "--ca-key", &root],
        &["cert", "server", "s1", "factory-1", "--ca-key", &root],
        &["cert", "fleet", "factory-1", "--ca-key", &root, "--count", "2"],
        &[&["cert", "device", "d1"][..], &chain].concat(),
        &[&["cert", "verification", "--code", "C0DE"][..], &chain].concat(),
        &[&["provision", "--emulator"][..], &chain].concat(),
    ] {
        let error = lab.run(arguments).fails(1);
        assert!(error.contains("the certificate of \"factory-1\"") && error.contains("\"lab-root\""), "{error}");
        assert!(error.contains("hint: give the key of that certificate"), "{error}");
    }
    let files = ["--ca-cert", "file1_fullchain.pem", "--ca-key", "fileRoot_key.pem"];
    for arguments in [
        &[&["cert", "device", "d1"][..], &files].concat()[..],
        &[&["cert", "verification", "--code", "C0DE"][..], &files].concat(),
        &[&["provision", "--emulator"][..], &files].concat(),
    ] {
        let error = lab.run(arguments).fails(1);
        assert!(error.contains("the certificate of \"file-1\"") && error.contains("\"file-root\""), "{error}");
    }
    assert_eq!(lab.files(), before);
    // The key selects its certificate in a file that has an order of its own.
    let read = |name: &str| fs::read_to_string(lab.path().join(name)).expect("read");
    let bundle = [read("labRoot_cert.pem"), read("fileRoot_cert.pem"), read("factory1_cert.pem")].concat();
    fs::write(lab.path().join("bundle.pem"), bundle).expect("written");
    let issued = lab.run(&["cert", "device", "d1", "--ca-cert", "bundle.pem", "--ca-key", &own, "--no-pfx"]).ok();
    assert!(issued.contains("issued by factory-1"), "{issued}");
}
