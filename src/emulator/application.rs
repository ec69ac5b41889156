//! The application that requests reach: its settings and its state.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, header, uri::Authority},
    middleware,
};

use super::{
    clock::Clock,
    deployment_manifests, device_attestation,
    device_attestation::DeviceKeys,
    device_groups, device_templates, devices, enrollment_groups,
    fault::Faults,
    gate::{self, Origin, Throttle},
    json, organizations, registrations,
    request_log::RequestLog,
    store::Store,
};

/// What every request shares.
pub(super) struct Application {
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// What the `Authorization` header must be. Secret: it is neither printed nor logged.
    pub(super) token: String,
    pub(super) id_scope: String,
    /// Where it listens, as a URL without a path.
    pub(super) endpoint: String,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) page_size: usize,
    /// Seals skip tokens.
    pub(super) page_key: hmac::Key,
    /// What the keys of the devices are derived from. Secret.
    pub(super) device_keys: DeviceKeys,
    /// The hub that devices are assigned to.
    pub(super) assigned_hub: String,
    /// How many polls are answered `assigning`.
    pub(super) assign_after: u32,
    /// How long a device is to wait between polls, in seconds.
    pub(super) registration_retry_after: u64,
    pub(super) read_timeout: Duration,
    pub(super) throttle: Option<Throttle>,
    pub(super) faults: Faults,
    pub(super) log: RequestLog,
}

pub(super) type Shared = Arc<Application>;

impl Application {
    /// Its routes: one file of them a resource.
    pub(super) fn router(self: &Shared) -> Router {
        let api = enrollment_groups::routes()
            .merge(devices::routes())
            .merge(device_attestation::routes())
            .merge(device_groups::routes())
            .merge(device_templates::routes())
            .merge(deployment_manifests::routes())
            .merge(organizations::routes())
            .fallback(gate::unknown_route)
            .method_not_allowed_fallback(gate::unknown_method)
            .layer(DefaultBodyLimit::max(json::MAX_READ))
            .layer(middleware::from_fn_with_state(Arc::clone(self), gate::check));
        let provisioning = registrations::routes()
            .method_not_allowed_fallback(gate::unknown_method)
            .layer(DefaultBodyLimit::max(json::MAX_READ));
        Router::new().nest("/api", api).merge(provisioning).fallback(gate::unknown_route).with_state(Arc::clone(self))
    }

    /// What a `nextLink` begins with: the host and port that the client used, as its `Host` header names them, since a client
    /// does not follow a link to another host with its token. The name need not be one that the emulator knows: containers,
    /// `/etc/hosts` and forwarded ports lead here as well, and only the client that sent the header gets the link.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Origin {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        match host.filter(|authority| !authority.host().is_empty() && !authority.as_str().contains('@')) {
            Some(authority) => Origin(format!("{}://{authority}", self.scheme)),
            None => Origin(self.endpoint.clone()),
        }
    }
}
