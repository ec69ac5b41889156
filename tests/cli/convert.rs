//! `cert convert`: other programs read what it writes, nothing is lost, and keys stay secret.

use std::{
    ffi::OsStr,
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::support::{Run, app::Authority, authority_fixture, openssl, program, temporary_directory};

fn cert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).arg("cert").args(arguments))
}

fn convert(directory: &Path, arguments: &[&str]) -> Run {
    Run::of(program(directory).args(["cert", "convert"]).args(arguments))
}

/// A directory with a root, an intermediate and a device `d`, with the password `secret` on its PFX file.
fn lab() -> TempDir {
    let lab = temporary_directory();
    fs::write(lab.path().join("password"), "secret\n").expect("written");
    fs::set_permissions(lab.path().join("password"), fs::Permissions::from_mode(0o600)).expect("a mode");
    cert(lab.path(), &["root", "Root", "--no-pfx"]).ok();
    cert(lab.path(), &["intermediate", "Factory", "Root", "--no-pfx"]).ok();
    cert(lab.path(), &["device", "d", "Factory", "--pfx-password-file", "password"]).ok();
    lab
}

/// Runs another program, or reports a test that is skipped without it.
fn run_other(directory: &Path, name: &str, arguments: &[&(impl AsRef<OsStr> + ?Sized)]) -> Option<Output> {
    match Command::new(name).current_dir(directory).args(arguments.iter().map(AsRef::as_ref)).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            crate::skipped(format_args!("there is no {name}"));
            None
        }
        Err(error) => panic!("{name} could not be run: {error}"),
    }
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("it exists").permissions().mode() & 0o777
}

/// The PEM of several roots, without a leaf.
fn many_certificates() -> String {
    let names = ["rsa-pkcs1", "script", "p521", "directory", "ec-pkcs8", "ec-sec1", "limited-1"];
    let pems =
        names.map(|name| fs::read_to_string(authority_fixture(&format!("{name}_cert.pem"))).expect("a certificate"));
    pems.iter().map(|pem| &pem[pem.find("-----BEGIN").expect("PEM")..]).collect()
}

fn text(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).expect("a text file")
}

#[test]
fn openssl_reads_every_format() {
    let lab = lab();
    let path = lab.path();
    let pfx = ["d.pfx", "--pfx-password-file", "password"];
    convert(path, &[&pfx[..], &["--to", "pem", "--out", "all.pem"]].concat()).ok();
    assert_eq!(text(path, "all.pem"), text(path, "d_fullchain.pem") + &text(path, "d_key.pem"));
    convert(path, &["d_cert.pem", "--to", "der", "--out", "d.cer"]).ok();
    convert(
        path,
        &["d_fullchain.pem", "d_key.pem", "--to", "pfx", "--new-password-file", "password", "--out", "n.pfx"],
    )
    .ok();
    convert(path, &["n.pfx", "--pfx-password-file", "password", "--to", "pfx", "--pfx-legacy", "--out", "l.pfx"]).ok();
    convert(path, &["d_fullchain.pem", "--to", "p7b", "--out", "d.p7b"]).ok();
    convert(path, &["d_fullchain.pem", "--to", "p7b-der", "--out", "b.p7b"]).ok();
    convert(path, &["d_key.pem", "--to", "pem", "--key-format", "sec1", "--out", "sec1.pem"]).ok();
    convert(path, &["d_key.pem", "--to", "der", "--key-format", "sec1", "--out", "sec1.der"]).ok();
    convert(path, &["d_key.pem", "--to", "pem", "--new-password-file", "password", "--out", "p8.pem"]).ok();
    let rsa = authority_fixture("rsa-pkcs1_key.pem");
    let rsa = rsa.to_str().expect("UTF-8");
    convert(path, &[rsa, "--to", "pem", "--out", "p8rsa.pem"]).ok();
    convert(path, &["p8rsa.pem", "--to", "pem", "--key-format", "pkcs1", "--out", "rsa.pem"]).ok();
    assert_eq!(fs::read(path.join("rsa.pem")).expect("a key"), fs::read(rsa).expect("a key"), "OpenSSL's own encoding");

    let Some(run) = openssl(path, &["x509", "-inform", "der", "-in", "d.cer"]) else { return };
    assert_eq!(printed(&run), text(path, "d_cert.pem"));
    let ssl = |arguments: &[&str]| printed(&openssl(path, arguments).expect("openssl"));
    let blocks = |text: &str| {
        let blocks: Vec<_> = text.split_inclusive("-----END CERTIFICATE-----\n").collect();
        blocks.iter().filter_map(|block| block.find("-----BEGIN").map(|begin| &block[begin..])).collect::<String>()
    };
    for (name, form) in [("d.p7b", "pem"), ("b.p7b", "der")] {
        let found = ssl(&["pkcs7", "-inform", form, "-in", name, "-print_certs"]);
        assert_eq!(blocks(&found), text(path, "d_fullchain.pem"), "{name}");
    }
    for pfx in ["n.pfx", "l.pfx"] {
        let legacy = if pfx == "l.pfx" { &["-legacy"][..] } else { &[] };
        let arguments = ["pkcs12", "-in", pfx, "-passin", "file:password", "-nodes"];
        let found = ssl(&[&arguments[..], legacy].concat());
        assert!(found.contains(text(path, "d_key.pem").trim()), "{found}");
    }
    let key = ssl(&["pkey", "-in", "d_key.pem", "-pubout"]);
    assert_eq!(ssl(&["pkey", "-in", "p8.pem", "-passin", "file:password", "-pubout"]), key);
    for (name, form) in [("sec1.pem", "pem"), ("sec1.der", "der")] {
        assert_eq!(ssl(&["ec", "-inform", form, "-in", name, "-pubout"]), key);
        // The same key in OpenSSL's own encoding.
        let own = openssl(path, &["ec", "-in", "d_key.pem", "-outform", form]).expect("openssl");
        assert_eq!(own.stdout, fs::read(path.join(name)).expect("a key"), "{name}");
    }
    ssl(&["rsa", "-in", "rsa.pem", "-noout", "-check"]);
}

