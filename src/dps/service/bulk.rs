//! Bulk operations: several enrollments in one call.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::Client;
use crate::transport::{Call, Error, Secret};

/// The most enrollments of a bulk operation.
pub const MAX_BULK: usize = 10;

/// What a bulk operation does with its enrollments.
///
/// The service's modes `update` and `updateIfMatchETag` are not offered: they replace whole records, so that they would
/// lose what a caller does not name.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BulkMode {
    Create,
    Delete,
}

/// The failure of one enrollment of a bulk operation. The others were carried out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BulkError {
    /// The ID of the enrollment.
    #[serde(alias = "enrollmentGroupId", alias = "registrationId")]
    pub id: String,
    /// The service's error code, such as `409004`.
    pub error_code: i64,
    /// The service's message.
    pub error_status: String,
}

/// The errors of a bulk operation. An operation that failed has at least one.
#[derive(Deserialize)]
#[serde(try_from = "WireOutcome")]
struct Outcome(Vec<BulkError>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOutcome {
    is_successful: bool,
    errors: Option<Vec<BulkError>>,
}

impl TryFrom<WireOutcome> for Outcome {
    type Error = &'static str;

    fn try_from(wire: WireOutcome) -> Result<Self, Self::Error> {
        match (wire.is_successful, wire.errors.unwrap_or_default()) {
            (false, errors) if errors.is_empty() => Err("isSuccessful is false, and there are no errors"),
            (_, errors) => Ok(Self(errors)),
        }
    }
}

impl Client {
    /// Runs a bulk operation. It is not repeated if its answer is lost.
    pub(super) async fn bulk(
        &self,
        collection: &str,
        mode: BulkMode,
        items: Vec<Value>,
        secrets: Vec<Secret>,
    ) -> Result<Vec<BulkError>, Error> {
        let found = items.len();
        let call = Call::post(&[collection], &json!({ "mode": mode, collection: items })).with_secrets(secrets);
        match found {
            0 => Ok(Vec::new()),
            1..=MAX_BULK => self.rest().read(&call).await.map(|Outcome(errors)| errors),
            _ => Err(Error::TooManyItems { operation: call.operation(), found, max: MAX_BULK }),
        }
    }
}
