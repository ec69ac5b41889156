//! Certificates and clocks: what is not valid yet is reported as that, and never as what connects.

use std::time::Duration;

use crate::support::{
    DAY,
    clock::ManualClock,
    lab::{DEVICE, Lab, ROOT, days_ago, files, name, set, write},
    server::{Reply, Server},
};
use iot_enroll::{
    central::{Authorization, CertificateEntry, Client, Endpoint},
    certificate::{CertificateAuthority, IssueOptions, Timestamp, files as sets},
    workflow::{ProvisionError, ProvisionReport, ProvisionRequest, RetireRequest, RolloverError, provision, retire},
};
use serde_json::json;

const MINUTE: Duration = Duration::from_secs(60);

/// Options of a clock that is two days fast.
fn fast() -> IssueOptions {
    IssueOptions::new().at(Timestamp::now() + DAY * 2)
}

#[track_caller]
fn not_yet(error: &ProvisionError, file: &str) {
    let message = error.to_string();
    assert!(matches!(error, ProvisionError::NotYetValid { .. }), "{message}");
    for part in [file, "not valid until", "wait until then", "check the clock"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[tokio::test]
async fn a_root_of_a_fast_clock_is_reported_with_the_remedy() {
    let lab = Lab::start().await;
    write(lab.path(), ROOT, &CertificateAuthority::new_root(&name(ROOT), &fast()).expect("a root"));
    for dry_run in [false, true] {
        let request = lab.request().dry_run(dry_run);
        not_yet(&lab.run_without_a_change(&request).await.expect_err("not valid yet"), "mytestrootcert_cert.pem");
    }
}

#[tokio::test]
async fn a_device_certificate_of_a_fast_clock_is_not_reported_as_connecting() {
    let lab = Lab::start().await;
    let root = CertificateAuthority::new_root(&name(ROOT), &days_ago(9, 3650)).expect("a root");
    write(lab.path(), ROOT, &root);
    let authority = root.into_authority(Timestamp::now()).expect("an authority");
    write(lab.path(), DEVICE, &authority.issue_device(&DEVICE.parse().expect("an id"), &fast()).expect("issued"));
    not_yet(&lab.run_without_a_change(&lab.request()).await.expect_err("not valid yet"), "sampleDevice01_cert.pem");
}

#[tokio::test]
async fn the_old_root_is_not_retired_for_one_that_is_not_valid_yet() {
    let lab = Lab::start().await;
    lab.run(&lab.request()).await.expect("provisioned");
    let stays = CertificateAuthority::new_root(&name("next"), &fast()).expect("a root").certificate;
    let error =
        retire(&lab.client(), &RetireRequest::new(lab.request().group, stays), &mut |_| ()).await.expect_err("not yet");
    assert!(matches!(error, RolloverError::Unfit { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("nothing was removed") && message.contains("wait until then"), "{message}");
    assert!(lab.entry(CertificateEntry::Primary).await.expect("a certificate").verified);
}

/// A run against a service with this clock, for a group whose primary entry holds our verified root.
async fn against(
    lab: &Lab,
    service_time: Timestamp,
    request: &ProvisionRequest<'_>,
) -> Result<ProvisionReport, ProvisionError> {
    let date = httpdate::fmt_http_date(service_time.into());
    let group = json!({
        "id": "myx509eg", "displayName": "Mine", "enabled": true, "type": "iot", "etag": "g1",
        "attestation": { "type": "x509", "x509": { "signingCertificates": {} } },
    });
    let root = sets::read_certificates(&set(lab.path(), ROOT).certificate()).expect("a root").swap_remove(0);
    let thumbprint = root.sha1_thumbprint().to_string();
    let entry = json!({ "verified": true, "info": { "sha1Thumbprint": thumbprint }, "etag": "e1" });
    let dated = |body: serde_json::Value| {
        Reply::with(200, &[("Content-Type", "application/json"), ("Date", &date)], &body.to_string())
    };
    let server = Server::start([dated(group), dated(entry)]);
    let client = Client::builder(server.url().parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(lab.emulator.token().to_owned()).expect("a token"))
        .clock(ManualClock::new())
        .build()
        .expect("a client");
    provision(&client, request, &mut |_| ()).await
}

#[tokio::test]
async fn with_a_clock_ahead_of_the_service_s_nothing_is_issued() {
    let lab = Lab::start().await;
    write(lab.path(), ROOT, &CertificateAuthority::new_root(&name(ROOT), &days_ago(9, 3650)).expect("a root"));
    for (behind, is_refused) in [(4 * MINUTE, false), (7 * MINUTE, true), (2 * DAY, true)] {
        for dry_run in [true, false] {
            let request = lab.request().dry_run(dry_run);
            let result = against(&lab, Timestamp::now() - behind, &request).await;
            match result {
                Err(error) => {
                    assert!(is_refused, "{error}");
                    assert!(matches!(error, ProvisionError::ClockAhead { .. }), "{error}");
                    assert!(error.to_string().contains("set the clock"), "{error}");
                    assert_eq!(files(lab.path()).len(), 3, "nothing was created");
                }
                Ok(report) => assert!(!is_refused && report.verified),
            }
        }
        if !is_refused {
            for file in files(lab.path()).keys().filter(|file| file.starts_with("sampleDevice01")) {
                std::fs::remove_file(lab.path().join(file)).expect("removed");
            }
        }
    }
    // What was issued before is reported as it is: valid by the service's clock, or not.
    let authority = set(lab.path(), ROOT).read_authority(None, Timestamp::now()).expect("an authority");
    for (issued, is_refused) in [(days_ago(3, 365), false), (IssueOptions::default(), true)] {
        let device = authority.issue_device(&DEVICE.parse().expect("an id"), &issued).expect("issued");
        set(lab.path(), DEVICE).write(&device, None, sets::IfExists::Overwrite).expect("written");
        let result = against(&lab, Timestamp::now() - DAY, &lab.request()).await;
        assert_eq!(matches!(result, Err(ProvisionError::ClockAhead { .. })), is_refused, "{result:?}");
        assert_eq!(result.is_err(), is_refused);
    }
    // A clock that is behind makes certificates that start too early, which is no harm.
    assert!(against(&lab, Timestamp::now() + DAY, &lab.request()).await.is_ok());
}
