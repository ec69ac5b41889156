//! The diagnosis of failed registrations: each cause is found, and no other is.

use std::{sync::Arc, time::Duration};

use crate::support::{
    DAY,
    clock::ManualClock,
    devices::{
        DEVICE, Foreign, credential, days_ago, foreign, id, intermediate, issue, issue_at, leaf_only, options, root,
        root_at, sending, whole,
    },
    dps::{Asks, Dps, SCOPE, assigned, assigning, dated, ended, error, unauthorized},
    server::Reply,
};
use iot_enroll::{
    central::{
        Authorization, CertificateEntry, Client, DeviceUpdate, EnrollmentGroupUpdate, NewAttestation, NewDevice,
        NewDeviceAttestation, NewEnrollmentGroup, Possession, SymmetricKeys,
    },
    certificate::{Certificate, CertificateAuthority, IssueOptions, Timestamp},
    dps::device::{
        Attempt, Cause, Credential, DeviceState, Diagnosis, EnrolledCertificate, EnrollmentState, GroupAttestation,
        GroupState, IdScope, OwnAttestation, RegistrationError, SymmetricKey, derive_device_key, diagnose, objections,
    },
    emulator::Emulator,
    workflow::{read_device_state, read_enrollment_state},
};

const GROUP: &str = "g";

/// Registers against a service that refuses everything, by the clock of the machine.
async fn refused(credential: &Credential) -> RegistrationError {
    fails(&Dps::start(|_| unauthorized()), credential).await
}

async fn fails(dps: &Dps, credential: &Credential) -> RegistrationError {
    let clock = Arc::new(Now::default());
    let client = dps.builder(&ManualClock::new()).clock(clock).build().expect("a client");
    client.register(&id(DEVICE), credential, None).await.expect_err("a failure")
}

/// The date of the machine set back by so much, and no waiting.
#[derive(Default)]
struct Now(Duration, ManualClock);

impl iot_enroll::central::Clock for Now {
    fn elapsed(&self) -> Duration {
        self.1.elapsed()
    }

    fn now(&self) -> std::time::SystemTime {
        (Timestamp::now() - self.0).into()
    }

    fn sleep(&self, duration: Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        self.1.sleep(duration)
    }
}

struct Case<'a> {
    credential: &'a Credential,
    unsent: &'a [Certificate],
    scope: String,
}

impl<'a> Case<'a> {
    fn of(credential: &'a Credential) -> Self {
        Self { credential, unsent: &[], scope: SCOPE.to_owned() }
    }

    fn diagnose(&self, error: &RegistrationError, application: Option<&EnrollmentState>) -> Diagnosis {
        let (id, id_scope) = (id(DEVICE), self.scope.parse::<IdScope>().expect("a scope"));
        let attempt = Attempt::new(&id, &id_scope, self.credential).unsent(self.unsent);
        diagnose(&attempt, error, application)
    }
}

/// The only cause, which is certain.
#[track_caller]
fn only(diagnosis: &Diagnosis) -> &Cause {
    let [cause] = &diagnosis.causes[..] else { panic!("{diagnosis:?}") };
    assert!(diagnosis.possible.is_empty(), "{diagnosis:?}");
    cause
}

/// Its name, and that the text holds all of these.
#[track_caller]
fn told(cause: &Cause, name: &str, parts: &[&str]) {
    assert_eq!(cause.name(), name, "{cause}");
    for part in parts {
        assert!(cause.to_string().contains(part), "{part:?} is not in: {cause}");
    }
}

/// An application of the emulator's.
struct App {
    _emulator: Emulator,
    client: Client,
}

impl App {
    async fn start() -> Self {
        let emulator = Emulator::builder().start().await.expect("a free loopback port");
        let client = Client::builder(emulator.endpoint().parse().expect("an endpoint"))
            .authorization(Authorization::parse(emulator.token().to_owned()).expect("a token"))
            .clock(ManualClock::new())
            .build()
            .expect("a client");
        Self { _emulator: emulator, client }
    }

    /// One with a group that has this certificate.
    async fn with(authority: &CertificateAuthority, verified: bool) -> Self {
        Self::enrolling(authority.certificate(), verified).await
    }