#[test]
fn keytool_lists_the_truststore() {
    let lab = lab();
    let path = lab.path();
    let rsa = authority_fixture("rsa-pkcs1_cert.pem");
    let certificates = ["root_cert.pem", "factory_cert.pem", rsa.to_str().expect("UTF-8")];
    for (password, option) in [("1234", &[][..]), ("secret", &["--new-password-file", "password"])] {
        let out = format!("{password}.p12");
        convert(path, &[&certificates[..], &["--to", "truststore", "--out", &out], option].concat()).ok();
        assert_eq!(mode(&path.join(&out)), 0o644, "it holds no secret");
        let Some(run) = run_other(path, "keytool", &["-list", "-keystore", &out, "-storepass", password]) else {
            return;
        };
        let listed = printed(&run);
        assert!(listed.contains("contains 3 entries"), "{listed}");
        assert_eq!(listed.matches("trustedCertEntry").count(), 3, "{listed}");
        assert!(listed.contains("root,") && listed.contains("factory,"), "{listed}");
        let exported = ["-exportcert", "-rfc", "-alias", "ROOT", "-keystore", &out, "-storepass", password];
        let exported = printed(&run_other(path, "keytool", &exported).expect("keytool"));
        fs::write(path.join("exported.pem"), exported).expect("written");
        let (ours, theirs) = (["thumbprint", "root_cert.pem"], ["thumbprint", "exported.pem"]);
        assert_eq!(cert(path, &ours).ok(), cert(path, &theirs).ok());
    }
    convert(path, &["d_fullchain.pem", "--to", "p7b", "--out", "d.p7b"]).ok();
    let run = run_other(path, "keytool", &["-printcert", "-file", "d.p7b"]).expect("keytool");
    assert_eq!(printed(&run).matches("Owner: ").count(), 3);
}

