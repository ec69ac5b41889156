//! What clients know an emulator by: its tokens, ID scopes, keys and CA. It stays the same across restarts with a state file.

use std::sync::Arc;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};

use super::{
    central::model::DeviceKeys,
    credential::SymmetricKey,
    dps::settings::{DpsRight, InstanceSettings, OWNER_POLICY, Policy},
    error::EmulatorError,
    etag::Etag,
    random, shared,
    stored_authority::StoredAuthority,
};
use crate::certificate::Timestamp;

/// What clients know an emulator by. Secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// The expected `Authorization` header of IoT Central.
    pub(super) token: String,
    /// The expected bearer token of Resource Manager.
    pub(super) arm_token: String,
    /// The ID scope of the application.
    pub(super) id_scope: String,
    /// The IoT hub that the application's devices are assigned to.
    #[serde(with = "shared")]
    pub(super) assigned_hub: Arc<str>,
    pub(super) device_keys: DeviceKeys,
    pub(super) instance: InstanceSettings,
    /// The CA of the server certificate. `None` if the emulator never served over TLS.
    pub(super) authority: Option<StoredAuthority>,
    /// The CA of operational certificates. `None` if the emulator never issued one.
    pub(super) operational_ca: Option<StoredAuthority>,
}

impl Identity {
    /// Creates a random identity. `dps_name` is the name of the DPS instance.
    pub(super) fn random(dps_name: &str, now: Timestamp) -> Result<Self, EmulatorError> {
        if !is_name(dps_name) {
            let problem = format!("{dps_name:?} is not a valid name: use 1 to 64 letters, digits and hyphens");
            return Err(EmulatorError::DpsInstance(problem));
        }
        let owner =
            Policy { name: OWNER_POLICY.to_owned(), key: SymmetricKey::random()?, rights: DpsRight::ALL.to_vec() };
        Ok(Self {
            token: new_token(now)?,
            arm_token: BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<48>()?),
            id_scope: new_id_scope()?,
            assigned_hub: format!("iotc-{}.azure-devices.net", random::uuid()?).into(),
            device_keys: DeviceKeys::random()?,
            instance: InstanceSettings {
                name: dps_name.to_owned(),
                subscription: "00000000-0000-0000-0000-000000000001".to_owned(),
                resource_group: "emulated".to_owned(),
                id_scope: new_id_scope()?,
                etag: Etag::new()?,
                hub: "emulated-hub.azure-devices.net".into(),
                local_auth: true,
                policies: vec![owner],
            },
            authority: None,
            operational_ca: None,
        })
    }

    /// Adds policies with new keys to the instance. One that the instance has from an earlier run keeps its keys.
    pub(super) fn add_policies(&mut self, policies: Vec<(String, Vec<DpsRight>)>) -> Result<(), EmulatorError> {
        let mut given: Vec<String> = vec![OWNER_POLICY.to_owned()];
        for (name, rights) in policies {
            let key = name.to_ascii_lowercase();
            if !is_name(&name) || given.contains(&key) {
                return Err(EmulatorError::DpsInstance(format!("{name:?} is not a valid name of another policy")));
            }
            given.push(key);
            match self.instance.policies.iter_mut().find(|policy| policy.name.eq_ignore_ascii_case(&name)) {
                Some(policy) => policy.rights = rights,
                None => self.instance.policies.push(Policy { name, key: SymmetricKey::random()?, rights }),
            }
        }
        Ok(())
    }
}

/// Returns whether a text can be the name of the instance or of a policy.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn new_id_scope() -> Result<String, EmulatorError> {
    Ok(format!("0ne{}", random::hexadecimal::<4>()?))
}

/// Checks that a token is a valid `Authorization` header.
pub(super) fn check_token(token: String) -> Result<String, EmulatorError> {
    let is_valid = !token.is_empty() && token.trim() == token && token.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_valid { Ok(token) } else { Err(EmulatorError::Token) }
}

/// Creates an API token in the form of the service: `SharedAccessSignature sr=…&sig=…&skn=…&se=…`. It expires in ten
/// years, as milliseconds in `se`. The signature is random.
fn new_token(now: Timestamp) -> Result<String, EmulatorError> {
    let expiry = now.unix_seconds().saturating_add(10 * 365 * 24 * 60 * 60).saturating_mul(1000);
    let parts = form_urlencoded::Serializer::new(String::new())
        .append_pair("sr", &random::uuid()?)
        .append_pair("sig", &BASE64_STANDARD.encode(random::bytes::<32>()?))
        .append_pair("skn", "emulator")
        .append_pair("se", &expiry.to_string())
        .finish();
    Ok(format!("SharedAccessSignature {parts}"))
}
