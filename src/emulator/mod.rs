//! IoT Central on a loopback port: an application to write and test against, without an account.
//!
//! It speaks the REST API of the service, versions `2022-07-31`, `2022-10-31-preview` and `2022-06-30-preview`, over HTTP on
//! a real socket, or over [TLS](Builder::tls), keeps its state in memory, and checks what the service checks: authorization,
//! version, bodies, etags, certificates, proofs of possession, filters and queries. [`Fault`]s make it misbehave on request.
//!
//! It has enrollment groups and their certificates, devices with attestation and credentials, device groups, device
//! templates, organizations and deployment manifests. The other resources do not exist here (404).
//!
//! On the same port is the Device Provisioning Service, where a device registers with its certificate or key and is then in
//! the application: `/{idScope}/registrations/{registrationId}/register`, versions `2019-03-31`, `2021-06-01` and
//! `2021-10-01`, with the [id scope](Emulator::id_scope) of the emulator.
//!
//! ```
//! # async fn example() -> Result<(), iot_enroll::emulator::EmulatorError> {
//! use iot_enroll::emulator::Emulator;
//!
//! let emulator = Emulator::builder().start().await?;
//! println!("{}/api/enrollmentGroups?api-version=2022-07-31", emulator.endpoint());
//! // ... requests with `Authorization: ` and emulator.token() ...
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where the documentation is silent
//! Each choice is written where it is made. The general ones:
//!
//! - Checks come in this order: authorization (401), fault, throttling (429), query and version (400), route (404, 405),
//!   names in the path and headers (400), media type (415), size and JSON (413, 400), fields (422), existence (404), etag
//!   (412), rules between fields (422), other things (409). Nothing outside `/api` exists (404) but the Device Provisioning
//!   Service, which has its own order.
//! - A query parameter that the route does not have is refused with 400: a misspelt one that is passed over gives a wrong
//!   answer. So is `$top` where the contract does not list it, and a parameter that is there twice with different values.
//!   Twice with the same value counts once, as shipped clients add the version to a `nextLink` that has it.
//! - `If-Match` is honoured by everything that has an etag, and refused with 400 everywhere else.
//! - `nextLink` has the host and port of the request's `Host` header.
//! - A skip token works for the list that it was made for alone: the same collection, filter and order. Another is refused
//!   with 400.
//! - HEAD is answered as GET, without the body (RFC 9110 section 9.3.2).
//! - Ids are compared with regard to case, but for those of devices, which are registration ids.
//! - A contradiction between a body and the state is 422. 409, which is not among the documented statuses, is for two
//!   enrollment groups with the same keys, and for a device template that is still in use.
//!
//! It shares no code with `central`, the client: the two are independent readings of the API description.

mod application;
mod clock;
mod condition;
mod credential;
mod deployment_manifests;
mod device_attestation;
mod device_groups;
mod device_index;
mod device_templates;
mod devices;
mod document;
mod enrollment_groups;
mod error;
mod fault;
mod filter;
mod gate;
mod group_query;
mod id;
mod if_match;
mod json;
mod organizations;
mod page;
mod random;
mod registration_proof;
mod registrations;
mod request_log;
mod server;
mod store;
mod tls;

pub use clock::Clock;
pub use condition::SyntaxError;
pub use devices::DeviceProperties;
pub use fault::{Fault, FaultKind, FaultSyntaxError};
pub use filter::Filter;
pub use gate::ApiVersion;
pub use group_query::GroupQuery;
pub use request_log::RequestRecord;
pub use server::{Builder, Emulator, EmulatorError};
