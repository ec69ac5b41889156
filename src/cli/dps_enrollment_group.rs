//! `dps enrollment-group`: enrollment groups of an instance.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::{
    args::{Confirmation, PfxPassword, count, etag},
    dps_service::DpsService,
    dps_settings::{
        Settings, SymmetricKeyArgs, attestation_kind, attestation_rows, change, query, read_certificates, setting_rows,
    },
    error::UsageError,
    output::{Output, fields, table, yes_no},
};
use crate::dps::service::{
    CaReferences, DpsCertificateName, EnrollmentGroup, EnrollmentGroupId, EnrollmentGroupUpdate, Etag, NewAttestation,
    NewEnrollmentGroup,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List enrollment groups
    #[command(after_help = "Example:\n  iot-enroll dps enrollment-group list --dps contoso-dps")]
    List {
        /// Maximum number of groups to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: DpsService,
    },
    /// Show an enrollment group
    #[command(after_help = "Example:\n  iot-enroll dps enrollment-group show myx509eg --dps contoso-dps")]
    Show {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        #[command(flatten)]
        service: DpsService,
    },
    Create(Box<Create>),
    Update(Box<Update>),
    /// Delete an enrollment group
    ///
    /// Devices can no longer register through it. Those that are assigned stay connected.
    #[command(after_help = "Example:\n  iot-enroll dps enrollment-group delete myx509eg --dps contoso-dps")]
    Delete {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        /// Delete the group only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: DpsService,
    },
    /// Print the symmetric keys of an enrollment group
    #[command(after_help = "Example:\n  iot-enroll dps enrollment-group keys mykeyeg --dps contoso-dps")]
    Keys {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        #[command(flatten)]
        service: DpsService,
    },
}

/// How the devices of a group prove their identity.
#[derive(clap::Args)]
struct AttestationArgs {
    /// Name of a CA certificate of the instance, as dps certificate lists it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["signing_certificate", "symmetric_key"])]
    certificate: Option<DpsCertificateName>,
    /// Name of a second one, so that devices under either can register
    #[arg(long, value_name = "NAME", conflicts_with_all = ["signing_certificate", "symmetric_key"])]
    secondary_certificate: Option<DpsCertificateName>,
    /// Certificate of an intermediate CA under a verified certificate of the instance
    #[arg(long, value_name = "FILE", conflicts_with = "symmetric_key")]
    signing_certificate: Option<PathBuf>,
    /// Certificate of a second intermediate CA
    #[arg(long, value_name = "FILE", requires = "signing_certificate")]
    secondary_signing_certificate: Option<PathBuf>,
    #[command(flatten)]
    keys: SymmetricKeyArgs,
    #[command(flatten)]
    pfx_password: PfxPassword,
}

/// Create an enrollment group
///
/// Devices of the group present a certificate under one of its CAs, or a key derived from its symmetric key. A CA certificate
/// of the instance must be verified before devices can register: provision does all of it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll dps enrollment-group create myx509eg --certificate root-2026 --dps contoso-dps
  iot-enroll dps enrollment-group create mykeyeg --symmetric-key --dps contoso-dps")]
pub(super) struct Create {
    /// ID of the enrollment group
    id: EnrollmentGroupId,
    #[command(flatten)]
    attestation: AttestationArgs,
    /// Do not let devices register through the group
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    service: DpsService,
}

/// Update an enrollment group
///
/// Values that are not given stay unchanged. A group with certificates of intermediate CAs is updated together with
/// --signing-certificate, and --secondary-signing-certificate if it has two, because the service does not return them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll dps enrollment-group update myx509eg --enabled false --dps contoso-dps
  iot-enroll dps enrollment-group update myx509eg --secondary-certificate root-2027 --dps contoso-dps")]
pub(super) struct Update {
    /// ID of the enrollment group
    id: EnrollmentGroupId,
    #[command(flatten)]
    attestation: AttestationArgs,
    /// Remove the second certificate of the group
    ///
    /// Together with --signing-certificate, the second one of an intermediate CA.
    #[arg(long, conflicts_with_all = ["secondary_certificate", "secondary_signing_certificate", "symmetric_key"])]
    clear_secondary_certificate: bool,
    /// Whether devices may register through the group
    #[arg(long, value_name = "BOOLEAN")]
    enabled: Option<bool>,
    #[command(flatten)]
    settings: Settings,
    /// Update the group only if it still has this etag
    #[arg(long, value_parser = etag)]
    etag: Option<Etag>,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    service: DpsService,
}