    async fn enrolling(certificate: &Certificate, verified: bool) -> Self {
        let app = Self::start().await;
        let groups = app.client.enrollment_groups();
        let group = GROUP.parse().expect("an id");
        groups.replace(&group, &NewEnrollmentGroup::x509("Mine")).await.expect("a group");
        let possession = if verified { Possession::Attested } else { Possession::ToBeProven };
        let set = groups.set_certificate(&group, CertificateEntry::Primary, certificate, possession, None).await;
        set.expect("set");
        app
    }

    /// A group of symmetric keys with this primary one.
    async fn symmetric_group(&self, primary: &str) {
        let (primary, secondary) = (key(primary), key("fedcba9876543210"));
        let keys = SymmetricKeys { primary_key: primary.to_base64(), secondary_key: secondary.to_base64() };
        let attestation = NewAttestation::SymmetricKey(Some(keys));
        let group = NewEnrollmentGroup::x509("K").attestation(attestation);
        self.client.enrollment_groups().replace(&GROUP.parse().expect("an id"), &group).await.expect("a group");
    }

    async fn disable_group(&self) {
        let update = EnrollmentGroupUpdate::default().enabled(false);
        self.client.enrollment_groups().update(&GROUP.parse().expect("an id"), &update).await.expect("updated");
    }

    async fn device(&self, id: &str) {
        let id = id.parse().expect("an id");
        self.client.devices().replace(&id, &NewDevice::default()).await.expect("a device");
    }

    async fn read(&self) -> EnrollmentState {
        let application = read_enrollment_state(&self.client).await.expect("the application");
        read_device_state(&self.client, &application, &id(DEVICE)).await.expect("the device")
    }

    /// What a refusal of this credential came from.
    async fn diagnose(&self, credential: &Credential) -> Diagnosis {
        self.diagnose_knowing(credential, &[]).await
    }

    async fn diagnose_knowing(&self, credential: &Credential, unsent: &[Certificate]) -> Diagnosis {
        let application = self.read().await;
        let scope = application.id_scope.as_ref().map_or_else(|| SCOPE.to_owned(), ToString::to_string);
        Case { credential, unsent, scope }.diagnose(&refused(credential).await, Some(&application))
    }
}

fn moment(at: Timestamp) -> String {
    httpdate::fmt_http_date(at.into())
}

#[tokio::test]
async fn a_wrong_common_name_is_refused_before_anything_is_sent() {
    let dps = Dps::start(|_| assigned(DEVICE));
    let credential = credential(&issue("sensor-2", &root("Root")));
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, None)), "wrong-common-name", &["sensor-2", DEVICE]);
    assert!(error.is_not_sent() && error.to_string().contains("nothing was sent"), "{error}");
    assert_eq!(dps.connections(), 0);
}

#[tokio::test]
async fn the_case_of_a_common_name_does_not_count() {
    let dps = Dps::start(|_| assigned(DEVICE));
    let client = dps.client();
    let credential = credential(&issue("SENSOR-1", &root("Root")));
    client.register(&id(DEVICE), &credential, None).await.expect("an assignment");
}

