//! Instances of the Device Provisioning Service.

use serde::Deserialize;

use super::{client::Client, id::InstanceId};
use crate::{
    dps::{
        device::{IdScope, ProvisioningEndpoint},
        service::{self, AllocationPolicy},
    },
    transport::{Address, Call, Error, Etag, RestClient, sanitize},
};

/// A version of the API that returns whether local authentication is off.
const LOCAL_AUTH_VERSION: &str = "2026-11-01";

/// Access to one instance of the Device Provisioning Service.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(super) client: Client,
    pub(super) id: InstanceId,
}

impl Client {
    /// Returns access to an instance. Nothing is sent.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Instance {
        Instance { client: self.clone(), id: id.clone() }
    }
}

impl Instance {
    /// Returns the resource ID of the instance.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Reads the instance.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the instance does not exist or is not visible.
    pub async fn get(&self) -> Result<ProvisioningService, Error> {
        let call = self.call();
        let resource: Resource = self.client.rest().read(&call).await?;
        self.client.describe(resource, &call).await
    }

    /// Returns the call that reads the instance.
    pub(super) fn call(&self) -> Call {
        Call::get(&self.id.path(&[]))
    }
}

impl Client {
    /// Converts what a call returned about an instance.
    ///
    /// Versions before 2026 do not return whether local authentication is off, so the instance is read again with one that
    /// does. A cloud that does not know that version has no such property.
    pub(super) async fn describe(&self, resource: Resource, call: &Call) -> Result<ProvisioningService, Error> {
        let known = resource.properties.disable_local_auth.is_some();
        let mut service = resource.into_service(self.rest(), call)?;
        if !known && self.api_version().is_before("2026") {
            let call = Call::get(&service.id.path(&[])).with_api_version(LOCAL_AUTH_VERSION);
            if let Ok(Resource { properties, .. }) = self.rest().read(&call).await {
                service.disable_local_auth = properties.disable_local_auth.unwrap_or(false);
            }
        }
        Ok(service)
    }
}

/// An instance of the Device Provisioning Service, as Resource Manager describes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProvisioningService {
    /// The resource ID.
    pub id: InstanceId,
    /// The region, such as `westeurope`.
    pub location: Option<String>,
    /// The state, such as `Active`.
    pub state: Option<String>,
    /// The ID scope, which devices register with.
    pub id_scope: IdScope,
    /// The address of the service API, which manages enrollments.
    pub service_endpoint: service::Endpoint,
    /// The address of the device API, at which devices register.
    pub device_endpoint: ProvisioningEndpoint,
    /// The linked hubs, which devices are assigned to.
    pub iot_hubs: Vec<LinkedHub>,
    /// How devices are assigned to hubs, unless their enrollment has a policy of its own.
    pub allocation_policy: Option<AllocationPolicy>,
    /// Whether shared access keys are not accepted (`disableLocalAuth`), so that only Microsoft Entra tokens are. False
    /// also if Resource Manager does not return it.
    pub disable_local_auth: bool,
    /// Whether the instance is reachable from public networks: `Enabled` or `Disabled`.
    pub public_network_access: Option<String>,
    /// The version of the resource.
    pub etag: Option<Etag>,
}

impl ProvisioningService {
    /// Returns whether the instance is active, so that devices can register.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state.as_deref().is_none_or(|state| state.eq_ignore_ascii_case("Active"))
    }
}

/// An IoT Hub that is linked to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkedHub {
    /// The host name.
    pub host_name: String,
    /// The region, such as `westeurope`.
    pub location: Option<String>,
    /// The weight for [`AllocationPolicy::Hashed`].
    pub allocation_weight: Option<i64>,
    /// Whether devices are assigned to it by the policy of the instance.
    pub apply_allocation_policy: Option<bool>,
}

/// The JSON of an instance.
#[derive(Deserialize)]
pub(super) struct Resource {
    pub(super) id: String,
    location: Option<String>,
    etag: Option<Etag>,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    state: Option<String>,
    id_scope: Option<String>,
    service_operations_host_name: Option<String>,
    device_provisioning_host_name: Option<String>,
    iot_hubs: Option<Vec<WireHub>>,
    allocation_policy: Option<AllocationPolicy>,
    disable_local_auth: Option<bool>,
    public_network_access: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHub {
    name: Option<String>,
    host_name: Option<String>,
    location: Option<String>,
    allocation_weight: Option<i64>,
    apply_allocation_policy: Option<bool>,
}

impl Resource {
    fn into_service(self, rest: &RestClient, call: &Call) -> Result<ProvisioningService, Error> {
        let Self { id, location, etag, properties } = self;
        let malformed = |problem: String| rest.malformed(call, problem);
        let state = properties.state.clone().filter(|state| !state.eq_ignore_ascii_case("Active"));
        // An instance that is being created has no addresses yet.
        let missing = |name: &str| match &state {
            Some(state) => Error::NotActive { operation: call.operation(), state: sanitize(state, &[]) },
            None => malformed(format!("missing field `{name}`")),
        };
        let host = |text: Option<String>, name: &str| {
            let text = text.ok_or_else(|| missing(name))?;
            Address::named_by(rest.address(), &text).map_err(|_| malformed(format!("member {name} is not a host")))
        };
        let id_scope = properties.id_scope.ok_or_else(|| missing("idScope"))?;
        Ok(ProvisioningService {
            id: id.parse().map_err(|_| malformed("member id is not that of a DPS instance".to_owned()))?,
            location,
            state: properties.state,
            id_scope: id_scope.parse().map_err(|_| malformed("member idScope is not an ID scope".to_owned()))?,
            service_endpoint: service::Endpoint::from_address(host(
                properties.service_operations_host_name,
                "serviceOperationsHostName",
            )?),
            device_endpoint: ProvisioningEndpoint::from_address(host(
                properties.device_provisioning_host_name,
                "deviceProvisioningHostName",
            )?),
            iot_hubs: properties.iot_hubs.unwrap_or_default().into_iter().filter_map(WireHub::into_hub).collect(),
            allocation_policy: properties.allocation_policy,
            disable_local_auth: properties.disable_local_auth.unwrap_or(false),
            public_network_access: properties.public_network_access,
            etag,
        })
    }
}

impl WireHub {
    fn into_hub(self) -> Option<LinkedHub> {
        Some(LinkedHub {
            host_name: self.host_name.or(self.name)?,
            location: self.location,
            allocation_weight: self.allocation_weight,
            apply_allocation_policy: self.apply_allocation_policy,
        })
    }
}
