//! The device API of the Device Provisioning Service over MQTT 3.1.1:
//! [Communicate with DPS using the MQTT protocol](https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps).
//!
//! A device connects with TLS, subscribes to `$dps/registrations/res/#`, publishes its request, and receives the response
//! on `$dps/registrations/res/{status}/?$rid={request ID}`. The registration itself is that of the HTTP face. MQTT over
//! WebSocket is on the HTTPS port ([`websocket`]).
//!
//! # Where the documentation is silent
//! - **CONNECT** is checked for its form. The return codes are those that shipped clients tell apart: 1 for another
//!   version of MQTT, 2 for a client ID that is not the registration ID of the user name, 4 for a user name or an API
//!   version that the service does not have, 5 for a connection with neither client certificate nor token, and for a token
//!   that is malformed, expired or for another device. 5 for an expired token, and 401 on the response topic for a wrong
//!   key and for a refused certificate, are as users of the service report.
//! - **Everything that depends on enrollments** is decided with each request and answered on the response topic: a device
//!   may connect before it is enrolled. So is an unknown ID scope (404).
//! - **An empty password** counts as none. A password takes precedence over a client certificate, like the `Authorization`
//!   header over HTTP.
//! - **Sessions** are not stored: `session present` is always 0, also for the Python SDK, which asks for one. A last will
//!   is ignored, and so is the retain flag.
//! - **A client that connects twice** keeps its newer connection: the older one is closed ([MQTT-3.1.4-2]). Clients are
//!   told apart by ID scope and registration ID, without regard to case.
//! - **Topic filters** other than `$dps/registrations/res/#` are refused in the SUBACK, one by one, since some devices
//!   subscribe to topics of IoT Hub too. `QoS` 1 is the highest that is granted.
//! - **Responses** have `QoS` 0, as reported from the service, regardless of the `QoS` that was granted. A device that has
//!   not subscribed gets none, but its request is executed. A PUBACK precedes the response to its request.
//! - **A PUBLISH** to an unknown topic, without a request ID or with `QoS` 2 closes the connection, as at IoT Hub.
//! - **A packet** that is malformed, too large, reserved for servers, or a second CONNECT closes its connection.
//! - **Keep-alive**: a connection is closed after one and a half times the keep-alive without a packet ([MQTT-3.1.2-24]).
//!   The longest silence is that of IoT Hub, 1767 seconds, also for a keep-alive of 0.
//! - **Faults** affect requests by the method and the path that they have over HTTP, such as PUT and
//!   `/{idScope}/registrations/{id}/register`. Those that need HTTP (`not-json`, `redirect`) do not affect MQTT. A fault
//!   whose method is CONNECT affects the CONNECT packet: 401 and 403 are return code 5, 400 is 4, other statuses are 3.
//! - **The rate limit** does not apply, as over HTTP.

mod channel;
pub(super) mod clients;
mod connection;
mod limits;
mod packets;
mod reply;
mod session;
mod topic;
mod websocket;

pub(super) use channel::StreamChannel;
pub(super) use connection::serve;
pub(super) use websocket::{PATH as WEBSOCKET_PATH, PendingUpgrade, routes as websocket_routes};
