//! `dps registration`: the records of devices that registered.

use serde_json::json;

use super::{
    args::{Confirmation, count, etag},
    dps_service::DpsService,
    dps_settings::query,
    output::{Output, fields, table},
};
use crate::dps::service::{EnrollmentGroupId, Etag, RegistrationId, RegistrationState};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the registrations of an enrollment group
    #[command(after_help = "Example:\n  iot-enroll dps registration list myx509eg --dps contoso-dps")]
    List {
        /// ID of the enrollment group
        group: EnrollmentGroupId,
        /// Maximum number of registrations to list [default: all]
        #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
        top: Option<usize>,
        #[command(flatten)]
        service: DpsService,
    },
    /// Show the registration of a device
    #[command(after_help = "Example:\n  iot-enroll dps registration show sensor-1 --dps contoso-dps")]
    Show {
        /// Registration ID of the device
        id: RegistrationId,
        #[command(flatten)]
        service: DpsService,
    },
    /// Delete the registration of a device
    ///
    /// The identity of the device in its hub stays. The device registers as a new one the next time.
    #[command(after_help = "Example:\n  iot-enroll dps registration delete sensor-1 --dps contoso-dps")]
    Delete {
        /// Registration ID of the device
        id: RegistrationId,
        /// Delete the registration only if it still has this etag
        #[arg(long, value_parser = etag)]
        etag: Option<Etag>,
        #[command(flatten)]
        confirmation: Confirmation,
        #[command(flatten)]
        service: DpsService,
    },
}

impl Command {
    pub(super) async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List { group, top, service } => {
                let registrations = service.registrations_client().await?.registrations();
                let found: Vec<_> = registrations.list(&group, &query(top)).try_collect().await?;
                output.result(&found, || list(&found))
            }
            Self::Show { id, service } => {
                let state = service.registrations_client().await?.registrations().get(&id).await?;
                output.result(&state, || fields(&rows(&state)))
            }
            Self::Delete { id, etag, confirmation, service } => {
                confirmation.ask(&format!("delete the registration of {id}?"))?;
                service.registrations_client().await?.registrations().delete(&id, etag.as_ref()).await?;
                output.result(&json!({ "registrationId": id, "deleted": true }), || {
                    format!("Deleted the registration of {id}.")
                })
            }
        }
    }
}

fn list(found: &[RegistrationState]) -> String {
    let rows = found.iter().map(|state| {
        [
            state.registration_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            state.status.to_string(),
            state.assigned_hub.clone().unwrap_or_default(),
            state.device_id.clone().unwrap_or_default(),
            state.updated_at.map(|at| at.to_string()).unwrap_or_default(),
        ]
    });
    table(["REGISTRATION ID", "STATUS", "HUB", "DEVICE ID", "UPDATED"], rows)
}

/// Returns the rows that describe a registration.
fn rows(state: &RegistrationState) -> Vec<(&'static str, String)> {
    let text = |value: &Option<String>| value.clone();
    let rows = [
        ("registration ID", state.registration_id.as_ref().map(ToString::to_string)),
        ("status", Some(state.status.to_string())),
        ("substatus", text(&state.substatus)),
        ("assigned hub", text(&state.assigned_hub)),
        ("device ID", text(&state.device_id)),
        ("error", text(&state.error_message)),
        ("created", state.created_at.map(|at| at.to_string())),
        ("updated", state.updated_at.map(|at| at.to_string())),
        ("etag", state.etag.as_ref().map(|etag| etag.as_str().to_owned())),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}
