//! Both clients against the emulator, which is an independent reading of the API descriptions.

use std::{num::NonZeroU32, sync::Arc};

use crate::support::{app::Authority, clock::ManualClock};
use iot_enroll::{
    arm::{self, AccessRight, Certificates, DpsCertificateName, FindError, InstanceQuery, Possession},
    certificate::{Certificate, DeviceId},
    dps::device::{RegistrationClient, SymmetricKey, derive_device_key},
    dps::service::{
        Attestation, Authorization, CaReferences, Client, ConnectionString, Endpoint, EnrollmentGroupId,
        EnrollmentGroupUpdate, EnrollmentSettings, Error, IndividualEnrollmentUpdate, NewAttestation, NewCertificates,
        NewEnrollmentGroup, NewIndividualEnrollment, Query, RegistrationId, RegistrationStatus,
    },
    emulator::{Builder, DpsRight, Emulator},
};

const FAST: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");

struct Lab {
    emulator: Emulator,
    arm: arm::Client,
}

impl Lab {
    async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    async fn with(builder: Builder) -> Self {
        let emulator = builder.start().await.expect("a free loopback port");
        let token = format!("Bearer {}", emulator.arm_token());
        let arm = arm::Client::builder(emulator.endpoint().parse().expect("an endpoint"))
            .authorization(Authorization::parse(token).expect("a token"))
            .clock(ManualClock::new() as Arc<_>)
            .rate(FAST)
            .build()
            .expect("a client");
        Self { emulator, arm }
    }

    async fn instance(&self) -> arm::Instance {
        let query = InstanceQuery::new(self.emulator.dps_name().parse().expect("a name"));
        self.arm.instance(&self.arm.find(&query).await.expect("the instance").id)
    }

    async fn certificates(&self) -> Certificates {
        self.instance().await.certificates()
    }

    /// A client with the key of a policy, as Resource Manager lists it.
    async fn client_of(&self, policy: &str) -> Client {
        let instance = self.instance().await;
        let service = instance.get().await.expect("the instance");
        let key = instance.policy(policy).await.expect("a policy").key().expect("a key");
        client(service.service_endpoint, Authorization::from_shared_access_key(key))
    }

    async fn owner(&self) -> Client {
        self.client_of("provisioningserviceowner").await
    }

    fn lose(&self, method: &str, path: &str) {
        let fault = format!("close-after,method={method},path={path}");
        self.emulator.inject(fault.parse().expect("a fault")).expect("a fault");
    }
}

/// A client with the clock of the machine, by which the emulator checks tokens.
fn client(endpoint: Endpoint, authorization: Authorization) -> Client {
    Client::builder(endpoint).authorization(authorization).rate(FAST).build().expect("a client")
}

fn root() -> (Authority, Certificate) {
    let authority = Authority::new("root");
    let certificate = Certificate::read(authority.pem.as_bytes()).expect("a certificate");
    (authority, certificate)
}

fn proof(authority: &Authority, code: &str) -> Certificate {
    Certificate::read(authority.proof(code).as_bytes()).expect("a certificate")
}

fn name() -> DpsCertificateName {
    "root-2026".parse().expect("a name")
}

fn group_id() -> EnrollmentGroupId {
    "eg".parse().expect("an id")
}

fn device(index: usize) -> RegistrationId {
    format!("sensor-{index}").parse().expect("an id")
}

fn disabled() -> EnrollmentGroupUpdate {
    EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().enabled(false))
}

async fn enroll(certificates: &Certificates, authority: &Authority, root: &Certificate) {
    let uploaded = certificates.set(&name(), root, Possession::ToBeProven, None).await.expect("uploaded");
    let code = certificates.generate_verification_code(&name(), &uploaded.etag).await.expect("a code");
    let verified = certificates.verify(&name(), &proof(authority, &code.code), &code.etag).await.expect("verified");
    assert!(verified.is_verified && verified.is(root));
}

#[tokio::test]
async fn a_ca_and_its_group_are_enrolled_changed_and_removed() {
    let lab = Lab::start().await;
    let (authority, root) = root();
    let certificates = lab.certificates().await;
    assert!(certificates.find(&name()).await.expect("an answer").is_none());
    enroll(&certificates, &authority, &root).await;

    let owner = lab.owner().await;
    let groups = owner.enrollment_groups();
    let created = groups.create(&group_id(), &NewEnrollmentGroup::new(CaReferences::primary(name()))).await;
    assert!(created.expect("created").is_enabled());
    let error = groups.create(&group_id(), &NewEnrollmentGroup::new(CaReferences::primary(name()))).await;
    assert!(matches!(error, Err(Error::AlreadyExists { .. })));
    let updated = groups.update(&group_id(), &disabled()).await.expect("updated");
    assert_eq!(updated.ca_references(), Some(&CaReferences::primary(name())));
    groups.delete(&group_id(), updated.etag.as_ref()).await.expect("deleted");
    assert!(groups.find(&group_id()).await.expect("an answer").is_none());

    let found = certificates.get(&name()).await.expect("a certificate");
    certificates.delete(&name(), &found.etag).await.expect("deleted");
    assert!(certificates.list().try_collect::<Vec<_>>().await.expect("certificates").is_empty());
}