#[tokio::test]
async fn missing_client_authentication_is_refused_before_anything_is_sent() {
    let dps = Dps::start(|_| assigned(DEVICE));
    let credential = foreign(DEVICE, |parameters| {
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, None)), "no-client-authentication", &["clientAuth", DEVICE]);
    assert_eq!(dps.connections(), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_told_before_and_left_to_the_service() {
    let root = root_at("Old", &days_ago(30, 3650));
    let credential = credential(&issue_at(DEVICE, &root, &days_ago(20, 10)));
    let (id, scope) = (id(DEVICE), SCOPE.parse().expect("a scope"));
    let attempt = Attempt::new(&id, &scope, &credential);
    let before = objections(&attempt, Timestamp::now());
    told(&before[0], "expired", &[DEVICE, "Issue a new certificate"]);
    let error = refused(&credential).await;
    assert_eq!(error.error_code(), Some(401_002));
    told(only(&Case::of(&credential).diagnose(&error, None)), "expired", &[DEVICE]);
}

#[tokio::test]
async fn an_expired_intermediate_is_told_by_its_name() {
    let root = Foreign::new("Root", None, |_| ());
    let short =
        Foreign::new("Short", Some(&root), |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let credential = short.device(DEVICE, |_| ());
    let error = refused(&credential).await;
    // Unless it is above the enrolled one, which only the application tells.
    let diagnosis = Case::of(&credential).diagnose(&error, None);
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
    told(&diagnosis.possible[0], "expired", &["CN=Short"]);
    let app = App::enrolling(root.certificate(), true).await;
    told(only(&app.diagnose(&credential).await), "expired", &["CN=Short"]);
}

#[tokio::test]
async fn a_state_that_the_caller_builds_is_diagnosed_like_one_that_was_read() {
    let root = root("Root");
    let credential = credential(&issue(DEVICE, &root));
    let error = refused(&credential).await;
    let scope = || SCOPE.parse().expect("a scope");
    let entry = || EnrolledCertificate::new(GROUP, "primary", root.certificate().sha1_thumbprint());
    let group = |entry| GroupState::new(GROUP, GroupAttestation::X509(vec![entry]));
    let state = |entry| EnrollmentState::new([group(entry)]);
    let cause = |state: EnrollmentState| -> String {
        let diagnosis = Case::of(&credential).diagnose(&error, Some(&state.id_scope(scope())));
        only(&diagnosis).name().to_owned()
    };
    assert_eq!(cause(state(entry())), "entry-not-verified");
    assert_eq!(cause(state(entry().verified(true).enabled(false))), "group-disabled");
    assert_eq!(cause(EnrollmentState::new([group(entry().verified(true)).enabled(false)])), "group-disabled");
    let attested = state(entry().verified(true));
    assert_eq!(cause(attested.clone().device(DeviceState::new().enabled(false))), "device-disabled");
    let own = OwnAttestation::X509(vec![root.certificate().sha1_thumbprint()]);
    assert_eq!(cause(attested.device(DeviceState::new().attestation(own))), "attestation-differs");
}

#[tokio::test]
async fn certificates_above_the_enrolled_one_are_no_cause() {
    let old = Foreign::new("Old", None, |parameters| parameters.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let between = Foreign::new("Between", Some(&old), |_| ());
    let credential = between.device(DEVICE, |_| ());
    let app = App::enrolling(between.certificate(), false).await;
    told(only(&app.diagnose(&credential).await), "entry-not-verified", &["primary of g"]);
}

#[tokio::test]
async fn a_mere_objection_is_a_possible_cause_only_without_a_definite_one() {
    let root = Foreign::new("Root", None, |_| ());
    let credential = root.device(DEVICE, |parameters| {
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyAgreement];
    });
    let diagnosis = Case::of(&credential).diagnose(&refused(&credential).await, None);
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
    told(&diagnosis.possible[0], "certificate", &["digital signatures"]);
    let app = App::enrolling(root.certificate(), false).await;
    told(only(&app.diagnose(&credential).await), "entry-not-verified", &[]);
    // Where nothing else is left it is the cause.
    let app = App::enrolling(root.certificate(), true).await;
    told(only(&app.diagnose(&credential).await), "certificate", &["digital signatures"]);
}

#[tokio::test]
async fn the_application_is_asked_even_where_the_certificate_has_expired() {
    let root = root_at("Root", &days_ago(30, 3650));
    let credential = credential(&issue_at(DEVICE, &root, &days_ago(20, 10)));
    assert!(Case::of(&credential).diagnose(&refused(&credential).await, None).needs_application);
    let diagnosis = App::with(&root, false).await.diagnose(&credential).await;
    let names: Vec<_> = diagnosis.causes.iter().map(Cause::name).collect();
    assert_eq!(names, ["expired", "entry-not-verified"]);
}

#[tokio::test]
async fn a_certificate_of_tomorrow_is_told_as_not_yet_valid() {
    let tomorrow = options(Timestamp::now() + DAY, 10);
    let credential = credential(&issue_at(DEVICE, &root("Root"), &tomorrow));
    let diagnosis = Case::of(&credential).diagnose(&refused(&credential).await, None);
    told(only(&diagnosis), "not-yet-valid", &[DEVICE, "not valid until"]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_here_is_told_from_a_certificate_that_is() {
    // Valid for a day, a month ago, which is what the clock here says it is.
    let month = DAY * 30;
    let credential = credential(&issue_at(DEVICE, &root_at("Old", &days_ago(40, 3650)), &days_ago(30, 2)));
    let theirs = Timestamp::now();
    let ours = theirs - month + Duration::from_secs(60 * 60);
    let date = moment(theirs);
    let dps = Dps::start(move |_| dated(401, 401_002, "Unauthorized", Some(&date)));
    let clock = Arc::new(Now(theirs.duration_since(ours), ManualClock::default()));
    let client = dps.builder(&ManualClock::new()).clock(clock).build().expect("a client");
    let error = client.register(&id(DEVICE), &credential, None).await.expect_err("refused");
    let parts = [&ours.to_string()[..4], "the clock of this machine says", "expired by the server's"];
    told(only(&Case::of(&credential).diagnose(&error, None)), "clock-skewed", &parts);

    // With the same date here and there it is the certificate.
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, None)), "expired", &[]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_here_spoils_a_token() {
    let date = moment(Timestamp::now() + DAY * 400);
    let dps = Dps::start(move |_| dated(401, 401_002, "Unauthorized", Some(&date)));
    let credential = key("0123456789abcdef").into();
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, None)), "clock-skewed", &["token"]);

    // A few minutes do not.
    let date = moment(Timestamp::now() + Duration::from_secs(20 * 60));
    let dps = Dps::start(move |_| dated(401, 401_002, "Unauthorized", Some(&date)));
    let error = fails(&dps, &credential).await;
    let diagnosis = Case::of(&credential).diagnose(&error, None);
    let names: Vec<_> = diagnosis.possible.iter().map(Cause::name).collect();
    assert!(diagnosis.causes.is_empty(), "{diagnosis:?}");
    assert_eq!(names, ["wrong-symmetric-key", "device-disabled"]);
}

