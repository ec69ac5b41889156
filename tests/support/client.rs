//! A client of the scripted server.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use iot_enroll::central::{Authorization, Client, ClientBuilder, Endpoint};

use super::{clock::ManualClock, server::Server};

/// An API token, as an application shows it. It expires in 2100.
pub(crate) const TOKEN: &str = "SharedAccessSignature sr=app&sig=topsecret%3D&skn=ops&se=4102444800000";

pub(crate) fn builder(url: &str, clock: &Arc<ManualClock>) -> ClientBuilder {
    Client::builder(url.parse::<Endpoint>().expect("an endpoint"))
        .authorization(Authorization::parse(TOKEN).expect("a token"))
        .clock(Arc::clone(clock) as Arc<_>)
}

pub(crate) fn client(server: &Server) -> Client {
    builder(&server.url(), &ManualClock::new()).build().expect("a client")
}
