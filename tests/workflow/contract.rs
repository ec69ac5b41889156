//! Client and emulator exchange only what the API's description allows.

use std::{collections::BTreeSet, num::NonZeroUsize};

use crate::support::{
    clock::ManualClock,
    lab::{Lab, group_id, new_root},
    openapi::OpenApi,
    proxy::Proxy,
};
use iot_enroll::{
    central::{
        ApiVersion, Authorization, CertificateEntry, Client, DeviceType, Endpoint, EnrollmentGroupId,
        EnrollmentGroupUpdate, NewAttestation, NewEnrollmentGroup, Possession, SymmetricKeys,
    },
    certificate::{CertificateAuthority, CommonName, IssueOptions, Timestamp},
    emulator::Emulator,
    workflow::provision,
};

/// A lab whose client speaks through a proxy.
struct Watched {
    lab: Lab,
    proxy: Proxy,
}

impl Watched {
    async fn start() -> Self {
        let page = NonZeroUsize::new(2).expect("not zero");
        let emulator = Emulator::builder().page_size(page).start().await.expect("a free loopback port");
        let lab = Lab { emulator, directory: crate::support::temporary_directory() };
        let proxy = Proxy::start(lab.emulator.address());
        Self { lab, proxy }
    }

    fn client(&self, token: &str) -> Client {
        Client::builder(self.proxy.url().parse::<Endpoint>().expect("an endpoint"))
            .authorization(Authorization::parse(token.to_owned()).expect("a token"))
            .clock(ManualClock::new())
            .build()
            .expect("a client")
    }

    /// Checks every exchange against the description. Returns the operations and statuses that were seen.
    fn held(&self) -> BTreeSet<String> {
        let api = OpenApi::load();
        let exchanges = self.proxy.exchanges();
        assert_eq!(exchanges.len(), self.lab.emulator.requests().len(), "everything went through the proxy");
        let mut seen = BTreeSet::new();
        for (request, response) in exchanges {
            let (method, target) = (&request.method, &request.target);
            let sent = api.check_request(method, target, request.header("content-type"), &request.body);
            assert_eq!(sent, Ok(()), "{method} {target}");
            let headers: Vec<_> =
                response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answered = api.check_response(method, target, response.status, &headers, &response.body);
            assert_eq!(answered, Ok(()), "{method} {target}: {}", String::from_utf8_lossy(&response.body));
            let path = target.split('?').next().unwrap_or_default().trim_start_matches("/api/enrollmentGroups");
            let template: Vec<_> =
                path.split('/').enumerate().map(|(n, it)| if n == 1 { "{id}" } else { it }).collect();
            seen.insert(format!("{method} {} {}", template.join("/"), response.status));
        }
        seen
    }
}

#[tokio::test]
async fn the_whole_provisioning_keeps_to_the_description() {
    for (attest, replace) in [(false, false), (true, false), (false, true)] {
        let watched = Watched::start().await;
        let (lab, client) = (&watched.lab, watched.client(watched.lab.emulator.token()));
        let request = lab
            .request()
            .display_name("Größe \"1\" \\ ☃".to_owned())
            .device_type(DeviceType::IotEdge)
            .skip_proof(attest)
            .replace(replace);
        if replace {
            let groups = client.enrollment_groups();
            let new = NewEnrollmentGroup::x509("Mine").device_type(DeviceType::IotEdge);
            groups.create(&group_id(), &new).await.expect("created");
            let theirs = new_root("theirs").certificate;
            groups
                .set_certificate(&group_id(), CertificateEntry::Primary, &theirs, Possession::Attested, None)
                .await
                .expect("set");
        }
        let report = provision(&client, &request, &mut |_| ()).await.expect("provisioned");
        assert!(report.verified);
        provision(&client, &request, &mut |_| ()).await.expect("provisioned already");
        let seen = watched.held();
        assert!(seen.contains("PUT /{id}/certificates/primary 200"), "{seen:?}");
        assert_eq!(seen.contains("POST /{id}/certificates/primary/verify 204"), !attest, "{seen:?}");
    }
}

