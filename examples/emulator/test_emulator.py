"""Starts the emulator, uses it as a program under test would, and asserts on what it was asked.

    python3 examples/emulator/test_emulator.py
"""

import json
import os
import pathlib
import subprocess
import unittest
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = os.environ.get("IOT_ENROLL_PROGRAM", "iot-enroll")
VERSION = "api-version=2022-07-31"


def rename(endpoint, token, device_id, name):
    """The code under test: renames a device, and tries again once if the service fails."""
    request = urllib.request.Request(
        f"{endpoint}/api/devices/{device_id}?{VERSION}",
        method="PATCH",
        data=json.dumps({"displayName": name}).encode(),
        headers={"Authorization": token, "Content-Type": "application/merge-patch+json"},
    )
    for attempt in range(2):
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503 or attempt == 1:
                    raise


class Devices(unittest.TestCase):
    def setUp(self):
        arguments = ["emulator", "--import", str(HERE / "seeds.json"), "--rate", "1000", "--fault", "503,method=PATCH"]
        self.process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(self.stop)
        # It serves once it has printed this line.
        first_line = json.loads(self.process.stdout.readline())
        self.endpoint, self.token = first_line["endpoint"], first_line["token"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def requests(self, query):
        """Returns what the emulator was asked."""
        request = urllib.request.Request(
            f"{self.endpoint}/__admin/requests?{query}", headers={"Authorization": self.token}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["requests"]

    def test_a_device_is_renamed_although_the_service_fails_once(self):
        device = rename(self.endpoint, self.token, "thermostat-1", "Kitchen")
        self.assertEqual(device["displayName"], "Kitchen")
        asked = self.requests("path=/api/devices/thermostat-1")
        self.assertEqual([request["response"]["status"] for request in asked], [503, 200])
        self.assertEqual(asked[1]["body"], {"displayName": "Kitchen"})
        self.assertEqual(asked[1]["headers"]["authorization"], "(redacted)")


if __name__ == "__main__":
    unittest.main(verbosity=2)
