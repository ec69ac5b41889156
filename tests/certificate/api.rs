//! The conversions, accessors and option types of the public API.

use std::{collections::HashSet, fs, time::Duration};

use iot_enroll::certificate::{
    AuthorityError, Certificate, CertificateAuthority, ChainError, CommonName, DeviceId, DeviceIssuer, IssueOptions,
    Lifetime, NameError, PrivateKey, ReadError, Thumbprint, Timestamp,
    files::{FileError, FileSet},
    fleet::{FleetError, read_manifest},
    pfx,
};

use crate::support::{DAY, authority_fixture};

/// 2030-05-17T12:30:45Z.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_905_251_445).expect("a time");

fn name(text: &str) -> CommonName {
    CommonName::new(text).expect("a name")
}

fn root() -> CertificateAuthority {
    let root = CertificateAuthority::new_root(&name("Root"), &IssueOptions::new().at(NOW)).expect("a root");
    root.into_authority(NOW).expect("an authority")
}

#[test]
fn options_that_were_created_long_ago_issue_certificates_that_are_valid_now() {
    let options = IssueOptions::new().lifetime(Lifetime::Days(1));
    std::thread::sleep(Duration::from_millis(1_100));
    let before = Timestamp::from_unix_seconds(Timestamp::now().unix_seconds()).expect("a time");
    let root = CertificateAuthority::new_root(&name("Root"), &options).expect("a root");
    let ends = root.certificate.not_after();
    assert!(ends >= before + DAY, "the lifetime counts from the call, not from the options: {ends}");
    let root = root.into_authority(options.issue_time()).expect("an authority");
    let device = root.issue_device(&"d".parse().expect("an ID"), &options).expect("a device");
    assert!(!device.certificate.is_expired());
    // A fixed time stays: these options issue certificates that have expired since.
    let fixed = options.at("2020-01-01T00:00:00Z".parse().expect("a time"));
    let expired = CertificateAuthority::new_root(&name("Root"), &fixed).expect("a root").certificate;
    assert!(expired.is_expired());
    assert_eq!(expired.not_after().to_string(), "2020-01-02T00:00:00Z");
}

#[test]
fn an_issuer_of_many_certificates_stops_when_they_would_have_expired() {
    // The CA, and so each of its certificates, expires in two to three seconds: its end has no fractions.
    let early = Timestamp::now() - DAY + Duration::from_secs(3);
    let options = IssueOptions::new().lifetime(Lifetime::Days(1));
    let root = CertificateAuthority::new_root(&name("Root"), &options.at(early)).expect("a root");
    let root = root.into_authority(early).expect("an authority");
    let issuer = DeviceIssuer::new(&root, &options).expect("the CA is valid");
    let fixed = DeviceIssuer::new(&root, &options.at(early)).expect("the CA is valid");
    let id: DeviceId = "d".parse().expect("an ID");
    while !root.certificate().is_expired() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = issuer.issue(&id).expect_err("it would have expired");
    assert!(matches!(&refused, AuthorityError::Invalid { error, .. } if matches!(**error, ChainError::Expired { .. })));
    assert!(fixed.issue(&id).is_ok(), "the caller chose the time");
}

#[test]
fn the_validity_has_both_ends() {
    let certificate = root().certificate().clone();
    let validity = certificate.validity();
    assert_eq!((validity.not_before, validity.not_after), (certificate.not_before(), certificate.not_after()));
    let second = Duration::from_secs(1);
    for (time, is_valid, is_expired) in [
        (validity.not_before - second, false, false),
        (validity.not_before, true, false),
        (validity.not_after, true, false),
        (validity.not_after + second, false, true),
    ] {
        assert_eq!(validity.contains(time), is_valid, "{time}");
        assert_eq!(certificate.is_expired_at(time), is_expired, "{time}");
    }
    assert_eq!(validity.to_string(), "2030-05-17 12:25:45 UTC to 2040-05-17 12:30:45 UTC");
    assert_eq!(validity.not_after.to_string(), "2040-05-17T12:30:45Z");
}

