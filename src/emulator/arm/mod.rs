//! Azure Resource Manager: the subscription, and the DPS instance in it with its certificates and keys.
//!
//! # Where the documentation is silent
//! - **Checks** come in this order: fault, path (404), authentication (401), throttling (429), method (405), version
//!   (400), existence of the resources in the path (404), headers and body (400, 413, 415), `If-Match` (400, 412), other
//!   resources (409). A fault affects only authenticated requests.
//! - **Query parameters** that are unknown are ignored, and so are the `certificate.*` ones.
//! - **The instance** exists from the start and cannot be changed or deleted (405).

mod certificates;
mod error_body;
mod instance;
mod keys;
mod router;
mod version;

pub(super) use certificates::seed as seed_certificate;
pub(super) use error_body::error_body;
pub(super) use router::{authorize, router};
