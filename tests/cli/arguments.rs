//! Arguments: secrets that are refused, option names, and missing arguments.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread};

use crate::support::service::{Service, directory};
use crate::support::{Run, authority_fixture, program};
use iot_enroll::certificate::Certificate;

const SAS_TOKEN: &str = "SharedAccessSignature sr=app&sig=topsecret123&skn=ops&se=4102444800000";
const WEB_TOKEN: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ0b3BzZWNyZXQxMjMifQ.dG9wc2VjcmV0MTIz";
const KEY: &str = "dG9wc2VjcmV0MTIzdG9wc2VjcmV0MTIzdG9wc2VjcmV0MTI=";
const PASSWORD: &str = "tops3cret";
const CONNECTION: &str = "HostName=x.example;SharedAccessKeyName=o;SharedAccessKey=dG9wc2VjcmV0MTIz";

fn run(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(arguments))
}

/// Refused as wrong usage, in both formats, with these parts, and without the secret or a piece of it.
#[track_caller]
fn refused(arguments: &[&str], secret: &str, parts: &[&str]) {
    let directory = directory();
    for format in ["human", "json"] {
        let arguments = [&["-o", format], arguments].concat();
        let run = run(directory.path(), &arguments);
        let printed = format!("{}{}", run.stdout, run.stderr);
        for piece in secret.split([' ', '&', ';', '.']).filter(|piece| piece.len() > 4) {
            let scheme = ["SharedAccessSignature", "Bearer", "HostName=x"].contains(&piece);
            assert!(scheme || !printed.contains(piece), "{arguments:?}: {piece} is in {printed}");
        }
        let error = run.fails(2);
        assert!(parts.iter().all(|part| error.contains(part)), "{arguments:?}: {error}");
    }
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 0);
}

#[test]
fn guessed_secret_options_name_the_right_option() {
    let token = &["--token-file FILE", "IOT_ENROLL_TOKEN"][..];
    for (command, option, right) in [
        (&["device", "list"][..], "--token", token),
        (&["device", "list"], "--api-token", token),
        (&["device", "list"], "--apiToken", token),
        (&["device", "list"], "--sas-token", token),
        (&["device", "list"], "--sas_key", token),
        (&["device", "list"], "--bearer", token),
        (&["device", "list"], "--api-key", token),
        (&["device", "list"], "--client-secret", token),
        (&["provision", "--group", "g", "--root", "r"], "--token", token),
        (&["provision", "--group", "g", "--root", "r"], "--pfx-password", &["--pfx-password-file FILE"]),
        (&["provision", "--group", "g"], "--key-password", &["--key-password-file FILE", "IOT_ENROLL_KEY_PASSWORD"]),
        (&["cert", "root", "r"], "--pfx-password", &["--pfx-password-file FILE", "IOT_ENROLL_PFX_PASSWORD"]),
        (&["cert", "root", "r"], "--password", &["--pfx-password-file FILE"]),
        (&["cert", "root", "r"], "--passphrase", &["--pfx-password-file FILE"]),
        (&["cert", "device", "d", "r"], "--key-password", &["--key-password-file FILE", "IOT_ENROLL_KEY_PASSWORD"]),
        (&["cert", "device", "d", "r"], "--password", &["--pfx-password-file FILE", "--key-password-file FILE"]),
        (&["device", "register", "d"], "--symmetric-key", &["--symmetric-key-file FILE"]),
        (&["device", "register", "d"], "--sas-key", &["--symmetric-key-file FILE"]),
        (&["device", "register", "d"], "--primary-key", &["--symmetric-key-file FILE"]),
        (&["device", "register", "d"], "--group-key", &["--group-key-file FILE", "IOT_ENROLL_GROUP_KEY"]),
        (&["device", "register", "d"], "--token", token),
        (&["device", "compute-key", "d"], "--group-key", &["--group-key-file FILE", "IOT_ENROLL_GROUP_KEY"]),
        (&["device", "compute-key", "d"], "--key", &["--group-key-file FILE"]),
        (&["device", "list"], "--connection-string", token),
        (&["completions", "bash"], "--token", &["takes no secret"]),
    ] {
        let named = [&[option], right].concat();
        refused(&[command, &[option, PASSWORD]].concat(), PASSWORD, &named);
        refused(&[command, &[&format!("{option}={KEY}")]].concat(), KEY, &named);
    }
    for secret in [SAS_TOKEN, WEB_TOKEN, KEY, PASSWORD, CONNECTION] {
        refused(&["device", "list", "--token", secret], secret, &["--token is not accepted"]);
        // At any position, and together with other errors.
        refused(&["--token", secret, "device", "list"], secret, &["--token-file"]);
        refused(&["device", "--token", secret, "list"], secret, &["--token-file"]);
        refused(&["device", "list", "--nonsense", "--token", secret, secret], secret, &["--token-file"]);
        refused(&["device", "--token", secret], secret, &[]);
    }
}

