//! `cert server`: what TLS programs other than this one accept.

use std::{fs, io::ErrorKind, path::Path, process::Command};

use crate::support::{Run, openssl, program, skipped, temporary_directory};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments).arg("--no-pfx"))
}

/// A handshake for each name, in which the client checks the chain strictly, and only the alternative names.
const HANDSHAKE: &str = r"
import socket, ssl, sys, threading
chain, key, root, *names = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(chain, key)
client = ssl.create_default_context(cafile=root)
client.verify_flags |= ssl.VERIFY_X509_STRICT
client.hostname_checks_common_name = False
listener = socket.create_server(('127.0.0.1', 0))
def serve():
    try:
        with server.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.sendall(b'hello')
    except OSError:
        pass
for name in names:
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname=name) as connection:
            assert connection.recv(5) == b'hello'
    except ssl.SSLCertVerificationError as error:
        print(error.verify_message)
    else:
        print('accepted')
    thread.join()
";

/// What Python says of the server for each of the names. `None` without a Python.
fn handshakes(directory: &Path, stem: &str, root: &str, names: &[&str]) -> Option<Vec<String>> {
    let (chain, key) = (format!("{stem}_fullchain.pem"), format!("{stem}_key.pem"));
    let mut command = Command::new("python3");
    command.current_dir(directory).args(["-c", HANDSHAKE, &chain, &key, root]).args(names);
    let run = command.output();
    match run {
        Ok(run) => {
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            let answers: Vec<_> = String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect();
            assert_eq!(answers.len(), names.len(), "{answers:?}");
            Some(answers)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skipped("there is no python3 program");
            None
        }
        Err(error) => panic!("python3 could not be run: {error}"),
    }
}

#[test]
fn server_certificate_is_accepted_by_openssl_and_strict_python() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "R"]).ok();
    cert(path, &["intermediate", "I", "R"]).ok();
    let names = ["--san", "broker.example,*.plant.example", "--san", "192.0.2.7", "--san", "::1"];
    for (id, algorithm) in [("ec", "ec-p384"), ("rsa", "rsa-2048")] {
        cert(path, &[&["server", id, "I", "--client", "--algorithm", algorithm], &names[..]].concat()).ok();
        let expected = [
            ("broker.example", true),
            ("a.plant.example", true),
            ("192.0.2.7", true),
            ("::1", true),
            (id, false),
            ("plant.example", false),
            ("192.0.2.8", false),
        ];
        for (name, accepted) in expected {
            let option =
                if name.contains([':', '2']) && !name.contains("example") { "-verify_ip" } else { "-verify_hostname" };
            let (chain, leaf) = (format!("{id}_fullchain.pem"), format!("{id}_cert.pem"));
            for purpose in ["sslserver", "sslclient"] {
                let verify = ["verify", "-x509_strict", "-purpose", purpose, option, name, "-CAfile", "r_cert.pem"];
                let verify = [&verify[..], &["-untrusted", &chain, &leaf]].concat();
                let Some(run) = openssl(path, &verify) else { return };
                assert_eq!(run.status.success(), accepted, "{name} {purpose}: {run:?}");
            }
        }
        let answers = handshakes(path, id, "r_cert.pem", &expected.map(|(name, _)| name)).unwrap_or_default();
        for (answer, (name, accepted)) in answers.iter().zip(expected) {
            assert_eq!(answer == "accepted", accepted, "{name}: {answer}");
        }
    }
}

#[test]
fn self_signed_server_certificate_is_its_own_trust_anchor() {
    let directory = temporary_directory();
    let path = directory.path();
    let created = cert(path, &["server", "localhost", "--days", "30"]).ok();
    assert!(created.contains("self-signed"), "{created}");
    let verify = ["verify", "-purpose", "sslserver", "-verify_hostname", "localhost", "-CAfile", "localhost_cert.pem"];
    if let Some(run) = openssl(path, &[&verify[..], &["-x509_strict", "localhost_cert.pem"]].concat()) {
        assert!(run.status.success(), "{run:?}");
    }
    if let Some(answers) = handshakes(path, "localhost", "localhost_cert.pem", &["localhost"]) {
        assert_eq!(answers, ["accepted"]);
    }
}

#[test]
fn name_that_no_client_could_use_is_wrong_usage() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "R"]).ok();
    let before = fs::read_dir(path).expect("read").count();
    for (arguments, expected) in [
        (&["server", "my_broker", "R"][..], "--san"),
        (&["server", "My Broker", "R"], "--san"),
        (&["server", "*.plant.example", "R"], "--san '*.plant.example'"),
        (&["server", "s", "R", "--san", "https://s.example"], "URL"),
        (&["server", "s", "R", "--san", "s.example:8883"], "port"),
        (&["server", "s", "R", "--san", "b\u{fc}cher.example"], "xn--"),
        (&["server", "s", "R", "--san", ""], "empty"),
        (&["device", "d", "R", "--san", "s_1"], "underscore"),
        (&["device", "d", "R", "--san", "s", "--csr", "x"], "--csr"),
    ] {
        let error = cert(path, arguments).fails(2);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let error = cert(path, &["server", "R", "R", "--san", "r.example", "--force"]).fails(1);
    assert!(error.contains("belongs to the CA that signs"), "{error}");
    assert_eq!(fs::read_dir(path).expect("read").count(), before, "nothing was written");
}

#[test]
fn device_certificate_has_the_names_that_it_is_given() {
    let directory = temporary_directory();
    let path = directory.path();
    cert(path, &["root", "R"]).ok();
    for arguments in [&["device", "d", "R"][..], &["device", "own"]] {
        cert(path, &[arguments, &["--san", "d.example", "--san", "192.0.2.7"]].concat()).ok();
        let shown = Run::of(program(path).args(["cert", "inspect", &format!("{}_cert.pem", arguments[1])])).ok();
        assert!(shown.contains("d.example") && shown.contains("192.0.2.7") && shown.contains("clientAuth"), "{shown}");
        assert!(!shown.contains("serverAuth"), "{shown}");
    }
}
