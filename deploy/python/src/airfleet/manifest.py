"""Namespaces from the YAML that `airfleet apply` reads, and from keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import json_format

from airfleet.common.v1 import common_pb2
from airfleet.registry.v1 import registry_pb2

API_VERSION = "airfleet.dev/v1"
"""The only version of the manifest's form."""

Namespace: TypeAlias = registry_pb2.Namespace
"""A tenant's share of the fleet, as on the wire."""


class ManifestError(ValueError):
    """A text or document is not a namespace; `problems` has every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def namespace(
    name: str,
    *,
    owners: Iterable[str],
    prefixes: Iterable[str],
    labels: Mapping[str, str] | None = None,
    description: str = "",
    demand: Mapping[str, int] | None = None,
    region: str = "",
    airflow_version: str = "",
) -> Namespace:
    """A namespace from its common fields; set others on what is returned.

    `demand` has the dimensions as in YAML: dags, taskStartsPerHour, runningSlots, metadataBytes,
    parseMsPerMinute.
    """
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(labels or {}), "description": description},
        "spec": {
            "owners": list(owners),
            "prefixes": list(prefixes),
            "demand": dict(demand or {}),
            "placement": {"region": region, "airflowVersion": airflow_version},
        },
    }
    return from_document(document)


def load(path: str | Path) -> list[Namespace]:
    """The namespaces of a YAML file. Needs PyYAML: `pip install airfleet[yaml]`."""
    return parse(Path(path).read_text(encoding="utf-8"))


def parse(text: str) -> list[Namespace]:
    """The namespaces of a YAML text with any number of documents. Needs PyYAML."""
    import yaml

    namespaces, problems = [], []
    try:
        documents = list(yaml.load_all(text, Loader=_loader(yaml)))
    except yaml.YAMLError as error:
        raise ManifestError([" ".join(str(error).split())]) from error
    several = len([document for document in documents if document is not None]) > 1
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        try:
            namespaces.append(from_document(document))
        except ManifestError as error:
            place = f"document {number}: " if several else ""
            problems += [place + problem for problem in error.problems]
    if problems:
        raise ManifestError(problems)
    return namespaces


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader, which refuses duplicate keys, as the other readers of the form do."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    def mapping(loader: Any, node: Any) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader


_TEXTS = [str]
_SHAPE: dict[str, Any] = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "labels": Mapping, "description": str},
    "spec": {
        "owners": _TEXTS,
        "prefixes": _TEXTS,
        "demand": {
            "dags": int,
            "taskStartsPerHour": int,
            "runningSlots": int,
            "metadataBytes": int,
            "parseMsPerMinute": int,
        },
        "placement": {
            "selector": [{"key": str, "operator": str, "values": _TEXTS}],
            "tolerations": [{"key": str, "value": str}],
            "airflowVersion": str,
            "region": str,
            "spreadGroup": str,
        },
        "guardrails": {
            "mode": str,
            "modes": Mapping,
            "queues": _TEXTS,
            "pools": _TEXTS,
            "kubernetesNamespaces": _TEXTS,
            "kubernetesClusters": _TEXTS,
            "operators": {"allow": _TEXTS, "deny": _TEXTS},
            "executionTimeout": {"defaultSeconds": int, "maxSeconds": int},
            "retries": {"default": int, "max": int},
            "maxActiveRuns": {"max": int},
            "requiredTags": _TEXTS,
            "allowedOwners": _TEXTS,
        },
        "source": {"uri": str, "ref": str, "path": str},
        "pools": [{"name": str, "slots": int, "description": str, "includeDeferred": bool}],
        "variables": [{"key": str, "secret": str}],
        "connections": [{"id": str, "secret": str}],
        "retention": {"keepDays": int, "schedule": str},
        "drift": str,
    },
}
_NAMES = {str: "a text", int: "a whole number", bool: "true or false"}
_OPERATORS = {
    "In": "SELECTOR_OPERATOR_IN",
    "NotIn": "SELECTOR_OPERATOR_NOT_IN",
    "Exists": "SELECTOR_OPERATOR_EXISTS",
    "DoesNotExist": "SELECTOR_OPERATOR_DOES_NOT_EXIST",
}
_ENFORCEMENTS = {"enforce": "ENFORCEMENT_ENFORCE", "warn": "ENFORCEMENT_WARN"}


def from_document(document: object) -> Namespace:
    """The namespace that a document, as a YAML or JSON reader gives it, describes.

    Finds what is not well formed; whether names, prefixes and amounts are right is the registry's
    to say, which tells all of them at once.
    """
    if isinstance(document, Mapping):
        version, kind = document.get("apiVersion"), document.get("kind")
        if version != API_VERSION:
            raise ManifestError([f"apiVersion is {version!r}; write `apiVersion: {API_VERSION}`"])
        if kind != "Namespace":
            raise ManifestError([f"kind is {kind!r}; only `kind: Namespace` is read here"])
    problems = list(_problems(document, _SHAPE, ""))
    if problems:
        raise ManifestError(problems)
    assert isinstance(document, Mapping)  # noqa: S101 - the shape was checked
    fields = {**document.get("metadata", {}), **document.get("spec", {})}
    if selector := fields.get("placement", {}).get("selector"):
        for requirement in selector:
            if requirement.get("operator") not in _OPERATORS:
                rule = f"use one of {', '.join(_OPERATORS)}"
                raise ManifestError([f"spec.placement.selector: operator is not known; {rule}"])
        translated = [{**r, "operator": _OPERATORS[r["operator"]]} for r in selector]
        fields["placement"] = {**fields["placement"], "selector": translated}
    if guardrails := fields.get("guardrails"):
        fields["guardrails"] = guardrails = dict(guardrails)
        if "mode" in guardrails:
            guardrails["mode"] = _enforcement(guardrails["mode"], "spec.guardrails.mode")
        if "modes" in guardrails:
            guardrails["modes"] = {
                code: _enforcement(mode, f"spec.guardrails.modes.{code}")
                for code, mode in guardrails["modes"].items()
            }
    if "drift" in fields:
        fields["drift"] = _enforcement(fields["drift"], "spec.drift")
    try:
        return json_format.ParseDict(fields, Namespace())
    except json_format.ParseError as error:
        raise ManifestError([str(error)]) from error


def _enforcement(word: str, path: str) -> str:
    if word not in _ENFORCEMENTS:
        raise ManifestError([f"{path} is {word!r}; use one of {', '.join(_ENFORCEMENTS)}"])
    return _ENFORCEMENTS[word]


def _problems(value: object, shape: Any, path: str) -> Iterable[str]:
    """What of a value has not the shape."""
    at = f"{path}: " if path else ""
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            yield f"{at}must be a map, is {_kind(value)}"
            return
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if key not in shape:
                yield f"{inner}: is not known; known are {', '.join(shape)}"
            else:
                yield from _problems(item, shape[key], inner)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{at}must be a list, is {_kind(value)}"
            return
        for index, item in enumerate(value):
            yield from _problems(item, shape[0], f"{path}[{index}]")
    elif shape is Mapping:
        if not isinstance(value, Mapping):
            yield f"{at}must be a map, is {_kind(value)}"
            return
        for key, item in value.items():
            if not isinstance(key, str) or not isinstance(item, str):
                yield f"{path}.{key}: must map a text to a text; put it in quotes"
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        hint = "; put it in quotes" if shape is str and isinstance(value, int | float) else ""
        yield f"{at}must be {_NAMES[shape]}, is {_kind(value)}{hint}"


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def describe(amounts: common_pb2.Resources) -> str:
    """Amounts in one line: `12 dags, 40 task starts/h, 2 slots`."""
    words = {
        "dags": "dags",
        "task_starts_per_hour": "task starts/h",
        "running_slots": "slots",
        "metadata_bytes": "bytes of metadata",
        "parse_ms_per_minute": "ms parsing/min",
    }
    parts = [f"{getattr(amounts, name)} {text}" for name, text in words.items()]
    return ", ".join(part for part in parts if not part.startswith("0 ")) or "nothing"
