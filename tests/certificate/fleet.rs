//! Fleets through the library: the certificates are those that rcgen makes, sets are whole, order is kept.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    num::NonZeroUsize,
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::support::rcgen_pem::rcgen_key;
use iot_enroll::certificate::{
    Certificate, CertificateAuthority, CommonName, DeviceId, DeviceIssuer, IssueOptions, KeyAlgorithm, PrivateKey,
    Timestamp, chain,
    files::PfxOptions,
    fleet::{Fleet, FleetControl, FleetDevice, FleetError, FleetReport, IfExists, MANIFEST_COLUMNS, SourceError},
    pfx::{self, PfxEncryption},
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

/// 2030-05-17T12:30:45Z.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_905_251_445).expect("a time");

static NEVER: AtomicBool = AtomicBool::new(false);
const CONTROL: FleetControl<'static> = FleetControl::new(&NEVER, &|_| {});

fn options(algorithm: KeyAlgorithm) -> IssueOptions {
    IssueOptions::new().algorithm(algorithm).at(NOW)
}

fn root(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let name = CommonName::new("Fleet Root").expect("a name");
    let root = CertificateAuthority::new_root(&name, &options(algorithm));
    root.and_then(|root| root.into_authority(NOW)).expect("an authority")
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}

fn devices(count: usize) -> impl Iterator<Item = Result<FleetDevice, SourceError>> + Send {
    (0..count).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("d{number}"))?)))
}

/// The part of a certificate that is signed.
fn to_be_signed(der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    X509Certificate::from_der(der).expect("a certificate").1.tbs_certificate.as_ref().to_vec()
}

/// What rcgen makes of the same values.
fn by_rcgen(id: &str, made: &Certificate, key: &PrivateKey, authority: &CertificateAuthority) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id);
    let serial: Vec<u8> = (0..40)
        .step_by(2)
        .map(|at| u8::from_str_radix(&made.serial_number()[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = SystemTime::from(made.not_before()).into();
    params.not_after = SystemTime::from(made.not_after()).into();
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut issuer = CertificateParams::default();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    issuer.distinguished_name = DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, authority.certificate().subject().common_name().expect("one"));
    let issuer = Issuer::new(issuer, rcgen_key(authority.key()));
    params.signed_by(&rcgen_key(key), &issuer).expect("a certificate").der().to_vec()
}

/// A CA key of each kind, of which RSA keys take long to generate.
static AUTHORITY_KEYS: LazyLock<[String; 3]> = LazyLock::new(|| {
    [KeyAlgorithm::EcP256, KeyAlgorithm::EcP384, KeyAlgorithm::Rsa2048]
        .map(|algorithm| PrivateKey::generate(algorithm).and_then(|key| key.to_pem()).expect("a key").to_string())
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_certificate_is_byte_for_byte_what_rcgen_makes(
        id in "[A-Za-z0-9]([A-Za-z0-9._:-]{0,62}[A-Za-z0-9])?",
        own in 0..8_usize,
        authoritys in 0..3_usize,
        year in 2_026..2_060_i32,
    ) {
        // 4096 bits differ from 3072 in nothing but the time they take.
        let algorithm = match own {
            0..4 => KeyAlgorithm::EcP256,
            4..7 => KeyAlgorithm::EcP384,
            _ => KeyAlgorithm::Rsa2048,
        };
        let at = format!("{year}-05-17T12:30:45Z").parse::<Timestamp>().expect("a time");
        let key = PrivateKey::read(AUTHORITY_KEYS[authoritys].as_bytes(), None).expect("a key");
        let authority = IssueOptions::new().at(at);
        let authority = CertificateAuthority::new_root_with_key(&CommonName::new("R").expect("a name"), key, &authority);
        let authority = authority.and_then(|root| root.into_authority(at)).expect("an authority");
        let issuer = DeviceIssuer::new(&authority, &options(algorithm).at(at)).expect("an issuer");
        let made = issuer.issue(&DeviceId::new(id.as_str()).expect("an id")).expect("a certificate");
        let certificate = Certificate::from_der(&made.certificate).expect("a certificate");
        let expected = by_rcgen(&id, &certificate, &made.key, &authority);
        prop_assert_eq!(to_be_signed(&made.certificate), to_be_signed(&expected));
        if authoritys == 2 {
            // These signatures have nothing random in them.
            prop_assert_eq!(&made.certificate, &expected);
        }
        prop_assert!(chain::verify(&[certificate], authority.certificate(), at).is_ok());
    }
}

#[test]
fn a_key_is_exported_as_aws_lc_exports_it() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        for _ in 0..64 {
            let theirs = KeyPair::generate_for(algorithm).expect("a key").serialize_der();
            let ours = PrivateKey::read(&theirs, None).expect("a key");
            assert_eq!(*ours.to_pkcs8_der().expect("DER"), theirs);
        }
    }
}

