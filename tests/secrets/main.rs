//! What is logged. In a process of its own: it installs a global subscriber.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod emulator;
