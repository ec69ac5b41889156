//! An emulated instance of the Device Provisioning Service, a directory, and the request that provisions the one from the
//! other.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::support::lab::{DEVICE, ROOT, files, name, new_root, write};
use iot_enroll::{
    arm::{self, Authorization, Clock, DpsCertificate, InstanceQuery, Possession, ProvisioningService},
    certificate::{Certificate, Thumbprint},
    dps::{
        DpsCertificateName,
        device::RegistrationClient,
        service::{
            self, Attestation, CaReferences, EnrollmentGroup, EnrollmentGroupId, NewEnrollmentGroup, Query, RetryPolicy,
        },
    },
    emulator::{Builder, Emulator, Fault, FaultKind, RequestRecord},
    workflow::{AuthoritySource, DpsInstance, ProvisionError, ProvisionReport, ProvisionRequest, provision},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A clock that shows the time, by which tokens are signed, and that nobody waits for.
#[derive(Default)]
pub(crate) struct RealTime(Arc<Mutex<Duration>>);

impl RealTime {
    pub(crate) fn clock() -> Arc<Self> {
        Arc::default()
    }
}

impl Clock for RealTime {
    fn elapsed(&self) -> Duration {
        *self.0.lock().expect("clock")
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let elapsed = Arc::clone(&self.0);
        Box::pin(async move { *elapsed.lock().expect("clock") += duration })
    }
}

pub(crate) struct DpsLab {
    pub(crate) emulator: Emulator,
    pub(crate) directory: TempDir,
    pub(crate) properties: ProvisioningService,
    arm: arm::Client,
    client: service::Client,
}

impl DpsLab {
    pub(crate) async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let emulator = builder.start().await.expect("a free loopback port");
        let directory = crate::support::temporary_directory();
        let query = InstanceQuery::new(emulator.dps_name().parse().expect("a name"));
        let arm = arm_client(&emulator, RetryPolicy::default());
        let properties = arm.find(&query).await.expect("the instance");
        let client = service_client(&emulator, &properties, RetryPolicy::default());
        Self { emulator, directory, properties, arm, client }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The instance, with clients whose waiting takes no time.
    pub(crate) fn instance(&self) -> DpsInstance {
        DpsInstance::new(&self.arm, self.properties.clone(), self.client.clone())
    }

    /// The instance, with clients of its own, as another program has it.
    pub(crate) fn another_instance(&self) -> DpsInstance {
        let client = service_client(&self.emulator, &self.properties, RetryPolicy::default());
        DpsInstance::new(&arm_client(&self.emulator, RetryPolicy::default()), self.properties.clone(), client)
    }

    /// The instance, as if both of its APIs were served at this address.
    pub(crate) fn instance_at(&self, url: &str) -> DpsInstance {
        let arm = arm::Client::builder(url.parse().expect("an endpoint"))
            .authorization(Authorization::parse("Bearer arm").expect("a token"))
            .build()
            .expect("a client");
        let client = service::Client::builder(url.parse().expect("an endpoint"))
            .authorization(Authorization::parse("Bearer dps").expect("a token"))
            .build()
            .expect("a client");
        DpsInstance::new(&arm, self.properties.clone(), client)
    }

    /// The instance, with clients that do not retry.
    pub(crate) fn instance_without_retries(&self) -> DpsInstance {
        let client = service_client(&self.emulator, &self.properties, RetryPolicy::none());
        DpsInstance::new(&arm_client(&self.emulator, RetryPolicy::none()), self.properties.clone(), client)
    }

    /// A client with which devices register at the instance.
    pub(crate) fn registration(&self) -> RegistrationClient {
        let mut client = RegistrationClient::builder(self.properties.id_scope.clone())
            .endpoint(self.properties.device_endpoint.clone())
            .clock(RealTime::clock());
        if let Some(root) = self.emulator.ca_pem() {
            client = client.add_root_certificate(root.as_bytes()).expect("a root");
        }
        client.build().expect("a client")
    }

    /// The root [`ROOT`] in the directory for the group `myx509eg`, and the device [`DEVICE`].
    pub(crate) fn request(&self) -> ProvisionRequest<'static> {
        ProvisionRequest::new("myx509eg".parse().expect("an id"), AuthoritySource::Root(name(ROOT)))
            .devices([DEVICE.parse().expect("an id")])
            .directory(self.path())
    }

    pub(crate) async fn run(&self, request: &ProvisionRequest<'_>) -> Result<ProvisionReport, ProvisionError> {
        provision(&self.instance(), request, &mut |_| ()).await
    }

    /// Runs and checks that the run changes nothing: not the service, not a file.
    pub(crate) async fn run_without_a_change(
        &self,
        request: &ProvisionRequest<'_>,
    ) -> Result<ProvisionReport, ProvisionError> {
        let before = (self.state().await, files(self.path()));
        let count = self.emulator.requests().len();
        let result = self.run(request).await;
        let sent: Vec<_> = self.emulator.requests().drain(count..).collect();
        assert!(!sent.iter().any(is_change), "{sent:?}");
        assert_eq!((self.state().await, files(self.path())), before);
        result
    }

    /// All that the service has, etags included.
    pub(crate) async fn state(&self) -> Value {
        let enrollments = self.instance().client().individual_enrollments();
        let enrollments: Vec<_> = enrollments.list(&Query::new()).try_collect().await.expect("the enrollments");
        let certificates: Vec<_> = self.certificates().await.iter().map(|it| format!("{it:?}")).collect();
        json!([self.groups().await, enrollments, certificates])
    }

    pub(crate) async fn groups(&self) -> Vec<EnrollmentGroup> {
        self.instance().client().enrollment_groups().list(&Query::new()).try_collect().await.expect("the groups")
    }

    pub(crate) async fn certificates(&self) -> Vec<DpsCertificate> {
        self.instance().resource().certificates().list().try_collect().await.expect("the certificates")
    }

    /// The group that [`request`](Self::request) names.
    pub(crate) async fn group(&self) -> Option<EnrollmentGroup> {
        self.instance().client().enrollment_groups().find(&group_id()).await.expect("an answer")
    }

    /// The thumbprints of the certificates that the group refers to, and whether they are verified.
    pub(crate) async fn entries(&self) -> [Option<(Thumbprint, bool)>; 2] {
        let group = self.group().await.expect("the group");
        let Attestation::CaReferences(references) = &group.attestation else { panic!("{group:?}") };
        let certificates = self.certificates().await;
        [&references.primary, &references.secondary].map(|name| {
            let found = certificates.iter().find(|it| Some(&it.name) == name.as_ref())?;
            Some((found.sha1_thumbprint.expect("a thumbprint"), found.is_verified))
        })
    }

    /// Uploads a certificate.
    pub(crate) async fn upload(&self, name: &str, certificate: &Certificate, verified: bool) -> DpsCertificateName {
        let name: DpsCertificateName = name.parse().expect("a name");
        let possession = if verified { Possession::Attested } else { Possession::ToBeProven };
        let certificates = self.instance().resource().certificates();
        certificates.set(&name, certificate, possession, None).await.expect("uploaded");
        name
    }

    /// Creates a group that refers to certificates.
    pub(crate) async fn create_group(&self, id: &str, primary: &DpsCertificateName) {
        let group = NewEnrollmentGroup::new(CaReferences::primary(primary.clone()));
        self.instance()
            .client()
            .enrollment_groups()
            .create(&id.parse().expect("an id"), &group)
            .await
            .expect("created");
    }

    /// Writes the root's files, as an earlier run left them.
    pub(crate) fn write_root(&self) -> Certificate {
        let root = new_root(ROOT);
        write(self.path(), ROOT, &root);
        root.certificate
    }

    /// Makes the request with this number fail, counted from the next.
    pub(crate) fn fault_at(&self, number: usize, kind: &FaultKind, times: u32) {
        let inject = |fault| self.emulator.inject(fault).expect("a fault that can be carried out");
        for _ in 0..number {
            inject(Fault::new(FaultKind::Delay(Duration::ZERO)));
        }
        inject(Fault::new(kind.clone()).times(times));
    }
}

