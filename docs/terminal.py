#!/usr/bin/env python3
"""Runs the README's first command and writes what a terminal shows to docs/terminal.svg.

    cargo build && docs/terminal.py target/debug/iot-enroll
"""

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS, CHARACTER, LINE, MARGIN = 112, 8.4, 20, 16
COMMAND = ["provision", "--emulator", "--register"]
# The program's styles, by their numbers in ANSI sequences.
CLASSES = {"1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow"}
STYLE = """
  .window { fill: #ffffff; stroke: #d0d7de }
  text { fill: #1f2328; font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }
  .bold { font-weight: bold } .dim { fill: #59636e } .red { fill: #c4161c } .green { fill: #116329 } .yellow { fill: #7d4e00 }
  @media (prefers-color-scheme: dark) {
    .window { fill: #0d1117; stroke: #3d444d }
    text { fill: #e6edf3 }
    .dim { fill: #9198a1 } .red { fill: #ff7b72 } .green { fill: #56d364 } .yellow { fill: #e3b341 }
  }
"""


def cells(line):
    """The characters of a line, each with its classes."""
    classes = []
    for part in re.split(r"(\x1b\[[\d;]*m)", line):
        if found := re.fullmatch(r"\x1b\[([\d;]*)m", part):
            for number in found[1].split(";"):
                classes = classes + [CLASSES[number]] if number in CLASSES else []
        else:
            yield from ((character, " ".join(classes)) for character in part)


def spans(row):
    """A row of cells as SVG text."""
    text = ""
    while row:
        same = next((at for at, cell in enumerate(row) if cell[1] != row[0][1]), len(row))
        content = html.escape("".join(character for character, _ in row[:same]))
        text += f'<tspan class="{row[0][1]}">{content}</tspan>' if row[0][1] else content
        row = row[same:]
    return text


def main():
    program = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run(
            [program, *COMMAND, "--color", "always"], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True
        )
    rows = []
    for line in ["$ iot-enroll " + " ".join(COMMAND), *run.stdout.splitlines()]:
        row = list(cells(line))
        rows += [row[at : at + COLUMNS] for at in range(0, max(len(row), 1), COLUMNS)]
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(rows) * LINE + 2 * MARGIN
    lines = [
        f'<text x="{MARGIN}" y="{MARGIN + LINE * number + 14}" xml:space="preserve">{spans(row)}</text>'
        for number, row in enumerate(rows)
    ]
    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">
<style>{STYLE}</style>
<rect class="window" x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="8"/>
{chr(10).join(lines)}
</svg>
"""
    Path(__file__).with_name("terminal.svg").write_text(svg)


main()
