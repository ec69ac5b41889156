//! The IoT Central REST API as a client.
