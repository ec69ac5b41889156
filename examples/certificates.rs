//! A root, an intermediate under it and a device, as files with PFX, and a proof of possession: `cargo run --example
//! certificates -- FOLDER`
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{env, error::Error, path::PathBuf};

use iot_enroll::certificate::{
    CertificateAuthority, CommonName, DeviceId, IssueOptions, KeyAlgorithm, Lifetime, chain,
    files::{FileSet, PfxOptions},
    pfx::PfxEncryption,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("lab"), PathBuf::from);
    let options = IssueOptions::default();

    // Each set of files appears whole or not at all, and nothing is overwritten.
    let name = CommonName::new("Lab Root")?;
    let root = CertificateAuthority::new_root(&name, &options)?;
    FileSet::new(&folder, &name)?.write(&root, None, false)?;
    let root = root.into_authority(options.at)?;

    let name = CommonName::new("Lab Line 1")?;
    let line = root.issue_intermediate(&name, &IssueOptions { algorithm: KeyAlgorithm::EcP384, ..options })?;
    FileSet::new(&folder, &name)?.write(&line, None, false)?;
    let line = line.into_authority(options.at)?;

    let id = DeviceId::new("sensor-1")?;
    let device = line.issue_device(&id, &IssueOptions { lifetime: Some(Lifetime::Days(30)), ..options })?;
    let files = FileSet::new(&folder, &id.common_name()?)?;
    files.write(&device, Some(PfxOptions { password: "1234", encryption: PfxEncryption::Aes256 }), false)?;
    let fullchain: Vec<_> = device.fullchain().cloned().collect();
    chain::verify(&fullchain, root.certificate(), options.at)?;
    println!("{id} connects with {} and {}", files.fullchain().display(), files.private_key().display());

    let proof = root.issue_verification(&CommonName::new("A code that the service made")?, &options)?;
    println!("a proof for the service:\n{}", proof.certificate.to_base64_pem());
    Ok(())
}
