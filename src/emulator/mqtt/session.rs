//! The session of a device: what its CONNECT packet says.

use std::time::Duration;

use mqtt_proto::v3::{Connect, ConnectReturnCode};

use super::limits::MAX_SILENCE;
use crate::emulator::{
    context::Context,
    dps::{Credential, DeviceVersion, DpsError, Identity, SasToken},
    tls::PeerCertificates,
};

/// The session of a device.
pub(super) struct Session {
    pub(super) id_scope: String,
    pub(super) id: String,
    /// The version of the API.
    pub(super) version: DeviceVersion,
    certificates: PeerCertificates,
    /// The SAS token. Secret.
    token: Option<String>,
    /// The time without a packet after which the connection is closed.
    pub(super) max_silence: Duration,
}

impl Session {
    /// Checks a CONNECT packet.
    pub(super) fn new(
        connect: &Connect,
        certificates: PeerCertificates,
        context: &Context,
    ) -> Result<Self, ConnectReturnCode> {
        let user_name = connect.username.as_deref().unwrap_or_default();
        let (id_scope, id, query) = parse_user_name(user_name).ok_or(ConnectReturnCode::BadUserNameOrPassword)?;
        let version = DeviceVersion::parse(query);
        let version = version.map_err(|_| ConnectReturnCode::BadUserNameOrPassword)?;
        if !connect.client_id.eq_ignore_ascii_case(id) {
            return Err(ConnectReturnCode::IdentifierRejected);
        }
        let token = match connect.password.as_deref().unwrap_or_default() {
            [] if certificates.as_slice().is_empty() => return Err(ConnectReturnCode::NotAuthorized),
            [] => None,
            token => {
                let token = str::from_utf8(token).map_err(|_| ConnectReturnCode::NotAuthorized)?;
                SasToken::parse(token, context.clock.timestamp())
                    .filter(|token| token.is_for_device(id_scope, id))
                    .ok_or(ConnectReturnCode::NotAuthorized)?;
                Some(token.to_owned())
            }
        };
        let keep_alive = Duration::from_secs(connect.keep_alive.into());
        let max_silence = if keep_alive.is_zero() { MAX_SILENCE } else { MAX_SILENCE.min(keep_alive * 3 / 2) };
        Ok(Self { id_scope: id_scope.to_owned(), id: id.to_owned(), version, certificates, token, max_silence })
    }

    /// Returns the device as it identifies itself.
    pub(super) fn identity(&self, context: &Context) -> Result<Identity<'_>, DpsError> {
        let credential = match &self.token {
            Some(token) => Credential::Token(token),
            None => Credential::Certificates(self.certificates.as_slice()),
        };
        Identity::new(context, &self.id_scope, &self.id, credential)
    }

    /// Returns the name that tells clients apart.
    pub(super) fn client(&self) -> String {
        self.path().to_ascii_lowercase()
    }

    /// Returns the path of the registration over HTTP, by which faults and the request log know it.
    pub(super) fn path(&self) -> String {
        format!("/{}/registrations/{}", self.id_scope, self.id)
    }
}

/// Parses a user name, `{idScope}/registrations/{registrationId}/api-version=…&ClientVersion=…`, into ID scope,
/// registration ID and query. The client version of the C SDK has a slash.
fn parse_user_name(user_name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = user_name.splitn(4, '/');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(id_scope), Some("registrations"), Some(id), Some(query)] => Some((id_scope, id, query)),
        _ => None,
    }
}
