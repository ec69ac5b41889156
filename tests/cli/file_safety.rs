//! Safety of files with keys: no foreign file is overwritten or removed, and no set is mixed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Run, program};
use tempfile::TempDir;

const MARKER: &str = ".iot-enroll-set";
const MARKER_TITLE: &str = "Files of one certificate, on their way to the directory above. Made by iot-enroll.\n";

fn lab() -> TempDir {
    let lab = crate::support::temporary_directory();
    cert(lab.path(), &["root", "ca", "--no-pfx"]).ok();
    lab
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("it exists").permissions().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// Waits until another process fulfills a condition.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} within a minute");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn tar_readable_by_others_is_not_resumed() {
    let lab = lab();
    let tar = lab.path().join("fleet.tar");
    cert(lab.path(), &["fleet", "ca", "--count", "3", "--digits", "2", "--format", "tar"]).ok();
    assert_eq!(mode(&tar), 0o600);
    let before = fs::read(&tar).expect("a tar");
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o640)).expect("a mode");
    let resume = ["fleet", "ca", "--count", "5", "--digits", "2", "--format", "tar", "--resume"];
    let refusal = cert(lab.path(), &resume).fails(1);
    assert!(refusal.contains("fleet.tar") && refusal.contains("0640") && refusal.contains("chmod 600"), "{refusal}");
    assert!(before == fs::read(&tar).expect("a tar"), "a refused file stays as it is");
    fs::set_permissions(&tar, fs::Permissions::from_mode(0o600)).expect("a mode");
    cert(lab.path(), &resume).ok();
    assert_eq!(mode(&tar), 0o600);
}

#[test]
fn link_in_place_of_a_tar_is_not_followed() {
    let lab = lab();
    let elsewhere = crate::support::temporary_directory();
    let target = elsewhere.path().join("target");
    for planted in ["fleet.tar", "fleet.tar.manifest.csv"] {
        let link = lab.path().join(planted);
        symlink(&target, &link).expect("a link");
        for resume in [&[][..], &["--resume"]] {
            let arguments = [&["fleet", "ca", "--count", "3", "--format", "tar"], resume].concat();
            let refusal = cert(lab.path(), &arguments).fails(1);
            assert!(refusal.contains(planted), "{refusal}");
            assert!(!target.exists(), "{planted}");
        }
        fs::remove_file(link).expect("removed");
        let _ = fs::remove_file(lab.path().join("fleet.tar"));
    }
}

#[test]
fn planted_links_with_hidden_names_are_not_followed() {
    for resume in [false, true] {
        for planted in [".manifest.csv.tmp", ".0000.tmp", ".0001.tmp"] {
            let lab = lab();
            let fleet = lab.path().join("fleet");
            let victim = crate::support::temporary_directory();
            let target = if planted.starts_with(".manifest") {
                let file = victim.path().join("file");
                fs::write(&file, "precious").expect("written");
                file
            } else {
                victim.path().to_owned()
            };
            if resume {
                cert(lab.path(), &["fleet", "ca", "--count", "2", "--digits", "5"]).ok();
            } else {
                fs::create_dir(&fleet).expect("a directory");
            }
            symlink(&target, fleet.join(planted)).expect("a link");
            let mut arguments = vec!["fleet", "ca", "--count", "1100", "--digits", "5"];
            arguments.extend(resume.then_some("--resume"));
            let refusal = cert(lab.path(), &arguments).fails(1);
            assert!(refusal.contains(planted), "{refusal}");
            let expected: &[&str] = if planted.starts_with(".manifest") { &["file"] } else { &[] };
            assert_eq!(names(victim.path()), expected, "{planted}");
            if let [file] = expected {
                assert_eq!(fs::read_to_string(victim.path().join(file)).expect("read"), "precious");
            }
        }
    }
}

