"""The management SDK: what it has on the instance, its certificates and its keys."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.mgmt.iothubprovisioningservices import IotDpsClient
from azure.mgmt.iothubprovisioningservices.models import (
    CertificateProperties,
    CertificateResponse,
    OperationInputs,
    TagsResource,
    VerificationCodeRequest,
)

EMULATOR = json.loads(os.environ["IOT_ENROLL_EMULATOR"])
ARM, DPS = EMULATOR["arm"], EMULATOR["dps"]
GROUP, NAME = ARM["resourceGroup"], DPS["name"]


class Token:
    """A credential that always gives the same token."""

    def __init__(self, token):
        self.token = token.removeprefix("Bearer ")

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, int(time.time()) + 3600)


def client(token=ARM["token"], subscription=ARM["subscription"]):
    return IotDpsClient(Token(token), subscription, base_url=ARM["endpoint"], credential_scopes=["unused"], retry_total=0)


def iot_enroll(*words):
    """Runs a command of iot-enroll in the directory of the certificates. Returns its JSON document."""
    command = [os.environ["IOT_ENROLL_PROGRAM"], *words, "--quiet", "-o", "json"]
    return json.loads(subprocess.run(command, cwd=DIRECTORY, check=True, stdout=subprocess.PIPE).stdout)


def read(file):
    return pathlib.Path(DIRECTORY, file).read_bytes()


def root(name):
    """Creates a root. Returns its files."""
    return iot_enroll("cert", "root", name, "--no-pfx")


def properties(root):
    """Returns the certificate of a root, as it is uploaded."""
    return CertificateProperties(certificate=read(root["certificate"]))


def proof(root, code):
    """Signs a proof of possession with the key of a root. Returns the request that sends it."""
    files = ["--ca-cert", root["certificate"], "--ca-key", root["privateKey"]]
    signed = iot_enroll("cert", "verification", *files, "--code", code, "--no-pfx", "--force")
    return VerificationCodeRequest(certificate=read(signed["certificate"]).decode())


class Instance(unittest.TestCase):
    def test_is_found_and_read(self):
        instance = client().iot_dps_resource.get(NAME, GROUP)
        self.assertEqual(instance.name, NAME)
        self.assertEqual(instance.properties.id_scope, DPS["idScope"])
        self.assertEqual(instance.properties.state, "Active")
        self.assertTrue(instance.properties.iot_hubs)
        for listed in [
            client().iot_dps_resource.list_by_subscription(),
            client().iot_dps_resource.list_by_resource_group(GROUP),
        ]:
            self.assertIn(NAME, [instance.name for instance in listed])

    def test_another_one_is_not_found(self):
        with self.assertRaises(ResourceNotFoundError):
            client().iot_dps_resource.get("missing", GROUP)
        with self.assertRaises(HttpResponseError):
            client(subscription="00000000-0000-0000-0000-00000000ffff").iot_dps_resource.get(NAME, GROUP)

    def test_a_wrong_token_is_refused(self):
        with self.assertRaises(ClientAuthenticationError):
            client(token="no-token-of-the-emulator").iot_dps_resource.get(NAME, GROUP)

    def test_refuses_what_is_not_emulated_and_stays(self):
        resource = client().iot_dps_resource
        operations = {
            "begin_create_or_update": lambda: resource.begin_create_or_update(GROUP, "other", resource.get(NAME, GROUP)),
            "begin_update": lambda: resource.begin_update(GROUP, NAME, TagsResource(tags={"room": "12"})),
            "begin_delete": lambda: resource.begin_delete(NAME, GROUP),
            "check_name": lambda: resource.check_provisioning_service_name_availability(OperationInputs(name="other")),
            "list_valid_skus": lambda: list(resource.list_valid_skus(NAME, GROUP)),
            "list_private_link_resources": lambda: resource.list_private_link_resources(GROUP, NAME),
            "list_private_endpoint_connections": lambda: resource.list_private_endpoint_connections(GROUP, NAME),
            "operations": lambda: list(client().operations.list()),
        }
        for name, operation in operations.items():
            with self.subTest(name), self.assertRaises(HttpResponseError) as refused:
                operation()
            self.assertIn(refused.exception.status_code, [404, 405])
        self.assertEqual(resource.get(NAME, GROUP).properties.id_scope, DPS["idScope"])

    def test_has_keys(self):
        keys = {key.key_name: key for key in client().iot_dps_resource.list_keys(NAME, GROUP)}
        self.assertIn("provisioningserviceowner", keys)
        key = client().iot_dps_resource.list_keys_for_key_name(NAME, "provisioningserviceowner", GROUP)
        self.assertEqual(key.primary_key, keys["provisioningserviceowner"].primary_key)
        self.assertIn(f"SharedAccessKey={key.primary_key}", DPS["connectionString"])
        with self.assertRaises(ResourceNotFoundError):
            client().iot_dps_resource.list_keys_for_key_name(NAME, "nobody", GROUP)


class Certificates(unittest.TestCase):
    def setUp(self):
        self.certificates = client().dps_certificate

    def get(self, name):
        return self.certificates.get(name, GROUP, NAME)

    def condition(self, etag):
        return {"etag": etag, "match_condition": MatchConditions.IfNotModified}

    def put(self, name, properties, **condition):
        return self.certificates.create_or_update(GROUP, NAME, name, CertificateResponse(properties=properties), **condition)

    def test_are_proven_step_by_step(self):
        files = root("ProvenRoot")
        created = self.put("proven", properties(files))
        self.assertFalse(created.properties.is_verified)
        self.assertEqual(created.properties.subject, "CN=ProvenRoot")
        self.assertEqual(self.get("PROVEN").properties.certificate, read(files["certificate"]))

        code = self.certificates.generate_verification_code("proven", GROUP, NAME, **self.condition(created.etag))
        self.assertNotEqual(code.etag, created.etag)
        # The code made another etag.
        request = proof(files, code.properties.verification_code)
        with self.assertRaises(ResourceModifiedError):
            self.verify("proven", request, created.etag)
        verified = self.verify("proven", request, code.etag)
        self.assertTrue(verified.properties.is_verified)
        self.assertNotEqual(verified.etag, code.etag)
        self.assertTrue(self.get("proven").properties.is_verified)

    def verify(self, name, request, etag):
        return self.certificates.verify_certificate(name, GROUP, NAME, request, **self.condition(etag))

    def test_a_proof_by_another_key_is_refused(self):
        created = self.put("unproven", properties(root("UnprovenRoot")))
        code = self.certificates.generate_verification_code("unproven", GROUP, NAME, **self.condition(created.etag))
        request = proof(root("OtherRoot"), code.properties.verification_code)
        with self.assertRaises(HttpResponseError) as refused:
            self.verify("unproven", request, code.etag)
        self.assertEqual(refused.exception.status_code, 400)
        self.assertFalse(self.get("unproven").properties.is_verified)

    def test_can_be_verified_without_proof(self):
        attested = properties(root("AttestedRoot"))
        attested.is_verified = True
        self.assertTrue(self.put("attested", attested).properties.is_verified)

    def test_are_listed_replaced_and_deleted(self):
        first = self.put("replaced", properties(root("FirstRoot")))
        self.assertIn("replaced", [listed.name for listed in self.certificates.list(GROUP, NAME).value])

        second = self.put("replaced", properties(root("SecondRoot")), **self.condition(first.etag))
        self.assertEqual(second.properties.subject, "CN=SecondRoot")
        with self.assertRaises(ResourceModifiedError):
            self.put("replaced", properties(root("ThirdRoot")), **self.condition(first.etag))

        with self.assertRaises(ResourceModifiedError):
            self.certificates.delete(GROUP, NAME, "replaced", **self.condition(first.etag))
        self.certificates.delete(GROUP, NAME, "replaced", **self.condition(second.etag))
        with self.assertRaises(ResourceNotFoundError):
            self.get("replaced")

    def test_that_are_no_certificates_are_refused(self):
        with self.assertRaises(HttpResponseError) as refused:
            self.put("garbage", CertificateProperties(certificate=b"not a certificate"))
        self.assertEqual(refused.exception.status_code, 400)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        DIRECTORY = pathlib.Path(directory)
        unittest.main(verbosity=2, exit=True)
