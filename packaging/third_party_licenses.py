#!/usr/bin/env python3
"""Prints the licenses of everything that is linked into the program for a target, other than its own.

    packaging/third_party_licenses.py TARGET

These are the crates, and what a static program has beside them: the standard library of Rust and, with musl, the C library. Texts
that crates share are printed once. Fails if a crate has neither a text nor a license that another crate has the text of.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

from linked_crates import linked_crates

LICENSE_FILE = re.compile(r"(licen[sc]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
LINE = "=" * 100


def main():
    target = sys.argv[1]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    names = linked_crates(target)
    crates = [crate for crate in metadata["packages"] if crate["source"] and (crate["name"], crate["version"]) in names]
    # The texts in the order of the first crate with each, and the crates with each.
    texts = collections.defaultdict(list)
    without = []
    for crate in sorted(crates, key=lambda crate: (crate["name"], crate["version"])):
        title = f"{crate['name']} {crate['version']} ({crate['license'] or 'see the text'})"
        found = license_texts(pathlib.Path(crate["manifest_path"]).parent)
        for text in found:
            texts[text].append(title)
        if not found:
            without.append((title, crate))
    for title, text in toolchain(target):
        texts[text].append(title)

    print("The program iot-enroll contains the following software, under these licenses.")
    for text, titles in texts.items():
        print(f"\n{LINE}\n" + "\n".join(titles) + f"\n{LINE}\n\n{text}")
    if without:
        print(f"\n{LINE}\nThe packages of these crates have no text of their own; it is one of the above.\n{LINE}\n")
    for title, crate in without:
        print(f"{title}, by {', '.join(crate['authors']) or 'its authors'}, {crate['repository'] or ''}".rstrip(", "))
        if not re.search(r"MIT|Apache-2\.0", crate["license"] or ""):
            sys.exit(f"there is no text of the license of {title}")


def license_texts(directory):
    files = (file for file in sorted(directory.iterdir()) if file.is_file() and LICENSE_FILE.search(file.name))
    # Some crates have code whose file name contains the word.
    files = (file for file in files if file.suffix not in {".rs", ".toml", ".py", ".json"})
    return [text for file in files if (text := tidy(file.read_text(errors="replace")))]


def tidy(text):
    return "\n".join(line.rstrip() for line in text.replace("\f", "").strip().splitlines())


def toolchain(target):
    command = ["rustc", "--print", "sysroot"]
    documents = pathlib.Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()) / "share/doc/rust"
    command = ["rustc", "--version"]
    version = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    texts = [documents / "licenses" / name for name in ["MIT.txt", "Apache-2.0.txt"]]
    yield from ((f"the standard library of Rust {version} (MIT OR Apache-2.0)", tidy(file.read_text())) for file in texts)
    if "musl" in target:
        yield "musl (MIT)", tidy(pathlib.Path("/usr/share/doc/musl-dev/copyright").read_text())


if __name__ == "__main__":
    main()