#[test]
fn fleet_keeps_foreign_hidden_directories() {
    let lab = lab();
    cert(lab.path(), &["fleet", "ca", "--count", "2", "--digits", "2"]).ok();
    let other = lab.path().join("fleet/.0007.tmp");
    fs::create_dir(&other).expect("a directory");
    fs::write(other.join("thesis.txt"), "precious").expect("written");
    let resume = ["fleet", "ca", "--count", "3", "--digits", "2", "--resume"];
    let refusal = cert(lab.path(), &resume).fails(1);
    assert!(refusal.contains(".0007.tmp"), "{refusal}");
    assert_eq!(names(&other), ["thesis.txt"]);
    fs::remove_file(other.join("thesis.txt")).expect("removed");
    fs::write(other.join("device-03_key.pem"), "left by a killed run").expect("written");
    cert(lab.path(), &resume).ok();
    assert!(!other.exists());
}

#[test]
fn umask_never_exposes_keys() {
    let lab = lab();
    for umask in ["000", "077"] {
        let run = |arguments: &str| {
            let mut shell = Command::new("sh");
            let command = format!("umask {umask} && exec {} {arguments}", env!("CARGO_BIN_EXE_iot-enroll"));
            Run::of(shell.current_dir(lab.path()).args(["-c", &command]).env_remove("IOT_ENROLL_PFX_PASSWORD")).ok()
        };
        run(&format!("cert root own-ca --dir ./made-{umask}/below"));
        run(&format!("cert device dev-{umask} own-ca --dir ./made-{umask}/below"));
        let directory = lab.path().join(format!("made-{umask}/below"));
        assert_eq!(mode(&directory) & 0o022, 0);
        for name in [format!("dev{umask}_key.pem"), format!("dev{umask}.pfx")] {
            assert_eq!(mode(&directory.join(&name)), 0o600, "{name}");
        }
        run(&format!("cert fleet ca --count 2 --pfx --out fleet-{umask}"));
        let directory = lab.path().join(format!("fleet-{umask}/0000"));
        assert_eq!(mode(&directory) & 0o022, 0);
        assert_eq!(mode(&directory.join("device-1_key.pem")), 0o600);
        assert_eq!(mode(&directory.join("device-1.pfx")), 0o600);
        run(&format!("cert fleet ca --count 2 --format tar --out fleet-{umask}.tar"));
        assert_eq!(mode(&lab.path().join(format!("fleet-{umask}.tar"))), 0o600);
    }
}

#[test]
fn only_marked_leftovers_of_a_set_are_removed() {
    let lab = lab();
    for (name, marker) in [(".y.mine.tmp", None), (".y.a1b2c3.tmp", Some(MARKER_TITLE)), (".y.fake.tmp", Some("x\n"))] {
        let directory = lab.path().join(name);
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("y_key.pem"), "a key").expect("written");
        if let Some(marker) = marker {
            fs::write(directory.join(MARKER), marker).expect("written");
        }
    }
    let elsewhere = crate::support::temporary_directory();
    fs::write(elsewhere.path().join(MARKER), MARKER_TITLE).expect("written");
    symlink(elsewhere.path(), lab.path().join(".y.link.tmp")).expect("a link");
    cert(lab.path(), &["device", "y", "ca", "--no-pfx"]).ok();
    let hidden: Vec<_> = names(lab.path()).into_iter().filter(|name| name.starts_with(".y.")).collect();
    assert_eq!(hidden, [".y.fake.tmp", ".y.link.tmp", ".y.mine.tmp"]);
    assert_eq!(names(elsewhere.path()), [MARKER]);
}

#[test]
fn planted_committed_set_is_ignored() {
    let lab = lab();
    cert(lab.path(), &["device", "y", "ca", "--no-pfx"]).ok();
    let key = fs::read(lab.path().join("y_key.pem")).expect("a key");
    let planted = lab.path().join(".y.commit");
    fs::create_dir(&planted).expect("a directory");
    fs::write(planted.join("y_key.pem"), "another key").expect("written");
    let refusal = cert(lab.path(), &["device", "y", "ca", "--no-pfx", "--force"]).fails(1);
    assert!(refusal.contains(".y.commit"), "{refusal}");
    assert_eq!(fs::read(lab.path().join("y_key.pem")).expect("a key"), key);
}

