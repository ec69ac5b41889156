//! The context of all requests: settings, clock and state.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;

use super::{
    central::model::DeviceKeys,
    clock::Clock,
    dps::{OperationalCa, settings::InstanceSettings},
    exchange_log::ExchangeLog,
    fault::Faults,
    hosts::Hosts,
    mqtt::clients::Clients,
    rate::RateLimit,
    request_log::RequestLog,
    state::Store,
};

/// What all requests share.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) clock: Clock,
    /// The expected `Authorization` header of IoT Central. Secret: neither printed nor logged.
    pub(super) token: String,
    /// The expected bearer token of Resource Manager. Secret.
    pub(super) arm_token: String,
    pub(super) id_scope: String,
    pub(super) instance: InstanceSettings,
    /// The hosts by which clients may reach the emulator.
    pub(super) hosts: Hosts,
    /// The host and port of the endpoint.
    pub(super) authority: String,
    /// The URL of the emulator, without a path.
    pub(super) endpoint: String,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) page_size: usize,
    /// Authenticates the tokens of pages.
    pub(super) page_key: hmac::Key,
    /// Derives the keys of devices. Secret.
    pub(super) device_keys: DeviceKeys,
    /// Issues the operational certificates of devices.
    pub(super) operational_ca: OperationalCa,
    /// The IoT hub that the application's devices are assigned to.
    pub(super) assigned_hub: Arc<str>,
    /// The number of polls that are answered with `assigning`.
    pub(super) assign_after: u32,
    /// The time between polls that devices are asked to wait, in seconds.
    pub(super) registration_retry_after: u64,
    pub(super) read_timeout: Duration,
    /// The rate limit of IoT Central.
    pub(super) rate: RateLimit,
    /// The rate limit of the service API of DPS.
    pub(super) dps_rate: RateLimit,
    /// The rate limit of Resource Manager.
    pub(super) arm_rate: RateLimit,
    /// The clients of the MQTT face, if there is one.
    pub(super) mqtt: Option<Clients>,
    pub(super) faults: Faults,
    pub(super) log: RequestLog,
    pub(super) exchanges: ExchangeLog,
}

pub(super) type SharedContext = Arc<Context>;