/// The members of a tar stream.
fn members(stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().expect("entries");
    entries
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            (entry.path().expect("a path").to_string_lossy().into_owned(), content)
        })
        .collect()
}

#[test]
fn a_stream_keeps_the_order_of_the_devices_on_any_number_of_threads() {
    let root = root(KeyAlgorithm::EcP256);
    for count in [1, 2, 7] {
        let fleet = Fleet::new(&root, &options(KeyAlgorithm::EcP256), None, threads(count)).expect("a fleet");
        let made = AtomicU64::new(0);
        let progress = |more| {
            made.fetch_add(more, Ordering::Relaxed);
        };
        let mut stream = Vec::new();
        let control = FleetControl::new(&NEVER, &progress);
        let report = fleet.write_tar(devices(1_100), &mut stream, control).expect("a stream");
        assert_eq!((report.devices, made.into_inner(), report.stopped), (1_100, 1_100, false));
        let members = members(&stream);
        let expected = (0..1_100).flat_map(|number| {
            ["cert", "key", "fullchain"].map(|kind| format!("{:04}/d{number}_{kind}.pem", number / 1_000))
        });
        assert!(members.iter().map(|(name, _)| name.clone()).eq(expected.chain(["manifest.csv".to_owned()])));
        let (_, manifest) = members.last().expect("a manifest");
        let mut rows = csv_rows(manifest);
        assert_eq!(rows.remove(0), MANIFEST_COLUMNS);
        for (row, set) in rows.iter().zip(members.chunks(3)) {
            let certificate = Certificate::read(&set[0].1).expect("a certificate");
            let key = PrivateKey::read(&set[1].1, None).expect("a key");
            assert!(key.belongs_to(&certificate));
            assert_eq!(
                chain::verify(std::slice::from_ref(&certificate), root.certificate(), NOW).map(|path| path.len()),
                Ok(2)
            );
            assert_eq!(set[2].1, (certificate.to_pem() + &root.certificate().to_pem()).as_bytes());
            assert_eq!(row[0], certificate.subject().common_name().expect("a name"));
            assert_eq!(row[2], certificate.sha1_thumbprint().to_string());
            assert_eq!(row[3], certificate.sha256_thumbprint().to_string());
            assert_eq!(row[4], certificate.serial_number());
            assert_eq!((row[5].as_str(), row[6].as_str()), ("2030-05-17T12:25:45Z", "2031-05-17T12:30:45Z"));
            assert_eq!(row[7..], [set[0].0.clone(), set[1].0.clone(), set[2].0.clone(), String::new()]);
        }
        let serials: BTreeSet<_> = rows.iter().map(|row| &row[4]).collect();
        assert_eq!(serials.len(), 1_100);
    }
}

