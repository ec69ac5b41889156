//! `enrollment-group`: enrollment groups of an application and their certificates.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::{
    args::{Confirmation, PfxPassword, certificate_entry, count, etag},
    error::UsageError,
    input::symmetric_keys,
    output::{GOOD, Output, WARN, fields, table, yes_no},
    provision::DeviceKind,
    service::{Service, block_on},
};
use crate::central::{
    Attestation, CertificateEntry, DeviceType, EnrollmentGroup, EnrollmentGroupId, EnrollmentGroupUpdate,
    EnrollmentGroups, Etag, NewAttestation, NewEnrollmentGroup, Possession, SigningCertificate,
};

#[derive(clap::Args)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List enrollment groups
    #[command(after_help = "Example:\n  iot-enroll enrollment-group list --app contoso --token-file token")]
    List {
        /// Maximum number of groups to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: Service,
    },
    /// Show an enrollment group
    #[command(after_help = "Example:\n  iot-enroll enrollment-group show myx509eg --app contoso --token-file token")]
    Show {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        /// Also show the symmetric keys
        #[arg(long)]
        show_keys: bool,
        #[command(flatten)]
        service: Service,
    },
    Create(Box<Create>),
    /// Update an enrollment group
    ///
    /// Values that are not given stay unchanged.
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group update myx509eg --display-name 'My new group' --app contoso \
                      --token-file token"
    )]
    Update {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        /// New display name
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Whether devices may connect through the group
        #[arg(long, value_name = "BOOLEAN")]
        enabled: Option<bool>,
        /// New type of the devices in the group
        #[arg(long = "type", value_name = "TYPE")]
        device_type: Option<DeviceKind>,
        /// Update the group only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        service: Service,
    },
    /// Delete an enrollment group
    #[command(after_help = "Example:\n  iot-enroll enrollment-group delete myx509eg --app contoso --token-file token")]
    Delete {
        /// ID of the enrollment group
        id: EnrollmentGroupId,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: Service,
    },
    /// Manage the certificates of an enrollment group
    #[command(subcommand)]
    Certificate(CertificateCommand),
}

/// Create an enrollment group
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  iot-enroll enrollment-group create myx509eg --display-name 'My group' --app contoso \
                  --token-file token"
)]
pub(super) struct Create {
    /// ID of the enrollment group
    id: EnrollmentGroupId,
    /// Display name [default: the ID]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Type of the devices in the group
    #[arg(long = "type", value_name = "TYPE", default_value = "iot")]
    device_type: DeviceKind,
    /// How devices authenticate
    #[arg(long, default_value = "x509")]
    attestation: AttestationKind,
    /// File with the primary and secondary symmetric key in base64, one a line
    ///
    /// By default the service generates the keys.
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Do not let devices connect through the group
    #[arg(long)]
    disabled: bool,
    /// Overwrite the name, type and state of an existing group
    ///
    /// The request does not contain the certificates of the group. If the service drops one, a note says so.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    service: Service,
}

/// An entry of an enrollment group.
#[derive(clap::Args)]
struct EntryArgs {
    /// ID of the enrollment group
    id: EnrollmentGroupId,
    /// Entry of the certificate
    #[arg(long, default_value = "primary", value_parser = certificate_entry())]
    entry: CertificateEntry,
    #[command(flatten)]
    service: Service,
}

#[derive(clap::Subcommand)]
enum CertificateCommand {
    /// Show the thumbprint of a certificate and whether it is verified
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group certificate show myx509eg --app contoso --token-file token"
    )]
    Show(EntryArgs),
    /// Upload a root or intermediate certificate
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group certificate set myx509eg --file mytestrootcert_cert.pem --app \
                      contoso --token-file token"
    )]
    Set {
        /// Certificate to upload; if the file has several, the first one
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Upload the certificate as verified, without a proof of possession
        #[arg(long)]
        verified: bool,
        /// Overwrite the certificate only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        pfx_password: PfxPassword,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        entry: EntryArgs,
    },
    /// Delete a certificate
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group certificate delete myx509eg --entry secondary --app contoso --token-file token"
    )]
    Delete {
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        entry: EntryArgs,
    },
    /// Generate a verification code, which invalidates the previous one
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group certificate generate-code myx509eg --app contoso --token-file token"
    )]
    GenerateCode(EntryArgs),
    /// Send a proof of possession created by cert verification
    #[command(
        after_help = "Example:\n  iot-enroll enrollment-group certificate verify myx509eg --file verification_cert.pem --app \
                      contoso --token-file token"
    )]
    Verify {
        /// Verification certificate
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        pfx_password: PfxPassword,
        #[command(flatten)]
        entry: EntryArgs,
    },
}

