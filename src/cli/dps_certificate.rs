//! `dps certificate`: CA certificates of an instance.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::{
    args::{Confirmation, PfxPassword, etag},
    dps_service::{DpsService, FoundInstance},
    output::{GOOD, Output, WARN, fields, table, yes_no},
};
use crate::{
    arm::{DpsCertificate, Possession},
    dps::{
        DpsCertificateName,
        service::{Attestation, CaReferences, CertificateInfo, EnrollmentGroup, Etag, Query},
    },
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the CA certificates of an instance
    #[command(after_help = "Example:\n  iot-enroll dps certificate list --dps contoso-dps")]
    List {
        #[command(flatten)]
        service: DpsService,
    },
    /// Show a certificate and whether it is verified
    #[command(after_help = "Example:\n  iot-enroll dps certificate show root-2026 --dps contoso-dps")]
    Show(Named),
    /// Upload a root or intermediate certificate
    ///
    /// Overwrites another certificate of that name, which is then not verified: until it is, devices of the groups that refer
    /// to it cannot register. To replace a CA without downtime, use rollover.
    #[command(
        after_help = "Example:\n  iot-enroll dps certificate set root-2026 --file mytestrootcert_cert.pem --dps contoso-dps"
    )]
    Set {
        /// Certificate to upload; if the file has several, the first one
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Upload the certificate as verified, without a proof of possession
        #[arg(long)]
        verified: bool,
        #[command(flatten)]
        pfx_password: PfxPassword,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        changed: Changed,
    },
    /// Delete a certificate
    #[command(after_help = "Example:\n  iot-enroll dps certificate delete root-2025 --dps contoso-dps")]
    Delete {
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        changed: Changed,
    },
    /// Generate a verification code, which invalidates the previous one
    #[command(after_help = "Example:\n  iot-enroll dps certificate generate-code root-2026 --dps contoso-dps")]
    GenerateCode(Changed),
    /// Send a proof of possession created by cert verification
    #[command(
        after_help = "Example:\n  iot-enroll dps certificate verify root-2026 --file verification_cert.pem --dps contoso-dps"
    )]
    Verify {
        /// Verification certificate
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        pfx_password: PfxPassword,
        #[command(flatten)]
        changed: Changed,
    },
}

/// A certificate.
#[derive(clap::Args)]
pub(super) struct Named {
    /// Name of the certificate
    name: DpsCertificateName,
    #[command(flatten)]
    service: DpsService,
}

/// A certificate to change.
#[derive(clap::Args)]
pub(super) struct Changed {
    /// Change the certificate only if it still has this etag
    #[arg(long, value_parser = etag)]
    etag: Option<Etag>,
    #[command(flatten)]
    named: Named,
}

impl Command {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { service } => {
                let found: Vec<_> = service.find().await?.resource().certificates().list().try_collect().await?;
                output.result(&found, || list(&found))
            }
            Self::Show(Named { name, service }) => {
                let certificate = service.find().await?.resource().certificates().get(&name).await?;
                output.result(&certificate, || fields(&rows(&certificate)))
            }
            Self::Set { file, verified, pfx_password, confirmation, changed } => {
                let certificate = pfx_password.read_certificates(&file)?.swap_remove(0);
                let Changed { etag, named: Named { name, service } } = changed;
                let certificates = service.find().await?.resource().certificates();
                let existing = certificates.find(&name).await?;
                if let Some(existing) = &existing {
                    let is_current = etag.as_ref().is_none_or(|etag| *etag == existing.etag || etag.as_str() == "*");
                    // An upload would make the same certificate unverified.
                    if existing.is(&certificate) && (existing.is_verified || !verified) && is_current {
                        return show_state(existing, output);
                    }
                    if existing.is_verified {
                        let thumbprint = thumbprint(existing);
                        confirmation.ask(&format!("replace the verified certificate {name}, {thumbprint}?"))?;
                    }
                }
                let etag = etag.or(existing.map(|existing| existing.etag));
                let possession = if verified { Possession::Attested } else { Possession::ToBeProven };
                show_state(&certificates.set(&name, &certificate, possession, etag.as_ref()).await?, output)
            }
            Self::Delete { confirmation, changed } => changed.delete(&confirmation, output).await,
            Self::GenerateCode(Changed { etag, named: Named { name, service } }) => {
                let certificates = service.find().await?.resource().certificates();
                let etag = match etag {
                    Some(etag) => etag,
                    None => certificates.get(&name).await?.etag,
                };
                let code = certificates.generate_verification_code(&name, &etag).await?;
                output.result(&json!({ "verificationCode": code.code, "etag": code.etag }), || code.code.clone())
            }
            Self::Verify { file, pfx_password, changed } => {
                let proof = pfx_password.read_certificates(&file)?.swap_remove(0);
                let Changed { etag, named: Named { name, service } } = changed;
                let certificates = service.find().await?.resource().certificates();
                let etag = match etag {
                    Some(etag) => etag,
                    None => certificates.get(&name).await?.etag,
                };
                certificates.verify(&name, &proof, &etag).await?;
                // The certificate must be verified; that the service accepts the proof is not enough.
                let state = certificates.get(&name).await?;
                if !state.is_verified {
                    bail!("the service accepted the proof, but the certificate {name} is not verified");
                }
                show_state(&state, output)
            }
        }
    }
}

