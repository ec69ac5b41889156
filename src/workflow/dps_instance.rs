//! An instance of the Device Provisioning Service, with the clients of its two APIs.

use std::sync::Arc;

use crate::{
    arm::{self, DpsCertificate, ProvisioningService},
    certificate::Certificate,
    dps::{
        DpsCertificateName, MAX_CERTIFICATE_NAME,
        service::{self, EnrollmentGroup, Query},
    },
    transport::Error,
};

/// The most CA certificates that an instance holds.
pub(super) const MAX_CERTIFICATES: usize = 25;

/// The most enrollment groups with X.509 attestation that an instance has.
pub(super) const MAX_X509_GROUPS: usize = 100;

/// The most enrollment groups with symmetric keys that an instance has.
pub(super) const MAX_GROUPS: usize = 100;

/// An instance of the Device Provisioning Service: what Resource Manager says about it, and the clients of its two APIs.
///
/// Clones are cheap: they share the connections, tokens and rate limits of the clients.
///
/// ```no_run
/// use iot_enroll::{
///     arm::{Client, InstanceQuery},
///     dps::service,
///     workflow::DpsInstance,
/// };
///
/// # async fn run(arm: Client, authorization: service::Authorization) -> Result<(), Box<dyn std::error::Error>> {
/// let found = arm.find(&InstanceQuery::new("contoso-dps".parse()?)).await?;
/// let client = service::Client::builder(found.service_endpoint.clone()).authorization(authorization).build()?;
/// let instance = DpsInstance::new(&arm, found, client);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DpsInstance {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    properties: ProvisioningService,
    resource: arm::Instance,
    client: service::Client,
}

impl DpsInstance {
    /// Combines what Resource Manager says about an instance with its clients. Nothing is sent.
    #[must_use]
    pub fn new(arm: &arm::Client, properties: ProvisioningService, client: service::Client) -> Self {
        let resource = arm.instance(&properties.id);
        Self { parts: Arc::new(Parts { properties, resource, client }) }
    }

    /// Returns what Resource Manager says about the instance.
    #[must_use]
    pub fn properties(&self) -> &ProvisioningService {
        &self.parts.properties
    }

    /// Returns access to the instance through Resource Manager.
    #[must_use]
    pub fn resource(&self) -> &arm::Instance {
        &self.parts.resource
    }

    /// Returns the client of the service API.
    #[must_use]
    pub fn client(&self) -> &service::Client {
        &self.parts.client
    }

    /// Returns the name of the instance.
    pub(super) fn name(&self) -> &str {
        self.parts.properties.id.name.as_str()
    }

    pub(super) async fn read_certificates(&self) -> Result<Vec<DpsCertificate>, Error> {
        self.parts.resource.certificates().list().try_collect().await
    }

    pub(super) async fn read_groups(&self) -> Result<Vec<EnrollmentGroup>, Error> {
        self.parts.client.enrollment_groups().list(&Query::new()).try_collect().await
    }
}

/// How many digits of the thumbprint a name has. They make it the name of one certificate.
const NAME_DIGITS: usize = 16;

/// Returns the default name for a CA certificate in an instance: its common name, with `-` for each character that names do
/// not allow, and the start of its thumbprint.
pub(super) fn default_certificate_name(certificate: &Certificate) -> Option<DpsCertificateName> {
    let mut thumbprint = certificate.sha1_thumbprint().to_string();
    thumbprint.truncate(NAME_DIGITS);
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '-' };
    let common_name = certificate.subject().common_name().unwrap_or("ca");
    let start: String = common_name.chars().map(allowed).take(MAX_CERTIFICATE_NAME - NAME_DIGITS - 1).collect();
    DpsCertificateName::new(format!("{start}-{thumbprint}")).ok()
}
