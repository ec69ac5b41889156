//! Every fault of the emulator against every call of the client: each ends in success or in a clear error, and the service
//! is then in the state that this means.

use std::{
    net::TcpListener,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use crate::support::clock::ManualClock;
use iot_enroll::{
    central::{
        Authorization, CertificateEntry, Change, Client, DeploymentManifestUpdate, DeviceAttestationUpdate,
        DeviceGroupUpdate, DeviceQuery, DeviceType, DeviceUpdate, Endpoint, EnrollmentGroupUpdate, Error, Etag,
        IdError, NetworkFailure, NewDeploymentManifest, NewDevice, NewDeviceAttestation, NewDeviceGroup,
        NewEnrollmentGroup, Possession, RetryPolicy, Top,
    },
    certificate::{Certificate, CertificateAuthority, CommonName, IssueOptions, IssuedCertificate},
    emulator::{Clock, Emulator, Fault, FaultKind},
};
use serde_json::{Map, Value, json};

const SECOND: Duration = Duration::from_secs(1);
const PRIMARY: CertificateEntry = CertificateEntry::Primary;
const QUERY: &str = "SELECT * FROM devices WHERE $enabled = true";

fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().expect("an id")
}

fn content(version: u32) -> Map<String, Value> {
    Map::from_iter([("modulesContent".to_owned(), json!({ "version": version }))])
}

static AUTHORITY: LazyLock<CertificateAuthority> =
    LazyLock::new(|| root("root").into_authority(begin().into()).expect("an authority"));

static DEVICE: LazyLock<Certificate> =
    LazyLock::new(|| AUTHORITY.issue_device(&"d".parse().expect("an id"), &options()).expect("issued").certificate);

static OTHER: LazyLock<Certificate> = LazyLock::new(|| root("other").certificate);

/// When all of this takes place, by the clocks of both sides.
fn begin() -> SystemTime {
    SystemTime::UNIX_EPOCH + ManualClock::BEGIN
}

fn options() -> IssueOptions {
    IssueOptions::new().at(begin().into())
}

fn root(name: &str) -> IssuedCertificate {
    CertificateAuthority::new_root(&CommonName::new(name).expect("a name"), &options()).expect("a root")
}

fn proof(code: &str) -> Certificate {
    AUTHORITY.issue_verification(&CommonName::new(code).expect("a name"), &options()).expect("issued").certificate
}

/// An application with one of everything, all of it with the id `d`.
struct World {
    emulator: Emulator,
    observer: Client,
    given: Given,
}

/// What calls need of it.
#[derive(Clone, Default)]
struct Given {
    device: Option<Etag>,
    query: Option<Etag>,
    manifest: Option<Etag>,
    group: Option<Etag>,
    entry: Option<Etag>,
    proof: Option<Certificate>,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::frozen(begin());
        let emulator = Emulator::builder().clock(clock).start().await.expect("a free loopback port");
        let observer = client(&emulator, &ManualClock::new(), RetryPolicy::none(), Duration::from_secs(60));
        let mut given = Given::default();
        for collection in ["devices", "deviceGroups", "deploymentManifests", "enrollmentGroups"] {
            set_up(&observer, collection, &mut given).await;
        }
        Self { emulator, observer, given }
    }

    /// Makes the call, without faults afterwards.
    async fn run(&self, call: &Call, clock: &Arc<ManualClock>, kind: &FaultKind) -> (Result<Value, Error>, End) {
        let (retry, timeout) = match kind {
            // Out of time is out of real time, of which little is spent.
            FaultKind::Delay(_) => (RetryPolicy::new().retries(1), Duration::from_millis(500)),
            _ => (RetryPolicy::default(), 60 * SECOND),
        };
        let result = (call.run)(client(&self.emulator, clock, retry, timeout), self.given.clone()).await;
        self.emulator.clear_faults();
        let end = End::of(&result);
        match result {
            Ok(Value::String(code)) if call.makes_code() => {
                let groups = self.observer.enrollment_groups();
                groups.verify_certificate(&id("d"), PRIMARY, &proof(&code)).await.expect("the code proves");
                (Ok(Value::Null), end)
            }
            other => (other.map(without_etags), end),
        }
    }

    /// All that the service holds, etags included.
    async fn state(&self) -> Value {
        let client = &self.observer;
        json!([
            value(client.devices().list(&DeviceQuery::default()).try_collect::<Vec<_>>().await).expect("devices"),
            value(client.devices().find_attestation(&id("d")).await).expect("its attestation"),
            value(client.device_groups().list().try_collect::<Vec<_>>().await).expect("device groups"),
            value(client.deployment_manifests().list().try_collect::<Vec<_>>().await).expect("manifests"),
            value(client.enrollment_groups().list().try_collect::<Vec<_>>().await).expect("enrollment groups"),
            self.emulator.assigned_manifest("d"),
        ])
    }
}

