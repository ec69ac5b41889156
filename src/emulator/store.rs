//! The state: everything behind one lock, and the etags that guard it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    deployment_manifests::DeploymentManifest, device_groups::DeviceGroup, device_index::DeviceIndex,
    device_templates::DeviceTemplate, enrollment_groups::EnrollmentGroup, error::ApiError, organizations::Organization,
    random, registrations::Registration,
};

/// The application's state. One lock over all of it, so that a request sees and leaves it whole; nothing waits while
/// holding it.
#[derive(Default)]
pub(super) struct Store(Mutex<State>);

/// What the application holds, by id. The order of the ids is the order of the collections.
#[derive(Default)]
pub(super) struct State {
    pub(super) deployment_manifests: BTreeMap<String, DeploymentManifest>,
    pub(super) device_groups: BTreeMap<String, DeviceGroup>,
    pub(super) device_templates: BTreeMap<String, DeviceTemplate>,
    pub(super) devices: DeviceIndex,
    pub(super) enrollment_groups: BTreeMap<String, EnrollmentGroup>,
    pub(super) organizations: BTreeMap<String, Organization>,
    /// What the Device Provisioning Service knows of devices, by registration id in lower case.
    pub(super) registrations: BTreeMap<String, Registration>,
}

impl Store {
    /// Runs one request's part on the state. A change must be made in one piece after everything that can fail.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The state is whole even where a holder of the lock panicked, by the rule above.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The version of a thing: opaque, and never the same twice. Base64 of a quoted string, as the service's are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    pub(super) fn new() -> Result<Self, ApiError> {
        Ok(Self(BASE64_STANDARD.encode(format!("\"{}\"", random::uuid()?))))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compares the etag that a body carries with that of the thing it is for. Without one in the body there is nothing to
/// compare.
///
/// Choice: an etag for a thing that does not exist does not match.
pub(super) fn check_etag(given: Option<&str>, current: Option<&Etag>) -> Result<(), ApiError> {
    let Some(given) = given else { return Ok(()) };
    if current.is_some_and(|current| current.0 == given) {
        return Ok(());
    }
    let found = match current {
        Some(_) => "it has changed since; get it again and repeat the change",
        None => "it does not exist; leave the etag out to create it",
    };
    let message = format!("the etag {given:?} does not match: {found}");
    Err(ApiError::new(StatusCode::PRECONDITION_FAILED, message))
}