#[tokio::test]
async fn a_date_that_the_server_s_own_certificate_refutes_is_not_believed() {
    // That certificate is valid for two years from now.
    let date = moment(Timestamp::now() + DAY * 3650);
    let dps = Dps::start(move |_| dated(401, 401_002, "Unauthorized", Some(&date)));
    let root = root("Root");
    let device = credential(&issue(DEVICE, &root));
    let error = fails(&dps, &device).await;
    assert!(Case::of(&device).diagnose(&error, None).causes.is_empty());
    let application = App::with(&root, false).await.read().await;
    told(only(&Case::of(&device).diagnose(&error, Some(&application))), "entry-not-verified", &[]);
    let token = key("0123456789abcdef").into();
    let diagnosis = Case::of(&token).diagnose(&fails(&dps, &token).await, None);
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
}

#[tokio::test]
async fn what_answers_in_part_or_not_in_http_has_not_refused_the_certificate() {
    let credential = credential(&issue(DEVICE, &root("Root")));
    let half = || Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_vec());
    let long = || Reply::with(200, &[("X-Long", &"x".repeat(1_000_000))], "");
    for answer in [half, long] as [fn() -> Reply; 2] {
        let error = fails(&Dps::start(move |_| answer()), &credential).await;
        let diagnosis = Case::of(&credential).diagnose(&error, None);
        assert!(diagnosis.first().is_none() && !diagnosis.needs_application, "{error}: {diagnosis:?}");
    }
}

#[tokio::test]
async fn a_disabled_device_is_among_what_it_may_be() {
    let credential = leaf_only(&issue(DEVICE, &intermediate("Intermediate", &root("Root"))));
    let names = |error: &RegistrationError| {
        let diagnosis = Case::of(&credential).diagnose(error, None);
        assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
        diagnosis.possible.iter().map(Cause::name).collect::<Vec<_>>()
    };
    assert_eq!(names(&refused(&credential).await), ["chain-not-sent", "device-disabled"]);
    // The service's words may tell one of them, and so may the way it ends.
    let dps = Dps::start(|_| error(401, 401_002, "CA certificate not found."));
    assert_eq!(names(&fails(&dps, &credential).await), ["chain-not-sent"]);
    let dps = Dps::start(|_| ended("disabled", &serde_json::json!({ "status": "disabled" })));
    assert_eq!(names(&fails(&dps, &credential).await), ["device-disabled"]);
}

#[tokio::test]
async fn without_the_application_a_certificate_alone_is_perhaps_a_missing_chain() {
    let device = issue(DEVICE, &intermediate("Intermediate", &root("Root")));
    let credential = leaf_only(&device);
    let diagnosis = Case::of(&credential).diagnose(&refused(&credential).await, None);
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
    told(&diagnosis.possible[0], "chain-not-sent", &["Intermediate", "_fullchain.pem"]);
}