#[tokio::test]
async fn every_step_survives_a_lost_answer() {
    let lab = Lab::start().await;
    let (authority, root) = root();
    let certificates = lab.certificates().await;
    lab.lose("PUT", "certificates");
    lab.lose("POST", "generateVerificationCode");
    lab.lose("POST", "verify");
    enroll(&certificates, &authority, &root).await;

    let groups = lab.owner().await.enrollment_groups();
    lab.lose("PUT", "enrollmentGroups");
    let new = NewEnrollmentGroup::new(CaReferences::primary(name()));
    groups.create(&group_id(), &new).await.expect("created");
    lab.lose("PUT", "enrollmentGroups");
    assert!(!groups.update(&group_id(), &disabled()).await.expect("updated").is_enabled());
    lab.lose("POST", "query");
    assert_eq!(groups.list(&Query::new()).try_collect::<Vec<_>>().await.expect("groups").len(), 1);
    lab.lose("DELETE", "enrollmentGroups");
    groups.delete(&group_id(), None).await.expect("deleted");
    lab.lose("DELETE", "certificates");
    let found = certificates.get(&name()).await.expect("a certificate");
    certificates.delete(&name(), &found.etag).await.expect("deleted");
}

#[tokio::test]
async fn a_stale_etag_is_a_conflict() {
    let lab = Lab::start().await;
    let (_authority, root) = root();
    let certificates = lab.certificates().await;
    let first = certificates.set(&name(), &root, Possession::ToBeProven, None).await.expect("uploaded");
    certificates.generate_verification_code(&name(), &first.etag).await.expect("a code");
    for error in [
        certificates.generate_verification_code(&name(), &first.etag).await.map(drop),
        certificates.verify(&name(), &root, &first.etag).await.map(drop),
        certificates.delete(&name(), &first.etag).await,
        certificates.set(&name(), &root, Possession::Attested, Some(&first.etag)).await.map(drop),
    ] {
        assert_eq!(error.expect_err("stale").status(), Some(412));
    }
    let error = certificates.set(&name(), &root, Possession::ToBeProven, None).await.expect_err("it exists");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
}

#[tokio::test]
async fn concurrent_updates_lose_nothing() {
    let lab = Lab::start().await;
    let groups = lab.owner().await.enrollment_groups();
    groups.create(&group_id(), &NewEnrollmentGroup::new(NewAttestation::SymmetricKey(None))).await.expect("created");
    let keys = groups.attestation(&group_id()).await.expect("an attestation");
    let edge = EnrollmentGroupUpdate::new().settings(EnrollmentSettings::new().iot_edge(true));
    let (one, other) = (disabled(), edge);
    let id = group_id();
    let (one, other) = tokio::join!(groups.update(&id, &one), groups.update(&id, &other));
    one.and(other).expect("both updated");
    let group = groups.get(&group_id()).await.expect("a group");
    assert_eq!((group.is_enabled(), group.settings.iot_edge), (false, Some(true)));
    let kept = groups.attestation(&group_id()).await.expect("an attestation");
    let primary =
        |attestation: &Attestation| attestation.symmetric_keys().expect("keys").primary_key.expose().to_owned();
    assert_eq!(primary(&kept), primary(&keys), "the keys are those from before");
}

#[tokio::test]
async fn a_hidden_certificate_is_not_lost() {
    let lab = Lab::start().await;
    let enrollments = lab.owner().await.individual_enrollments();
    let (_authority, certificate) = root();
    let attestation = NewAttestation::ClientCertificates(NewCertificates::new(certificate));
    enrollments.create(&device(1), &NewIndividualEnrollment::new(attestation.clone())).await.expect("created");
    let update = IndividualEnrollmentUpdate::new().device_id("hub-1".to_owned());
    let error = enrollments.update(&device(1), &update).await.expect_err("refused");
    assert!(matches!(error, Error::WouldRemove { .. }), "{error}");
    let updated = enrollments.update(&device(1), &update.attestation(attestation)).await.expect("updated");
    assert_eq!(updated.device_id.as_deref(), Some("hub-1"));
}

