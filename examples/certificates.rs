//! Issues a root, an intermediate and a device certificate, and a proof of possession: `cargo run --example certificates --
//! DIRECTORY`
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{env, error::Error, path::PathBuf};

use iot_enroll::certificate::{
    CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm, Lifetime, chain,
    files::{FileSet, IfExists, PfxOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).map_or_else(|| PathBuf::from("lab"), PathBuf::from);
    let options = IssueOptions::new();

    // `save` writes all four files or none, and does not overwrite.
    let root = CertificateAuthority::new_root(&CommonName::new("Lab Root")?, &options)?;
    root.save(&directory)?;
    let root = root.into_authority(options.issue_time())?;

    let line = root.issue_intermediate(&"Lab Line 1".parse()?, &options.algorithm(KeyAlgorithm::EcP384))?;
    line.save(&directory)?;
    let line = line.into_authority(options.issue_time())?;

    // `FileSet` chooses the password of the PFX file, or writes none.
    let id = DeviceId::new("sensor-1")?;
    let device = line.issue_device(&id, &options.lifetime(Lifetime::Days(30)))?;
    let files = FileSet::new(&directory, &id.common_name()?)?;
    files.write(&device, Some(PfxOptions::new("a password")), IfExists::Fail)?;
    let fullchain: Vec<_> = device.fullchain().cloned().collect();
    chain::verify(&fullchain, root.certificate(), options.issue_time())?;
    println!("{id} connects with {} and {}", files.fullchain().display(), files.private_key().display());

    let proof = root.issue_verification(&CommonName::new("A code from the service")?, &options)?;
    println!("a proof for the service:\n{}", proof.certificate.to_base64_pem());
    Ok(())
}