fn csv_rows(text: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn pfx_files_hold_key_and_chain_and_open_with_the_password() {
    let root = root(KeyAlgorithm::EcP256);
    let intermediate =
        root.issue_intermediate(&CommonName::new("Factory").expect("a name"), &options(KeyAlgorithm::EcP384));
    let intermediate = intermediate.and_then(|made| made.into_authority(NOW)).expect("an authority");
    let options_of_pfx = PfxOptions::new("geheim").encryption(PfxEncryption::Aes256);
    let fleet = Fleet::new(&intermediate, &options(KeyAlgorithm::EcP256), Some(options_of_pfx), threads(3));
    let mut stream = Vec::new();
    fleet.map(|fleet| fleet.write_tar(devices(5), &mut stream, CONTROL)).expect("a fleet").expect("a stream");
    let members = members(&stream);
    assert_eq!(members.len(), 5 * 4 + 1);
    for set in members.chunks_exact(4) {
        let certificates = pfx::read(&set[3].1, "geheim").expect("a PFX file");
        assert_eq!(certificates, Certificate::read_all(&set[2].1).expect("a chain"));
        assert_eq!(certificates.len(), 3);
    }
}

#[test]
fn a_failing_device_ends_a_run_and_keeps_complete_sets() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = Fleet::new(&root, &options(KeyAlgorithm::EcP256), None, threads(3)).expect("a fleet");
    let directory = crate::support::temporary_directory();
    let broken = devices(200).chain(std::iter::once(Err("no more".into()))).chain(devices(50));
    let error = fleet.write_directory(broken, directory.path(), IfExists::Fail, CONTROL).expect_err("fails");
    let FleetError::Interrupted { made, .. } = error else { panic!("{error}") };
    let rows = csv_rows(&std::fs::read(directory.path().join("manifest.csv")).expect("a manifest"));
    assert_eq!(rows.len() as u64, made + 1);
    let files = std::fs::read_dir(directory.path().join("0000")).expect("a directory").count() as u64;
    assert_eq!(files, made * 3 + 1);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 2, "nothing hidden is left");
    let report = fleet.write_directory(devices(1_250), directory.path(), IfExists::Resume, CONTROL).expect("resumed");
    assert_eq!((report.devices, report.resumed), (1_250, made));
}

/// The lock of a file ends with the run, even if a child process still has a copy of the file.
#[cfg(target_os = "linux")]
#[test]
fn the_next_run_is_not_held_up_by_copies_of_the_files_of_the_last() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = Fleet::new(&root, &options(KeyAlgorithm::EcP256), None, threads(2)).expect("a fleet");
    let directory = crate::support::temporary_directory();
    let (tree, tar) = (directory.path().join("fleet"), directory.path().join("fleet.tar"));
    let copies: [std::sync::OnceLock<_>; 4] = Default::default();
    let copy = |run: usize, path: &Path| {
        let (copies, path) = (&copies[run], path.to_owned());
        move |_| {
            copies.get_or_init(|| crate::support::descriptors::copy_open_files(&path));
        }
    };
    for (run, count, if_exists) in [(0, 40, IfExists::Fail), (2, 80, IfExists::Resume)] {
        let made =
            fleet.write_directory(devices(count), &tree, if_exists, FleetControl::new(&NEVER, &copy(run, &tree)));
        assert_eq!(made.expect("made").devices, count as u64);
        let made =
            fleet.write_tar_file(devices(count), &tar, if_exists, FleetControl::new(&NEVER, &copy(run + 1, &tar)));
        assert_eq!(made.expect("made").devices, count as u64);
    }
}

/// A disk that takes so many bytes.
struct Small(usize);

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stream_that_fails_says_how_far_it_came() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = Fleet::new(&root, &options(KeyAlgorithm::EcP256), None, threads(2)).expect("a fleet");
    let error = fleet.write_tar(devices(500), Small(1 << 20), CONTROL).expect_err("fails");
    let FleetError::Interrupted { made, .. } = &error else { panic!("{error}") };
    assert!((100..300).contains(made), "{error}");
}

