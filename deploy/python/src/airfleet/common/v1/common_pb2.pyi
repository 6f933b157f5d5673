import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SelectorOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTOR_OPERATOR_UNSPECIFIED: _ClassVar[SelectorOperator]
    SELECTOR_OPERATOR_IN: _ClassVar[SelectorOperator]
    SELECTOR_OPERATOR_NOT_IN: _ClassVar[SelectorOperator]
    SELECTOR_OPERATOR_EXISTS: _ClassVar[SelectorOperator]
    SELECTOR_OPERATOR_DOES_NOT_EXIST: _ClassVar[SelectorOperator]

class Enforcement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENFORCEMENT_UNSPECIFIED: _ClassVar[Enforcement]
    ENFORCEMENT_ENFORCE: _ClassVar[Enforcement]
    ENFORCEMENT_WARN: _ClassVar[Enforcement]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_ABSENT: _ClassVar[Role]
    ROLE_STAGED: _ClassVar[Role]
    ROLE_ACTIVE: _ClassVar[Role]
    ROLE_QUIESCED: _ClassVar[Role]
    ROLE_SEALED: _ClassVar[Role]
    ROLE_RETIRED: _ClassVar[Role]

class MoveHistory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_HISTORY_UNSPECIFIED: _ClassVar[MoveHistory]
    MOVE_HISTORY_FULL: _ClassVar[MoveHistory]
    MOVE_HISTORY_MINIMAL: _ClassVar[MoveHistory]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_HEALTHY: _ClassVar[Verdict]
    VERDICT_DEGRADED: _ClassVar[Verdict]
    VERDICT_UNHEALTHY: _ClassVar[Verdict]
    VERDICT_UNKNOWN: _ClassVar[Verdict]
SELECTOR_OPERATOR_UNSPECIFIED: SelectorOperator
SELECTOR_OPERATOR_IN: SelectorOperator
SELECTOR_OPERATOR_NOT_IN: SelectorOperator
SELECTOR_OPERATOR_EXISTS: SelectorOperator
SELECTOR_OPERATOR_DOES_NOT_EXIST: SelectorOperator
ENFORCEMENT_UNSPECIFIED: Enforcement
ENFORCEMENT_ENFORCE: Enforcement
ENFORCEMENT_WARN: Enforcement
ROLE_UNSPECIFIED: Role
ROLE_ABSENT: Role
ROLE_STAGED: Role
ROLE_ACTIVE: Role
ROLE_QUIESCED: Role
ROLE_SEALED: Role
ROLE_RETIRED: Role
MOVE_HISTORY_UNSPECIFIED: MoveHistory
MOVE_HISTORY_FULL: MoveHistory
MOVE_HISTORY_MINIMAL: MoveHistory
VERDICT_UNSPECIFIED: Verdict
VERDICT_HEALTHY: Verdict
VERDICT_DEGRADED: Verdict
VERDICT_UNHEALTHY: Verdict
VERDICT_UNKNOWN: Verdict

class Resources(_message.Message):
    __slots__ = ("dags", "task_starts_per_hour", "running_slots", "metadata_bytes", "parse_ms_per_minute")
    DAGS_FIELD_NUMBER: _ClassVar[int]
    TASK_STARTS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SLOTS_FIELD_NUMBER: _ClassVar[int]
    METADATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARSE_MS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    dags: int
    task_starts_per_hour: int
    running_slots: int
    metadata_bytes: int
    parse_ms_per_minute: int
    def __init__(self, dags: _Optional[int] = ..., task_starts_per_hour: _Optional[int] = ..., running_slots: _Optional[int] = ..., metadata_bytes: _Optional[int] = ..., parse_ms_per_minute: _Optional[int] = ...) -> None: ...