#[tokio::test]
async fn without_the_application_a_whole_chain_is_told_where_it_leads() {
    let root = root("Root");
    let credential = credential(&issue(DEVICE, &root));
    let diagnosis = Case::of(&credential).diagnose(&refused(&credential).await, None);
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
    let thumbprint = root.certificate().sha1_thumbprint().to_string();
    told(&diagnosis.possible[0], "chain-leads-elsewhere", &["CN=Root", &thumbprint]);
}

#[tokio::test]
async fn a_chain_that_was_not_sent_is_certain_where_the_rest_of_it_is_known() {
    let root = root("Root");
    let device = issue(DEVICE, &intermediate("Intermediate", &root));
    let app = App::with(&root, true).await;
    let credential = leaf_only(&device);
    let thumbprint = root.certificate().sha1_thumbprint().to_string();
    let diagnosis = app.diagnose_knowing(&credential, &whole(&device)).await;
    told(only(&diagnosis), "chain-not-sent", &["leads to the enrolled certificate", &thumbprint, "primary of g"]);
    // And where nothing else is left.
    told(only(&app.diagnose(&credential).await), "chain-not-sent", &["Intermediate", &thumbprint]);
}

#[tokio::test]
async fn a_certificate_alone_needs_no_chain_where_its_issuer_is_enrolled() {
    let root = root("Root");
    let device = issue(DEVICE, &root);
    let app = App::with(&root, true).await;
    let diagnosis = app.diagnose_knowing(&leaf_only(&device), &whole(&device)).await;
    assert_eq!((diagnosis.causes, diagnosis.possible), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_chain_to_another_root_is_reported_with_both_roots() {
    let (mine, enrolled) = (root("Mine"), root("Enrolled"));
    let app = App::with(&enrolled, true).await;
    let diagnosis = app.diagnose(&credential(&issue(DEVICE, &mine))).await;
    let thumbprints = [&mine, &enrolled].map(|it| it.certificate().sha1_thumbprint().to_string());
    told(only(&diagnosis), "chain-leads-elsewhere", &["CN=Mine", &thumbprints[0], &thumbprints[1], "primary of g"]);
}

#[tokio::test]
async fn an_entry_that_is_not_verified_is_told() {
    let root = root("Root");
    let app = App::with(&root, false).await;
    let thumbprint = root.certificate().sha1_thumbprint().to_string();
    let diagnosis = app.diagnose(&credential(&issue(DEVICE, &root))).await;
    told(only(&diagnosis), "entry-not-verified", &[&thumbprint, "primary of g", "not verified"]);
}

#[tokio::test]
async fn a_disabled_group_is_told() {
    let root = root("Root");
    let app = App::with(&root, true).await;
    app.disable_group().await;
    told(only(&app.diagnose(&credential(&issue(DEVICE, &root))).await), "group-disabled", &["group g", "disabled"]);
}

#[tokio::test]
async fn a_disabled_device_is_told() {
    let root = root("Root");
    let app = App::with(&root, true).await;
    app.device(DEVICE).await;
    let update = DeviceUpdate::default().enabled(false);
    app.client.devices().update(&DEVICE.parse().expect("an id"), &update).await.expect("updated");
    told(only(&app.diagnose(&credential(&issue(DEVICE, &root))).await), "device-disabled", &[DEVICE, "Enable it"]);
}

#[tokio::test]
async fn an_attestation_of_the_device_s_own_that_differs_is_told() {
    let root = root("Root");
    let app = App::with(&root, true).await;
    app.device(DEVICE).await;
    let (own, presented) = (issue(DEVICE, &root), issue(DEVICE, &root));
    let attestation = NewDeviceAttestation::x509(own.certificate.clone());
    app.client.devices().set_attestation(&DEVICE.parse().expect("an id"), &attestation).await.expect("set");
    let thumbprints = [&own, &presented].map(|it| it.certificate.sha1_thumbprint().to_string());
    let diagnosis = app.diagnose(&credential(&presented)).await;
    told(only(&diagnosis), "attestation-differs", &[&thumbprints[0], &thumbprints[1], "overrides enrollment groups"]);
    // The same certificate is no cause at all.
    assert!(app.diagnose(&credential(&own)).await.causes.is_empty());
}

#[tokio::test]
async fn a_self_signed_certificate_without_an_attestation_is_told() {
    let app = App::with(&root("Root"), true).await;
    let device = CertificateAuthority::self_signed_device(&id(DEVICE), &IssueOptions::default()).expect("a device");
    let credential = credential(&device);
    told(only(&app.diagnose(&credential).await), "certificate", &["self-signed", "individual attestation"]);
}

#[tokio::test]
async fn an_application_that_admits_no_device_is_reported() {
    let app = App::start().await;
    let diagnosis = app.diagnose(&credential(&issue(DEVICE, &root("Root")))).await;
    told(only(&diagnosis), "nothing-enrolled", &["x509", DEVICE]);
    let diagnosis = app.diagnose(&key("0123456789abcdef").into()).await;
    told(only(&diagnosis), "nothing-enrolled", &["symmetricKey"]);
}

#[tokio::test]
async fn a_scope_that_is_unknown_is_told_and_with_a_token_the_right_one() {
    let stranger = credential(&issue(DEVICE, &root("Root")));
    let dps = Dps::start(|_| error(404, 404_201, "Id scope not found"));
    let error = fails(&dps, &stranger).await;
    told(only(&Case::of(&stranger).diagnose(&error, None)), "wrong-id-scope", &[SCOPE, "does not know"]);
    let app = App::start().await;
    app.device("other").await;
    let application = app.read().await;
    let actual = application.id_scope.as_ref().expect("known").to_string();
    let cause = Case::of(&stranger).diagnose(&error, Some(&application));
    told(only(&cause), "wrong-id-scope", &[SCOPE, &actual]);
    // The scope of another application is known to the service, and refused otherwise.
    let cause = Case::of(&stranger).diagnose(&refused(&stranger).await, Some(&application));
    told(only(&cause), "wrong-id-scope", &[&actual]);
    // The right scope at a wrong address. Something is enrolled, so that the device is no cause.
    let root = root("Root");
    let app = App::with(&root, true).await;
    app.device("other").await;
    let application = app.read().await;
    let credential = credential(&issue(DEVICE, &root));
    let actual = application.id_scope.as_ref().expect("known").to_string();
    let right = Case { scope: actual, ..Case::of(&credential) };
    told(only(&right.diagnose(&error, Some(&application))), "wrong-id-scope", &["Check the address"]);
}

#[tokio::test]
async fn only_what_the_service_says_of_a_scope_is_blamed_on_it() {
    let credential = credential(&issue(DEVICE, &root("Root")));
    let page = Dps::start(|_| Reply::with(404, &[], "<html>Not Found</html>"));
    let diagnosis = Case::of(&credential).diagnose(&fails(&page, &credential).await, None);
    told(only(&diagnosis), "not-the-service", &["127.0.0.1", "Check the address"]);
    assert!(only(&diagnosis).affects_all_devices() && !diagnosis.needs_application);
    // What has a code of the service comes from the service.
    let coded = Dps::start(|_| error(404, 404_001, "The resource does not exist."));
    let diagnosis = Case::of(&credential).diagnose(&fails(&coded, &credential).await, None);
    assert!(diagnosis.first().is_none(), "{diagnosis:?}");
    let gone = Dps::start(|request| {
        if request.method == "PUT" { assigning(Some("0")) } else { error(404, 404_202, "Operation not found.") }
    });
    let diagnosis = Case::of(&credential).diagnose(&fails(&gone, &credential).await, None);
    assert!(diagnosis.first().is_none(), "{diagnosis:?}");
}

#[tokio::test]
async fn an_interception_names_who_presented_what() {
    let (dps, other) = (Dps::start(|_| unauthorized()), Dps::start(|_| unauthorized()));
    let client = iot_enroll::dps::device::RegistrationClient::builder(SCOPE.parse().expect("a scope"))
        .endpoint(dps.url().parse().expect("an endpoint"))
        .add_root_certificate(other.authority.as_bytes())
        .expect("a root")
        .build()
        .expect("a client");
    let credential = credential(&issue(DEVICE, &root("Root")));
    let error = client.register(&id(DEVICE), &credential, None).await.expect_err("no trust");
    let diagnosis = Case::of(&credential).diagnose(&error, None);
    let host = dps.address.to_string();
    told(
        only(&diagnosis),
        "tls-intercepted",
        &[&host, "issued by CN=Authority for 127.0.0.1", "add it as a trusted root"],
    );
    assert!(only(&diagnosis).affects_all_devices() && !diagnosis.needs_application);
}

#[tokio::test]
async fn a_certificate_for_another_host_is_an_interception_too() {
    let dps = Dps::with("elsewhere.example", Asks::Any, |_| unauthorized());
    let credential = credential(&issue(DEVICE, &root("Root")));
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, None)), "tls-intercepted", &["elsewhere.example"]);
}

