//! The CA certificates of an instance: upload, proof of possession, removal.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::instance::Instance;
use crate::{
    certificate::{Certificate, Possession, Thumbprint, Timestamp},
    dps::DpsCertificateName,
    transport::{Call, Error, Etag, Listing, Repeat, items},
};

const COLLECTION: &str = "certificates";

/// The first version of the API in which the body of a certificate is inside `properties`.
const NESTED_SINCE: &str = "2022-02-05";

/// The codes with which Resource Manager, not the Device Provisioning Service, answers 404.
const NO_PARENT: [&str; 4] =
    ["ResourceNotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "SubscriptionNotFound"];

/// The CA certificates of an instance.
///
/// Every change gives a certificate a new etag, which the next change must name.
///
/// ```no_run
/// use iot_enroll::{arm::{Instance, Possession}, certificate::{Certificate, CertificateAuthority}};
///
/// # async fn example(instance: Instance, root: Certificate, sign: impl Fn(&str) -> Certificate) -> Result<(), Box<dyn std::error::Error>> {
/// let certificates = instance.certificates();
/// let name = "root-2026".parse()?;
/// let uploaded = certificates.set(&name, &root, Possession::ToBeProven, None).await?;
/// let code = certificates.generate_verification_code(&name, &uploaded.etag).await?;
/// let verified = certificates.verify(&name, &sign(&code.code), &code.etag).await?;
/// assert!(verified.is_verified);
/// # Ok(())
/// # }
/// ```
///
/// Failed calls are retried by the client's [`RetryPolicy`](super::RetryPolicy).
#[derive(Debug, Clone)]
pub struct Certificates {
    instance: Instance,
}

impl Instance {
    /// Returns the CA certificates of the instance.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        Certificates { instance: self.clone() }
    }
}

