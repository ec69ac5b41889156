//! Manual pages.

use std::{fs, os::unix::fs::symlink};

use crate::support::{Run, program};

#[test]
fn every_command_has_a_page() {
    let dir = crate::support::temporary_directory();
    let result =
        Run::of(program(dir.path()).args(["man", "pages", "-o", "json"]).env("IOT_ENROLL_APP", "contoso")).json();
    let pages: Vec<_> =
        result["pages"].as_array().expect("pages").iter().map(|page| page.as_str().expect("a name")).collect();
    for name in ["iot-enroll.1", "iot-enroll-provision.1", "iot-enroll-enrollment-group-certificate-set.1"] {
        assert!(pages.contains(&name), "{name}: {pages:?}");
    }
    assert!(!pages.iter().any(|name| name.contains("help")), "{pages:?}");
    assert_eq!(
        fs::read_dir(dir.path().join("pages")).expect("a directory").count(),
        pages.len(),
        "nothing else is left"
    );

    let page = fs::read_to_string(dir.path().join("pages/iot-enroll-provision.1")).expect("a page");
    for text in [".TH iot-enroll-provision 1", "SH EXAMPLES", "IOT_ENROLL_APP", "\\-\\-token\\-file"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("IOT_ENROLL_APP=contoso"), "the environment is in no page");
}

#[test]
fn pages_are_overwritten_with_force_only() {
    let dir = crate::support::temporary_directory();
    let other = dir.path().join("other");
    fs::write(&other, "kept").expect("written");
    symlink(&other, dir.path().join("iot-enroll-cert.1")).expect("a link");

    let error = Run::of(program(dir.path()).args(["man", "."])).fails(1);
    assert!(error.contains("iot-enroll-cert.1") && error.contains("--force"), "{error}");
    assert!(!dir.path().join("iot-enroll.1").exists(), "nothing was written");

    Run::of(program(dir.path()).args(["man", ".", "--force"])).ok();
    assert_eq!(fs::read_to_string(&other).expect("still there"), "kept", "the link is replaced, not followed");
    assert!(dir.path().join("iot-enroll-cert.1").symlink_metadata().expect("a page").is_file());
}
