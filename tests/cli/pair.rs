//! `cert device --pair`: two certificates for one individual enrollment.

use std::{fs, path::Path};

use crate::support::{
    Run, program,
    service::{Service, directory},
    temporary_directory,
};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

#[test]
fn both_services_take_the_pair() {
    let service = Service::start();
    let directory = directory();
    let path = directory.path();
    let pair = cert(path, &["device", "sensor-1", "--pair", "--no-pfx", "-o", "json"]).json();
    let thumbprint = |which: &str| pair[which]["sha1Thumbprint"].clone();
    assert_ne!(thumbprint("primary"), thumbprint("secondary"));
    assert_eq!(pair["secondary"]["certificate"], "./sensor1Secondary_cert.pem");
    let files = ["sensor1_cert.pem", "sensor1Secondary_cert.pem"];

    let enrollment = ["dps", "enrollment", "create", "sensor-1", "--cert", files[0], "--secondary-cert", files[1]];
    let created = Run::of(&mut service.dps_command(path, &[&enrollment[..], &["-o", "json"]].concat())).json();
    let certificates = &created["attestation"]["x509"]["clientCertificates"];
    for which in ["primary", "secondary"] {
        assert_eq!(certificates[which]["info"]["sha1Thumbprint"], thumbprint(which), "{created}");
    }
    service.run(path, &["device", "create", "sensor-1"]).ok();
    let set =
        ["device", "attestation", "set", "sensor-1", "--certificate", files[0], "--secondary-certificate", files[1]];
    let set = service.json(path, &set);
    for which in ["primary", "secondary"] {
        assert_eq!(set["x509"]["clientCertificates"][which]["info"]["sha1Thumbprint"], thumbprint(which), "{set}");
    }
}

#[test]
fn pair_is_written_completely_or_not_at_all() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "R", "--no-pfx"]).ok();
    // The files of the secondary certificate belong to another device.
    cert(path, &["device", "d-secondary", "R", "--no-pfx"]).ok();
    let count = || fs::read_dir(path).expect("read").count();
    let before = count();
    for force in [&[][..], &["--force"]] {
        let error = cert(path, &[&["device", "d", "--pair", "--no-pfx"], force].concat()).fails(1);
        assert!(error.contains("dSecondary_cert.pem"), "{error}");
        assert_eq!(count(), before, "nothing was written");
    }
    let human = cert(path, &["device", "e-1", "--pair", "--san", "e.example"]).ok();
    assert!(human.contains("--secondary-cert ./e1Secondary_cert.pem"), "{human}");
    assert!(path.join("e1Secondary.pfx").is_file() && path.join("e1.pfx").is_file());
    let old = fs::read(path.join("e1Secondary_cert.pem")).expect("read");
    let error = cert(path, &["device", "e-1", "--pair"]).fails(1);
    assert!(error.contains("--force"), "{error}");
    cert(path, &["device", "e-1", "--pair", "--force", "--no-pfx"]).ok();
    assert_ne!(fs::read(path.join("e1Secondary_cert.pem")).expect("read"), old);
    assert!(!path.join("e1Secondary.pfx").exists() && !path.join("e1.pfx").exists(), "the old set is gone");
    cert(path, &["device", "e-2", "R", "--pair"]).fails(2);
    cert(path, &["device", "e-2", "--csr", "x", "--pair"]).fails(2);
}
