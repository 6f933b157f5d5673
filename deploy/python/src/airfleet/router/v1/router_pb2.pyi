import datetime

from airfleet.agent.v1 import agent_pb2 as _agent_pb2
from airfleet.common.v1 import common_pb2 as _common_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssignmentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSIGNMENT_STATE_UNSPECIFIED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_ASSIGNED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_UNPLACED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_RELEASED: _ClassVar[AssignmentState]
    ASSIGNMENT_STATE_MOVING: _ClassVar[AssignmentState]
ASSIGNMENT_STATE_UNSPECIFIED: AssignmentState
ASSIGNMENT_STATE_ASSIGNED: AssignmentState
ASSIGNMENT_STATE_UNPLACED: AssignmentState
ASSIGNMENT_STATE_RELEASED: AssignmentState
ASSIGNMENT_STATE_MOVING: AssignmentState

class Assignment(_message.Message):
    __slots__ = ("namespace", "namespace_uid", "shard", "generation", "state", "pinned_shard", "reason", "prefixes", "revision", "update_time")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_UID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PINNED_SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    namespace_uid: str
    shard: str
    generation: int
    state: AssignmentState
    pinned_shard: str
    reason: str
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, namespace: _Optional[str] = ..., namespace_uid: _Optional[str] = ..., shard: _Optional[str] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[AssignmentState, str]] = ..., pinned_shard: _Optional[str] = ..., reason: _Optional[str] = ..., prefixes: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Endpoints(_message.Message):
    __slots__ = ("url",)
    URL_FIELD_NUMBER: _ClassVar[int]
    url: str
    def __init__(self, url: _Optional[str] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("dag_id", "namespace")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    namespace: str
    def __init__(self, dag_id: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ("namespace", "shard", "endpoints", "generation", "state", "revision", "age_ms", "retry_after_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shard: str
    endpoints: Endpoints
    generation: int
    state: AssignmentState
    revision: int
    age_ms: int
    retry_after_ms: int
    def __init__(self, namespace: _Optional[str] = ..., shard: _Optional[str] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[AssignmentState, str]] = ..., revision: _Optional[int] = ..., age_ms: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class BatchResolveRequest(_message.Message):
    __slots__ = ("dag_ids",)
    DAG_IDS_FIELD_NUMBER: _ClassVar[int]
    dag_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dag_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchResolveResponse(_message.Message):
    __slots__ = ("route_numbers", "routes", "shards", "revision", "age_ms")
    ROUTE_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    route_numbers: _containers.RepeatedScalarFieldContainer[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    shards: _containers.RepeatedCompositeFieldContainer[RouteShard]
    revision: int
    age_ms: int
    def __init__(self, route_numbers: _Optional[_Iterable[int]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[RouteShard, _Mapping]]] = ..., revision: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("namespace", "shard_number", "generation", "state", "retry_after_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_NUMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shard_number: int
    generation: int
    state: AssignmentState
    retry_after_ms: int
    def __init__(self, namespace: _Optional[str] = ..., shard_number: _Optional[int] = ..., generation: _Optional[int] = ..., state: _Optional[_Union[AssignmentState, str]] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class RouteShard(_message.Message):
    __slots__ = ("shard", "endpoints")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    shard: str
    endpoints: Endpoints
    def __init__(self, shard: _Optional[str] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ...) -> None: ...

class GetAssignmentRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class ListAssignmentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "shard", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    shard: str
    state: AssignmentState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., shard: _Optional[str] = ..., state: _Optional[_Union[AssignmentState, str]] = ...) -> None: ...

class ListAssignmentsResponse(_message.Message):
    __slots__ = ("assignments", "next_page_token", "revision")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    next_page_token: str
    revision: int
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchAssignmentsRequest(_message.Message):
    __slots__ = ("resume_revision",)
    RESUME_REVISION_FIELD_NUMBER: _ClassVar[int]
    resume_revision: int
    def __init__(self, resume_revision: _Optional[int] = ...) -> None: ...

class WatchAssignmentsResponse(_message.Message):
    __slots__ = ("revision", "snapshot", "change", "progress")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    snapshot: AssignmentSnapshot
    change: AssignmentChange
    progress: ProgressMark
    def __init__(self, revision: _Optional[int] = ..., snapshot: _Optional[_Union[AssignmentSnapshot, _Mapping]] = ..., change: _Optional[_Union[AssignmentChange, _Mapping]] = ..., progress: _Optional[_Union[ProgressMark, _Mapping]] = ...) -> None: ...

class AssignmentSnapshot(_message.Message):
    __slots__ = ("assignments", "first", "last")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    first: bool
    last: bool
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., first: bool = ..., last: bool = ...) -> None: ...

class AssignmentChange(_message.Message):
    __slots__ = ("previous_revision", "upserts", "deleted")
    PREVIOUS_REVISION_FIELD_NUMBER: _ClassVar[int]
    UPSERTS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    previous_revision: int
    upserts: _containers.RepeatedCompositeFieldContainer[Assignment]
    deleted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, previous_revision: _Optional[int] = ..., upserts: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., deleted: _Optional[_Iterable[str]] = ...) -> None: ...

class ProgressMark(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetShardStatusRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: str
    def __init__(self, shard: _Optional[str] = ...) -> None: ...

class ListShardStatusesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListShardStatusesResponse(_message.Message):
    __slots__ = ("shards", "next_page_token")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardStatus]
    next_page_token: str
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ShardStatus(_message.Message):
    __slots__ = ("shard", "connected", "incarnation", "agent_version", "airflow_version", "schema_revision", "report_time", "health", "capacity", "usage", "reserved", "room", "cordon", "namespaces", "namespace_usage", "unowned_dags", "not_placeable", "role_totals", "roles")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    AIRFLOW_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_REVISION_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    CORDON_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_USAGE_FIELD_NUMBER: _ClassVar[int]
    UNOWNED_DAGS_FIELD_NUMBER: _ClassVar[int]
    NOT_PLACEABLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_TOTALS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    shard: str
    connected: bool
    incarnation: str
    agent_version: str
    airflow_version: str
    schema_revision: str
    report_time: _timestamp_pb2.Timestamp
    health: _common_pb2.Health
    capacity: _common_pb2.Resources
    usage: _common_pb2.Resources
    reserved: _common_pb2.Resources
    room: _common_pb2.Resources
    cordon: Cordon
    namespaces: int
    namespace_usage: _containers.RepeatedCompositeFieldContainer[NamespaceUsage]
    unowned_dags: int
    not_placeable: _containers.RepeatedScalarFieldContainer[str]
    role_totals: RoleTotals
    roles: _containers.RepeatedCompositeFieldContainer[RoleSummary]
    def __init__(self, shard: _Optional[str] = ..., connected: bool = ..., incarnation: _Optional[str] = ..., agent_version: _Optional[str] = ..., airflow_version: _Optional[str] = ..., schema_revision: _Optional[str] = ..., report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., health: _Optional[_Union[_common_pb2.Health, _Mapping]] = ..., capacity: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., usage: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., reserved: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., room: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., cordon: _Optional[_Union[Cordon, _Mapping]] = ..., namespaces: _Optional[int] = ..., namespace_usage: _Optional[_Iterable[_Union[NamespaceUsage, _Mapping]]] = ..., unowned_dags: _Optional[int] = ..., not_placeable: _Optional[_Iterable[str]] = ..., role_totals: _Optional[_Union[RoleTotals, _Mapping]] = ..., roles: _Optional[_Iterable[_Union[RoleSummary, _Mapping]]] = ...) -> None: ...

class RoleTotals(_message.Message):
    __slots__ = ("desired", "unreached", "obstacles", "drift", "violations", "fenced_dags", "giving_up")
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    UNREACHED_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    FENCED_DAGS_FIELD_NUMBER: _ClassVar[int]
    GIVING_UP_FIELD_NUMBER: _ClassVar[int]
    desired: int
    unreached: int
    obstacles: int
    drift: int
    violations: int
    fenced_dags: int
    giving_up: int
    def __init__(self, desired: _Optional[int] = ..., unreached: _Optional[int] = ..., obstacles: _Optional[int] = ..., drift: _Optional[int] = ..., violations: _Optional[int] = ..., fenced_dags: _Optional[int] = ..., giving_up: _Optional[int] = ...) -> None: ...

class RoleSummary(_message.Message):
    __slots__ = ("namespace", "shard", "desired_role", "desired_generation", "role", "generation", "reached", "release", "release_time", "drift", "violations", "obstacle", "connected")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    DESIRED_ROLE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TIME_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shard: str
    desired_role: _common_pb2.Role
    desired_generation: int
    role: _common_pb2.Role
    generation: int
    reached: bool
    release: str
    release_time: _timestamp_pb2.Timestamp
    drift: int
    violations: int
    obstacle: str
    connected: bool
    def __init__(self, namespace: _Optional[str] = ..., shard: _Optional[str] = ..., desired_role: _Optional[_Union[_common_pb2.Role, str]] = ..., desired_generation: _Optional[int] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., generation: _Optional[int] = ..., reached: bool = ..., release: _Optional[str] = ..., release_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., drift: _Optional[int] = ..., violations: _Optional[int] = ..., obstacle: _Optional[str] = ..., connected: bool = ...) -> None: ...

class GetNamespaceStatusRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class NamespaceStatus(_message.Message):
    __slots__ = ("assignment", "roles", "manifest_revision")
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    assignment: Assignment
    roles: _containers.RepeatedCompositeFieldContainer[ShardRole]
    manifest_revision: int
    def __init__(self, assignment: _Optional[_Union[Assignment, _Mapping]] = ..., roles: _Optional[_Iterable[_Union[ShardRole, _Mapping]]] = ..., manifest_revision: _Optional[int] = ...) -> None: ...

class ShardRole(_message.Message):
    __slots__ = ("shard", "desired_role", "desired_generation", "reason", "reached", "observed", "details_cut", "drift_count", "waits_for", "connected", "report_time", "purge_time")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    DESIRED_ROLE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    DETAILS_CUT_FIELD_NUMBER: _ClassVar[int]
    DRIFT_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    REPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    PURGE_TIME_FIELD_NUMBER: _ClassVar[int]
    shard: str
    desired_role: _common_pb2.Role
    desired_generation: int
    reason: str
    reached: bool
    observed: _agent_pb2.ObservedRole
    details_cut: bool
    drift_count: int
    waits_for: str
    connected: bool
    report_time: _timestamp_pb2.Timestamp
    purge_time: _timestamp_pb2.Timestamp
    def __init__(self, shard: _Optional[str] = ..., desired_role: _Optional[_Union[_common_pb2.Role, str]] = ..., desired_generation: _Optional[int] = ..., reason: _Optional[str] = ..., reached: bool = ..., observed: _Optional[_Union[_agent_pb2.ObservedRole, _Mapping]] = ..., details_cut: bool = ..., drift_count: _Optional[int] = ..., waits_for: _Optional[str] = ..., connected: bool = ..., report_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., purge_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListNamespaceStatusesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "shard", "attention")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    shard: str
    attention: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., shard: _Optional[str] = ..., attention: bool = ...) -> None: ...

class ListNamespaceStatusesResponse(_message.Message):
    __slots__ = ("roles", "next_page_token")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedCompositeFieldContainer[RoleSummary]
    next_page_token: str
    def __init__(self, roles: _Optional[_Iterable[_Union[RoleSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class NamespaceEvent(_message.Message):
    __slots__ = ("namespace", "sequence", "time", "shard", "source", "code", "message", "warning", "id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    sequence: int
    time: _timestamp_pb2.Timestamp
    shard: str
    source: str
    code: str
    message: str
    warning: bool
    id: str
    def __init__(self, namespace: _Optional[str] = ..., sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., shard: _Optional[str] = ..., source: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., warning: bool = ..., id: _Optional[str] = ...) -> None: ...

class ListNamespaceEventsRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNamespaceEventsResponse(_message.Message):
    __slots__ = ("events", "next_page_token", "sequence")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[NamespaceEvent]
    next_page_token: str
    sequence: int
    def __init__(self, events: _Optional[_Iterable[_Union[NamespaceEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class WatchNamespaceEventsRequest(_message.Message):
    __slots__ = ("namespace", "resume_sequence")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RESUME_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    resume_sequence: int
    def __init__(self, namespace: _Optional[str] = ..., resume_sequence: _Optional[int] = ...) -> None: ...

class Cordon(_message.Message):
    __slots__ = ("actor", "reason", "time")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    actor: str
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, actor: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NamespaceUsage(_message.Message):
    __slots__ = ("namespace", "usage", "unpaused_dags", "active_runs", "active_task_instances")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    UNPAUSED_DAGS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TASK_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    usage: _common_pb2.Resources
    unpaused_dags: int
    active_runs: int
    active_task_instances: int
    def __init__(self, namespace: _Optional[str] = ..., usage: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., unpaused_dags: _Optional[int] = ..., active_runs: _Optional[int] = ..., active_task_instances: _Optional[int] = ...) -> None: ...

class CordonShardRequest(_message.Message):
    __slots__ = ("shard", "reason")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    shard: str
    reason: str
    def __init__(self, shard: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class UncordonShardRequest(_message.Message):
    __slots__ = ("shard",)
    SHARD_FIELD_NUMBER: _ClassVar[int]
    shard: str
    def __init__(self, shard: _Optional[str] = ...) -> None: ...

class PinNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "shard", "reason", "expected_generation", "validate_only", "force")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shard: str
    reason: str
    expected_generation: int
    validate_only: bool
    force: bool
    def __init__(self, namespace: _Optional[str] = ..., shard: _Optional[str] = ..., reason: _Optional[str] = ..., expected_generation: _Optional[int] = ..., validate_only: bool = ..., force: bool = ...) -> None: ...

class UnpinNamespaceRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class ReleaseNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "namespace_uid", "force", "reason", "validate_only", "manifest_revision")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_UID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    namespace_uid: str
    force: bool
    reason: str
    validate_only: bool
    manifest_revision: int
    def __init__(self, namespace: _Optional[str] = ..., namespace_uid: _Optional[str] = ..., force: bool = ..., reason: _Optional[str] = ..., validate_only: bool = ..., manifest_revision: _Optional[int] = ...) -> None: ...

class ReleaseShardRequest(_message.Message):
    __slots__ = ("shard", "validate_only", "manifest_revision")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    shard: str
    validate_only: bool
    manifest_revision: int
    def __init__(self, shard: _Optional[str] = ..., validate_only: bool = ..., manifest_revision: _Optional[int] = ...) -> None: ...

class ReleaseShardResponse(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class GetRouterStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RouterStatus(_message.Message):
    __slots__ = ("replica", "leader", "leader_address", "term", "revision", "age_ms", "namespaces", "agents", "source", "manifest_revision")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    replica: str
    leader: bool
    leader_address: str
    term: int
    revision: int
    age_ms: int
    namespaces: int
    agents: int
    source: str
    manifest_revision: int
    def __init__(self, replica: _Optional[str] = ..., leader: bool = ..., leader_address: _Optional[str] = ..., term: _Optional[int] = ..., revision: _Optional[int] = ..., age_ms: _Optional[int] = ..., namespaces: _Optional[int] = ..., agents: _Optional[int] = ..., source: _Optional[str] = ..., manifest_revision: _Optional[int] = ...) -> None: ...