#[test]
fn header_compiles_without_warnings_and_prints_the_same_pem() {
    let lab = lab();
    let path = lab.path();
    let odd = Authority::new("*/ /* ??/ \\");
    fs::write(path.join("odd.pem"), odd.pem).expect("written");
    // Longer than the string literals that C99 guarantees.
    let long = many_certificates();
    assert!(long.len() > 4095, "{}", long.len());
    fs::write(path.join("long.pem"), &long).expect("written");
    convert(path, &["d_fullchain.pem", "d_key.pem", "--to", "c-header", "--key-format", "sec1", "--out", "device.h"])
        .ok();
    convert(path, &["long.pem", "--to", "c-header", "--name", "Long", "--out", "long.h"]).ok();
    convert(path, &["odd.pem", "--to", "c-header", "--name", "odd", "--out", "odd.h"]).ok();
    convert(path, &["d_key.pem", "--to", "pem", "--key-format", "sec1", "--out", "sec1.pem"]).ok();
    assert_eq!(mode(&path.join("device.h")), 0o600);
    assert_eq!(mode(&path.join("long.h")), 0o644);
    // A guard keeps the second inclusion out. Not every variable of a header is used.
    let program = "#include <stdio.h>\n#include \"device.h\"\n#include \"device.h\"\n#include \"long.h\"\n#include \"odd.h\"\n\
                   int main(void) {\n  fputs(device_cert, stdout);\n  fputs(device_key, stdout);\n  fputs(Long_cert, stdout);\n\
                   \x20 return sizeof(device_cert) - 1 == 0;\n}\n";
    fs::write(path.join("main.c"), program).expect("written");
    let flags = ["-Wall", "-Werror", "-Wextra", "-std=c99", "-pedantic", "main.c", "-o", "main"];
    let Some(run) = run_other(path, "cc", &flags) else { return };
    assert!(run.status.success(), "{run:?}");
    let run = Command::new(path.join("main")).output().expect("it runs");
    assert_eq!(printed(&run), text(path, "d_fullchain.pem") + &text(path, "sec1.pem") + &long);
}

/// Reads a CSV file as `nvs_partition_gen` does, and prints the value of a key.
const READ_NVS: &str = "
import base64, csv, sys
with open(sys.argv[1], 'rt', encoding='utf8') as file:
    rows = list(csv.DictReader(filter(lambda row: row[0] != '#', file), delimiter=','))
assert rows[0] == {'key': sys.argv[2], 'type': 'namespace', 'encoding': '', 'value': ''}, rows[0]
for row in rows[1:]:
    if row['key'] == sys.argv[3]:
        assert row['type'] == 'data', row
        value = row['value'] if row['encoding'] == 'string' else base64.b64decode(row['value']).decode()
        sys.stdout.write(value)
";

#[test]
fn nvs_generator_reads_the_csv() {
    let lab = lab();
    let path = lab.path();
    fs::write(path.join("read.py"), READ_NVS).expect("written");
    let input = ["d_fullchain.pem", "d_key.pem", "--to", "nvs-csv", "--out"];
    convert(path, &[&input[..], &["string.csv"]].concat()).ok();
    convert(path, &[&input[..], &["blob.csv", "--nvs-blob", "--namespace", "tls", "--name", "gw"]].concat()).ok();
    assert_eq!(mode(&path.join("string.csv")), 0o600);
    for (file, namespace, name, end) in [("string.csv", "certs", "device", ""), ("blob.csv", "tls", "gw", "\0")] {
        for (what, expected) in [("cert", "d_fullchain.pem"), ("key", "d_key.pem")] {
            let entry = format!("{name}_{what}");
            let Some(run) = run_other(path, "python3", &["read.py", file, namespace, &entry]) else { return };
            assert_eq!(printed(&run), text(path, expected) + end, "{file} {entry}");
        }
    }
    let generator = ["-m", "esp_idf_nvs_partition_gen"];
    let has_generator = run_other(path, "python3", &["-c", "import esp_idf_nvs_partition_gen"]);
    if !has_generator.is_some_and(|run| run.status.success()) {
        crate::skipped("python3 has no esp_idf_nvs_partition_gen");
        return;
    }
    for file in ["string.csv", "blob.csv"] {
        let generate = [&generator[..], &["generate", file, "nvs.bin", "0x6000"]].concat();
        let run = run_other(path, "python3", &generate).expect("python3");
        assert!(run.status.success(), "{run:?}");
        let image = fs::read(path.join("nvs.bin")).expect("an image");
        let key = text(path, "d_key.pem");
        assert!(image.windows(key.len()).any(|window| window == key.as_bytes()), "the image holds the key");
    }
}

