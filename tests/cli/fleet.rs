//! `cert fleet` and `cert device --csr`.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::{Run, openssl, program};
use iot_enroll::certificate::{Certificate, PrivateKey};
use tempfile::TempDir;

/// Creates a directory with the root `r`.
fn directory() -> TempDir {
    let directory = crate::support::temporary_directory();
    cert(directory.path(), &["root", "r", "--no-pfx"]).ok();
    directory
}

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn fleet(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(["cert", "fleet", "r"]).args(arguments))
}

struct Row {
    id: String,
    name: String,
    sha1: String,
    paths: Vec<String>,
}

/// Returns the rows of a complete manifest.
fn manifest(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).expect("a manifest");
    assert!(text.ends_with('\n'), "a row is not whole");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(
            "IOTC_DEVICEID,IOTC_DEVICENAME,IOTC_X509THUMBPRINTPRIMARY,sha256Thumbprint,serialNumber,notBefore,notAfter,\
             certificate,privateKey,fullchain,pfx"
        )
    );
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(',').map(str::to_owned).collect();
            assert_eq!(fields.len(), 11, "{line}");
            let paths = fields[7..].iter().filter(|path| !path.is_empty()).cloned().collect();
            Row { id: fields[0].clone(), name: fields[1].clone(), sha1: fields[2].clone(), paths }
        })
        .collect()
}

/// Returns the relative paths of all files in a directory tree.
fn below(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(below(&path).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.insert(name);
        }
    }
    found
}

/// Checks that a manifest lists exactly the complete sets in a directory, and returns their number.
fn check_sets(directory: &Path) -> usize {
    let rows = manifest(&directory.join("manifest.csv"));
    let told: BTreeSet<_> = rows.iter().flat_map(|row| row.paths.clone()).collect();
    let there: BTreeSet<_> = below(directory).into_iter().filter(|path| !path.ends_with("manifest.csv")).collect();
    assert_eq!(told, there);
    let mut authority = None;
    for row in &rows {
        let read = |at: usize| fs::read(directory.join(&row.paths[at])).expect("read");
        let pem = read(0);
        let certificate = Certificate::read(&pem).expect("a certificate");
        assert_eq!(certificate.subject().common_name(), Some(row.id.as_str()));
        assert_eq!(certificate.sha1_thumbprint().to_string(), row.sha1);
        assert!(PrivateKey::read(&read(1), None).expect("a key").belongs_to(&certificate));
        let chain = read(2);
        let issuer = chain.strip_prefix(&pem[..]).expect("a chain begins with its certificate");
        // All have the same CA, so one chain is parsed: unoptimised, that takes longer than issuing.
        let authority = authority.get_or_insert_with(|| {
            assert_eq!(Certificate::read_all(&chain).expect("a chain").len(), 2);
            issuer.to_vec()
        });
        assert_eq!(issuer, authority);
    }
    rows.len()
}

