//! Sign-in with Microsoft Entra, against a token endpoint on this machine.
//!
//! The environment is that of a whole process, so each case runs this program again in one of its own.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::support::{
    server::{Reply, Server},
    tls::{TlsServer, start},
};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use iot_enroll::{
    central::{Clock, ENTRA_SCOPE, EntraCredential, TokenCredential},
    certificate::{Certificate, PrivateKey, pfx},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROOT: &str = "CENTRAL_ENTRA_ROOT";
const STEPS: &str = "CENTRAL_ENTRA_STEPS";

/// The machine's clock, moved on.
struct MovedClock(Mutex<Duration>);

impl Clock for MovedClock {
    fn elapsed(&self) -> Duration {
        *self.0.lock().expect("clock")
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + self.elapsed()
    }

    fn sleep(&self, _duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        unreachable!("nothing here waits")
    }
}

/// What a case does in its own process: `token`, `together` for twenty at once, or seconds to move the clock by. Prints a
/// line for each token or error.
#[test]
fn a_case() {
    let Ok(steps) = std::env::var(STEPS) else { return };
    let clock = Arc::new(MovedClock(Mutex::default()));
    let builder = EntraCredential::builder(ENTRA_SCOPE).clock(Arc::clone(&clock) as Arc<_>);
    let root = fs::read(std::env::var(ROOT).expect("a root")).expect("a root");
    let credential = Arc::new(builder.add_root_certificate(&root).expect("a root").build().expect("a credential"));
    assert_eq!(format!("{credential:?}"), "EntraCredential { .. }");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for step in steps.split(' ') {
        if let Ok(seconds) = step.parse() {
            *clock.0.lock().expect("clock") += Duration::from_secs(seconds);
            continue;
        }
        let times = if step == "together" { 20 } else { 1 };
        let calls: Vec<_> = (0..times).map(|_| credential.token()).collect();
        for outcome in runtime.block_on(futures_util::future::join_all(calls)) {
            let line = match outcome {
                Ok(token) => format!("TOKEN {}", token.expose()),
                Err(error) => format!("ERROR {error}"),
            };
            // Past the test harness, which has begun a line.
            writeln!(std::io::stdout(), "\n{line}").expect("said");
        }
    }
}

/// A case: a token endpoint, a directory that is the whole of PATH, and variables.
struct Case {
    server: TlsServer,
    directory: TempDir,
    variables: HashMap<String, String>,
}

impl Case {
    fn new(answer: impl Fn(usize) -> Reply + Send + 'static) -> Self {
        let case = Self {
            server: start("localhost", answer),
            directory: TempDir::new().expect("a directory"),
            variables: HashMap::new(),
        };
        fs::write(case.directory.path().join("root.der"), &case.server.authority).expect("a file");
        let authority = format!("https://localhost:{}", case.server.address.port());
        // This host of Azure is one that azure_identity does not know, so that nothing is looked for on the network.
        case.set("AZURE_AUTHORITY_HOST", &authority)
            .set("IDENTITY_ENDPOINT", "http://127.0.0.1:1")
            .set("IDENTITY_HEADER", "x")
            .set("IDENTITY_SERVER_THUMBPRINT", "x")
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn application(self) -> Self {
        self.set("AZURE_TENANT_ID", "contoso.example").set("AZURE_CLIENT_ID", "app-1")
    }

    fn with_secret(self) -> Self {
        self.application().set("AZURE_CLIENT_SECRET", "opensesame")
    }

    /// Puts a file into the directory and gives its path.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path").to_owned()
    }

    /// Puts a program into the directory that answers so.
    fn tool(&self, name: &str, script: &str) {
        let path = self.file(name, format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_permissions(Path::new(&path), fs::Permissions::from_mode(0o755)).expect("permissions");
    }

    /// The tokens and errors of the steps.
    fn run(&self, steps: &str) -> Vec<String> {
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "entra::a_case", "--nocapture"]).env_clear().envs(&self.variables);
        child.env(STEPS, steps).env(ROOT, self.directory.path().join("root.der")).env("PATH", self.directory.path());
        let output = child.output().expect("a run");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let said = text.lines().filter(|line| line.starts_with("TOKEN ") || line.starts_with("ERROR "));
        said.map(str::to_owned).collect()
    }

    /// The fields of the forms that the token endpoint was sent.
    fn forms(&self) -> Vec<HashMap<String, String>> {
        let requests = self.server.requests();
        assert!(requests.iter().all(|(line, _)| line == "POST /contoso.example/oauth2/v2.0/token HTTP/1.1"));
        let decode = |text: &str| {
            let url = reqwest::Url::parse(&format!("http://x/?{text}")).expect("a form");
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        };
        requests.iter().map(|(_, body)| decode(body)).collect()
    }
}

