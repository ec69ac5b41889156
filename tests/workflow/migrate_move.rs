//! `migrate move`: which devices are sent to the instance, and that none is sent twice unless that is asked for.

use std::fs;

use crate::{
    migration_lab::{COMMAND, GROUP, MigrationLab, client_at, keys, request},
    support::server::{Reply, Server},
};
use iot_enroll::{
    central::{DeviceUpdate, NewDeviceAttestation, NewDeviceGroup},
    dps::service::{EnrollmentGroupUpdate, EnrollmentSettings, NewAttestation, NewIndividualEnrollment},
    emulator::{DeviceProperties, Fault, FaultKind},
    workflow::{
        RunStop,
        migrate::{MoveRequest, MoveTargets, Plan, Resend, prepare_move},
    },
};
use serde_json::json;

const IDS: [&str; 3] = ["pump-1", "pump-2", "pump-3"];

/// An application with three devices that have connected, their plan, and the instance with their group.
async fn ready() -> (MigrationLab, Plan) {
    let lab = MigrationLab::start().await;
    lab.connect(&IDS).await;
    let plan = lab.plan().await;
    lab.create_group().await;
    (lab, plan)
}

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind).method("POST").path_contains("/commands/DeviceMove")
}

#[tokio::test]
async fn devices_get_the_new_id_scope_once() {
    let (lab, plan) = ready().await;
    let report = lab.send(&plan, &["pump-1", "PUMP-1", "pump-2"]).await;
    assert_eq!((report.sent, report.earlier, report.is_complete()), (2, 0, true), "{report:?}");
    let command = COMMAND.parse().expect("a command");
    let history = lab.client().devices().command_history(&"pump-1".parse().expect("an ID"), &command);
    let history: Vec<_> = history.try_collect().await.expect("a history");
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].request, Some(json!({ "idScope": lab.emulator().dps_id_scope() })));
    assert_eq!(lab.outcome("pump-1").as_deref(), Some("sent"));

    // Another wave, with devices of the first.
    let report = lab.send(&plan, &IDS).await;
    assert_eq!((report.sent, report.earlier, report.is_complete()), (1, 2, true), "{report:?}");
    for id in IDS {
        assert_eq!(lab.received(id), 1, "{id}");
    }
    // On request, each once more.
    let report = lab.resend(&plan, &["pump-1"], Resend::Unknown).await;
    assert_eq!((report.sent, report.earlier), (0, 1));
    let report = lab.resend(&plan, &["pump-1"], Resend::All).await;
    assert_eq!((report.sent, lab.received("pump-1"), lab.received("pump-2")), (1, 2, 1));
}

#[tokio::test]
async fn a_device_group_is_resolved_to_its_devices() {
    let (lab, plan) = ready().await;
    let group = "wave-1".parse().expect("an ID");
    let query = r#"SELECT * FROM devices WHERE $id = "pump-1" OR $id = "pump-3""#;
    lab.client().device_groups().create(&group, &NewDeviceGroup::new("Wave 1", query)).await.expect("created");
    let request = MoveRequest::new(&plan, MoveTargets::Group(group), COMMAND.parse().expect("a command"));
    let report = lab.run(&plan, &request).await;
    assert_eq!(report.sent, 2, "{report:?}");
    assert_eq!(IDS.map(|id| lab.received(id)), [1, 0, 1]);
}

#[tokio::test]
async fn a_dry_run_sends_and_writes_nothing() {
    let (lab, plan) = ready().await;
    lab.send(&plan, &["pump-1"]).await;
    let before = fs::read(lab.path("plan.moves.csv")).expect("results");
    let report = lab.run(&plan, &request(&plan, &IDS).dry_run(true)).await;
    assert_eq!((report.planned, report.earlier, report.sent), (2, 1, 0), "{report:?}");
    assert_eq!(fs::read(lab.path("plan.moves.csv")).expect("results"), before);
    fs::remove_file(lab.path("plan.moves.csv")).expect("removed");
    let report = lab.run(&plan, &request(&plan, &IDS).dry_run(true)).await;
    assert_eq!(report.planned, 3);
    assert!(!lab.path("plan.moves.csv").exists());
    assert_eq!(IDS.map(|id| lab.received(id)), [1, 0, 0]);
}

