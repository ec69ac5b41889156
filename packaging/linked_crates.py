"""The crates that are linked into the program."""

import subprocess


def linked_crates(target):
    """Returns their names and versions, without the program's own: not those that only build scripts, macros and tests use."""
    # `cargo metadata` and the tools on top of it do not tell them: they join the features that these need with those of the program.
    features = ["--no-default-features", "--features", "cli"]
    command = ["cargo", "tree", "--locked", *features, "--target", target, "-e", "normal,no-proc-macro", "--prefix", "none"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    crates = {(name, version.removeprefix("v")) for name, version in (line.split()[:2] for line in lines)}
    return {(name, version) for name, version in crates if name != "iot-enroll"}