fn client(emulator: &Emulator, clock: &Arc<ManualClock>, retry: RetryPolicy, timeout: Duration) -> Client {
    Client::builder(emulator.endpoint().parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(emulator.token().to_owned()).expect("a token"))
        .clock(Arc::clone(clock) as Arc<_>)
        .retry(retry)
        .timeout(timeout)
        .build()
        .expect("a client")
}

/// Puts a collection of the application into its initial state.
async fn set_up(client: &Client, collection: &str, given: &mut Given) {
    let (devices, queries) = (client.devices(), client.device_groups());
    let (manifests, groups) = (client.deployment_manifests(), client.enrollment_groups());
    let absent = |error: Error| assert!(error.is_not_found(), "{error}");
    let both = ["d", "new"];
    match collection {
        "devices" => {
            for it in both {
                devices.delete(&id(it)).await.unwrap_or_else(absent);
            }
            let device = NewDevice::named("Before").device_types(vec![DeviceType::IotEdge]);
            given.device = devices.replace(&id("d"), &device).await.expect("created").etag;
            devices.replace(&id("e"), &NewDevice::named("On the second page")).await.expect("created");
            devices.set_attestation(&id("d"), &NewDeviceAttestation::x509(OTHER.clone())).await.expect("set");
        }
        "deviceGroups" => {
            for it in both {
                queries.delete(&id(it)).await.unwrap_or_else(absent);
            }
            given.query = queries.replace(&id("d"), &NewDeviceGroup::new("Before", QUERY)).await.expect("created").etag;
        }
        "deploymentManifests" => {
            for it in both {
                manifests.delete(&id(it)).await.unwrap_or_else(absent);
            }
            let manifest = NewDeploymentManifest::new("Before", content(1));
            given.manifest = manifests.replace(&id("d"), &manifest).await.expect("created").etag;
        }
        "enrollmentGroups" => {
            for it in both {
                groups.delete(&id(it)).await.unwrap_or_else(absent);
            }
            let group = NewEnrollmentGroup::x509("Before");
            given.group = groups.replace(&id("d"), &group).await.expect("created").etag;
            let ca = AUTHORITY.certificate();
            let entry = groups.set_certificate(&id("d"), PRIMARY, ca, Possession::ToBeProven, None).await.expect("set");
            given.entry = entry.etag;
            let code = groups.generate_verification_code(&id("d"), PRIMARY).await.expect("a code").code;
            given.proof = Some(proof(&code));
        }
        other => panic!("{other}"),
    }
}

/// Without what differs from one run to the next.
fn without_etags(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("etag");
            fields.values_mut().for_each(|field| *field = without_etags(field.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_etags(value.take())),
        _ => {}
    }
    value
}

fn value(result: Result<impl serde::Serialize, Error>) -> Result<Value, Error> {
    result.map(|value| serde_json::to_value(value).expect("JSON"))
}

type Running = Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;

/// A call of the client.
struct Call {
    /// Method and path below `/api`, as its errors name it.
    name: &'static str,
    /// How many requests of it go well before the one that a fault strikes.
    after: usize,
    /// It finds nothing where there is nothing.
    finds: bool,
    /// An etag in it has the service refuse it the second time.
    guarded: bool,
    /// It is the proof of possession, which is not repeated blindly.
    proves: bool,
    run: fn(Client, Given) -> Running,
}