#[test]
fn value_too_long_for_a_string_in_nvs_is_refused() {
    let lab = lab();
    let path = lab.path();
    fs::write(path.join("many.pem"), many_certificates()).expect("written");
    let error = convert(path, &["many.pem", "--to", "nvs-csv"]).fails(1);
    assert!(error.contains("at most 3967") && error.contains("--nvs-blob"), "{error}");
    convert(path, &["many.pem", "--to", "nvs-csv", "--nvs-blob"]).ok();
    let error = convert(path, &["d_cert.pem", "--to", "nvs-csv", "--name", "a_long_name"]).fails(1);
    assert!(error.contains("a_long_name_cert") && error.contains("--name"), "{error}");
}

#[test]
fn nothing_is_left_out_silently() {
    let lab = lab();
    let path = lab.path();
    for (arguments, words) in [
        (&["d_fullchain.pem", "--to", "der"][..], &["DER holds one certificate", "--only leaf"][..]),
        (&["d_cert.pem", "d_key.pem", "--to", "der", "--out", "x"], &["a certificate and a private key", "--only key"]),
        (&["d_cert.pem", "d_key.pem", "--to", "p7b", "--out", "x"], &["no private keys", "--only certificates"]),
        (&["d_cert.pem", "d_key.pem", "--to", "truststore", "--out", "x"], &["no private keys", "--only certificates"]),
        (&["d_key.pem", "--to", "truststore", "--out", "x"], &["there is no certificate"]),
        (&["d_key.pem", "--to", "pfx", "--out", "x"], &["there is no certificate"]),
        (&["d_cert.pem", "--to", "pfx", "--out", "x"], &["there is no private key", "truststore"]),
        (&["d_cert.pem", "--to", "c-header", "--only", "key", "--out", "x"], &["there is no private key"]),
        (&["d_cert.pem", "--to", "c-header", "--key-format", "sec1", "--out", "x"], &["there is no private key"]),
        (&["d_cert.pem", "--to", "pem", "--new-password-file", "password"], &["there is no private key to encrypt"]),
        (&["d_cert.pem", "factory_key.pem", "--to", "pem", "--out", "x"], &["does not belong to", "CN=d"]),
        (&["d_key.pem", "factory_key.pem", "--to", "pem", "--out", "x"], &["several private keys"]),
        (&["d_key.pem", "--to", "pem", "--key-format", "pkcs1", "--out", "x"], &["an EC key has no PKCS#1 form"]),
        (
            &["d_key.pem", "--to", "pem", "--key-format", "sec1", "--new-password-file", "password", "--out", "x"],
            &["SEC1 cannot be encrypted"],
        ),
    ] {
        let error = convert(path, arguments).fails(1);
        assert!(words.iter().all(|word| error.contains(word)), "{arguments:?}: {error}");
        assert!(!path.join("x").exists(), "{arguments:?}");
    }
    let error = convert(path, &["d_cert.pem", "root_cert.pem", "--to", "der", "--only", "leaf"]).fails(1);
    assert!(error.contains("2 certificates could be the leaf: CN=d, CN=Root"), "{error}");
    let leaf =
        convert(path, &["root_cert.pem", "factory_cert.pem", "d_cert.pem", "--to", "pem", "--only", "leaf"]).ok();
    assert_eq!(leaf, text(path, "d_cert.pem"));
    let chain = convert(path, &["root_cert.pem", "factory_cert.pem", "d_cert.pem", "d_cert.pem", "--to", "pem"]).ok();
    assert_eq!(chain, text(path, "d_fullchain.pem"), "a chain starts with the leaf, and a repeated certificate is one");
}