#[tokio::test]
async fn a_server_that_does_not_ask_for_the_certificate_is_not_the_service() {
    let dps = Dps::with("127.0.0.1", Asks::Nothing, |_| unauthorized());
    let credential = credential(&issue(DEVICE, &root("Root")));
    let error = fails(&dps, &credential).await;
    let parts = ["did not request", "Authority for 127.0.0.1", "proxy"];
    told(only(&Case::of(&credential).diagnose(&error, None)), "certificate-not-asked-for", &parts);
}

#[tokio::test]
async fn a_refusal_in_the_handshake_is_diagnosed_like_one_in_an_answer() {
    let dps = Dps::with("127.0.0.1", Asks::RefusesAll, |_| unauthorized());
    let root = root_at("Old", &days_ago(30, 3650));
    let credential = credential(&issue_at(DEVICE, &root, &days_ago(20, 10)));
    let error = fails(&dps, &credential).await;
    assert_eq!(dps.connections(), 1, "it is not tried again: {error}");
    let text = error.to_string();
    assert!(text.contains("the server ended the TLS connection") && !text.contains("Alert"), "{text}");
    told(only(&Case::of(&credential).diagnose(&error, None)), "expired", &[]);
}

#[tokio::test]
async fn an_end_as_disabled_is_diagnosed() {
    let root = root("Root");
    let app = App::with(&root, true).await;
    app.disable_group().await;
    let dps = Dps::start(|_| ended("disabled", &serde_json::json!({ "status": "disabled" })));
    let credential = credential(&issue(DEVICE, &root));
    let error = fails(&dps, &credential).await;
    told(only(&Case::of(&credential).diagnose(&error, Some(&app.read().await))), "group-disabled", &[]);
}

