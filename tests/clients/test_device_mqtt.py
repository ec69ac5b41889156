"""The device SDK for Python, over MQTT on TCP and on WebSocket: which devices it registers, and which are refused."""

import base64
import concurrent.futures
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import select
import socket
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

from azure.iot.device import X509, ProvisioningDeviceClient, ProxyOptions
from azure.iot.device.exceptions import ClientError
import socks

EMULATOR = json.loads(os.environ["IOT_ENROLL_EMULATOR"])
HOST = "127.0.0.1"
ID_SCOPE = EMULATOR["idScope"]
CA = pathlib.Path(EMULATOR["caFile"]).read_text()
TRANSPORTS = {"TCP": False, "WebSocket": True}
# The SDK waits 2 s before each poll, so registrations run side by side.
POOL = concurrent.futures.ThreadPoolExecutor(16)


class Proxy:
    """An HTTP proxy, through which the SDK reaches the ports of the emulator: it always connects to 8883 or 443."""

    def __init__(self):
        https = urllib.parse.urlsplit(EMULATOR["endpoint"])
        host, port = EMULATOR["mqtt"].split(":")
        self.targets = {f"{HOST}:8883": (host, int(port)), f"{HOST}:443": (https.hostname, https.port)}
        self.listener = socket.create_server((HOST, 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def options(self):
        return ProxyOptions(proxy_type=socks.HTTP, proxy_addr=HOST, proxy_port=self.listener.getsockname()[1])

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.connect, args=(client,), daemon=True).start()

    def connect(self, client):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        with client, socket.create_connection(self.targets[head.split()[1].decode()]) as server:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            others = {client: server, server: client}
            with contextlib.suppress(OSError):
                while True:
                    for source in select.select([client, server], [], [])[0]:
                        received = source.recv(65536)
                        if not received:
                            return
                        others[source].sendall(received)


PROXY = Proxy()


def setUpModule():
    global DIRECTORY
    temporary = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(temporary.cleanup)
    unittest.addModuleCleanup(POOL.shutdown)
    DIRECTORY = temporary.name


def iot_enroll(*words):
    """Runs a command of iot-enroll in the directory of the certificates. Returns its JSON document."""
    environment = {**os.environ, "IOT_ENROLL_ENDPOINT": EMULATOR["endpoint"], "IOT_ENROLL_TOKEN": EMULATOR["token"]}
    command = [os.environ["IOT_ENROLL_PROGRAM"], *words, "--quiet", "-o", "json"]
    run = subprocess.run(command, cwd=DIRECTORY, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def at_application(*words):
    return iot_enroll(*words, "--tls-ca", EMULATOR["caFile"], "--rate", "1000000")


def enroll(group, root):
    """Creates a root, and enrolls it in a group."""
    at_application("provision", "--group", group, "--root", root)


def certificate(id, root):
    """Issues the certificate of a device, as the SDK takes it."""
    files = iot_enroll("cert", "device", id, root, "--no-pfx")
    return X509(*(str(pathlib.Path(DIRECTORY, files[name])) for name in ["fullchain", "privateKey"]))


def symmetric_group(group):
    """Creates a group with symmetric keys. Returns its primary key."""
    at_application("enrollment-group", "create", group, "--attestation", "symmetric-key")
    shown = at_application("enrollment-group", "show", group, "--show-keys")
    return shown["attestation"]["symmetricKey"]["primaryKey"]


def derived(key, id):
    digest = hmac.new(base64.b64decode(key), id.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def register(id, credential, websockets, id_scope=ID_SCOPE):
    """Registers a device by a certificate or a key."""
    options = dict(server_verification_cert=CA, websockets=websockets, proxy_options=PROXY.options())
    if isinstance(credential, X509):
        client = ProvisioningDeviceClient.create_from_x509_certificate(HOST, id, id_scope, credential, **options)
    else:
        client = ProvisioningDeviceClient.create_from_symmetric_key(HOST, id, id_scope, credential, **options)
    return client.register()


class Registration(unittest.TestCase):
    def over_each_transport(self, id, credential, **more):
        """Registers a device over each transport at once. Returns what they come to."""
        for name, websockets in TRANSPORTS.items():
            number = f"{id}-{name.lower()}"
            yield name, number, POOL.submit(register, number, credential(number), websockets, **more)

    def assert_assigned(self, id, credential):
        for name, number, future in list(self.over_each_transport(id, credential)):
            with self.subTest(transport=name):
                result = future.result()
                self.assertEqual(result.status, "assigned")
                self.assertEqual(result.registration_state.device_id, number)
                self.assertRegex(result.registration_state.assigned_hub, r"\.azure-devices\.net$")
                self.assertTrue(at_application("device", "show", number)["provisioned"])

    def assert_refused(self, id, credential, status=401, **more):
        for name, _, future in list(self.over_each_transport(id, credential, **more)):
            with self.subTest(transport=name):
                with self.assertRaises(ClientError) as raised:
                    future.result()
                self.assertIn(f"status code {status}", str(raised.exception.__cause__))

    def test_a_device_of_a_verified_ca_is_assigned(self):
        enroll("verified", "Verified Root")
        self.assert_assigned("certified", lambda id: certificate(id, "Verified Root"))

    def test_a_key_derived_from_the_key_of_a_group_is_accepted_and_no_other(self):
        key = symmetric_group("symmetric")
        self.assert_assigned("derived", lambda id: derived(key, id))
        self.assert_refused("other-key", lambda id: derived(key, "another"))

    def test_a_device_of_a_ca_that_no_group_has_is_refused(self):
        iot_enroll("cert", "root", "Unknown Root", "--no-pfx")
        self.assert_refused("unknown", lambda id: certificate(id, "Unknown Root"))

    def test_a_certificate_for_another_registration_id_is_refused(self):
        enroll("other-name", "Other Name Root")
        self.assert_refused("registration", lambda id: certificate(f"another-{id}", "Other Name Root"))

    def test_a_device_of_a_disabled_group_is_refused(self):
        enroll("disabled", "Disabled Root")
        at_application("enrollment-group", "update", "disabled", "--enabled", "false")
        self.assert_refused("disabled", lambda id: certificate(id, "Disabled Root"))

    def test_an_unknown_id_scope_is_refused(self):
        key = base64.b64encode(b"no key of a group").decode()
        self.assert_refused("nowhere", lambda id: derived(key, id), status=404, id_scope="0ne00000000")

    def test_a_server_of_an_unknown_root_is_not_trusted(self):
        root = iot_enroll("cert", "root", "Not the Server's Root", "--no-pfx")
        for name, websockets in TRANSPORTS.items():
            with self.subTest(transport=name):
                options = dict(server_verification_cert=pathlib.Path(DIRECTORY, root["certificate"]).read_text())
                client = ProvisioningDeviceClient.create_from_symmetric_key(
                    HOST, "distrusting", ID_SCOPE, "a2V5", websockets=websockets, proxy_options=PROXY.options(), **options
                )
                with self.assertRaises(ClientError) as raised:
                    client.register()
                self.assertEqual(type(raised.exception.__cause__).__name__, "TlsExchangeAuthError")


if __name__ == "__main__":
    # The SDK warns of its own use of the library.
    unittest.main(verbosity=2, warnings="ignore")