#[tokio::test]
async fn devices_that_the_instance_would_not_admit_are_skipped() {
    let lab = MigrationLab::start().await;
    lab.connect(&IDS).await;
    let off = DeviceUpdate::default().enabled(false);
    lab.client().devices().update(&"pump-3".parse().expect("an ID"), &off).await.expect("disabled");
    lab.emulator().add_devices([DeviceProperties::new("fake").simulated(true)]).expect("a device");
    let plan = lab.plan().await;
    let skips = async |ids: &[&str]| {
        let wanted = request(&plan, ids);
        let prepared = prepare_move(&lab.client(), &lab.dps.instance(), &plan, &wanted).await.expect("prepared");
        let reasons: Vec<_> = prepared.skipped().map(|(id, reason)| format!("{id}: {reason}")).collect();
        let report = prepared.run(&mut |_| ()).await;
        assert_eq!(report.skipped, reasons.len() as u64);
        assert_eq!(report.is_complete(), reasons.is_empty());
        reasons
    };
    assert_eq!(
        skips(&["pump-1", "pump-3", "fake", "unknown"]).await,
        [
            "pump-1: the instance has no enrollment group sas: apply the plan first",
            "pump-3: it is disabled",
            "fake: the plan does not move it: simulated by the application: there is no device to move",
            "unknown: the plan does not have it: make the plan again",
        ]
    );
    let groups = lab.dps.instance().client().enrollment_groups();
    let id = GROUP.parse().expect("an ID");
    lab.create_group_with_other_keys().await;
    assert_eq!(skips(&["pump-1"]).await, ["pump-1: the enrollment group sas of the instance has other keys"]);
    groups.delete(&id, None).await.expect("deleted");
    lab.create_group().await;
    let disabled = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false));
    groups.update(&id, &disabled).await.expect("disabled");
    assert_eq!(skips(&["pump-1"]).await, ["pump-1: the enrollment group sas of the instance is disabled"]);
    let enabled = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(true));
    groups.update(&id, &enabled).await.expect("enabled");
    assert_eq!(IDS.map(|id| lab.received(id)), [0; 3]);
    assert!(skips(&["pump-1"]).await.is_empty());
    assert_eq!(lab.received("pump-1"), 1);
}

/// Returns why devices are skipped, and the number of the others.
async fn dry_run(lab: &MigrationLab, plan: &Plan, request: MoveRequest) -> (Vec<String>, usize) {
    let request = request.dry_run(true);
    let prepared = prepare_move(&lab.client(), &lab.dps.instance(), plan, &request).await.expect("prepared");
    (prepared.skipped().map(|(id, reason)| format!("{id}: {reason}")).collect(), prepared.to_send())
}

#[tokio::test]
async fn devices_that_were_disabled_or_deleted_since_the_plan_are_skipped() {
    let (lab, plan) = ready().await;
    let devices = lab.client().devices();
    let group = "all".parse().expect("an ID");
    let query = NewDeviceGroup::new("All", "SELECT * FROM devices WHERE $provisioned = true");
    lab.client().device_groups().create(&group, &query).await.expect("created");
    devices.update(&"pump-1".parse().expect("an ID"), &DeviceUpdate::default().enabled(false)).await.expect("disabled");
    devices.delete(&"pump-2".parse().expect("an ID")).await.expect("deleted");
    let disabled = "pump-1: it is disabled at the application";
    let (reasons, to_send) = dry_run(&lab, &plan, request(&plan, &IDS)).await;
    assert_eq!(reasons, [disabled, "pump-2: the application does not have it any more"]);
    assert_eq!(to_send, 1);
    let by_group = MoveRequest::new(&plan, MoveTargets::Group(group), COMMAND.parse().expect("a command"));
    assert_eq!(dry_run(&lab, &plan, by_group).await, (vec![disabled.to_owned()], 1));
}

#[tokio::test]
async fn devices_whose_individual_enrollment_is_for_another_credential_are_skipped() {
    let lab = MigrationLab::start().await;
    lab.connect(&["own"]).await;
    let (devices, id) = (lab.client().devices(), "own".parse().expect("an ID"));
    let set = async |name: &str| {
        let attestation = NewDeviceAttestation::SymmetricKey(Some(keys(name)));
        devices.set_attestation(&id, &attestation).await.expect("set");
    };
    set("first").await;
    let plan = lab.plan().await;
    let enrollments = lab.dps.instance().client().individual_enrollments();
    let enrolled = "own".parse().expect("an ID");
    let enroll = async |name: &str| {
        let enrollment = NewIndividualEnrollment::new(NewAttestation::SymmetricKey(Some(keys(name))));
        enrollments.create(&enrolled, &enrollment).await.expect("created");
    };
    enroll("first").await;
    assert_eq!(dry_run(&lab, &plan, request(&plan, &["own"])).await, (vec![], 1));
    // At the application.
    set("second").await;
    let other = "own: its individual enrollment at the instance has other keys than the device has at the application";
    assert_eq!(dry_run(&lab, &plan, request(&plan, &["own"])).await, (vec![other.to_owned()], 0));
    set("first").await;
    // At the instance.
    enrollments.delete(&enrolled, None).await.expect("deleted");
    enroll("third").await;
    assert_eq!(dry_run(&lab, &plan, request(&plan, &["own"])).await, (vec![other.to_owned()], 0));
    devices.delete_attestation(&id).await.expect("deleted");
    assert_eq!(dry_run(&lab, &plan, request(&plan, &["own"])).await.1, 0);
}

