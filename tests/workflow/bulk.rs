//! Many devices at once: results files, resumption, and errors that affect every device.

use std::{fs, num::NonZeroU32, path::Path, time::Duration};

use iot_enroll::{
    central::{Authorization, Client, DeviceQuery, DeviceUpdate, Endpoint},
    certificate::{DeviceId, fleet::FleetDevice},
    dps::device::RegistrationClient,
    emulator::{Emulator, Fault, FaultKind},
    workflow::{
        FleetRequest, ImportRequest, ImportRow, ManifestRegistration, Outcome, ProvisionReport, ProvisionRequest,
        Registrar, RunStop, Step, WorkflowEvent, import_devices, provision, register_manifest,
    },
};

use crate::support::lab::Lab;

/// An emulator on TLS, at which devices can register.
async fn start() -> Lab {
    let builder = Emulator::builder().tls(true).registration_retry_after(Duration::ZERO);
    Lab {
        emulator: builder.start().await.expect("a free loopback port"),
        directory: crate::support::temporary_directory(),
    }
}

fn client(emulator: &Emulator) -> Client {
    Client::builder(emulator.endpoint().parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(emulator.token().to_owned()).expect("a token"))
        .add_root_certificate(emulator.ca_pem().expect("TLS").as_bytes())
        .expect("a root")
        .rate(NonZeroU32::MAX)
        .build()
        .expect("a client")
}

fn registration(emulator: &Emulator, id_scope: &str) -> RegistrationClient {
    RegistrationClient::builder(id_scope.parse().expect("an ID scope"))
        .endpoint(emulator.endpoint().parse().expect("an endpoint"))
        .add_root_certificate(emulator.ca_pem().expect("TLS").as_bytes())
        .expect("a root")
        .rate(NonZeroU32::MAX)
        .build()
        .expect("a client")
}

/// A fleet `d-1` to `d-COUNT`.
fn fleet(lab: &Lab, count: u64) -> FleetRequest {
    FleetRequest::new(lab.path().join("fleet"), count, move || {
        Ok(Box::new((1..=count).map(|number| Ok(FleetDevice::new(DeviceId::new(format!("d-{number}"))?)))))
    })
}

fn request(lab: &Lab, count: u64) -> ProvisionRequest<'static> {
    lab.request().devices([]).fleet(fleet(lab, count)).register(registration(&lab.emulator, lab.emulator.id_scope()))
}

async fn run(lab: &Lab, request: &ProvisionRequest<'_>) -> ProvisionReport {
    provision(&client(&lab.emulator), request, &mut |_| ()).await.expect("provisioned")
}

/// The numbers of registered and refused devices, and the outcome of the step.
fn registered(report: &ProvisionReport) -> (Option<u64>, Option<u64>, Outcome) {
    let fleet = report.fleet.as_ref().expect("a fleet");
    let step = report.steps.iter().find(|step| step.step == Step::Register).expect("the step");
    (fleet.registered, fleet.refused, step.outcome)
}

fn registrations(lab: &Lab) -> usize {
    lab.emulator.requests().iter().filter(|request| request.path.ends_with("/register")).count()
}

/// The rows of a results file: ID and outcome.
fn results(path: &Path) -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_path(path).expect("results");
    let headers = reader.headers().expect("a header").clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect(name);
    let (id, outcome) = (column("IOTC_DEVICEID"), column("outcome"));
    let mut rows: Vec<_> = reader
        .records()
        .map(|row| row.expect("a row"))
        .map(|row| (row[id].to_owned(), row[outcome].to_owned()))
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn provisioning_registers_a_fleet_as_its_manifest_is_registered() {
    let lab = start().await;
    let refused = FaultKind::Status { status: 401, retry_after: None };
    lab.emulator.inject(Fault::new(refused).path_contains("/d-3/register")).expect("a fault");
    let report = run(&lab, &request(&lab, 5)).await;
    assert_eq!(registered(&report), (Some(4), Some(1), Outcome::Failed));
    let path = report.fleet.and_then(|fleet| fleet.registrations).expect("a results file");
    assert_eq!(path, lab.path().join("fleet/manifest.registrations.csv"));
    let outcomes = results(&path);
    assert_eq!(outcomes.len(), 5);
    assert!(outcomes.iter().all(|(id, outcome)| outcome == if id == "d-3" { "failed" } else { "assigned" }));

    // The next run has only that one to do, and the one after it nothing.
    let before = registrations(&lab);
    assert_eq!(registered(&run(&lab, &request(&lab, 5)).await), (Some(5), Some(0), Outcome::Done));
    assert_eq!(registrations(&lab), before + 1);
    assert_eq!(registered(&run(&lab, &request(&lab, 5)).await), (Some(5), Some(0), Outcome::Unchanged));
    // A fleet that grows has only its new devices to register.
    assert_eq!(registered(&run(&lab, &request(&lab, 7)).await), (Some(7), Some(0), Outcome::Done));
    assert_eq!(registrations(&lab), before + 3);

    // A manifest that is registered by itself uses the same results.
    let registrar = Registrar::new(registration(&lab.emulator, lab.emulator.id_scope()));
    let manifest = ManifestRegistration::open(lab.path().join("fleet/manifest.csv")).expect("a manifest");
    let report = register_manifest(&registrar, manifest, &mut |_| ()).await.expect("a report");
    assert_eq!((report.assigned, report.earlier, report.failed, report.remaining), (0, 7, 0, 0));
    assert!(report.stopped.is_none());
    assert_eq!(registrations(&lab), before + 3);
}

