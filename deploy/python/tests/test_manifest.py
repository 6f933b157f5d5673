"""YAML is read as `airfleet apply` reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

import airfleet
from airfleet.common.v1 import common_pb2

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def test_everything_that_may_be_said_is_read() -> None:
    [payments] = airfleet.load(EXAMPLES / "namespace.yaml")
    assert payments.name == "payments"
    assert dict(payments.labels) == {"business-unit": "finance"}
    assert list(payments.prefixes) == ["payments__", "payments."]
    assert payments.demand.metadata_bytes == 500_000_000
    assert payments.placement.selector[0].operator == common_pb2.SELECTOR_OPERATOR_IN
    assert payments.placement.spread_group == "finance"
    assert list(payments.guardrails.kubernetes_namespaces) == ["finance"]
    assert payments.guardrails.mode == common_pb2.ENFORCEMENT_ENFORCE
    assert payments.guardrails.modes["AF107"] == common_pb2.ENFORCEMENT_WARN
    assert payments.source.ref == "main"
    assert payments.pools[0].slots == 8
    assert payments.retention.keep_days == 90
    assert airfleet.describe(payments.demand).startswith("120 dags, 300 task starts/h, 4 slots")


def test_the_example_fleet_is_read() -> None:
    files = sorted((EXAMPLES / "fleet/namespaces").glob("*.yaml"))
    names = [airfleet.load(file)[0].name for file in files]
    assert names == [file.stem for file in files]
    assert len(names) == 55


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(airfleet.ManifestError) as raised:
        airfleet.parse(text)
    return raised.value.problems


HEAD = "apiVersion: airfleet.dev/v1\nkind: Namespace\n"


def test_every_problem_of_a_document_is_told() -> None:
    found = problems(
        HEAD
        + """
metadata: {name: 007, labels: {tier: 1}, team: x}
spec: {owners: fin, prefixes: [1], demand: {dags: "many"}, placement: {selector: {}}}
"""
    )
    assert [line.split(":")[0] for line in found] == [
        "metadata.name",
        "metadata.labels.tier",
        "metadata.team",
        "spec.owners",
        "spec.prefixes[0]",
        "spec.demand.dags",
        "spec.placement.selector",
    ]
    assert "put it in quotes" in found[0]
    assert "known are name, labels, description" in found[2]


def test_what_is_no_namespace_is_refused() -> None:
    assert "apiVersion is None" in problems("kind: Namespace")[0]
    assert "only `kind: Namespace`" in problems("apiVersion: airfleet.dev/v1\nkind: Shard")[0]
    assert "must be a map" in problems("- a list")[0]
    assert "'name' is given twice" in problems(HEAD + "metadata: {name: a, name: b}")[0]
    assert (
        "operator is not known"
        in problems(HEAD + "spec: {placement: {selector: [{key: a, operator: Equals}]}}")[0]
    )
    assert problems("a: [")[0]


def test_documents_are_numbered_where_there_are_several() -> None:
    found = problems(f"{HEAD}---\n{HEAD}spec: []\n---\n")
    assert found == ("document 2: spec: must be a map, is a list",)


def test_a_namespace_from_arguments() -> None:
    made = airfleet.namespace(
        "payments", owners=["fin"], prefixes=["pay__"], demand={"runningSlots": 2}, region="eu"
    )
    assert (made.demand.running_slots, made.placement.region) == (2, "eu")
    with pytest.raises(airfleet.ManifestError, match="spec.demand.slots: is not known"):
        airfleet.namespace("payments", owners=[], prefixes=[], demand={"slots": 2})