impl Certificates {
    /// Lists all certificates.
    pub fn list(&self) -> Listing<DpsCertificate> {
        let call = Call::get(&self.instance.id.path(&[COLLECTION]));
        items(self.instance.client.rest().clone(), call, None)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the certificate or the instance does not
    /// exist.
    pub async fn get(&self, name: &DpsCertificateName) -> Result<DpsCertificate, Error> {
        self.instance.client.rest().read(&Call::get(&self.path(name, &[]))).await
    }

    /// Reads a certificate. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error`], for which [`is_not_found`](Error::is_not_found) is true if the instance does not exist.
    pub async fn find(&self, name: &DpsCertificateName) -> Result<Option<DpsCertificate>, Error> {
        match self.get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => {
                if error.code().is_some_and(|code| NO_PARENT.contains(&code)) {
                    // The code is that of a missing instance. Make sure that the instance exists.
                    self.instance.get().await?;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Uploads a certificate. With an etag, replaces the certificate that has it; without one, creates a new certificate.
    ///
    /// With [`Possession::Attested`] the service accepts the certificate as verified. Otherwise prove possession of its
    /// key with [`generate_verification_code`](Self::generate_verification_code) and [`verify`](Self::verify). A replaced
    /// certificate is unverified until then, so that no device can register through it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the certificate exists and no etag is given, [`Error::Answer`] if the service answers
    /// with another certificate, or another [`Error`]. If the etag is not the current one, the status is 412, or the error
    /// is [`Error::OutcomeUnknown`] if an answer was lost before.
    pub async fn set(
        &self,
        name: &DpsCertificateName,
        certificate: &Certificate,
        possession: Possession,
        etag: Option<&Etag>,
    ) -> Result<DpsCertificate, Error> {
        let call = Call::put(&self.path(name, &[]), &self.body(certificate, possession)).with_if_match(etag);
        // The API describes no status for a PUT without `If-Match` to an existing certificate.
        if etag.is_none() && self.find(name).await?.is_some() {
            return Err(Error::AlreadyExists { operation: call.operation() });
        }
        let call = if etag.is_none() { call.creating() } else { call };
        match self.instance.client.rest().read::<DpsCertificate>(&call).await {
            Err(error @ Error::OutcomeUnknown { .. }) => match self.find(name).await {
                Ok(Some(found))
                    if found.is(certificate) && (found.is_verified || possession == Possession::ToBeProven) =>
                {
                    Ok(found)
                }
                _ => Err(error),
            },
            // Another client created it after the check.
            Err(error) if etag.is_none() && matches!(error.status(), Some(409 | 412)) => {
                Err(Error::AlreadyExists { operation: call.operation() })
            }
            Ok(set) if set.name != *name || !set.is(certificate) => {
                let problem = "it describes another certificate than the one that was sent";
                Err(self.instance.client.rest().malformed(&call, problem))
            }
            result => result,
        }
    }

    fn body(&self, certificate: &Certificate, possession: Possession) -> Value {
        let mut properties = json!({ "certificate": BASE64_STANDARD.encode(certificate.der()) });
        // Old versions do not know the member.
        if possession == Possession::Attested {
            properties["isVerified"] = true.into();
        }
        if self.instance.client.api_version().is_before(NESTED_SINCE) {
            properties
        } else {
            json!({ "properties": properties })
        }
    }

    /// Deletes a certificate. Devices can no longer register through enrollment groups that refer to it.
    ///
    /// Succeeds if the certificate does not exist: Resource Manager answers 204.
    ///
    /// # Errors
    /// [`Error`]. If the etag is not the current one, the status is 412.
    pub async fn delete(&self, name: &DpsCertificateName, etag: &Etag) -> Result<(), Error> {
        let call = Call::delete(&self.path(name, &[])).with_if_match(Some(etag));
        self.instance.client.rest().execute(&call).await
    }

    /// Generates a verification code. It invalidates the previous code, so if its answer is lost, the certificate is read
    /// and another code is generated.
    ///
    /// # Errors
    /// [`Error`]. If the etag is not the current one, the status is 412.
    pub async fn generate_verification_code(
        &self,
        name: &DpsCertificateName,
        etag: &Etag,
    ) -> Result<VerificationCode, Error> {
        let rest = self.instance.client.rest();
        let mut attempts = rest.attempts();
        let mut etag = etag.clone();
        loop {
            let call = Call::post_empty(&self.path(name, &["generateVerificationCode"])).with_if_match(Some(&etag));
            match rest.read_within(&call, &mut attempts).await {
                // The attempt whose answer was lost generated a code and changed the etag. A code for a certificate that
                // another client put here proves nothing with the key of this caller.
                Err(error @ Error::OutcomeUnknown { .. }) => match self.find(name).await {
                    Ok(Some(found)) if found.etag != etag => etag = found.etag,
                    _ => return Err(error),
                },
                result => return result,
            }
        }
    }

    /// Proves possession of a certificate's key. `proof` is a certificate that the key signed and whose common name is the
    /// verification code.
    ///
    /// The call may consume the code, so it is not simply retried: if its answer is lost, the certificate is read, and the
    /// proof is sent again only if the certificate did not change.
    ///
    /// # Errors
    /// [`Error`]. If the etag is not that of the code, the status is 412. If
    /// [`answer_was_lost`](Error::answer_was_lost), the certificate may be verified all the same.
    pub async fn verify(
        &self,
        name: &DpsCertificateName,
        proof: &Certificate,
        etag: &Etag,
    ) -> Result<DpsCertificate, Error> {
        let body = json!({ "certificate": BASE64_STANDARD.encode(proof.der()) });
        let call = Call::post(&self.path(name, &["verify"]), &body).with_if_match(Some(etag));
        let rest = self.instance.client.rest();
        let mut attempts = rest.attempts();
        let mut lost = false;
        loop {
            let error = match rest.read_within(&call, &mut attempts).await {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            };
            let now_lost = error.answer_was_lost();
            lost |= now_lost;
            if !lost {
                return Err(error);
            }
            let Ok(state) = self.find(name).await else { return Err(error.after(attempts.count(), true)) };
            let unchanged = match state {
                Some(found) if found.is_verified => return Ok(found),
                found => found.is_some_and(|found| found.etag == *etag),
            };
            if !now_lost || !unchanged || !rest.pause(&mut attempts, &error, Repeat::Safe).await {
                return Err(error);
            }
        }
    }

    fn path<'a>(&'a self, name: &'a DpsCertificateName, more: &[&'a str]) -> Vec<&'a str> {
        let mut path = self.instance.id.path(&[COLLECTION, name.as_str()]);
        path.extend(more);
        path
    }
}

/// A CA certificate of an instance. It serializes to the service's JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "WireCertificate")]
#[non_exhaustive]
pub struct DpsCertificate {
    /// The name, which enrollment groups refer to.
    pub name: DpsCertificateName,
    /// The version of the resource, which the next change must name.
    pub etag: Etag,
    /// The subject, as the service writes it.
    pub subject: Option<String>,
    /// The SHA-1 thumbprint.
    pub sha1_thumbprint: Option<Thumbprint>,
    /// Whether possession of its key was proven or attested. Until then no device can register through it.
    pub is_verified: bool,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
    /// The file that was uploaded, if the service returns it.
    pub body: Option<Vec<u8>>,
}

impl DpsCertificate {
    /// Parses the file that was uploaded, PEM or DER. Returns `None` if the service did not return it, or if it contains
    /// no certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        Certificate::read(self.body.as_deref()?).ok()
    }

