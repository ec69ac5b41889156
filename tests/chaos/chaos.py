#!/usr/bin/env python3
"""Kills and races the built program against its own emulator.

Each round starts an emulator, half of the time with faults, kills the commands of one scenario at random moments, and then
runs them again. The first plain rerun has to succeed; with faults, which may strike the rerun as well, one of the first
four. Then the service and the files have to be in the right state. The race scenarios run eight commands at once, and
all have to succeed.

    tests/chaos/chaos.py --rounds 20 --seed 7
    tests/chaos/chaos.py --rounds 20 --scenario race
    tests/chaos/chaos.py --seconds 50

A failed round prints its seed, with which it can be repeated (--rounds 1 --seed SEED --scenario NAME), and keeps its
directory. The exit status is 1 if a round failed. Needs Python 3.8 and a Unix; no packages.
"""

import argparse
import concurrent.futures
import csv
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The faults a run recovers from by itself or reports; few, so that a round takes seconds.
FAULTS = ["503", "500", "429:retry-after=0", "429:retry-after=1", "close-before", "close-after", "truncate", "delay=200ms"]
# No run takes longer, unless it hangs.
TIMEOUT = 120


class Failure(Exception):
    """A round that did not end well."""


class Round:
    """One emulator, one directory, one source of chance."""

    def __init__(self, program, seed, directory):
        self.program, self.directory = program, directory
        self.random = random.Random(seed)
        self.log = []
        self.service = None
        self.has_faults = False
        self.at_dps = False
        self.first_line = {}

    def start(self, *, tls=False, faults=None, at_dps=False):
        """Starts the emulator. With TLS devices can register by certificate. The commands are for its application, or for its
        DPS instance."""
        self.at_dps = at_dps
        arguments = [self.program, "emulator", "--rate", "1000000"]
        arguments += ["--tls", "--retry-after", "0"] if tls else []
        if faults is None:
            faults = [self.fault() for _ in range(self.random.choice([0, 0, 1, 2]))]
        self.has_faults = bool(faults)
        for fault in faults:
            arguments += ["--fault", fault]
        self.log.append("$ " + " ".join(arguments[1:]))
        self.service = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=self.directory
        )
        self.first_line = json.loads(self.service.stdout.readline())

    def fault(self):
        kind = self.random.choice(FAULTS)
        options = self.random.choice(["", ",method=PUT", ",method=POST", ",method=GET", ",path=/certificates/"])
        return f"{kind}{options},times={self.random.randrange(1, 3)}"

    def stop(self):
        if self.service:
            self.service.kill()
            self.service.wait()
            self.service.stdout.close()

    def command(self, *arguments, service=True):
        command = [self.program, *arguments]
        if service:
            dps = ["--dps", self.first_line["dps"]["name"]]
            command += dps if self.at_dps else ["--endpoint", self.first_line["endpoint"]]
            command += ["--rate", "1000000"]
            if "caFile" in self.first_line:
                command += ["--ca-file", self.first_line["caFile"]]
        return command

    def dps(self):
        if self.at_dps:
            return []
        return ["--id-scope", self.first_line["idScope"], "--dps-endpoint", self.first_line["endpoint"]]

    def environment(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IOT_ENROLL_")}
        environment["IOT_ENROLL_TOKEN"] = self.first_line.get("token", "")
        if self.at_dps:
            environment["IOT_ENROLL_ARM_ENDPOINT"] = self.first_line["arm"]["endpoint"]
            environment["IOT_ENROLL_ARM_TOKEN"] = self.first_line["arm"]["token"]
        return environment

    def spawn(self, command):
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments, service=True, succeeds=True):
        """Runs a command to its end; its standard output."""
        process = self.spawn(self.command(*arguments, service=service))
        return self.finish(process, arguments, succeeds)

    def finish(self, process, arguments, succeeds=True):
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure(f"{' '.join(arguments)}: no end within {TIMEOUT} s")
        self.log.append(f"$ {' '.join(arguments)}\n{stdout}{stderr}-> {process.returncode}")
        if "panicked" in stderr:
            raise Failure(f"{' '.join(arguments)}: panicked: {stderr}")
        if succeeds and process.returncode != 0:
            raise Failure(f"{' '.join(arguments)}: exit status {process.returncode}: {stderr}")
        return stdout

    def rerun(self, *arguments):
        """Runs a command that was disturbed: it has to succeed, unless a fault that is left strikes it."""
        for left in reversed(range(4 if self.has_faults else 1)):
            try:
                return self.run(*arguments)
            except Failure:
                if left == 0:
                    raise

    def json(self, *arguments, service=True):
        return json.loads(self.run(*arguments, "-o", "json", service=service))

    def kill_within(self, seconds, *arguments, service=True):
        """Runs a command and kills it at a random moment, if it has not ended by then."""
        process = self.spawn(self.command(*arguments, service=service))
        try:
            process.wait(self.random.uniform(0.0, seconds))
        except subprocess.TimeoutExpired:
            pass
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        self.finish(process, ("(killed)", *arguments), succeeds=False)

    def together(self, commands):
        """Runs commands at the same time; all have to succeed."""
        processes = [self.spawn(self.command(*arguments)) for arguments in commands]
        with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
            ends = [pool.submit(self.finish, *pair) for pair in zip(processes, commands)]
            failures = [str(end.exception()) for end in ends if end.exception()]
        if failures:
            raise Failure(f"{len(failures)} of {len(commands)} at once failed: " + "; ".join(failures))

    def shell(self, text):
        """Runs a command as it was printed; its standard output."""
        programs = self.path(".bin")
        if not os.path.isdir(programs):
            os.mkdir(programs)
            os.symlink(self.program, os.path.join(programs, "iot-enroll"))
        environment = self.environment()
        environment["PATH"] = programs + os.pathsep + environment.get("PATH", "")
        done = subprocess.run(
            ["sh", "-c", text], cwd=self.directory, env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        self.log.append(f"$ {text}\n{done.stdout}{done.stderr}-> {done.returncode}")
        if done.returncode != 0:
            raise Failure(f"{text}: exit status {done.returncode}: {done.stderr}")
        return done.stdout

    def refused(self, *arguments):
        """Runs a command that has to fail."""
        process = self.spawn(self.command(*arguments))
        self.finish(process, arguments, succeeds=False)
        if process.returncode != 1:
            raise Failure(f"{' '.join(arguments)}: exit status {process.returncode}, expected 1")

    # What has to be true at the end of a round.

    def path(self, name):
        return os.path.join(self.directory, name)

    def thumbprint(self, file):
        return self.run("cert", "thumbprint", file, service=False).split()[0]

    def entry(self, group, entry):
        """The thumbprint that an entry holds and whether it is verified; None if it is empty."""
        if self.at_dps:
            references = self.json("dps", "enrollment-group", "show", group)["attestation"]["x509"]["caReferences"]
            if entry not in references:
                return None
            shown = self.json("dps", "certificate", "show", references[entry])["properties"]
            return shown["thumbprint"], shown["isVerified"]
        process = self.spawn(
            self.command("enrollment-group", "certificate", "show", group, "--entry", entry, "-o", "json")
        )
        stdout, _ = process.communicate(timeout=TIMEOUT)
        if process.returncode != 0:
            return None
        shown = json.loads(stdout)
        return shown["info"]["sha1Thumbprint"], shown["verified"]

    def check_entries(self, group, primary, secondary=None):
        """Each entry holds the verified root of that file, or nothing."""
        for entry, file in (("primary", primary), ("secondary", secondary)):
            expected = (self.thumbprint(file), True) if file else None
            found = self.entry(group, entry)
            if found != expected:
                raise Failure(f"{entry} of {group}: found {found}, expected {expected}")

    def check_retired(self, group, file):
        """Only that root is left. At DPS it is the primary one, because a group without one is not allowed."""
        entries = (file, None) if self.at_dps else (None, file)
        self.check_entries(group, *entries)

    def check_devices(self, count):
        """The application, or the instance, has so many devices."""
        devices = self.json("dps", "enrollment", "list") if self.at_dps else self.json("device", "list")
        if len(devices) != count:
            raise Failure(f"{len(devices)} devices, expected {count}")

    def check_device(self, chain, root):
        self.run("cert", "verify", chain, "--ca", root, service=False)

    def check_unchanged(self, *arguments):
        """A further run has nothing to do."""
        report = self.json(*arguments)
        changed = [step for step in report["steps"] if step["outcome"] != "unchanged" and step["step"] != "register"]
        if changed:
            raise Failure(f"{' '.join(arguments)}: a further run changed something: {changed}")

    def check_no_leftovers(self):
        for directory, directories, files in os.walk(self.directory):
            found = [name for name in directories + files if name.endswith((".tmp", ".commit"))]
            if found:
                raise Failure(f"left in {directory}: {found}")

    def check_manifest(self, manifest, count):
        with open(self.path(manifest), newline="") as file:
            rows = list(csv.DictReader(file))
        directory = os.path.dirname(self.path(manifest))
        if len(rows) != count or len({row["IOTC_DEVICEID"] for row in rows}) != count:
            raise Failure(f"{manifest} lists {len(rows)} devices, expected {count}")
        for row in rows:
            for column in ("certificate", "privateKey", "fullchain"):
                path = os.path.join(directory, row[column])
                if not os.path.isfile(path) or os.path.getsize(path) == 0:
                    raise Failure(f"{path} is missing or empty")
        return rows


PROVISION = ["provision", "--group", "g", "--root", "r", "--no-pfx"]


def provision(it, at_dps=False):
    """provision, killed up to three times."""
    it.start(at_dps=at_dps)
    arguments = [*PROVISION, "--device", "d1", "--device", "d2"]
    for _ in range(it.random.randrange(1, 4)):
        it.kill_within(0.6, *arguments)
    it.rerun(*arguments)
    it.check_entries("g", "r_cert.pem")
    for device in ("d1", "d2"):
        it.check_device(f"{device}_fullchain.pem", "r_cert.pem")
    it.check_unchanged(*arguments)
    it.check_no_leftovers()


def rollover(it, at_dps=False):
    """provision, then rollover and --retire, each killed; then the commands they print."""
    it.start(at_dps=at_dps)
    it.rerun(*PROVISION, "--device", "d1")
    rollover = ["rollover", "--group", "g", "--root", "next", "--device", "d1", "--no-pfx"]
    it.kill_within(0.6, *rollover)
    next_command = json.loads(it.rerun(*rollover, "-o", "json"))["next"]
    it.check_entries("g", "r_cert.pem", "next_cert.pem")
    it.kill_within(0.3, *rollover, "--retire", "--yes")
    next_command = json.loads(it.shell(f"{next_command} --yes -o json"))["next"]
    it.check_retired("g", "next_cert.pem")
    it.shell(next_command)
    it.check_retired("g", "next_cert.pem")
    it.check_device("next/d1_fullchain.pem", "next_cert.pem")
    # The old command does not bring the retired root back.
    it.refused(*PROVISION, "--device", "d1")
    it.check_retired("g", "next_cert.pem")
    it.check_no_leftovers()


def fleet(it):
    """cert fleet, killed, then resumed."""
    it.run("cert", "root", "r", "--no-pfx", service=False)
    arguments = ["cert", "fleet", "r", "--count", "1200", "--out", "fleet"]
    it.kill_within(2.0, *arguments, service=False)
    resumed = [*arguments, "--resume"]
    it.kill_within(2.0, *resumed, service=False)
    it.run(*resumed, service=False)
    rows = it.check_manifest("fleet/manifest.csv", 1200)
    it.check_device(f"fleet/{it.random.choice(rows)['fullchain']}", "r_cert.pem")
    it.check_no_leftovers()


def import_devices(it):
    """device import, killed."""
    it.start()
    with open(it.path("devices.csv"), "w") as file:
        file.write("IOTC_DEVICEID,IOTC_DEVICENAME\n" + "".join(f"d-{n},Device {n}\n" for n in range(400)))
    arguments = ["device", "import", "--file", "devices.csv"]
    it.kill_within(1.0, *arguments)
    it.rerun(*arguments)
    devices = it.json("device", "list")
    if sorted(device["id"] for device in devices) != sorted(f"d-{n}" for n in range(400)):
        raise Failure(f"{len(devices)} devices after the import of 400")
    it.run(*arguments)


def register(it):
    """device register --manifest, killed."""
    it.start(tls=True)
    it.rerun(*PROVISION, "--count", "40")
    arguments = ["device", "register", "--manifest", "fleet/manifest.csv", *it.dps()]
    it.kill_within(2.0, *arguments)
    it.rerun(*arguments)
    with open(it.path("fleet/manifest.registrations.csv"), newline="") as file:
        outcomes = [row["outcome"] for row in csv.DictReader(file)]
    if outcomes != ["assigned"] * 40:
        raise Failure(f"the results have {outcomes}")
    provisioned = [device for device in it.json("device", "list") if device.get("provisioned")]
    if len(provisioned) != 40:
        raise Failure(f"{len(provisioned)} of 40 devices are provisioned")


def everything(it, at_dps=False):
    """provision with a fleet, created and registered devices, killed."""
    it.start(tls=True, at_dps=at_dps)
    arguments = [*PROVISION, "--count", "30", "--device", "single", "--create-devices", "--register", *it.dps()]
    it.kill_within(2.5, *arguments)
    it.rerun(*arguments)
    it.check_entries("g", "r_cert.pem")
    it.check_manifest("fleet/manifest.csv", 30)
    it.check_devices(31)
    it.check_unchanged(*arguments)
    it.check_no_leftovers()


def race(it, at_dps=False):
    """Eight provisions at once, on one group and one directory."""
    # Slow answers leave more time for the others in between.
    it.start(faults=it.random.choice([[], ["delay=40ms,times=always"]]), at_dps=at_dps)
    if it.random.random() < 0.3:
        it.run("cert", "root", "r", "--no-pfx", service=False)
    if it.random.random() < 0.3 and not at_dps:
        it.run("enrollment-group", "create", "g", "--display-name", "g")
    arguments = [*PROVISION, "--device", "d1", "--device", "d2"]
    arguments += it.random.choice([[], ["--count", "20"], ["--attest"], ["--create-devices"]])
    it.together([arguments] * 8)
    it.check_entries("g", "r_cert.pem")
    for device in ("d1", "d2"):
        it.check_device(f"{device}_fullchain.pem", "r_cert.pem")
    it.check_unchanged(*arguments)
    it.check_no_leftovers()


def race_groups(it):
    """Eight provisions at once with one root: four groups, two runs each, one device each."""
    it.start(faults=[])
    runs = [["provision", "--group", f"g{n % 4}", "--root", "r", "--device", f"d{n}", "--no-pfx"] for n in range(8)]
    it.together(runs)
    for group in range(4):
        it.check_entries(f"g{group}", "r_cert.pem")
    for device in range(8):
        it.check_device(f"d{device}_fullchain.pem", "r_cert.pem")
    it.check_no_leftovers()


def race_rollover(it, at_dps=False):
    """Eight rollovers at once, then eight that retire."""
    it.start(faults=[], at_dps=at_dps)
    it.run(*PROVISION, "--device", "d1")
    rollover = ["rollover", "--group", "g", "--root", "next", "--device", "d1", "--no-pfx"]
    it.together([rollover] * 8)
    it.check_entries("g", "r_cert.pem", "next_cert.pem")
    it.check_device("next/d1_fullchain.pem", "next_cert.pem")
    it.together([[*rollover, "--retire", "--yes"]] * 8)
    it.check_retired("g", "next_cert.pem")
    it.check_no_leftovers()


SCENARIOS = {
    "provision": provision,
    "race": race,
    "provision-dps": functools.partial(provision, at_dps=True),
    "race-dps": functools.partial(race, at_dps=True),
    "rollover": rollover,
    "rollover-dps": functools.partial(rollover, at_dps=True),
    "everything": everything,
    "everything-dps": functools.partial(everything, at_dps=True),
    "import": import_devices,
    "race-rollover": race_rollover,
    "race-rollover-dps": functools.partial(race_rollover, at_dps=True),
    "register": register,
    "race-groups": race_groups,
    "fleet": fleet,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=len(SCENARIOS), help="how many rounds (default: one of each scenario)")
    parser.add_argument("--seconds", type=float, help="start no further round after so many seconds")
    parser.add_argument("--seed", type=int, help="the seed of the first round (default: random)")
    parser.add_argument("--scenario", choices=SCENARIOS, help="only this scenario (default: one after the other)")
    parser.add_argument("--program", help="the program (default: target/debug/iot-enroll)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the log of each failed round")
    arguments = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
    program = os.path.abspath(arguments.program or os.path.join(target, "debug", "iot-enroll"))
    if not os.access(program, os.X_OK):
        parser.error(f"{program} does not exist: run `cargo build` first")
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    names = [arguments.scenario] if arguments.scenario else list(SCENARIOS)
    started, done, failed = time.monotonic(), 0, []
    for number in range(arguments.rounds):
        if arguments.seconds is not None and time.monotonic() - started > arguments.seconds:
            break
        name, this_seed = names[number % len(names)], seed + number
        directory = tempfile.mkdtemp(prefix="iot-enroll-chaos-")
        it = Round(program, this_seed, directory)
        begin = time.monotonic()
        try:
            SCENARIOS[name](it)
            outcome = "ok"
        except (Failure, OSError, ValueError, KeyError) as failure:
            outcome = f"FAILED: {failure!r}"
            failed.append((name, this_seed, directory))
        finally:
            it.stop()
        done += 1
        print(f"{name:<17} seed {this_seed:<8} {time.monotonic() - begin:5.1f} s  {outcome}", flush=True)
        if outcome == "ok":
            shutil.rmtree(directory)
        else:
            with open(os.path.join(directory, "chaos.log"), "w") as log:
                log.write("\n".join(it.log) + "\n")
            if arguments.verbose:
                print("\n".join(it.log))
    print(f"{done} rounds, {len(failed)} failed, {time.monotonic() - started:.0f} s")
    for name, this_seed, directory in failed:
        print(f"  again: --rounds 1 --scenario {name} --seed {this_seed}; the log is in {directory}/chaos.log")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