fn token(number: usize) -> Reply {
    let body = json!({ "token_type": "Bearer", "expires_in": 3600, "access_token": format!("token{number}") });
    Reply::json(200, &body)
}

fn refusal() -> Reply {
    let said = "AADSTS7000215: Invalid client secret provided: opensesame.";
    Reply::json(401, &json!({ "error": "invalid_client", "error_codes": [7_000_215], "error_description": said }))
}

#[test]
fn a_client_secret_gives_a_token_that_is_kept_and_renewed_before_it_expires() {
    let case = Case::new(token).with_secret();
    // 3,600 s are left, then 310, then 290 of them, and of the next token 3,590.
    let said = case.run("token token 3290 token 20 token 10 token");
    assert_eq!(said, ["TOKEN token0", "TOKEN token0", "TOKEN token0", "TOKEN token1", "TOKEN token1"]);
    let forms = case.forms();
    assert_eq!(forms.len(), 2);
    for (name, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", "app-1"),
        ("client_secret", "opensesame"),
        ("scope", "https://apps.azureiotcentral.com/.default"),
    ] {
        assert_eq!(forms[0][name], value);
    }
}

#[test]
fn many_calls_at_once_ask_for_one_token() {
    let case = Case::new(token).with_secret();
    let said = case.run("together 3400 together");
    assert_eq!(case.forms().len(), 2);
    assert!(said[..20].iter().all(|line| line == "TOKEN token0"));
    // Whoever finds the renewal under way goes on with the old token, which is still good.
    let (old, new): (Vec<_>, Vec<_>) = said[20..].iter().partition(|line| *line == "TOKEN token0");
    assert!(!new.is_empty() && new.iter().all(|line| *line == "TOKEN token1"), "{} {}", old.len(), new.len());
}

#[test]
fn a_token_that_cannot_be_renewed_serves_until_it_expires() {
    let case = Case::new(|number| if number == 0 { token(0) } else { refusal() }).with_secret();
    let said = case.run("token 3400 token token 31 token 200 token");
    assert_eq!(said[..4], ["TOKEN token0", "TOKEN token0", "TOKEN token0", "TOKEN token0"]);
    assert!(said[4].starts_with("ERROR ") && said[4].contains("AADSTS7000215"), "{}", said[4]);
    assert_eq!(case.forms().len(), 4, "once each half minute, and at last");
}

#[test]
fn a_credential_that_is_set_up_and_refused_ends_the_search_and_shows_no_secret() {
    let case = Case::new(|_| refusal()).with_secret();
    case.tool("az", "touch \"$(dirname \"$0\")/asked\"; exit 1");
    let said = case.run("token");
    let [line] = &said[..] else { panic!("one error: {said:?}") };
    assert!(line.contains("client secret: ") && line.contains("AADSTS7000215"), "{line}");
    assert!(line.contains("no other was tried") && !line.contains("opensesame"), "{line}");
    assert!(!case.directory.path().join("asked").exists(), "nobody else is asked");
}

/// The assertion's header and claims, once its signature is seen to be the certificate's.
fn assertion(form: &HashMap<String, String>, certificate: &Certificate) -> [Value; 2] {
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let (signed, signature) = form["client_assertion"].rsplit_once('.').expect("three parts");
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
    // The key within its SubjectPublicKeyInfo.
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa_key(certificate.public_key()));
    key.verify(signed.as_bytes(), &decode(signature)).expect("the certificate's signature");
    let parts: Vec<_> = signed.split('.').map(|part| serde_json::from_slice(&decode(part)).expect("JSON")).collect();
    parts.try_into().expect("two parts")
}

/// The content of the bit string that ends a `SubjectPublicKeyInfo` of RSA with 2048 bits.
fn rsa_key(info: &[u8]) -> &[u8] {
    let start = info.windows(5).rposition(|window| matches!(window, [0x03, 0x82, _, _, 0x00])).expect("a bit string");
    &info[start + 5..]
}

fn rsa() -> (PrivateKey, Certificate, Vec<u8>) {
    let key = include_bytes!("../../fixtures/authorities/rsa-pkcs1_key.pem");
    let certificate = include_bytes!("../../fixtures/authorities/rsa-pkcs1_cert.pem");
    let pem = [&certificate[..], key].concat();
    (PrivateKey::read(key, None).expect("a key"), Certificate::read(certificate).expect("a certificate"), pem)
}

