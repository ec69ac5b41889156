//! `dps show`: an instance, and its use against the limits of the service.

use serde::Serialize;

use super::{
    dps_service::DpsService,
    output::{Output, fields, yes_no},
};
use crate::{
    arm::ProvisioningService,
    dps::service::{AllocationPolicy, Attestation, Client, Query},
};

// The limits of an instance: https://learn.microsoft.com/azure/iot-dps/about-iot-dps#quotas-and-limits
const MAX_CERTIFICATES: usize = 25;
const MAX_HUBS: usize = 50;
/// For X.509 and for symmetric keys each.
const MAX_GROUPS: usize = 100;
const MAX_ENROLLMENTS: usize = 1_000_000;

/// How many individual enrollments are counted at most, because each page is an operation that is billed.
const COUNTED: usize = 1_000;

/// Show an instance and its use against the limits
#[derive(clap::Args)]
#[command(after_help = "Example:\n  iot-enroll dps show --dps contoso-dps")]
pub(super) struct Show {
    #[command(flatten)]
    service: DpsService,
}

/// An instance as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    id: String,
    name: &'a str,
    location: Option<&'a str>,
    state: Option<&'a str>,
    id_scope: &'a str,
    service_endpoint: &'a str,
    device_endpoint: &'a str,
    allocation_policy: Option<&'a str>,
    local_auth: bool,
    public_network_access: Option<&'a str>,
    linked_hubs: Vec<&'a str>,
    usage: Usage,
}

/// How much of each limit is used. What could not be read is missing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    certificates: Used,
    linked_hubs: Used,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509_enrollment_groups: Option<Used>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key_enrollment_groups: Option<Used>,
    #[serde(skip_serializing_if = "Option::is_none")]
    individual_enrollments: Option<Used>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    used: usize,
    limit: usize,
    /// Whether there are more, which were not counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    or_more: bool,
}

impl Used {
    fn new(used: usize, limit: usize) -> Self {
        Self { used, limit, or_more: false }
    }

    fn text(&self) -> String {
        format!("{}{} of {}", self.used, if self.or_more { " or more" } else { "" }, self.limit)
    }
}

impl Show {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        let found = self.service.find().await?;
        let certificates: Vec<_> = found.resource().certificates().list().try_collect().await?;
        let instance = &found.properties;
        let mut usage = Usage {
            certificates: Used::new(certificates.len(), MAX_CERTIFICATES),
            linked_hubs: Used::new(instance.iot_hubs.len(), MAX_HUBS),
            x509_enrollment_groups: None,
            symmetric_key_enrollment_groups: None,
            individual_enrollments: None,
        };
        let read = async { usage.count_enrollments(&self.service.client_of(&found).await?).await };
        if let Err(error) = read.await {
            output.note(format_args!("could not count the enrollments: {error:#}"));
        }
        note_state(instance, output);
        let shown = Shown {
            id: instance.id.to_string(),
            name: instance.id.name.as_str(),
            location: instance.location.as_deref(),
            state: instance.state.as_deref(),
            id_scope: instance.id_scope.as_str(),
            service_endpoint: instance.service_endpoint.as_str(),
            device_endpoint: instance.device_endpoint.as_str(),
            allocation_policy: instance.allocation_policy.as_ref().map(AllocationPolicy::as_str),
            local_auth: !instance.disable_local_auth,
            public_network_access: instance.public_network_access.as_deref(),
            linked_hubs: instance.iot_hubs.iter().map(|hub| hub.host_name.as_str()).collect(),
            usage,
        };
        output.result(&shown, || fields(&rows(&shown)))
    }
}

impl Usage {
    async fn count_enrollments(&mut self, client: &Client) -> anyhow::Result<()> {
        let groups: Vec<_> = client.enrollment_groups().list(&Query::new()).try_collect().await?;
        let with_keys = groups.iter().filter(|group| matches!(group.attestation, Attestation::SymmetricKey(_))).count();
        self.x509_enrollment_groups = Some(Used::new(groups.len() - with_keys, MAX_GROUPS));
        self.symmetric_key_enrollment_groups = Some(Used::new(with_keys, MAX_GROUPS));
        let query = Query::new().limit(COUNTED + 1);
        let enrollments: Vec<_> = client.individual_enrollments().list(&query).try_collect().await?;
        let (used, or_more) = (enrollments.len().min(COUNTED), enrollments.len() > COUNTED);
        self.individual_enrollments = Some(Used { used, limit: MAX_ENROLLMENTS, or_more });
        Ok(())
    }
}

/// Notes a state in which devices cannot register.
fn note_state(instance: &ProvisioningService, output: &Output) {
    if !instance.is_active() {
        let state = instance.state.as_deref().unwrap_or_default();
        output.note(format_args!("the instance is not active: its state is {state}"));
    }
    if instance.iot_hubs.is_empty() {
        output.note("no hub is linked to the instance: devices cannot be assigned");
    }
}

fn rows(shown: &Shown<'_>) -> Vec<(&'static str, String)> {
    let usage = &shown.usage;
    let text = |value: Option<&str>| value.map(str::to_owned);
    let used = |used: Option<&Used>| used.map(Used::text);
    let rows = [
        ("name", Some(shown.name.to_owned())),
        ("id", Some(shown.id.clone())),
        ("location", text(shown.location)),
        ("state", text(shown.state)),
        ("ID scope", Some(shown.id_scope.to_owned())),
        ("service endpoint", Some(shown.service_endpoint.to_owned())),
        ("device endpoint", Some(shown.device_endpoint.to_owned())),
        ("allocation", text(shown.allocation_policy)),
        ("local auth", Some(yes_no(shown.local_auth))),
        ("public access", text(shown.public_network_access)),
        ("hubs", (!shown.linked_hubs.is_empty()).then(|| shown.linked_hubs.join(", "))),
        ("certificates", Some(usage.certificates.text())),
        ("linked hubs", Some(usage.linked_hubs.text())),
        ("X.509 groups", used(usage.x509_enrollment_groups.as_ref())),
        ("symmetric-key groups", used(usage.symmetric_key_enrollment_groups.as_ref())),
        ("individual enrollments", used(usage.individual_enrollments.as_ref())),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
