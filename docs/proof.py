"""Play the simulations of the statistics and write what they measured into proof.md: `python docs/proof.py`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = [f"tests/test_{name}.py" for name in ("evaluation_statistics", "rollouts_statistics", "rollouts_verdict")]
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


SEEDS = ("frozen", "this month", "this month, many")


def measured(report: Path) -> str:
    """A table of every test that says what it measured, from pytest's report; of several runs the one with most games."""
    order = [name for file in FILES for name in re.findall(r"^def (test_\w+)", (HERE.parent / file).read_text(), re.M)]
    found: dict[tuple[int, str, str], dict[str, str]] = {}
    for case in xml.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
        name, _, given = case.attrib["name"].rstrip("]").partition("[")
        seed = next((seed for seed in reversed(SEEDS) if seed in given), "")
        more = [part for part in re.split("-(?!0)", given.replace(seed, "", 1)) if part]
        test = f"`{name}`" + (f" ({', '.join(more)})" if more else "")
        for item in case.iter("property"):
            key = (order.index(name), test, item.attrib["name"])
            told = found.setdefault(key, {})
            place = seed.partition(",")[0]
            if "many" in seed or place not in told:
                told[place] = item.attrib["value"]
    lines = ["| test | of | frozen seed | this month's |", "|---|---|---|---|"]
    for (_, test, what), told in sorted(found.items()):
        both = (told.get("frozen", told.get("", "")), told.get("this month", ""))
        lines.append(f"| {test} | {what} | {both[0]} | {both[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *FILES, f"--junitxml={report}"]
        subprocess.run(command, cwd=HERE.parent, check=True)
        table = measured(report)
    page = HERE / "proof.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