    /// Returns whether this is the given certificate: by its bytes if the service returned them, or by the thumbprint.
    #[must_use]
    pub fn is(&self, certificate: &Certificate) -> bool {
        match self.certificate() {
            Some(own) => own.der() == certificate.der(),
            None => self.sha1_thumbprint == Some(certificate.sha1_thumbprint()),
        }
    }
}

#[derive(Deserialize)]
struct WireCertificate {
    name: DpsCertificateName,
    etag: Etag,
    properties: WireProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireProperties {
    subject: Option<String>,
    expiry: Option<String>,
    thumbprint: Option<String>,
    is_verified: Option<bool>,
    certificate: Option<String>,
    created: Option<String>,
    updated: Option<String>,
}

impl TryFrom<WireCertificate> for DpsCertificate {
    type Error = &'static str;

    fn try_from(WireCertificate { name, etag, properties }: WireCertificate) -> Result<Self, Self::Error> {
        let body = properties.certificate.filter(|text| !text.is_empty());
        let body = body.map(|text| BASE64_STANDARD.decode(text)).transpose();
        let thumbprint = properties.thumbprint.filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
        Ok(Self {
            name,
            etag,
            subject: properties.subject,
            sha1_thumbprint: thumbprint.map_err(|_| "member thumbprint is not a thumbprint")?,
            is_verified: properties.is_verified.unwrap_or(false),
            expires_at: time(properties.expiry),
            created_at: time(properties.created),
            updated_at: time(properties.updated),
            body: body.map_err(|_| "member certificate is not base64")?,
        })
    }
}

/// Reads a time in the form of RFC 1123, which the service writes, or RFC 3339.
fn time(text: Option<String>) -> Option<Timestamp> {
    let text = text?;
    httpdate::parse_http_date(&text).map(Into::into).ok().or_else(|| text.parse().ok())
}

impl Serialize for DpsCertificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            name: &'a DpsCertificateName,
            etag: &'a Etag,
            properties: Properties<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Properties<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            subject: &'a Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            expiry: Option<Timestamp>,
            #[serde(skip_serializing_if = "Option::is_none")]
            thumbprint: &'a Option<Thumbprint>,
            is_verified: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            certificate: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            created: Option<Timestamp>,
            #[serde(skip_serializing_if = "Option::is_none")]
            updated: Option<Timestamp>,
        }
        Wire {
            name: &self.name,
            etag: &self.etag,
            properties: Properties {
                subject: &self.subject,
                expiry: self.expires_at,
                thumbprint: &self.sha1_thumbprint,
                is_verified: self.is_verified,
                certificate: self.body.as_ref().map(|body| BASE64_STANDARD.encode(body)),
                created: self.created_at,
                updated: self.updated_at,
            },
        }
        .serialize(serializer)
    }
}

/// A verification code: the common name that a proof of possession must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WireCode")]
#[non_exhaustive]
pub struct VerificationCode {
    /// The code.
    pub code: String,
    /// The version of the certificate, which [`verify`](Certificates::verify) must name.
    pub etag: Etag,
}

#[derive(Deserialize)]
struct WireCode {
    etag: Etag,
    properties: WireCodeProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCodeProperties {
    verification_code: String,
}

impl From<WireCode> for VerificationCode {
    fn from(WireCode { etag, properties }: WireCode) -> Self {
        Self { code: properties.verification_code, etag }
    }
}