#[test]
fn secret_value_of_a_flag_is_refused() {
    let set = ["device", "attestation", "set", "d"];
    for secret in [KEY, PASSWORD, "p w"] {
        refused(&[&set[..], &["--symmetric-key", secret]].concat(), secret, &["--keys-file FILE"]);
        refused(&[&set[..], &[&format!("--symmetric-key={secret}")]].concat(), secret, &["--keys-file FILE"]);
    }
    refused(&["device", "attestation", "set", "--symmetric-key", KEY, "d"], KEY, &[]);
    let (service, directory) = (Service::start(), directory());
    service.run(directory.path(), &["device", "create", "d"]).ok();
    service.run(directory.path(), &[&set[..], &["--symmetric-key"]].concat()).ok();
    service.run(directory.path(), &["device", "attestation", "set", "--symmetric-key", "d"]).ok();
}

#[test]
fn secret_instead_of_a_file_is_refused() {
    let bearer = format!("Bearer {WEB_TOKEN}");
    for secret in [SAS_TOKEN, WEB_TOKEN, &bearer, KEY, PASSWORD, "correct horse 7", "c2hvcnQ="] {
        let list = ["device", "list", "--app", "contoso"];
        refused(&[&list[..], &["--token-file", secret]].concat(), secret, &["--token-file FILE", "IOT_ENROLL_TOKEN"]);
        refused(&[&list[..], &[&format!("--token-file={secret}")]].concat(), secret, &["--token-file FILE"]);
    }
    for (command, option) in [
        (&["cert", "root", "r"][..], "--pfx-password-file"),
        (&["cert", "device", "d", "r"], "--key-password-file"),
        (&["device", "register", "d"], "--symmetric-key-file"),
        (&["device", "register", "d"], "--group-key-file"),
        (&["enrollment-group", "create", "g", "--attestation", "symmetric-key"], "--keys-file"),
    ] {
        refused(&[command, &[option, KEY]].concat(), KEY, &[option]);
        refused(&[command, &[option, PASSWORD]].concat(), PASSWORD, &[option]);
    }
    let register = ["device", "register", "d", "--cert", "c.pem", "--id-scope", "0ne1", "--key", KEY];
    refused(&register, KEY, &["--symmetric-key-file FILE"]);
    refused(&["cert", "device", "d", "--ca-cert", "c.pem", "--ca-key", KEY], KEY, &["--ca-key"]);
}

