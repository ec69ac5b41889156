#!/usr/bin/env python3
"""Fails if source files of the crate depend on each other in a circle, or on a layer above theirs.

Nodes are files under src/. An edge is a path that starts with `crate`, `self` or `super`, in a `use` or in the code, resolved
to the file that defines the item: a re-export (`pub use`) is followed, and is not a dependency of the file that has it.
Tests inside a file (`#[cfg(test)]`) do not count.

    .ci/module_cycles.py            fails on a cycle, and prints it
    .ci/module_cycles.py --edges    prints every edge, one a line
"""

import re
import sys
from pathlib import Path

# What each module of the crate may use of the others.
LAYERS = {
    "certificate": set(),
    "transport": {"certificate"},
    "central": {"certificate", "transport"},
    "dps": {"certificate", "transport"},
    # Resource Manager returns values of DPS: ID scopes, endpoints, certificate names.
    "arm": {"certificate", "transport", "dps"},
    "workflow": {"certificate", "transport", "central", "dps", "arm"},
    "emulator": {"certificate"},
    "cli": {"certificate", "transport", "central", "dps", "arm", "workflow", "emulator"},
}

ROOT = Path(__file__).resolve().parent.parent / "src"


def strip(text):
    """Removes comments, strings, character literals and test modules."""
    text = re.sub(
        r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:u\{\w+\}|x\w\w|.)|[^\'\\])\'',
        lambda found: '""' if '"' in found[0] else "",
        text,
        flags=re.S,
    )
    while found := re.search(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\]\s*(?:pub\(\w+\) )?mod \w+ \{", text):
        depth, end = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[: found.start()] + text[end:]
    return text


def tree(text):
    """Expands `a::{b, c::{self, d as e}}` into pairs of a path and the name it is known by."""
    text = text.strip()
    if "{" not in text:
        path, _, name = text.partition(" as ")
        path = [part for part in re.split(r"\s*::\s*", path.strip()) if part]
        if path and path[-1] == "self":
            path = path[:-1]
        if path:
            yield path, name.strip() or path[-1]
        return
    head, body = text.split("{", 1)
    body = body[: body.rindex("}")]
    head = [part for part in re.split(r"\s*::\s*", head.strip()) if part]
    depth, start = 0, 0
    for index, letter in enumerate(body + ","):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            for path, name in tree(body[start:index]):
                yield head + path, name if path else head[-1]
            if body[start:index].strip() == "self":
                yield head, head[-1]
            start = index + 1


class Module:
    def __init__(self, file):
        self.file = file
        parts = file.relative_to(ROOT).with_suffix("").parts
        self.path = () if parts in (("lib",), ("main",)) else parts[:-1] if parts[-1] == "mod" else parts
        text = strip(file.read_text())
        self.reexports, self.imports, self.globs = {}, [], []
        uses = re.compile(r"^([ \t]*)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", re.M)
        for _, public, body in uses.findall(text):
            for path, name in tree(re.sub(r"\s+", " ", body)):
                if public and name == "*":
                    self.globs.append(path[:-1])
                elif public:
                    self.reexports[name] = path
                else:
                    self.imports.append(path)
        text = uses.sub("", text)
        text = re.sub(r"pub\((?:crate|super|in [^)]*)\)", "", text)
        self.imports += [re.split(r"\s*::\s*", found) for found in re.findall(r"\b(?:crate|super)(?:\s*::\s*\w+)+", text)]
        # A path relative to a child module: `child::item`.
        self.names = set(re.findall(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod (\w+);", text, re.M))
        self.imports += [["self", *found] for found in re.findall(r"(?<![\w:])([a-z_]\w*)::(\w+)", text) if found[0] in self.names]


def main():
    modules = {}
    for file in sorted(ROOT.rglob("*.rs")):
        if file.name != "main.rs" or file.parent != ROOT:
            module = Module(file)
            modules[module.path] = module

    def resolve(path, at, seen=()):
        """The module that defines what a path means, seen from a module."""
        if path[0] == "crate":
            here, rest = (), path[1:]
        elif path[0] in ("self", "super"):
            here, rest = at, path
            while rest and rest[0] in ("self", "super"):
                here, rest = (here[:-1] if rest[0] == "super" else here), rest[1:]
        elif at + (path[0],) in modules:
            here, rest = at, path
        else:
            imported = [known for known in modules[at].imports if known[-1] == path[0] and known != path] if at in modules else []
            if not imported or (at, path[0]) in seen:
                return None
            return resolve(imported[0] + path[1:], at, (*seen, (at, path[0])))
        while rest and here + (rest[0],) in modules:
            here, rest = here + (rest[0],), rest[1:]
        module = modules.get(here)
        if module is None:
            return None
        if rest and (here, rest[0]) not in seen:
            if rest[0] in module.reexports:
                target = resolve(module.reexports[rest[0]] + rest[1:], here, (*seen, (here, rest[0])))
                return target or here
            for glob in module.globs:
                target = resolve(glob, here, seen)
                if target and target != here:
                    return target
        # A module named as such is used through paths of its own, which are found where they are written.
        return here

    edges = {}
    for path, module in modules.items():
        for imported in module.imports:
            target = resolve(imported, path)
            if target is not None and target != path:
                edges.setdefault(path, set()).add(target)

    def name(path):
        return modules[path].file.relative_to(ROOT).as_posix()

    if "--edges" in sys.argv:
        for source in sorted(edges):
            for target in sorted(edges[source]):
                print(name(source), "->", name(target))
        return 0

    # Strongly connected components (Tarjan).
    index, low, stack, cycles = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                cycles.append(sorted(component))

    upward = [
        f"{name(source)} -> {name(target)}"
        for source in sorted(edges)
        for target in sorted(edges[source])
        if source and target and source[0] != target[0] and target[0] not in LAYERS.get(source[0], set())
    ]
    for edge in upward:
        print(f"error: against the order of the modules: {edge}", file=sys.stderr)

    sys.setrecursionlimit(10_000)
    for node in sorted(modules):
        if node not in index:
            visit(node)
    for cycle in cycles:
        print(f"error: {len(cycle)} files depend on each other in a circle:", file=sys.stderr)
        for source in cycle:
            for target in sorted(edges[source]):
                if target in cycle:
                    print(f"  {name(source)} -> {name(target)}", file=sys.stderr)
    return 1 if cycles or upward else 0


sys.exit(main())