#[test]
fn kill_between_renames_leaves_no_old_file() {
    let lab = lab();
    cert(lab.path(), &["device", "y", "ca"]).ok();
    let new = crate::support::temporary_directory();
    for name in ["ca_cert.pem", "ca_key.pem"] {
        fs::copy(lab.path().join(name), new.path().join(name)).expect("copied");
    }
    cert(new.path(), &["device", "y", "ca", "--no-pfx"]).ok();
    // The state after the commit and the first rename.
    let committed = lab.path().join(".y.commit");
    fs::create_dir(&committed).expect("a directory");
    let listed = "y_fullchain.pem\ny_cert.pem\ny_key.pem\n";
    fs::write(committed.join(MARKER), format!("{MARKER_TITLE}{listed}")).expect("written");
    for name in ["y_cert.pem", "y_fullchain.pem"] {
        fs::copy(new.path().join(name), committed.join(name)).expect("copied");
    }
    fs::copy(new.path().join("y_key.pem"), lab.path().join("y_key.pem")).expect("copied");
    // The next run completes the set, and then refuses to overwrite it.
    cert(lab.path(), &["device", "y", "ca"]).fails(1);
    for name in ["y_cert.pem", "y_fullchain.pem", "y_key.pem"] {
        assert_eq!(fs::read(lab.path().join(name)).expect("read"), fs::read(new.path().join(name)).expect("read"));
    }
    assert!(!lab.path().join("y.pfx").exists(), "the PFX file of the old set");
    assert!(!committed.exists());
}

#[test]
fn mixed_set_is_detected_when_read() {
    let lab = lab();
    cert(lab.path(), &["root", "other", "--no-pfx"]).ok();
    for suffix in ["key", "fullchain"] {
        let file = lab.path().join(format!("ca_{suffix}.pem"));
        let kept = fs::read(&file).expect("read");
        fs::copy(lab.path().join(format!("other_{suffix}.pem")), &file).expect("copied");
        let refusal = cert(lab.path(), &["device", "dev-1", "ca", "--no-pfx"]).fails(1);
        assert!(refusal.contains(&format!("ca_{suffix}.pem does not belong to")), "{refusal}");
        fs::write(&file, kept).expect("written");
    }
    cert(lab.path(), &["device", "dev-1", "ca", "--no-pfx"]).ok();
}

#[test]
fn force_leaves_no_file_of_the_earlier_set() {
    let lab = lab();
    cert(lab.path(), &["device", "y", "ca"]).ok();
    let request =
        ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-subj", "/CN=y", "-out", "y.csr"];
    let Some(made) = crate::support::openssl(lab.path(), &request) else {
        crate::skipped("there is no openssl program");
        return;
    };
    assert!(made.status.success());
    cert(lab.path(), &["device", "y", "ca", "--force", "--no-pfx"]).ok();
    assert!(!lab.path().join("y.pfx").exists());
    cert(lab.path(), &["device", "y", "ca", "--force"]).ok();
    cert(lab.path(), &["device", "y", "ca", "--csr", "y.csr", "--force", "--no-pfx"]).ok();
    assert!(!lab.path().join("y.pfx").exists() && !lab.path().join("y_key.pem").exists());
}