#[test]
fn secret_instead_of_any_file_is_not_repeated() {
    let dps = |rest: &[&'static str]| [&["dps", "enrollment", "create", "d", "--dps", "x"][..], rest].concat();
    for command in [
        dps(&["--endorsement-key-file"]),
        dps(&["--initial-twin"]),
        dps(&["--tls-ca"]),
        dps(&["--cert"]),
        dps(&["--cert", "c.pem", "--secondary-cert"]),
        vec!["dps", "enrollment-group", "create", "g", "--dps", "x", "--signing-certificate"],
        vec!["dps", "certificate", "set", "c", "--dps", "x", "--file"],
        vec!["device", "create", "d", "--app", "contoso", "--file"],
        vec!["device", "register", "--id-scope", "0ne1", "--manifest"],
        vec!["cert", "verify", "c.pem", "--ca-cert"],
        vec!["cert", "fleet", "r", "--devices"],
        vec!["cert", "inspect"],
        vec!["cert", "thumbprint", "c.pem"],
    ] {
        refused(&[&command[..], &[KEY]].concat(), KEY, &[]);
    }
    // A directory to write is new.
    run(directory().path(), &["cert", "root", "r", "--no-pfx", "--dir", "Fleet2026/devices/plantA"]).ok();
}

#[test]
fn file_names_are_not_mistaken_for_secrets() {
    let directory = directory();
    for name in
        ["token", "token.txt", "my-token", "tokens/app2.token", "/run/secrets/app-1_token", "C:\\token", "jeton-é"]
    {
        let error = run(directory.path(), &["device", "list", "--app", "contoso", "--token-file", name]).fails(1);
        assert!(error.contains(name), "the file is named: {error}");
    }
    // A file with an unusual name that exists is accepted.
    fs::write(directory.path().join(KEY), "topsecret").expect("written");
    let arguments = ["device", "list", "--app", "contoso", "--token-file", KEY];
    assert!(run(directory.path(), &arguments).fails(1).contains("the token is neither"));
}

#[test]
fn tokens_and_keys_are_never_repeated() {
    let bearer = format!("Bearer {WEB_TOKEN}");
    let pem = "-----BEGIN PRIVATE KEY-----\ntopsecret123\n-----END PRIVATE KEY-----";
    for secret in [SAS_TOKEN, WEB_TOKEN, &bearer, CONNECTION, pem] {
        for arguments in [
            &["device", "list", secret][..],
            &["device", "show", secret],
            &["device", "create", "d", "--display-name", secret],
            &["device", "list", "--app", secret],
            &["device", "list", "--endpoint", secret],
            &["device", "list", "--", secret],
            &["cert", "root", secret],
            &["cert", "root", "r", "--algorithm", secret],
            &["provision", "--group", secret],
            &["provision", "--entry", secret],
            &["emulator", "--fault", secret],
            &["emulator", "--listen", secret],
            &[secret],
            &["device", secret],
        ] {
            refused(arguments, secret, &[]);
        }
    }
    for arguments in [
        &["device", "list", KEY][..],
        &["device", "show", KEY],
        &["provision", "--group", "g", "--root", "r", "--entry", KEY],
        &["device", KEY],
        &["device", "register", "d", "--no-such", KEY, "--id-scope", KEY],
        &["device", "register", "d", "--id-scope", KEY],
    ] {
        refused(arguments, KEY, &[]);
    }
    for address in ["https://someone:tops3cret@contoso.azureiotcentral.com", "https://tops3cret@x"] {
        refused(&["device", "list", "--endpoint", address], "tops3cret", &[]);
        refused(&["device", "list", "--app", address], "tops3cret", &[]);
        refused(&["device", "register", "d", "--dps-endpoint", address], "tops3cret", &[]);
    }
}

#[test]
fn secret_in_a_wrong_variable_is_not_repeated() {
    let directory = directory();
    for variable in ["IOT_ENROLL_APP", "IOT_ENROLL_ENDPOINT"] {
        for secret in [SAS_TOKEN, WEB_TOKEN, KEY, "https://someone:topsecret123@x"] {
            let mut command = program(directory.path());
            let run =
                Run::of(command.args(["device", "list"]).env(variable, secret).env("IOT_ENROLL_TOKEN", SAS_TOKEN));
            let error = run.fails(2);
            assert!(
                error.contains(variable) && !error.contains("topsecret") && !error.contains(&secret[..8]),
                "{error}"
            );
        }
    }
    for variable in ["IOT_ENROLL_ID_SCOPE", "IOT_ENROLL_DPS_ENDPOINT"] {
        fs::write(directory.path().join("key"), KEY).expect("written");
        let mut command = program(directory.path());
        command.args(["device", "register", "d", "--symmetric-key-file", "key"]).env("IOT_ENROLL_ID_SCOPE", "0ne1");
        let error = Run::of(command.env(variable, "https://someone:topsecret123@x y")).fails(2);
        assert!(error.contains(variable) && !error.contains("topsecret"), "{error}");
    }
}

#[test]
fn pins_of_tokens_are_refused_in_every_build() {
    let pin = "pins3cret";
    for key in ["pkcs11:object=k?pin-value=pins3cret", "pkcs11:object=k?pin=pins3cret", "object=k?pin-value=pins3cret"]
    {
        refused(&["cert", "device", "d", "r", "--ca-key", key], pin, &["pin-source=file:FILE"]);
    }
    refused(&["cert", "device", "d", "r", "--pin", pin], pin, &["pin-source=file:FILE"]);
    // Keys in tokens take a feature.
    if !cfg!(feature = "pkcs11") {
        let key = "pkcs11:object=k?pin-source=file:pins3cret";
        refused(&["cert", "device", "d", "r", "--ca-key", key], pin, &["PKCS#11", "--features pkcs11"]);
    }
}

#[test]
fn emulator_takes_its_token_on_the_command_line() {
    for token in [SAS_TOKEN, &format!("Bearer {WEB_TOKEN}")] {
        let service = Service::with(&["--token", token]);
        assert_eq!(service.first_line["token"], token);
        let service = Service::with(&[&format!("--token={token}")]);
        assert_eq!(service.first_line["token"], token);
    }
}

#[test]
fn abbreviated_options_are_refused() {
    let directory = directory();
    for (arguments, option) in [
        (&["device", "list", "--tok", "x"][..], "--tok"),
        (&["device", "list", "--token-f", "x"], "--token-f"),
        (&["cert", "root", "r", "--alg", "ec-p384"], "--alg"),
        (&["device", "register", "d", "--symmetric", KEY], "--symmetric"),
        (&["device", "register", "d", "--symmetric-key-f", KEY], "--symmetric-key-f"),
        (&["cert", "root", "r", "--pfx-pass=tops3cret"], "--pfx-pass"),
    ] {
        let error = run(directory.path(), arguments).fails(2);
        assert!(error.contains(option) && !error.contains(KEY) && !error.contains("tops3cret"), "{error}");
    }
}

#[test]
fn readable_secret_file_is_noted() {
    let (service, directory) = (Service::start(), directory());
    let path = directory.path();
    fs::write(path.join("token"), &service.token).expect("written");
    let list = ["device", "list", "--endpoint", &service.endpoint, "--token-file", "token"];
    for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o666, true)] {
        fs::set_permissions(path.join("token"), fs::Permissions::from_mode(mode)).expect("set");
        let listed = run(path, &list);
        assert_eq!(listed.stderr.contains("other users have access to token"), warned, "{mode:o}: {}", listed.stderr);
        assert_eq!(listed.stderr.contains(&format!("(mode {mode:04o})")), warned, "{}", listed.stderr);
        listed.ok();
    }
    assert_eq!(run(path, &[&list[..], &["-q"]].concat()).stderr, "");
    fs::write(path.join("password"), "x\n").expect("written");
    fs::set_permissions(path.join("password"), fs::Permissions::from_mode(0o644)).expect("set");
    let made = run(path, &["cert", "root", "r", "--pfx-password-file", "password"]);
    assert!(made.stderr.contains("other users have access to password"), "{}", made.stderr);
    let signed = ["cert", "device", "d", "--no-pfx", "--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem", "--force"];
    assert_eq!(run(path, &signed).stderr, "");
    fs::set_permissions(path.join("r_key.pem"), fs::Permissions::from_mode(0o644)).expect("set");
    assert!(run(path, &signed).stderr.contains("chmod 600 r_key.pem"));
}