#[tokio::test]
async fn an_error_that_affects_every_device_stops_the_fleet_and_loses_no_result() {
    let lab = start().await;
    run(&lab, &request(&lab, 20)).await;
    let wrong = request(&lab, 20).register(registration(&lab.emulator, "0neFFFFFFFF"));
    let before = registrations(&lab);
    let report = run(&lab, &wrong).await;
    assert_eq!(registered(&report), (Some(0), Some(1), Outcome::Failed));
    assert_eq!(registrations(&lab), before + 1, "the first device goes ahead of the others");
    let detail = &report.steps.iter().find(|step| step.step == Step::Register).expect("the step").detail;
    assert!(detail.contains("19 were not tried") && detail.contains("affects every device"), "{detail}");
}

#[tokio::test]
async fn columns_are_found_by_name_and_results_are_private() {
    let lab = start().await;
    run(&lab, &lab.request().devices([]).fleet(fleet(&lab, 3))).await;
    // The columns in another order, with one that nobody knows.
    let manifest = lab.path().join("fleet/manifest.csv");
    let mut reader = csv::Reader::from_path(&manifest).expect("a manifest");
    let headers = reader.headers().expect("a header").clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect(name);
    let order = ["privateKey", "fullchain", "IOTC_DEVICEID"].map(column);
    let rows: String = reader
        .records()
        .map(|row| row.expect("a row"))
        .map(|row| format!("note,{}\n", order.map(|at| row[at].to_owned()).join(",")))
        .collect();
    let other = lab.path().join("fleet/other.csv");
    fs::write(&other, format!("remark,PRIVATEKEY,fullChain,iotc_deviceid\n{rows}")).expect("written");
    let registrar = Registrar::new(registration(&lab.emulator, lab.emulator.id_scope()));
    let request = ManifestRegistration::open(&other).expect("a manifest");
    let mut events = Vec::new();
    let mut observe = |event: WorkflowEvent<'_>| {
        if let WorkflowEvent::Progressed { done, of, .. } = event {
            events.push((done, of));
        }
    };
    let report = register_manifest(&registrar, request, &mut observe).await.expect("a report");
    assert_eq!((report.assigned, report.failed), (3, 0));
    assert_eq!(events, [(1, 3), (2, 3), (3, 3)]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&report.results).expect("results").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn an_import_through_the_library_reports_each_row_in_order() {
    let lab = Lab::start().await;
    let row = |line, id: &str| {
        let device = DeviceId::new(id).map(|id| (id.into(), DeviceUpdate::default()));
        ImportRow { line, id: id.to_owned(), device: device.map_err(|error| error.to_string()) }
    };
    let rows = || Ok([row(2, "b"), row(3, "not an id"), row(4, "a")].into_iter().map(Ok));
    let request = ImportRequest::new(lab.path().join("devices.results.csv"));
    let report = import_devices(&lab.client(), rows, &request, &mut |_| ()).await.expect("a report");
    assert_eq!((report.created, report.failed, report.remaining, report.done()), (2, 1, 0, 3));
    assert_eq!((report.failures[0].line, report.failures[0].id.as_str()), (3, "not an id"));
    let text = fs::read_to_string(&report.results).expect("results");
    let lines: Vec<_> = text.lines().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(lines, ["IOTC_DEVICEID,line,outcome", "b,2,created", "not an id,3,failed", "a,4,created"]);
    let report = import_devices(&lab.client(), rows, &request, &mut |_| ()).await.expect("a report");
    assert_eq!((report.created, report.unchanged), (0, 2));
    // What affects every row stops the import, and says why.
    let refused = FaultKind::Status { status: 403, retry_after: None };
    lab.emulator.inject(Fault::new(refused).method("PUT").always()).expect("a fault");
    let rows = || Ok((2..500).map(|line| Ok(row(line, &format!("d-{line}")))));
    let report = import_devices(&lab.client(), rows, &request, &mut |_| ()).await.expect("a report");
    assert!(matches!(&report.stopped, Some(RunStop::AffectsAll { message, .. }) if message.contains("403")));
    assert_eq!(report.done() + report.remaining, 498);
    assert!(report.done() <= 64, "{report:?}");
    let listed: Vec<_> = lab.client().devices().list(&DeviceQuery::default()).try_collect().await.expect("the devices");
    assert_eq!(listed.len(), 2);
}

/// The lock of a file ends with the run, even if a child process still has a copy of the file.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_next_import_is_not_held_up_by_copies_of_the_results() {
    let lab = Lab::start().await;
    let path = lab.path().join("devices.results.csv");
    let rows = || {
        let device = DeviceId::new("a").map(|id| (id.into(), DeviceUpdate::default()));
        Ok([Ok(ImportRow { line: 2, id: "a".to_owned(), device: device.map_err(|error| error.to_string()) })]
            .into_iter())
    };
    let request = ImportRequest::new(path.clone());
    let mut copies = Vec::new();
    for run in 1..=3 {
        let copy = &mut |_: WorkflowEvent<'_>| copies.push(crate::support::descriptors::copy_open_files(&path));
        import_devices(&lab.client(), rows, &request, copy).await.expect("a report");
        assert!(copies.len() >= run, "each run reports its row");
    }
}

#[test]
fn workflows_can_move_between_threads() {
    fn assert_send(_: &impl Send) {}
    let check = |lab: &Lab, client: &Client, registrar: &Registrar| {
        let request = lab.request();
        let mut observe = |_: WorkflowEvent<'_>| ();
        assert_send(&provision(client, &request, &mut observe));
        let import = ImportRequest::new("results.csv");
        assert_send(&import_devices(client, || Ok(std::iter::empty()), &import, &mut observe));
        let manifest = ManifestRegistration::open("manifest.csv").expect("a manifest");
        assert_send(&register_manifest(registrar, manifest, &mut observe));
    };
    let _ = check;
}
