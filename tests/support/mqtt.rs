//! A small MQTT client, over TLS and over WebSocket. It sends any bytes, also those that no client library sends.
#![allow(dead_code, reason = "each test file uses a part")]

use futures_util::{SinkExt, StreamExt};
use iot_enroll::emulator::Emulator;
use mqtt_proto::{
    Pid, QoS, QosPid, TopicFilter, TopicName,
    v3::{Connect, ConnectReturnCode, Packet, Publish, Subscribe, SubscribeReturnCode},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::caller::Caller;

pub(crate) const RESPONSES: &str = "$dps/registrations/res/#";

/// What carries the packets.
pub(crate) enum Link {
    Tls(Box<TlsStream<TcpStream>>),
    WebSocket(Box<WebSocketStream<TlsStream<TcpStream>>>),
}

/// A client of MQTT.
pub(crate) struct Device {
    pub(crate) link: Link,
    received: Vec<u8>,
}

/// A response on its topic.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) topic: String,
    pub(crate) body: Value,
}

impl Response {
    /// Expects a topic of the form `$dps/registrations/res/{status}/?{parameters}`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16, parameters: &str) -> Self {
        assert_eq!(self.topic, format!("$dps/registrations/res/{status}/?{parameters}"), "{}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: u32, message: &str) {
        let Self { body, .. } = self.expect(status, "$rid=r");
        assert_eq!((&body["errorCode"], &body["message"]), (&json!(code), &json!(message)), "{body}");
        assert!(body["trackingId"].as_str().is_some_and(|id| id.len() == 36), "{body}");
        super::caller::check_time(&body["timestampUtc"]);
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }
}

/// Returns the user name of a device, as the SDK for Python sends it.
pub(crate) fn user_name(id_scope: &str, id: &str) -> String {
    format!(
        "{id_scope}/registrations/{id}/api-version=2019-03-31&ClientVersion=azure-iot-device-provisioning-py%2F2.14.0"
    )
}

/// Returns a CONNECT packet as the SDK for Python sends it: without a clean session.
pub(crate) fn connect(id: &str, user_name: &str, password: Option<&str>) -> Connect {
    let mut connect = Connect::new(id.into(), 60);
    connect.clean_session = false;
    connect.username = Some(user_name.into());
    connect.password = password.map(|password| password.as_bytes().to_vec().into());
    connect
}

impl Device {
    /// Opens a connection, and sends nothing.
    pub(crate) async fn open(caller: &Caller<'_>) -> Self {
        let address = caller.emulator().mqtt_address().expect("an emulator with MQTT");
        let stream = caller.handshake_at(address, "localhost").await.expect("a handshake");
        Self { link: Link::Tls(Box::new(stream)), received: Vec::new() }
    }

