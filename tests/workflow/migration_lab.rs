//! An emulated application whose devices register by a group's key, the instance that they move to, and a plan.

use std::{num::NonZeroU32, path::PathBuf};

use crate::dps_lab::{DpsLab, RealTime};
use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    central::{self, Authorization, CentralDeviceId, Client, NewEnrollmentGroup as NewCentralGroup, RetryPolicy},
    certificate::DeviceId,
    dps::{
        device::{Credential, RegistrationClient, SymmetricKey, derive_device_key},
        service::{NewAttestation, NewEnrollmentGroup, SymmetricKeys},
    },
    emulator::Emulator,
    workflow::migrate::{MoveReport, MoveRequest, MoveTargets, Plan, PlanRequest, Resend, make_plan, prepare_move},
};

pub(crate) const COMMAND: &str = "migration.DeviceMove";
pub(crate) const GROUP: &str = "sas";

const FAST: NonZeroU32 = NonZeroU32::new(1_000_000).expect("not zero");

pub(crate) struct MigrationLab {
    pub(crate) dps: DpsLab,
}

/// A key that is made of a text.
pub(crate) fn key(text: &str) -> String {
    BASE64_STANDARD.encode(digest::digest(&digest::SHA512, text.as_bytes()))
}

/// A pair of keys that are made of a name.
pub(crate) fn keys(name: &str) -> SymmetricKeys {
    SymmetricKeys { primary_key: key(&format!("{name} 1")).into(), secondary_key: key(&format!("{name} 2")).into() }
}

impl MigrationLab {
    /// Starts an application with a group of symmetric keys.
    pub(crate) async fn start() -> Self {
        let dps = DpsLab::with(Emulator::builder().assign_after(0)).await;
        let lab = Self { dps };
        let groups = lab.client().enrollment_groups();
        groups
            .replace(
                &GROUP.parse().expect("an ID"),
                &NewCentralGroup::x509(GROUP).attestation(central::NewAttestation::SymmetricKey(Some(keys(GROUP)))),
            )
            .await
            .expect("set");
        lab
    }

    pub(crate) fn emulator(&self) -> &Emulator {
        &self.dps.emulator
    }

    /// A client of the application that does not retry.
    pub(crate) fn client(&self) -> Client {
        client_at(&self.emulator().endpoint(), self.emulator().token())
    }

    /// Registers devices at the application by the group's key.
    pub(crate) async fn connect(&self, ids: &[&str]) {
        let client = RegistrationClient::builder(self.emulator().id_scope().parse().expect("a scope"))
            .endpoint(self.emulator().endpoint().parse().expect("an endpoint"))
            .clock(RealTime::clock())
            .build()
            .expect("a client");
        for id in ids {
            client.register(&device_id(id), &credential(id), None).await.expect("registered");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dps.path().join(name)
    }

    /// Makes the plan of the application.
    pub(crate) async fn plan(&self) -> Plan {
        let path = self.path("plan.json");
        let request = PlanRequest::new(&path);
        make_plan(&self.client(), &self.dps.instance(), &request, &mut |_| ()).await.expect("a plan");
        Plan::read(path).expect("a plan")
    }

    /// Creates the group at the instance, with the same keys.
    pub(crate) async fn create_group(&self) {
        self.create_group_with(keys(GROUP)).await;
    }

    async fn create_group_with(&self, keys: SymmetricKeys) {
        let groups = self.dps.instance().client().enrollment_groups();
        let group = NewEnrollmentGroup::new(NewAttestation::SymmetricKey(Some(keys)));
        groups.create(&GROUP.parse().expect("an ID"), &group).await.expect("created");
    }

    /// Creates the group at the instance with other keys.
    pub(crate) async fn create_group_with_other_keys(&self) {
        self.create_group_with(keys("other")).await;
    }

    /// Sends devices to the instance.
    pub(crate) async fn run(&self, plan: &Plan, request: &MoveRequest) -> MoveReport {
        let prepared = prepare_move(&self.client(), &self.dps.instance(), plan, request).await.expect("prepared");
        prepared.run(&mut |_| ()).await
    }

    pub(crate) async fn send(&self, plan: &Plan, ids: &[&str]) -> MoveReport {
        self.run(plan, &request(plan, ids)).await
    }

    pub(crate) async fn resend(&self, plan: &Plan, ids: &[&str], resend: Resend) -> MoveReport {
        self.run(plan, &request(plan, ids).resend(resend)).await
    }

    /// The number of commands that reached a device.
    pub(crate) fn received(&self, id: &str) -> usize {
        let path = format!("/api/devices/{id}/components/migration/commands/DeviceMove");
        let requests = self.emulator().requests();
        requests.iter().filter(|it| it.method == "POST" && it.path == path && it.status != Some(404)).count()
    }

    /// The last outcome of a device in the results file.
    pub(crate) fn outcome(&self, id: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path("plan.moves.csv")).expect("results");
        let mut rows = text.lines().filter(|line| line.starts_with(&format!("{id},")));
        rows.next_back().and_then(|line| line.split(',').nth(1)).map(str::to_owned)
    }
}

pub(crate) fn device_id(id: &str) -> DeviceId {
    id.parse().expect("an ID")
}

/// A client that does not retry.
pub(crate) fn client_at(url: &str, token: &str) -> Client {
    Client::builder(url.parse::<central::Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(token.to_owned()).expect("a token"))
        .rate(FAST)
        .retry(RetryPolicy::none())
        .build()
        .expect("a client")
}

/// The credential of a device of the group.
fn credential(id: &str) -> Credential {
    let key = SymmetricKey::from_base64(&key(&format!("{GROUP} 1"))).expect("a key");
    derive_device_key(&key, &device_id(id)).into()
}

pub(crate) fn request(plan: &Plan, ids: &[&str]) -> MoveRequest {
    let ids = ids.iter().map(|id| CentralDeviceId::new(*id).expect("an ID")).collect();
    MoveRequest::new(plan, MoveTargets::Devices(ids), COMMAND.parse().expect("a command"))
}
