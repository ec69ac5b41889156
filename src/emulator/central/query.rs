//! The query of a request.

use std::collections::HashMap;

use form_urlencoded::Serializer;

use super::api_version::ApiVersion;
use crate::emulator::api_error::ApiError;

/// The query parameter with the version.
pub(crate) const API_VERSION: &str = "api-version";

/// The query of a request: its parameters in their order, each once, with a known version.
#[derive(Clone)]
pub(crate) struct Query {
    version: ApiVersion,
    parameters: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let parameters = parse_parameters(query)?;
        let Some((_, given)) = parameters.iter().find(|(name, _)| name == API_VERSION) else {
            return Err(ApiError::bad_request(format!(
                "the query parameter {API_VERSION} is missing; use {API_VERSION}={}",
                ApiVersion::Stable.as_str()
            )));
        };
        let Some(version) = ApiVersion::ALL.into_iter().find(|version| version.as_str() == given) else {
            return Err(ApiError::bad_request(format!(
                "unknown {API_VERSION} {given:?}; use {}",
                ApiVersion::ALL.map(ApiVersion::as_str).join(" or ")
            )));
        };
        Ok(Self { version, parameters })
    }

    pub(crate) fn version(&self) -> ApiVersion {
        self.version
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns a serializer with all parameters but one.
    pub(crate) fn without(&self, name: &str) -> Serializer<'static, String> {
        let mut others = Serializer::new(String::new());
        others.extend_pairs(self.parameters.iter().filter(|(found, _)| found != name));
        others
    }

    /// Returns an error if there is a parameter that the route does not have.
    pub(crate) fn allow_only(&self, known: &[&str]) -> Result<(), ApiError> {
        let mut names = self.parameters.iter().map(|(name, _)| name.as_str());
        match names.find(|name| *name != API_VERSION && !known.contains(name)) {
            Some(name) => Err(ApiError::bad_request(format!("unknown query parameter {name:?}"))),
            None => Ok(()),
        }
    }
}

/// Parses the parameters of a query.
///
/// Choice: a repeated parameter with the same value counts once, since shipped clients add the version to a `nextLink`
/// that already has it. Different values are an error, since either could be meant.
fn parse_parameters(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut values: HashMap<String, String> = HashMap::new();
    let mut parameters = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        match values.get(&name) {
            None => {
                values.insert(name.clone(), value.clone());
                parameters.push((name, value));
            }
            Some(found) if *found == value => {}
            Some(_) => {
                let message = format!("the query parameter {name:?} is given more than once, with different values");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(parameters)
}
