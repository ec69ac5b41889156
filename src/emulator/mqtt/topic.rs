//! The topics of the service.

use crate::emulator::dps::percent_decode;

/// The topic filter that devices subscribe to.
pub(super) const RESPONSES: &str = "$dps/registrations/res/#";

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
const POLL: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";

/// The maximum length of a request ID in bytes. Choice: not documented, and clients send UUIDs or numbers.
const MAX_REQUEST_ID: usize = 1024;

/// A request, as its topic has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestTopic<'a> {
    /// As it is spelled in the topic: the response has it in the same spelling.
    pub(super) request_id: &'a str,
    pub(super) operation: Operation,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Register,
    Poll { operation_id: String },
}

impl<'a> RequestTopic<'a> {
    /// Parses a topic. Returns `None` for one that the service does not have. Unknown parameters are ignored.
    pub(super) fn parse(topic: &'a str) -> Option<Self> {
        let (parameters, is_poll) = match (topic.strip_prefix(REGISTER), topic.strip_prefix(POLL)) {
            (Some(parameters), _) => (parameters, false),
            (None, Some(parameters)) => (parameters, true),
            (None, None) => return None,
        };
        let parameter =
            |name: &str| parameters.split('&').find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='));
        let request_id = parameter("$rid").filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()))?;
        let operation = if is_poll {
            Operation::Poll { operation_id: percent_decode(parameter("operationId").unwrap_or_default()) }
        } else {
            Operation::Register
        };
        Some(Self { request_id, operation })
    }

    /// Returns the topic of the response.
    pub(super) fn response(&self, status: u16, retry_after: Option<u64>) -> String {
        let topic = format!("$dps/registrations/res/{status}/?$rid={}", self.request_id);
        match retry_after {
            Some(seconds) => format!("{topic}&retry-after={seconds}"),
            None => topic,
        }
    }
}