#[test]
fn revocation_lists_and_signatures_are_mentioned() {
    let lab = lab();
    let path = lab.path();
    let sign = ["smime", "-sign", "-signer", "d_cert.pem", "-inkey", "d_key.pem", "-in", "password", "-nodetach"];
    let Some(run) = openssl(path, &[&sign[..], &["-outform", "der", "-out", "signed.p7"]].concat()) else { return };
    assert!(run.status.success(), "{run:?}");
    let run = convert(path, &["signed.p7", "--to", "pem"]);
    assert!(run.stderr.contains("the signatures of the PKCS#7 in signed.p7"), "{}", run.stderr);
    assert_eq!(run.ok(), text(path, "d_cert.pem"));
    let request = ["req", "-new", "-key", "d_key.pem", "-subj", "/CN=d", "-out", "d.csr"];
    assert!(openssl(path, &request).expect("openssl").status.success());
    let error = convert(path, &["d_cert.pem", "d.csr", "--to", "pem"]).fails(1);
    assert!(error.contains("d.csr") && error.contains("a certificate request, which cannot be converted"), "{error}");
}

#[test]
fn private_key_is_not_printed_unasked() {
    let lab = lab();
    let path = lab.path();
    for arguments in [&["d_key.pem", "--to", "pem"][..], &["d_cert.pem", "d_key.pem", "--to", "c-header"]] {
        let run = convert(path, arguments);
        assert!(run.stdout.is_empty());
        let error = run.fails(2);
        assert!(error.contains("private key") && error.contains("--out FILE"), "{error}");
    }
    let printed = convert(path, &["d_key.pem", "--to", "pem", "--out", "-"]).ok();
    assert_eq!(printed, text(path, "d_key.pem"), "asked for");
    let certificate = convert(path, &["d_fullchain.pem", "--to", "p7b"]).ok();
    assert!(certificate.starts_with("-----BEGIN PKCS7-----"), "{certificate}");
    // JSON and the result cannot both be on standard output.
    let error = convert(path, &["d_cert.pem", "--to", "pem", "-o", "json"]).fails(2);
    assert!(error.contains("--out FILE"), "{error}");
    for arguments in [&["d_key.pem", "--to", "pem", "--out", "k"][..], &["d_key.pem", "--to", "der", "--out", "k.der"]]
    {
        convert(path, arguments).ok();
        assert_eq!(mode(&path.join(arguments[4])), 0o600);
    }
}

#[test]
fn private_key_and_binary_data_are_not_printed_on_a_terminal() {
    let lab = lab();
    let path = lab.path();
    for arguments in ["d_key.pem --to pem --out -", "d_cert.pem --to der"] {
        let command = format!("{} cert convert {arguments}", env!("CARGO_BIN_EXE_iot-enroll"));
        let mut script = Command::new("script");
        script.current_dir(path).args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
        let output = match script.output() {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => return crate::skipped("there is no script"),
            Err(error) => panic!("script could not be run: {error}"),
        };
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains("not printed on a terminal") && !shown.contains("-----BEGIN"), "{shown}");
    }
}

#[test]
fn existing_files_are_kept() {
    let lab = lab();
    let path = lab.path();
    fs::write(path.join("mine"), "mine").expect("written");
    let error = convert(path, &["d_key.pem", "--to", "pem", "--out", "mine"]).fails(1);
    assert!(error.contains("mine already exists") && error.contains("--force") && !error.contains("--dir"), "{error}");
    assert_eq!(text(path, "mine"), "mine");
    fs::set_permissions(path.join("mine"), fs::Permissions::from_mode(0o644)).expect("a mode");
    convert(path, &["d_key.pem", "--to", "pem", "--out", "mine", "--force"]).ok();
    assert_eq!((text(path, "mine"), mode(&path.join("mine"))), (text(path, "d_key.pem"), 0o600));
    // A part would overwrite the whole, also through a link.
    symlink("d_fullchain.pem", path.join("link")).expect("a link");
    for out in ["d_fullchain.pem", "./d_fullchain.pem", "link"] {
        let error =
            convert(path, &["d_fullchain.pem", "--to", "pem", "--only", "leaf", "--out", out, "--force"]).fails(2);
        assert!(error.contains("would overwrite the input d_fullchain.pem"), "{error}");
    }
    // A link is replaced and its target kept.
    fs::write(path.join("target"), "mine").expect("written");
    symlink("target", path.join("other")).expect("a link");
    convert(path, &["d_key.pem", "--to", "pem", "--out", "other"]).fails(1);
    convert(path, &["d_key.pem", "--to", "pem", "--out", "other", "--force"]).ok();
    assert_eq!((text(path, "target").as_str(), mode(&path.join("other"))), ("mine", 0o600));
    fs::create_dir(path.join("directory")).expect("created");
    let error = convert(path, &["d_key.pem", "--to", "pem", "--out", "directory", "--force"]).fails(1);
    assert!(error.contains("directory is a directory"), "{error}");
    let names: Vec<_> = fs::read_dir(path).expect("read").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
}