#[test]
fn issuer_can_be_two_files() {
    let directory = directory();
    let path = directory.path();
    let fixture = |name: &str| authority_fixture(name).display().to_string();
    let (certificate, key) = (fixture("ec-pkcs8_cert.pem"), fixture("ec-pkcs8_key_aes.pem"));
    fs::write(path.join("password"), "fixture\n").expect("written");
    let issuer = ["--ca-cert", &certificate, "--ca-key", &key, "--key-password-file", "password", "--no-pfx"];
    run(path, &[&["cert", "intermediate", "i"], &issuer[..]].concat()).ok();
    run(path, &[&["cert", "device", "d"], &issuer[..]].concat()).ok();
    run(path, &[&["cert", "fleet", "--count", "2"], &issuer[..6]].concat()).ok();
    for file in ["i_cert.pem", "d_cert.pem", "fleet/0000/device-1_cert.pem"] {
        run(path, &["cert", "verify", file, "--ca-cert", &certificate]).ok();
    }
    // The chain in the file of an intermediate is kept.
    run(path, &["cert", "device", "e", "--ca-cert", "i_fullchain.pem", "--ca-key", "i_key.pem", "--no-pfx"]).ok();
    let chain = Certificate::read_all(&fs::read(path.join("e_fullchain.pem")).expect("read")).expect("certificates");
    assert_eq!(chain.len(), 3);
    for wrong in [
        &["cert", "intermediate", "x"][..],
        &["cert", "fleet", "--count", "1"],
        &["cert", "device", "x", "i", "--ca-cert", "i_cert.pem", "--ca-key", "i_key.pem"],
        &["cert", "device", "x", "--ca-cert", "i_cert.pem"],
        &["cert", "device", "x", "--ca-key", "i_key.pem"],
        &["cert", "device", "x", "--csr", "x.csr"],
    ] {
        run(path, wrong).fails(2);
    }
}