#[test]
fn a_run_of_another_authority_or_for_other_devices_is_not_resumed() {
    let (first, second) = (root(KeyAlgorithm::EcP256), root(KeyAlgorithm::EcP256));
    let fleet = |root| Fleet::new(root, &options(KeyAlgorithm::EcP256), None, threads(2)).expect("a fleet");
    let directory = crate::support::temporary_directory();
    let (files, tar) = (directory.path().join("files"), directory.path().join("fleet.tar"));
    fleet(&first).write_directory(devices(40), &files, IfExists::Fail, CONTROL).expect("files");
    fleet(&first).write_tar_file(devices(40), &tar, IfExists::Fail, CONTROL).expect("a tar file");
    let [of_files, of_tar] = [files.join("manifest.csv"), directory.path().join("fleet.tar.manifest.csv")];
    let manifests = || [&of_files, &of_tar, &tar].map(|path| std::fs::read(path).expect("read"));
    let before = manifests();
    let others = || devices(41).skip(1);
    for error in [
        fleet(&second).write_directory(devices(50), &files, IfExists::Resume, CONTROL).expect_err("another authority"),
        fleet(&second).write_tar_file(devices(50), &tar, IfExists::Resume, CONTROL).expect_err("another authority"),
    ] {
        assert!(matches!(error, FleetError::CannotResume { .. }), "{error}");
    }
    for error in [
        fleet(&first).write_directory(others(), &files, IfExists::Resume, CONTROL).expect_err("other devices"),
        fleet(&first).write_tar_file(others(), &tar, IfExists::Resume, CONTROL).expect_err("other devices"),
        fleet(&first).write_directory(devices(39), &files, IfExists::Resume, CONTROL).expect_err("fewer devices"),
    ] {
        assert!(matches!(error, FleetError::OtherDevices { .. }), "{error}");
        assert!(error.to_string().contains("added at the end"), "{error}");
    }
    assert!(manifests() == before, "what is refused is left as it is");
    assert!(matches!(
        fleet(&first).write_directory(devices(1), &files, IfExists::Fail, CONTROL),
        Err(FleetError::Exists(_))
    ));
    assert!(matches!(
        fleet(&first).write_tar_file(devices(1), &tar, IfExists::Fail, CONTROL),
        Err(FleetError::Exists(_))
    ));
}

#[test]
fn a_tar_file_truncated_anywhere_is_resumed() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = Fleet::new(&root, &options(KeyAlgorithm::EcP256), None, threads(2)).expect("a fleet");
    let directory = crate::support::temporary_directory();
    let path = directory.path().join("fleet.tar");
    fleet.write_tar_file(devices(100), &path, IfExists::Fail, CONTROL).expect("a tar file");
    let whole = std::fs::read(&path).expect("read");
    let first = members(&whole);
    let manifest = directory.path().join("fleet.tar.manifest.csv");
    let rows = std::fs::read(&manifest).expect("read");
    for (cut, cut_rows) in
        [(0, 0), (100, 10), (512, 300), (70_000, rows.len()), (200_001, 9_999), (whole.len() - 1_024, rows.len() - 1)]
    {
        std::fs::write(&path, &whole[..cut]).expect("written");
        std::fs::write(&manifest, &rows[..cut_rows]).expect("written");
        let report = fleet.write_tar_file(devices(120), &path, IfExists::Resume, CONTROL).expect("resumed");
        assert_eq!(report.devices, 120);
        let stream = std::fs::read(&path).expect("read");
        let members = members(&stream);
        assert_eq!(members.len(), 120 * 3 + 1);
        assert_eq!(members[360].1, std::fs::read(&manifest).expect("read"));
        assert_eq!(csv_rows(&members[360].1).len(), 121);
        let kept = usize::try_from(report.resumed).expect("small");
        assert_eq!(members[..kept * 3], first[..kept * 3], "cut at {cut}");
    }
}

fn fleet_of(root: &CertificateAuthority) -> Fleet<'_> {
    Fleet::new(root, &options(KeyAlgorithm::EcP256), None, threads(2)).expect("a fleet")
}

