//! `cert edge-ca` and `cert edge`: certificates that an IoT Edge device can use as they are.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{CidrSubnet, GeneralSubtree, KeyPair, NameConstraints};

use crate::support::{Run, app::Authority, openssl, program, rcgen_pem::key_pem, temporary_directory};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

/// The settings of a configuration by section and name. It has only strings.
fn settings(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).expect("a configuration");
    let mut section = String::new();
    let mut settings = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.replace(']', ".");
        } else {
            let (name, value) = line.split_once(" = ").expect("a setting");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("a string");
            settings.insert(format!("{section}{name}"), value.to_owned());
        }
    }
    settings
}

const FILES: [&str; 5] = [
    "trust_bundle_cert",
    "provisioning.attestation.identity_cert",
    "provisioning.attestation.identity_pk",
    "edge_ca.cert",
    "edge_ca.pk",
];

#[test]
fn edge_ca_signs_server_certificates_directly_and_through_a_workload_ca() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "Root", "--no-pfx"]).ok();
    cert(path, &["intermediate", "Factory", "Root", "--no-pfx"]).ok();
    let made = cert(path, &["edge-ca", "edge-1", "Factory", "--no-pfx", "-o", "json"]).json();
    assert_eq!(made["subject"], "CN=edge-1 Edge CA", "the common name is never a host name");
    let shown = cert(path, &["inspect", "edge1EdgeCa_cert.pem"]).ok();
    assert!(shown.contains("keyCertSign"), "{shown}");

    // The host name of the device is the name that was given to the Edge CA.
    cert(path, &["server", "edge-1", "edge-1 Edge CA", "--no-pfx"]).ok();
    let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root_cert.pem", "-untrusted"];
    let server = ["edge1_fullchain.pem", "-verify_hostname", "edge-1", "edge1_cert.pem"];
    let Some(run) = openssl(path, &[&verify[..], &server].concat()) else { return };
    assert!(run.status.success(), "{run:?}");

    // IoT Edge 1.1 puts a CA between.
    cert(path, &["intermediate", "workload", "edge-1 Edge CA", "--no-pfx"]).ok();
    cert(path, &["server", "module.example", "workload", "--no-pfx"]).ok();
    let server = ["moduleExample_fullchain.pem", "-verify_hostname", "module.example", "moduleExample_cert.pem"];
    let run = openssl(path, &[&verify[..], &server].concat()).expect("openssl");
    assert!(run.status.success(), "{run:?}");
    let error = cert(path, &["intermediate", "lower", "workload", "--no-pfx"]).fails(1);
    assert!(error.contains("path length"), "{error}");
}

#[test]
fn edge_ca_that_would_expire_soon_is_only_issued_on_request() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "Root", "--no-pfx", "--days", "60"]).ok();
    let error = cert(path, &["edge-ca", "e", "Root", "--no-pfx"]).fails(1);
    assert!(error.contains("at least 90 days"), "{error}");
    let error = cert(path, &["edge", "e", "Root", "--hostname", "e"]).fails(1);
    assert!(error.contains("at least 90 days") && !path.join("e").exists(), "{error}");
    cert(path, &["edge-ca", "e", "Root", "--no-pfx", "--days", "50"]).ok();
    cert(path, &["edge-ca", "Line 1 CA", "--no-pfx"]).ok();
    assert!(path.join("line1Ca_cert.pem").is_file(), "a name with a space stays as it is");
}

#[test]
fn configuration_names_files_that_exist_and_verify() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "Root", "--no-pfx"]).ok();
    cert(path, &["intermediate", "Factory", "Root", "--no-pfx"]).ok();
    for (device, parent) in [("edge-1", Some("Factory")), ("edge-2", None)] {
        let arguments = ["edge", device, "--hostname", "gw.example", "--id-scope", "0ne00A1B2C3"];
        let human = cert(path, &[&arguments[..], parent.as_slice()].concat()).ok();
        let stem = device.replace('-', "");
        let out = path.join(&stem);
        let found = settings(&out.join("config.toml"));
        assert_eq!(found["hostname"], "gw.example");
        assert_eq!(found["provisioning.id_scope"], "0ne00A1B2C3");
        assert_eq!(found["provisioning.attestation.registration_id"], device);
        for name in FILES {
            let file = found[name].strip_prefix("file://").expect("a file URI");
            assert!(file.starts_with('/'), "{file}");
            let mode = fs::metadata(file).expect("the file exists").permissions().mode() & 0o777;
            let is_key = name.ends_with("pk");
            assert_eq!(mode, if is_key { 0o600 } else { 0o644 }, "{file}");
            let owner = if is_key { "aziotks" } else { "aziotcs" };
            let named = human.lines().any(|line| line.contains(owner) && line.contains(file));
            assert!(named, "the next steps say whose {file} has to be: {human}");
        }
        let (edge_ca, key) = (format!("{stem}EdgeCa_fullchain.pem"), format!("{stem}EdgeCa_key.pem"));
        let ca = ["--ca-cert", &edge_ca, "--ca-key", &key, "--no-pfx"];
        cert(&out, &[&["server", "gw.example"], &ca[..]].concat()).ok();
        let verify =
            ["verify", "-purpose", "sslserver", "-verify_hostname", "gw.example", "-CAfile", "trust_bundle.pem"];
        let server = ["-x509_strict", "-untrusted", "gwExample_fullchain.pem", "gwExample_cert.pem"];
        if let Some(run) = openssl(&out, &[&verify[..], &server].concat()) {
            assert!(run.status.success(), "{run:?}");
        }
    }
}