#[test]
fn old_option_names_work_but_are_hidden() {
    let directory = directory();
    let path = directory.path();
    run(path, &["cert", "root", "r", "--no-pfx"]).ok();
    fs::write(path.join("ids"), "a\nb\n").expect("written");
    for proof in [
        ["--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem", "--code", "C1"],
        ["--ca", "r_cert.pem", "--key", "r_key.pem", "--nonce", "C2"],
    ] {
        run(path, &[&["cert", "verification", "--no-pfx"], &proof[..]].concat()).ok();
    }
    for name in ["--ca-cert", "--ca"] {
        run(path, &["cert", "verify", "verification_cert.pem", name, "r_cert.pem", "--code", "C2"]).ok();
    }
    for (name, out) in [("--devices", "one"), ("--ids", "two")] {
        run(path, &["cert", "fleet", "r", name, "ids", "--out", out]).ok();
    }
    for name in ["--verified", "--attest"] {
        let steps = run(path, &["provision", "--emulator", name, "--no-pfx"]);
        assert!(!steps.stderr.contains("proof "), "{}", steps.stderr);
        steps.ok();
    }
    let service = Service::with(&["--tls"]);
    let file = service.first_line["caFile"].as_str().expect("a path");
    for name in ["--tls-ca", "--ca-file"] {
        service.run(path, &["device", "list", name, file]).ok();
    }
    for (command, old) in [
        (&["cert", "verification"][..], &["--nonce", "--ca ", "--key "][..]),
        (&["cert", "verify"], &["--ca "]),
        (&["cert", "fleet"], &["--ids"]),
        (&["provision"], &["--attest", "--ca-file"]),
        (&["rollover"], &["--attest", "--ca-file"]),
        (&["device", "list"], &["--ca-file"]),
    ] {
        let help = run(path, &[command, &["--help"]].concat()).ok();
        assert!(old.iter().all(|old| !help.contains(old)), "{help}");
    }
}

#[test]
fn only_a_proof_for_another_code_is_overwritten() {
    let directory = directory();
    let path = directory.path();
    run(path, &["cert", "root", "r", "--no-pfx"]).ok();
    let prove = |code: &str| {
        let issuer = ["--ca-cert", "r_cert.pem", "--ca-key", "r_key.pem", "--no-pfx"];
        run(path, &[&["cert", "verification", "--code", code], &issuer[..]].concat())
    };
    prove("FIRST").ok();
    prove("SECOND").ok();
    run(path, &["cert", "verify", "verification_cert.pem", "--ca-cert", "r_cert.pem", "--code", "SECOND"]).ok();
    assert!(prove("SECOND").fails(1).contains("already exist"));
    // A certificate with the name "verification" is not a proof.
    for command in [&["cert", "root", "verification"][..], &["cert", "device", "verification", "r"]] {
        // The files belong to a proof, so --force does not overwrite them.
        if command[1] == "root" {
            assert!(run(path, &[command, &["--no-pfx", "--force"]].concat()).fails(1).contains("SECOND"));
        }
        for name in ["cert", "key", "fullchain"] {
            fs::remove_file(path.join(format!("verification_{name}.pem"))).expect("removed");
        }
        run(path, &[command, &["--no-pfx"]].concat()).ok();
        let before = fs::read(path.join("verification_key.pem")).expect("read");
        assert!(prove("THIRD").fails(1).contains("belongs to \"verification\""), "{command:?}");
        assert_eq!(fs::read(path.join("verification_key.pem")).expect("read"), before);
    }
}

#[test]
fn application_is_a_subdomain_host_name_or_url() {
    let (service, directory) = (Service::start(), directory());
    let token = service.token.clone();
    let list = |app: &str| {
        let mut command = program(directory.path());
        // The proxy refuses connections, so that nothing is sent and the error names the host.
        command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("IOT_ENROLL_TOKEN", &token);
        Run::of(command.args(["device", "list", "--app", app, "-o", "json"]))
    };
    // At once, since each run tries several times.
    thread::scope(|scope| {
        for app in [
            "contoso",
            "contoso.azureiotcentral.com",
            "contoso.azureiotcentral.com/",
            "https://contoso.azureiotcentral.com",
            "https://contoso.azureiotcentral.com/devices?x=1#top",
            " https://CONTOSO.azureiotcentral.com/ ",
        ] {
            let list = &list;
            scope.spawn(move || assert!(list(app).fails(1).contains("contoso.azureiotcentral.com"), "{app}"));
        }
    });
    let mut command = program(directory.path());
    let at_emulator = command.args(["device", "list", "--app", &service.endpoint]).env("IOT_ENROLL_TOKEN", &token);
    Run::of(at_emulator).ok();
    for wrong in ["", "two words", "http://contoso.azureiotcentral.com", "ftp://contoso", "a/b", "https://"] {
        assert!(list(wrong).fails(2).contains("--app"), "{wrong}");
    }
}