impl Call {
    fn after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    fn finding(self) -> Self {
        Self { finds: true, ..self }
    }

    fn guarded(self) -> Self {
        Self { guarded: true, ..self }
    }

    fn proving(self) -> Self {
        Self { proves: true, ..self }
    }

    fn collection(&self) -> &'static str {
        self.name.split([' ', '/']).nth(1).expect("a path")
    }

    fn method(&self) -> &'static str {
        self.name.split(' ').next().expect("a method")
    }

    /// Whether it gives a verification code: what is then proved with it is the change.
    fn makes_code(&self) -> bool {
        self.name.ends_with("/generateVerificationCode")
    }

    fn changes(&self) -> bool {
        self.method() != "GET"
    }
}

macro_rules! call {
    ($name:literal, |$client:ident, $given:ident| $result:expr) => {
        Call {
            name: $name,
            after: 0,
            finds: false,
            guarded: false,
            proves: false,
            run: |$client, $given| Box::pin(async move { value($result) }),
        }
    };
    ($name:literal, |$client:ident| $result:expr) => {
        call!($name, |$client, _given| $result)
    };
}

fn device_calls() -> Vec<Call> {
    let all = call!("GET devices", |client| client.devices().list(&everything()).try_collect::<Vec<_>>().await);
    vec![
        call!("GET devices", |client| client.devices().list(&everything()).try_collect::<Vec<_>>().await),
        all.after(1),
        call!("GET devices/d", |client| client.devices().get(&id("d")).await),
        call!("GET devices/d", |client| client.devices().find(&id("d")).await).finding(),
        call!("PUT devices/new", |client| client.devices().replace(&id("new"), &NewDevice::named("After")).await),
        call!("PUT devices/d", |client, given| {
            let device = NewDevice::named("After").etag(given.device);
            client.devices().replace(&id("d"), &device).await
        })
        .guarded(),
        call!("PATCH devices/d", |client| client.devices().update(&id("d"), &rename(None)).await),
        call!("PATCH devices/d", |client, given| client.devices().update(&id("d"), &rename(given.device)).await)
            .guarded(),
        call!("DELETE devices/d", |client| client.devices().delete(&id("d")).await),
        call!("GET devices/d/credentials", |client| {
            client.devices().credentials(&id("d")).await.map(|found| (found.id_scope, found.x509))
        }),
        call!("GET devices/d/attestation", |client| client.devices().attestation(&id("d")).await),
        call!("GET devices/d/attestation", |client| client.devices().find_attestation(&id("d")).await).finding(),
        call!("PUT devices/d/attestation", |client| {
            client.devices().set_attestation(&id("d"), &NewDeviceAttestation::x509(DEVICE.clone())).await
        }),
        call!("PUT devices/d/attestation", |client| {
            client.devices().set_attestation(&id("d"), &NewDeviceAttestation::SymmetricKey(None)).await
        }),
        call!("PATCH devices/d/attestation", |client| {
            let secondary = Change::Set(Box::new(DEVICE.clone()));
            let update = DeviceAttestationUpdate::X509 { primary: None, secondary };
            client.devices().update_attestation(&id("d"), &update).await
        }),
        call!("DELETE devices/d/attestation", |client| client.devices().delete_attestation(&id("d")).await),
    ]
}

fn everything() -> DeviceQuery {
    DeviceQuery::new().top(Top::new(1).expect("a size"))
}

fn rename(etag: Option<Etag>) -> DeviceUpdate {
    DeviceUpdate::default().display_name(Change::Set("After".to_owned())).etag(etag)
}