#[test]
fn numbered_devices_are_in_directories_of_a_thousand() {
    let directory = directory();
    let made = fleet(directory.path(), &["--count", "2001", "--prefix", "s-", "--out", "f", "-o", "json"]).json();
    assert_eq!(made["devices"], 2001);
    assert_eq!(made["manifest"], "f/manifest.csv");
    let out = directory.path().join("f");
    assert_eq!(check_sets(&out), 2001);
    let rows = manifest(&out.join("manifest.csv"));
    assert!(rows.iter().map(|row| row.id.clone()).eq((1..=2001).map(|number| format!("s-{number:04}"))));
    assert_eq!(rows[1_000].paths[0], "0001/s-1001_cert.pem");
    assert!(["0000", "0001", "0002"].iter().all(|name| fs::read_dir(out.join(name)).expect("read").count() <= 3_001));
    for row in [&rows[0], &rows[2_000]] {
        let arguments = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "r_cert.pem"];
        let leaf = format!("f/{}", row.paths[0]);
        if let Some(output) = openssl(directory.path(), &[&arguments[..], &[&leaf]].concat()) {
            assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    #[cfg(unix)]
    for (kind, expected) in [(0, 0o644), (1, 0o600), (2, 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        let permissions = fs::metadata(out.join(&rows[7].paths[kind])).expect("exists").permissions();
        assert_eq!(permissions.mode() & 0o777, expected);
    }
}

#[test]
fn ids_come_from_text_or_csv_in_the_order_of_the_file() {
    let directory = directory();
    for (content, names) in [
        ("z-9\r\n\r\n a.1 \nm:2\n", ["z-9", "a.1", "m:2"]),
        (
            "\u{feff}Name;IOTC_DeviceId;IOTC_DEVICENAME\nx;z-9;Pump \n;a.1;\"Second; one\"\n;m:2;\n",
            ["Pump", "Second; one", "m:2"],
        ),
        ("deviceId\nz-9\na.1\nm:2\n", ["z-9", "a.1", "m:2"]),
    ] {
        fs::write(directory.path().join("ids"), content).expect("written");
        let mut child = program(directory.path())
            .args(["cert", "fleet", "r", "--ids", "-", "--out", "f"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("runs");
        child.stdin.take().expect("piped").write_all(content.as_bytes()).expect("written");
        assert!(child.wait().expect("ends").success());
        fleet(directory.path(), &["--ids", "ids", "--out", "g"]).ok();
        for out in ["f", "g"] {
            let rows = manifest(&directory.path().join(out).join("manifest.csv"));
            assert!(rows.iter().map(|row| row.id.as_str()).eq(["z-9", "a.1", "m:2"]));
            assert!(rows.iter().map(|row| row.name.as_str()).eq(names));
            assert_eq!(rows[2].paths[0], "0000/m%3A2_cert.pem");
            check_sets(&directory.path().join(out));
            fs::remove_dir_all(directory.path().join(out)).expect("removed");
        }
    }
}

#[test]
fn invalid_ids_are_found_before_the_first_certificate() {
    let directory = directory();
    let long = "x".repeat(65);
    for (content, expected) in [
        ("a\nB-1\n\nb-1\n", &["line 4", "line 2", "b-1"][..]),
        ("a\n-b\nc d\n", &["line 2", "line 3"]),
        (&format!("a\n{long}\n"), &["line 2", "64"]),
        ("deviceId,name\na,x\n,y\n", &["line 3"]),
        ("serial,name\na,x\n", &["IOTC_DEVICEID"]),
        ("\n\n", &["names no device"]),
        ("a\0b\0", &["UTF-16"]),
        (&format!("a\n{}", "x".repeat(2 << 20)), &["1 MiB"]),
        (&format!("id,x\na,\"{}\n", "x\n".repeat(1 << 20)), &["1 MiB"]),
    ] {
        fs::write(directory.path().join("ids"), content).expect("written");
        let error = fleet(directory.path(), &["--ids", "ids", "--out", "f"]).fails(1);
        assert!(expected.iter().all(|part| error.contains(part)), "{content:?}: {error}");
        assert!(!directory.path().join("f").exists());
    }
    #[cfg(unix)]
    {
        let error = fleet(directory.path(), &["--ids", "/dev/zero", "--out", "f"]).fails(1);
        assert!(error.contains("1 MiB"), "{error}");
        let mut command = program(directory.path());
        command.args(["cert", "fleet", "r", "--ids", "/dev/null"]).env("TMPDIR", "/missing");
        let error = Run::of(&mut command).fails(1);
        assert!(error.contains("a temporary file in /missing"), "{error}");
        let mut command = program(directory.path());
        command.args(["cert", "fleet", "r", "--count", "1", "--format", "tar", "--out", "-"]).env("TMPDIR", "/missing");
        let error = Run::of(&mut command).fails(1);
        assert!(error.contains("make a temporary file in /missing"), "{error}");
    }
    fs::write(directory.path().join("ids"), "id\nid\n").expect("written");
    let run = fleet(directory.path(), &["--ids", "ids", "--out", "h"]);
    assert!(run.stderr.contains("the first line, id,") && run.stderr.contains("column"), "{}", run.stderr);
    let error = fleet(directory.path(), &["--count", "3", "--prefix=-x", "--out", "f"]).fails(1);
    assert!(error.contains("-x"), "{error}");
    for wrong in [&["--count", "0"][..], &[], &["--count", "1", "--ids", "x"], &["--ids", "x", "--prefix", "y"]] {
        fleet(directory.path(), wrong).fails(2);
    }
}

#[test]
fn ids_with_the_same_file_names_do_not_share_files() {
    let directory = directory();
    fs::write(directory.path().join("ids"), "dev-1\ndev1\ndev_1\ndev.1\ndev:1\n").expect("written");
    fleet(directory.path(), &["--ids", "ids", "--out", "f"]).ok();
    assert_eq!(check_sets(&directory.path().join("f")), 5);
    assert_eq!(below(&directory.path().join("f")).len(), 5 * 3 + 2);
}

/// Unpacks with the `tar` program. Returns `None` if it is not installed.
fn unpack(directory: &Path, stream: &str, into: &str) -> bool {
    fs::create_dir(directory.join(into)).expect("a directory");
    match Command::new("tar").current_dir(directory).args(["-xf", stream, "-C", into]).output() {
        Ok(output) => {
            assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => false,
    }
}

#[test]
fn tar_is_written_to_standard_output_or_a_file() {
    let directory = directory();
    let mut command = program(directory.path());
    command.args(["cert", "fleet", "r", "--count", "70", "--format", "tar", "--out", "-"]);
    let output = command.output().expect("runs");
    assert!(output.status.success());
    fs::write(directory.path().join("stdout.tar"), output.stdout).expect("written");
    fleet(directory.path(), &["--count", "70", "--format", "tar", "--out", "fleet.tar"]).ok();
    for (stream, into) in [("stdout.tar", "a"), ("fleet.tar", "b")] {
        if unpack(directory.path(), stream, into) {
            assert_eq!(check_sets(&directory.path().join(into)), 70);
        }
    }
    let beside = fs::read(directory.path().join("fleet.tar.manifest.csv")).expect("a manifest");
    assert!(
        !directory.path().join("b").exists()
            || fs::read(directory.path().join("b/manifest.csv")).expect("read") == beside
    );
    let error = fleet(directory.path(), &["--count", "1", "--format", "tar", "--out", "fleet.tar"]).fails(1);
    assert!(error.contains("fleet.tar already exists") && error.contains("--resume"), "{error}");
    for count in ["7", "71000", "69"] {
        let error = fleet(directory.path(), &["--count", count, "--format", "tar", "--resume"]).fails(1);
        assert!(error.contains("added at the end") && error.contains("--out"), "{error}");
    }
    let error = fleet(directory.path(), &["--count", "1", "--out", "-"]).fails(2);
    assert!(error.contains("--format tar"), "{error}");
    let tar = ["--count", "1", "--format", "tar", "--resume", "--out"];
    fleet(directory.path(), &[&tar[..], &["-"]].concat()).fails(2);
    #[cfg(unix)]
    fleet(directory.path(), &[&tar[..], &["/dev/null"]].concat()).fails(2);
    let error = fleet(directory.path(), &["--count", "1", "--pfx-password-file", "x"]).fails(2);
    assert!(error.contains("--pfx"), "{error}");
    for threads in ["0", "513", "18446744073709551615"] {
        fleet(directory.path(), &["--count", "1", "--threads", threads]).fails(2);
    }
}

/// Enough for three directories.
const DEVICES: usize = 2_001;

/// Starts to make [`DEVICES`] devices.
fn start(directory: &Path, arguments: &[&str]) -> Child {
    let mut command = program(directory);
    command.args(["cert", "fleet", "r", "--count", "2001"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs")
}

/// Waits until a file has this many bytes, or the process exits.
fn wait_for(child: &mut Child, path: &Path, bytes: u64) {
    while fs::metadata(path).map_or(0, |found| found.len()) < bytes && child.try_wait().expect("a child").is_none() {
        // Spinning would take the processor from the program.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_run_leaves_complete_sets_and_is_resumed() {
    let directory = directory();
    let out = directory.path().join("f");
    for bytes in [1, 200_000, 450_000] {
        let mut child = start(directory.path(), &["--out", "f", "--resume"]);
        wait_for(&mut child, &out.join("manifest.csv"), bytes);
        child.kill().expect("killed");
        child.wait().expect("ends");
        let hidden = |name: &str| name.starts_with('.');
        for entry in fs::read_dir(&out).expect("read").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
            if !hidden(&name) && entry.is_dir() {
                let told = fs::read_to_string(entry.join("manifest.csv")).expect("a part of the manifest");
                assert_eq!(fs::read_dir(&entry).expect("read").count(), (told.lines().count() - 1) * 3 + 1);
            }
        }
        let told = fs::read_to_string(out.join("manifest.csv")).unwrap_or_default();
        let whole = told.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for path in whole.lines().skip(1).flat_map(|row| row.split(',').skip(7)).filter(|path| !path.is_empty()) {
            assert!(fs::metadata(out.join(path)).is_ok_and(|found| found.len() > 0), "{path}");
        }
    }
    let done = fleet(directory.path(), &["--count", "2001", "--out", "f", "--resume", "-o", "json"]).json();
    assert_eq!(done["devices"], DEVICES);
    assert_eq!(check_sets(&out), DEVICES);
    let again = fleet(directory.path(), &["--count", "2001", "--out", "f", "--resume", "-o", "json"]).json();
    assert_eq!(again["resumed"], DEVICES);
}

#[test]
fn killed_tar_ends_with_a_complete_set_and_is_resumed() {
    let directory = directory();
    let tar = directory.path().join("fleet.tar");
    for bytes in [1, 2_500_000, 6_000_000] {
        let mut child = start(directory.path(), &["--format", "tar", "--resume"]);
        wait_for(&mut child, &tar, bytes);
        child.kill().expect("killed");
        child.wait().expect("ends");
        let mut names = Vec::new();
        if let Ok(file) = fs::File::open(&tar) {
            for entry in tar::Archive::new(file).entries().expect("entries") {
                names.push(entry.expect("whole").path().expect("a path").into_owned());
            }
        }
        let sets = names.iter().filter(|name| name.extension().is_some_and(|extension| extension == "pem")).count();
        assert_eq!(sets % 3, 0, "the last set is not whole");
    }
    let done = fleet(directory.path(), &["--count", "2001", "--format", "tar", "--resume", "-o", "json"]).json();
    assert_eq!(done["devices"], DEVICES);
    assert!(done["resumed"].as_u64().expect("a number") > 0);
    if unpack(directory.path(), "fleet.tar", "u") {
        assert_eq!(check_sets(&directory.path().join("u")), DEVICES);
    }
}

#[cfg(unix)]
#[test]
fn interrupted_run_stops_cleanly_and_says_how_to_resume() {
    let directory = directory();
    for (arguments, watched, bytes) in
        [(&["--out", "f"][..], "f/manifest.csv", 50_000), (&["--format", "tar"], "fleet.tar", 1_000_000)]
    {
        let mut child = start(directory.path(), arguments);
        wait_for(&mut child, &directory.path().join(watched), bytes);
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
        let output = child.wait_with_output().expect("ends");
        if output.status.success() || !killed.success() {
            // The run completed before the signal.
            continue;
        }
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(error.contains("stopped") && error.contains("--resume"), "{error}");
        if arguments.contains(&"f") {
            assert!(below(&directory.path().join("f")).iter().all(|path| !path.starts_with('.')));
            check_sets(&directory.path().join("f"));
        } else if unpack(directory.path(), "fleet.tar", "u") {
            check_sets(&directory.path().join("u"));
        }
        let resumed =
            fleet(directory.path(), &[&["--count", "2001", "--resume", "-o", "json"], arguments].concat()).json();
        assert_eq!(resumed["devices"], DEVICES);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_reported_with_the_number_of_devices() {
    let directory = directory();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let mut command = program(directory.path());
    command.args(["cert", "fleet", "r", "--count", "100", "--format", "tar", "--out", "-"]);
    let output = command.stdout(full).output().expect("runs");
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("after 0 devices") && !error.contains("--resume"), "{error}");
    // A small file system, which only root can mount.
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(&small).output().is_ok_and(|done| done.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=4m", "tmpfs"]) {
        crate::skipped("a small file system can only be mounted by root");
        return;
    }
    let runs = [&["--out", "small/f"][..], &["--format", "tar", "--out", "small/fleet.tar"]].map(|arguments| {
        let arguments = [&["--count", "1001", "--resume"], arguments].concat();
        let error = fleet(directory.path(), &arguments).fails(1);
        let sets = if arguments.contains(&"small/f") {
            check_sets(&small.join("f"))
        } else {
            manifest(&small.join("fleet.tar.manifest.csv")).len()
        };
        let grown = mount(&["-o", "remount,size=64m"]);
        let done = grown.then(|| fleet(directory.path(), &[&arguments[..], &["-o", "json"]].concat()).json());
        let whole = arguments.contains(&"small/f").then(|| check_sets(&small.join("f")));
        let _ = fs::remove_dir_all(small.join("f"));
        let shrunk = mount(&["-o", "remount,size=4m"]);
        (error, sets, done, whole, shrunk)
    });
    let unmounted = Command::new("umount").arg(&small).status().expect("umount runs");
    assert!(unmounted.success());
    for (error, sets, done, whole, _) in runs {
        assert!(sets > 0 && error.contains(&format!("{sets} devices have been made")), "{sets}: {error}");
        assert!(error.contains("--resume"), "{error}");
        if let Some(done) = done {
            assert_eq!((&done["devices"], &done["resumed"]), (&1001.into(), &sets.into()));
        }
        assert!(whole.is_none_or(|whole| whole == 1001));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_number_of_devices() {
    /// Returns the peak memory of a run in KiB, read while the run blocks at its end on a full pipe.
    fn peak(directory: &Path, count: &str) -> u64 {
        let mut command = program(directory);
        command.args(["cert", "fleet", "r", "--count", count, "--format", "tar", "--out", "-"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        let mut stdout = child.stdout.take().expect("piped");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        let mut buffer = vec![0; 1 << 16];
        while std::io::Read::read(&mut stdout, &mut buffer).expect("read") > 0 {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        }
        assert!(child.wait().expect("ends").success());
        peak
    }
    let directory = directory();
    let (few, many) = (peak(directory.path(), "1000"), peak(directory.path(), "20000"));
    assert!(few > 0 && many <= 64 << 10, "{many} KiB");
    assert!(many <= few + (4 << 10), "{few} KiB for 1,000 and {many} KiB for 20,000");
}

#[test]
fn pfx_files_are_optional() {
    let directory = directory();
    fs::write(directory.path().join("password"), "geheim\n").expect("written");
    fleet(directory.path(), &["--count", "3", "--pfx", "--pfx-password-file", "password", "--out", "f"]).ok();
    let rows = manifest(&directory.path().join("f/manifest.csv"));
    assert_eq!(rows[2].paths[3], "0000/device-3.pfx");
    let arguments = ["pkcs12", "-in", "f/0000/device-3.pfx", "-passin", "pass:geheim", "-nodes"];
    if let Some(output) = openssl(directory.path(), &arguments) {
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(check_sets(&directory.path().join("f")), 3);
}

/// Creates a request with the `openssl` program. Returns false if it is not installed.
fn request(directory: &Path, stem: &str, subject: &str, more: &[&str]) -> bool {
    let (csr, key) = (format!("{stem}.csr"), format!("{stem}.key"));
    let subject = format!("/CN={subject}");
    let arguments = ["req", "-new", "-nodes", "-keyout", &key, "-out", &csr, "-subj", &subject];
    let Some(output) = openssl(directory, &[&arguments[..], more].concat()) else { return false };
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    true
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

#[test]
fn request_is_signed_for_its_id() {
    let directory = directory();
    if !request(directory.path(), "d", "sensor-1", &[&EC[..], &["-addext", "subjectAltName=DNS:example.org"]].concat())
    {
        return;
    }
    let run = cert(directory.path(), &["device", "sensor-1", "r", "--csr", "d.csr", "-o", "json"]);
    assert!(run.stderr.contains("subjectAltName") && run.stderr.contains("ignored"), "{}", run.stderr);
    let made = run.json();
    assert_eq!(made["subject"], "CN=sensor-1");
    assert!(made["privateKey"].is_null() && made["pfx"].is_null());
    assert_eq!(made["passedOver"][0], "subjectAltName");
    let certificate =
        Certificate::read(&fs::read(directory.path().join("sensor1_cert.pem")).expect("read")).expect("one");
    let key = PrivateKey::read(&fs::read(directory.path().join("d.key")).expect("read"), None).expect("a key");
    assert!(key.belongs_to(&certificate));
    assert!(!directory.path().join("sensor1_key.pem").exists() && !directory.path().join("sensor1.pfx").exists());
    cert(directory.path(), &["verify", "sensor1_fullchain.pem", "--ca", "r_cert.pem"]).ok();
    let error = cert(directory.path(), &["device", "other", "r", "--csr", "d.csr"]).fails(1);
    assert!(error.contains("sensor-1") && error.contains("--replace-subject"), "{error}");
    cert(directory.path(), &["device", "other", "r", "--csr", "d.csr", "--replace-subject"]).ok();
    cert(directory.path(), &["device", "sensor-1", "--csr", "d.csr"]).fails(2);
}

#[test]
fn requests_with_weak_keys_or_wrong_signatures_are_refused() {
    let directory = directory();
    if !request(directory.path(), "weak", "w", &["-newkey", "rsa:1024"]) {
        return;
    }
    let error = cert(directory.path(), &["device", "w", "r", "--csr", "weak.csr"]).fails(1);
    assert!(error.contains("RSA 1024"), "{error}");
    assert!(request(directory.path(), "good", "g", &EC));
    openssl(directory.path(), &["req", "-in", "good.csr", "-outform", "DER", "-out", "good.der"]);
    let mut der = fs::read(directory.path().join("good.der")).expect("read");
    let at = der.windows(1).position(|window| window == b"g").expect("the name");
    der[at] = b'h';
    fs::write(directory.path().join("forged.der"), der).expect("written");
    let error = cert(directory.path(), &["device", "h", "r", "--csr", "forged.der"]).fails(1);
    assert!(error.contains("not signed by the key in it"), "{error}");
    assert!(request(directory.path(), "p521", "p", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"]));
    cert(directory.path(), &["device", "p", "r", "--csr", "p521.csr"]).ok();
}

#[test]
fn directory_of_requests_is_signed_without_keys() {
    let directory = directory();
    fs::create_dir(directory.path().join("in")).expect("a directory");
    for id in ["b-2", "a-1"] {
        if !request(directory.path(), &format!("in/{id}"), id, &EC) {
            return;
        }
    }
    fleet(directory.path(), &["--csr-dir", "in", "--out", "f"]).ok();
    let rows = manifest(&directory.path().join("f/manifest.csv"));
    assert!(rows.iter().map(|row| row.id.as_str()).eq(["a-1", "b-2"]));
    assert_eq!(rows[0].paths, ["0000/a-1_cert.pem", "0000/a-1_fullchain.pem"]);
    assert_eq!(below(&directory.path().join("f")).len(), 2 * 2 + 2);
    assert!(request(directory.path(), "in/c", "A-1", &EC));
    let error = fleet(directory.path(), &["--csr-dir", "in", "--out", "g"]).fails(1);
    assert!(error.contains("in/c.csr") && error.contains("A-1") && !directory.path().join("g").exists(), "{error}");
    let input = directory.path().join("in");
    let read = |name: &str| fs::read(input.join(name)).expect("read");
    fs::write(input.join("d.csr"), [read("a-1.csr"), read("b-2.csr")].concat()).expect("written");
    openssl(&input, &["req", "-in", "b-2.csr", "-outform", "DER", "-out", "e.csr"]);
    fs::write(input.join("e.csr"), [&read("e.csr")[..], b"\x01\x02\x03"].concat()).expect("written");
    fs::write(input.join("f.csr"), "").expect("written");
    let large = vec![b'\n'; 1 << 20];
    fs::write(input.join("g.csr"), &large).expect("written");
    fs::write(input.join("h.zip"), &large).expect("written");
    let error = fleet(directory.path(), &["--csr-dir", "in", "--out", "g"]).fails(1);
    for (file, fault) in [
        ("d.csr", "2 certificate requests"),
        ("e.csr", "3 bytes follow its end"),
        ("f.csr", "no certificate request"),
        ("g.csr", "256 KiB"),
    ] {
        let line = error.lines().find(|line| line.contains(file)).unwrap_or_default();
        assert!(line.contains(fault), "{file}: {error}");
        fs::remove_file(input.join(file)).expect("removed");
    }
    fs::remove_file(input.join("c.csr")).expect("removed");
    // A request that was replaced by one with another key.
    assert!(request(&input, "b-2", "b-2", &EC));
    let error = fleet(directory.path(), &["--csr-dir", "in", "--out", "f", "--resume"]).fails(1);
    assert!(error.contains("b-2") && error.contains("another key"), "{error}");
    let run = fleet(directory.path(), &["--csr-dir", "in", "--out", "g"]);
    assert!(run.status == 0 && run.stderr.contains("4 files hold no certificate request"), "{}", run.stderr);
}

#[test]
fn expiring_certificates_are_sorted_and_set_the_exit_status() {
    let directory = directory();
    for (id, days) in [("late", "400"), ("soon", "20"), ("sooner", "5")] {
        cert(directory.path(), &["device", id, "r", "--days", days, "--dir", ".", "--no-pfx"]).ok();
    }
    let all = cert(directory.path(), &["expiring", ".", "--within", "3d", "-o", "json"]).json();
    assert_eq!((all["certificates"].as_u64(), all["expiring"].as_array().map(Vec::len)), (Some(4), Some(0)));
    fs::create_dir_all(directory.path().join("deep/er")).expect("a directory");
    fs::rename(directory.path().join("soon_cert.pem"), directory.path().join("deep/er/x")).expect("moved");
    let run = cert(directory.path(), &["expiring", ".", "-o", "json"]);
    assert_eq!(run.status, 1);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    let subjects: Vec<_> =
        report["expiring"].as_array().expect("a list").iter().map(|entry| &entry["subject"]).collect();
    assert_eq!(subjects, ["CN=sooner", "CN=soon"]);
    assert_eq!(report["expiring"][0]["daysLeft"], 4);
    assert_eq!(
        (report["expiring"][1]["file"].as_str(), report["expiring"][1]["alsoIn"].as_u64()),
        (Some("./deep/er/x"), Some(1))
    );
    cert(directory.path(), &["expiring", ".", "--within", "1h"]).ok();
    cert(directory.path(), &["expiring", ".", "--within", "soon"]).fails(2);
    fs::write(directory.path().join("bad.crt"), "nothing").expect("written");
    let run = cert(directory.path(), &["expiring", ".", "--within", "1d"]);
    assert_eq!(run.status, 3);
    assert!(run.stdout.contains("bad.crt"), "{}", run.stdout);
}