#[test]
fn passwords_come_from_files_and_the_environment() {
    let lab = lab();
    let path = lab.path();
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        Run::of(program(path).args(["cert", "convert"]).args(arguments).envs(variables.iter().copied()))
    };
    // The password of the input is also that of the result, unless a new one is given.
    let pfx = [("IOT_ENROLL_PFX_PASSWORD", "secret")];
    with(&pfx, &["d.pfx", "--to", "pfx", "--out", "same.pfx"]).ok();
    with(&pfx, &["same.pfx", "--to", "pem", "--only", "leaf"]).ok();
    let both = [pfx[0], ("IOT_ENROLL_NEW_PASSWORD", "other")];
    with(&both, &["d.pfx", "--to", "pfx", "--out", "new.pfx"]).ok();
    with(&pfx, &["new.pfx", "--to", "pem", "--only", "leaf"]).fails(1);
    with(&[("IOT_ENROLL_PFX_PASSWORD", "other")], &["new.pfx", "--to", "pem", "--only", "leaf"]).ok();
    let run = convert(path, &["d_fullchain.pem", "d_key.pem", "--to", "pfx", "--out", "default.pfx"]);
    assert!(run.stderr.contains("the default, 1234"), "{}", run.stderr);
    run.ok();

    let new = [("IOT_ENROLL_NEW_PASSWORD", "other")];
    with(&new, &["d_key.pem", "--to", "pem", "--out", "encrypted.pem"]).ok();
    assert!(text(path, "encrypted.pem").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let error = convert(path, &["encrypted.pem", "--to", "pem", "--out", "x"]).fails(1);
    assert!(error.contains("--key-password-file"), "{error}");
    let run = with(&[("IOT_ENROLL_KEY_PASSWORD", "other")], &["encrypted.pem", "--to", "pem", "--out", "plain.pem"]);
    assert!(run.stderr.contains("no longer encrypted"), "{}", run.stderr);
    run.ok();
    assert_eq!(text(path, "plain.pem"), text(path, "d_key.pem"));
    // Certificates take no password, so the variable is ignored.
    with(&new, &["d_cert.pem", "--to", "p7b"]).ok();
    with(&[("IOT_ENROLL_NEW_PASSWORD", "")], &["d_key.pem", "--to", "pem", "--out", "empty.pem"]).ok();
    assert_eq!(text(path, "empty.pem"), text(path, "d_key.pem"), "an empty variable is not set");
    let error = convert(path, &["d_key.pem", "--to", "pem", "--new-password", "hunter2", "--out", "x"]).fails(2);
    assert!(error.contains("--new-password-file FILE") && !error.contains("hunter2"), "{error}");
}

#[test]
fn option_without_effect_is_wrong_usage() {
    let lab = lab();
    for (to, option) in [
        ("pem", &["--name", "x"][..]),
        ("c-header", &["--namespace", "x"]),
        ("c-header", &["--nvs-blob"]),
        ("p7b", &["--key-format", "sec1"]),
        ("p7b", &["--new-password-file", "password"]),
        ("truststore", &["--pfx-legacy"]),
    ] {
        let error = convert(lab.path(), &[&["d_cert.pem", "--to", to][..], option].concat()).fails(2);
        assert!(error.contains(option[0]), "{error}");
    }
    convert(lab.path(), &["d_cert.pem", "--to", "c-header", "--name", "1x"]).fails(2);
    convert(lab.path(), &["d_cert.pem"]).fails(2);
    convert(lab.path(), &["--to", "pem"]).fails(2);
}

