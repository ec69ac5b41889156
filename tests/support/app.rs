//! An emulator with a plain HTTP client that checks every response by the API description, and certificates to send.
#![allow(dead_code, reason = "each test file uses a part")]

use base64::{Engine, prelude::BASE64_STANDARD};
use iot_enroll::emulator::{Builder, Emulator};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use reqwest::{Method, Request, header::HeaderMap};
use serde_json::{Value, json};

use super::{openapi, rcgen_pem::certificate_pem};

pub(crate) const VERSION: &str = "api-version=2022-07-31";
pub(crate) const PREVIEW: &str = "api-version=2022-10-31-preview";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

pub(crate) struct App {
    pub(crate) emulator: Emulator,
    pub(crate) http: reqwest::Client,
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

    /// Expects an error with a message that contains this text.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, message: &str) -> Self {
        let found = self.body["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(self.status, status, "{found}");
        assert!(found.contains(message), "{message:?} is not in {found:?}");
        self
    }

    /// Returns the IDs of the members of a collection.
    pub(crate) fn ids(&self) -> Vec<String> {
        let members = self.body["value"].as_array().unwrap_or_else(|| panic!("{}", self.body));
        members.iter().map(|member| member["id"].as_str().expect("an id").to_owned()).collect()
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(Emulator::builder()).await
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        Self { emulator: builder.start().await.expect("a free loopback port"), http }
    }

    /// Creates a request below `/api` with the token.
    pub(crate) fn request(&self, method: &str, path_and_query: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/api{path_and_query}", self.emulator.endpoint());
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        self.http.request(method, url).header("Authorization", self.emulator.token())
    }

    /// Sends a request and checks the response by the API description.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.send_built(request.build().expect("a request")).await
    }

    async fn send_built(&self, request: Request) -> Answer {
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let response = self.http.execute(request).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole body");
        let named: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII"))).collect();
        let held = openapi::OpenApi::load().check_response(&method, &path, status, &named, text.as_bytes());
        assert_eq!(held, Ok(()), "{method} {path} {status}: {text}");
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        check_error(status, &headers, &body["error"]);
        Answer { status, headers, body }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, &format!("{path}?{VERSION}"));
        if let Some(body) = body {
            let media_type = if method == "PATCH" { MERGE_PATCH } else { "application/json" };
            request = request.header("Content-Type", media_type).body(body.to_string());
        }
        self.send(request).await
    }

    /// Sends a request with the preview version.
    pub(crate) async fn preview(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, &format!("{path}?{PREVIEW}"));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        self.send(request).await
    }

    /// Sends a GET with these parameters, which include the version.
    pub(crate) async fn query(&self, path: &str, parameters: &[(&str, &str)]) -> Answer {
        let url = format!("{}/api{path}", self.emulator.endpoint());
        let url = reqwest::Url::parse_with_params(&url, parameters).expect("a URL");
        self.send(self.http.get(url).header("Authorization", self.emulator.token())).await
    }

    /// Gets the next page, if there is one.
    pub(crate) async fn next(&self, page: &Answer) -> Option<Answer> {
        let link = page.body.get("nextLink")?.as_str().expect("a link");
        assert!(link.contains("?api-version="), "it carries the version: {link}");
        Some(self.send(self.http.get(link).header("Authorization", self.emulator.token())).await.expect(200))
    }

    /// Returns the IDs on all pages from the first page on.
    pub(crate) async fn all_ids(&self, first: Answer) -> Vec<String> {
        let (mut ids, mut page) = (first.ids(), first);
        while let Some(next) = self.next(&page).await {
            ids.extend(next.ids());
            page = next;
        }
        ids
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Answer {
        self.call("POST", path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None).await
    }

    /// Creates an X.509 group `g` with an unverified primary certificate and returns the path of the certificate.
    pub(crate) async fn enrolled(&self, authority: &Authority) -> String {
        self.put("/enrollmentGroups/g", &x509_group()).await.expect(200);
        let path = "/enrollmentGroups/g/certificates/primary".to_owned();
        self.put(&path, &json!({ "certificate": authority.base64() })).await.expect(200);
        path
    }

    pub(crate) async fn code(&self, certificate: &str) -> String {
        let answer = self.post(&format!("{certificate}/generateVerificationCode"), None).await;
        answer.expect(200).text("/verificationCode")
    }

    pub(crate) async fn verify(&self, certificate: &str, proof: &str) -> Answer {
        let body = json!({ "certificate": BASE64_STANDARD.encode(proof) });
        self.post(&format!("{certificate}/verify"), Some(&body)).await
    }
}

/// Checks the headers of a response, and the fields of an error beyond the API description.
fn check_error(status: u16, headers: &HeaderMap, error: &Value) {
    assert!(headers.contains_key("x-ms-request-id"));
    let code = headers.get("x-ms-error-code").map(|code| code.to_str().expect("ASCII"));
    assert_eq!(error["code"].as_str(), code, "the header repeats the code, and a success has none");
    if status >= 400 {
        assert!(error["requestId"].is_string(), "{error}");
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        time::PrimitiveDateTime::parse(error["time"].as_str().expect("a time"), format).expect("an RFC 1123 date");
    }
}

pub(crate) fn x509_group() -> Value {
    json!({ "displayName": "My group", "enabled": true, "type": "iot", "attestation": { "type": "x509" } })
}

pub(crate) fn symmetric_group() -> Value {
    json!({ "displayName": "Keys", "type": "iotEdge", "attestation": { "type": "symmetricKey" } })
}

/// A self-signed CA certificate and its private key.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn parameters(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.remove(DnType::CommonName);
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

impl Authority {
    pub(crate) fn new(common_name: &str) -> Self {
        Self::of(common_name, KeyPair::generate().expect("a key"), |_| {})
    }

    pub(crate) fn of(common_name: &str, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut parameters = parameters(common_name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        change(&mut parameters);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self {
            pem: certificate_pem(&certificate),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// Returns base64 of the PEM, like the script of the article.
    pub(crate) fn base64(&self) -> String {
        BASE64_STANDARD.encode(&self.pem)
    }

    /// Issues a certificate with this common name and returns it as PEM.
    pub(crate) fn issue(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut parameters = parameters(common_name);
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        certificate_pem(&parameters.signed_by(&key, &self.issuer).expect("a certificate"))
    }

    /// Issues a device certificate, another one each time, and returns it with its chain.
    pub(crate) fn device(&self, id: &str) -> super::caller::Identity {
        let mut parameters = parameters(id);
        parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        super::caller::Identity::from_der(vec![certificate.der().to_vec(), self.der.clone()], key.serialize_der())
    }

    pub(crate) fn proof(&self, code: &str) -> String {
        self.issue(code, |_| {})
    }
}