fn device_group_calls() -> Vec<Call> {
    fn new(etag: Option<Etag>) -> NewDeviceGroup {
        NewDeviceGroup::new("After", QUERY).etag(etag)
    }
    fn rename(etag: Option<Etag>) -> DeviceGroupUpdate {
        DeviceGroupUpdate::default().display_name("After".to_owned()).etag(etag)
    }
    vec![
        call!("GET deviceGroups", |client| client.device_groups().list().try_collect::<Vec<_>>().await),
        call!("GET deviceGroups/d", |client| client.device_groups().get(&id("d")).await),
        call!("GET deviceGroups/d", |client| client.device_groups().find(&id("d")).await).finding(),
        call!("PUT deviceGroups/new", |client| client.device_groups().replace(&id("new"), &new(None)).await),
        call!("PUT deviceGroups/d", |client, given| client.device_groups().replace(&id("d"), &new(given.query)).await)
            .guarded(),
        call!("PATCH deviceGroups/d", |client| client.device_groups().update(&id("d"), &rename(None)).await),
        call!("PATCH deviceGroups/d", |client, given| client
            .device_groups()
            .update(&id("d"), &rename(given.query))
            .await)
        .guarded(),
        call!("DELETE deviceGroups/d", |client| client.device_groups().delete(&id("d")).await),
        call!("GET deviceGroups/d/devices", |client| client
            .device_groups()
            .devices(&id("d"))
            .try_collect::<Vec<_>>()
            .await),
    ]
}

fn deployment_manifest_calls() -> Vec<Call> {
    fn new(etag: Option<Etag>) -> NewDeploymentManifest {
        NewDeploymentManifest::new("After", content(2)).etag(etag)
    }
    fn replace(etag: Option<Etag>) -> DeploymentManifestUpdate {
        DeploymentManifestUpdate::default().data(content(2)).etag(etag)
    }
    vec![
        call!("GET deploymentManifests", |client| client.deployment_manifests().list().try_collect::<Vec<_>>().await),
        call!("GET deploymentManifests/d", |client| client.deployment_manifests().get(&id("d")).await),
        call!("GET deploymentManifests/d", |client| client.deployment_manifests().find(&id("d")).await).finding(),
        call!("PUT deploymentManifests/new", |client| client
            .deployment_manifests()
            .replace(&id("new"), &new(None))
            .await),
        call!("PUT deploymentManifests/d", |client, given| client
            .deployment_manifests()
            .replace(&id("d"), &new(given.manifest))
            .await)
        .guarded(),
        call!("PATCH deploymentManifests/d", |client| client
            .deployment_manifests()
            .update(&id("d"), &replace(None))
            .await),
        call!("PATCH deploymentManifests/d", |client, given| client
            .deployment_manifests()
            .update(&id("d"), &replace(given.manifest))
            .await)
        .guarded(),
        call!("DELETE deploymentManifests/d", |client| client.deployment_manifests().delete(&id("d")).await),
        call!("POST devices/d/applyDeploymentManifest", |client| client
            .deployment_manifests()
            .assign(&id("d"), &content(2))
            .await),
    ]
}

