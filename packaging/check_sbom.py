#!/usr/bin/env python3
"""Checks a software bill of materials: that it is valid CycloneDX, and lists the crates that are in the program, and no others.

    packaging/check_sbom.py FILE TARGET
"""

import json
import os
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from linked_crates import linked_crates


def main():
    file, target = sys.argv[1:]
    text = pathlib.Path(file).read_text()
    bom = json.loads(text)
    version = SchemaVersion.from_version(bom["specVersion"])
    if problem := JsonStrictValidator(version).validate_str(text):
        sys.exit(f"{file} is not valid: {problem}")
    listed = {(component["name"], component["version"]) for component in bom["components"]}
    expected = linked_crates(target)
    if listed != expected:
        sys.exit(f"{file} misses {sorted(expected - listed)}, and has {sorted(listed - expected)}, which are not in the program")
    references = {component["bom-ref"] for component in [*bom["components"], bom["metadata"]["component"]]}
    unknown = {name for node in bom["dependencies"] for name in [node["ref"], *node.get("dependsOn", [])]} - references
    if unknown:
        sys.exit(f"{file} has dependencies that it does not list: {sorted(unknown)}")
    if os.getcwd() in text:
        sys.exit(f"{file} has paths of this machine")
    print(f"CycloneDX {bom['specVersion']}, {len(listed)} crates")


if __name__ == "__main__":
    main()
