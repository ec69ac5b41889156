//! `device`, `device-group` and `deployment-manifest`, against the emulator of the program.

use std::{fs, path::Path};

use crate::support::service::{Service, directory, keys};
use crate::support::{Run, authority_fixture, program};
use iot_enroll::certificate::Certificate;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A service and a directory.
struct Lab {
    service: Service,
    directory: TempDir,
}

impl Lab {
    fn start() -> Self {
        Self { service: Service::start(), directory: directory() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.service.run(self.path(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.service.json(self.path(), arguments)
    }

    fn people(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Runs a command that must fail, and returns its error.
    fn fails(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.stdout, "", "a failure is no result");
        run.fails(1)
    }

    fn write(&self, name: &str, content: &Value) -> String {
        fs::write(self.path().join(name), content.to_string()).expect("written");
        name.to_owned()
    }

    /// Returns the IDs in a list.
    fn ids(&self, arguments: &[&str]) -> Vec<String> {
        let listed = self.json(arguments);
        listed.as_array().expect("a list").iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Imports this number of devices, `d000` and up.
    fn fill(&self, count: usize) {
        let rows: String = (0..count).map(|number| format!("d{number:03},Name {:03}\n", count - number)).collect();
        fs::write(self.path().join("fill.csv"), format!("IOTC_DEVICEID,IOTC_DEVICENAME\n{rows}")).expect("written");
        self.people(&["device", "import", "--file", "fill.csv"]);
    }
}

fn without_etag(mut value: Value) -> Value {
    let etag = value.as_object_mut().expect("an object").remove("etag");
    assert!(etag.is_some_and(|etag| etag.is_string()), "the service gives an etag");
    value
}

fn etag(value: &Value) -> &str {
    value["etag"].as_str().expect("an etag")
}

fn fixture(name: &str) -> String {
    authority_fixture(name).display().to_string()
}

fn thumbprint(file: &str) -> String {
    Certificate::read(&fs::read(file).expect("read")).expect("a certificate").sha1_thumbprint().to_string()
}

#[test]
fn device_commands_of_the_article_work() {
    let lab = Lab::start();
    let template = "dtmi:contoso:Thermostat;1";
    let create = ["device", "create", "thermostat1", "--display-name", "CheckoutThermostat", "--template", template];
    let created = lab.json(&[&create[..], &["--simulated"]].concat());
    let article = json!({
        "id": "thermostat1", "displayName": "CheckoutThermostat", "simulated": true, "provisioned": false,
        "template": template, "enabled": true,
    });
    assert_eq!(without_etag(created.clone()), article);
    assert_eq!(lab.json(&["device", "show", "thermostat1"]), created);
    let shown = lab.people(&["device", "show", "thermostat1"]);
    for part in ["thermostat1", "CheckoutThermostat", template, "simulated", etag(&created)] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let credentials = lab.json(&["device", "credentials", "thermostat1", "--show-keys"]);
    assert_eq!(keys(&credentials), ["idScope", "symmetricKey"]);
    assert_eq!(credentials["idScope"], lab.service.first_line["idScope"]);
    assert_eq!(keys(&credentials["symmetricKey"]), ["primaryKey", "secondaryKey"]);

    let updated = lab.json(&["device", "update", "thermostat1", "--display-name", "CheckoutThermostat5"]);
    let mut expected = article;
    expected["displayName"] = json!("CheckoutThermostat5");
    assert_eq!(without_etag(updated), expected);

    lab.people(&[
        "device",
        "create",
        "5jcwskdwbm",
        "--display-name",
        "Thermostat - 5jcwskdwbm",
        "--template",
        template,
    ]);
    let listed = lab.json(&["device", "list"]);
    let listed: Vec<_> = listed.as_array().expect("a list").iter().cloned().map(without_etag).collect();
    let other = json!({
        "id": "5jcwskdwbm", "displayName": "Thermostat - 5jcwskdwbm", "simulated": false, "provisioned": false,
        "template": template, "enabled": true,
    });
    assert_eq!(listed, [other, expected]);
    let table = lab.people(&["device", "list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("ID "), "{table}");

    assert_eq!(
        lab.json(&["device", "delete", "thermostat1", "--yes"]),
        json!({ "id": "thermostat1", "deleted": true })
    );
    let error = lab.fails(&["device", "show", "thermostat1"]);
    assert!(error.contains("404") && error.contains("GET devices/thermostat1"), "{error}");
    assert!(lab.fails(&["device", "delete", "thermostat1", "--yes"]).contains("404"));
}

#[test]
fn filters_and_orders_of_the_article_work() {
    let lab = Lab::start();
    for (id, name) in [("a", "thermostat2"), ("b", "RS40 Occupancy Sensor"), ("c", "thermostat1"), ("d", "thermostat3")]
    {
        lab.people(&["device", "create", id, "--display-name", name]);
    }
    let list = |arguments: &[&str]| lab.ids(&[&["device", "list"], arguments].concat());
    assert_eq!(list(&["--top", "2"]), ["a", "b"]);
    assert_eq!(list(&["--filter", "contains(displayName, 'thermostat')"]), ["a", "c", "d"]);
    assert_eq!(list(&["--filter", "contains(displayName, 'thermostat')", "--top", "2"]), ["a", "c"]);
    assert_eq!(list(&["--filter", "contains(displayName, 'thermostat') lt 0"]), ["b"]);
    assert_eq!(list(&["--filter", "id eq 'b' or id eq 'd' and enabled eq true"]), ["b", "d"]);
    assert_eq!(list(&["--order-by", "displayName"]), ["b", "c", "a", "d"]);
    assert_eq!(list(&["--order-by", "displayName desc"]), ["d", "a", "c", "b"]);
    // The parameters of the preview have other names.
    assert_eq!(list(&["--api-version", "2022-10-31-preview", "--order-by", "displayName", "--top", "1"]), ["b"]);
}

#[test]
fn list_follows_pages_up_to_top() {
    let lab = Lab::start();
    lab.fill(150);
    let all: Vec<_> = (0..150).map(|number| format!("d{number:03}")).collect();
    let list = |arguments: &[&str]| lab.ids(&[&["device", "list"], arguments].concat());
    assert_eq!(list(&[]), all);
    assert_eq!(list(&["--top", "149"]), all[..149]);
    assert_eq!(list(&["--top", "0"]), [""; 0]);
    assert!(lab.run(&["device", "list", "--top", "-1"]).fails(2).contains("0 or more"));
    // The names are in the reverse order of the IDs.
    let by_name = list(&["--order-by", "displayName", "--filter", "enabled eq true"]);
    assert!(by_name.iter().rev().eq(&all), "{by_name:?}");
    lab.people(&["device-group", "create", "g", "--filter", "SELECT * FROM devices WHERE $enabled = true"]);
    assert_eq!(lab.ids(&["device-group", "devices", "g"]), all);
    assert_eq!(lab.ids(&["device-group", "devices", "g", "--top", "120"]), all[..120]);
}

#[test]
fn invalid_filter_is_reported_with_its_position() {
    let lab = Lab::start();
    let error = lab.fails(&["device", "list", "--filter", "displayName eq 'a' nor enabled eq true"]);
    assert!(error.contains("answered 400") && error.contains("at character 20"), "{error}");
    let query = "SELECT * FROM devices WHERE $colour = true";
    let error = lab.fails(&["device-group", "create", "g", "--filter", query]);
    assert!(error.contains("at character 29") && error.contains("colour"), "{error}");
    lab.run(&["device", "list", "--order-by", "id"]).fails(2);
}

#[test]
fn create_takes_flags_or_a_file() {
    let lab = Lab::start();
    let flags = [
        "--display-name",
        "Name",
        "--template",
        "dtmi:a:B;1",
        "--disabled",
        "--simulated",
        "--organization",
        "seattle",
        "--organization",
        "redmond",
    ];
    let by_flags = lab.json(&[&["device", "create", "d"], &flags[..]].concat());
    let body = json!({
        "displayName": "Name", "template": "dtmi:a:B;1", "enabled": false, "simulated": true,
        "organizations": ["seattle", "redmond"],
    });
    let file = lab.write("device.json", &body);
    let by_file = lab.json(&["device", "create", "d2", "--file", &file]);
    let mut expected = body;
    expected["id"] = json!("d");
    expected["provisioned"] = json!(false);
    assert_eq!(without_etag(by_flags), expected);
    expected["id"] = json!("d2");
    assert_eq!(without_etag(by_file), expected);
    let edge = ["device", "create", "edge", "--type", "iot-edge", "--api-version", "2022-10-31-preview"];
    assert_eq!(lab.json(&edge)["type"], json!(["iotEdge"]));

    lab.run(&["device", "create", "d3", "--file", &file, "--simulated"]).fails(2);
    for (name, content) in
        [("list", json!([])), ("field", json!({ "displayname": "n" })), ("kind", json!({ "enabled": 1 }))]
    {
        let file = lab.write(name, &content);
        assert!(lab.fails(&["device", "create", "d3", "--file", &file]).contains(name), "{name}");
    }
    assert!(lab.fails(&["device", "create", "d3", "--file", "missing.json"]).contains("missing.json"));
    assert!(lab.fails(&["device", "show", "d3"]).contains("404"), "nothing was sent");
}

#[test]
fn create_overwrites_only_with_force_or_etag() {
    let lab = Lab::start();
    let first = lab.json(&["device", "create", "d", "--display-name", "First", "--simulated"]);
    let error = lab.fails(&["device", "create", "d", "--display-name", "Second"]);
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    assert_eq!(lab.json(&["device", "show", "d"]), first);
    let second = lab.json(&["device", "create", "d", "--display-name", "Second", "--force"]);
    assert_eq!((&second["displayName"], &second["simulated"]), (&json!("Second"), &json!(false)));
    let error = lab.fails(&["device", "create", "d", "--display-name", "Third", "--etag", etag(&first)]);
    assert!(error.contains("412") && error.contains("read it again"), "{error}");
    assert_eq!(lab.json(&["device", "show", "d"]), second);
    lab.people(&["device", "create", "d", "--display-name", "Third", "--etag", etag(&second)]);
}

#[test]
fn update_changes_only_given_values() {
    let lab = Lab::start();
    let create =
        ["device", "create", "d", "--display-name", "Name", "--template", "dtmi:a:B;1", "--organization", "seattle"];
    let mut expected = without_etag(lab.json(&create));
    for (arguments, field, value) in [
        (&["--enabled", "false"][..], "enabled", json!(false)),
        (&["--simulated", "true"], "simulated", json!(true)),
        (&["--template", "dtmi:a:C;1"], "template", json!("dtmi:a:C;1")),
        (&["--display-name", "Änderung"], "displayName", json!("Änderung")),
        (&["--organizations", "seattle, redmond"], "organizations", json!(["seattle", "redmond"])),
        (&["--clear-template"], "template", Value::Null),
        (&["--organizations", ""], "organizations", Value::Null),
    ] {
        match value {
            Value::Null => drop(expected.as_object_mut().expect("an object").remove(field)),
            value => expected[field] = value,
        }
        let updated = lab.json(&[&["device", "update", "d"], arguments].concat());
        assert_eq!(without_etag(updated), expected, "{arguments:?}");
    }
    let file = lab.write("patch.json", &json!({ "template": "dtmi:a:D;1", "enabled": true }));
    let updated = lab.json(&["device", "update", "d", "--file", &file]);
    assert_eq!((&updated["template"], &updated["enabled"]), (&json!("dtmi:a:D;1"), &json!(true)));
    assert_eq!(updated["displayName"], "Änderung");
    let file = lab.write("patch.json", &json!({ "template": null }));
    assert_eq!(lab.json(&["device", "update", "d", "--file", &file]).get("template"), None);
    for nothing in [json!({}), json!({ "etag": "x" })] {
        let file = lab.write("patch.json", &nothing);
        assert!(lab.fails(&["device", "update", "d", "--file", &file]).contains("nothing"));
    }
    lab.run(&["device", "update", "d"]).fails(2);
    lab.run(&["device", "update", "d", "--template", "dtmi:a:B;1", "--clear-template"]).fails(2);
}

#[test]
fn etag_mismatch_is_explained() {
    let lab = Lab::start();
    fs::write(lab.path().join("manifest.json"), r#"{ "modulesContent": {} }"#).expect("written");
    for (resource, more) in [
        ("device", &[][..]),
        ("device-group", &["--filter", "SELECT * FROM devices"]),
        ("deployment-manifest", &["--file", "manifest.json"]),
    ] {
        let first = lab.json(&[&[resource, "create", "x"], more].concat());
        let update = |name, etag| lab.run(&[resource, "update", "x", "--display-name", name, "--etag", etag]);
        update("Second", etag(&first)).ok();
        let refused = update("Third", etag(&first));
        assert_eq!(refused.stdout, "");
        let error = refused.fails(1);
        assert!(error.contains("412") && error.contains("read it again"), "{resource}: {error}");
        let now = lab.json(&[resource, "show", "x"]);
        assert_eq!(now["displayName"], "Second", "{resource}");
        update("Third", etag(&now)).ok();
    }
}

#[test]
fn keys_are_hidden_by_default() {
    let lab = Lab::start();
    let hidden = |arguments: &[&str], secrets: &[&str]| {
        for format in [&[][..], &["-o", "json"], &["-vv"]] {
            let run = lab.run(&[arguments, format].concat());
            for secret in secrets {
                assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{arguments:?} {format:?}");
            }
            run.ok();
        }
    };
    lab.people(&["device", "create", "d"]);
    let shown = lab.json(&["device", "credentials", "d", "--show-keys"]);
    let key = shown["symmetricKey"]["primaryKey"].as_str().expect("a key");
    assert!(key.len() > 40 && lab.people(&["device", "credentials", "d", "--show-keys"]).contains(key));
    hidden(&["device", "credentials", "d"], &[key]);

    let given = ["cHJpbWFyeXByaW1hcnlwcmltYXJ5", "c2Vjb25kYXJ5c2Vjb25kYXJ5"];
    fs::write(lab.path().join("keys"), given.join("\n")).expect("written");
    hidden(&["device", "attestation", "set", "d", "--keys-file", "keys"], &given);
    hidden(&["device", "attestation", "show", "d"], &given);
    let shown = lab.json(&["device", "attestation", "show", "d", "--show-keys"]);
    let keys = json!({ "primaryKey": given[0], "secondaryKey": given[1] });
    assert_eq!(shown, json!({ "type": "symmetricKey", "symmetricKey": keys }));
    hidden(&["device", "attestation", "update", "d", "--keys-file", "keys"], &given);
    hidden(&["device", "credentials", "d"], &given);

    let key = "AToAAQALAAMAsgAg";
    fs::write(lab.path().join("tpm"), key).expect("written");
    hidden(&["device", "attestation", "set", "d", "--endorsement-key-file", "tpm"], &[key]);
    hidden(&["device", "attestation", "show", "d"], &[key]);
    let shown = lab.json(&["device", "attestation", "show", "d", "--show-keys"]);
    assert_eq!(shown, json!({ "type": "tpm", "tpm": { "endorsementKey": key } }));

    fs::write(lab.path().join("keys"), "only-one\n").expect("written");
    let error = lab.fails(&["device", "attestation", "set", "d", "--keys-file", "keys"]);
    assert!(error.contains("2 lines") && !error.contains("only-one"), "{error}");
    fs::write(lab.path().join("tpm"), "").expect("written");
    let error = lab.fails(&["device", "attestation", "set", "d", "--endorsement-key-file", "tpm"]);
    assert!(error.contains("1 line,"), "{error}");
}

#[test]
fn certificate_attestation_is_set_shown_updated_and_deleted() {
    let lab = Lab::start();
    let attestation = |arguments: &[&str]| lab.json(&[&["device", "attestation"], arguments].concat());
    lab.people(&["device", "create", "d"]);
    assert!(lab.people(&["device", "attestation", "show", "d"]).contains("no individual attestation"));
    assert_eq!(attestation(&["show", "d"]), Value::Null);
    assert!(lab.fails(&["device", "attestation", "show", "nobody"]).contains("404"));
    let (one, two) = (fixture("ec-sec1_cert.pem"), fixture("ec-pkcs8_cert.pem"));
    let info = |file: &str| json!({ "info": { "sha1Thumbprint": thumbprint(file) } });
    let x509 = |certificates: Value| json!({ "type": "x509", "x509": { "clientCertificates": certificates } });
    let set = attestation(&["set", "d", "--certificate", &one]);
    assert_eq!(set, x509(json!({ "primary": info(&one) })));
    assert_eq!(attestation(&["show", "d"]), set);
    assert!(lab.people(&["device", "attestation", "show", "d"]).contains(&thumbprint(&one)));
    let both = attestation(&["update", "d", "--secondary-certificate", &two]);
    assert_eq!(both, x509(json!({ "primary": info(&one), "secondary": info(&two) })));
    let credentials = lab.json(&["device", "credentials", "d"]);
    assert_eq!(credentials["x509"], both["x509"]);
    assert_eq!(attestation(&["update", "d", "--clear-secondary-certificate"]), set);
    let changed = attestation(&["update", "d", "--certificate", &two]);
    assert_eq!(changed, x509(json!({ "primary": info(&two) })));
    assert_eq!(attestation(&["delete", "d", "--yes"]), json!({ "id": "d", "deleted": true }));
    assert!(lab.fails(&["device", "attestation", "delete", "d", "--yes"]).contains("404"));
    let made = attestation(&["set", "d", "--symmetric-key"]);
    assert_eq!(made, json!({ "type": "symmetricKey" }));
    lab.run(&["device", "attestation", "update", "d", "--symmetric-key"]).fails(2);
    lab.run(&["device", "attestation", "set", "d", "--symmetric-key", "--certificate", &one]).fails(2);
    for nothing in ["set", "update"] {
        let error = lab.run(&["device", "attestation", nothing, "d"]).fails(2);
        assert!(error.contains("--certificate") && error.contains("--keys-file"), "{error}");
    }
    assert!(lab.fails(&["device", "attestation", "set", "d", "--certificate", "missing.pem"]).contains("missing.pem"));
}

#[test]
fn device_group_commands_of_the_article_work() {
    let lab = Lab::start();
    let group = |arguments: &[&str]| lab.json(&[&["device-group"], arguments].concat());
    let query = r#"SELECT * FROM devices WHERE $template = "dtmi:modelDefinition:dtdlv2" AND $provisioned = true"#;
    let article = json!({
        "id": "group1", "displayName": "Device group 1", "description": "Custom device group.", "filter": query,
        "organizations": ["seattle"],
    });
    let about = ["--description", "Custom device group.", "--organization", "seattle", "--filter", query];
    let create = [&["create", "group1", "--display-name", "Device group 1"], &about[..]].concat();
    assert_eq!(without_etag(group(&create)), article);
    assert_eq!(without_etag(group(&["show", "group1"])), article);
    let error = lab.fails(&[&["device-group"], &create[..]].concat());
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    let mut expected = article;
    expected["displayName"] = json!("New group name");
    let updated = group(&["update", "group1", "--display-name", "New group name"]);
    assert_eq!(without_etag(updated), expected);
    let cleared = group(&["update", "group1", "--clear-description", "--organizations", ""]);
    assert_eq!(keys(&cleared), ["displayName", "etag", "filter", "id"]);

    let shown = lab.write("shown.json", &cleared);
    let again = group(&["create", "group1", "--file", &shown]);
    assert_eq!(without_etag(again.clone()), without_etag(cleared));
    for stale in [&["create", "group1", "--file", &shown][..], &["update", "group1", "--file", &shown]] {
        assert!(lab.fails(&[&["device-group"], stale].concat()).contains("412"));
    }
    group(&["create", "group1", "--filter", query, "--description", "x", "--etag", etag(&again)]);
    let patch = lab.write("patch.json", &json!({ "description": null, "displayName": "File" }));
    let patched = group(&["update", "group1", "--file", &patch]);
    assert_eq!((&patched["displayName"], patched.get("description")), (&json!("File"), None));
    for wrong in
        [json!({ "displayName": "n" }), json!({ "filter": null }), json!([]), json!({ "id": "g", "filter": "f" })]
    {
        let file = lab.write("wrong.json", &wrong);
        assert!(lab.fails(&["device-group", "create", "new", "--file", &file]).contains("wrong.json"), "{wrong}");
    }
    lab.run(&["device-group", "create", "new"]).fails(2);

    lab.people(&["device", "create", "a", "--template", "dtmi:modelDefinition:dtdlv2"]);
    lab.people(&["device", "create", "b"]);
    assert_eq!(lab.ids(&["device-group", "devices", "group1"]), [""; 0], "neither has connected");
    let query = r#"SELECT * FROM devices WHERE $template = "dtmi:modelDefinition:dtdlv2""#;
    group(&["update", "group1", "--filter", query]);
    assert_eq!(lab.ids(&["device-group", "devices", "group1"]), ["a"]);
    group(&["create", "group2", "--filter", "SELECT * FROM devices"]);
    assert_eq!(lab.ids(&["device-group", "list"]), ["group1", "group2"]);
    assert_eq!(lab.ids(&["device-group", "list", "--top", "1"]), ["group1"]);
    assert!(lab.people(&["device-group", "list"]).contains(query));
    assert_eq!(group(&["delete", "group1", "--yes"]), json!({ "id": "group1", "deleted": true }));
    for gone in ["show", "delete", "devices"] {
        let confirmed = if gone == "delete" { &["--yes"][..] } else { &[] };
        assert!(lab.fails(&[&["device-group", gone, "group1"], confirmed].concat()).contains("404"), "{gone}");
    }
}

#[test]
fn deployment_manifests_are_stored_and_assigned() {
    let lab = Lab::start();
    let manifest = |arguments: &[&str]| lab.json(&[&["deployment-manifest"], arguments].concat());
    let content = json!({ "modulesContent": { "$edgeAgent": { "properties.desired": { "schemaVersion": "1.1" } } } });
    let file = lab.write("deployment.json", &content);
    let create = ["create", "m", "--display-name", "Cameras", "--file", &file, "--organization", "seattle"];
    let created = manifest(&create);
    let expected = json!({ "id": "m", "displayName": "Cameras", "data": content, "organizations": ["seattle"] });
    assert_eq!(without_etag(created.clone()), expected);
    assert_eq!(manifest(&["show", "m"]), created);
    assert!(lab.people(&["deployment-manifest", "show", "m"]).contains("modulesContent"));
    let error = lab.fails(&[&["deployment-manifest"], &create[..]].concat());
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    let renamed = manifest(&["update", "m", "--display-name", "Second"]);
    assert_eq!((&renamed["displayName"], &renamed["data"]), (&json!("Second"), &content));
    let patch = lab.write("patch.json", &json!({ "modulesContent": { "camera": {} } }));
    let patched = manifest(&["update", "m", "--file", &patch]);
    assert_eq!(keys(&patched["data"]["modulesContent"]), ["$edgeAgent", "camera"]);
    let body = lab.write("body.json", &json!({ "displayName": "Copy", "data": patched["data"] }));
    assert_eq!(manifest(&["create", "copy", "--file", &body])["data"], patched["data"]);
    assert_eq!(lab.ids(&["deployment-manifest", "list"]), ["copy", "m"]);
    assert_eq!(lab.ids(&["deployment-manifest", "list", "--top", "1"]), ["copy"]);

    lab.people(&["device", "create", "gateway", "--type", "iot-edge"]);
    lab.people(&["device", "create", "sensor"]);
    let assigned = json!({ "device": "gateway", "assigned": true });
    assert_eq!(manifest(&["assign", "m", "--device", "gateway"]), assigned);
    assert_eq!(manifest(&["assign", "--file", &file, "--device", "gateway"]), assigned);
    let error = lab.fails(&["deployment-manifest", "assign", "m", "--device", "sensor"]);
    assert!(error.contains("sensor") && error.contains("Edge"), "{error}");
    assert!(lab.fails(&["deployment-manifest", "assign", "m", "--device", "nobody"]).contains("404"));
    assert!(lab.fails(&["deployment-manifest", "assign", "nothing", "--device", "gateway"]).contains("404"));
    lab.run(&["deployment-manifest", "assign", "--device", "gateway"]).fails(2);
    lab.run(&["deployment-manifest", "assign", "m", "--file", &file, "--device", "gateway"]).fails(2);
    assert_eq!(manifest(&["delete", "m", "--yes"]), json!({ "id": "m", "deleted": true }));
    assert!(lab.fails(&["deployment-manifest", "delete", "m", "--yes"]).contains("404"));
}

#[test]
fn manifest_file_can_be_the_request_body() {
    let lab = Lab::start();
    let manifest = |arguments: &[&str]| lab.json(&[&["deployment-manifest"], arguments].concat());
    let content = json!({ "modulesContent": { "camera": {} } });
    let body = json!({ "id": "m", "displayName": "Cameras", "data": content, "organizations": ["seattle"] });
    let file = lab.write("body.json", &body);
    let created = manifest(&["create", "m", "--file", &file]);
    assert_eq!(without_etag(created.clone()), body);
    // Options override the members of the file.
    let flags = ["--display-name", "Flag", "--organization", "redmond", "--force"];
    let replaced = manifest(&[&["create", "m", "--file", &file], &flags[..]].concat());
    assert_eq!((&replaced["displayName"], &replaced["organizations"]), (&json!("Flag"), &json!(["redmond"])));
    // The output of show can be used as the file until the manifest changes.
    let shown = lab.write("shown.json", &replaced);
    let again = manifest(&["create", "m", "--file", &shown]);
    assert_eq!(without_etag(again.clone()), without_etag(replaced));
    for stale in [&["create", "m", "--file", &shown][..], &["update", "m", "--file", &shown]] {
        assert!(lab.fails(&[&["deployment-manifest"], stale].concat()).contains("412"));
    }
    let renamed = lab.write("name.json", &json!({ "displayName": "File", "etag": again["etag"] }));
    let updated = manifest(&["update", "m", "--file", &renamed]);
    assert_eq!((&updated["displayName"], &updated["data"]), (&json!("File"), &content));

    for (wrong, why) in [
        (json!({ "data": null }), "data is null"),
        (json!({ "data": [] }), "data must be an object"),
        (json!({ "data": {}, "modulesContent": {} }), "unknown member \"modulesContent\""),
        (json!({ "displayName": "n" }), "no data"),
        (json!({ "data": {}, "id": "other" }), "other"),
        (json!([]), "JSON object"),
        (json!({}), "empty"),
    ] {
        let file = lab.write("wrong.json", &wrong);
        let error = lab.fails(&["deployment-manifest", "create", "n", "--file", &file]);
        assert!(error.contains("wrong.json") && error.contains(why), "{wrong}: {error}");
        if !why.contains("no data") {
            lab.fails(&["deployment-manifest", "update", "m", "--file", &file]);
        }
    }
    assert_eq!(manifest(&["show", "m"]), updated);
    assert_eq!(lab.ids(&["deployment-manifest", "list"]), ["m"]);
}

#[test]
fn api_version_without_manifests_is_refused() {
    let lab = Lab::start();
    let error = lab.run(&["deployment-manifest", "list", "--api-version", "2022-07-31"]).fails(2);
    assert!(error.contains("2022-10-31-preview"), "{error}");
    assert_eq!(lab.ids(&["deployment-manifest", "list", "--api-version", "2022-10-31-preview"]), [""; 0]);
}

#[test]
fn output_of_show_is_accepted_as_a_file() {
    let lab = Lab::start();
    lab.people(&["device", "create", "d", "--display-name", "Name", "--type", "iot-edge"]);
    let shown = lab.json(&["device", "show", "d", "--api-version", "2022-10-31-preview"]);
    assert_eq!((&shown["type"], &shown["provisioned"]), (&json!(["iotEdge"]), &json!(false)));
    let file = lab.write("shown.json", &shown);
    let marked = [b"\xef\xbb\xbf", fs::read(lab.path().join(&file)).expect("read").as_slice()].concat();
    fs::write(lab.path().join(&file), marked).expect("written");
    let mut etag = shown["etag"].clone();
    for command in ["create", "update"] {
        let mut given = shown.clone();
        given["etag"] = etag;
        let given = lab.write("given.json", &given);
        let piped = fs::File::open(lab.path().join(given)).expect("opened");
        let arguments = ["device", command, "d", "--file", "-", "-o", "json"];
        let run = Run::of(lab.service.command(lab.path(), &arguments).stdin(piped));
        assert!(run.stderr.contains("provisioned"), "{}", run.stderr);
        let now = run.json();
        etag = now["etag"].clone();
        assert_eq!((&now["displayName"], &now["type"]), (&json!("Name"), &json!(["iotEdge"])));
        let stale = lab.fails(&["device", command, "d", "--file", &file]);
        assert!(stale.contains("412"), "{stale}");
        let error = lab.fails(&["device", command, "other", "--file", &file]);
        assert!(error.contains("shown.json") && error.contains("other"), "{error}");
    }
    let gone = lab.write("patch.json", &json!({ "type": [] }));
    assert_eq!(lab.json(&["device", "update", "d", "--file", &gone]).get("type"), None);
}

#[test]
fn null_is_only_accepted_in_merge_patches() {
    let lab = Lab::start();
    let before = lab.json(&["device", "create", "d", "--organization", "seattle"]);
    for (command, member) in [
        ("update", "enabled"),
        ("update", "simulated"),
        ("update", "organizations"),
        ("update", "etag"),
        ("update", "type"),
        ("create", "enabled"),
        ("create", "displayName"),
    ] {
        let file = lab.write("null.json", &json!({ member: null, "template": "dtmi:a:B;1" }));
        let error = lab.fails(&["device", command, "d", "--file", &file]);
        assert!(error.contains(&format!("{member} is null")), "{error}");
    }
    let list = lab.write("list.json", &json!(["Name", null, null, null, null, null, null]));
    for command in ["create", "update"] {
        assert!(lab.fails(&["device", command, "d", "--file", &list]).contains("JSON object"));
    }
    assert_eq!(lab.json(&["device", "show", "d"]), before);
}

#[test]
fn device_names_cannot_control_the_terminal() {
    let lab = Lab::start();
    let name = "a\n\x1b[1m\x1b[32mb\x1b[8m\u{85}\u{2066}";
    let file = lab.write("name.json", &json!({ "displayName": name }));
    lab.people(&["device", "create", "d", "--file", &file]);
    for command in [&["device", "show", "d"][..], &["device", "list"]] {
        let shown = lab.people(&[command, &["--color", "always"]].concat());
        for foreign in ["a\n", "\x1b[32m", "\x1b[8m", "\u{85}", "\u{2066}"] {
            assert!(!shown.contains(foreign), "{shown:?}");
        }
    }
    let run = lab.run(&["device", "show", "d", "-o", "json"]);
    assert!(!run.stdout.contains(['\u{85}', '\u{2066}']), "{:?}", run.stdout);
    assert_eq!(run.json()["displayName"], name);
}

#[test]
fn unusual_id_stays_one_path_segment() {
    let lab = Lab::start();
    let odd = "plant 7/sensor";
    for arguments in [
        &["device", "show", odd][..],
        &["device", "create", odd],
        &["device", "delete", odd, "--yes"],
        &["device", "credentials", odd],
        &["device", "attestation", "show", odd],
    ] {
        let error = lab.fails(arguments);
        // The emulator answers 404 if the slash separates path segments.
        assert!(error.contains("answered 400") && error.contains(odd), "{arguments:?}: {error}");
    }
    for unusable in ["", ".", "..", "a\nb"] {
        lab.run(&["device", "show", unusable]).fails(2);
    }
}

#[test]
fn emulator_injects_faults_from_the_command_line() {
    let service = Service::with(&["--rate", "1000000", "--fault", "404,method=GET,path=/devices,times=2"]);
    let directory = directory();
    for _ in 0..2 {
        assert!(service.run(directory.path(), &["device", "list"]).fails(1).contains("a fault was injected"));
    }
    assert_eq!(service.json(directory.path(), &["device", "list"]), json!([]));
    let service =
        Service::with(&["--rate", "1000000", "--fault", "close-after,method=PUT", "--fault", "503,path=/devices"]);
    let created = service.json(directory.path(), &["device", "create", "d", "--force"]);
    assert_eq!(service.json(directory.path(), &["device", "list"]), json!([created]));

    for (spec, position) in [("40,method=PUT", 1), ("503,methd=PUT", 5), ("delay=soon", 7), ("503,times=0", 11)] {
        let error = Run::of(program(directory.path()).args(["emulator", "--fault", spec])).fails(2);
        assert!(error.contains(&format!("at character {position}")), "{spec}: {error}");
    }
}

#[test]
fn emulator_listens_on_localhost_and_notes_an_unusable_token() {
    let service = Service::with(&["--listen", "localhost:0"]);
    assert!(service.endpoint.starts_with("http://127.0.0.1:"), "{}", service.endpoint);
    let directory = directory();
    let error = Run::of(program(directory.path()).args(["emulator", "--listen", "nowhere"])).fails(2);
    assert!(error.contains("127.0.0.1:8080"), "{error}");
    // It notes the token, then fails because the address is in use.
    let taken = service.endpoint.trim_start_matches("http://");
    for (token, warned) in
        [("topsecret", true), ("SharedAccessSignature sr=a&sig=topsecret&skn=b&se=4102444800000", false)]
    {
        let error = Run::of(program(directory.path()).args(["emulator", "--token", token, "--listen", taken])).fails(1);
        assert_eq!(error.contains("note"), warned, "{error}");
        assert!(!error.contains("topsecret"), "{error}");
    }
}