#[tokio::test]
async fn enrollments_are_created_in_bulk_and_listed_in_pages() {
    let lab = Lab::start().await;
    let enrollments = lab.owner().await.individual_enrollments();
    let new = |index| (device(index), NewIndividualEnrollment::new(NewAttestation::SymmetricKey(None)));
    enrollments.create_many(&[new(3)]).await.expect("created");
    let failed = enrollments.create_many(&(0..10).map(new).collect::<Vec<_>>()).await.expect("an answer");
    assert_eq!(failed.iter().map(|error| error.id.as_str()).collect::<Vec<_>>(), ["sensor-3"]);
    let query = Query::new().page_size(NonZeroU32::new(3).expect("not zero"));
    let pages: Vec<_> = enrollments.list_pages(&query).try_collect().await.expect("pages");
    assert!(pages.len() >= 4 && pages.iter().map(Vec::len).sum::<usize>() >= 9, "{}", pages.len());
    let failed = enrollments.delete_many(&[device(3), device(4)]).await.expect("deleted");
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn a_device_of_a_group_registers_and_its_record_is_read_and_deleted() {
    let lab = Lab::with(Emulator::builder().assign_after(0)).await;
    let owner = lab.owner().await;
    let groups = owner.enrollment_groups();
    groups.create(&group_id(), &NewEnrollmentGroup::new(NewAttestation::SymmetricKey(None))).await.expect("created");
    let keys = groups.attestation(&group_id()).await.expect("an attestation");
    let group_key = SymmetricKey::from_base64(keys.symmetric_keys().expect("keys").primary_key.expose());
    let device_id: DeviceId = "Sensor-1".parse().expect("an id");
    let key = derive_device_key(&group_key.expect("a key"), &device_id);
    let service = lab.instance().await.get().await.expect("the instance");
    let registering = RegistrationClient::builder(service.id_scope).endpoint(service.device_endpoint);
    let assignment = registering.build().expect("a client").register(&device_id, &key.into(), None).await;
    let assignment = assignment.expect("an assignment");

    let registrations = owner.registrations();
    let all: Vec<_> = registrations.list(&group_id(), &Query::new()).try_collect().await.expect("registrations");
    assert_eq!((all.len(), &all[0].status), (1, &RegistrationStatus::Assigned));
    assert_eq!(all[0].assigned_hub, Some(assignment.assigned_hub));
    let id = RegistrationId::from(device_id);
    let found = registrations.find(&id).await.expect("an answer").expect("a registration");
    lab.lose("DELETE", "registrations");
    registrations.delete(&id, found.etag.as_ref()).await.expect("deleted");
    assert!(registrations.find(&id).await.expect("an answer").is_none());
}

#[tokio::test]
async fn rights_and_local_authentication_are_told_apart() {
    let lab = Lab::with(Emulator::builder().dps_policy("reader", [DpsRight::EnrollmentRead])).await;
    let reader = lab.client_of("reader").await.enrollment_groups();
    assert!(reader.list(&Query::new()).try_collect::<Vec<_>>().await.expect("groups").is_empty());
    let error = reader.delete(&group_id(), None).await.expect_err("a reader").to_string();
    assert!(error.contains("EnrollmentWrite"), "{error}");
    let policies: Vec<_> = lab.instance().await.policies().try_collect().await.expect("policies");
    let writers: Vec<_> = policies.iter().filter(|policy| policy.has(&AccessRight::EnrollmentWrite)).collect();
    assert_eq!((policies.len(), writers.len(), writers[0].name.as_str()), (2, 1, "provisioningserviceowner"));

    let lab = Lab::with(Emulator::builder().local_auth(false)).await;
    let service = lab.instance().await.get().await.expect("the instance");
    assert!(service.disable_local_auth);
    let connection: ConnectionString = lab.emulator.dps_connection_string().parse().expect("a connection string");
    let keyed = client(service.service_endpoint.clone(), Authorization::from_connection_string(&connection));
    let error = keyed.enrollment_groups().find(&group_id()).await.expect_err("refused").to_string();
    assert!(error.contains("disableLocalAuth"), "{error}");
    let bearer = Authorization::parse(format!("Bearer {}", lab.emulator.arm_token())).expect("a token");
    let entra = client(service.service_endpoint, bearer);
    assert!(entra.enrollment_groups().find(&group_id()).await.expect("an answer").is_none());
}

#[tokio::test]
async fn the_searched_certificates_decide_the_answer() {
    let lab = Lab::start().await;
    let named = |name: &str| InstanceQuery::new(name.parse().expect("a name"));
    let subscription: arm::SubscriptionId = lab.emulator.subscription().parse().expect("an id");
    let group: arm::ResourceGroupName = lab.emulator.resource_group().parse().expect("a name");
    let whole = named("Emulated-DPS").subscription(subscription.clone()).resource_group(group.clone());
    let found = lab.arm.find(&whole).await.expect("the instance");
    assert_eq!(found.id_scope.as_str(), lab.emulator.dps_id_scope());
    assert_eq!((found.is_active(), found.iot_hubs.len()), (true, 1));
    assert_eq!(found.service_endpoint.as_str(), lab.emulator.endpoint());

    let error = lab.arm.find(&named("other")).await.expect_err("none");
    assert!(matches!(error, FindError::NotFound { .. }) && error.to_string().contains("emulated-dps"), "{error}");
    let narrow = named("other").subscription(subscription).resource_group(group);
    assert!(matches!(lab.arm.find(&narrow).await, Err(FindError::NotFound { .. })));
    let elsewhere = "00000000-0000-0000-0000-00000000000f".parse::<arm::SubscriptionId>().expect("an id");
    assert!(matches!(lab.arm.find(&whole.subscription(elsewhere)).await, Err(FindError::NotVisible { .. })));
}