impl Command {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let groups = service.client().await?.enrollment_groups();
                let found: Vec<_> = groups.list(&query(top)).try_collect().await?;
                output.result(&found, || list(&found))
            }
            Self::Show { id, service } => show(&service.client().await?.enrollment_groups().get(&id).await?, output),
            Self::Create(create) => create.run(output).await,
            Self::Update(update) => update.run(output).await,
            Self::Delete { id, etag, confirmation, service } => {
                confirmation.ask(&format!("delete the enrollment group {id}?"))?;
                service.client().await?.enrollment_groups().delete(&id, etag.as_ref()).await?;
                output.result(&json!({ "enrollmentGroupId": id, "deleted": true }), || {
                    format!("Deleted the enrollment group {id}.")
                })
            }
            Self::Keys { id, service } => {
                let attestation = service.client().await?.enrollment_groups().attestation(&id).await?;
                let Some(keys) = attestation.symmetric_keys() else {
                    bail!("the enrollment group {id} has no symmetric keys: its attestation is {}", attestation.kind());
                };
                let (primary, secondary) = (keys.primary_key.expose(), keys.secondary_key.expose());
                let value = json!({ "enrollmentGroupId": id, "primaryKey": primary, "secondaryKey": secondary });
                output.result(&value, || {
                    fields(&[("primary key", primary.to_owned()), ("secondary key", secondary.to_owned())])
                })
            }
        }
    }
}

impl AttestationArgs {
    /// Returns the new attestation, if one is given. An update keeps the reference that is not given.
    fn read(self, earlier: Option<CaReferences>, clear_secondary: bool) -> anyhow::Result<Option<NewAttestation>> {
        if let Some(file) = &self.signing_certificate {
            let secondary = change(self.secondary_signing_certificate.as_deref(), clear_secondary);
            let certificates = read_certificates(file, &secondary, &self.pfx_password)?;
            return Ok(Some(NewAttestation::SigningCertificates(certificates)));
        }
        if self.certificate.is_none() && self.secondary_certificate.is_none() && earlier.is_none() {
            return self.keys.attestation();
        }
        let earlier = earlier.unwrap_or_default();
        let names = CaReferences {
            primary: self.certificate.or(earlier.primary),
            secondary: self.secondary_certificate.or(earlier.secondary),
        };
        Ok(Some(NewAttestation::CaReferences(names)))
    }
}

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Some(attestation) = self.attestation.read(None, false)? else {
            let hint = "use --certificate NAME, --signing-certificate FILE or --symmetric-key";
            return Err(UsageError::new("no attestation of the enrollment group given").with_hint(hint).into());
        };
        let group = NewEnrollmentGroup::new(attestation).settings(self.settings.read(Some(!self.disabled))?);
        show(&self.service.client().await?.enrollment_groups().create(&self.id, &group).await?, output)
    }
}

impl Update {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let is_empty = self.settings.is_empty() && self.enabled.is_none();
        let groups = self.service.client().await?.enrollment_groups();
        if self.settings.has_allocation_policy() {
            let existing = groups.get(&self.id).await?.settings;
            let name = format!("the enrollment group {}", self.id);
            self.settings.confirm_allocation_policy(&existing, &self.confirmation, &name)?;
        }
        let settings = self.settings.read(self.enabled)?;
        let mut etag = self.etag;
        let changed = [self.attestation.certificate.is_some(), self.attestation.secondary_certificate.is_some()];
        let mut earlier = None;
        let clears_reference = self.clear_secondary_certificate && self.attestation.signing_certificate.is_none();
        if clears_reference || changed[0] != changed[1] {
            let group = groups.get(&self.id).await?;
            // Only --certificate replaces an attestation of another kind.
            if self.attestation.certificate.is_none() && group.ca_references().is_none() {
                let hint = "--certificate NAME replaces its attestation; --signing-certificate FILE changes the \
                            certificates of intermediate CAs";
                let kind = attestation_kind(&group.attestation);
                let message = format!(
                    "the enrollment group {} refers to no CA certificate of the instance: its attestation is {kind}",
                    self.id
                );
                return Err(UsageError::new(message).with_hint(hint).into());
            }
            let mut names = group.ca_references().cloned().unwrap_or_default();
            if self.clear_secondary_certificate {
                names.secondary = None;
            }
            earlier = Some(names);
            // The reference that is kept must be the one that was read.
            etag = etag.or(group.etag);
        }
        let attestation = self.attestation.read(earlier, self.clear_secondary_certificate)?;
        if is_empty && attestation.is_none() {
            return Err(UsageError::new("the update changes nothing: give at least one new value").into());
        }
        let update = EnrollmentGroupUpdate::new().attestation(attestation).settings(settings).etag(etag);
        show(&groups.update(&self.id, &update).await?, output)
    }
}

fn list(groups: &[EnrollmentGroup]) -> String {
    let rows = groups.iter().map(|group| {
        let names = group.ca_references().map(|names| names.names().map(ToString::to_string).collect::<Vec<_>>());
        [
            group.id.to_string(),
            attestation_kind(&group.attestation),
            names.unwrap_or_default().join(", "),
            yes_no(group.is_enabled()),
        ]
    });
    table(["ID", "ATTESTATION", "CERTIFICATES", "ENABLED"], rows)
}

fn show(group: &EnrollmentGroup, output: &Output) -> anyhow::Result<()> {
    let mut rows = vec![("id", group.id.to_string())];
    rows.extend(attestation_rows(&group.attestation));
    rows.extend(setting_rows(&group.settings));
    rows.extend(group.etag.as_ref().map(|etag| ("etag", etag.as_str().to_owned())));
    output.result(group, || fields(&rows))
}