#[tokio::test]
async fn another_command_counts_as_not_sent() {
    let (lab, plan) = ready().await;
    lab.send(&plan, &["pump-1"]).await;
    let targets = MoveTargets::Devices(vec!["pump-1".parse().expect("an ID")]);
    let other = MoveRequest::new(&plan, targets, "Other".parse().expect("a command"));
    assert_eq!(dry_run(&lab, &plan, other).await, (vec![], 1));
    assert_eq!(lab.send(&plan, &["pump-1"]).await.earlier, 1);
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_the_history_and_never_sent_again_unasked() {
    let (lab, plan) = ready().await;
    // The command arrived.
    lab.emulator().inject(fault(FaultKind::CloseAfterHandling)).expect("a fault");
    let report = lab.send(&plan, &["pump-1"]).await;
    assert_eq!((report.sent, report.unknown), (0, 1), "{report:?}");
    assert_eq!(lab.outcome("pump-1").as_deref(), Some("unknown"));
    let report = lab.send(&plan, &["pump-1"]).await;
    assert_eq!((report.sent, report.is_complete()), (1, true), "{report:?}");
    assert_eq!(lab.received("pump-1"), 1);
    assert_eq!(lab.send(&plan, &["pump-1"]).await.earlier, 1);

    // The command did not arrive, which nobody can know.
    lab.emulator().inject(fault(FaultKind::CloseBeforeHandling)).expect("a fault");
    assert_eq!(lab.send(&plan, &["pump-2"]).await.unknown, 1);
    let posts = lab.received("pump-2");
    for _ in 0..2 {
        let report = lab.send(&plan, &["pump-2"]).await;
        assert_eq!((report.unknown, report.is_complete()), (1, false), "{report:?}");
        assert_eq!(lab.received("pump-2"), posts);
    }
    let report = lab.resend(&plan, &["pump-2"], Resend::Unknown).await;
    assert_eq!((report.sent, lab.received("pump-2")), (1, posts + 1));
}

#[tokio::test]
async fn the_history_of_an_earlier_run_settles_nothing() {
    let (lab, plan) = ready().await;
    lab.send(&plan, &["pump-1"]).await;
    // Sent again, after the device has gone back, and lost: the last command in the history is the first one.
    lab.emulator().inject(fault(FaultKind::CloseBeforeHandling)).expect("a fault");
    assert_eq!(lab.resend(&plan, &["pump-1"], Resend::All).await.unknown, 1);
    let report = lab.send(&plan, &["pump-1"]).await;
    assert_eq!((report.sent, report.unknown), (0, 1), "{report:?}");
}

#[tokio::test]
async fn a_row_that_a_killed_run_left_is_not_sent_again() {
    let (lab, plan) = ready().await;
    lab.send(&plan, &["pump-1"]).await;
    let results = lab.path("plan.moves.csv");
    let text = fs::read_to_string(&results).expect("results");
    // The run was killed between the row before the command and the command, and while it wrote another row.
    let sending = text.lines().find(|line| line.contains(",sending,")).expect("a row").replace("pump-1", "pump-2");
    fs::write(&results, format!("{text}{sending}\npump-3,\"sen")).expect("written");
    let report = lab.send(&plan, &IDS).await;
    assert_eq!((report.earlier, report.unknown, report.sent), (1, 1, 1), "{report:?}");
    assert_eq!(IDS.map(|id| lab.received(id)), [1, 0, 1]);
}

#[tokio::test]
async fn devices_that_did_not_receive_the_command_are_sent_it_by_the_next_run() {
    let (lab, plan) = ready().await;
    // Not connected at the moment.
    lab.emulator().inject(fault(FaultKind::Status { status: 404, retry_after: None })).expect("a fault");
    let report = lab.send(&plan, &["pump-1"]).await;
    assert_eq!((report.failed, report.unknown, report.is_complete()), (1, 0, false), "{report:?}");
    assert_eq!(lab.outcome("pump-1").as_deref(), Some("failed"));
    assert_eq!(lab.send(&plan, &["pump-1"]).await.sent, 1);

    // 408: the device did not answer in time, so it may have the command.
    lab.emulator().inject(fault(FaultKind::Status { status: 408, retry_after: None })).expect("a fault");
    assert_eq!(lab.send(&plan, &["pump-2"]).await.unknown, 1);
    // Throttled: certainly not.
    lab.emulator().inject(fault(FaultKind::Status { status: 429, retry_after: None })).expect("a fault");
    assert_eq!(lab.send(&plan, &["pump-3"]).await.failed, 1);
    assert_eq!(lab.send(&plan, &["pump-3"]).await.sent, 1);
}

#[tokio::test]
async fn a_device_that_answers_with_an_error_is_not_moved() {
    let (lab, plan) = ready().await;
    let answer = |code: u16| {
        let body = json!({ "id": "r", "request": {}, "response": "unknown method", "responseCode": code });
        Reply::json(201, &body)
    };
    // The device is read before each command.
    let fields = json!({ "id": "pump-1", "enabled": true, "provisioned": true, "simulated": false });
    let device = || Reply::json(200, &fields);
    let server = Server::start([device(), answer(404), device(), answer(200)]);
    let client = client_at(&server.url(), lab.emulator().token());
    let wanted = request(&plan, &["pump-1"]);
    for (sent, refused) in [(0, 1), (1, 0)] {
        let prepared = prepare_move(&client, &lab.dps.instance(), &plan, &wanted).await.expect("prepared");
        let report = prepared.run(&mut |_| ()).await;
        assert_eq!((report.sent, report.refused), (sent, refused), "{report:?}");
    }
    let results = fs::read_to_string(lab.path("plan.moves.csv")).expect("results");
    assert!(results.contains("the device answered the command with status 404: "), "{results}");
}

#[tokio::test]
async fn an_error_that_affects_all_devices_stops_the_run() {
    let (lab, plan) = ready().await;
    lab.emulator().inject(fault(FaultKind::Status { status: 403, retry_after: None })).expect("a fault");
    let report = lab.send(&plan, &IDS).await;
    assert!(matches!(report.stopped, Some(RunStop::AffectsEvery { .. })), "{report:?}");
    assert_eq!((report.failed, report.remaining, report.sent), (1, 2, 0));
    let report = lab.send(&plan, &IDS).await;
    assert_eq!((report.sent, report.is_complete()), (3, true), "{report:?}");
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be_recorded() {
    let (lab, plan) = ready().await;
    let wanted = request(&plan, &IDS);
    let prepared = prepare_move(&lab.client(), &lab.dps.instance(), &plan, &wanted).await.expect("prepared");
    fs::remove_file(lab.path("plan.moves.csv")).expect("removed");
    let report = prepared.run(&mut |_| ()).await;
    assert!(matches!(report.stopped, Some(RunStop::Results(_))), "{report:?}");
    assert_eq!((report.remaining, IDS.map(|id| lab.received(id))), (3, [0; 3]));
}

#[tokio::test]
async fn two_runs_with_the_same_results_are_refused() {
    let (lab, plan) = ready().await;
    let wanted = request(&plan, &["pump-1"]);
    let prepared = prepare_move(&lab.client(), &lab.dps.instance(), &plan, &wanted).await.expect("prepared");
    let second = prepare_move(&lab.client(), &lab.dps.instance(), &plan, &wanted).await.err().expect("locked");
    assert!(second.to_string().contains("another move is under way"), "{second}");
    assert_eq!(prepared.run(&mut |_| ()).await.sent, 1);
}

#[tokio::test]
async fn results_for_another_id_scope_do_not_count() {
    let (lab, plan) = ready().await;
    lab.send(&plan, &["pump-1"]).await;
    let results = lab.path("plan.moves.csv");
    let text = fs::read_to_string(&results).expect("results");
    fs::write(&results, text.replace(lab.emulator().dps_id_scope(), "0neOTHER")).expect("written");
    assert_eq!(lab.send(&plan, &["pump-1"]).await.sent, 1);
    assert_eq!(lab.received("pump-1"), 2);
}