#[test]
fn result_is_described_as_json() {
    let lab = lab();
    let path = lab.path();
    let mut command = program(path);
    command.args([
        "cert",
        "convert",
        "-",
        "--to",
        "c-header",
        "--out",
        "d.h",
        "-o",
        "json",
        "--pfx-password-file",
        "password",
    ]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let pfx = fs::read(path.join("d.pfx")).expect("a PFX file");
    child.stdin.take().expect("a pipe").write_all(&pfx).expect("written");
    let found = Run::ended(child.wait_with_output().expect("it ends")).json();
    assert_eq!((&found["file"], &found["format"]), (&"d.h".into(), &"c-header".into()));
    assert_eq!(found["holdsPrivateKey"], true);
    assert_eq!(found["certificates"].as_array().map(Vec::len), Some(3));
    let thumbprint = cert(path, &["thumbprint", "d_cert.pem"]).ok();
    assert_eq!(found["certificates"][0]["sha1Thumbprint"], thumbprint.trim());
}

#[test]
fn only_regular_files_are_replaced() {
    let lab = lab();
    let path = lab.path();
    make_pipe(&path.join("pipe"));
    symlink("pipe", path.join("to-pipe")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).expect("a socket");
    // As /dev/stdout leads to an open file, which may be a regular one. A run as root must not touch those of the system.
    symlink("/proc/self/fd/1", path.join("stdout")).expect("a link");
    symlink("/dev/null", path.join("null")).expect("a link");
    for out in ["pipe", "to-pipe", "socket", "stdout", "null"] {
        for force in [&[][..], &["--force"]] {
            let kind = fs::symlink_metadata(path.join(out)).expect("there").file_type();
            let error = convert(path, &[&["d_key.pem", "--to", "pem", "--out", out][..], force].concat()).fails(2);
            assert!(error.contains(&format!("{out} is not a regular file")), "{error}");
            assert!(error.contains("--out -") && !error.contains("--force"), "{error}");
            assert_eq!(fs::symlink_metadata(path.join(out)).expect("there").file_type(), kind, "{out} {force:?}");
        }
    }
    // The files of a set are replaced in the same way, and a pipe is not waited for.
    for (name, arguments) in [
        ("e_cert.pem", &["device", "e"][..]),
        ("e_key.pem", &["device", "e"]),
        ("edge/config.toml", &["edge", "edge", "--hostname", "edge"]),
        ("edge/trust_bundle.pem", &["edge", "edge", "--hostname", "edge"]),
    ] {
        let file = path.join(name);
        fs::create_dir_all(file.parent().expect("a directory")).expect("created");
        make_pipe(&file);
        for force in [&[][..], &["--force"]] {
            let error = cert(path, &[arguments, force].concat()).fails(1);
            assert!(error.contains(&format!("{name} is not a regular file")) && !error.contains("--force"), "{error}");
        }
        fs::remove_file(&file).expect("removed");
    }
    let man = path.join("iot-enroll.1");
    make_pipe(&man);
    let error = Run::of(program(path).args(["man", ".", "--force"])).fails(1);
    assert!(error.contains("iot-enroll.1 is not a regular file"), "{error}");
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn what_cannot_be_a_password_is_refused() {
    let lab = lab();
    let path = lab.path();
    fs::write(path.join("controls"), "a\tb\n").expect("written");
    fs::copy(path.join("d_key.pem"), path.join("key-as-password")).expect("copied");
    for (arguments, reason) in [
        (&["d_key.pem", "--to", "pem", "--new-password-file", "controls"][..], "control character"),
        (&["root_cert.pem", "--to", "truststore", "--new-password-file", "controls"], "control character"),
        (&["d_key.pem", "--to", "pem", "--new-password-file", "key-as-password"], "holds PEM"),
        (&["d.pfx", "--to", "pem", "--pfx-password-file", "key-as-password"], "holds PEM"),
    ] {
        let error = convert(path, &[arguments, &["--out", "out"]].concat()).fails(1);
        assert!(error.contains(reason), "{error}");
        assert!(!path.join("out").exists());
    }
    let error = cert(path, &["device", "n", "--pfx-password-file", "controls"]).fails(1);
    assert!(error.contains("control character") && !path.join("n_key.pem").exists(), "{error}");
    let error =
        convert(path, &["root_cert.pem", "factory_cert.pem", "d_key.pem", "--to", "pem", "--out", "out"]).fails(1);
    assert!(error.contains("does not belong to the certificate CN=") && error.contains(" or CN="), "{error}");
}
