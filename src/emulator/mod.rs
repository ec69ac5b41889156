//! IoT Central on a loopback port.
