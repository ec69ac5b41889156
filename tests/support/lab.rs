//! An emulator, a directory, and the request that provisions the one from the other.
#![allow(dead_code, reason = "each test uses its part")]

use std::{collections::BTreeMap, fs, path::Path};

use iot_enroll::{
    central::{
        Authorization, CertificateEntry, Client, ClientBuilder, Endpoint, EnrollmentGroupId, NewEnrollmentGroup,
        Possession, SigningCertificate,
    },
    certificate::{
        Certificate, CertificateAuthority, CommonName, IssueOptions, IssuedCertificate, Lifetime, Timestamp,
        files::{FileSet, IfExists},
    },
    emulator::{Emulator, Fault, FaultKind},
    workflow::{AuthoritySource, ProvisionError, ProvisionReport, ProvisionRequest, provision},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{DAY, clock::ManualClock};

pub(crate) const ROOT: &str = "mytestrootcert";
pub(crate) const DEVICE: &str = "sample-device-01";

pub(crate) struct Lab {
    pub(crate) emulator: Emulator,
    pub(crate) directory: TempDir,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let emulator = Emulator::builder().start().await.expect("a free loopback port");
        Self { emulator, directory: super::temporary_directory() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A client whose waiting takes no time.
    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.emulator.endpoint().parse::<Endpoint>().expect("an endpoint"))
            .authorization(Authorization::parse(self.emulator.token().to_owned()).expect("a token"))
            .clock(ManualClock::new())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().expect("a client")
    }

    /// The root [`ROOT`] in the directory for the group `myx509eg`, and the device [`DEVICE`].
    pub(crate) fn request(&self) -> ProvisionRequest<'static> {
        ProvisionRequest::new("myx509eg".parse().expect("an id"), AuthoritySource::Root(name(ROOT)))
            .devices([DEVICE.parse().expect("an id")])
            .directory(self.path())
    }

    pub(crate) async fn run(&self, request: &ProvisionRequest<'_>) -> Result<ProvisionReport, ProvisionError> {
        provision(&self.client(), request, &mut |_| ()).await
    }

    /// Runs and holds the run to changing nothing: not the service, not a file.
    pub(crate) async fn run_without_a_change(
        &self,
        request: &ProvisionRequest<'_>,
    ) -> Result<ProvisionReport, ProvisionError> {
        let before = (self.service().await, files(self.path()));
        let count = self.emulator.requests().len();
        let result = self.run(request).await;
        let sent: Vec<_> = self.emulator.requests().drain(count..).collect();
        assert!(sent.iter().all(|request| request.method == "GET"), "{sent:?}");
        assert_eq!((self.service().await, files(self.path())), before);
        result
    }

    /// All that the service holds, etags included.
    pub(crate) async fn service(&self) -> Value {
        let groups: Vec<_> = self.client().enrollment_groups().list().try_collect().await.expect("the groups");
        serde_json::to_value(groups).expect("JSON")
    }

    /// Creates the group that [`request`](Self::request) names.
    pub(crate) async fn group(&self, group: &NewEnrollmentGroup) {
        self.client().enrollment_groups().replace(&group_id(), group).await.expect("created");
    }

    pub(crate) async fn entry(&self, entry: CertificateEntry) -> Option<SigningCertificate> {
        self.client().enrollment_groups().find_certificate(&group_id(), entry).await.expect("an answer")
    }

    pub(crate) async fn set(&self, entry: CertificateEntry, certificate: &Certificate, verified: bool) {
        let groups = self.client().enrollment_groups();
        let possession = if verified { Possession::Attested } else { Possession::ToBeProven };
        groups.set_certificate(&group_id(), entry, certificate, possession, None).await.expect("set");
    }

    /// The group with this certificate as primary.
    pub(crate) async fn holding(&self, certificate: &Certificate, verified: bool) {
        self.group(&NewEnrollmentGroup::x509("Mine")).await;
        self.set(CertificateEntry::Primary, certificate, verified).await;
    }

    /// The root's files, as an earlier run left them.
    pub(crate) fn write_root(&self) -> Certificate {
        let root = new_root(ROOT);
        write(self.path(), ROOT, &root);
        root.certificate
    }

    /// Makes the request with this number fail, counted from the next.
    pub(crate) fn fault_at(&self, number: usize, kind: &FaultKind, times: u32) {
        let inject = |fault| self.emulator.inject(fault).expect("a fault that can be carried out");
        for _ in 0..number {
            inject(Fault::new(FaultKind::Delay(std::time::Duration::ZERO)));
        }
        inject(Fault::new(kind.clone()).times(times));
    }
}

/// The group of [`Lab::request`].
pub(crate) fn group_id() -> EnrollmentGroupId {
    "myx509eg".parse().expect("an id")
}

pub(crate) fn name(text: &str) -> CommonName {
    CommonName::new(text).expect("a common name")
}

pub(crate) fn new_root(text: &str) -> IssuedCertificate {
    CertificateAuthority::new_root(&name(text), &IssueOptions::default()).expect("a root")
}

/// A certificate that ended yesterday can be made only by a root that is older.
pub(crate) fn days_ago(days: u32, lifetime: u32) -> IssueOptions {
    IssueOptions::new().at(Timestamp::now() - DAY * days).lifetime(Lifetime::Days(lifetime))
}

pub(crate) fn set(directory: &Path, text: &str) -> FileSet {
    FileSet::new(directory, &name(text)).expect("a file name")
}

pub(crate) fn write(directory: &Path, text: &str, issued: &IssuedCertificate) {
    set(directory, text).write(issued, None, IfExists::Fail).expect("written");
}

/// Every file of a directory that is not hidden.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("read").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), entry.path()));
    named.filter(|(name, _)| !name.starts_with('.')).map(|(name, path)| (name, fs::read(path).expect("read"))).collect()
}
