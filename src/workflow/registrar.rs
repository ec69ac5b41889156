//! Registration of one device, with the cause if it fails.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::Value;
use tokio::sync::OnceCell;

use super::{
    enrollment_state::{read_device_state, read_enrollment_state},
    service::Service,
};
use crate::{
    certificate::DeviceId,
    dps::device::{
        Assignment, Attempt, Credential, DiagnosedError, EnrollmentState, RegistrationClient, RegistrationError,
        diagnose,
    },
    transport::Error,
};

/// Registers devices as they do it themselves, and finds out why a registration failed. Clones share what they read.
#[derive(Clone)]
pub struct Registrar {
    client: RegistrationClient,
    payload: Option<Arc<Value>>,
    enrollment: Option<Enrollment>,
    /// How many more devices are looked up at the service; any number if none.
    lookups: Option<Arc<AtomicU64>>,
}

/// A service that is read to find a cause.
#[derive(Clone)]
struct Enrollment {
    service: Service,
    /// Its groups and ID scope when the first registration failed; none if they could not be read.
    state: Arc<OnceCell<Option<EnrollmentState>>>,
    /// The first error of reading it.
    error: Arc<OnceLock<Error>>,
}

impl Registrar {
    /// Registers devices with this client.
    #[must_use]
    pub fn new(client: RegistrationClient) -> Self {
        Self { client, payload: None, enrollment: None, lookups: None }
    }

    /// Sets the payload of each registration.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Option<Value>>) -> Self {
        self.payload = payload.into().map(Arc::new);
        self
    }

    /// Sets the service that is read to find out why a registration failed. It is not changed.
    #[must_use]
    pub fn service(mut self, service: impl Into<Option<Service>>) -> Self {
        self.enrollment =
            service.into().map(|service| Enrollment { service, state: Arc::default(), error: Arc::default() });
        self
    }

    /// Limits how many devices are looked up at the service, with up to three requests each. The cause that is reported for
    /// further devices may be less precise.
    #[must_use]
    pub fn max_lookups(mut self, count: u64) -> Self {
        self.lookups = Some(Arc::new(AtomicU64::new(count)));
        self
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> &RegistrationClient {
        &self.client
    }

    /// Returns why the service could not be read, if so.
    #[must_use]
    pub fn service_error(&self) -> Option<&Error> {
        self.enrollment.as_ref()?.error.get()
    }

    /// Registers a device.
    ///
    /// # Errors
    /// [`DiagnosedError`], which holds the error and its cause.
    pub async fn register(&self, id: &DeviceId, credential: &Credential) -> Result<Assignment, DiagnosedError> {
        match self.client.register(id, credential, self.payload.as_deref()).await {
            Ok(assignment) => Ok(assignment),
            Err(error) => Err(self.explain(id, credential, error).await),
        }
    }

    /// Finds out why a device was not registered. The service is read only if that can show the cause.
    async fn explain(&self, id: &DeviceId, credential: &Credential, error: RegistrationError) -> DiagnosedError {
        let attempt = Attempt { id, id_scope: self.client.id_scope(), credential, unsent: &[] };
        let mut diagnosis = diagnose(&attempt, &error, None);
        if diagnosis.needs_application
            && let Some(enrollment) = &self.enrollment
            && let Some(groups) = enrollment.groups().await
        {
            if self.may_look_up() {
                if let Some(state) = enrollment.device(groups, id).await {
                    diagnosis = diagnose(&attempt, &error, Some(&state));
                }
            } else {
                // Without the device's own state it is still known whether the cause affects every device.
                diagnosis = diagnose(&attempt, &error, Some(groups));
            }
        }
        DiagnosedError::new(error, diagnosis)
    }

    fn may_look_up(&self) -> bool {
        self.lookups.as_ref().is_none_or(|left| left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok())
    }
}

impl Enrollment {
    async fn groups(&self) -> Option<&EnrollmentState> {
        let read = || async { read_enrollment_state(&self.service).await.map_err(|error| self.note(error)).ok() };
        self.state.get_or_init(read).await.as_ref()
    }

    async fn device(&self, groups: &EnrollmentState, id: &DeviceId) -> Option<EnrollmentState> {
        read_device_state(&self.service, groups, id).await.map_err(|error| self.note(error)).ok()
    }

    fn note(&self, error: Error) {
        // The first error is kept.
        let _ = self.error.set(error);
    }
}