/// How devices authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AttestationKind {
    /// X.509 certificates
    X509,
    /// Keys derived from the symmetric key of the group
    #[value(alias = "symmetricKey")]
    SymmetricKey,
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(self.action.run(output))
    }
}

impl Action {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { top, service } => {
                let groups = service.client()?.enrollment_groups();
                let groups: Vec<_> = groups.list().take(top.unwrap_or(usize::MAX)).try_collect().await?;
                output.result(&groups, || list(&groups))
            }
            Self::Show { id, show_keys, service } => {
                let group = service.client()?.enrollment_groups().get(&id).await?;
                show(&group, show_keys, output)
            }
            Self::Create(create) => create.run(output).await,
            Self::Update { id, display_name, enabled, device_type, etag, service } => {
                if display_name.is_none() && enabled.is_none() && device_type.is_none() {
                    let message = "nothing to change: use --display-name, --enabled or --type";
                    return Err(UsageError::new(message).into());
                }
                let update = EnrollmentGroupUpdate {
                    display_name,
                    enabled,
                    device_type: device_type.map(DeviceType::from),
                    etag,
                    ..EnrollmentGroupUpdate::default()
                };
                show(&service.client()?.enrollment_groups().update(&id, &update).await?, false, output)
            }
            Self::Delete { id, confirmation, service } => {
                confirmation.ask(&format!("delete the enrollment group {id}?"))?;
                service.client()?.enrollment_groups().delete(&id).await?;
                output.result(&json!({ "id": id, "deleted": true }), || format!("Deleted the enrollment group {id}."))
            }
            Self::Certificate(action) => action.run(output).await,
        }
    }
}

impl Create {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        let Self { id, display_name, device_type, attestation, keys_file, disabled, force, service } = self;
        let attestation = match attestation {
            AttestationKind::SymmetricKey => {
                NewAttestation::SymmetricKey(keys_file.as_deref().map(symmetric_keys).transpose()?)
            }
            AttestationKind::X509 if keys_file.is_some() => {
                let message = "--keys-file requires --attestation symmetric-key";
                return Err(UsageError::new(message).into());
            }
            AttestationKind::X509 => NewAttestation::X509,
        };
        let groups = service.client()?.enrollment_groups();
        // The service's PUT overwrites a group.
        let earlier = groups.find(&id).await?;
        if !force && earlier.is_some() {
            bail!("the enrollment group {id} already exists: update it, or overwrite it with --force");
        }
        let group = NewEnrollmentGroup {
            enabled: !disabled,
            device_type: device_type.into(),
            attestation,
            ..NewEnrollmentGroup::x509(display_name.unwrap_or_else(|| id.to_string()))
        };
        let created = groups.replace(&id, &group).await?;
        if let Some(earlier) = earlier {
            note_certificates(&groups, &earlier, &created, output).await?;
        }
        show(&created, false, output)
    }
}

impl EntryArgs {
    fn open(self) -> anyhow::Result<(EnrollmentGroups, EnrollmentGroupId, CertificateEntry)> {
        Ok((self.service.client()?.enrollment_groups(), self.id, self.entry))
    }
}

impl CertificateCommand {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Show(entry) => {
                let (groups, id, entry) = entry.open()?;
                show_certificate(&groups.certificate(&id, entry).await?, &id, entry, output)
            }
            Self::Set { file, verified, etag, pfx_password, confirmation, entry } => {
                let certificate = pfx_password.read_certificates(&file)?.swap_remove(0);
                let (groups, id, entry) = entry.open()?;
                let replaced = groups.find_certificate(&id, entry).await?.filter(|found| found.verified);
                // Setting the same certificate again can lose its verification.
                if let Some(replaced) = replaced
                    && !(verified && replaced.sha1_thumbprint == Some(certificate.sha1_thumbprint()))
                {
                    let found = thumbprint(&replaced);
                    confirmation.ask(&format!("replace the verified {entry} certificate of {id}, {found}?"))?;
                }
                let possession = if verified { Possession::Attested } else { Possession::ToBeProven };
                let set = groups.set_certificate(&id, entry, &certificate, possession, etag.as_ref()).await?;
                show_certificate(&set, &id, entry, output)
            }
            Self::Delete { confirmation, entry } => {
                confirmation.ask(&format!("delete the {} certificate of {}?", entry.entry, entry.id))?;
                let (groups, id, entry) = entry.open()?;
                groups.delete_certificate(&id, entry).await?;
                output.result(&json!({ "group": id, "entry": entry, "deleted": true }), || {
                    format!("Deleted the {entry} certificate of {id}.")
                })
            }
            Self::GenerateCode(entry) => {
                let (groups, id, entry) = entry.open()?;
                let code = groups.generate_verification_code(&id, entry).await?.code;
                output.result(&json!({ "verificationCode": code }), || code.clone())
            }
            Self::Verify { file, pfx_password, entry } => {
                let proof = pfx_password.read_certificates(&file)?.swap_remove(0);
                let (groups, id, entry) = entry.open()?;
                groups.verify_certificate(&id, entry, &proof).await?;
                // The entry must be verified; that the service accepts the proof is not enough.
                let state = groups.certificate(&id, entry).await?;
                if !state.verified {
                    bail!("the service accepted the proof, but the {entry} certificate of {id} is not verified");
                }
                show_certificate(&state, &id, entry, output)
            }
        }
    }
}

