//! Sequences over certificates and the client.