#[tokio::test]
async fn an_end_as_disabled_is_not_blamed_on_the_id_scope() {
    let root = root("Root");
    let app = App::with(&root, true).await;
    let dps = Dps::start(|_| ended("disabled", &serde_json::json!({ "status": "disabled" })));
    let credential = credential(&issue(DEVICE, &root));
    let error = fails(&dps, &credential).await;
    // The state of another service was read.
    let mut other = app.read().await;
    other.id_scope = Some("0neFFFFFFFF".parse().expect("a scope"));
    let diagnosis = Case::of(&credential).diagnose(&error, Some(&other));
    assert!(diagnosis.causes.is_empty() && diagnosis.needs_application, "{diagnosis:?}");
    assert_eq!(diagnosis.possible.iter().map(Cause::name).collect::<Vec<_>>(), ["device-disabled"]);
}

#[tokio::test]
async fn an_end_of_another_kind_is_not_blamed_on_the_certificate() {
    let state = serde_json::json!({ "status": "failed", "errorCode": 400_207, "errorMessage": "allocation failed" });
    let dps = Dps::start(move |_| ended("failed", &state));
    let credential = leaf_only(&issue(DEVICE, &root("Root")));
    let error = fails(&dps, &credential).await;
    let diagnosis = Case::of(&credential).diagnose(&error, None);
    assert!(diagnosis.first().is_none() && !diagnosis.needs_application, "{diagnosis:?}");
}

fn key(text: &str) -> SymmetricKey {
    use base64::{Engine, prelude::BASE64_STANDARD};
    SymmetricKey::from_base64(&BASE64_STANDARD.encode(text)).expect("a key")
}

#[tokio::test]
async fn symmetric_keys_are_told_apart() {
    let app = App::start().await;
    app.symmetric_group("0123456789abcdef").await;
    let group_key = key("fedcba9876543210");
    let derived = || Credential::from(derive_device_key(&key("0123456789abcdef"), &id(DEVICE)));

    assert!(app.diagnose(&derived()).await.causes.is_empty());
    told(only(&app.diagnose(&group_key.into()).await), "group-key-used", &["group g", "Derive"]);
    told(only(&app.diagnose(&key("somebody else's k").into()).await), "wrong-symmetric-key", &[DEVICE]);
    app.disable_group().await;
    told(only(&app.diagnose(&derived()).await), "group-disabled", &["group g"]);
}

