//! A plan of a migration, and carrying it out.

use std::{
    collections::BTreeMap, fs, future::poll_fn, num::NonZeroU32, os::unix::fs::PermissionsExt, path::PathBuf, pin::pin,
    task::Poll, time::Duration,
};

use crate::{
    dps_lab::{DpsLab, is_change},
    support::{
        devices::{credential, id, issue, root},
        lab::write,
    },
};
use iot_enroll::{
    arm::DpsCertificateName,
    central::{
        Attestation, Authorization, CertificateEntry, Client, DeviceUpdate, EnrollmentGroupUpdate, NewAttestation,
        NewDevice, NewDeviceAttestation, NewEnrollmentGroup, Possession, RetryPolicy, SymmetricKeys,
    },
    certificate::{Certificate, CertificateAuthority, CommonName, IssueOptions, IssuedCertificate},
    dps::{
        device::{Credential, RegistrationClient, SymmetricKey, derive_device_key},
        service::{self, CaReferences, NewIndividualEnrollment},
    },
    emulator::{Emulator, Fault, FaultKind},
    workflow::migrate::{
        ApplyReport, ApplyRequest, CertificateAction, CertificateObstacle, DeviceAction, DeviceObstacle, GroupAction,
        GroupObstacle, MakePlanError, Plan, PlanError, PlanEvent, PlanReport, PlanRequest, PlannedDevice, apply_plan,
        make_plan,
    },
};

const FAST: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");

/// The devices of the application, and what becomes of them.
const DEVICES: [(&str, DeviceAction, Option<DeviceObstacle>); 8] = [
    ("own-1", DeviceAction::Enroll, None),
    ("simulated-1", DeviceAction::None, Some(DeviceObstacle::Simulated)),
    ("sym-1", DeviceAction::Covered, None),
    ("sym-off", DeviceAction::Enroll, None),
    ("thumb-1", DeviceAction::Enroll, None),
    ("thumb-2", DeviceAction::None, Some(DeviceObstacle::NoCertificate)),
    ("tpm-1", DeviceAction::Enroll, None),
    ("x509-1", DeviceAction::Covered, None),
];

/// An application with devices of every kind, and the directory of its CA.
struct Lab {
    dps: DpsLab,
    root: IssuedCertificate,
    thumb: IssuedCertificate,
}

fn key(text: &str) -> SymmetricKey {
    SymmetricKey::from_base64(&key_text(text)).expect("a key")
}

/// A key of 64 bytes that is made of a text.
fn key_text(text: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, text.as_bytes()))
}

fn keys(name: &str) -> SymmetricKeys {
    let key = |number| key_text(&format!("{name} {number}")).into();
    SymmetricKeys { primary_key: key(1), secondary_key: key(2) }
}

fn new_root(name: &str) -> IssuedCertificate {
    CertificateAuthority::new_root(&CommonName::new(name).expect("a name"), &IssueOptions::new()).expect("a root")
}

impl Lab {
    async fn start() -> Self {
        let lab = Self::empty(Emulator::builder().assign_after(0)).await;
        lab.symmetric_group("sas", true).await;
        lab.symmetric_group("sas-off", false).await;
        lab.x509_group("x509", &lab.root.certificate).await;
        lab.create(&["own-1", "sym-1", "sym-off", "thumb-1", "thumb-2", "tpm-1", "x509-1"]).await;
        let devices = lab.client().devices();
        devices.replace(&device("simulated-1"), &NewDevice::default().simulated(true)).await.expect("created");
        lab.connect("sym-1", "sas").await;
        lab.connect("sym-off", "sas").await;
        lab.set_enabled("sym-off", false).await;
        lab.attest("own-1", NewDeviceAttestation::SymmetricKey(Some(keys("own-1")))).await;
        lab.attest("thumb-1", NewDeviceAttestation::x509(lab.thumb.certificate.clone())).await;
        lab.attest("thumb-2", NewDeviceAttestation::x509(new_root("thumb-2").certificate)).await;
        lab.attest("tpm-1", NewDeviceAttestation::Tpm("QUJDRA==".into())).await;
        lab
    }

    /// An application without anything.
    async fn empty(builder: iot_enroll::emulator::Builder) -> Self {
        let dps = DpsLab::with(builder.registration_retry_after(Duration::ZERO)).await;
        let root = new_root("Plant Root");
        let thumb = CertificateAuthority::self_signed_device(&id("thumb-1"), &IssueOptions::new()).expect("issued");
        let lab = Self { dps, root, thumb };
        fs::create_dir(lab.ca_directory()).expect("a directory");
        write(&lab.ca_directory(), "plantRoot", &lab.root);
        write(&lab.ca_directory(), "thumb1", &lab.thumb);
        lab
    }

    fn ca_directory(&self) -> PathBuf {
        self.dps.path().join("cas")
    }

    fn path(&self) -> PathBuf {
        self.dps.path().join("plan.json")
    }

    fn emulator(&self) -> &Emulator {
        &self.dps.emulator
    }

    /// A client of the application that does not retry.
    fn client(&self) -> Client {
        Client::builder(self.emulator().endpoint().parse().expect("an endpoint"))
            .authorization(Authorization::parse(self.emulator().token().to_owned()).expect("a token"))
            .retry(RetryPolicy::none())
            .rate(FAST)
            .build()
            .expect("a client")
    }