/// Notes certificates that the service dropped, or no longer has as verified, when a group was overwritten. The
/// documentation of the REST API does not say what happens to them.
async fn note_certificates(
    groups: &EnrollmentGroups,
    earlier: &EnrollmentGroup,
    now: &EnrollmentGroup,
    output: &Output,
) -> anyhow::Result<()> {
    let Attestation::X509 { primary, secondary } = &earlier.attestation else { return Ok(()) };
    let entries = [(CertificateEntry::Primary, primary), (CertificateEntry::Secondary, secondary)];
    for (entry, before) in entries {
        let Some(before) = before else { continue };
        let found = groups.find_certificate(&now.id, entry).await?;
        let thumbprint = thumbprint(before);
        match found.filter(|found| found.sha1_thumbprint == before.sha1_thumbprint) {
            None => output.note(format_args!("{} no longer has the {entry} certificate {thumbprint}", now.id)),
            Some(found) if before.verified && !found.verified => {
                output.note(format_args!("the {entry} certificate {thumbprint} of {} is no longer verified", now.id));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn list(groups: &[EnrollmentGroup]) -> String {
    let rows = groups.iter().map(|group| {
        [
            group.id.to_string(),
            group.display_name.clone(),
            group.device_type.to_string(),
            group.attestation.kind().to_owned(),
            yes_no(group.enabled),
        ]
    });
    table(["ID", "NAME", "TYPE", "ATTESTATION", "ENABLED"], rows)
}

fn show(group: &EnrollmentGroup, show_keys: bool, output: &Output) -> anyhow::Result<()> {
    let mut rows = vec![
        ("id", group.id.to_string()),
        ("name", group.display_name.clone()),
        ("enabled", yes_no(group.enabled)),
        ("type", group.device_type.to_string()),
        ("attestation", group.attestation.kind().to_owned()),
    ];
    let describe = |certificate: &Option<SigningCertificate>| {
        certificate.as_ref().map_or("empty".to_owned(), |it| format!("{}, {}", thumbprint(it), state(it)))
    };
    match &group.attestation {
        Attestation::X509 { primary, secondary } => {
            rows.extend([("primary", describe(primary)), ("secondary", describe(secondary))]);
        }
        Attestation::SymmetricKey(Some(keys)) if show_keys => {
            let (primary, secondary) = (keys.primary_key.expose(), keys.secondary_key.expose());
            rows.extend([("primary key", primary.to_owned()), ("secondary key", secondary.to_owned())]);
            let mut value = serde_json::to_value(group)?;
            value["attestation"]["symmetricKey"] = json!({ "primaryKey": primary, "secondaryKey": secondary });
            return output.result(&value, || fields(&rows));
        }
        _ => {}
    }
    if let Some(etag) = &group.etag {
        rows.push(("etag", etag.as_str().to_owned()));
    }
    output.result(group, || fields(&rows))
}

fn thumbprint(certificate: &SigningCertificate) -> String {
    certificate.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default()
}

fn state(certificate: &SigningCertificate) -> &'static str {
    if certificate.verified { "verified" } else { "not verified" }
}

fn show_certificate(
    certificate: &SigningCertificate,
    group: &EnrollmentGroupId,
    entry: CertificateEntry,
    output: &Output,
) -> anyhow::Result<()> {
    output.result(certificate, || {
        let thumbprint = thumbprint(certificate);
        let (style, state) = (if certificate.verified { GOOD } else { WARN }, state(certificate));
        format!("The {entry} certificate of {group}, {thumbprint}, is {style}{state}{style:#}.")
    })
}
