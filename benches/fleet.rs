//! The throughput of fleets in devices per second, beside two bounds: only the cryptography on the same threads, and a loop
//! that writes files of the same sizes.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{
    fs,
    hint::black_box,
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use iot_enroll::certificate::{
    CertificateAuthority, CommonName, DeviceId, IssueOptions,
    files::PfxOptions,
    fleet::{Fleet, FleetControl, FleetDevice, IfExists, SourceError},
};
use sha2::{Digest, Sha256};

const DEVICES: usize = 8_000;
const PFX_DEVICES: usize = 64;

fn threads() -> NonZeroUsize {
    thread::available_parallelism().expect("a number of cores")
}

fn root() -> CertificateAuthority {
    let options = IssueOptions::default();
    let root = CertificateAuthority::new_root(&CommonName::new("Bench Root").expect("a name"), &options);
    root.and_then(|root| root.into_authority(options.issue_time())).expect("an authority")
}

fn devices(count: usize) -> impl Iterator<Item = Result<FleetDevice, SourceError>> + Send {
    (0..count).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("device-{number:07}"))?)))
}

/// Calls `work` for each number below `count`, on all threads.
fn spread(count: usize, work: impl Fn(usize) + Sync) {
    let each = count / threads();
    thread::scope(|scope| {
        for thread in 0..threads().get() {
            let work = &work;
            scope.spawn(move || (thread * each..(thread + 1) * each).for_each(work));
        }
    });
}

static STOP: AtomicBool = AtomicBool::new(false);
const CONTROL: FleetControl<'static> = FleetControl::new(&STOP, &|_| {});

fn streams(criterion: &mut Criterion) {
    let authority = root();
    let fleet = Fleet::new(&authority, &IssueOptions::default(), None, threads()).expect("a fleet");
    let mut group = criterion.benchmark_group("PEM");
    group.throughput(Throughput::Elements(DEVICES as u64)).sample_size(20).measurement_time(Duration::from_secs(8));
    group.bench_function("a key and a signature for each device", |bencher| {
        let random = SystemRandom::new();
        let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let tbs = [7; 400];
        bencher.iter(|| {
            spread(DEVICES, |_| {
                black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"));
                black_box(signer.sign(&random, &tbs).expect("a signature"));
            });
        });
    });
    group.bench_function("tar stream", |bencher| {
        bencher.iter(|| fleet.write_tar(devices(DEVICES), io::sink(), CONTROL).expect("a stream"));
    });
    group.bench_function("issue_device, certificate and key in PEM", |bencher| {
        let options = IssueOptions::default();
        let id = DeviceId::new("device-0000001").expect("an id");
        bencher.iter(|| {
            spread(DEVICES, |_| {
                let issued = authority.issue_device(&id, &options).expect("a certificate");
                black_box((issued.certificate.to_pem(), issued.key.to_pem().expect("PEM")));
            });
        });
    });
    group.finish();
}

/// The sizes of the files of a device directly under a root.
const SIZES: [usize; 3] = [749, 241, 1_420];

fn write_plainly(directory: &Path) {
    for number in 0..DEVICES.div_ceil(1_000) {
        fs::create_dir(directory.join(format!("{number:04}"))).expect("a directory");
    }
    let content = [b'x'; 2_048];
    spread(DEVICES, |number| {
        for (size, kind) in SIZES.into_iter().zip(["cert", "key", "fullchain"]) {
            let path = directory.join(format!("{:04}/device-{number:07}_{kind}.pem", number / 1_000));
            fs::File::create_new(path).and_then(|mut file| file.write_all(&content[..size])).expect("a file");
        }
    });
}

/// Flushes the files to the disk, as a fleet does at its end.
fn flush(directory: &Path) {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(fs::File::open(directory).expect("a directory")).expect("flushed");
}

fn files(criterion: &mut Criterion) {
    let authority = root();
    let fleet = Fleet::new(&authority, &IssueOptions::default(), None, threads()).expect("a fleet");
    let mut group = criterion.benchmark_group("files");
    group.throughput(Throughput::Elements(DEVICES as u64)).sample_size(10).measurement_time(Duration::from_secs(15));
    // Everything is removed at the end: file systems are slow to create files after many were removed.
    let all = tempfile::tempdir().expect("a directory");
    let directory = || tempfile::tempdir_in(&all).expect("a directory").keep();
    group.bench_function("plain loop", |bencher| {
        let write = |directory: PathBuf| {
            write_plainly(&directory);
            flush(&directory);
        };
        bencher.iter_batched(directory, write, BatchSize::PerIteration);
    });
    group.bench_function("fleet", |bencher| {
        let write = |directory: PathBuf| {
            fleet.write_directory(devices(DEVICES), &directory.join("fleet"), IfExists::Fail, CONTROL)
        };
        bencher.iter_batched(directory, |directory| write(directory).expect("files"), BatchSize::PerIteration);
    });
    group.finish();
}

fn pfx(criterion: &mut Criterion) {
    let authority = root();
    let options = PfxOptions::new("1234");
    let fleet = Fleet::new(&authority, &IssueOptions::default(), Some(options), threads()).expect("a fleet");
    let mut group = criterion.benchmark_group("PFX");
    group.throughput(Throughput::Elements(PFX_DEVICES as u64)).sample_size(10);
    group.bench_function("three key derivations for each device", |bencher| {
        bencher.iter(|| spread(PFX_DEVICES, |_| derive_as_pfx()));
    });
    group.bench_function("tar stream", |bencher| {
        bencher.iter(|| fleet.write_tar(devices(PFX_DEVICES), io::sink(), CONTROL).expect("a stream"));
    });
    group.finish();
}

/// Derives the keys of a PFX file: PBKDF2 for the key and for the certificates, and the derivation of PKCS#12 for the
/// integrity check (RFC 7292 appendix B.2). For a key as long as the hash, the latter is one hash of some blocks, which is
/// hashed again in each further iteration.
fn derive_as_pfx() {
    const ITERATIONS: u32 = 10_000;
    let salt = [7; 16];
    for _ in 0..2 {
        let mut key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(b"1234", &salt, ITERATIONS, &mut key);
        black_box(key);
    }
    let mut key = Sha256::digest([7; 192]);
    for _ in 1..ITERATIONS {
        key = Sha256::digest(key);
    }
    black_box(key);
}

criterion_group!(benches, streams, files, pfx);
criterion_main!(benches);
