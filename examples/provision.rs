//! Provisions an enrollment group on the embedded emulator, and prints each step: `cargo run --example provision`
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;

use iot_enroll::{
    central::{Authorization, Client, Endpoint},
    certificate::{CommonName, DeviceId},
    emulator::Emulator,
    workflow::{AuthoritySource, ProvisionRequest, WorkflowEvent, provision},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // For a real application: Endpoint::from_subdomain("contoso")? and its token.
    let emulator = Emulator::builder().start().await?;
    let client = Client::builder(emulator.endpoint().parse::<Endpoint>()?)
        .authorization(Authorization::parse(emulator.token().to_owned())?)
        .build()?;
    let directory = tempfile::tempdir()?;

    let root = AuthoritySource::Root(CommonName::new("mytestrootcert")?);
    let request = ProvisionRequest::new("myx509eg".parse()?, root)
        .devices([DeviceId::new("sample-device-01")?])
        .create_devices(true)
        .directory(directory.path());
    for run in ["first", "second"] {
        println!("the {run} run");
        let report = provision(&client, &request, &mut |event| {
            if let WorkflowEvent::Finished(step) = event {
                println!("  {}: {}", step.step, step.detail);
            }
        })
        .await?;
        assert!(report.verified);
    }
    emulator.stop().await;
    Ok(())
}