    async fn symmetric_group(&self, name: &str, enabled: bool) {
        let attestation = NewAttestation::SymmetricKey(Some(keys(name)));
        let group = NewEnrollmentGroup::x509(name).attestation(attestation).enabled(enabled);
        let groups = self.client().enrollment_groups();
        groups.replace(&name.parse().expect("an ID"), &group).await.expect("created");
    }

    async fn x509_group(&self, name: &str, ca: &Certificate) {
        let groups = self.client().enrollment_groups();
        let group = name.parse().expect("an ID");
        groups.replace(&group, &NewEnrollmentGroup::x509(name)).await.expect("created");
        self.set_ca(name, CertificateEntry::Primary, ca, Possession::Attested).await;
    }

    async fn set_ca(&self, group: &str, entry: CertificateEntry, ca: &Certificate, possession: Possession) {
        let groups = self.client().enrollment_groups();
        groups.set_certificate(&group.parse().expect("an ID"), entry, ca, possession, None).await.expect("uploaded");
    }

    async fn create(&self, ids: &[&str]) {
        for id in ids {
            self.client().devices().replace(&device(id), &NewDevice::default()).await.expect("created");
        }
    }

    async fn attest(&self, id: &str, attestation: NewDeviceAttestation) {
        self.client().devices().set_attestation(&device(id), &attestation).await.expect("set");
    }

    async fn set_enabled(&self, id: &str, enabled: bool) {
        let update = DeviceUpdate::default().enabled(Some(enabled));
        self.client().devices().update(&device(id), &update).await.expect("updated");
    }

    /// Registers a device at the application by the key of a group.
    async fn connect(&self, name: &str, group: &str) {
        let scope = self.emulator().id_scope();
        let credential = derive_device_key(&key(&format!("{group} 1")), &id(name)).into();
        self.register(scope, name, &credential).await.expect("registered");
    }

    async fn register(&self, scope: &str, name: &str, credential: &Credential) -> Result<String, String> {
        let client = RegistrationClient::builder(scope.parse().expect("a scope"))
            .endpoint(self.emulator().endpoint().parse().expect("an endpoint"))
            .rate(FAST)
            .build()
            .expect("a client");
        let registered = client.register(&id(name), credential, None).await;
        registered.map(|assignment| assignment.device_id).map_err(|error| error.to_string())
    }

    fn request(&self) -> PlanRequest<'static> {
        PlanRequest::new(self.path()).ca_directory(self.ca_directory())
    }

    async fn make(&self, request: &PlanRequest<'_>) -> Result<PlanReport, MakePlanError> {
        make_plan(&self.client(), &self.dps.instance(), request, &mut |_| ()).await
    }

    async fn plan(&self) -> Plan {
        self.make(&self.request()).await.expect("a plan");
        Plan::read(self.path()).expect("a plan")
    }

    async fn apply(&self, plan: &Plan) -> ApplyReport {
        self.apply_with(plan, &ApplyRequest::new(plan)).await
    }

    async fn apply_with(&self, plan: &Plan, request: &ApplyRequest<'_>) -> ApplyReport {
        let client = self.client();
        let applied = apply_plan(plan, Some(&client), &self.dps.instance(), request, &mut |_| ()).await;
        applied.expect("carried out")
    }

    /// The instance has what the plan of [`start`](Self::start) says, and another run changes nothing.
    async fn is_complete(&self, plan: &Plan, after: &str) {
        let groups: BTreeMap<_, _> =
            self.dps.groups().await.into_iter().map(|it| (it.id.to_string(), it.is_enabled())).collect();
        let expected = [("sas", true), ("sas-off", false), ("x509", true)].map(|(id, on)| (id.to_owned(), on));
        assert_eq!(groups, expected.into(), "after {after}");
        let enrollments = self.dps.instance().client().individual_enrollments();
        for (name, kind, enabled) in [
            ("own-1", "symmetricKey", true),
            ("sym-off", "symmetricKey", false),
            ("thumb-1", "x509", true),
            ("tpm-1", "tpm", true),
        ] {
            let found = enrollments.get(&name.parse().expect("an ID")).await.expect("an enrollment");
            assert_eq!((found.attestation.kind(), found.is_enabled()), (kind, enabled), "{name} after {after}");
        }
        let attestation = enrollments.attestation(&"own-1".parse().expect("an ID")).await.expect("keys");
        let found = attestation.symmetric_keys().expect("keys");
        assert_eq!(found.primary_key.expose(), keys("own-1").primary_key.expose(), "after {after}");
        let certificates = self.dps.certificates().await;
        assert_eq!(certificates.len(), 1, "after {after}");
        assert!(certificates[0].is_verified && certificates[0].is(&self.root.certificate), "after {after}");
        let (state, count) = (self.dps.state().await, self.emulator().requests().len());
        let report = self.apply(plan).await;
        assert_eq!((report.created, report.failed, report.remaining), (0, 0, 0), "after {after}: {report:?}");
        assert_eq!(report.present, 7, "after {after}: {report:?}");
        let sent = self.emulator().requests().split_off(count);
        let changes: Vec<_> =
            sent.iter().filter(|it| is_change(it) && !it.path.ends_with("attestationmechanism")).collect();
        assert!(changes.is_empty(), "after {after}: {changes:?}");
        assert_eq!(self.dps.state().await, state, "after {after}");
    }
}

