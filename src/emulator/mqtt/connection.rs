//! A connection of a device, from its CONNECT to its end.

use std::{convert::Infallible, time::Duration};

use mqtt_proto::{
    QoS, QosPid, TopicName,
    v3::{Connack, Connect, ConnectReturnCode, Packet, Publish, Suback, Subscribe, SubscribeReturnCode},
};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    channel::Channel,
    clients::Clients,
    packets::{End, Packets},
    reply::reply,
    session::Session,
    topic::{RESPONSES, RequestTopic},
};
use crate::emulator::{
    context::{Context, SharedContext},
    exchange_log::Exchange,
    fault::FaultKind,
    stop::{FLUSH, GRACE, wait_for_stop},
    tls::PeerCertificates,
};

/// Serves a connection until it ends. It needs a place among all connections, or is closed at once.
pub(crate) async fn serve(
    channel: impl Channel,
    certificates: PeerCertificates,
    context: SharedContext,
    mut stopped: watch::Receiver<bool>,
) {
    let Some(clients) = &context.mqtt else { return };
    let Some(_place) = clients.place() else {
        tracing::debug!("there are too many MQTT connections");
        return;
    };
    let mut packets = Packets::new(channel, context.read_timeout);
    let end = tokio::select! {
        end = converse(&mut packets, certificates, clients, &context, stopped.clone()) => end,
        () = cut_off(&mut stopped) => End::Stopped,
    };
    tracing::debug!(reason = %end, "MQTT connection ended");
    packets.close(FLUSH).await;
}

/// Returns when a request in progress has had its time after the emulator stopped.
async fn cut_off(stopped: &mut watch::Receiver<bool>) {
    wait_for_stop(stopped).await;
    tokio::time::sleep(GRACE).await;
}

async fn converse(
    packets: &mut Packets<impl Channel>,
    certificates: PeerCertificates,
    clients: &Clients,
    context: &Context,
    mut stopped: watch::Receiver<bool>,
) -> End {
    let session = match connect(packets, certificates, context, &mut stopped).await {
        Ok(session) => session,
        Err(end) => return end,
    };
    let mut presence = clients.enter(session.client());
    tokio::select! {
        attended = attend(packets, &session, context, &mut stopped) => match attended {
            Ok(never) => match never {},
            Err(end) => end,
        },
        () = presence.until_taken_over() => End::TakenOver,
    }
}