#[test]
fn a_client_certificate_in_pem_signs_an_assertion() {
    let (_, certificate, pem) = rsa();
    let case = Case::new(token).application();
    let path = case.file("app.pem", &pem);
    let case = case.set("AZURE_CLIENT_CERTIFICATE_PATH", &path);
    assert_eq!(case.run("token 3400 token"), ["TOKEN token0", "TOKEN token1"]);
    let forms = case.forms();
    let [header, claims] = assertion(&forms[0], &certificate);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(certificate.sha1_thumbprint().as_bytes());
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "x5t": thumbprint }));
    let endpoint = format!("{}/contoso.example/oauth2/v2.0/token", case.variables["AZURE_AUTHORITY_HOST"]);
    assert_eq!((&claims["aud"], &claims["iss"], &claims["sub"]), (&json!(endpoint), &json!("app-1"), &json!("app-1")));
    assert_eq!(claims["exp"].as_u64().expect("a time") - claims["nbf"].as_u64().expect("a time"), 300);
    let [_, later] = assertion(&forms[1], &certificate);
    assert_ne!(claims["jti"], later["jti"], "no assertion twice");
    assert!(forms.iter().all(|form| form["client_id"] == "app-1" && !form.contains_key("client_secret")));
}

#[test]
fn a_client_certificate_in_a_pfx_file_is_opened_and_its_chain_sent_where_asked() {
    let (key, certificate, _) = rsa();
    let file = pfx::write(&key, [&certificate], "opensesame", pfx::PfxEncryption::default()).expect("a file");
    let case = Case::new(token).application();
    let path = case.file("app.pfx", &file);
    let case = case
        .set("AZURE_CLIENT_CERTIFICATE_PATH", &path)
        .set("AZURE_CLIENT_CERTIFICATE_PASSWORD", "opensesame")
        .set("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN", "true");
    assert_eq!(case.run("token"), ["TOKEN token0"]);
    let [header, _] = assertion(&case.forms()[0], &certificate);
    let encoded = base64::prelude::BASE64_STANDARD.encode(certificate.der());
    assert_eq!(header["x5c"], json!([encoded]));
    let said = case.set("AZURE_CLIENT_CERTIFICATE_PASSWORD", "wrongword").run("token");
    assert!(said[0].contains("password") && !said[0].contains("wrongword"), "{}", said[0]);
}

#[test]
fn a_certificate_file_that_does_not_serve_says_why() {
    let read = |name: &str| fs::read(Path::new("fixtures/authorities").join(name)).expect("a fixture");
    for (content, said) in [
        (read("rsa-pkcs1_cert.pem"), "no private key"),
        ([read("ec-sec1_cert.pem"), read("ec-sec1_key.pem")].concat(), "not an RSA key"),
        ([read("ec-sec1_cert.pem"), read("rsa-pkcs1_key.pem")].concat(), "matches its private key"),
        (b"nothing".to_vec(), "certificate"),
    ] {
        let case = Case::new(token).application();
        let path = case.file("app.pem", &content);
        let case = case.set("AZURE_CLIENT_CERTIFICATE_PATH", &path);
        let lines = case.run("token");
        assert!(lines[0].contains("client certificate: ") && lines[0].contains(said), "{}", lines[0]);
        assert!(case.server.requests().is_empty());
    }
    let case = Case::new(token).application().set("AZURE_CLIENT_CERTIFICATE_PATH", "/nowhere/app.pem");
    assert!(case.run("token")[0].contains("/nowhere/app.pem: "));
}

#[test]
fn a_workload_identity_sends_the_token_of_its_file() {
    let case = Case::new(token).application();
    let path = case.file("token", b"federated.jwt.token");
    let case = case.set("AZURE_FEDERATED_TOKEN_FILE", &path);
    assert_eq!(case.run("token"), ["TOKEN token0"]);
    assert_eq!(case.forms()[0]["client_assertion"], "federated.jwt.token");
}

#[test]
fn a_managed_identity_is_asked_where_the_host_says() {
    let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs() + 3600;
    let answer = json!({
        "access_token": "managed", "expires_on": expires.to_string(), "token_type": "Bearer",
        "resource": "https://apps.azureiotcentral.com",
    });
    let service = Server::start([Reply::json(200, &answer)]);
    let mut case = Case::new(token)
        .set("IDENTITY_ENDPOINT", &format!("{}/msi/token", service.url()))
        .set("IDENTITY_HEADER", "hostsecret")
        .set("AZURE_CLIENT_ID", "app-1");
    case.variables.remove("IDENTITY_SERVER_THUMBPRINT");
    assert_eq!(case.run("token token"), ["TOKEN managed", "TOKEN managed"]);
    let requests = service.requests();
    let [request] = &requests[..] else { panic!("one request: {requests:?}") };
    assert_eq!(request.header("x-identity-header"), Some("hostsecret"));
    let asked = &request.target;
    assert!(asked.contains("resource=https%3A%2F%2Fapps.azureiotcentral.com&client_id=app-1"), "{asked}");
    assert!(case.server.requests().is_empty());
}