    /// Opens a WebSocket on the HTTPS port, and sends no packet.
    pub(crate) async fn open_websocket(caller: &Caller<'_>) -> Self {
        let (stream, head) = handshake(caller, &handshake_request(caller.emulator())).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let head = head.to_lowercase();
        // The example of RFC 6455 section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
        let link = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self { link: Link::WebSocket(Box::new(link)), received: Vec::new() }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The emulator may have closed the connection.
        match &mut self.link {
            Link::Tls(stream) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
            }
            Link::WebSocket(socket) => drop(socket.send(Message::binary(bytes.to_vec())).await),
        }
    }

    pub(crate) async fn send(&mut self, packet: impl Into<Packet>) {
        self.send_bytes(packet.into().encode().expect("a packet").as_ref()).await;
    }

    /// Receives the next packet. `None` once the connection is closed or broken.
    pub(crate) async fn receive(&mut self) -> Option<Packet> {
        loop {
            // The emulator sends no packet that is malformed.
            if let Some(packet) = Packet::decode(&self.received).expect("a packet") {
                self.received.drain(..packet.encode_len().expect("a length"));
                return Some(packet);
            }
            let count = match &mut self.link {
                Link::Tls(stream) => stream.read_buf(&mut self.received).await.unwrap_or(0),
                Link::WebSocket(socket) => match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        self.received.extend_from_slice(&bytes);
                        bytes.len()
                    }
                    _ => 0,
                },
            };
            if count == 0 {
                return None;
            }
        }
    }

    /// Closes the sending half of the connection.
    pub(crate) async fn finish_sending(&mut self) {
        let Link::Tls(stream) = &mut self.link else { panic!("not over WebSocket") };
        let _ = stream.shutdown().await;
    }

    /// Reads until the connection is closed, and returns the bytes.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        let Link::Tls(stream) = &mut self.link else { panic!("not over WebSocket") };
        // A broken connection ends like a closed one.
        let _ = stream.read_to_end(&mut self.received).await;
        self.received
    }

    /// Sends a CONNECT packet and returns the return code. There is never a session.
    pub(crate) async fn connect(&mut self, connect: Connect) -> ConnectReturnCode {
        self.send(connect).await;
        match self.receive().await {
            Some(Packet::Connack(connack)) => {
                assert!(!connack.session_present);
                connack.code
            }
            other => panic!("{other:?}"),
        }
    }

    /// Connects a device at an ID scope and subscribes to the responses.
    pub(crate) async fn log_in(mut self, id_scope: &str, id: &str, password: Option<&str>) -> Self {
        let code = self.connect(connect(id, &user_name(id_scope, id), password)).await;
        assert_eq!(code, ConnectReturnCode::Accepted);
        assert_eq!(self.subscribe(&[(RESPONSES, QoS::Level1)]).await, [SubscribeReturnCode::MaxLevel1]);
        self
    }

    pub(crate) async fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Vec<SubscribeReturnCode> {
        let filters = filters.iter().map(|(filter, qos)| (TopicFilter::try_from(*filter).expect("a filter"), *qos));
        self.send(Subscribe::new(pid(1), filters.collect())).await;
        match self.receive().await {
            Some(Packet::Suback(suback)) if suback.pid == pid(1) => suback.topics,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn publish(&mut self, qos: QosPid, topic: &str, payload: &str) {
        let topic = TopicName::try_from(topic).expect("a topic");
        self.send(Publish::new(qos, topic, payload.as_bytes().to_vec().into())).await;
    }

    /// Publishes with `QoS` 1, and returns the response, which follows the PUBACK. `None` if the connection is closed.
    pub(crate) async fn try_request(&mut self, topic: &str, payload: &str) -> Option<Response> {
        self.publish(QosPid::Level1(pid(7)), topic, payload).await;
        assert_eq!(self.receive().await?, Packet::Puback(pid(7)));
        self.response().await
    }

    pub(crate) async fn request(&mut self, topic: &str, payload: &str) -> Response {
        self.try_request(topic, payload).await.expect("a response")
    }

    /// Receives a response.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        let publish = match self.receive().await? {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        };
        assert_eq!((publish.qos_pid, publish.retain, publish.dup), (QosPid::Level0, false, false));
        let body = serde_json::from_slice(&publish.payload).expect("JSON");
        Some(Response { topic: publish.topic_name.to_string(), body })
    }

    pub(crate) async fn register(&mut self, id: &str) -> Response {
        self.request(REGISTER, &json!({ "registrationId": id }).to_string()).await
    }

    pub(crate) async fn poll(&mut self, operation_id: &str) -> Response {
        let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=r&operationId={operation_id}");
        // What the SDKs send.
        self.request(&topic, " ").await
    }

    /// Registers a device and polls until it is assigned.
    pub(crate) async fn assigned(&mut self, id: &str) -> Response {
        let operation_id = self.register(id).await.expect(202, "$rid=r&retry-after=0").text("/operationId");
        loop {
            let response = self.poll(&operation_id).await;
            if response.body["status"] != "assigning" {
                assert_eq!(response.text("/status"), "assigned");
                return response.expect(200, "$rid=r");
            }
        }
    }

    /// Returns whether the connection answers a ping.
    pub(crate) async fn is_alive(&mut self) -> bool {
        self.send(Packet::Pingreq).await;
        matches!(self.receive().await, Some(Packet::Pingresp))
    }
}

pub(crate) const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=r";

pub(crate) fn pid(number: u16) -> Pid {
    Pid::try_from(number).expect("not zero")
}

/// Returns the request of a WebSocket, as the SDK for Python sends it.
pub(crate) fn handshake_request(emulator: &Emulator) -> String {
    let host = emulator.address();
    format!(
        "GET /$iothub/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Origin: https://{host}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
}

/// Sends a request on the HTTPS port and returns the head of the response.
pub(crate) async fn handshake(caller: &Caller<'_>, request: &str) -> (TlsStream<TcpStream>, String) {
    let mut stream = caller.handshake("localhost").await.expect("a handshake");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    (stream, String::from_utf8(head).expect("text"))
}