#[tokio::test]
async fn a_key_of_the_device_s_own_counts_before_any_group() {
    let app = App::start().await;
    app.symmetric_group("0123456789abcdef").await;
    app.device(DEVICE).await;
    let attest = async |attestation: NewDeviceAttestation| {
        app.client.devices().set_attestation(&DEVICE.parse().expect("an id"), &attestation).await.expect("set");
    };
    let derived = || Credential::from(derive_device_key(&key("0123456789abcdef"), &id(DEVICE)));
    let (own, other) = (key("its own, primary"), key("its own, second."));
    let keys = SymmetricKeys { primary_key: own.to_base64(), secondary_key: other.to_base64() };
    attest(NewDeviceAttestation::SymmetricKey(Some(keys))).await;
    told(
        only(&app.diagnose(&derived()).await),
        "attestation-differs",
        &["individual attestation", "another symmetric key"],
    );
    app.disable_group().await;
    told(only(&app.diagnose(&derived()).await), "attestation-differs", &[DEVICE]);
    let diagnosis = app.diagnose(&own.into()).await;
    assert!(diagnosis.first().is_none(), "{diagnosis:?}");
    // Nor does a group count where it attests by a certificate.
    attest(NewDeviceAttestation::x509(issue(DEVICE, &root("Root")).certificate)).await;
    told(only(&app.diagnose(&derived()).await), "attestation-differs", &["used a symmetric key"]);
    told(only(&app.diagnose(&key("somebody else's k").into()).await), "attestation-differs", &[]);
}

#[tokio::test]
async fn a_key_derived_in_lower_case_is_known_as_its_group_s() {
    let app = App::start().await;
    app.symmetric_group("0123456789abcdef").await;
    let upper = id(&DEVICE.to_uppercase());
    let credential = derive_device_key(&key("0123456789abcdef"), &id(DEVICE)).into();
    let dps = Dps::start(|_| unauthorized());
    let error = dps.client().register(&upper, &credential, None).await.expect_err("refused");
    let (scope, application) = (SCOPE.parse().expect("a scope"), app.read().await);
    let attempt = Attempt::new(&upper, &scope, &credential);
    let diagnosis = diagnose(&attempt, &error, Some(&application));
    assert!(diagnosis.causes.is_empty(), "{diagnosis:?}");
    told(&diagnosis.possible[0], "wrong-symmetric-key", &["exactly this ID"]);
    app.disable_group().await;
    told(only(&diagnose(&attempt, &error, Some(&app.read().await))), "group-disabled", &["group g"]);
}

#[tokio::test]
async fn a_broken_chain_to_the_enrolled_certificate_is_reported_with_its_fault() {
    use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
    type Change = fn(&mut rcgen::CertificateParams);
    let cases: [(Change, Change, &str); 3] = [
        (|_| (), |it| it.is_ca = IsCa::ExplicitNoCa, "CN=Between is not an authority"),
        (|_| (), |it| it.key_usages = vec![KeyUsagePurpose::CrlSign], "CN=Between may not sign"),
        (|it| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), |_| (), "CN=Root allows 0 authorities"),
    ];
    for (of_root, of_between, words) in cases {
        let root = Foreign::new("Root", None, of_root);
        let between = Foreign::new("Between", Some(&root), of_between);
        let app = App::enrolling(root.certificate(), true).await;
        told(only(&app.diagnose(&between.device(DEVICE, |_| ())).await), "chain-unsound", &[words]);
    }
}

#[tokio::test]
async fn an_unverified_entry_may_be_the_missing_issuer_s() {
    let (enrolled, device) = (root("Root"), issue(DEVICE, &intermediate("Intermediate", &root("Other"))));
    let app = App::with(&enrolled, false).await;
    let diagnosis = app.diagnose(&sending(&device, vec![device.certificate.clone()])).await;
    let names: Vec<_> = diagnosis.possible.iter().map(Cause::name).collect();
    assert!(diagnosis.causes.is_empty(), "{diagnosis:?}");
    assert_eq!(names, ["chain-not-sent", "entry-not-verified"]);
}