#[test]
fn certificates_are_read_from_pem_and_from_slices() {
    let bytes = fs::read(authority_fixture("ec-sec1_cert.pem")).expect("read");
    let certificate = Certificate::read(&bytes).expect("a certificate");
    assert_eq!(Certificate::try_from(&bytes[..]), Ok(certificate.clone()));
    assert_eq!(Certificate::try_from(certificate.der()), Ok(certificate.clone()));
    assert_eq!(Certificate::from_pem(certificate.to_pem()), Ok(certificate.clone()));
    assert_eq!(Certificate::from_pem(format!("a comment\n{}", certificate.to_pem())), Ok(certificate.clone()));
    // DER is not PEM, and a key is not a certificate.
    assert!(matches!(Certificate::from_pem(certificate.der()), Err(ReadError::NoCertificate(_))));
    let key = fs::read(authority_fixture("ec-sec1_key.pem")).expect("read");
    assert!(matches!(Certificate::from_pem(&key), Err(ReadError::NoCertificate(_))));
    assert_eq!(Certificate::from_pem(""), Err(ReadError::Empty));
    assert_eq!(certificate.to_string(), "CN=EC SEC1");
    let set: HashSet<_> = [certificate.clone(), certificate].into();
    assert_eq!(set.len(), 1);
}

#[test]
fn the_names_and_usages_of_a_server_certificate_can_be_read() {
    let root = root();
    let options = IssueOptions::new().at(NOW);
    let server = root.issue_server(&name("s"), &["gateway.example", "192.0.2.1"], &options).expect("a server");
    let names = server.certificate.subject_alternative_names().expect("names").iter().map(ToString::to_string);
    assert_eq!(names.collect::<Vec<_>>(), ["DNS:gateway.example", "IP:192.0.2.1"]);
    assert_eq!(server.certificate.extended_key_usage_names(), Some(vec!["serverAuth"]));
    assert!(!server.certificate.allows_client_authentication());
    let refused = root.issue_server(&name("s"), &["ä.example"], &options).expect_err("not ASCII");
    assert_eq!(refused.to_string(), "\"ä.example\" is neither a DNS name nor an IP address");
}

#[test]
fn an_authority_is_read_from_pem() {
    let root = root();
    let intermediate = root.issue_intermediate(&name("Line"), &IssueOptions::new().at(NOW)).expect("issued");
    let key = intermediate.key.to_pem().expect("PEM");
    let authority = CertificateAuthority::from_pem(intermediate.fullchain_pem(), &*key, NOW).expect("an authority");
    assert_eq!(authority.certificate(), &intermediate.certificate);
    assert_eq!(authority.issuers(), [root.certificate().clone()]);
    // Both in one text.
    let both = format!("{}{}", intermediate.fullchain_pem(), &*key);
    assert!(CertificateAuthority::from_pem(&both, &both, NOW).is_ok());
    let error = CertificateAuthority::from_pem("", &*key, NOW).expect_err("no certificate");
    assert!(error.to_string().contains("the certificate of the CA"), "{error}");
    assert!(CertificateAuthority::from_pem(root.certificate().to_pem(), "", NOW).is_err());
}

#[test]
fn an_issued_certificate_is_saved_as_four_files_or_none() {
    let directory = crate::support::temporary_directory();
    let device =
        root().issue_device(&"sensor-1".parse().expect("an ID"), &IssueOptions::new().at(NOW)).expect("issued");
    let files = device.save(directory.path()).expect("saved");
    assert_eq!(files, FileSet::new(directory.path(), &name("sensor-1")).expect("names"));
    assert_eq!(fs::read_to_string(files.fullchain()).expect("read"), device.fullchain_pem());
    let key = PrivateKey::read(&fs::read(files.private_key()).expect("read"), None).expect("a key");
    assert!(key.belongs_to(&device.certificate));
    let pfx = pfx::read(&fs::read(files.pfx()).expect("read"), pfx::DEFAULT_PASSWORD).expect("opens");
    assert_eq!(pfx.first(), Some(&device.certificate));
    #[cfg(unix)]
    for secret in [files.private_key(), files.pfx()] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(secret).expect("a file").mode() & 0o777, 0o600);
    }
    assert!(matches!(device.save(directory.path()), Err(FileError::Exists(existing)) if existing.len() == 4));
}