#[tokio::test]
async fn every_call_about_enrollment_groups_keeps_to_the_description() {
    let watched = Watched::start().await;
    let client = watched.client(watched.lab.emulator.token());
    let groups = client.enrollment_groups();
    let id = |text: &str| text.parse::<EnrollmentGroupId>().expect("an id");
    let (g, primary) = (id("myx509eg"), CertificateEntry::Primary);

    let created = groups.create(&g, &NewEnrollmentGroup::x509("My group")).await.expect("created");
    let update = EnrollmentGroupUpdate::default()
        .display_name("My new group name".to_owned())
        .enabled(false)
        .device_type(DeviceType::IotEdge)
        .attestation(NewAttestation::X509)
        .etag(created.etag.clone());
    groups.update(&g, &update).await.expect("updated");
    assert_eq!(groups.update(&g, &update).await.expect_err("changed since").status(), Some(412));
    let keys = SymmetricKeys { primary_key: "A".repeat(64).into(), secondary_key: "B".repeat(64).into() };
    for (name, keys) in [("made", None), ("given", Some(keys))] {
        let attestation = NewAttestation::SymmetricKey(keys);
        groups.create(&id(name), &NewEnrollmentGroup::x509(name).attestation(attestation)).await.expect("created");
        groups.get(&id(name)).await.expect("found");
    }
    let listed: Vec<_> = groups.list().try_collect().await.expect("listed");
    assert_eq!(listed.len(), 3, "on two pages");
    assert!(groups.find(&id("none")).await.expect("an answer").is_none());

    assert!(groups.certificate(&g, primary).await.expect_err("none yet").is_not_found());
    let root = new_root("mytestrootcert").into_authority(Timestamp::now()).expect("an authority");
    let set = groups.set_certificate(&g, primary, root.certificate(), Possession::ToBeProven, None).await.expect("set");
    groups
        .set_certificate(&g, primary, root.certificate(), Possession::ToBeProven, set.etag.as_ref())
        .await
        .expect("set again");
    let stale =
        groups.set_certificate(&g, primary, root.certificate(), Possession::ToBeProven, set.etag.as_ref()).await;
    assert_eq!(stale.expect_err("changed since").status(), Some(412));
    let other = new_root("other").certificate;
    groups.set_certificate(&g, CertificateEntry::Secondary, &other, Possession::Attested, None).await.expect("set");
    let proof = |root: &CertificateAuthority, code: String| {
        let code = CommonName::new(code).expect("a common name");
        root.issue_verification(&code, &IssueOptions::default()).expect("a proof").certificate
    };
    let wrong = groups.verify_certificate(&g, primary, &proof(&root, "CODE".to_owned())).await;
    assert_eq!(wrong.expect_err("no code yet").status(), Some(422));
    let code = groups.generate_verification_code(&g, primary).await.expect("a code").code;
    groups.verify_certificate(&g, primary, &proof(&root, code)).await.expect("verified");
    assert!(groups.certificate(&g, primary).await.expect("set").verified);
    groups.get(&g).await.expect("found, with both certificates");
    groups.delete_certificate(&g, primary).await.expect("deleted");
    assert!(groups.delete_certificate(&g, primary).await.expect_err("gone").is_not_found());
    groups.delete(&g).await.expect("deleted");
    assert!(groups.delete(&g).await.expect_err("gone").is_not_found());
    let stranger = watched.client("SharedAccessSignature sr=app&sig=wrong&skn=ops&se=4102444800000");
    assert_eq!(stranger.enrollment_groups().get(&g).await.expect_err("unknown").status(), Some(401));

    let expected = [
        "DELETE /{id} 204",
        "DELETE /{id} 404",
        "DELETE /{id}/certificates/primary 204",
        "DELETE /{id}/certificates/primary 404",
        "GET  200",
        "GET /{id} 200",
        "GET /{id} 401",
        "GET /{id} 404",
        "GET /{id}/certificates/primary 200",
        "GET /{id}/certificates/primary 404",
        "PATCH /{id} 200",
        "PATCH /{id} 412",
        "POST /{id}/certificates/primary/generateVerificationCode 200",
        "POST /{id}/certificates/primary/verify 204",
        "POST /{id}/certificates/primary/verify 422",
        "PUT /{id} 200",
        "PUT /{id}/certificates/primary 200",
        "PUT /{id}/certificates/primary 412",
        "PUT /{id}/certificates/secondary 200",
    ];
    assert_eq!(watched.held().iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(client.api_version(), ApiVersion::default());
}
