//! An emulator with a plain HTTP client for its DPS instance. It checks every request and response by the API
//! descriptions.
#![allow(dead_code, reason = "each test file uses a part")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::{
    certificate::{Certificate, CertificateAuthority, CommonName, IssueOptions},
    emulator::{Builder, Emulator},
};
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use super::openapi::OpenApi;

pub(crate) const ARM_VERSION: &str = "2022-12-12";
pub(crate) const SERVICE_VERSION: &str = "2021-10-01";

pub(crate) struct DpsLab {
    pub(crate) emulator: Emulator,
    http: reqwest::Client,
    arm: OpenApi,
    service: OpenApi,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Null if there is none.
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// Expects an error of the service API with this message.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, message: &str) -> Self {
        let found = self.body["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.status, status, "{}", self.body);
        assert!(found.contains(message), "{message:?} is not in {found:?}");
        let code = self.body["errorCode"].as_u64().expect("a code");
        assert_eq!(code / 1000, u64::from(status));
        assert_eq!(self.header("x-ms-error-code"), Some(code.to_string().as_str()));
        assert!(self.body["trackingId"].is_string() && self.body["timestampUtc"].is_string(), "{}", self.body);
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }

    #[track_caller]
    pub(crate) fn etag(&self) -> String {
        self.text("/etag")
    }
}

impl DpsLab {
    pub(crate) async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let emulator = builder.start().await.expect("a free loopback port");
        let http = reqwest::Client::builder();
        let http = match emulator.ca_pem() {
            Some(pem) => http.add_root_certificate(reqwest::Certificate::from_pem(pem.as_bytes()).expect("a root")),
            None => http,
        };
        Self { emulator, http: http.build().expect("a client"), arm: OpenApi::arm(), service: OpenApi::dps_service() }
    }

    /// Sends a request, and checks the response if it is described.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
        described: Option<&OpenApi>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method.clone(), format!("{}{target}", self.emulator.endpoint()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json; charset=utf-8").body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole body");
        if let Some(api) = described {
            let named: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
            let held = api.check_response(method.as_str(), target, status, &named, text.as_bytes());
            assert_eq!(held, Ok(()), "{method} {target} {status}: {text}");
        }
        assert!(headers.contains_key("x-ms-request-id"));
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        Answer { status, headers, body }
    }

    /// Returns the path of the instance, and of what is below it, in Resource Manager.
    pub(crate) fn arm_path(&self, below: &str) -> String {
        let (subscription, group) = (self.emulator.subscription(), self.emulator.resource_group());
        let name = self.emulator.dps_name();
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Devices/provisioningServices/{name}{below}"
        )
    }

    /// Sends a request to Resource Manager below the instance. A successful one must be as described.
    pub(crate) async fn arm(&self, method: &str, below: &str, etag: Option<&str>, body: Option<&Value>) -> Answer {
        let target = format!("{}?api-version={ARM_VERSION}", self.arm_path(below));
        let token = format!("Bearer {}", self.emulator.arm_token());
        let mut headers = vec![("Authorization", token.as_str())];
        headers.extend(etag.map(|etag| ("If-Match", etag)));
        let answer = self.send(method, &target, &headers, body, Some(&self.arm)).await;
        if answer.status < 300 {
            let sent = body.map(ToString::to_string).unwrap_or_default();
            let checked = self.arm.check_request(method, &target, Some("application/json"), sent.as_bytes());
            assert_eq!(checked, Ok(()), "{method} {target}");
            let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
            // DELETE of a certificate that does not exist succeeds without the header.
            if answer.status != 204 {
                assert_eq!(self.arm.check_headers(method, &target, &names), Ok(()));
            }
        }
        answer
    }

    /// Uploads a certificate.
    pub(crate) async fn upload(&self, name: &str, certificate: &Certificate, etag: Option<&str>) -> Answer {
        let body = json!({ "properties": { "certificate": certificate.to_base64_pem() } });
        self.arm("PUT", &format!("/certificates/{name}"), etag, Some(&body)).await
    }

    /// Uploads a certificate as verified.
    pub(crate) async fn upload_verified(&self, name: &str, certificate: &Certificate) {
        let body = json!({ "properties": { "certificate": certificate.to_base64_pem(), "isVerified": true } });
        self.arm("PUT", &format!("/certificates/{name}"), None, Some(&body)).await.expect(200);
    }

    /// Sends a request to the service API with the bearer token. A successful one must be as described.
    pub(crate) async fn service(&self, method: &str, path: &str, etag: Option<&str>, body: Option<&Value>) -> Answer {
        let headers: Vec<_> = etag.map(|etag| ("If-Match", etag)).into_iter().collect();
        self.service_with(method, path, &headers, body).await
    }

    pub(crate) async fn service_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let target = format!("{path}?api-version={SERVICE_VERSION}");
        let token = format!("Bearer {}", self.emulator.arm_token());
        let headers = [&[("Authorization", token.as_str())], headers].concat();
        let answer = self.send(method, &target, &headers, body, Some(&self.service)).await;
        if answer.status < 300 {
            let sent = body.map(ToString::to_string).unwrap_or_default();
            let checked = self.service.check_request(method, &target, Some("application/json"), sent.as_bytes());
            assert_eq!(checked, Ok(()), "{method} {target}: {sent}");
        }
        answer
    }

    /// Creates an enrollment group.
    pub(crate) async fn group(&self, id: &str, attestation: &Value) -> Answer {
        let body = json!({ "enrollmentGroupId": id, "attestation": attestation });
        self.service("PUT", &format!("/enrollmentGroups/{id}"), None, Some(&body)).await
    }

    /// Creates an individual enrollment.
    pub(crate) async fn individual(&self, id: &str, attestation: &Value) -> Answer {
        let body = json!({ "registrationId": id, "attestation": attestation });
        self.service("PUT", &format!("/enrollments/{id}"), None, Some(&body)).await
    }

    /// Changes one member of an enrollment: reads it and writes it back.
    pub(crate) async fn change(&self, path: &str, member: &str, value: Value) -> Answer {
        let mut body = self.service("GET", path, None, None).await.expect(200).body;
        let etag = body["etag"].as_str().expect("an etag").to_owned();
        let members = body.as_object_mut().expect("an object");
        members.retain(|name, _| !name.ends_with("DateTimeUtc") && name != "registrationState");
        members.insert(member.to_owned(), value);
        self.service("PUT", path, Some(&etag), Some(&body)).await
    }

    /// Returns the keys of a policy, primary and secondary.
    pub(crate) async fn policy_keys(&self, name: &str) -> [String; 2] {
        let answer = self.arm("POST", &format!("/keys/{name}/listkeys"), None, None).await.expect(200);
        [answer.text("/primaryKey"), answer.text("/secondaryKey")]
    }

    /// Returns the host and port of the emulator.
    pub(crate) fn authority(&self) -> String {
        self.emulator.address().to_string()
    }
}