fn device(id: &str) -> iot_enroll::central::CentralDeviceId {
    id.parse().expect("an ID")
}

fn devices(plan: &Plan) -> BTreeMap<String, PlannedDevice> {
    let devices = plan.devices().expect("devices").map(|device| device.expect("a device"));
    devices.map(|device| (device.id.to_string(), device)).collect()
}

#[tokio::test]
async fn a_plan_lists_every_resource_and_changes_nothing() {
    let lab = Lab::start().await;
    let (before, count) = (lab.dps.state().await, lab.emulator().requests().len());
    let report = lab.make(&lab.request()).await.expect("a plan");
    let sent = lab.emulator().requests().split_off(count);
    assert!(!sent.iter().any(is_change), "{sent:?}");
    assert_eq!(lab.dps.state().await, before);

    let plan = Plan::read(lab.path()).expect("a plan");
    let found = devices(&plan);
    let found: Vec<_> = found.iter().map(|(id, it)| (id.as_str(), it.action, it.obstacle)).collect();
    assert_eq!(found, DEVICES);
    let header = plan.header();
    assert_eq!(header.application.id_scope.as_deref(), Some(lab.emulator().id_scope()));
    assert_eq!(header.instance.id_scope, lab.emulator().dps_id_scope());
    let counts = (header.counts.total, header.counts.covered, header.counts.enroll, header.counts.not_moved);
    assert_eq!(counts, (8, 2, 4, 2));
    assert_eq!((header.counts.disabled, header.counts.presumed), (1, 1));
    let groups: Vec<_> = header.groups.iter().map(|it| (it.id.as_str(), it.action, it.enabled, it.devices)).collect();
    assert_eq!(
        groups,
        [
            ("sas", GroupAction::Create, true, Some(2)),
            ("sas-off", GroupAction::Create, false, Some(0)),
            ("x509", GroupAction::Create, true, None),
        ]
    );
    let [certificate] = &header.certificates[..] else { panic!("{:?}", header.certificates) };
    assert_eq!(certificate.action, CertificateAction::Upload);
    assert_eq!(certificate.key_file.as_deref(), Some(&*lab.ca_directory().join("plantRoot_key.pem")));
    let reasons: Vec<_> = report.device_obstacles.iter().map(|it| (it.reason, it.devices.clone())).collect();
    assert_eq!(
        reasons,
        [
            (DeviceObstacle::NoCertificate, vec!["thumb-2".to_owned()]),
            (DeviceObstacle::Simulated, vec!["simulated-1".to_owned()])
        ]
    );
}

#[tokio::test]
async fn keys_are_in_a_plan_only_if_asked_for_and_only_its_owner_reads_it() {
    let lab = Lab::start().await;
    let secrets = ["sas 1", "sas 2", "sas-off 1", "own-1 1", "own-1 2"].map(key_text);
    let derived = derive_device_key(&key("sas 1"), &id("sym-off")).to_base64();
    for include in [false, true] {
        lab.make(&lab.request().include_keys(include)).await.expect("a plan");
        let text = fs::read_to_string(lab.path()).expect("a plan");
        for secret in secrets.iter().map(String::as_str).chain([derived.expose()]) {
            assert_eq!(text.contains(secret), include, "{secret}");
        }
        let mode = fs::metadata(lab.path()).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!lab.dps.path().join("plan.json.partial").exists());
        if include {
            // One with keys is not read if others can read it.
            fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o640)).expect("set");
            assert!(matches!(Plan::read(lab.path()), Err(PlanError::Read { .. })));
        }
        fs::remove_file(lab.path()).expect("removed");
    }
}

#[tokio::test]
async fn a_plan_is_not_overwritten_and_belongs_to_one_run() {
    let lab = Lab::start().await;
    let plan = lab.plan().await;
    let before = fs::read(lab.path()).expect("a plan");
    assert!(matches!(lab.make(&lab.request()).await, Err(MakePlanError::Plan(PlanError::Exists(_)))));
    assert_eq!(fs::read(lab.path()).expect("a plan"), before);
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(Plan::read(lab.path()).expect("without keys it is no secret").header().id, plan.header().id);
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o662)).expect("set");
    assert!(matches!(Plan::read(lab.path()), Err(PlanError::Read { .. })));
}

#[tokio::test]
async fn damaged_plans_are_refused_as_a_whole() {
    let lab = Lab::start().await;
    lab.plan().await;
    let text = fs::read_to_string(lab.path()).expect("a plan");
    let damaged = [
        text[..text.len() - 20].to_owned(),
        text.replace("\"version\": 1", "\"version\": 2"),
        text.replace("\"action\":\"enroll\"", "\"action\":\"launch\""),
        text.replace("\"devices\": [", "\"others\": ["),
        text.replace("\"instance\"", "\"target\""),
        format!("{text}{text}"),
        "[]".to_owned(),
        String::new(),
    ];
    for (number, text) in damaged.into_iter().enumerate() {
        fs::write(lab.path(), text).expect("written");
        let error = Plan::read(lab.path()).expect_err("damaged");
        assert!(
            matches!(error, PlanError::NotAPlan { .. } | PlanError::Version { version: 2, .. }),
            "{number}: {error}"
        );
    }
}

