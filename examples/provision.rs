//! An enrollment group from nothing to verified, with an observer, on the embedded IoT Central: `cargo run --example
//! provision`
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;

use iot_enroll::{
    central::{Authorization, Client, Endpoint},
    certificate::{CommonName, DeviceId, KeyAlgorithm},
    emulator::Emulator,
    workflow::{AuthoritySource, ProvisionRequest, WorkflowEvent, provision},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // With an application of your own: Endpoint::from_subdomain("contoso")?, and its token.
    let emulator = Emulator::builder().start().await?;
    let client = Client::builder(emulator.endpoint().parse::<Endpoint>()?)
        .authorization(Authorization::parse(emulator.token().to_owned())?)
        .build()?;
    let folder = tempfile::tempdir()?;

    let request = ProvisionRequest {
        group: "myx509eg".parse()?,
        display_name: None,
        device_type: None,
        entry: None,
        authority: AuthoritySource::Root(CommonName::new("mytestrootcert")?),
        key_password: None,
        devices: vec![DeviceId::new("sample-device-01")?],
        fleet: None,
        create_devices: true,
        template: None,
        register: None,
        directory: folder.path().to_owned(),
        algorithm: KeyAlgorithm::default(),
        device_lifetime: None,
        pfx: None,
        attest: false,
        replace: false,
        add_ca: false,
        dry_run: false,
    };
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