#[test]
fn names_ids_and_thumbprints_convert_from_and_to_text() {
    let id = DeviceId::try_from("sensor-1").expect("an ID");
    assert_eq!(("sensor-1".parse(), DeviceId::try_from("sensor-1".to_owned())), (Ok(id.clone()), Ok(id.clone())));
    assert_eq!(
        (id.as_ref(), id.to_string().as_str(), String::from(id.clone()).as_str()),
        ("sensor-1", "sensor-1", "sensor-1")
    );
    assert!(matches!(DeviceId::try_from("-"), Err(NameError::Character { position: 1, .. })));
    assert!(CommonName::try_from("").is_err());
    let thumbprint = Thumbprint::sha1(b"certificate");
    let (upper, lower) = (format!("{thumbprint:X}"), format!("{thumbprint:x}"));
    assert_eq!((upper.as_str(), upper.to_lowercase()), (thumbprint.to_string().as_str(), lower.clone()));
    assert!(thumbprint == *upper && thumbprint == lower.as_str() && thumbprint != "another");
    assert_eq!((thumbprint.as_ref(), Thumbprint::try_from(lower.as_str())), (thumbprint.as_bytes(), Ok(thumbprint)));
    // serde keeps the rule of each type.
    let json = serde_json::to_string(&(&id, name("A name"), thumbprint)).expect("JSON");
    assert_eq!(json, format!("[\"sensor-1\",\"A name\",\"{upper}\"]"));
    let read: (DeviceId, CommonName, Thumbprint) = serde_json::from_str(&json).expect("the same");
    assert_eq!(read, (id, name("A name"), thumbprint));
    assert!(serde_json::from_str::<DeviceId>("\"a b\"").is_err());
    assert!(serde_json::from_str::<Thumbprint>("\"00\"").is_err());
}

#[test]
fn the_columns_of_a_manifest_are_found_by_name() {
    let directory = crate::support::temporary_directory();
    let path = directory.path().join("manifest.csv");
    let devices = |text: &str| {
        fs::write(&path, text).expect("written");
        read_manifest(&path).map(Iterator::collect::<Vec<_>>)
    };
    // Another order, another column, another case, and a name with a comma and quotes.
    let text = "\u{feff}fullchain,IOTC_DEVICENAME,site,PRIVATEKEY,iotc_deviceid\r\n\
                0000/a_fullchain.pem,\"A, \"\"the first\"\"\",here,0000/a_key.pem,a\r\n\
                0000/b_fullchain.pem,b,,,b\r\n";
    let read = devices(text).expect("a manifest");
    let [Ok(device)] = &read[..] else { panic!("b keeps its own key: {read:?}") };
    assert_eq!(device.id.as_str(), "a");
    assert_eq!(device.fullchain, directory.path().join("0000/a_fullchain.pem"));
    assert_eq!(device.private_key, directory.path().join("0000/a_key.pem"));
    let reason = |error: &FleetError| match error {
        FleetError::Manifest { reason, .. } => reason.clone(),
        other => panic!("expected an error of the manifest, found {other}"),
    };
    let error = devices("IOTC_DEVICEID,privateKey\n").expect_err("a column is missing");
    assert!(reason(&error).contains("fullchain"), "{error}");
    let text = "IOTC_DEVICEID,privateKey,fullchain\na,k.pem\nb c,k.pem,f.pem\nd,k.pem,f.pem\n";
    let read = devices(text).expect("a header");
    let [Err(short), Err(no_id), Ok(_)] = &read[..] else { panic!("{read:?}") };
    assert!(reason(short).contains("line 2"), "{short}");
    assert!(reason(no_id).contains("line 3"), "{no_id}");
    assert!(devices("").expect("an empty file").is_empty());
}
