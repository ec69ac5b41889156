//! Chain validation, compared with `openssl verify` and webpki on generated chains.
//!
//! Each chain is a good one, or a good one with a single mutation. A disagreement with another validator fails the test
//! unless [`accepted`] lists it; `docs/chain-validation.md` explains each of those. The seed is fixed. By default a few
//! hundred chains are tried; `IOT_ENROLL_DIFFERENTIAL=10000` tries that many, and `IOT_ENROLL_DIFFERENTIAL_SEED` sets
//! another seed. `IOT_ENROLL_DIFFERENTIAL_KEEP=DIR` writes the chains of unexplained disagreements to a directory.

#[path = "differential/accepted.rs"]
mod accepted;
#[path = "differential/chain.rs"]
mod chain;
#[path = "differential/der.rs"]
mod der;
#[path = "differential/keys.rs"]
mod keys;
#[path = "differential/mutation.rs"]
mod mutation;
#[path = "differential/name_constraint.rs"]
mod name_constraint;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::certificate::{Certificate, Timestamp, chain as validation};
use rustls_pki_types::{CertificateDer, UnixTime};

use self::{
    accepted::{ACCEPTED, Direction, Judge},
    chain::{AT, Chain, Presented, Rng},
    mutation::{Meant, Mutation},
};

const DEFAULT_CHAINS: usize = 300;
const DEFAULT_SEED: u64 = 20_260_601;

/// A validator's answer: nothing, or the reason for its refusal.
type Verdict = Result<(), String>;

fn ours(presented: &Presented) -> Verdict {
    let read = |der: &Vec<u8>| Certificate::from_der(der).map_err(|error| format!("read: {error}"));
    let certificates = presented.certificates.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let enrolled = read(&presented.enrolled)?;
    let at = Timestamp::from_unix_seconds(AT).expect("a moment");
    validation::verify(&certificates, &[enrolled], at).map(|_| ()).map_err(|error| error.to_string())
}

fn webpki(presented: &Presented) -> Verdict {
    let enrolled = CertificateDer::from_slice(&presented.enrolled);
    let anchor = webpki::anchor_from_trusted_cert(&enrolled).map_err(|error| format!("anchor: {error}"))?;
    let (leaf, others) = presented.certificates.split_first().expect("a leaf");
    let leaf = CertificateDer::from_slice(leaf);
    let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(|error| format!("leaf: {error}"))?;
    let others: Vec<_> = others.iter().map(|der| CertificateDer::from_slice(der)).collect();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(AT.unsigned_abs()));
    let usage = webpki::KeyUsage::client_auth();
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &others, at, usage, None, None)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn pem(ders: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    ders.iter().map(block).collect()
}

/// Runs `openssl verify`. Its security level 2 refuses what has less than 112 bits: SHA-1, MD5, RSA of 1024 bits.
fn openssl(presented: &Presented, directory: &Path) -> Verdict {
    let write = |name: &str, ders: &[Vec<u8>]| fs::write(directory.join(name), pem(ders)).expect("written");
    let (leaf, others) = presented.certificates.split_first().expect("a leaf");
    write("leaf.pem", std::slice::from_ref(leaf));
    write("others.pem", others);
    write("enrolled.pem", std::slice::from_ref(&presented.enrolled));
    let mut command = Command::new("openssl");
    command.current_dir(directory).env("OPENSSL_CONF", "/dev/null").args(["verify", "-x509_strict", "-partial_chain"]);
    command.args(["-purpose", "sslclient", "-auth_level", "2", "-attime", &AT.to_string()]);
    command.args(["-no-CApath", "-no-CAstore", "-CAfile", "enrolled.pem"]);
    if !others.is_empty() {
        command.args(["-untrusted", "others.pem"]);
    }
    let output = command.arg("leaf.pem").output().expect("openssl runs");
    if output.status.success() && output.stdout == b"leaf.pem: OK\n" {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let error = text.lines().find(|line| line.contains("depth lookup") || line.contains(":error:"));
    Err(error.or(text.lines().next()).unwrap_or_default().to_owned())
}

#[derive(Default)]
struct Figures {
    chains: usize,
    accepted_by_all: usize,
    refused_by_all: usize,
    /// By row of the table and number of the class in it.
    listed: BTreeMap<(usize, usize), usize>,
    /// By class, judge and direction: how often, and the answers of the first.
    unlisted: BTreeMap<(String, Judge, Direction), (usize, String)>,
}

impl Figures {
    fn add(&mut self, mutation: &Mutation, presented: &Presented, directory: &Path, keep: Option<&Path>) {
        self.chains += 1;
        let ours = ours(presented);
        let others = [(Judge::OpenSsl, openssl(presented, directory)), (Judge::Webpki, webpki(presented))];
        match (ours.is_ok(), others.each_ref().map(|(_, verdict)| verdict.is_ok())) {
            (true, [true, true]) => self.accepted_by_all += 1,
            (false, [false, false]) => self.refused_by_all += 1,
            _ => {}
        }
        let answers = format!("ours: {ours:?}; openssl: {:?}; webpki: {:?}", others[0].1, others[1].1);
        let differing: Vec<_> =
            others.iter().filter(|(_, verdict)| verdict.is_ok() != ours.is_ok()).map(|(judge, _)| *judge).collect();
        let mut judges = if differing.len() == others.len() { vec![Judge::Both] } else { differing };
        if mutation.meant != Meant::Open && (mutation.meant == Meant::Good) != ours.is_ok() {
            judges.push(Judge::Generator);
        }
        let direction = if ours.is_ok() { Direction::OnlyWeAccept } else { Direction::OnlyWeRefuse };
        for judge in judges {
            if let Some(listed) = accepted::find(&mutation.class, judge, direction) {
                *self.listed.entry(listed).or_default() += 1;
                continue;
            }
            let entry = self.unlisted.entry((mutation.class.clone(), judge, direction));
            if let (Some(keep), std::collections::btree_map::Entry::Vacant(_)) = (keep, &entry) {
                save(keep, &mutation.class, presented, &answers);
            }
            entry.or_insert((0, answers.clone())).0 += 1;
        }
    }

    fn report(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "{} chains: {} accepted by all, {} refused by all, {} judged differently by one; {} disagreements not listed\n",
            self.chains,
            self.accepted_by_all,
            self.refused_by_all,
            self.chains - self.accepted_by_all - self.refused_by_all,
            self.unlisted.values().map(|(count, _)| count).sum::<usize>()
        );
        for (at, row) in ACCEPTED.iter().enumerate() {
            let count: usize = self.listed.range((at, 0)..(at + 1, 0)).map(|(_, count)| count).sum();
            writeln!(text, "{count:6}  {:?} {:?} {}", row.direction, row.judges, row.section).expect("a string");
        }
        for ((class, judge, direction), (count, answers)) in &self.unlisted {
            writeln!(text, "UNLISTED {count:6}  {direction:?} {judge:?} {class}\n          {answers}")
                .expect("a string");
        }
        text
    }
}

