//! Provisioning at the Device Provisioning Service while another client changes the same instance.

use std::thread;

use crate::{
    dps_lab::{DpsLab, group_id},
    support::{
        lab::new_root,
        server::{Reply, Server},
    },
};
use iot_enroll::{
    arm::{DpsCertificate, Possession},
    certificate::{Certificate, Thumbprint},
    dps::{
        DpsCertificateName,
        service::{CaReferences, EnrollmentGroupUpdate, EnrollmentSettings, NewEnrollmentGroup},
    },
    workflow::{
        DpsInstance, Outcome, ProvisionError, ProvisionReport, ProvisionRequest, Step, WorkflowEvent, provision,
    },
};
use serde_json::json;

/// Runs while another client makes a change as soon as this run starts a step.
async fn overtaken<F: Future<Output = ()>>(
    lab: &DpsLab,
    request: &ProvisionRequest<'_>,
    at: Step,
    change: impl Fn(DpsInstance) -> F + Send + Sync,
) -> Result<ProvisionReport, ProvisionError> {
    let instance = lab.instance();
    let mut is_changed = false;
    let mut observer = |event: WorkflowEvent<'_>| {
        if matches!(event, WorkflowEvent::Started(step, _) if step == at) && !is_changed {
            is_changed = true;
            thread::scope(|scope| {
                let change = scope.spawn(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(change(lab.another_instance()));
                });
                change.join().expect("changed");
            });
        }
    };
    let result = provision(&instance, request, &mut observer).await;
    assert!(is_changed, "the run has this step");
    result
}

fn outcome(report: &ProvisionReport, step: Step) -> Option<Outcome> {
    report.steps.iter().find(|it| it.step == step).map(|it| it.outcome)
}

async fn certificate_of(instance: &DpsInstance, ours: &Certificate) -> DpsCertificate {
    let found: Vec<_> = instance.resource().certificates().list().try_collect().await.expect("the certificates");
    found.into_iter().find(|it| it.is(ours)).expect("it is uploaded")
}

async fn refer(instance: &DpsInstance, name: DpsCertificateName) {
    let update = EnrollmentGroupUpdate::new().attestation(Some(CaReferences::primary(name).into()));
    instance.client().enrollment_groups().update(&group_id(), &update).await.expect("updated");
}

/// A lab with our root in the directory.
async fn with_root() -> (DpsLab, Certificate) {
    let lab = DpsLab::start().await;
    let root = lab.write_root();
    (lab, root)
}