#[test]
fn configuration_can_name_the_directory_on_the_device() {
    let directory = temporary_directory();
    let path = directory.path();
    let device = ["edge", "Edge.1", "--hostname", "192.0.2.7", "--out", "a b"];
    cert(path, &[&device[..], &["--install-dir", "/var/aziot/x \"y\"/"]].concat()).ok();
    let found = settings(&path.join("a b/config.toml"));
    assert_eq!(found["edge_ca.cert"], "file:///var/aziot/x%20%22y%22/edge1EdgeCa_fullchain.pem");
    assert!(!found.contains_key("provisioning.id_scope"), "it is a comment");

    let before = fs::read(path.join("a b/config.toml")).expect("read");
    let error = cert(path, &device).fails(1);
    assert!(error.contains("exist") && error.contains("--force"), "{error}");
    assert_eq!(fs::read(path.join("a b/config.toml")).expect("read"), before);
    cert(path, &[&device[..], &["--force"]].concat()).ok();
    let found = settings(&path.join("a b/config.toml"));
    let file = found["edge_ca.cert"].strip_prefix("file://").expect("a URI").replace("%20", " ");
    assert!(Path::new(&file).is_file(), "{file}");
    // A file that is not ours is in the way.
    fs::create_dir(path.join("other")).expect("created");
    fs::write(path.join("other/config.toml"), "mine").expect("written");
    for force in [&[][..], &["--force"]] {
        let error = cert(path, &[&["edge", "e", "--hostname", "e", "--out", "other"], force].concat()).fails(1);
        assert!(error.contains("config.toml"), "{error}");
        assert_eq!(fs::read_dir(path.join("other")).expect("read").count(), 1, "nothing was written");
    }
    let error = cert(path, &["edge", "e", "--hostname", "e", "--out", "a b", "--force"]).fails(1);
    assert!(error.contains("\"Edge.1\""), "the files of another device are not overwritten: {error}");
}

/// Writes the root `Root`, which is limited to some names, and its key.
fn write_constrained_root(path: &Path, constraints: NameConstraints) {
    let key = KeyPair::generate().expect("a key");
    fs::write(path.join("root_key.pem"), key_pem(&key)).expect("written");
    let root = Authority::of("Root", key, |params| params.name_constraints = Some(constraints));
    fs::write(path.join("root_cert.pem"), root.pem).expect("written");
}

#[test]
fn host_name_that_a_ca_above_excludes_is_refused() {
    let directory = temporary_directory();
    let path = directory.path();
    write_constrained_root(
        path,
        NameConstraints {
            permitted_subtrees: vec![
                GeneralSubtree::DnsName("plant.example".to_owned()),
                GeneralSubtree::DnsName("edgeHub".to_owned()),
                GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([192, 0, 2, 0], 24)),
            ],
            excluded_subtrees: vec![GeneralSubtree::DnsName("secret.plant.example".to_owned())],
        },
    );
    cert(path, &["intermediate", "Factory", "Root", "--no-pfx"]).ok();
    for hostname in ["other.example", "gw", "gw.secret.plant.example", "198.51.100.7", "2001:db8::1"] {
        for issuer in ["Root", "Factory"] {
            let error = cert(path, &["edge", "e", issuer, "--hostname", hostname]).fails(1);
            assert!(error.contains(hostname) && error.contains("name constraints"), "{error}");
            assert!(!path.join("e").exists(), "nothing was written");
        }
    }
    for (hostname, out) in [("gw.plant.example", "name"), ("192.0.2.7", "address")] {
        cert(path, &["edge", "e", "Factory", "--hostname", hostname, "--out", out]).ok();
        let directory = path.join(out);
        let ca = ["--ca-cert", "eEdgeCa_fullchain.pem", "--ca-key", "eEdgeCa_key.pem", "--no-pfx"];
        cert(&directory, &[&["server", hostname], &ca[..]].concat()).ok();
    }
}