#[test]
fn key_of_a_request_is_kept_and_another_one_is_removed_with_a_note() {
    let lab = lab();
    for (kind, name, stem) in [("device", "dev-09", "dev09"), ("intermediate", "ica", "ica")] {
        let (key, csr) = (format!("{stem}_key.pem"), format!("{stem}.csr"));
        let subject = format!("/CN={name}");
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let request = ["req", "-new", "-nodes", "-keyout", &key, "-subj", &subject, "-out", &csr];
        let Some(made) = crate::support::openssl(lab.path(), &[&request[..], &curve[..]].concat()) else {
            crate::skipped("there is no openssl program");
            return;
        };
        assert!(made.status.success());
        let before = fs::read(lab.path().join(&key)).expect("a key");
        for force in [&[][..], &["--force"]] {
            let run = cert(lab.path(), &[&[kind, name, "ca", "--csr", &csr, "-o", "json"], force].concat());
            assert!(run.json()["privateKey"].as_str().is_some_and(|found| found.ends_with(&key)));
            assert_eq!(fs::read(lab.path().join(&key)).expect("the key"), before, "unchanged");
        }
        let error = cert(lab.path(), &[kind, name, "ca", "--csr", &csr]).fails(1);
        assert!(error.contains("_cert.pem") && !error.contains(&key), "only the others exist: {error}");
        // Encrypted, it may be the key of the request.
        let arguments = ["pkcs8", "-topk8", "-in", &key, "-out", "encrypted", "-passout", "pass:secret"];
        crate::support::openssl(lab.path(), &arguments);
        fs::rename(lab.path().join("encrypted"), lab.path().join(&key)).expect("moved");
        let error = cert(lab.path(), &[kind, name, "ca", "--csr", &csr, "--force"]).fails(1);
        assert!(error.contains(&key) && error.contains("may be the only file with the key"), "{error}");
        assert!(lab.path().join(&key).exists());
        // A key of another certificate is removed, and named.
        fs::remove_file(lab.path().join(&key)).expect("removed");
        cert(lab.path(), &[kind, name, "ca", "--force"]).ok();
        let run = cert(lab.path(), &[kind, name, "ca", "--csr", &csr, "--force"]);
        for removed in [&key, &format!("{stem}.pfx")] {
            assert!(run.stderr.contains(&format!("{removed} was removed")), "{}", run.stderr);
            assert!(!lab.path().join(removed).exists());
        }
        run.ok();
    }
}

#[test]
fn errors_about_a_request_from_standard_input_say_so() {
    let lab = lab();
    for arguments in [&["device", "d", "ca", "--csr", "-"][..], &["intermediate", "d", "ca", "--csr", "-"]] {
        let error = cert(lab.path(), arguments).fails(1);
        assert!(error.contains("the request in standard input"), "{error}");
    }
}

fn start(directory: &Path, arguments: &[&str]) -> Child {
    program(directory)
        .arg("cert")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// The arguments, the file that shows that the run has started, and what is removed then.
type Interference<'a> = (&'a [&'a str], &'a dyn Fn() -> bool, &'a dyn Fn());

#[test]
fn run_fails_if_its_output_is_removed() {
    let lab = lab();
    let fleet = lab.path().join("fleet");
    let gone = lab.path().join("gone");
    let tar = lab.path().join("fleet.tar");
    let cases: [Interference<'_>; 4] = [
        (&["--out", "fleet"], &|| fleet.join("0000").exists(), &|| fs::rename(&fleet, &gone).expect("moved")),
        (&["--out", "fleet"], &|| fleet.join("0000").exists(), &|| {
            fs::rename(fleet.join("0000"), &gone).expect("moved");
        }),
        (&["--out", "fleet"], &|| fleet.join("0000").exists(), &|| {
            fs::remove_file(fleet.join("manifest.csv")).expect("removed");
        }),
        (
            &["--format", "tar", "--out", "fleet.tar"],
            &|| tar.metadata().is_ok_and(|found| found.len() > 100_000),
            &|| {
                fs::remove_file(&tar).expect("removed");
            },
        ),
    ];
    for (out, under_way, remove) in cases {
        let count = if out.contains(&"tar") { "20000" } else { "4000" };
        for path in [&fleet, &gone] {
            let _ = fs::remove_dir_all(path);
        }
        let child = start(lab.path(), &[&["fleet", "ca", "--count", count], out].concat());
        wait_for("the run is under way", under_way);
        remove();
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{out:?}: {stderr}");
        assert!(stderr.contains("fleet"), "{stderr}");
    }
}
