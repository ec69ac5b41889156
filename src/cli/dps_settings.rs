//! What enrollment groups and individual enrollments of DPS share: settings, and symmetric keys.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    args::{Confirmation, PfxPassword},
    input::{parse_json, read, symmetric_keys},
    output::yes_no,
    provision::DeviceKind,
};
use crate::dps::service::{
    AllocationPolicy, Attestation, CertificateInfo, Change, EnrolledCertificates, EnrollmentSettings, InitialTwin,
    NewAttestation, NewCertificates, Query, ReprovisionPolicy,
};

/// Settings of an enrollment. Those that are not given are the service's, or stay unchanged.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// Type of the devices [default: iot for a new enrollment]
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<DeviceKind>,
    /// Hub to assign devices to, may be repeated [default: all linked hubs]
    #[arg(long = "hub", value_name = "HOST", value_parser = host)]
    hubs: Vec<String>,
    /// Assign devices to all linked hubs
    #[arg(long, conflicts_with = "hubs")]
    all_hubs: bool,
    /// How a hub is chosen [default: the policy of the instance]
    #[arg(long, value_name = "POLICY")]
    allocation_policy: Option<Allocation>,
    /// What happens when a device registers again [default: migrate]
    #[arg(long, value_name = "POLICY")]
    reprovision_policy: Option<Reprovision>,
    /// JSON file with the initial twin: tags and desired properties
    ///
    /// For example {"tags": {}, "properties": {"desired": {}}}.
    #[arg(long, value_name = "JSON")]
    initial_twin: Option<PathBuf>,
}

/// How a hub is chosen. A function that chooses (custom) has a URL with a key in it, and cannot be set here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Allocation {
    /// Evenly, by the weights of the hubs
    Hashed,
    /// The hub with the lowest latency
    #[value(alias = "geoLatency")]
    GeoLatency,
    /// The first hub of the list
    Static,
}

/// What happens when a device registers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reprovision {
    /// It can be assigned to another hub, and its data moves with it
    Migrate,
    /// It can be assigned to another hub, and starts with the initial twin
    Reset,
    /// It stays at its hub
    Never,
}

impl Settings {
    /// Returns whether no setting is given.
    pub(super) fn is_empty(&self) -> bool {
        self.device_type.is_none()
            && self.hubs.is_empty()
            && !self.all_hubs
            && self.allocation_policy.is_none()
            && self.reprovision_policy.is_none()
            && self.initial_twin.is_none()
    }

    /// Asks for confirmation if the new allocation policy removes the function of an enrollment: the URL of the function
    /// contains a key, so that no option can set it again. `enrollment` names the enrollment.
    pub(super) fn confirm_allocation_policy(
        &self,
        existing: &EnrollmentSettings,
        confirmation: &Confirmation,
        enrollment: &str,
    ) -> anyhow::Result<()> {
        if !self.has_allocation_policy() || existing.custom_allocation.is_none() {
            return Ok(());
        }
        confirmation.ask(&format!("remove the allocation function of {enrollment}, which no option can set again?"))
    }

    /// Returns whether an allocation policy is given.
    pub(super) fn has_allocation_policy(&self) -> bool {
        self.allocation_policy.is_some()
    }

    pub(super) fn read(self, enabled: Option<bool>) -> anyhow::Result<EnrollmentSettings> {
        let twin = self.initial_twin.as_deref().map(read_twin).transpose()?;
        Ok(EnrollmentSettings::new()
            .enabled(enabled)
            .iot_edge(self.device_type.map(|kind| kind == DeviceKind::IotEdge))
            .iot_hubs((self.all_hubs || !self.hubs.is_empty()).then_some(self.hubs))
            .allocation_policy(self.allocation_policy.map(|policy| match policy {
                Allocation::Hashed => AllocationPolicy::Hashed,
                Allocation::GeoLatency => AllocationPolicy::GeoLatency,
                Allocation::Static => AllocationPolicy::Static,
            }))
            .reprovision_policy(self.reprovision_policy.map(|policy| {
                let (update_hub_assignment, migrate_device_data) = match policy {
                    Reprovision::Migrate => (true, true),
                    Reprovision::Reset => (true, false),
                    Reprovision::Never => (false, false),
                };
                ReprovisionPolicy::default()
                    .update_hub_assignment(update_hub_assignment)
                    .migrate_device_data(migrate_device_data)
            }))
            .initial_twin(twin))
    }
}