/// Responds to the packets of a connected client until the connection ends.
async fn attend(
    packets: &mut Packets<impl Channel>,
    session: &Session,
    context: &Context,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Infallible, End> {
    let mut is_subscribed = false;
    loop {
        let packet = next(packets, session.max_silence, stopped).await?;
        respond(packets, packet, session, &mut is_subscribed, context).await?;
    }
}

/// Returns the next packet, unless the emulator stops before.
async fn next(
    packets: &mut Packets<impl Channel>,
    silence: Duration,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Packet, End> {
    tokio::select! {
        packet = packets.next(silence) => packet,
        () = wait_for_stop(stopped) => Err(End::Stopped),
    }
}

/// Receives the CONNECT packet and acknowledges or refuses it.
async fn connect(
    packets: &mut Packets<impl Channel>,
    certificates: PeerCertificates,
    context: &Context,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Session, End> {
    let session = match next(packets, context.read_timeout, stopped).await {
        Ok(Packet::Connect(connect)) => admit(&connect, certificates, context).await?,
        Ok(_) => return Err(End::Unexpected),
        Err(End::OtherProtocol) => Err(ConnectReturnCode::UnacceptableProtocolVersion),
        Err(end) => return Err(end),
    };
    let code = session.as_ref().err().copied().unwrap_or(ConnectReturnCode::Accepted);
    packets.send(&[Packet::Connack(Connack::new(false, code))]).await?;
    session.map_err(|code| End::Refused(code as u8))
}

/// Records a CONNECT packet.
fn record(context: &Context, path: &str, status: Option<u16>) {
    context.log.add("CONNECT", path, status);
    let response = status.map(|status| (status, &Value::Null));
    context.exchanges.add(Exchange::over_mqtt("CONNECT", path, &[], response, context.clock.timestamp()));
}

/// Decides on a CONNECT packet, and logs it with the status that comes nearest.
async fn admit(
    connect: &Connect,
    certificates: PeerCertificates,
    context: &Context,
) -> Result<Result<Session, ConnectReturnCode>, End> {
    let session = match Session::new(connect, certificates, context) {
        Ok(session) => session,
        Err(code) => return Ok(Err(code)),
    };
    let path = session.path();
    let fault = context.faults.take_for_connect(&path);
    let refused = match fault {
        None => None,
        Some(FaultKind::Delay(time)) => {
            tokio::time::sleep(time).await;
            None
        }
        Some(FaultKind::Status { status, .. } | FaultKind::StatusUntil { status, .. }) => Some(status),
        Some(_) => {
            record(context, &path, None);
            return Err(End::Fault);
        }
    };
    record(context, &path, Some(refused.unwrap_or(200)));
    Ok(match refused {
        None => Ok(session),
        Some(400) => Err(ConnectReturnCode::BadUserNameOrPassword),
        Some(401 | 403) => Err(ConnectReturnCode::NotAuthorized),
        Some(_) => Err(ConnectReturnCode::ServerUnavailable),
    })
}

/// Responds to a packet of a connected client.
async fn respond(
    packets: &mut Packets<impl Channel>,
    packet: Packet,
    session: &Session,
    is_subscribed: &mut bool,
    context: &Context,
) -> Result<(), End> {
    match packet {
        Packet::Publish(publish) => respond_to_request(packets, &publish, session, *is_subscribed, context).await,
        Packet::Subscribe(subscribe) => {
            let suback = suback(&subscribe);
            *is_subscribed |= suback.topics.iter().any(|code| *code != SubscribeReturnCode::Failure);
            packets.send(&[Packet::Suback(suback)]).await
        }
        Packet::Unsubscribe(unsubscribe) => {
            *is_subscribed &= unsubscribe.topics.iter().all(|filter| **filter != *RESPONSES);
            packets.send(&[Packet::Unsuback(unsubscribe.pid)]).await
        }
        Packet::Pingreq => packets.send(&[Packet::Pingresp]).await,
        // Not needed, as responses have QoS 0. Harmless.
        Packet::Puback(_) => Ok(()),
        Packet::Disconnect => Err(End::Disconnected),
        _ => Err(End::Unexpected),
    }
}

fn suback(subscribe: &Subscribe) -> Suback {
    let code = |filter: &str, qos: QoS| match qos {
        _ if filter != RESPONSES => SubscribeReturnCode::Failure,
        QoS::Level0 => SubscribeReturnCode::MaxLevel0,
        QoS::Level1 | QoS::Level2 => SubscribeReturnCode::MaxLevel1,
    };
    let codes = subscribe.topics.iter().map(|(filter, qos)| code(filter, *qos)).collect();
    Suback::new(subscribe.pid, codes)
}

/// Responds to a request. The PUBACK goes first.
async fn respond_to_request(
    packets: &mut Packets<impl Channel>,
    publish: &Publish,
    session: &Session,
    is_subscribed: bool,
    context: &Context,
) -> Result<(), End> {
    let puback = match publish.qos_pid {
        QosPid::Level0 => None,
        QosPid::Level1(id) => Some(Packet::Puback(id)),
        QosPid::Level2(_) => return Err(End::Unsupported),
    };
    let topic = RequestTopic::parse(&publish.topic_name).ok_or(End::Unsupported)?;
    let reply = reply(context, session, &topic, &publish.payload).await?;
    let response = is_subscribed.then(|| {
        // Serializing a `Value` cannot fail.
        let body = serde_json::to_vec(&reply.body).unwrap_or_default();
        let topic = topic.response(reply.status, reply.retry_after);
        // It has no wildcard, since the topic of the request has none.
        TopicName::try_from(&*topic).ok().map(|topic| Packet::Publish(Publish::new(QosPid::Level0, topic, body.into())))
    });
    let sent: Vec<Packet> = puback.into_iter().chain(response.flatten()).collect();
    if reply.is_truncated {
        return packets.send_half(&sent).await;
    }
    packets.send(&sent).await
}
