"""The onboarding script, run as people and CI run it, against a real control plane."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

from conftest import PATIENCE, ControlPlane

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def onboard(plane: ControlPlane | None, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, and what was printed."""
    where = ["--registry", plane.registry, "--router", plane.router] if plane else []
    done = subprocess.run(
        [sys.executable, EXAMPLES / "onboard.py", *arguments, *where],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def name() -> str:
    return f"team-{uuid.uuid4().hex[:12]}"


def test_a_namespace_from_flags_finds_its_shard_and_may_be_onboarded_again(
    plane: ControlPlane,
) -> None:
    team = name()
    flags = [team, "--owner", "fin", "--owner", "ops", "--prefix", f"{team}__", "--slots", "1"]
    code, said, complained = onboard(plane, *flags, "--label", "tier=gold", "--dags", "12")
    assert (code, complained) == (0, "")
    assert f"namespace {team}: created, demand 12 dags, 1 slots" in said
    assert f"namespace {team} lives on shard shard-" in said
    assert ".example.net" in said

    with plane.client() as client:
        registered = client.get_namespace(team)
        assert list(registered.owners) == ["fin", "ops"]
        assert dict(registered.labels) == {"tier": "gold"}
        owner = client.resolve(f"{team}__daily")

    code, said, _ = onboard(plane, *flags, "-o", "json")
    assert code == 0
    [result] = json.loads(said)
    assert (result["namespace"], result["outcome"]) == (team, "updated")
    assert (result["shard"], result["generation"]) == (owner.shard, owner.generation)


def test_a_file_with_several_is_onboarded_as_one(plane: ControlPlane, tmp_path: Path) -> None:
    file = tmp_path / "namespaces.yaml"
    teams = [name(), name()]
    file.write_text(
        "---\n".join(
            f"apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {{name: {team}}}\n"
            f"spec: {{owners: [fin], prefixes: [{team}.]}}\n"
            for team in teams
        )
    )
    code, said, _ = onboard(plane, "--file", file, "--dry-run", "-o", "json")
    assert code == 0
    assert [result["outcome"] for result in json.loads(said)] == ["created", "created"]
    assert "shard" not in json.loads(said)[0]
    code, said, _ = onboard(plane, "--file", file, "--new", "-o", "json")
    assert code == 0
    assert all(result["shard"] for result in json.loads(said))
    code, _, complained = onboard(plane, "--file", file, "--new")
    assert code == 1
    assert "already exists" in complained


def test_no_shard_in_time_is_exit_code_2_and_says_why(plane: ControlPlane) -> None:
    team = name()
    flags = [team, "--owner", "fin", "--prefix", f"{team}__", "--slots", "9999", "--timeout", "1"]
    code, said, complained = onboard(plane, *flags)
    assert code == 2
    assert "waiting: none of 2 shards will do: NO_ROOM on 2" in said
    assert "has no shard after 1 s" in complained
    code, said, _ = onboard(plane, *flags, "-o", "json")
    assert code == 2
    assert json.loads(said)[0]["shard"] is None


def test_refusals_are_exit_code_1_and_say_everything(plane: ControlPlane, tmp_path: Path) -> None:
    code, _, complained = onboard(plane, "X!", "--owner", "fin", "--prefix", "b")
    assert code == 1
    assert "namespace.name" in complained
    assert "namespace.prefixes[0]" in complained

    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: airfleet.dev/v1\nkind: Namespace\nspec: {owner: fin}\n")
    code, _, complained = onboard(plane, "--file", file)
    assert code == 1
    assert "spec.owner: is not known; known are owners" in complained


def test_a_wrong_command_line_is_exit_code_1() -> None:
    for arguments in (["--bogus"], [], ["name", "--file", "x"], ["abc", "--label", "no-value"]):
        code, _, complained = onboard(None, *arguments)
        assert code == 1, arguments
        assert complained, arguments


def test_a_control_plane_that_is_away_is_said_so() -> None:
    away = ["--registry", "http://127.0.0.1:1", "--router", "http://127.0.0.1:1"]
    once = ["--request-timeout", "1"]
    code, _, complained = onboard(None, "abc", "--owner", "o", "--prefix", "abc__", *away, *once)
    assert code == 1
    assert "airfleet dev" in complained


def test_help_shows_examples() -> None:
    code, said, _ = onboard(None, "--help")
    assert code == 0
    assert said.count("onboard.py") >= 5
    assert "exit codes: 0" in said
