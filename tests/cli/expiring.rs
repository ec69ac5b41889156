//! `cert expiring` and `cert inspect --within`.
use std::{fs, path::Path};

use crate::support::{Run, openssl, program};
use serde_json::Value;
use tempfile::TempDir;

/// A directory with the certificate of a device that expires in 5 days.
fn directory() -> TempDir {
    let directory = crate::support::temporary_directory();
    cert(directory.path(), &["device", "d", "--days", "5", "--no-pfx", "--dir", "."]).ok();
    fs::remove_file(directory.path().join("d_fullchain.pem")).expect("removed");
    directory
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

/// The report on a path where something expires, which ends with status 1, or could not be read, with 3.
fn report(directory: &Path, path: &str) -> Value {
    let run = cert(directory, &["expiring", path, "-o", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let status = if length(&report["expiring"]) > 0 { 1 } else { 3 };
    assert_eq!(run.status, status, "{}{}", run.stdout, run.stderr);
    report
}

fn length(list: &Value) -> usize {
    list.as_array().expect("a list").len()
}

fn pem(directory: &TempDir) -> String {
    fs::read_to_string(directory.path().join("d_cert.pem")).expect("read")
}

/// A header of POSIX ustar and that many zeros.
fn member(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.resize(512 + size.next_multiple_of(512), 0);
    header
}

#[test]
fn tar_members_are_searched_in_large_files() {
    let directory = crate::support::temporary_directory();
    cert(directory.path(), &["root", "r", "--no-pfx", "--dir", "."]).ok();
    fs::create_dir(directory.path().join("f")).expect("a directory");
    let fleet = ["fleet", "r", "--count", "300", "--days", "3", "--format", "tar", "--out", "f/fleet.tar"];
    cert(directory.path(), &fleet).ok();
    let mut large = member("padding", 17 << 20);
    large.extend(fs::read(directory.path().join("f/fleet.tar")).expect("read"));
    fs::write(directory.path().join("f/fleet.tar"), &large).expect("written");
    for path in ["f", "f/fleet.tar"] {
        let report = report(directory.path(), path);
        // The root is also in the full chains.
        assert_eq!((report["certificates"].as_u64(), length(&report["expiring"])), (Some(301), 300));
        assert_eq!(length(&report["notRead"]), 1);
        assert_eq!(length(&report["unreadable"]), 0);
        let file = report["expiring"][0]["file"].as_str().expect("a path");
        assert!(file.contains("fleet.tar:0000/device-"), "{file}");
    }
    fs::write(directory.path().join("f/fleet.tar"), &large[..large.len() - 50_000]).expect("written");
    for path in ["f", "f/fleet.tar"] {
        let report = report(directory.path(), path);
        assert_eq!((length(&report["unreadable"]), length(&report["expiring"]) > 250), (1, true), "{path}");
    }
}

#[test]
fn bundles_over_16_mib_are_listed_as_unreadable() {
    let directory = directory();
    let pem = pem(&directory);
    fs::create_dir(directory.path().join("b")).expect("a directory");
    fs::write(directory.path().join("b/bundle"), pem.repeat((2 << 20) / pem.len())).expect("written");
    let found = report(directory.path(), "b");
    assert_eq!((length(&found["expiring"]), length(&found["unreadable"])), (1, 0));
    fs::write(directory.path().join("b/bundle"), pem.repeat((17 << 20) / pem.len())).expect("written");
    let found = report(directory.path(), "b");
    assert_eq!((length(&found["expiring"]), length(&found["unreadable"])), (0, 1));
}

#[cfg(unix)]
#[test]
fn links_are_followed_without_loops() {
    use std::os::unix::fs::symlink;
    let directory = directory();
    fs::create_dir_all(directory.path().join("search/deep")).expect("a directory");
    fs::create_dir(directory.path().join("elsewhere")).expect("a directory");
    fs::rename(directory.path().join("d_cert.pem"), directory.path().join("elsewhere/d_cert.pem")).expect("moved");
    symlink("../elsewhere", directory.path().join("search/link")).expect("a link");
    symlink("..", directory.path().join("search/deep/up")).expect("a link");
    let found = report(directory.path(), "search");
    assert_eq!(found["expiring"][0]["file"], "search/link/d_cert.pem");
    assert_eq!((found["expiring"][0]["alsoIn"].as_u64(), length(&found["unreadable"])), (Some(0), 0));
    symlink("nowhere", directory.path().join("search/gone")).expect("a link");
    assert_eq!(report(directory.path(), "search")["unreadable"][0]["file"], "search/gone");
}

#[test]
fn unreadable_certificate_files_are_listed() {
    let directory = directory();
    let good = pem(&directory);
    let mistyped = good.replacen("BEGIN CERTIFICATE", "BEGIN CERTIFCATE", 1);
    let damaged = good.replacen("-----BEGIN", "----BEGIN", 1);
    let second = format!("{good}{damaged}");
    let key = fs::read_to_string(directory.path().join("d_key.pem")).expect("read");
    let cut = key.replace("-----END", "");
    for text in [&mistyped, &damaged, &second, &cut] {
        fs::create_dir(directory.path().join("in")).expect("a directory");
        fs::write(directory.path().join("in/file"), text).expect("written");
        assert_eq!(report(directory.path(), "in")["unreadable"][0]["file"], "in/file", "{text}");
        fs::remove_dir_all(directory.path().join("in")).expect("removed");
    }
    // The other certificate in the file is still listed.
    fs::write(directory.path().join("d_cert.pem"), second).expect("written");
    let found = report(directory.path(), ".");
    assert_eq!((length(&found["expiring"]), length(&found["unreadable"])), (1, 1));
}

#[test]
fn pkcs7_is_read() {
    let directory = directory();
    for (form, name) in [("DER", "der.p7b"), ("PEM", "pem.p7b")] {
        let made = ["crl2pkcs7", "-nocrl", "-certfile", "d_cert.pem", "-outform", form, "-out", name];
        if openssl(directory.path(), &made).is_none() {
            crate::skipped("there is no openssl");
            return;
        }
        let found = report(directory.path(), name);
        assert_eq!((length(&found["expiring"]), length(&found["unreadable"])), (1, 0), "{found}");
    }
    let der = fs::read(directory.path().join("der.p7b")).expect("read");
    fs::write(directory.path().join("cut.p7b"), &der[..der.len() - 10]).expect("written");
    let found = report(directory.path(), "cut.p7b");
    assert!(found["unreadable"][0]["reason"].as_str().expect("a reason").contains("PKCS#7"), "{found}");
}

#[test]
fn finding_no_certificate_is_a_failure() {
    let directory = directory();
    fs::create_dir(directory.path().join("empty")).expect("a directory");
    for path in ["empty", "d_key.pem"] {
        let run = cert(directory.path(), &["expiring", path]);
        assert!(!run.stdout.contains("None of"), "{}", run.stdout);
        assert!(run.fails(3).contains(&format!("no certificate found in {path}")));
    }
    assert!(cert(directory.path(), &["expiring", "missing"]).fails(3).contains("missing"));
}

#[test]
fn skipped_files_are_counted() {
    let directory = directory();
    fs::write(directory.path().join("notes"), "nothing").expect("written");
    fs::write(directory.path().join("old.gz"), b"\x1f\x8b\x08\0\0\0\0\0").expect("written");
    let run = cert(directory.path(), &["expiring", ".", "--within", "1d", "-o", "json"]);
    assert!(run.stderr.contains("files without a certificate: 2 of 4"), "{}", run.stderr);
    assert!(run.stderr.contains("files not read: 1, such as ./old.gz"), "{}", run.stderr);
    let report = run.json();
    assert_eq!((report["files"].as_u64(), report["withoutCertificate"].as_u64()), (Some(4), Some(2)));
    assert_eq!(report["notRead"][0]["file"], "./old.gz");
}

#[test]
fn a_time_past_the_year_9999_is_wrong_usage() {
    let directory = directory();
    for command in ["expiring", "inspect"] {
        assert!(cert(directory.path(), &[command, "d_cert.pem", "--within", "4000000d"]).fails(2).contains("9999"));
    }
}

#[test]
fn a_percentage_is_that_of_the_lifetime() {
    let directory = directory();
    // A new certificate has all of its lifetime left, except for some seconds and the five minutes before it was issued.
    cert(directory.path(), &["expiring", "d_cert.pem", "--within", "99%"]).ok();
    for command in ["expiring", "inspect"] {
        cert(directory.path(), &[command, "d_cert.pem", "--within", "100%"]).fails(1);
        cert(directory.path(), &[command, "d_cert.pem", "--within", "101%"]).fails(2);
    }
}

/// Name, labels and value. All values are whole numbers.
type Sample = (String, Vec<(String, String)>, i64);

/// Returns the samples of metrics in the text format of Prometheus: name, labels, value. Everything else is an error.
fn samples(text: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut types = Vec::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            match words[..] {
                ["HELP", _, help] => assert!(!help.is_empty()),
                ["TYPE", name, "gauge"] => types.push(name.to_owned()),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).expect("a name"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        assert_eq!(types.last().map(String::as_str), Some(name), "all samples follow their type");
        let mut labels = Vec::new();
        if let Some(list) = rest.strip_prefix('{') {
            rest = list;
            loop {
                let (label, after) = rest.split_once("=\"").expect("a label");
                let mut value = String::new();
                let mut characters = after.chars();
                loop {
                    match characters.next().expect("an end") {
                        '"' => break,
                        '\\' => value.push(match characters.next() {
                            Some('n') => '\n',
                            Some(escaped @ ('\\' | '"')) => escaped,
                            other => panic!("{other:?} in {line}"),
                        }),
                        character => value.push(character),
                    }
                }
                labels.push((label.to_owned(), value));
                rest = characters.as_str();
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').expect("the end of the labels");
        }
        let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok()).expect("a value");
        let sample = (name.to_owned(), labels, value);
        assert!(!samples.contains(&sample), "{line} is repeated");
        samples.push(sample);
    }
    samples
}

#[test]
fn prometheus_metrics_hold_all_certificates() {
    let folder = crate::support::temporary_directory();
    let path = folder.path();
    // Characters that have to be escaped in labels.
    let strange = "q\"b\\s\nn";
    fs::create_dir_all(path.join("search").join(strange)).expect("a directory");
    cert(path, &["root", "R é", "--no-pfx", "--dir", "."]).ok();
    let pem = fs::read_dir(path).expect("read").map(|entry| entry.expect("an entry").path());
    let pem = pem.filter(|file| file.to_string_lossy().ends_with("_cert.pem")).collect::<Vec<_>>();
    fs::copy(&pem[0], path.join("search").join(strange).join("a.pem")).expect("copied");
    fs::copy(&pem[0], path.join("search/same.pem")).expect("copied");
    cert(path, &["device", "d", "--days", "1", "--no-pfx", "--dir", "search"]).ok();
    let arguments = ["expiring", "search", "--format", "prometheus"];
    let text = cert(path, &arguments).ok();
    let found = samples(&text);
    let values = |name: &str| found.iter().filter(|(it, ..)| it == name).collect::<Vec<_>>();
    let ends = values("iot_enroll_certificate_not_after_timestamp_seconds");
    assert_eq!((ends.len(), values("iot_enroll_certificate_not_before_timestamp_seconds").len()), (2, 2), "{text}");
    let files = fs::read(path.join("search/d_cert.pem")).expect("read");
    let device = iot_enroll::certificate::Certificate::read(&files).expect("a certificate");
    let labels = [
        ("path", "search/d_cert.pem".to_owned()),
        ("subject", "CN=d".to_owned()),
        ("issuer", "CN=d".to_owned()),
        ("serial", device.serial_number()),
    ];
    let labels: Vec<_> = labels.map(|(name, value)| (name.to_owned(), value)).into();
    let end = device.not_after().unix_seconds();
    assert!(ends.iter().any(|(_, found, value)| *found == labels && *value == end), "{text}");
    assert!(ends.iter().any(|(_, found, _)| found[0].1.contains(strange) && found[1].1.contains("é")), "{text}");
    assert_eq!(values("iot_enroll_certificates")[0].2, 2);
    assert_eq!(values("iot_enroll_certificate_unreadable_files")[0].2, 0);
    match std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        Ok(mut checked) => {
            std::io::Write::write_all(&mut checked.stdin.take().expect("a pipe"), text.as_bytes()).expect("written");
            let output = checked.wait_with_output().expect("promtool runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(_) => crate::skipped("there is no promtool, which checks metrics: the test has its own parser"),
    }

    // The file is replaced at once, also when a certificate could not be read.
    fs::write(path.join("search/broken.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").expect("written");
    cert(path, &[&arguments[..], &["--out", "metrics.prom"]].concat()).fails(3);
    let written = samples(&fs::read_to_string(path.join("metrics.prom")).expect("read"));
    assert!(written.iter().any(|(name, _, value)| name.ends_with("unreadable_files") && *value == 1));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path.join("metrics.prom")).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "the collector can read it");
    }
    fs::create_dir(path.join("empty")).expect("a directory");
    cert(path, &["expiring", "empty", "--format", "prometheus", "--out", "metrics.prom"]).fails(3);
    let written = samples(&fs::read_to_string(path.join("metrics.prom")).expect("read"));
    assert!(written.iter().any(|(name, _, value)| name == "iot_enroll_certificates" && *value == 0));
    cert(path, &[&arguments[..], &["-o", "json"]].concat()).fails(2);
    cert(path, &["expiring", "search", "--out", "x"]).fails(2);
}

#[test]
fn inspect_within_fails_if_a_certificate_expires() {
    let directory = directory();
    cert(directory.path(), &["inspect", "d_cert.pem"]).ok();
    let inspection = cert(directory.path(), &["inspect", "d_cert.pem", "--within", "0d", "-o", "json"]).json();
    assert_eq!(
        (&inspection["certificates"][0]["daysLeft"], &inspection["certificates"][0]["expired"]),
        (&4.into(), &false.into())
    );
    let run = cert(directory.path(), &["inspect", "d_cert.pem", "--within", "1w"]);
    assert!(run.stdout.contains("1 of 1 certificates expire"), "{}", run.stdout);
    run.fails(1);
    // Exit status 3 is only used with --within.
    assert!(cert(directory.path(), &["inspect", "missing", "--within", "1w"]).fails(3).contains("missing"));
    cert(directory.path(), &["inspect", "missing"]).fails(1);
}

#[test]
fn unreadable_keys_are_no_unreadable_certificates() {
    let directory = directory();
    let path = directory.path();
    let key = fs::read_to_string(path.join("d_key.pem")).expect("read");
    fs::write(path.join("d_key.pem"), key.replace("-----END", "")).expect("written");
    let run = cert(path, &["expiring", ".", "--format", "prometheus"]);
    assert!(run.stdout.contains("iot_enroll_certificate_unreadable_files 0\n"), "{}", run.stdout);
    assert!(run.stderr.contains("files not read: 1, such as ./d_key.pem"), "{}", run.stderr);
    run.ok();
}

#[test]
fn two_certificates_with_the_same_labels_are_one_series() {
    let directory = directory();
    let path = directory.path();
    let mut bundle = String::new();
    for days in ["20", "10", "30"] {
        let request =
            ["req", "-x509", "-key", "d_key.pem", "-subj", "/CN=x", "-set_serial", "7", "-out", "x.pem", "-days"];
        if openssl(path, &[&request[..], &[days]].concat()).is_none() {
            crate::skipped("there is no openssl");
            return;
        }
        bundle += &fs::read_to_string(path.join("x.pem")).expect("read");
    }
    fs::write(path.join("x.pem"), bundle).expect("written");
    let text = cert(path, &["expiring", "x.pem", "--format", "prometheus"]).ok();
    let ends: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("iot_enroll_certificate_not_after_timestamp_seconds{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    assert!(matches!(ends[..], [end] if end < now + 11 * 86_400), "{text}");
    assert!(text.contains("iot_enroll_certificates 3"), "{text}");
}
