//! An emulator of IoT Central and the Device Provisioning Service (DPS), for tests without an account.
//!
//! The emulator speaks the REST API of IoT Central, versions `2022-07-31`, `2022-10-31-preview` and
//! `2022-06-30-preview`, over HTTP or [TLS](Builder::tls) on a loopback port. It keeps its state in memory and checks
//! what the service checks: authorization, version, bodies, etags, certificates, proofs of possession, filters and
//! queries. [`Fault`]s make it fail on request.
//!
//! It has enrollment groups and their certificates, devices with attestation, credentials and commands, device groups,
//! device templates, organizations and deployment manifests. Other resources do not exist (404).
//!
//! The Device Provisioning Service is on the same port: a device registers with its certificate or key at
//! `/{idScope}/registrations/{registrationId}/register`, versions `2019-03-31`, `2021-06-01`, `2021-10-01`,
//! `2025-07-01-preview` and `2026-11-01`, with the emulator's [ID scope](Emulator::id_scope), and then belongs to the
//! application. At the ID scope of the instance, the last two versions issue a certificate for a request (`csr`).
//!
//! One DPS instance is on the port as well, with an [ID scope of its own](Emulator::dps_id_scope). Azure Resource Manager
//! (`/subscriptions/…`) has the instance, its CA certificates and its keys, and takes the
//! [bearer token](Emulator::arm_token). The service API (`/enrollmentGroups…`, `/enrollments…`, `/registrations…`) has
//! enrollment groups, individual enrollments and registration records, and takes SAS tokens of the instance's policies,
//! as by the [connection string](Emulator::dps_connection_string), or the bearer token.
//!
//! # Example
//! In a test, start an emulator and point the code under test to its endpoint and token:
//!
//! ```
//! use iot_enroll::emulator::{DeviceProperties, Emulator, Fault, FaultKind};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::builder().start().await?;
//! emulator.add_devices([DeviceProperties::new("thermostat-1").provisioned(true)])?;
//! // The first request fails with 503, as if the service were overloaded.
//! emulator.inject(Fault::new(FaultKind::Status { status: 503, retry_after: None }))?;
//!
//! let url = format!("{}/api/devices?api-version=2022-07-31", emulator.endpoint());
//! let http = reqwest::Client::new();
//! let mut statuses = Vec::new();
//! for _ in 0..2 {
//!     let response = http.get(&url).header("Authorization", emulator.token()).send().await?;
//!     statuses.push(response.status().as_u16());
//! }
//! assert_eq!(statuses, [503, 200]);
//! assert_eq!(emulator.requests()[0].path, "/api/devices");
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where the documentation is silent
//! Choices are documented where they are made. The general ones:
//!
//! - Checks come in this order: authorization (401), fault, throttling (429), query and version (400), path and method
//!   (404, 405), path parameters and headers (400), media type (415), size and JSON (413, 400), fields (422), existence
//!   (404), etag (412), rules between fields (422), other resources (409). The Device Provisioning Service and Resource
//!   Manager have their own orders, and the remarks below are on IoT Central. Other paths do not exist (404).
//! - Unknown query parameters are errors (400), since ignoring a misspelt one would give a wrong result. So are `$top`
//!   where the API description does not list it, and a parameter that is given twice with different values. Twice with
//!   the same value counts once, since shipped clients add the version to a `nextLink` that already has it.
//! - `If-Match` is honored for everything that has an etag, and an error (400) for everything else.
//! - `nextLink` has the host and port of the request's `Host` header, which must be known to the emulator.
//! - A skip token is valid only for the list that it was issued for: the same collection, filter and order (400
//!   otherwise).
//! - HEAD is GET without a body (RFC 9110 section 9.3.2).
//! - IDs are case-sensitive, except those of devices, which are registration IDs.
//! - A conflict between a body and the state is 422. 409, which is not documented, is for two enrollment groups with
//!   the same keys and for a device template that is in use.
//!
//! The emulator shares no code with the clients, `central`, `dps` and `arm`: they are independent readings of the API
//! descriptions.

// From the top: the server, the router, the handlers in `central`, `dps` and `arm`, the state, the types.
mod admin;
mod api;
mod api_error;
mod arm;
mod body;
mod central;
mod clock;
mod connections;
mod context;
mod credential;
mod dps;
mod error;
mod etag;
mod exchange_log;
mod fault;
mod fault_response;
mod fault_syntax;
mod fields;
mod health;
mod hosts;
mod identity;
mod json_text;
mod mqtt;
mod origin;
mod page_token;
mod path;
mod precondition;
mod random;
mod rate;
mod redaction;
mod request_log;
mod respond;
mod router;
mod seeds;
mod server;
mod server_certificates;
mod shared;
mod state;
mod state_file;
mod stop;
mod stored_authority;
mod tls;
mod version;

pub use central::{
    ApiVersion,
    model::{DeviceProperties, Filter, GroupQuery, SyntaxError},
};
pub use clock::Clock;
pub use dps::settings::DpsRight;
pub use error::EmulatorError;
pub use fault::{Fault, FaultKind};
pub use fault_syntax::FaultSyntaxError;
pub use request_log::RequestRecord;
pub use server::{Builder, Emulator, RemoteAccess};