class SelectorRequirement(_message.Message):
    __slots__ = ("key", "operator", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    operator: SelectorOperator
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., operator: _Optional[_Union[SelectorOperator, str]] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class Taint(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Toleration(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class DagSource(_message.Message):
    __slots__ = ("uri", "ref", "path")
    URI_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    uri: str
    ref: str
    path: str
    def __init__(self, uri: _Optional[str] = ..., ref: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class Guardrails(_message.Message):
    __slots__ = ("mode", "modes", "queues", "pools", "kubernetes_namespaces", "kubernetes_clusters", "operators", "execution_timeout", "retries", "max_active_runs", "required_tags", "allowed_owners")
    class ModesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Enforcement
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Enforcement, str]] = ...) -> None: ...
    MODE_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    KUBERNETES_CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    OPERATORS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_TAGS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_OWNERS_FIELD_NUMBER: _ClassVar[int]
    mode: Enforcement
    modes: _containers.ScalarMap[str, Enforcement]
    queues: _containers.RepeatedScalarFieldContainer[str]
    pools: _containers.RepeatedScalarFieldContainer[str]
    kubernetes_namespaces: _containers.RepeatedScalarFieldContainer[str]
    kubernetes_clusters: _containers.RepeatedScalarFieldContainer[str]
    operators: OperatorRules
    execution_timeout: ExecutionTimeoutRule
    retries: RetriesRule
    max_active_runs: MaxActiveRunsRule
    required_tags: _containers.RepeatedScalarFieldContainer[str]
    allowed_owners: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mode: _Optional[_Union[Enforcement, str]] = ..., modes: _Optional[_Mapping[str, Enforcement]] = ..., queues: _Optional[_Iterable[str]] = ..., pools: _Optional[_Iterable[str]] = ..., kubernetes_namespaces: _Optional[_Iterable[str]] = ..., kubernetes_clusters: _Optional[_Iterable[str]] = ..., operators: _Optional[_Union[OperatorRules, _Mapping]] = ..., execution_timeout: _Optional[_Union[ExecutionTimeoutRule, _Mapping]] = ..., retries: _Optional[_Union[RetriesRule, _Mapping]] = ..., max_active_runs: _Optional[_Union[MaxActiveRunsRule, _Mapping]] = ..., required_tags: _Optional[_Iterable[str]] = ..., allowed_owners: _Optional[_Iterable[str]] = ...) -> None: ...

class OperatorRules(_message.Message):
    __slots__ = ("allow", "deny")
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    allow: _containers.RepeatedScalarFieldContainer[str]
    deny: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allow: _Optional[_Iterable[str]] = ..., deny: _Optional[_Iterable[str]] = ...) -> None: ...

class ExecutionTimeoutRule(_message.Message):
    __slots__ = ("default_seconds", "max_seconds")
    DEFAULT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    default_seconds: int
    max_seconds: int
    def __init__(self, default_seconds: _Optional[int] = ..., max_seconds: _Optional[int] = ...) -> None: ...

class RetriesRule(_message.Message):
    __slots__ = ("default", "max")
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    default: int
    max: int
    def __init__(self, default: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class MaxActiveRunsRule(_message.Message):
    __slots__ = ("max",)
    MAX_FIELD_NUMBER: _ClassVar[int]
    max: int
    def __init__(self, max: _Optional[int] = ...) -> None: ...

class Pool(_message.Message):
    __slots__ = ("name", "slots", "description", "include_deferred")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DEFERRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    slots: int
    description: str
    include_deferred: bool
    def __init__(self, name: _Optional[str] = ..., slots: _Optional[int] = ..., description: _Optional[str] = ..., include_deferred: bool = ...) -> None: ...

class Variable(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: str
    secret: str
    def __init__(self, key: _Optional[str] = ..., secret: _Optional[str] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("id", "secret")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    id: str
    secret: str
    def __init__(self, id: _Optional[str] = ..., secret: _Optional[str] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("keep_days", "schedule")
    KEEP_DAYS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    keep_days: int
    schedule: str
    def __init__(self, keep_days: _Optional[int] = ..., schedule: _Optional[str] = ...) -> None: ...

class HealthReason(_message.Message):
    __slots__ = ("code", "verdict", "message", "observed", "threshold", "unit")
    CODE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    code: str
    verdict: Verdict
    message: str
    observed: int
    threshold: int
    unit: str
    def __init__(self, code: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., message: _Optional[str] = ..., observed: _Optional[int] = ..., threshold: _Optional[int] = ..., unit: _Optional[str] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("verdict", "reasons", "observe_time")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    OBSERVE_TIME_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reasons: _containers.RepeatedCompositeFieldContainer[HealthReason]
    observe_time: _timestamp_pb2.Timestamp
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reasons: _Optional[_Iterable[_Union[HealthReason, _Mapping]]] = ..., observe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
