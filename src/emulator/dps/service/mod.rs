//! The service API: enrollments, enrollment groups and registration records of the instance.
//!
//! # Where the documentation is silent
//! - **Checks** come in this order: fault, path (404), authentication (401), throttling (429), rights (401), version
//!   (400), method (405), headers and body (400, 413, 415), existence (404), `If-Match` (400, 409, 412), other resources
//!   (400, 409). A fault affects only authenticated requests.
//! - **Query parameters** that are unknown are ignored.
//! - **PUT with `If-Match`** on an ID that does not exist is 404, also with `*`.

mod authorization;
mod bulk;
mod changes;
mod enrollments;
mod query;
mod records;
mod router;

pub(crate) use authorization::authorize;
pub(crate) use changes::seed as seed_enrollment;
pub(crate) use router::router;
