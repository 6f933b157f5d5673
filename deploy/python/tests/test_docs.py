"""Commands that the runbooks and guides tell people to run are commands that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGES = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/runbooks/*.md"), *ROOT.glob("examples/**/*.md")]
COMMAND = re.compile(r"(?:^|[`$(] ?)airfleet ((?:[a-z]+ ?)+)(.*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
GROUPS = ("namespace", "shard", "config", "plan", "rebalance", "move", "dag")


def test_commands_and_flags_in_the_documentation_exist(binary: Path) -> None:
    helps: dict[tuple[str, ...], str] = {}

    def help_of(*words: str) -> str:
        if words not in helps:
            command: list[str | Path] = [binary, *words, "--help"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            helps[words] = done.stdout if done.returncode == 0 else ""
        return helps[words]

    found = 0
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8")):
            words = match.group(1).split()
            command = tuple(words[: 2 if words[0] in GROUPS else 1])
            found += 1
            told = help_of(*command)
            assert told, f"{page.name}: airfleet {' '.join(command)} is no command"
            line = match.group(2).split("`")[0].split("#")[0]
            for flag in FLAG.findall(line):
                assert flag in told, f"{page.name}: airfleet {' '.join(command)} has no {flag}"
    assert found > 20