#[test]
fn missing_arguments_are_wrong_usage() {
    let directory = directory();
    let with = |arguments: &[&str], environment: &[(&str, &str)]| {
        Run::of(program(directory.path()).args(arguments).envs(environment.iter().copied())).fails(2)
    };
    assert!(with(&["device", "list"], &[]).contains("--app"));
    assert!(with(&["device", "list", "--app", "contoso"], &[]).contains("--token-file"));
    assert!(with(&["provision", "--group", "g", "--root", "r"], &[]).contains("--app"));
    assert!(with(&["device", "compute-key", "d"], &[]).contains("--group-key-file"));
    assert!(with(&["device", "register", "d"], &[]).contains("--cert"));
    let key = [("IOT_ENROLL_GROUP_KEY", KEY)];
    assert!(with(&["device", "register", "d"], &key).contains("--id-scope"));
    // The ID scope could be read from the application.
    assert!(with(&["device", "register", "d", "--app", "contoso"], &key).contains("--token-file"));
    assert!(with(&["cert", "inspect"], &[]).contains("FILE"));
    let odd: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"caf\xe9".to_vec());
    let error = Run::of(program(directory.path()).args(["device", "list"]).env("IOT_ENROLL_APP", odd)).fails(2);
    assert!(error.contains("IOT_ENROLL_APP") && error.contains("UTF-8"), "{error}");
}

#[test]
fn id_scope_is_read_from_the_application() {
    let (service, directory) = (Service::with(&["--retry-after", "0"]), directory());
    let path = directory.path();
    service.run(path, &["enrollment-group", "create", "g", "--attestation", "symmetric-key"]).ok();
    let group = service.json(path, &["enrollment-group", "show", "g", "--show-keys"]);
    let key = group["attestation"]["symmetricKey"]["primaryKey"].as_str().expect("a key");
    fs::write(path.join("key"), key).expect("written");
    fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o600)).expect("set");
    let register = ["device", "register", "d", "--group-key-file", "key", "--dps-endpoint", &service.endpoint];
    let error = service.run(path, &register).fails(2);
    assert!(error.contains("no devices") && error.contains("--id-scope"), "{error}");
    service.run(path, &["device", "create", "other"]).ok();
    assert!(service.run(path, &register).ok().contains("Registered d"));
    fs::write(path.join("manifest.csv"), "IOTC_DEVICEID\nx\ny\n").expect("written");
    let arguments = ["device", "register", "--manifest", "manifest.csv", "--group-key-file", "key", "--dps-endpoint"];
    let summary = service.json(path, &[&arguments[..], &[&service.endpoint]].concat());
    assert_eq!((&summary["assigned"], &summary["remaining"]), (&2.into(), &0.into()));
}

#[test]
fn fleet_manifest_is_imported_without_a_note() {
    let (service, directory) = (Service::start(), directory());
    let path = directory.path();
    run(path, &["cert", "root", "r", "--no-pfx"]).ok();
    run(path, &["cert", "fleet", "r", "--count", "3", "--pfx"]).ok();
    let import = service.run(path, &["device", "import", "--file", "fleet/manifest.csv"]);
    assert!(!import.stderr.contains("not used"), "{}", import.stderr);
    import.ok();
    fs::write(path.join("other.csv"), "IOTC_DEVICEID,privateKey,Colour\nd,k,red\n").expect("written");
    let import = service.run(path, &["device", "import", "--file", "other.csv"]);
    assert!(import.stderr.contains("these columns are not used: Colour\n"), "{}", import.stderr);
}

#[test]
fn forced_group_keeps_its_certificates_or_notes_the_loss() {
    let (service, directory) = (Service::start(), directory());
    let path = directory.path();
    service.run(path, &["provision", "--group", "g", "--root", "r", "--no-pfx"]).ok();
    let before = service.json(path, &["enrollment-group", "certificate", "show", "g"]);
    let created = service.run(path, &["enrollment-group", "create", "g", "--display-name", "New", "--force"]);
    assert_eq!(created.stderr, "", "nothing became of them");
    assert!(created.ok().contains("New"));
    assert_eq!(service.json(path, &["enrollment-group", "certificate", "show", "g"]), before);
}
