//! The throughput of fleets whose CA key is in a SoftHSM token, beside the signatures of the token alone on the same threads,
//! and beside a key in memory.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{
    env, fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cryptoki::{
    context::Pkcs11,
    mechanism::Mechanism,
    object::{Attribute, ObjectClass},
};
use iot_enroll::certificate::{
    CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm, PrivateKey,
    fleet::{Fleet, FleetControl, FleetDevice, SourceError},
    pkcs11::{Pkcs11Uri, Token},
};

const DEVICES: usize = 2_000;
const PIN: &str = "493827";

static STOP: AtomicBool = AtomicBool::new(false);
const CONTROL: FleetControl<'static> = FleetControl::new(&STOP, &|_| {});

fn threads() -> NonZeroUsize {
    thread::available_parallelism().expect("a number of cores")
}

fn module() -> PathBuf {
    let module = env::var_os("PKCS11_MODULE_PATH").map(PathBuf::from);
    module.unwrap_or_else(|| "/usr/lib/softhsm/libsofthsm2.so".into())
}

/// SoftHSM reads its configuration from the environment, which a process cannot change for itself safely: runs this program
/// again with a new token.
fn with_token() {
    if env::var_os("SOFTHSM2_CONF").is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (tokens, configuration) = (directory.path().join("tokens"), directory.path().join("softhsm2.conf"));
    fs::create_dir(&tokens).expect("created");
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    fs::write(&configuration, text).expect("written");
    let run = |program: &Path, arguments: &[String]| {
        let mut command = Command::new(program);
        command.args(arguments).env("SOFTHSM2_CONF", &configuration).status().expect("it runs").code().unwrap_or(1)
    };
    let init = ["--init-token", "--free", "--label", "bench", "--pin", PIN, "--so-pin", "27182818"].map(str::to_owned);
    assert_eq!(run(Path::new("softhsm2-util"), &init), 0);
    let status = run(&env::current_exe().expect("this program"), &env::args().skip(1).collect::<Vec<_>>());
    drop(directory);
    exit(status);
}

fn devices() -> impl Iterator<Item = Result<FleetDevice, SourceError>> + Send {
    (0..DEVICES).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("device-{number:07}"))?)))
}

fn issue(key: PrivateKey) -> impl Fn() {
    let options = IssueOptions::new();
    let root = CertificateAuthority::new_root_with_key(&CommonName::new("Bench Root").expect("a name"), key, &options);
    let root = root.and_then(|root| root.into_authority(options.issue_time())).expect("an authority");
    move || {
        let fleet = Fleet::new(&root, &options, None, threads()).expect("a fleet");
        fleet.write_tar(devices(), io::sink(), CONTROL).expect("certificates");
    }
}

fn token(criterion: &mut Criterion) {
    with_token();
    for (algorithm, is_ec) in [(KeyAlgorithm::EcP256, true), (KeyAlgorithm::Rsa2048, false)] {
        // The hash, with what PKCS#1 has before it.
        let length = if is_ec { 32 } else { 51 };
        let uri: Pkcs11Uri = format!("pkcs11:token=bench;object={algorithm}").parse().expect("a URI");
        let session = Token::find(&uri, &module()).and_then(|token| token.log_in(Some(PIN))).expect("a token");
        let key = session.create_key(&uri, algorithm).expect("a key");
        let mut group = criterion.benchmark_group(format!("token {algorithm}"));
        group
            .throughput(Throughput::Elements(DEVICES as u64))
            .sample_size(10)
            .measurement_time(Duration::from_secs(20));

        let pkcs11 = Pkcs11::new(module()).expect("a module");
        let slot = pkcs11.get_slots_with_initialized_token().expect("slots")[0];
        let sessions: Vec<_> = (0..threads().get()).map(|_| pkcs11.open_ro_session(slot).expect("a session")).collect();
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(algorithm.name().into())];
        let handle = sessions[0].find_objects(&template).expect("objects")[0];
        let mut sessions = sessions;
        group.bench_function("signatures of the token alone", |bencher| {
            bencher.iter(|| {
                thread::scope(|scope| {
                    for session in &mut sessions {
                        scope.spawn(move || {
                            let mechanism = if is_ec { Mechanism::Ecdsa } else { Mechanism::RsaPkcs };
                            for _ in 0..DEVICES / threads() {
                                session.sign(&mechanism, handle, &[7; 51][..length]).expect("a signature");
                            }
                        });
                    }
                });
            });
        });
        let fleet = issue(key);
        group.bench_function("fleet", |bencher| bencher.iter(&fleet));
        let fleet = issue(PrivateKey::generate(algorithm).expect("a key"));
        group.bench_function("fleet with the key in memory", |bencher| bencher.iter(&fleet));
        group.finish();
    }
}

criterion_group!(benches, token);
criterion_main!(benches);
