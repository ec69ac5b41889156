//! CA keys in PKCS#11 tokens: the program against SoftHSM, and against a module that fails.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod creation;
mod errors;
mod fleet;
mod lab;
mod pin;
mod services;
mod signing;