fn arm_client(emulator: &Emulator, retry: RetryPolicy) -> arm::Client {
    let mut client = arm::Client::builder(emulator.endpoint().parse().expect("an endpoint"))
        .authorization(Authorization::parse(format!("Bearer {}", emulator.arm_token())).expect("a token"))
        .retry(retry)
        .clock(RealTime::clock());
    if let Some(root) = emulator.ca_pem() {
        client = client.add_root_certificate(root.as_bytes()).expect("a root");
    }
    client.build().expect("a client")
}

fn service_client(emulator: &Emulator, properties: &ProvisioningService, retry: RetryPolicy) -> service::Client {
    let connection = emulator.dps_connection_string().parse().expect("a connection string");
    let mut client = service::Client::builder(properties.service_endpoint.clone())
        .authorization(Authorization::from_connection_string(&connection))
        .retry(retry)
        .clock(RealTime::clock());
    if let Some(root) = emulator.ca_pem() {
        client = client.add_root_certificate(root.as_bytes()).expect("a root");
    }
    client.build().expect("a client")
}

/// The group of [`DpsLab::request`].
pub(crate) fn group_id() -> EnrollmentGroupId {
    "myx509eg".parse().expect("an id")
}

/// Returns whether a request may have changed something.
pub(crate) fn is_change(request: &RequestRecord) -> bool {
    request.method != "GET" && !(request.method == "POST" && request.path.ends_with("/query"))
}