/// The entries of a group with this verified CA only.
fn only(certificate: &Certificate) -> [Option<(Thumbprint, bool)>; 2] {
    [Some((certificate.sha1_thumbprint(), true)), None]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_another_run_uploads_first_is_used() {
    let (lab, ours) = with_root().await;
    let name = default_name(&lab).await;
    let report = overtaken(&lab, &lab.request(), Step::Certificate, |instance| {
        let (ours, name) = (ours.clone(), name.clone());
        async move {
            let certificates = instance.resource().certificates();
            let possession = Possession::ToBeProven;
            certificates.set(&name, &ours, possession, None).await.expect("uploaded");
        }
    })
    .await
    .expect("provisioned");
    assert_eq!(report.certificate_name, Some(name));
    assert_eq!(lab.entries().await, only(&ours));
    assert_eq!(lab.certificates().await.len(), 1);
}

/// The name that a run gives to the certificate of our root.
async fn default_name(lab: &DpsLab) -> DpsCertificateName {
    let planned = lab.run(&lab.request().dry_run(true)).await.expect("a plan");
    planned.certificate_name.expect("a name")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_another_run_replaces_is_requested_again() {
    for at in [Step::Code, Step::Proof, Step::Verify] {
        let (lab, ours) = with_root().await;
        let report = overtaken(&lab, &lab.request(), at, |instance| {
            let ours = ours.clone();
            async move {
                let found = certificate_of(&instance, &ours).await;
                let certificates = instance.resource().certificates();
                certificates.generate_verification_code(&found.name, &found.etag).await.expect("a code");
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(report.verified);
        assert_eq!(lab.entries().await, only(&ours), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_another_run_verifies_first_is_used() {
    for at in [Step::Code, Step::Verify] {
        let (lab, ours) = with_root().await;
        let report = overtaken(&lab, &lab.request(), at, |instance| {
            let ours = ours.clone();
            async move {
                let found = certificate_of(&instance, &ours).await;
                let certificates = instance.resource().certificates();
                let possession = Possession::Attested;
                certificates.set(&found.name, &ours, possession, Some(&found.etag)).await.expect("attested");
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(outcome(&report, Step::Verify), Some(Outcome::Unchanged), "{at}");
        assert_eq!(lab.entries().await, only(&ours), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_another_client_replaces_or_deletes_is_reported() {
    for deletes in [false, true] {
        let (lab, ours) = with_root().await;
        let result = overtaken(&lab, &lab.request(), Step::Verify, |instance| {
            let ours = ours.clone();
            async move {
                let found = certificate_of(&instance, &ours).await;
                let certificates = instance.resource().certificates();
                if deletes {
                    certificates.delete(&found.name, &found.etag).await.expect("deleted");
                } else {
                    let theirs = new_root("theirs").certificate;
                    let possession = Possession::Attested;
                    certificates.set(&found.name, &theirs, possession, Some(&found.etag)).await.expect("replaced");
                }
            }
        })
        .await;
        let Err(error @ ProvisionError::NotConfirmed { found, .. }) = &result else { panic!("{result:?}") };
        assert_eq!(found.is_none(), deletes, "{error}");
        assert!(lab.group().await.is_none(), "no group refers to what is not verified");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ca_that_appears_in_the_entry_is_not_replaced() {
    for replace in [false, true] {
        let (lab, _) = with_root().await;
        let request = lab.request().replace(replace);
        if replace {
            let theirs = lab.upload("theirs", &new_root("theirs").certificate, true).await;
            lab.create_group("myx509eg", &theirs).await;
        }
        let third = new_root("third").certificate;
        let name = lab.upload("third", &third, true).await;
        let result = overtaken(&lab, &request, Step::Group, |instance| {
            let name = name.clone();
            async move {
                if replace {
                    refer(&instance, name).await;
                } else {
                    let group = NewEnrollmentGroup::new(CaReferences::primary(name));
                    instance.client().enrollment_groups().create(&group_id(), &group).await.expect("created");
                }
            }
        })
        .await;
        let Err(ProvisionError::OtherCertificate { found, .. }) = &result else { panic!("{result:?}") };
        assert_eq!(*found, third.sha1_thumbprint());
        assert_eq!(lab.entries().await, only(&third));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_change_of_the_group_is_kept() {
    let (lab, ours) = with_root().await;
    let theirs = lab.upload("theirs", &new_root("theirs").certificate, true).await;
    lab.create_group("myx509eg", &theirs).await;
    let request = lab.request().replace(true);
    overtaken(&lab, &request, Step::Group, |instance| async move {
        let update = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
        instance.client().enrollment_groups().update(&group_id(), &update).await.expect("updated");
    })
    .await
    .expect("provisioned");
    assert_eq!(lab.entries().await, only(&ours));
    assert!(!lab.group().await.expect("the group").is_enabled(), "the other change is kept");
}

#[tokio::test]
async fn a_reference_that_the_service_accepts_and_does_not_have_is_reported() {
    let lab = DpsLab::start().await;
    let ours = lab.write_root();
    let thumbprint = ours.sha1_thumbprint().to_string();
    let certificates = json!({ "value": [
        { "name": "ours", "etag": "AAA=", "properties": { "thumbprint": thumbprint, "isVerified": true } },
    ] });
    let group = |name: &str| {
        let attestation = json!({ "type": "x509", "x509": { "caReferences": { "primary": name } } });
        Reply::json(200, &json!({ "enrollmentGroupId": "myx509eg", "etag": "\"g\"", "attestation": attestation }))
    };
    let missing = || Reply::json(404, &json!({ "errorCode": 404_201, "message": "Not found" }));
    let list = || Reply::json(200, &certificates);
    for (after, found) in [(missing(), None), (group("theirs"), Some("theirs"))] {
        // The group, all groups and the certificates; the group and the certificates again; the change; the group.
        let none = Reply::json(200, &json!([]));
        let server = Server::start([missing(), none, list(), missing(), list(), group("ours"), after]);
        let request = lab.request().devices([]);
        let result = provision(&lab.instance_at(&server.url()), &request, &mut |_| ()).await;
        let Err(ProvisionError::NotReferred { name, found: other, .. }) = &result else {
            panic!("{result:?}: {:?}", server.log())
        };
        assert_eq!((name.as_str(), other.as_deref()), ("ours", found));
    }
}