#[test]
fn two_runs_are_never_at_work_in_one_place() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let directory = crate::support::temporary_directory();
    let (files, tar) = (directory.path().join("files"), directory.path().join("fleet.tar"));
    let refused = AtomicU64::new(0);
    let progress = |made| {
        if made == 0 {
            return;
        }
        for error in [
            fleet.write_directory(devices(9), &files, IfExists::Resume, CONTROL).err(),
            fleet.write_tar_file(devices(9), &tar, IfExists::Resume, CONTROL).err(),
        ] {
            refused.fetch_add(u64::from(matches!(error, Some(FleetError::Busy(_)))), Ordering::Relaxed);
        }
    };
    let control = FleetControl::new(&NEVER, &progress);
    let hold = std::fs::File::create(&tar).expect("a file");
    // As a run leaves it; another mode would be refused.
    std::fs::set_permissions(&tar, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    hold.lock().expect("locked");
    fleet.write_directory(devices(3), &files, IfExists::Fail, control).expect("files");
    assert_eq!(refused.swap(0, Ordering::Relaxed), 6);
    drop(hold);
    let hold = std::fs::File::open(&files).expect("a directory");
    if hold.lock().is_ok() {
        fleet.write_tar_file(devices(3), &tar, IfExists::Resume, control).expect("a tar file");
        assert_eq!(refused.swap(0, Ordering::Relaxed), 2);
    }
    drop(hold);
    assert_eq!(fleet.write_directory(devices(9), &files, IfExists::Resume, CONTROL).expect("resumed").resumed, 3);
    assert_eq!(fleet.write_tar_file(devices(9), &tar, IfExists::Resume, CONTROL).expect("resumed").resumed, 3);
}

#[test]
fn a_foreign_or_inconsistent_manifest_is_not_overwritten() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let directory = crate::support::temporary_directory();
    fleet.write_directory(devices(3), &directory.path().join("other"), IfExists::Fail, CONTROL).expect("files");
    let others = std::fs::read_to_string(directory.path().join("other/manifest.csv")).expect("read");
    let manifest = directory.path().join("manifest.csv");
    for content in ["IOTC_DEVICEID\nd0\nd1\n", "d0", &others] {
        std::fs::write(&manifest, content).expect("written");
        let error =
            fleet.write_directory(devices(3), directory.path(), IfExists::Resume, CONTROL).expect_err("not its own");
        assert!(matches!(&error, FleetError::CannotResume { path, .. } if *path == manifest), "{error}");
        assert_eq!(std::fs::read_to_string(&manifest).expect("read"), content);
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("read").count(), 2, "nothing was written");
}

/// Both forms of a run that goes on, in a directory.
fn go_on(
    fleet: &Fleet<'_>,
    directory: &Path,
    devices: impl Fn() -> Vec<FleetDevice>,
) -> [Result<FleetReport, FleetError>; 2] {
    let given = || devices().into_iter().map(Ok);
    [
        fleet.write_directory(given(), &directory.join("files"), IfExists::Resume, CONTROL),
        fleet.write_tar_file(given(), &directory.join("fleet.tar"), IfExists::Resume, CONTROL),
    ]
}

