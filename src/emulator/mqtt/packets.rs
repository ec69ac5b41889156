//! The packets of a connection, and why it ends.

use std::{io, time::Duration};

use mqtt_proto::{
    Error, Protocol,
    v3::{Header, Packet, SubscribeReturnCode},
};
use tokio::time::{Instant, error::Elapsed, timeout, timeout_at};

use super::{channel::Channel, limits::MAX_PACKET};

/// A buffer that is larger than this is freed when it is empty.
const KEPT_BUFFER: usize = 4096;

/// The return code of a refused topic filter (MQTT 3.1.1 section 3.9.3).
const SUBACK_FAILURE: u8 = 0x80;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the client closed the connection without a DISCONNECT")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("a packet is malformed")]
    Malformed,
    #[error("a packet is larger than {MAX_PACKET} bytes")]
    TooLarge,
    /// The CONNECT packet is for another version of MQTT.
    #[error("the client speaks another version of MQTT")]
    OtherProtocol,
    #[error("the client sent a packet that is not allowed at this point")]
    Unexpected,
    #[error("the client published to a topic or with a QoS that the service does not have")]
    Unsupported,
    #[error("the CONNECT packet was refused with return code {0}")]
    Refused(u8),
    #[error("a packet did not arrive in time")]
    Silent,
    #[error("the client does not read what it is sent")]
    Slow,
    #[error("the same client connected again")]
    TakenOver,
    #[error("a fault was injected")]
    Fault,
    #[error("the emulator stopped")]
    Stopped,
}

impl From<Elapsed> for End {
    fn from(_: Elapsed) -> Self {
        Self::Silent
    }
}

/// Reads and writes packets.
pub(super) struct Packets<C> {
    channel: C,
    received: Vec<u8>,
    /// How many of the received bytes have been taken.
    taken: usize,
    /// The time that the client has to send the rest of a packet, or to read one.
    time_limit: Duration,
}

impl<C: Channel> Packets<C> {
    pub(super) fn new(channel: C, time_limit: Duration) -> Self {
        Self { channel, received: Vec::new(), taken: 0, time_limit }
    }

    /// Returns the next packet, which must be complete after `silence`. From its first byte, it has the time limit.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Packet, End> {
        let mut deadline = Instant::now() + silence;
        let mut has_begun = false;
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            self.free_taken();
            if !has_begun && !self.received.is_empty() {
                has_begun = true;
                deadline = deadline.min(Instant::now() + self.time_limit);
            }
            if timeout_at(deadline, self.channel.receive(&mut self.received)).await?? == 0 {
                return Err(End::Closed);
            }
        }
    }

    /// Takes a complete packet from the received bytes.
    fn take(&mut self) -> Result<Option<Packet>, End> {
        let rest = self.received.get(self.taken..).unwrap_or_default();
        let header = match Header::decode(rest) {
            Ok(header) => header,
            Err(error) if error.is_eof() => return Ok(None),
            Err(_) => return Err(End::Malformed),
        };
        // Not `header.total_len`, which version 0.4.0 of the codec leaves at the size of the length itself.
        let length_size = 1 + rest.iter().skip(1).take_while(|byte| **byte >= 0x80).count();
        let remaining = usize::try_from(header.remaining_len).map_err(|_| End::TooLarge)?;
        let length = 1 + length_size + remaining;
        if length > MAX_PACKET {
            return Err(End::TooLarge);
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let packet = decode(bytes, remaining)?;
        self.taken += length;
        Ok(Some(packet))
    }

    /// Frees the bytes that have been taken.
    fn free_taken(&mut self) {
        self.received.drain(..self.taken);
        self.taken = 0;
        if self.received.is_empty() && self.received.capacity() > KEPT_BUFFER {
            self.received = Vec::new();
        }
    }

    pub(super) async fn send(&mut self, packets: &[Packet]) -> Result<(), End> {
        self.send_bytes(&encode(packets)?).await
    }

    /// Sends the first half of packets, which ends the connection.
    pub(super) async fn send_half(&mut self, packets: &[Packet]) -> Result<(), End> {
        let bytes = encode(packets)?;
        self.send_bytes(&bytes[..bytes.len() / 2]).await?;
        Err(End::Fault)
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), End> {
        Ok(timeout(self.time_limit, self.channel.send(bytes)).await.map_err(|_| End::Slow)??)
    }

    /// Closes the connection, and discards what the client still sends: a connection that is closed with unread bytes is
    /// reset, and a reset can overtake the last packet.
    pub(super) async fn close(mut self, linger: Duration) {
        let finished = async {
            self.channel.finish().await?;
            while self.channel.receive(&mut self.received).await? > 0 {
                self.received.clear();
            }
            io::Result::Ok(())
        };
        let _ = timeout(linger, finished).await;
    }
}

fn encode(packets: &[Packet]) -> Result<Vec<u8>, End> {
    let mut bytes = Vec::new();
    for packet in packets {
        // Encoding fails for a packet over the maximum of the protocol only.
        bytes.extend_from_slice(packet.encode().map_err(|_| End::TooLarge)?.as_ref());
        if let Packet::Suback(suback) = packet {
            // The codes are at the end. Version 0.4.0 of the codec writes 3 for a failure.
            let codes = bytes.iter_mut().rev().zip(suback.topics.iter().rev());
            for (byte, _) in codes.filter(|(_, code)| **code == SubscribeReturnCode::Failure) {
                *byte = SUBACK_FAILURE;
            }
        }
    }
    Ok(bytes)
}

/// Decodes a complete packet.
fn decode(bytes: &[u8], remaining: usize) -> Result<Packet, End> {
    let packet = match Packet::decode(bytes) {
        Ok(Some(packet)) => packet,
        // The other versions that the codec knows, and other levels.
        Err(Error::UnexpectedProtocol(_)) => return Err(End::OtherProtocol),
        Err(Error::InvalidProtocol(name, _)) if &*name == "MQTT" => return Err(End::OtherProtocol),
        // A field goes beyond the end.
        Ok(None) | Err(_) => return Err(End::Malformed),
    };
    if matches!(&packet, Packet::Connect(connect) if connect.protocol != Protocol::V311) {
        return Err(End::OtherProtocol);
    }
    // The codec does not look at bytes after the last field.
    if packet.encode_len().ok() != mqtt_proto::total_len(remaining).ok() {
        return Err(End::Malformed);
    }
    Ok(packet)
}
