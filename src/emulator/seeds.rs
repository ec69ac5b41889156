//! Seeds: the resources that an emulator starts with, from a JSON document.
//!
//! Each member of the document is a list of resources. A resource is what a PUT of the API has as its body, with its ID. The
//! same code reads it, so that the same rules hold. Wherever a body has a `certificate`, a seed can have `certificateFile`.
//! [`Seeds::apply`] has the members that the bodies of the API do not have.
//!
//! A resource that exists, from a state file, stays as it is.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    api_error::ApiError,
    arm,
    central::{seed_device, seed_document, seed_enrollment_group},
    dps::{self, model::Kind},
    error::EmulatorError,
    fields::{FieldError, Fields},
    state::State,
};
use crate::certificate::{Timestamp, files::read_limited};

/// Members with content of any form, where `certificateFile` has no meaning.
const OPAQUE: [&str; 4] = ["capabilityModel", "data", "initialTwin", "optionalDeviceInformation"];

/// The seeds of a file.
pub(super) struct Seeds {
    path: PathBuf,
    fields: Fields,
}

impl Seeds {
    /// Reads a file, and the certificates that it refers to by paths relative to it.
    pub(super) fn read(path: &Path) -> Result<Self, EmulatorError> {
        let failed = |problem: String| EmulatorError::Import { path: path.to_owned(), problem };
        let bytes = read_limited(path).map_err(|error| failed(error.to_string()))?;
        let mut document = serde_json::from_slice(&bytes).map_err(|error: serde_json::Error| {
            // The text of the parser could repeat a secret.
            failed(format!("it is not JSON: syntax error at line {}, column {}", error.line(), error.column()))
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        read_certificates(&mut document, directory, "").map_err(|error| failed(error.to_string()))?;
        let fields = Fields::from_body(document).map_err(|_| failed("it is not a JSON object".to_owned()))?;
        Ok(Self { path: path.to_owned(), fields })
    }

    /// Creates the resources that do not exist. After an error the state must not be used.
    pub(super) fn apply(self, state: &mut State, now: Timestamp) -> Result<(), EmulatorError> {
        let Self { path, fields } = self;
        apply(fields, state, now).map_err(|problem| EmulatorError::Import { path, problem })
    }
}

/// Creates the resources, those that others refer to first.
fn apply(mut fields: Fields, state: &mut State, now: Timestamp) -> Result<(), String> {
    use super::central::model::{DeploymentManifest, DeviceGroup, DeviceTemplate, Organization};
    each(&mut fields, "organizations", |fields| seed_document::<Organization>(state, fields, "id"))?;
    each(&mut fields, "deviceTemplates", |fields| seed_document::<DeviceTemplate>(state, fields, "@id"))?;
    each(&mut fields, "deploymentManifests", |fields| seed_document::<DeploymentManifest>(state, fields, "id"))?;
    each(&mut fields, "enrollmentGroups", |fields| seed_enrollment_group(state, fields, now))?;
    each(&mut fields, "devices", |fields| seed_device(state, fields))?;
    each(&mut fields, "deviceGroups", |fields| seed_document::<DeviceGroup>(state, fields, "id"))?;
    if let Some(mut instance) = fields.object("dps").map_err(|error| error.to_string())? {
        each(&mut instance, "certificates", |fields| arm::seed_certificate(state, fields, now))?;
        for kind in [Kind::Group, Kind::Individual] {
            each(&mut instance, kind.collection(), |fields| dps::seed_enrollment(state, fields, kind, now))?;
        }
        instance.finish().map_err(|error| error.to_string())?;
    }
    fields.finish().map_err(|error| error.to_string())
}

/// Creates the resources of a list. An error names the resource.
fn each(fields: &mut Fields, name: &str, mut seed: impl FnMut(Fields) -> Result<(), ApiError>) -> Result<(), String> {
    let all = fields.objects(name).map_err(|error| error.to_string())?.unwrap_or_default();
    for resource in all {
        let place = resource.path().to_owned();
        seed(resource).map_err(|error| match error.message.strip_prefix(&place) {
            // The message begins with the path of a field.
            Some(rest) if rest.starts_with('.') => error.message,
            _ => format!("{place}: {}", error.message),
        })?;
    }
    Ok(())
}

/// Replaces each member `certificateFile` by `certificate`, the content of that file: text, or base64 of anything else.
fn read_certificates(value: &mut Value, directory: &Path, place: &str) -> Result<(), FieldError> {
    match value {
        Value::Array(all) => {
            for (position, value) in all.iter_mut().enumerate() {
                read_certificates(value, directory, &format!("{place}[{position}]"))?;
            }
        }
        Value::Object(members) => {
            let join = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
            if let Some(file) = members.remove("certificateFile") {
                let invalid = |problem: String| FieldError::new(&join("certificateFile"), problem);
                let Some(file) = file.as_str() else { return Err(invalid("expected a string".to_owned())) };
                if members.contains_key("certificate") {
                    return Err(invalid("not allowed beside certificate".to_owned()));
                }
                let bytes = read_limited(&directory.join(file)).map_err(|error| invalid(error.to_string()))?;
                let text = match str::from_utf8(&bytes) {
                    Ok(text) => text.to_owned(),
                    Err(_) => BASE64_STANDARD.encode(&bytes),
                };
                members.insert("certificate".to_owned(), text.into());
            }
            for (name, value) in members.iter_mut().filter(|(name, _)| !OPAQUE.contains(&name.as_str())) {
                read_certificates(value, directory, &join(name))?;
            }
        }
        _ => {}
    }
    Ok(())
}
