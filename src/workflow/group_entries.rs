//! What the entries of an enrollment group hold, for callers that decide by it.

use super::{
    central_target::CentralTarget,
    dps_target::DpsTarget,
    entries::{Entries, EntryState},
    entry_policy::EntryPolicy,
    rollover_error::RolloverError,
    service::{GroupId, Service},
    trust_anchor::AnchorTarget,
};

/// Reads what the primary and the secondary entry of an enrollment group hold. Returns `None` if the group does not exist.
///
/// # Errors
/// [`RolloverError`] if a call fails, or if the group does not admit devices by CAs.
pub async fn read_entries(
    service: impl Into<Service>,
    group: &GroupId,
) -> Result<Option<[EntryState; 2]>, RolloverError> {
    let policy = EntryPolicy::new(group.clone(), None);
    let read = match service.into() {
        Service::Central(client) => CentralTarget::new(&client, policy)?.entries().await,
        Service::Dps(instance) => DpsTarget::new(&instance, policy)?.entries().await,
    };
    match read {
        Ok(Entries { primary, secondary, .. }) => Ok(Some([primary, secondary])),
        Err(RolloverError::Service(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