/// The classes of the table that no chain was of.
fn unused(listed: &BTreeMap<(usize, usize), usize>) -> Vec<String> {
    let all = ACCEPTED.iter().enumerate().flat_map(|(at, row)| (0..row.classes.len()).map(move |class| (at, class)));
    all.filter(|at| !listed.contains_key(at))
        .map(|(at, class)| format!("{}: {}", ACCEPTED[at].section, ACCEPTED[at].classes[class]))
        .collect()
}

/// Writes a chain so that it can be tried by hand.
fn save(keep: &Path, class: &str, presented: &Presented, answers: &str) {
    let directory = keep.join(class.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    fs::create_dir_all(&directory).expect("a directory");
    let write = |name: &str, text: String| fs::write(directory.join(name), text).expect("written");
    write("chain.pem", pem(&presented.certificates));
    write("enrolled.pem", pem(std::slice::from_ref(&presented.enrolled)));
    write("answers.txt", format!("{answers}\n"));
}

/// An order in which every mutation has its turn before one has a second.
fn turns(count: usize, mutations: usize, rng: &mut Rng) -> Vec<usize> {
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        let mut round: Vec<_> = (0..mutations).collect();
        for at in (1..round.len()).rev() {
            round.swap(at, rng.below(at + 1));
        }
        turns.append(&mut round);
    }
    turns.truncate(count);
    turns
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

#[test]
#[expect(clippy::print_stdout, reason = "figures are for people")]
fn chains_are_judged_as_openssl_and_webpki_judge_them() {
    if crate::support::openssl(Path::new("."), &["version"]).is_none() {
        return;
    }
    let count = variable("IOT_ENROLL_DIFFERENTIAL").unwrap_or(DEFAULT_CHAINS);
    let seed = variable("IOT_ENROLL_DIFFERENTIAL_SEED").unwrap_or(DEFAULT_SEED);
    let keep = env::var_os("IOT_ENROLL_DIFFERENTIAL_KEEP").map(PathBuf::from);
    let mutations = mutation::all();
    let mut rng = Rng(seed);
    let directory = crate::support::temporary_directory();
    let mut figures = Figures::default();
    for turn in turns(count, mutations.len(), &mut rng) {
        let mutation = &mutations[turn];
        let (least, most) = (*mutation.lengths.start(), *mutation.lengths.end());
        let length = least + rng.below(most - least + 1);
        let chain = (mutation.make)(Chain::random(length, &mut rng), &mut rng);
        figures.add(mutation, &chain.present(), directory.path(), keep.as_deref());
    }
    let report = figures.report();
    println!("seed {seed}, {} mutations\n{report}", mutations.len());
    assert!(figures.unlisted.is_empty(), "disagreements that docs/chain-validation.md does not list:\n{report}");
    if count >= 4 * mutations.len() {
        assert_eq!(unused(&figures.listed), Vec::<String>::new(), "the table lists disagreements that there are not");
    }
}

#[test]
fn each_accepted_disagreement_has_its_reason_in_the_documentation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/chain-validation.md");
    let text = fs::read_to_string(path).expect("the document");
    for row in ACCEPTED {
        assert!(text.contains(&format!("\n### {}\n", row.section)), "no section {}", row.section);
    }
}
