#!/usr/bin/env python3
"""Prints a software bill of materials of the program, in CycloneDX, from one of cargo-cyclonedx.

    packaging/sbom.py FILE TARGET PROGRAM

Removes the crates that are not linked into the program, such as those of tests, and the paths of this machine. Adds the hash of the
program. The time is that of SOURCE_DATE_EPOCH, so that a build of the same commit has the same document.
"""

import datetime
import hashlib
import json
import os
import pathlib
import sys
import uuid

from linked_crates import linked_crates


def main():
    file, target, program = sys.argv[1:]
    bom = json.loads(pathlib.Path(file).read_text())
    linked = linked_crates(target)
    bom["components"] = [component for component in bom["components"] if (component["name"], component["version"]) in linked]
    root = bom["metadata"]["component"]
    references = {component["bom-ref"] for component in [*bom["components"], root]}
    nodes = [node for node in bom["dependencies"] if node["ref"] in references]
    for node in nodes:
        if "dependsOn" in node:
            node["dependsOn"] = [name for name in node["dependsOn"] if name in references]
    bom["dependencies"] = nodes
    # The library and the program of this crate are one file.
    root.pop("components", None)
    root["purl"] = root["purl"].split("?")[0]
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()}]
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    bom.pop("serialNumber", None)
    text = json.dumps(bom).replace(f"path+file://{os.getcwd()}#", "")
    bom = json.loads(text)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"
    json.dump(bom, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
