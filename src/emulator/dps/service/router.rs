//! The routes of the service API and the checks before its handlers run.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};

use super::{authorization::authorize, enrollments, records};
use crate::emulator::{
    body::MAX_READ,
    context::SharedContext,
    dps::model::{Kind, ServiceVersion},
    origin::Origin,
    path::unknown_method,
    version::parse_version,
};

/// The versions of the service API.
const VERSIONS: [(&str, ServiceVersion); 8] = [
    ("2019-03-31", ServiceVersion::Stable),
    ("2021-06-01", ServiceVersion::Stable),
    ("2021-10-01", ServiceVersion::Stable),
    ("2025-07-01-preview", ServiceVersion::CredentialPolicy),
    ("2026-04-01", ServiceVersion::Namespace),
    ("2026-11-01", ServiceVersion::Namespace),
    ("2026-11-02-preview", ServiceVersion::Namespace),
    ("2026-11-15-preview", ServiceVersion::Namespace),
];

/// Returns the routes of the service API.
pub(crate) fn router(context: &SharedContext) -> Router<SharedContext> {
    enrollments::routes(Kind::Group)
        .merge(enrollments::routes(Kind::Individual))
        .merge(records::routes())
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_READ))
        .layer(from_fn_with_state(Arc::clone(context), check))
}

/// Checks authentication, rate, rights and version of every request.
async fn check(State(context): State<SharedContext>, origin: Origin, mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    let checked = authorize(request.headers(), &origin, uri.path(), &context)
        .and_then(|caller| context.dps_rate.check().map(|()| caller))
        .and_then(|caller| caller.check_right(request.method(), uri.path()))
        .and_then(|()| parse_version(uri.query().unwrap_or_default(), &VERSIONS.map(|(text, _)| text)));
    match checked {
        Ok(version) => {
            let version = VERSIONS.iter().find(|(text, _)| *text == version).map(|(_, version)| *version);
            request.extensions_mut().insert(version.unwrap_or(ServiceVersion::Stable));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}
