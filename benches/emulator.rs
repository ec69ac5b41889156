//! Benchmarks of the emulator: requests over loopback, lists of many devices, filters.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iot_enroll::emulator::{ApiVersion, DeviceProperties, Emulator, Filter, GroupQuery};
use tokio::runtime::Runtime;

const DEVICES: u64 = 100_000;

const FILTER: &str = "contains(displayName, 'thermostat') ge 0 and (enabled eq true or simulated ne false) \
    and template eq 'dtmi:contoso:Thermostat;1'";

/// A persistent connection with minimal HTTP, so that the benchmark measures the emulator and not a client.
struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(emulator: &Emulator) -> Self {
        let stream = TcpStream::connect(emulator.address()).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let head = format!("Host: {}\r\nAuthorization: {}\r\n", emulator.address(), emulator.token());
        Self { stream: BufReader::with_capacity(1 << 16, stream), head, body: Vec::new() }
    }

    /// Sends a request and returns the body of the response, which must be 200.
    fn request(&mut self, method: &str, target: &str, body: &str) -> &[u8] {
        let head = &self.head;
        let content = match body.len() {
            0 => String::new(),
            length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        let request = format!("{method} {target} HTTP/1.1\r\n{head}{content}\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes()).expect("sent");
        let mut line = String::new();
        let mut length = 0;
        self.stream.read_line(&mut line).expect("a status line");
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line).expect("a header");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).expect("a body");
        &self.body
    }
}

fn device(number: u64) -> DeviceProperties {
    DeviceProperties::new(format!("device-{number:06}"))
        // Only the order of the IDs is the order of creation.
        .display_name(format!("thermostat {}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % DEVICES))
        .template("dtmi:contoso:Thermostat;1")
        .simulated(number.is_multiple_of(3))
}

fn start(runtime: &Runtime, devices: u64) -> Emulator {
    let emulator = runtime.block_on(Emulator::builder().start()).expect("a free port");
    emulator.add_devices((0..devices).map(device)).expect("devices");
    emulator
}

fn requests(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let emulator = start(&runtime, DEVICES);
    let mut connection = Connection::open(&emulator);
    let target = "/api/devices/device-050000?api-version=2022-07-31";
    let body = r#"{"displayName":"thermostat","template":"dtmi:contoso:Thermostat;1","enabled":true}"#;
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(1));
    group.bench_function("device GET", |bencher| bencher.iter(|| connection.request("GET", target, "").len()));
    group.bench_function("device PUT", |bencher| bencher.iter(|| connection.request("PUT", target, body).len()));
    group.finish();
}

/// Follows all links and returns the number of devices.
fn list(connection: &mut Connection, query: &str) -> usize {
    let mut target = format!("/api/devices?api-version=2022-07-31&%24top=100{query}");
    let mut found = 0;
    loop {
        let body = str::from_utf8(connection.request("GET", &target, "")).expect("UTF-8");
        found += body.matches("\"etag\"").count();
        let Some((_, link)) = body.split_once("\"nextLink\":\"http://") else { return found };
        let link = link.split('"').next().expect("an end");
        target = link[link.find('/').expect("a path")..].to_owned();
    }
}

fn listing(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("list by pages of 100");
    group.sample_size(10);
    for devices in [DEVICES / 10, DEVICES] {
        let emulator = start(&runtime, devices);
        let mut connection = Connection::open(&emulator);
        group.throughput(Throughput::Elements(devices));
        for (name, query, expected) in [
            ("by id", "", devices),
            ("by name", "&%24orderby=displayName%20desc", devices),
            ("a third of them", "&%24filter=simulated%20eq%20true", devices.div_ceil(3)),
        ] {
            group.bench_function(format!("{devices} devices, {name}"), |bencher| {
                bencher.iter(|| assert_eq!(list(&mut connection, query) as u64, expected));
            });
        }
    }
    group.finish();
}

fn filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(1));
    let parse = || Filter::parse(black_box(FILTER), ApiVersion::Stable).expect("a filter");
    group.bench_function("parse", |bencher| bencher.iter(parse));
    let (filter, device) = (parse(), device(1));
    group.bench_function("evaluate", |bencher| bencher.iter(|| filter.matches(black_box(&device))));
    let query = r#"SELECT * FROM devices WHERE $template = "dtmi:contoso:Thermostat;1" AND NOT $provisioned = true"#;
    group.bench_function("parse a group's query", |bencher| {
        bencher.iter(|| GroupQuery::parse(black_box(query)).expect("a query"));
    });
    group.finish();
}

criterion_group!(benches, requests, listing, filters);
criterion_main!(benches);