#[test]
fn a_managed_identity_that_the_host_names_and_that_fails_ends_the_search() {
    let service = Server::start((0..9).map(|_| Reply::json(400, &json!({ "error": "no such identity" }))));
    let mut case = Case::new(token)
        .set("IDENTITY_ENDPOINT", &format!("{}/msi/token", service.url()))
        .set("IDENTITY_HEADER", "hostsecret");
    case.variables.remove("IDENTITY_SERVER_THUMBPRINT");
    case.tool("az", "echo '{\"accessToken\": \"fromaz\", \"expires_on\": 4102444800, \"tokenType\": \"Bearer\"}'");
    let said = case.run("token").remove(0);
    assert!(said.starts_with("ERROR ") && said.contains("managed identity: ") && !said.contains("Azure CLI"), "{said}");
}

#[test]
fn wrong_settings_are_named() {
    let case = Case::new(token).with_secret().set("AZURE_AUTHORITY_HOST", "garbage");
    let said = case.run("token").remove(0);
    assert!(said.contains("AZURE_AUTHORITY_HOST") && said.contains("garbage"), "{said}");
    let case = Case::new(token).application();
    let path = case.file("empty", b"\n");
    let said = case.set("AZURE_FEDERATED_TOKEN_FILE", &path).run("token").remove(0);
    assert!(said.contains(&path) && said.contains("empty"), "{said}");
}

#[test]
fn developer_tools_give_a_token_and_are_not_run_for_each_request() {
    let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs() + 3600;
    let az = format!(
        "echo \"$@\" >> \"$(/usr/bin/dirname \"$0\")/asked\"\n\
         echo '{{\"accessToken\": \"fromaz\", \"expires_on\": {expires}, \"tokenType\": \"Bearer\"}}'"
    );
    let case = Case::new(token);
    case.tool("az", &az);
    assert_eq!(case.run("token token together")[..2], ["TOKEN fromaz", "TOKEN fromaz"]);
    let asked = fs::read_to_string(case.directory.path().join("asked")).expect("asked");
    let command = "account get-access-token -o json --scope https://apps.azureiotcentral.com/.default\n";
    assert_eq!(asked, command);

    let case = Case::new(token);
    case.tool("azd", "echo '{\"token\": \"fromazd\", \"expiresOn\": \"2090-01-01T00:00:00Z\"}'");
    assert_eq!(case.run("token"), ["TOKEN fromazd"]);
}

#[test]
fn without_any_credential_the_error_says_which_were_tried_and_why_each_failed() {
    let case = Case::new(token).set("AZURE_CLIENT_ID", "app-1");
    case.tool("azd", "echo 'ERROR: not logged in, run `azd auth login`' >&2; exit 1");
    let said = case.run("token").remove(0);
    let expected = [
        "client secret: AZURE_TENANT_ID, AZURE_CLIENT_SECRET are not set",
        "client certificate: AZURE_TENANT_ID, AZURE_CLIENT_CERTIFICATE_PATH are not set",
        "workload identity: AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE are not set",
        "managed identity: Service Fabric managed identity isn't supported",
        "Azure CLI: ",
        "az not found on PATH",
        "Azure Developer CLI: ",
        "azd auth login",
        "Sign in with az login",
    ];
    let mut rest = said.as_str();
    for part in expected {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{part} in order in {said}"));
        rest = after;
    }
    assert!(case.server.requests().is_empty());
}

#[test]
fn a_secret_goes_to_no_authority_that_is_not_trusted_or_not_https() {
    let other = start("localhost", token);
    let authority = format!("https://localhost:{}", other.address.port());
    let case = Case::new(token).with_secret().set("AZURE_AUTHORITY_HOST", &authority);
    let said = case.run("token").remove(0);
    assert!(
        said.contains("client secret: ")
            && said.contains("server's certificate")
            && !said.contains("invalid peer certificate"),
        "{said}"
    );
    assert!(other.requests().is_empty());

    let plain = Server::start([]);
    let case = Case::new(token).with_secret().set("AZURE_AUTHORITY_HOST", &plain.url());
    let said = case.run("token").remove(0);
    assert!(said.contains("HTTPS"), "{said}");
    assert!(plain.requests().is_empty());
}

#[test]
fn a_redirect_of_the_authority_is_not_followed() {
    let elsewhere = Server::start([]);
    let url = elsewhere.url();
    let case = Case::new(move |_| Reply::with(307, &[("Location", &url)], "")).with_secret();
    assert!(case.run("token")[0].starts_with("ERROR "));
    assert!(elsewhere.requests().is_empty());
}