#[tokio::test]
async fn an_interrupted_plan_is_resumed_without_asking_for_a_device_again() {
    let lab = Lab::empty(Emulator::builder().assign_after(0)).await;
    lab.symmetric_group("sas", true).await;
    let ids: Vec<_> = (0..30).map(|number| format!("device-{number}")).collect();
    lab.create(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let asked = |lab: &Lab| {
        let requests = lab.emulator().requests();
        requests.iter().filter(|it| it.path.ends_with("/credentials") && it.status == Some(200)).count()
    };
    let mut runs = 0;
    let mut resumed = Vec::new();
    loop {
        // Every run fails at one of its requests.
        for _ in 0..7 {
            let skip = Fault::new(FaultKind::Delay(Duration::ZERO)).path_contains("/attestation");
            lab.emulator().inject(skip).expect("a fault");
        }
        let fault = Fault::new(FaultKind::Status { status: 403, retry_after: None }).path_contains("/attestation");
        lab.emulator().inject(fault).expect("a fault");
        let mut observer = |event| {
            if let PlanEvent::Resumed(count) = event {
                resumed.push(count);
            }
        };
        let made = make_plan(&lab.client(), &lab.dps.instance(), &lab.request(), &mut observer).await;
        lab.emulator().clear_faults();
        runs += 1;
        if made.is_ok() {
            break;
        }
        assert!(!lab.path().exists());
        assert!(runs < 30, "it makes progress");
    }
    assert!(runs > 1 && resumed.is_sorted() && resumed.last().is_some_and(|count| *count > 0), "{runs} {resumed:?}");
    assert_eq!(devices(&Plan::read(lab.path()).expect("a plan")).len(), 30);
    // Those that were under way when a run stopped are asked for again, and no others.
    assert!(asked(&lab) < 30 + runs * 30, "{}", asked(&lab));
}

#[tokio::test]
async fn what_an_interrupted_plan_knew_is_checked_against_the_list() {
    let lab = Lab::empty(Emulator::builder().assign_after(0)).await;
    lab.symmetric_group("sas", true).await;
    lab.create(&["gone-1", "stays-1", "off-1"]).await;
    for name in ["gone-1", "stays-1", "off-1"] {
        lab.connect(name, "sas").await;
    }
    // The directory for the plan does not exist any more when the devices are known: the run fails at its end.
    let request = lab.request();
    let run = |request: PlanRequest<'static>| {
        let lab = &lab;
        async move {
            let mut observer = |event| {
                if matches!(event, PlanEvent::Inspected { done: 3, of: 3 }) {
                    std::panic::resume_unwind(Box::new("killed"));
                }
            };
            let (client, instance) = (lab.client(), lab.dps.instance());
            tokio::spawn(async move { make_plan(&client, &instance, &request, &mut observer).await.map(drop) }).await
        }
    };
    assert!(run(request.clone()).await.is_err(), "killed");
    lab.client().devices().delete(&device("gone-1")).await.expect("deleted");
    lab.set_enabled("off-1", false).await;
    lab.create(&["new-1"]).await;
    let plan = lab.plan().await;
    let found = devices(&plan);
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), ["new-1", "off-1", "stays-1"]);
    assert_eq!((found["off-1"].enabled, found["off-1"].action), (false, DeviceAction::Enroll));
    assert_eq!(found["stays-1"].action, DeviceAction::Covered);
}

#[tokio::test]
async fn a_changed_group_key_makes_an_interrupted_plan_start_over() {
    let lab = Lab::empty(Emulator::builder().assign_after(0)).await;
    lab.symmetric_group("sas", true).await;
    lab.create(&["a-1"]).await;
    let fault = Fault::new(FaultKind::Status { status: 403, retry_after: None }).path_contains("/attestation");
    lab.emulator().inject(fault).expect("a fault");
    lab.make(&lab.request()).await.expect_err("refused");
    lab.emulator().clear_faults();
    let update = EnrollmentGroupUpdate::default().attestation(Some(NewAttestation::SymmetricKey(Some(keys("new")))));
    lab.client().enrollment_groups().update(&"sas".parse().expect("an ID"), &update).await.expect("updated");
    let mut events = Vec::new();
    let made = make_plan(&lab.client(), &lab.dps.instance(), &lab.request(), &mut |event| events.push(event)).await;
    made.expect("a plan");
    assert!(events.contains(&PlanEvent::StartedOver), "{events:?}");
}

#[tokio::test]
async fn devices_connect_at_the_instance_with_their_credentials_unchanged() {
    let lab = Lab::start().await;
    let plan = lab.plan().await;
    let report = lab.apply(&plan).await;
    assert_eq!((report.created, report.failed), (7, 0), "{report:?}");
    lab.is_complete(&plan, "one run").await;
    let scope = lab.emulator().dps_id_scope();
    let derived = |name| Credential::from(derive_device_key(&key("sas 2"), &id(name)));
    assert_eq!(lab.register(scope, "sym-1", &derived("sym-1")).await.as_deref(), Ok("sym-1"));
    assert_eq!(lab.register(scope, "own-1", &key("own-1 1").into()).await.as_deref(), Ok("own-1"));
    // The device is disabled, and its group would admit it.
    lab.register(scope, "sym-off", &derived("sym-off")).await.expect_err("disabled");
}

