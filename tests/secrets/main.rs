//! Secrets in logs. A test binary of its own, because it installs a global subscriber.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod emulator;