/// Reads an initial twin. The service ignores members that it does not know, so they are errors here.
fn read_twin(file: &Path) -> anyhow::Result<InitialTwin> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Twin {
        tags: Option<Map<String, Value>>,
        properties: Option<Properties>,
    }
    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Properties {
        desired: Option<Map<String, Value>>,
    }
    const EXPECTED: &str = "an initial twin, such as {\"tags\": {}, \"properties\": {\"desired\": {}}}";

    let Twin { tags, properties } = parse_json(file, &read(file)?, EXPECTED)?;
    let twin = InitialTwin::default().tags(tags).desired(properties.unwrap_or_default().desired);
    let file = file.display();
    if twin == InitialTwin::default() {
        bail!("{file} does not hold {EXPECTED}");
    }
    if let Some(member) = twin.reserved_member() {
        bail!(
            "the initial twin in {file} has a member {member}, a name that the service uses for its own metadata: rename it"
        );
    }
    Ok(twin)
}

/// Parses the host name of a hub.
fn host(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("the host name is empty; an update with --all-hubs removes the restriction to some hubs".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Symmetric keys as the attestation of an enrollment.
#[derive(clap::Args)]
pub(super) struct SymmetricKeyArgs {
    /// Attest with a symmetric key
    #[arg(long)]
    symmetric_key: bool,
    /// File with the primary and secondary symmetric key in base64, one a line
    ///
    /// By default the service generates the keys.
    #[arg(long, value_name = "FILE", requires = "symmetric_key")]
    keys_file: Option<PathBuf>,
}

impl SymmetricKeyArgs {
    pub(super) fn attestation(&self) -> anyhow::Result<Option<NewAttestation>> {
        let keys = self.keys_file.as_deref().map(symmetric_keys).transpose()?;
        Ok(self.symmetric_key.then_some(NewAttestation::SymmetricKey(keys)))
    }
}

/// Reads the certificates of an enrollment; of a file with several, the first.
pub(super) fn read_certificates(
    primary: &Path,
    secondary: &Change<&Path>,
    password: &PfxPassword,
) -> anyhow::Result<NewCertificates> {
    let first = |file: &Path| Ok::<_, anyhow::Error>(password.read_certificates(file)?.swap_remove(0));
    let secondary = match secondary {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(file) => Change::Set(first(file)?),
    };
    Ok(NewCertificates::new(first(primary)?).secondary(secondary))
}

/// Returns the change that two options describe: one with the new value, and one that removes it.
pub(super) fn change<T>(value: Option<T>, clear: bool) -> Change<T> {
    match value {
        Some(value) => Change::Set(value),
        None if clear => Change::Clear,
        None => Change::Keep,
    }
}

/// Returns the query of a list.
pub(super) fn query(top: Option<usize>) -> Query {
    top.map_or_else(Query::new, |top| Query::new().limit(top))
}

/// Describes an attestation in a word.
pub(super) fn attestation_kind(attestation: &Attestation) -> String {
    match attestation {
        Attestation::CaReferences(_) => "x509 (CA)".to_owned(),
        Attestation::SigningCertificates(_) => "x509 (intermediate)".to_owned(),
        other => other.kind().to_owned(),
    }
}

/// Returns the rows that describe an attestation.
pub(super) fn attestation_rows(attestation: &Attestation) -> Vec<(&'static str, String)> {
    let mut rows = vec![("attestation", attestation_kind(attestation))];
    match attestation {
        Attestation::CaReferences(names) => {
            let text = |name: &Option<_>| name.as_ref().map_or("empty".to_owned(), ToString::to_string);
            rows.extend([("primary", text(&names.primary)), ("secondary", text(&names.secondary))]);
        }
        Attestation::SigningCertificates(EnrolledCertificates { primary, secondary, .. })
        | Attestation::ClientCertificates(EnrolledCertificates { primary, secondary, .. }) => {
            let text = |info: &Option<CertificateInfo>| info.as_ref().map_or("empty".to_owned(), certificate);
            rows.extend([("primary", text(primary)), ("secondary", text(secondary))]);
        }
        _ => {}
    }
    rows
}

fn certificate(info: &CertificateInfo) -> String {
    let thumbprint = info.sha1_thumbprint.map(|thumbprint| thumbprint.to_string());
    let subject = info.subject_name.clone();
    let until = info.not_after.map(|until| format!("valid until {until}"));
    [thumbprint, subject, until].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Returns the rows that describe settings.
pub(super) fn setting_rows(settings: &EnrollmentSettings) -> Vec<(&'static str, String)> {
    let reprovision = |policy: ReprovisionPolicy| match (policy.update_hub_assignment, policy.migrate_device_data) {
        (true, true) => "migrate",
        (true, false) => "reset",
        (false, _) => "never",
    };
    let hubs = settings.iot_hubs.as_ref().filter(|hubs| !hubs.is_empty()).map(|hubs| hubs.join(", "));
    let rows = [
        ("enabled", Some(yes_no(settings.enabled.unwrap_or(true)))),
        ("type", settings.iot_edge.map(|edge| if edge { "iotEdge" } else { "iot" }.to_owned())),
        ("allocation", settings.allocation_policy.as_ref().map(ToString::to_string)),
        ("reprovision", settings.reprovision_policy.map(|policy| reprovision(policy).to_owned())),
        ("hubs", hubs),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