fn enrollment_group_calls() -> Vec<Call> {
    fn rename(etag: Option<Etag>) -> EnrollmentGroupUpdate {
        EnrollmentGroupUpdate::default().display_name("After".to_owned()).etag(etag)
    }
    vec![
        call!("GET enrollmentGroups", |client| client.enrollment_groups().list().try_collect::<Vec<_>>().await),
        call!("GET enrollmentGroups/d", |client| client.enrollment_groups().get(&id("d")).await),
        call!("GET enrollmentGroups/d", |client| client.enrollment_groups().find(&id("d")).await).finding(),
        call!("PUT enrollmentGroups/new", |client| client
            .enrollment_groups()
            .replace(&id("new"), &NewEnrollmentGroup::x509("After"))
            .await),
        call!("PATCH enrollmentGroups/d", |client| client.enrollment_groups().update(&id("d"), &rename(None)).await),
        call!("PATCH enrollmentGroups/d", |client, given| client
            .enrollment_groups()
            .update(&id("d"), &rename(given.group))
            .await)
        .guarded(),
        call!("DELETE enrollmentGroups/d", |client| client.enrollment_groups().delete(&id("d")).await),
        call!("GET enrollmentGroups/d/certificates/primary", |client| client
            .enrollment_groups()
            .certificate(&id("d"), PRIMARY)
            .await),
        call!("GET enrollmentGroups/d/certificates/primary", |client| client
            .enrollment_groups()
            .find_certificate(&id("d"), PRIMARY)
            .await)
        .finding(),
        call!("PUT enrollmentGroups/d/certificates/secondary", |client| client
            .enrollment_groups()
            .set_certificate(&id("d"), CertificateEntry::Secondary, &OTHER, Possession::Attested, None)
            .await),
        call!("PUT enrollmentGroups/d/certificates/primary", |client, given| client
            .enrollment_groups()
            .set_certificate(&id("d"), PRIMARY, &OTHER, Possession::Attested, given.entry.as_ref())
            .await)
        .guarded(),
        call!("DELETE enrollmentGroups/d/certificates/primary", |client| client
            .enrollment_groups()
            .delete_certificate(&id("d"), PRIMARY)
            .await),
        call!("POST enrollmentGroups/d/certificates/primary/generateVerificationCode", |client| {
            client.enrollment_groups().generate_verification_code(&id("d"), PRIMARY).await.map(|made| made.code)
        }),
        call!("POST enrollmentGroups/d/certificates/primary/verify", |client, given| client
            .enrollment_groups()
            .verify_certificate(&id("d"), PRIMARY, &given.proof.expect("set up"))
            .await)
        .proving(),
    ]
}

/// How a call ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Service(u16),
    Network(NetworkFailure),
    Redirected,
    Unreadable,
    Lost,
}

impl End {
    fn of(result: &Result<Value, Error>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(Error::Service(error)) => Self::Service(error.status),
            Err(Error::Network(error)) => Self::Network(error.failure),
            Err(Error::Redirect { .. }) => Self::Redirected,
            Err(Error::Answer(_)) => Self::Unreadable,
            Err(Error::OutcomeUnknown { .. }) => Self::Lost,
            Err(other) => panic!("{other}"),
        }
    }

    /// How a call has to end that the fault strikes once or always.
    fn expected(call: &Call, kind: &FaultKind, always: bool) -> Self {
        match kind {
            FaultKind::Status { status: 404, .. } if call.finds => Self::Done,
            FaultKind::Status { status, .. } | FaultKind::StatusUntil { status, .. } => {
                if always || !matches!(status, 429 | 500 | 502 | 503 | 504) {
                    Self::Service(*status)
                } else {
                    Self::Done
                }
            }
            FaultKind::NotJson => Self::Unreadable,
            FaultKind::Redirect(_) => Self::Redirected,
            FaultKind::Delay(_) if always => Self::Network(NetworkFailure::TimedOut),
            // The entry is read, and found to be verified.
            FaultKind::CloseAfterHandling | FaultKind::TruncateBody if call.proves => Self::Done,
            FaultKind::CloseAfterHandling | FaultKind::TruncateBody if call.guarded && !always => Self::Lost,
            _ if always => Self::Network(NetworkFailure::Broken),
            _ => Self::Done,
        }
    }
}

/// Every fault, and whether it strikes always: of what is not tried again once is enough.
fn kinds(elsewhere: &str) -> Vec<(FaultKind, bool)> {
    let status = |status| FaultKind::Status { status, retry_after: None };
    let mut final_ones: Vec<_> = [400, 401, 403, 404, 409, 412, 422, 501].map(status).into();
    final_ones.extend([FaultKind::NotJson, FaultKind::Redirect(format!("{elsewhere}/api/devices"))]);
    let mut passing: Vec<_> = [429, 500, 502, 503, 504].map(status).into();
    for status in [429, 503] {
        passing.push(FaultKind::Status { status, retry_after: Some(WAIT) });
        passing.push(FaultKind::StatusUntil { status, retry_after: WAIT });
    }
    passing.extend([
        FaultKind::Delay(Duration::from_secs(3600)),
        FaultKind::CloseOnConnect,
        FaultKind::CloseBeforeHandling,
        FaultKind::CloseAfterHandling,
        FaultKind::TruncateBody,
    ]);
    let once = final_ones.into_iter().chain(passing.clone()).map(|kind| (kind, false));
    once.chain(passing.into_iter().map(|kind| (kind, true))).collect()
}