fn refused(outcomes: [Result<FleetReport, FleetError>; 2], why: &str) {
    for outcome in outcomes {
        let error = outcome.expect_err(why);
        assert!(matches!(&error, FleetError::CannotResume { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[test]
fn tar_files_in_one_directory_have_a_manifest_each_and_only_their_own() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let directory = crate::support::temporary_directory();
    let [a, b] = ["a.tar", "b.tar"].map(|name| directory.path().join(name));
    let [of_a, of_b] = ["a.tar.manifest.csv", "b.tar.manifest.csv"].map(|name| directory.path().join(name));
    for tar in [&a, &b] {
        fleet.write_tar_file(devices(3), tar, IfExists::Resume, CONTROL).expect("a tar file");
    }
    for tar in [&a, &b] {
        assert_eq!(fleet.write_tar_file(devices(3), tar, IfExists::Resume, CONTROL).expect("resumed").resumed, 3);
    }
    std::fs::copy(&of_b, &of_a).expect("copied");
    let error = fleet.write_tar_file(devices(3), &a, IfExists::Resume, CONTROL).expect_err("another manifest");
    assert!(matches!(error, FleetError::CannotResume { .. }), "{error}");
    let rows = std::fs::read(&of_b).expect("read");
    std::fs::remove_file(&b).expect("removed");
    let error = fleet.write_tar_file(devices(3), &b, IfExists::Resume, CONTROL).expect_err("no tar file");
    assert!(matches!(&error, FleetError::CannotResume { path, .. } if *path == of_b), "{error}");
    assert!(!b.exists() && std::fs::read(&of_b).expect("read") == rows);
    let made = std::fs::read(&a).expect("read");
    std::fs::remove_file(&of_a).expect("removed");
    let error = fleet.write_tar_file(devices(3), &a, IfExists::Resume, CONTROL).expect_err("no manifest");
    assert!(matches!(&error, FleetError::CannotResume { path, .. } if *path == a), "{error}");
    assert!(!of_a.exists() && std::fs::read(&a).expect("read") == made);
}

#[test]
fn sets_with_other_key_algorithms_are_not_reused() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let keyless = |seed: u64| {
        let name = CommonName::new(format!("Key {seed}")).expect("a name");
        let made = CertificateAuthority::new_root(&name, &options(KeyAlgorithm::EcP256)).expect("a key");
        made.certificate.public_key().to_vec()
    };
    let keys: Vec<_> = (0..4).map(keyless).collect();
    let of = |keys: &[Option<&Vec<u8>>]| -> Vec<FleetDevice> {
        devices(keys.len()).zip(keys).map(|(device, key)| device.expect("a device").public_key(key.cloned())).collect()
    };
    let directory = crate::support::temporary_directory();
    let asked = [Some(&keys[0]), Some(&keys[1]), Some(&keys[2])];
    for resumed in [0, 3] {
        for report in go_on(&fleet, directory.path(), || of(&asked)) {
            assert_eq!(report.expect("made").resumed, resumed);
        }
    }
    refused(go_on(&fleet, directory.path(), || of(&[asked[0], Some(&keys[3]), asked[2]])), "another key");
    refused(go_on(&fleet, directory.path(), || of(&[asked[0], None, asked[2]])), "cannot be mixed");
    let keyed = crate::support::temporary_directory();
    assert!(go_on(&fleet, keyed.path(), || of(&[None; 3])).iter().all(Result::is_ok));
    refused(go_on(&fleet, keyed.path(), || of(&asked)), "cannot be mixed");
}

#[test]
fn sets_with_and_without_pfx_files_are_not_mixed() {
    let root = root(KeyAlgorithm::EcP256);
    let plain = fleet_of(&root);
    let pfx = PfxOptions::new("geheim").encryption(PfxEncryption::Aes256);
    let with_pfx = Fleet::new(&root, &options(KeyAlgorithm::EcP256), Some(pfx), threads(2)).expect("a fleet");
    let given = |count| devices(count).collect::<Result<Vec<_>, _>>().expect("devices");
    for (first, second) in [(&plain, &with_pfx), (&with_pfx, &plain)] {
        let directory = crate::support::temporary_directory();
        assert!(go_on(first, directory.path(), || given(1)).iter().all(Result::is_ok));
        let tar = std::fs::read(directory.path().join("fleet.tar")).expect("read");
        refused(go_on(second, directory.path(), || given(2)), "cannot be mixed");
        assert_eq!(std::fs::read(directory.path().join("fleet.tar")).expect("read"), tar);
    }
}

#[test]
fn incomplete_directories_are_refused_and_the_advice_is_true() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let directory = crate::support::temporary_directory();
    let files = directory.path();
    for count in [5, 8, 10] {
        fleet.write_directory(devices(count), files, IfExists::Resume, CONTROL).expect("files");
    }
    let go_on = || fleet.write_directory(devices(10), files, IfExists::Resume, CONTROL);
    let refused = |why: &str| {
        let error = go_on().expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    let manifest = std::fs::read(files.join("manifest.csv")).expect("read");
    let part = files.join("0002/manifest.csv");
    let rows = std::fs::read_to_string(&part).expect("read");
    let (header, _) = rows.split_once('\n').expect("a header");
    for content in [&format!("{header}\n"), "", rows.trim_end()] {
        std::fs::write(&part, content).expect("written");
        refused("remove it and the numbered directories after it");
    }
    let (short, _) = rows.trim_end().rsplit_once('\n').expect("two rows");
    std::fs::write(&part, format!("{short}\n")).expect("written");
    refused("it has 2 certificates");
    std::fs::remove_file(&part).expect("removed");
    refused("it has no manifest.csv");
    std::fs::write(&part, rows).expect("written");
    std::fs::remove_dir_all(files.join("0001")).expect("removed");
    refused("0001 before it is missing");
    assert_eq!(std::fs::read(files.join("manifest.csv")).expect("read"), manifest, "nothing was changed");
    std::fs::remove_dir_all(files.join("0002")).expect("removed");
    let report = go_on().expect("issued again");
    assert_eq!((report.devices, report.resumed), (10, 5));
    assert_eq!(csv_rows(&std::fs::read(files.join("manifest.csv")).expect("read")).len(), 11);
    std::fs::remove_dir_all(files.join("0000")).expect("removed");
    refused("0000 before it is missing");
    refused("manifest.csv if no numbered directory is left");
    std::fs::remove_dir_all(files.join("0001")).expect("removed");
    refused("remove it to issue the fleet again");
    std::fs::remove_file(files.join("manifest.csv")).expect("removed");
    assert_eq!(go_on().expect("issued again").resumed, 0);
}

#[test]
fn an_id_of_many_colons_has_its_place_in_a_tar() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    let directory = crate::support::temporary_directory();
    let path = directory.path().join("fleet.tar");
    let ids: Vec<_> = (1..=62).map(|colons| format!("a{}{}", ":".repeat(colons), "b".repeat(63 - colons))).collect();
    let given = |count| {
        let id = |id: &String| DeviceId::new(id.as_str()).expect("an id");
        ids[..count].iter().map(move |text| Ok(FleetDevice::new(id(text))))
    };
    fleet.write_tar_file(given(40), &path, IfExists::Fail, CONTROL).expect("a tar file");
    assert_eq!(fleet.write_tar_file(given(62), &path, IfExists::Resume, CONTROL).expect("resumed").resumed, 40);
    let members = members(&std::fs::read(&path).expect("read"));
    let expected = ids
        .iter()
        .flat_map(|id| ["cert", "key", "fullchain"].map(|kind| format!("0000/{}_{kind}.pem", id.replace(':', "%3A"))));
    assert!(members.iter().map(|(name, _)| name.clone()).eq(expected.chain(["manifest.csv".to_owned()])));
    for (row, set) in csv_rows(&members[62 * 3].1)[1..].iter().zip(members.chunks(3)) {
        assert_eq!(Certificate::read(&set[0].1).expect("a certificate").sha256_thumbprint().to_string(), row[3]);
    }
}

#[test]
fn a_run_is_stopped_only_where_devices_are_left_over() {
    let root = root(KeyAlgorithm::EcP256);
    let fleet = fleet_of(&root);
    for (count, after, stopped) in [(96, 96, false), (50_000, 1, true)] {
        let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
        let progress = |more| {
            let made = made.fetch_add(more, Ordering::Relaxed) + more;
            stop.fetch_or(made >= after, Ordering::Relaxed);
        };
        let control = FleetControl::new(&stop, &progress);
        let report = fleet.write_tar(devices(count), io::sink(), control).expect("a stream");
        assert_eq!((report.stopped, report.devices == count as u64), (stopped, !stopped));
        stop.store(false, Ordering::Relaxed);
        made.store(0, Ordering::Relaxed);
        let directory = crate::support::temporary_directory();
        let report =
            fleet.write_directory(devices(count.min(9_000)), directory.path(), IfExists::Fail, control).expect("files");
        assert_eq!((report.stopped, report.devices == count as u64), (stopped, !stopped));
    }
}