impl Changed {
    async fn delete(self, confirmation: &Confirmation, output: &Output) -> anyhow::Result<()> {
        let Self { etag, named: Named { name, service } } = self;
        let found = service.find().await?;
        let certificates = found.resource().certificates();
        // Deleting a certificate that does not exist succeeds.
        let existing = certificates.get(&name).await?;
        let groups = groups(&service, &found).await.unwrap_or_else(|error| {
            output.note(format_args!("could not check which enrollment groups need {name}: {error:#}"));
            Vec::new()
        });
        let refers = |references: &CaReferences| references.names().any(|found| *found == name);
        let by = ids(&groups, |group| group.ca_references().is_some_and(refers))
            .map(|groups| format!(", by which devices of {groups} register"));
        let above = ids(&groups, |group| may_be_above(&existing, group))
            .map(|groups| format!(", under which the own certificates of {groups} may be"));
        let [by, above] = [by, above].map(Option::unwrap_or_default);
        confirmation.ask(&format!("delete the certificate {name}{by}{above}?"))?;
        certificates.delete(&name, &etag.unwrap_or(existing.etag)).await?;
        output.result(&json!({ "name": name, "deleted": true }), || format!("Deleted the certificate {name}."))
    }
}

/// Reads the enrollment groups. What happens to those that refer to a certificate that is deleted is not documented.
async fn groups(service: &DpsService, found: &FoundInstance) -> anyhow::Result<Vec<EnrollmentGroup>> {
    Ok(service.client_of(found).await?.enrollment_groups().list(&Query::new()).try_collect().await?)
}

/// Lists the enrollment groups that match, if any do.
fn ids(groups: &[EnrollmentGroup], matches: impl Fn(&EnrollmentGroup) -> bool) -> Option<String> {
    let ids: Vec<_> = groups.iter().filter(|group| matches(group)).map(|group| group.id.as_str()).collect();
    match &ids[..] {
        [] => None,
        [id] => Some(format!("the enrollment group {id}")),
        ids => Some(format!("the enrollment groups {}", ids.join(", "))),
    }
}

/// Returns whether the own certificates of a group may be under a certificate of the instance. Devices of such a group can
/// register only while a certificate above them is verified. The service does not return them, so only a root is known to
/// have no other above it.
fn may_be_above(certificate: &DpsCertificate, group: &EnrollmentGroup) -> bool {
    let Attestation::SigningCertificates(own) = &group.attestation else { return false };
    let same = |info: &CertificateInfo| info.sha1_thumbprint == certificate.sha1_thumbprint;
    own.primary.iter().chain(&own.secondary).any(|info| !info.is_self_issued() || same(info))
}

fn list(certificates: &[DpsCertificate]) -> String {
    let rows = certificates.iter().map(|certificate| {
        [
            certificate.name.to_string(),
            certificate.subject.clone().unwrap_or_default(),
            thumbprint(certificate),
            yes_no(certificate.is_verified),
            certificate.expires_at.map(|at| at.to_string()).unwrap_or_default(),
        ]
    });
    table(["NAME", "SUBJECT", "THUMBPRINT", "VERIFIED", "NOT AFTER"], rows)
}

fn rows(certificate: &DpsCertificate) -> Vec<(&'static str, String)> {
    let rows = [
        ("name", Some(certificate.name.to_string())),
        ("subject", certificate.subject.clone()),
        ("thumbprint", certificate.sha1_thumbprint.map(|thumbprint| thumbprint.to_string())),
        ("verified", Some(yes_no(certificate.is_verified))),
        ("not after", certificate.expires_at.map(|at| at.to_string())),
        ("created", certificate.created_at.map(|at| at.to_string())),
        ("updated", certificate.updated_at.map(|at| at.to_string())),
        ("etag", Some(certificate.etag.as_str().to_owned())),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn thumbprint(certificate: &DpsCertificate) -> String {
    certificate.sha1_thumbprint.map(|thumbprint| thumbprint.to_string()).unwrap_or_default()
}

fn show_state(certificate: &DpsCertificate, output: &Output) -> anyhow::Result<()> {
    output.result(certificate, || {
        let (style, state) = if certificate.is_verified { (GOOD, "verified") } else { (WARN, "not verified") };
        let (name, thumbprint) = (&certificate.name, thumbprint(certificate));
        format!("The certificate {name}, {thumbprint}, is {style}{state}{style:#}.")
    })
}