/// What the service asks to wait: more than the client would by itself at first.
const WAIT: Duration = Duration::from_secs(7);

/// One row of the table: this call, every fault.
async fn hold(call: Call, elsewhere: String) {
    let mut world = World::new().await;
    let mut old = world.state().await;
    let (right, _) = world.run(&call, &ManualClock::new(), &FaultKind::CloseOnConnect).await;
    let right = right.unwrap_or_else(|error| panic!("without a fault: {error}"));
    let new = without_etags(world.state().await);
    assert_eq!(new != without_etags(old.clone()), call.changes(), "{} changes something", call.name);

    let mut found = Value::Null;
    for (fault, always) in kinds(&elsewhere) {
        let label = format!("{} {fault:?} {}", call.name, if always { "always" } else { "once" });
        if found != old {
            // What else may have changed would show in the state.
            set_up(&world.observer, call.collection(), &mut world.given).await;
            old = world.state().await;
        }
        strike(&world.emulator, &call, &fault, always);
        let clock = ManualClock::new();
        let (result, end) = world.run(&call, &clock, &fault).await;
        assert_eq!(end, End::expected(&call, &fault, always), "{label}: {result:?}");
        let carried_out = end == End::Done
            || matches!(fault, FaultKind::CloseAfterHandling | FaultKind::TruncateBody) && !call.makes_code();
        found = world.state().await;
        if call.changes() && carried_out {
            assert_eq!(without_etags(found.clone()), new, "{label}: the change was made");
        } else {
            assert_eq!(found, old, "{label}: nothing was changed");
        }
        let asked = matches!(fault, FaultKind::Status { retry_after: Some(_), .. } | FaultKind::StatusUntil { .. });
        let waited = clock.sleeps().first().is_some_and(|sleep| *sleep + SECOND > WAIT);
        assert_eq!(waited, asked, "{label}: {:?}", clock.sleeps());
        match result {
            Ok(_) if call.finds && fault == (FaultKind::Status { status: 404, retry_after: None }) => {}
            Ok(value) => assert_eq!(value, right, "{label}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(&format!("{}: ", call.name)), "{label}: {message}");
                assert!(!message.contains(world.emulator.token()), "{label}: {message}");
                let may_be_made = error.answer_was_lost();
                assert!(
                    if carried_out { may_be_made == call.changes() } else { call.changes() || !may_be_made },
                    "{label}: {message}"
                );
            }
        }
    }
}

fn strike(emulator: &Emulator, call: &Call, kind: &FaultKind, always: bool) {
    let inject = |fault| emulator.inject(fault).expect("a fault that can be carried out");
    let limit = |fault: Fault| if always { fault.always() } else { fault };
    if *kind == FaultKind::CloseOnConnect {
        return inject(limit(Fault::new(kind.clone())));
    }
    let (method, path) = call.name.split_once(' ').expect("method and path");
    let fault = |kind| Fault::new(kind).method(method).path_contains(path);
    for _ in 0..call.after {
        inject(fault(FaultKind::Delay(Duration::ZERO)));
    }
    inject(limit(fault(kind.clone())));
}

/// The table of these calls, all rows at once.
async fn table(calls: Vec<Call>) {
    // Whoever is sent here with the token would be noticed.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    nobody.set_nonblocking(true).expect("set");
    let elsewhere = format!("http://{}", nobody.local_addr().expect("an address"));
    let rows: Vec<_> = calls.into_iter().map(|call| tokio::spawn(hold(call, elsewhere.clone()))).collect();
    for row in rows {
        row.await.expect("the row holds");
    }
    assert!(nobody.accept().is_err(), "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_call_of_devices() {
    table(device_calls()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_call_of_device_groups() {
    table(device_group_calls()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_call_of_deployment_manifests() {
    table(deployment_manifest_calls()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_against_every_call_of_enrollment_groups_and_certificates() {
    table(enrollment_group_calls()).await;
}