#[test]
fn existing_files_are_named_with_the_option_that_places_them() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["edge-ca", "e"]).ok();
    for name in ["eEdgeCa_cert.pem", "eEdgeCa_key.pem", "eEdgeCa_fullchain.pem", "eEdgeCa.pfx"] {
        fs::create_dir_all(path.join("e")).expect("created");
        fs::rename(path.join(name), path.join("e").join(name)).expect("moved");
    }
    let error = cert(path, &["edge", "e", "--hostname", "e"]).fails(1);
    assert!(error.contains("eEdgeCa_cert.pem") && error.contains("--out") && !error.contains("--dir"), "{error}");
    let run = cert(path, &["edge", "e", "--hostname", "e", "--force"]);
    assert!(run.stderr.contains("eEdgeCa.pfx was removed with the overwritten set"), "{}", run.stderr);
    run.ok();
    assert!(!path.join("e/eEdgeCa.pfx").exists(), "it would hold the old key");
    let error = cert(path, &["edge", "e", "Root", "--hostname", "e"]).fails(1);
    assert!(error.contains("--dir DIR"), "the directory of PARENT: {error}");
}

#[test]
fn host_name_that_iot_edge_could_not_use_is_wrong_usage() {
    let directory = temporary_directory();
    let long = format!("{}.example", "a".repeat(60));
    for (option, value) in [
        ("--hostname", "*.plant.example"),
        ("--hostname", "https://e.example"),
        ("--hostname", "e_1"),
        ("--hostname", ""),
        ("--hostname", &long),
        ("--install-dir", "relative"),
        ("--id-scope", "0ne\"; x"),
    ] {
        let mut arguments = vec!["edge", "e", option, value];
        if option != "--hostname" {
            arguments.extend(["--hostname", "e"]);
        }
        cert(directory.path(), &arguments).fails(2);
    }
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 0);
}

#[test]
fn module_name_that_iot_edge_adds_must_be_permitted() {
    let directory = temporary_directory();
    let path = directory.path();
    let permitted_subtrees = vec![GeneralSubtree::DnsName("plant.example".to_owned())];
    write_constrained_root(path, NameConstraints { permitted_subtrees, excluded_subtrees: vec![] });
    for hostname in ["e.plant.example", "192.0.2.7"] {
        let error = cert(path, &["edge", "e", "Root", "--hostname", hostname]).fails(1);
        assert!(error.contains("module ID edgeHub") && error.contains("name constraints"), "{error}");
        assert!(!path.join("e").exists(), "nothing was written");
    }
}

#[test]
fn edge_ca_of_a_long_id_has_a_short_name_of_its_own() {
    let directory = temporary_directory();
    let path = directory.path();
    let mut subjects = Vec::new();
    for (id, is_kept) in [("a".repeat(56), true), ("a".repeat(57), false), ("a".repeat(63) + "b", false)] {
        let out = format!("of{}", subjects.len());
        let made = cert(path, &["edge", &id, "--hostname", "e", "--out", &out, "-o", "json"]).json();
        let subject = made["edgeCa"]["subject"].as_str().expect("a subject").to_owned();
        assert!(subject.ends_with(" Edge CA") && subject.len() <= "CN=".len() + 64, "{subject}");
        assert_eq!(subject == format!("CN={id} Edge CA"), is_kept, "{subject}");
        assert_eq!(made["identity"]["subject"], format!("CN={id}"));
        // The same name again.
        let again = cert(path, &["edge-ca", &id, "-o", "json"]).json();
        assert_eq!(again["subject"], subject);
        assert!(!subjects.contains(&subject), "{subject}");
        subjects.push(subject);
    }
}

#[test]
fn files_of_another_device_are_not_overwritten_and_no_hint_says_so() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["edge", "edge-1", "--hostname", "e", "--out", "e1"]).ok();
    for force in [&[][..], &["--force"]] {
        let error = cert(path, &[&["edge", "edge-2", "--hostname", "e", "--out", "e1"][..], force].concat()).fails(1);
        assert!(error.contains("belongs to \"edge-1\"") && !error.contains("--force"), "{error}");
        assert!(error.contains("--out DIR"), "{error}");
    }
}