/// Returns a SAS token that is valid for an hour. The resource is written as given.
pub(crate) fn sas(resource: &str, key: &str, policy: &str) -> String {
    let expiry = SystemTime::now() + Duration::from_secs(3600);
    sas_until(resource, key, policy, expiry.duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
}

pub(crate) fn sas_until(resource: &str, key: &str, policy: &str, expiry: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(key).expect("base64"));
    let signature = BASE64_STANDARD.encode(hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes()));
    let signature: String = form_urlencoded::byte_serialize(signature.as_bytes()).collect();
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}")
}

/// Returns the attestation of a group that refers to certificates of the instance.
pub(crate) fn ca_references(primary: &str, secondary: Option<&str>) -> Value {
    let mut references = json!({ "primary": primary });
    if let Some(secondary) = secondary {
        references["secondary"] = json!(secondary);
    }
    json!({ "type": "x509", "x509": { "caReferences": references } })
}

/// Returns an X.509 attestation with a certificate: `signingCertificates` or `clientCertificates`.
pub(crate) fn certificates(kind: &str, primary: &Certificate) -> Value {
    json!({ "type": "x509", "x509": { kind: { "primary": { "certificate": primary.to_pem() } } } })
}

pub(crate) fn new_root(name: &str) -> CertificateAuthority {
    let options = IssueOptions::default();
    let root = CertificateAuthority::new_root(&CommonName::new(name).expect("a name"), &options).expect("a root");
    root.into_authority(options.issue_time()).expect("an authority")
}

pub(crate) fn intermediate(issuer: &CertificateAuthority, name: &str) -> CertificateAuthority {
    let options = IssueOptions::default();
    let ca = issuer.issue_intermediate(&CommonName::new(name).expect("a name"), &options).expect("an intermediate");
    ca.into_authority(options.issue_time()).expect("an authority")
}
