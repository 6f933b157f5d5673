"""Which namespace a DAG is of, and what happens to one that lies where it should not."""

from __future__ import annotations

from pathlib import Path

from conftest import Shard

from airfleet_airflow.guardrails import Layout

DAG = """
with DAG("{}", start_date=START, schedule=None):
    EmptyOperator(task_id="load")
"""


def test_a_dag_with_a_prefix_of_its_namespace_is_let_in(shard: Shard) -> None:
    shard.rule({"payments": {}})
    shard.release("payments", {"daily.py": DAG.format("payments__daily")})
    parsed = shard.parse("payments/daily.py")
    assert list(parsed.dags) == ["payments__daily"]
    assert not parsed.errors
    assert shard.violations() == []


def test_a_dag_without_a_prefix_is_refused(shard: Shard) -> None:
    shard.rule({"payments": {}})
    shard.release("payments", {"daily.py": DAG.format("daily")})
    parsed = shard.parse("payments/daily.py")
    assert not parsed.dags
    assert parsed.error == (
        "AF101 daily: dag_id carries no prefix of namespace payments, in whose folder "
        "payments/daily.py lies; begin it with 'payments__'"
    )


def test_two_namespaces_in_a_file_are_refused_by_the_foreign_one(shard: Shard) -> None:
    shard.rule({"payments": {}, "risk": {}})
    body = DAG.format("payments__daily") + DAG.format("risk__daily")
    shard.release("payments", {"both.py": body})
    parsed = shard.parse("payments/both.py")
    assert parsed.error.startswith(
        "AF103 risk__daily: belongs to namespace risk, but payments/both.py lies in the folder of "
        "payments; move it there"
    )
    assert [line["dag_id"] for line in shard.violations()] == ["risk__daily"]


def test_a_dag_of_a_namespace_outside_of_its_folder_is_refused(shard: Shard) -> None:
    shard.rule({"payments": {}})
    shard.write("loose.py", DAG.format("payments__daily"))
    shard.write("unknown/daily.py", DAG.format("payments__other"))
    parsed = shard.parse("loose.py")
    assert parsed.error.startswith(
        "AF102 payments__daily: belongs to namespace payments, but loose"
    )
    assert shard.parse("unknown/daily.py").error.startswith("AF102 payments__other: ")


def test_a_dag_of_nobody_outside_of_every_folder_is_let_in(shard: Shard) -> None:
    shard.rule({"payments": {"queues": ["none"]}})
    shard.write("loose.py", DAG.format("platform_check"))
    assert list(shard.parse("loose.py").dags) == ["platform_check"]


def test_a_file_is_known_by_its_real_path_as_well(shard: Shard) -> None:
    shard.rule({"payments": {}})
    shard.release("payments", {"daily.py": DAG.format("daily")}, release="abc123")
    parsed = shard.parse(".airfleet/releases/payments/abc123/daily.py")
    assert "AF101 daily: " in parsed.error
    assert "payments/daily.py lies" in parsed.error


def test_a_place_only_warns_where_its_mode_says_so(shard: Shard) -> None:
    shard.rule({"payments": {"modes": {"AF101": "warn"}, "queues": ["none"]}})
    parsed = shard.parse_dag(DAG.format("daily"))
    # What comes next is looked at all the same.
    assert parsed.error.startswith("AF104 daily.load: ")
    codes = {line["code"]: (line["mode"], line["action"]) for line in shard.violations()}
    assert codes == {"AF101": ("warn", "told"), "AF104": ("enforce", "refused")}


def test_the_longest_prefix_decides(shard: Shard) -> None:
    shard.write_guardrails(
        '{"version": 1, "namespaces": {"pay": {"prefixes": ["pay_", "pay."]},'
        '"payments": {"prefixes": ["pay_ments__"]}}}'
    )
    shard.release("payments", {"daily.py": DAG.format("pay_ments__daily")})
    assert list(shard.parse("payments/daily.py").dags) == ["pay_ments__daily"]
    shard.write("loose.py", DAG.format("pay_ments__loose"))
    assert "belongs to namespace payments" in shard.parse("loose.py").error


def test_places(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    layout = Layout(str(tmp_path / "link"), "", "")

    def place(path: str) -> tuple[str, str | None]:
        found = layout.place(path)
        return found.path, found.folder

    for root in (tmp_path / "link", real):
        assert place(f"{root}/payments/a/b.py") == ("payments/a/b.py", "payments")
        assert place(f"{root}/.airfleet/releases/payments/r1/a/b.py") == (
            "payments/a/b.py",
            "payments",
        )
        assert place(f"{root}/loose.py") == ("loose.py", None)
        assert place(f"{root}/payments/../risk/a.py") == ("risk/a.py", "risk")
        assert place(f"{root}/payments/a.zip/b.py") == ("payments/a.zip/b.py", "payments")
        # Nothing of a release, so no namespace either.
        assert place(f"{root}/.airfleet/releases/payments/b.py")[1] == ".airfleet"
    assert place("/elsewhere/payments/a.py") == ("/elsewhere/payments/a.py", None)
    assert place(f"{tmp_path}/linked/payments/a.py")[1] is None


def test_where_things_lie_is_told_by_the_environment() -> None:
    def found(**environ: str) -> tuple[str, str, str]:
        layout = Layout.find(environ, lambda: "/dags")
        return layout.dags, layout.guardrails, layout.state

    assert found() == ("/dags", "/dags/.airfleet/guardrails.json", "/dags/.airfleet")
    assert found(AIRFLEET_GUARDRAILS="/opt/dags/.airfleet/guardrails.json") == (
        "/opt/dags",
        "/opt/dags/.airfleet/guardrails.json",
        "/opt/dags/.airfleet",
    )
    assert found(AIRFLEET_GUARDRAILS="/etc/airfleet/g.json", AIRFLEET_STATE="/var/airfleet") == (
        "/dags",
        "/etc/airfleet/g.json",
        "/var/airfleet",
    )
