//! Prints the thumbprints of certificates, without any feature: `cargo run --no-default-features --example thumbprint --
//! FILE...`
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::{env, error::Error, fs};

use iot_enroll::certificate::Certificate;

fn main() -> Result<(), Box<dyn Error>> {
    for file in env::args().skip(1) {
        // PEM, DER, or the base64 of either. Of a chain, this reads the first certificate.
        let certificate = Certificate::read(&fs::read(&file)?)?;
        println!("{} {} {file}", certificate.sha1_thumbprint(), certificate.sha256_thumbprint());
    }
    Ok(())
}
