//! Creates the resources of a seed, as PUT does.

use super::{
    api_version::ApiVersion,
    documents::{ParsedBody, StoredDocument},
    model::{CertificateBody, Device, DeviceAttestation, DeviceBody, EnrollmentGroup, Entry, Resource, invalid_id},
};
use crate::{
    certificate::Timestamp,
    emulator::{api_error::ApiError, fields::Fields, precondition::IfMatch, state::State},
};

/// Creates a document unless it exists. `id_member` is the member with its ID.
pub(crate) fn seed_document<D: StoredDocument>(
    state: &mut State,
    mut fields: Fields,
    id_member: &str,
) -> Result<(), ApiError> {
    let id = read_id::<D>(&mut fields, id_member)?;
    create::<D>(state, &id, fields).map(drop)
}

/// Creates an enrollment group unless it exists. Its member `certificates` has the bodies of PUT on `certificates/primary` and
/// `certificates/secondary`.
pub(crate) fn seed_enrollment_group(state: &mut State, mut fields: Fields, now: Timestamp) -> Result<(), ApiError> {
    let id = read_id::<EnrollmentGroup>(&mut fields, "id")?;
    let mut certificates = Vec::new();
    if let Some(mut given) = fields.object("certificates")? {
        for entry in [Entry::Primary, Entry::Secondary] {
            if let Some(fields) = given.object(entry.name())? {
                certificates.push((entry, CertificateBody::read(fields, now)?));
            }
        }
        given.finish()?;
    }
    if create::<EnrollmentGroup>(state, &id, fields)?
        && let Some(group) = state.enrollment_groups.get_mut(&id)
    {
        for (entry, body) in certificates {
            group.value.set_certificate(&id, entry, body, &IfMatch::default())?;
        }
    }
    Ok(())
}

/// Creates a device unless it exists. Its member `attestation` has the body of PUT on its attestation, and `provisioned` can be
/// true.
pub(crate) fn seed_device(state: &mut State, mut fields: Fields) -> Result<(), ApiError> {
    let id = read_id::<Device>(&mut fields, "id")?;
    let attestation = fields.object("attestation")?.map(DeviceAttestation::read).transpose()?;
    let is_provisioned = fields.boolean("provisioned")?.unwrap_or(false);
    let mut body = DeviceBody::read(fields, &id, ApiVersion::Preview)?;
    if state.devices.get(&id).is_some() {
        return Ok(());
    }
    body.apply_template(&state.device_templates);
    let mut device = body.into_device(&id, None)?;
    device.properties.provisioned = is_provisioned;
    device.attestation = attestation.map(Box::new);
    state.devices.insert(device);
    Ok(())
}

/// Removes the ID of a resource.
fn read_id<R: Resource>(fields: &mut Fields, member: &str) -> Result<String, ApiError> {
    let id = fields.required(member, Fields::string)?;
    if R::is_id(&id) { Ok(id) } else { Err(fields.invalid(member, invalid_id::<R>(&id)).into()) }
}

/// Creates a document unless it exists. Returns whether it did. The body is checked in either case.
fn create<D: StoredDocument>(state: &mut State, id: &str, fields: Fields) -> Result<bool, ApiError> {
    let body = ParsedBody::<D>::read(fields, id)?;
    if D::collection(state).contains_key(id) {
        return Ok(false);
    }
    let document = body.into_document(None)?;
    document.value.check_conflicts(id, state)?;
    D::collection(state).insert(id.to_owned(), document);
    Ok(true)
}