#[tokio::test]
async fn killed_at_any_point_it_is_finished_by_the_next_run() {
    for number in 0.. {
        let lab = Lab::start().await;
        let plan = lab.plan().await;
        let killed = {
            let (client, instance, request) = (lab.client(), lab.dps.instance(), ApplyRequest::new(&plan));
            let observer = &mut |_: iot_enroll::workflow::WorkflowEvent<'_>| ();
            let mut running = pin!(apply_plan(&plan, Some(&client), &instance, &request, observer));
            let mut left = number;
            poll_fn(|context| match running.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(false),
                Poll::Pending if left == 0 => Poll::Ready(true),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        if !killed {
            assert!(number > 20, "a run waits often");
            return;
        }
        let report = lab.apply(&plan).await;
        assert_eq!((report.failed, report.remaining), (0, 0), "after {number} waits: {report:?}");
        lab.is_complete(&plan, &format!("{number} waits")).await;
    }
}

#[tokio::test]
async fn a_lost_answer_to_any_change_is_recovered() {
    for (method, number) in ["PUT", "POST"].into_iter().flat_map(|method| (0..8).map(move |number| (method, number))) {
        let lab = Lab::start().await;
        let plan = lab.plan().await;
        let inject = |fault: Fault| lab.emulator().inject(fault.method(method)).expect("a fault");
        for _ in 0..number {
            inject(Fault::new(FaultKind::Delay(Duration::ZERO)));
        }
        inject(Fault::new(FaultKind::CloseAfterHandling));
        let report = lab.apply(&plan).await;
        lab.emulator().clear_faults();
        let count = report.created + report.present + report.failed + report.remaining;
        assert_eq!(count, 7, "{method} {number}: {report:?}");
        lab.apply(&plan).await;
        lab.is_complete(&plan, &format!("a lost answer to {method} number {number}")).await;
    }
}

#[tokio::test]
async fn what_changed_since_the_plan_is_left_out_and_the_rest_is_done() {
    let lab = Lab::start().await;
    let other = new_root("Other Root");
    let plan = lab.plan().await;
    let update = EnrollmentGroupUpdate::default().attestation(Some(NewAttestation::SymmetricKey(Some(keys("new")))));
    lab.client().enrollment_groups().update(&"sas".parse().expect("an ID"), &update).await.expect("updated");
    lab.set_ca("x509", CertificateEntry::Secondary, &other.certificate, Possession::Attested).await;
    lab.symmetric_group("sas-new", true).await;
    lab.attest("own-1", NewDeviceAttestation::SymmetricKey(Some(keys("own-1 new")))).await;
    lab.set_enabled("x509-1", false).await;
    lab.client().devices().delete(&device("thumb-1")).await.expect("deleted");
    lab.create(&["new-1", "new-2"]).await;

    let report = lab.apply(&plan).await;
    let failures: BTreeMap<_, _> = report.failures.iter().map(|it| (it.id.as_str(), it.message.as_str())).collect();
    let parts = [
        ("sas", "its keys changed"),
        ("x509", "its secondary certificate changed"),
        ("sas-new", "make the plan again"),
        ("own-1", "its keys changed"),
        ("x509-1", "is disabled at the application now"),
        ("thumb-1", "does not have it any more"),
    ];
    for (id, part) in parts {
        assert!(failures.get(id).is_some_and(|message| message.contains(part)), "{id}: {failures:?}");
    }
    // The keys of this one are derived from those of the group, which have changed, so it has none of the group any more.
    assert!(failures.contains_key("sym-off") && failures.len() == 7, "{failures:?}");
    assert_eq!((report.created, report.new_devices), (2, 2), "{report:?}");
    let groups: Vec<_> = lab.dps.groups().await.into_iter().map(|it| it.id.to_string()).collect();
    assert_eq!(groups, ["sas-off"]);
    assert!(lab.dps.certificates().await.is_empty());
}

#[tokio::test]
async fn resources_of_the_instance_are_not_overwritten() {
    let lab = Lab::start().await;
    let client = lab.dps.instance();
    let (groups, enrollments) = (client.client().enrollment_groups(), client.client().individual_enrollments());
    let other = service::NewAttestation::SymmetricKey(Some(keys("theirs")));
    let group = service::NewEnrollmentGroup::new(other.clone());
    groups.create(&"SAS".parse().expect("an ID"), &group).await.expect("created");
    let enrollment = NewIndividualEnrollment::new(other);
    enrollments.create(&"own-1".parse().expect("an ID"), &enrollment).await.expect("created");
    enrollments.create(&"tpm-1".parse().expect("an ID"), &enrollment).await.expect("created");
    enrollments.create(&"sym-1".parse().expect("an ID"), &enrollment).await.expect("created");
    let plan = lab.plan().await;
    let found = devices(&plan);
    // Of another kind, which the list tells.
    assert_eq!(found["tpm-1"].obstacle, Some(DeviceObstacle::OtherEnrollment));
    // It takes precedence over the group.
    assert_eq!(found["sym-1"].obstacle, Some(DeviceObstacle::OtherEnrollment));
    assert_eq!(plan.header().counts.present, 1);
    let before = lab.dps.state().await;
    let report = lab.apply(&plan).await;
    let failures: Vec<_> = report.failures.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(failures, ["sas", "own-1"], "{report:?}");
    assert!(report.failures.iter().all(|it| it.message.contains("other keys")), "{report:?}");
    let after = lab.dps.state().await;
    assert_eq!(before[0][0], after[0][0], "the group");
}

#[tokio::test]
async fn certificates_that_are_there_are_used_under_any_name_and_completed() {
    for verified in [true, false] {
        let lab = Lab::start().await;
        let name = lab.dps.upload("their-name", &lab.root.certificate, verified).await;
        if verified {
            // Then neither file nor key is needed.
            fs::remove_file(lab.ca_directory().join("plantRoot_cert.pem")).expect("removed");
            fs::remove_file(lab.ca_directory().join("plantRoot_fullchain.pem")).expect("removed");
            fs::remove_file(lab.ca_directory().join("plantRoot_key.pem")).expect("removed");
        }
        let plan = lab.plan().await;
        let expected = if verified { CertificateAction::Present } else { CertificateAction::Verify };
        assert_eq!(plan.header().certificates[0].action, expected);
        let report = lab.apply(&plan).await;
        assert_eq!(report.failed, 0, "{report:?}");
        let groups = lab.dps.groups().await;
        let group = groups.iter().find(|it| it.id.as_str() == "x509").expect("the group");
        assert_eq!(group.ca_references(), Some(&CaReferences::primary(name)));
        let certificates = lab.dps.certificates().await;
        assert!(certificates.len() == 1 && certificates[0].is_verified);
    }
}

#[tokio::test]
async fn a_ca_without_its_key_is_uploaded_as_verified_only_if_allowed() {
    let lab = Lab::start().await;
    fs::remove_file(lab.ca_directory().join("plantRoot_key.pem")).expect("removed");
    let plan = lab.plan().await;
    assert_eq!(plan.header().certificates[0].action, CertificateAction::Attest);
    let report = lab.apply(&plan).await;
    assert_eq!(report.failures.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["x509"], "{report:?}");
    assert!(lab.dps.certificates().await.is_empty());
    let report = lab.apply_with(&plan, &ApplyRequest::new(&plan).skip_proof(true)).await;
    assert_eq!(report.failed, 0, "{report:?}");
    lab.is_complete(&plan, "an attested upload").await;
}

#[tokio::test]
async fn obstacles_of_groups_and_certificates_are_found() {
    let lab = Lab::empty(Emulator::builder()).await;
    let unknown = new_root("Unknown Root");
    lab.x509_group("a", &lab.root.certificate).await;
    lab.x509_group("b", &unknown.certificate).await;
    lab.x509_group("c", &new_root("Third").certificate).await;
    lab.set_ca("c", CertificateEntry::Primary, &lab.root.certificate, Possession::ToBeProven).await;
    let name = "x".repeat(129);
    lab.symmetric_group(&name, true).await;
    for number in 0..25 {
        lab.dps.upload(&format!("taken-{number}"), &new_root("taken").certificate, true).await;
    }
    let report = lab.make(&lab.request()).await.expect("a plan");
    let obstacles: Vec<_> = report.header.certificates.iter().map(|it| it.obstacle.clone()).collect();
    assert_eq!(obstacles, [Some(CertificateObstacle::TooMany), Some(CertificateObstacle::NoFile)]);
    let of = |id: &str| {
        let group = report.header.groups.iter().find(|it| it.id.as_str() == id).expect("the group");
        assert_eq!(group.action, GroupAction::None, "{id}");
        group.obstacles.clone()
    };
    let thumbprint = unknown.certificate.sha1_thumbprint();
    let certificate = GroupObstacle::Certificate { sha1_thumbprint: thumbprint };
    assert_eq!(of("b"), [certificate, GroupObstacle::NoCertificate]);
    let root = lab.root.certificate.sha1_thumbprint();
    assert_eq!(of("c"), [GroupObstacle::NotVerified { sha1_thumbprint: root }, GroupObstacle::NoCertificate]);
    assert_eq!(of(&name), [GroupObstacle::IdRefused]);
}

#[tokio::test]
async fn both_cas_of_a_group_are_moved_and_shared_ones_are_named() {
    let lab = Lab::empty(Emulator::builder()).await;
    let next = new_root("Next Root");
    write(&lab.ca_directory(), "nextRoot", &next);
    lab.x509_group("a", &lab.root.certificate).await;
    lab.set_ca("a", CertificateEntry::Secondary, &next.certificate, Possession::Attested).await;
    lab.dps.upload("theirs", &next.certificate, true).await;
    let plan = lab.plan().await;
    let report = lab.apply(&plan).await;
    assert_eq!((report.created, report.failed), (1, 0), "{report:?}");
    let again = lab.apply(&plan).await;
    assert_eq!((again.present, again.failed), (1, 0), "{again:?}");
    let groups = lab.dps.groups().await;
    let references = groups[0].ca_references().expect("references");
    assert!(references.primary.is_some(), "{references:?}");
    assert_eq!(references.secondary.as_ref().map(DpsCertificateName::as_str), Some("theirs"));

    // Another group of the instance has the CA of this one.
    let other = Lab::empty(Emulator::builder()).await;
    other.x509_group("b", &other.root.certificate).await;
    let name = other.dps.upload("theirs", &other.root.certificate, true).await;
    other.dps.create_group("their-group", &name).await;
    let plan = other.plan().await;
    let shared = GroupObstacle::SharedCertificate {
        sha1_thumbprint: other.root.certificate.sha1_thumbprint(),
        other: "their-group".to_owned(),
    };
    assert_eq!(plan.header().groups[0].obstacles, [shared, GroupObstacle::NoCertificate]);
}

#[tokio::test]
async fn a_disabled_device_of_an_x509_group_is_blocked_by_its_certificate() {
    let lab = Lab::empty(Emulator::builder().assign_after(0)).await;
    lab.x509_group("x509", &lab.root.certificate).await;
    lab.create(&["leaf-1", "leaf-2"]).await;
    for name in ["leaf-1", "leaf-2"] {
        lab.set_enabled(name, false).await;
    }
    let issuer = root("any");
    write(&lab.ca_directory(), "leaf1", &issue("leaf-1", &issuer));
    let plan = lab.plan().await;
    let found = devices(&plan);
    assert_eq!(found["leaf-1"].action, DeviceAction::Enroll);
    assert_eq!(found["leaf-2"].obstacle, Some(DeviceObstacle::DisabledWithoutCertificate));
    let report = lab.apply(&plan).await;
    assert_eq!((report.created, report.failed), (2, 0), "{report:?}");
    let enrollments = lab.dps.instance().client().individual_enrollments();
    assert!(!enrollments.get(&"leaf-1".parse().expect("an ID")).await.expect("an enrollment").is_enabled());
    let _ = credential(&issue("leaf-1", &issuer));
}

#[tokio::test]
async fn many_devices_are_enrolled_ten_with_a_call_and_a_missing_one_again() {
    let lab = Lab::empty(Emulator::builder()).await;
    let ids: Vec<_> = (0..45).map(|number| format!("own-{number}")).collect();
    for id in &ids {
        lab.create(&[id]).await;
        lab.attest(id, NewDeviceAttestation::SymmetricKey(Some(keys(id)))).await;
    }
    let plan = lab.plan().await;
    let posts = |lab: &Lab| {
        let requests = lab.emulator().requests();
        requests.iter().filter(|it| it.method == "POST" && it.path == "/enrollments").count()
    };
    let report = lab.apply(&plan).await;
    assert_eq!((report.created, report.failed, posts(&lab)), (45, 0, 5), "{report:?}");
    // One was removed at the instance since: the results file does not hide that.
    let gone = "own-7".parse().expect("an ID");
    lab.dps.instance().client().individual_enrollments().delete(&gone, None).await.expect("deleted");
    let report = lab.apply(&plan).await;
    assert_eq!((report.created, report.present, report.failed), (1, 44, 0), "{report:?}");
}

#[tokio::test]
async fn disabled_devices_are_blocked_before_a_group_admits_them() {
    let lab = Lab::start().await;
    let plan = lab.plan().await;
    let count = lab.emulator().requests().len();
    lab.apply(&plan).await;
    let sent = lab.emulator().requests().split_off(count);
    let changed: Vec<_> = sent.iter().filter(|it| is_change(it)).map(|it| it.path.to_ascii_lowercase()).collect();
    let first = |part: &str| changed.iter().position(|path| path.starts_with(part)).expect("a change");
    assert!(first("/enrollments") < first("/enrollmentgroups/"), "{changed:?}");

    // One that cannot be blocked holds the groups back that may admit it.
    let lab = Lab::empty(Emulator::builder()).await;
    lab.x509_group("x509", &lab.root.certificate).await;
    lab.create(&["leaf-1"]).await;
    lab.set_enabled("leaf-1", false).await;
    write(&lab.ca_directory(), "leaf1", &issue("leaf-1", &root("any")));
    let plan = lab.plan().await;
    assert_eq!(devices(&plan)["leaf-1"].action, DeviceAction::Enroll);
    for file in fs::read_dir(lab.ca_directory()).expect("a directory").map(|file| file.expect("a file")) {
        if file.file_name().to_string_lossy().starts_with("leaf1") {
            fs::remove_file(file.path()).expect("removed");
        }
    }
    let report = lab.apply(&plan).await;
    let failures: Vec<_> = report.failures.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(failures, ["leaf-1", "x509"], "{report:?}");
    assert!(report.failures[1].message.contains("the disabled device leaf-1"), "{report:?}");
    assert!(lab.dps.groups().await.is_empty());
}

#[tokio::test]
async fn a_disabled_device_that_has_registered_before_is_reported_each_time() {
    let lab = Lab::start().await;
    let groups = lab.dps.instance().client().enrollment_groups();
    let group = service::NewEnrollmentGroup::new(service::NewAttestation::SymmetricKey(Some(keys("sas"))));
    groups.create(&"sas".parse().expect("an ID"), &group).await.expect("created");
    let credential = derive_device_key(&key("sas 1"), &id("sym-off")).into();
    lab.register(lab.emulator().dps_id_scope(), "sym-off", &credential).await.expect("registered");
    let plan = lab.plan().await;
    for run in 0..2 {
        let report = lab.apply(&plan).await;
        let [failure] = &report.failures[..] else { panic!("{run}: {report:?}") };
        assert!(failure.id == "sym-off" && failure.message.contains("has registered before"), "{run}: {failure:?}");
    }
    let enrollments = lab.dps.instance().client().individual_enrollments();
    assert!(!enrollments.get(&"sym-off".parse().expect("an ID")).await.expect("an enrollment").is_enabled());
    let records = lab.dps.instance().client().registrations();
    records.delete(&"sym-off".parse().expect("an ID"), None).await.expect("deleted");
    assert_eq!(lab.apply(&plan).await.failed, 0);
}

#[tokio::test]
async fn a_later_run_compares_what_an_earlier_one_created() {
    let lab = Lab::start().await;
    let plan = lab.plan().await;
    assert_eq!(lab.apply(&plan).await.failed, 0);
    lab.set_enabled("own-1", false).await;
    lab.client().devices().delete(&device("thumb-1")).await.expect("deleted");
    let enrollments = lab.dps.instance().client().individual_enrollments();
    for (name, enrollment) in [
        ("sym-off", NewIndividualEnrollment::new(service::NewAttestation::SymmetricKey(Some(keys("theirs"))))),
        (
            "tpm-1",
            NewIndividualEnrollment::new(service::NewAttestation::Tpm { endorsement_key: "RUZHSA==".to_owned() }),
        ),
    ] {
        let id = name.parse().expect("an ID");
        enrollments.delete(&id, None).await.expect("deleted");
        enrollments.create(&id, &enrollment).await.expect("created");
    }
    let report = lab.apply(&plan).await;
    let failures: BTreeMap<_, _> = report.failures.iter().map(|it| (it.id.as_str(), it.message.as_str())).collect();
    for (id, part) in [
        ("own-1", "is disabled at the application now"),
        ("sym-off", "with other keys"),
        ("thumb-1", "does not have it any more"),
        ("tpm-1", "with another endorsement key"),
    ] {
        assert!(failures.get(id).is_some_and(|message| message.contains(part)), "{id}: {failures:?}");
    }
    assert_eq!((report.failed, report.present), (4, 3), "{report:?}");
    let rows = fs::read_to_string(&report.results).expect("the results");
    for row in ["device,own-1,created,", "device,own-1,failed,", "group,sas,created,"] {
        assert_eq!(rows.matches(row).count(), 1, "{row} in {rows}");
    }
}

#[tokio::test]
async fn devices_of_a_disabled_group_are_not_counted_as_admitted() {
    let lab = Lab::start().await;
    lab.symmetric_group("sas", false).await;
    let plan = lab.plan().await;
    let found = devices(&plan);
    assert_eq!(found["sym-1"].obstacle, Some(DeviceObstacle::GroupDisabled));
    assert_eq!(found["x509-1"].action, DeviceAction::Covered);
    // It stays blocked when somebody enables the group.
    assert_eq!(found["sym-off"].action, DeviceAction::Enroll);
    assert_eq!((plan.header().counts.covered, plan.header().counts.not_moved), (1, 3));
}

#[tokio::test]
async fn group_ids_that_differ_in_case_name_the_one_that_is_moved() {
    let lab = Lab::empty(Emulator::builder()).await;
    for name in ["m", "M"] {
        lab.symmetric_group(name, true).await;
    }
    let plan = lab.plan().await;
    let groups = &plan.header().groups;
    assert_eq!((groups[0].action, groups[1].action), (GroupAction::Create, GroupAction::None));
    let message = groups[1].obstacles[0].to_string();
    assert!(message.contains(&format!("the first, {}, is moved", groups[0].id)), "{message}");
}

#[tokio::test]
async fn keys_in_the_plan_are_used_without_the_application() {
    let lab = Lab::start().await;
    lab.make(&lab.request().include_keys(true)).await.expect("a plan");
    let plan = Plan::read(lab.path()).expect("a plan");
    let count = lab.emulator().requests().len();
    let applied = apply_plan(&plan, None, &lab.dps.instance(), &ApplyRequest::new(&plan), &mut |_| ()).await;
    let report = applied.expect("carried out");
    assert_eq!((report.created, report.failed), (7, 0), "{report:?}");
    let sent = lab.emulator().requests().split_off(count);
    assert!(!sent.iter().any(|it| it.path.starts_with("/api/")), "{sent:?}");
    lab.is_complete(&plan, "without the application").await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing_anywhere() {
    let lab = Lab::start().await;
    let plan = lab.plan().await;
    let (before, count) = (lab.dps.state().await, lab.emulator().requests().len());
    let report = lab.apply_with(&plan, &ApplyRequest::new(&plan).dry_run(true)).await;
    assert_eq!((report.planned, report.created, report.failed), (7, 0, 0), "{report:?}");
    let sent = lab.emulator().requests().split_off(count);
    assert!(!sent.iter().any(is_change), "{sent:?}");
    assert_eq!(lab.dps.state().await, before);
    assert!(!report.results.exists());
    // The application is as it was, too: its group has the key that it had.
    let group = lab.client().enrollment_groups().get(&"sas".parse().expect("an ID")).await.expect("the group");
    let Attestation::SymmetricKey(Some(found)) = group.attestation else { panic!("keys") };
    assert_eq!(found.primary_key.expose(), key_text("sas 1"));
}
