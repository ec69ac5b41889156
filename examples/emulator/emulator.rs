//! Starts the emulator as a process, uses it as a program under test would, and asserts on what it was asked:
//! `cargo run --example emulator`
//!
//! In a Rust test the emulator can also run in the same process: `iot_enroll::emulator::Emulator`.

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const VERSION: &str = "api-version=2022-07-31";

/// An emulator, which is stopped when this is dropped.
struct Emulator {
    process: Child,
    endpoint: String,
    token: String,
}

impl Emulator {
    fn start(arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let program = env::var("IOT_ENROLL_PROGRAM").unwrap_or_else(|_| "iot-enroll".to_owned());
        let mut command = Command::new(program);
        command.arg("emulator").args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn()?;
        // It serves once it has printed this line.
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        let line: Value = serde_json::from_str(&line)?;
        let text = |name: &str| line[name].as_str().map(str::to_owned).ok_or("no such member");
        Ok(Self { process, endpoint: text("endpoint")?, token: text("token")? })
    }

    /// Returns what the emulator was asked.
    async fn requests(&self, query: &str) -> Result<Vec<Value>, Box<dyn Error>> {
        let url = format!("{}/__admin/requests?{query}", self.endpoint);
        let answer = Client::new().get(url).header("Authorization", &self.token).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        Ok(answer["requests"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The code under test: renames a device, and tries again once if the service fails.
async fn rename(endpoint: &str, token: &str, device_id: &str, name: &str) -> Result<Value, reqwest::Error> {
    let patch = || {
        let url = format!("{endpoint}/api/devices/{device_id}?{VERSION}");
        Client::new().patch(url).header("Authorization", token).json(&json!({ "displayName": name })).send()
    };
    let mut answer = patch().await?;
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer = patch().await?;
    }
    answer.error_for_status()?.json().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/emulator/seeds.json");
    let emulator = Emulator::start(&["--import", seeds, "--rate", "1000", "--fault", "503,method=PATCH"])?;
    let device = rename(&emulator.endpoint, &emulator.token, "thermostat-1", "Kitchen").await?;
    assert_eq!(device["displayName"], "Kitchen");
    let asked = emulator.requests("path=/api/devices/thermostat-1").await?;
    let statuses: Vec<_> = asked.iter().map(|request| request["response"]["status"].clone()).collect();
    assert_eq!(statuses, [503, 200]);
    assert_eq!(asked[1]["body"], json!({ "displayName": "Kitchen" }));
    assert_eq!(asked[1]["headers"]["authorization"], "(redacted)");
    Ok(())
}
