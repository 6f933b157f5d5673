import datetime

from airfleet.common.v1 import common_pb2 as _common_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MoveSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_SIDE_UNSPECIFIED: _ClassVar[MoveSide]
    MOVE_SIDE_SOURCE: _ClassVar[MoveSide]
    MOVE_SIDE_TARGET: _ClassVar[MoveSide]

class TransferPart(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSFER_PART_UNSPECIFIED: _ClassVar[TransferPart]
    TRANSFER_PART_AHEAD: _ClassVar[TransferPart]
    TRANSFER_PART_REST: _ClassVar[TransferPart]

class TransferState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSFER_STATE_UNSPECIFIED: _ClassVar[TransferState]
    TRANSFER_STATE_RUNNING: _ClassVar[TransferState]
    TRANSFER_STATE_DONE: _ClassVar[TransferState]
    TRANSFER_STATE_FAILED: _ClassVar[TransferState]

class DagChangeTrouble(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DAG_CHANGE_TROUBLE_UNSPECIFIED: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_NOT_ACTIVE: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_BUSY: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_AWAY: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_NOT_SET_UP: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_NOT_FOUND: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_REFUSED: _ClassVar[DagChangeTrouble]
    DAG_CHANGE_TROUBLE_IN_DOUBT: _ClassVar[DagChangeTrouble]
MOVE_SIDE_UNSPECIFIED: MoveSide
MOVE_SIDE_SOURCE: MoveSide
MOVE_SIDE_TARGET: MoveSide
TRANSFER_PART_UNSPECIFIED: TransferPart
TRANSFER_PART_AHEAD: TransferPart
TRANSFER_PART_REST: TransferPart
TRANSFER_STATE_UNSPECIFIED: TransferState
TRANSFER_STATE_RUNNING: TransferState
TRANSFER_STATE_DONE: TransferState
TRANSFER_STATE_FAILED: TransferState
DAG_CHANGE_TROUBLE_UNSPECIFIED: DagChangeTrouble
DAG_CHANGE_TROUBLE_NOT_ACTIVE: DagChangeTrouble
DAG_CHANGE_TROUBLE_BUSY: DagChangeTrouble
DAG_CHANGE_TROUBLE_AWAY: DagChangeTrouble
DAG_CHANGE_TROUBLE_NOT_SET_UP: DagChangeTrouble
DAG_CHANGE_TROUBLE_NOT_FOUND: DagChangeTrouble
DAG_CHANGE_TROUBLE_REFUSED: DagChangeTrouble
DAG_CHANGE_TROUBLE_IN_DOUBT: DagChangeTrouble

class AttachRequest(_message.Message):
    __slots__ = ("hello", "report", "owners_query", "move_evidence", "inspection", "dag_change_result")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    OWNERS_QUERY_FIELD_NUMBER: _ClassVar[int]
    MOVE_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    INSPECTION_FIELD_NUMBER: _ClassVar[int]
    DAG_CHANGE_RESULT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    report: Report
    owners_query: OwnersQuery
    move_evidence: MoveEvidence
    inspection: Inspection
    dag_change_result: DagChangeResult
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., owners_query: _Optional[_Union[OwnersQuery, _Mapping]] = ..., move_evidence: _Optional[_Union[MoveEvidence, _Mapping]] = ..., inspection: _Optional[_Union[Inspection, _Mapping]] = ..., dag_change_result: _Optional[_Union[DagChangeResult, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("welcome", "report_ack", "desired_roles", "owners_answer", "inspect", "dag_change")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPORT_ACK_FIELD_NUMBER: _ClassVar[int]
    DESIRED_ROLES_FIELD_NUMBER: _ClassVar[int]
    OWNERS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    INSPECT_FIELD_NUMBER: _ClassVar[int]
    DAG_CHANGE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    report_ack: ReportAck
    desired_roles: DesiredRoles
    owners_answer: OwnersAnswer
    inspect: Inspect
    dag_change: DagChange
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., report_ack: _Optional[_Union[ReportAck, _Mapping]] = ..., desired_roles: _Optional[_Union[DesiredRoles, _Mapping]] = ..., owners_answer: _Optional[_Union[OwnersAnswer, _Mapping]] = ..., inspect: _Optional[_Union[Inspect, _Mapping]] = ..., dag_change: _Optional[_Union[DagChange, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("shard", "incarnation", "agent_version", "airflow_version", "schema_revision", "hostname")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    AIRFLOW_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_REVISION_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    shard: str
    incarnation: str
    agent_version: str
    airflow_version: str
    schema_revision: str
    hostname: str
    def __init__(self, shard: _Optional[str] = ..., incarnation: _Optional[str] = ..., agent_version: _Optional[str] = ..., airflow_version: _Optional[str] = ..., schema_revision: _Optional[str] = ..., hostname: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("term", "report_interval_ms", "full_report_interval_ms")
    TERM_FIELD_NUMBER: _ClassVar[int]
    REPORT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    FULL_REPORT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    term: int
    report_interval_ms: int
    full_report_interval_ms: int
    def __init__(self, term: _Optional[int] = ..., report_interval_ms: _Optional[int] = ..., full_report_interval_ms: _Optional[int] = ...) -> None: ...

class ReportAck(_message.Message):
    __slots__ = ("sequence", "send_full", "keep_events", "prefixes_revision")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SEND_FULL_FIELD_NUMBER: _ClassVar[int]
    KEEP_EVENTS_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_REVISION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    send_full: bool
    keep_events: bool
    prefixes_revision: int
    def __init__(self, sequence: _Optional[int] = ..., send_full: bool = ..., keep_events: bool = ..., prefixes_revision: _Optional[int] = ...) -> None: ...

class DesiredRoles(_message.Message):
    __slots__ = ("term", "sequence", "full", "roles", "removed", "more")
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    term: int
    sequence: int
    full: bool
    roles: _containers.RepeatedCompositeFieldContainer[DesiredRole]
    removed: _containers.RepeatedScalarFieldContainer[str]
    more: bool
    def __init__(self, term: _Optional[int] = ..., sequence: _Optional[int] = ..., full: bool = ..., roles: _Optional[_Iterable[_Union[DesiredRole, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ..., more: bool = ...) -> None: ...

class DesiredRole(_message.Message):
    __slots__ = ("namespace", "prefixes", "role", "generation", "workload", "manifest_revision", "revision", "move")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MOVE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    role: _common_pb2.Role
    generation: int
    workload: Workload
    manifest_revision: int
    revision: int
    move: MoveTask
    def __init__(self, namespace: _Optional[str] = ..., prefixes: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., generation: _Optional[int] = ..., workload: _Optional[_Union[Workload, _Mapping]] = ..., manifest_revision: _Optional[int] = ..., revision: _Optional[int] = ..., move: _Optional[_Union[MoveTask, _Mapping]] = ...) -> None: ...

class MoveTask(_message.Message):
    __slots__ = ("move_id", "side", "peer", "attempt", "transfer")
    MOVE_ID_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    move_id: str
    side: MoveSide
    peer: str
    attempt: int
    transfer: TransferTask
    def __init__(self, move_id: _Optional[str] = ..., side: _Optional[_Union[MoveSide, str]] = ..., peer: _Optional[str] = ..., attempt: _Optional[int] = ..., transfer: _Optional[_Union[TransferTask, _Mapping]] = ...) -> None: ...

class TransferTask(_message.Message):
    __slots__ = ("part", "history")
    PART_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    part: TransferPart
    history: _common_pb2.MoveHistory
    def __init__(self, part: _Optional[_Union[TransferPart, str]] = ..., history: _Optional[_Union[_common_pb2.MoveHistory, str]] = ...) -> None: ...

class MoveEvidence(_message.Message):
    __slots__ = ("namespace", "move_id", "revision", "attempt", "role", "generation", "obstacle", "dag_ids", "drain", "marks", "transfer", "stop_time", "start_time", "inserted_runs", "start_marks")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MOVE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    DAG_IDS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    STOP_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    INSERTED_RUNS_FIELD_NUMBER: _ClassVar[int]
    START_MARKS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    move_id: str
    revision: int
    attempt: int
    role: _common_pb2.Role
    generation: int
    obstacle: Obstacle
    dag_ids: DagIds
    drain: Drain
    marks: Marks
    transfer: TransferProgress
    stop_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    inserted_runs: _containers.RepeatedCompositeFieldContainer[InsertedRun]
    start_marks: Marks
    def __init__(self, namespace: _Optional[str] = ..., move_id: _Optional[str] = ..., revision: _Optional[int] = ..., attempt: _Optional[int] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., generation: _Optional[int] = ..., obstacle: _Optional[_Union[Obstacle, _Mapping]] = ..., dag_ids: _Optional[_Union[DagIds, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., marks: _Optional[_Union[Marks, _Mapping]] = ..., transfer: _Optional[_Union[TransferProgress, _Mapping]] = ..., stop_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., inserted_runs: _Optional[_Iterable[_Union[InsertedRun, _Mapping]]] = ..., start_marks: _Optional[_Union[Marks, _Mapping]] = ...) -> None: ...

class DagIds(_message.Message):
    __slots__ = ("dag_ids",)
    DAG_IDS_FIELD_NUMBER: _ClassVar[int]
    dag_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dag_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("running", "queued", "deferred", "confirmed")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    running: int
    queued: int
    deferred: int
    confirmed: bool
    def __init__(self, running: _Optional[int] = ..., queued: _Optional[int] = ..., deferred: _Optional[int] = ..., confirmed: bool = ...) -> None: ...

class Marks(_message.Message):
    __slots__ = ("marks",)
    MARKS_FIELD_NUMBER: _ClassVar[int]
    marks: _containers.RepeatedCompositeFieldContainer[Mark]
    def __init__(self, marks: _Optional[_Iterable[_Union[Mark, _Mapping]]] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("dag_id", "newest_logical_date", "runs", "unfinished_runs", "paused")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    NEWEST_LOGICAL_DATE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_RUNS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    newest_logical_date: _timestamp_pb2.Timestamp
    runs: int
    unfinished_runs: int
    paused: bool
    def __init__(self, dag_id: _Optional[str] = ..., newest_logical_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runs: _Optional[int] = ..., unfinished_runs: _Optional[int] = ..., paused: bool = ...) -> None: ...

class InsertedRun(_message.Message):
    __slots__ = ("dag_id", "logical_date")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_DATE_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    logical_date: _timestamp_pb2.Timestamp
    def __init__(self, dag_id: _Optional[str] = ..., logical_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TransferProgress(_message.Message):
    __slots__ = ("part", "attempt", "state", "bytes", "total_bytes", "obstacle", "tables", "running")
    PART_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    part: TransferPart
    attempt: int
    state: TransferState
    bytes: int
    total_bytes: int
    obstacle: Obstacle
    tables: _containers.RepeatedCompositeFieldContainer[TableSum]
    running: _containers.RepeatedCompositeFieldContainer[TableProgress]
    def __init__(self, part: _Optional[_Union[TransferPart, str]] = ..., attempt: _Optional[int] = ..., state: _Optional[_Union[TransferState, str]] = ..., bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., obstacle: _Optional[_Union[Obstacle, _Mapping]] = ..., tables: _Optional[_Iterable[_Union[TableSum, _Mapping]]] = ..., running: _Optional[_Iterable[_Union[TableProgress, _Mapping]]] = ...) -> None: ...

class TableProgress(_message.Message):
    __slots__ = ("table", "rows", "total_rows", "bytes")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: int
    total_rows: int
    bytes: int
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[int] = ..., total_rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class TableSum(_message.Message):
    __slots__ = ("table", "rows", "checksum")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: int
    checksum: str
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[int] = ..., checksum: _Optional[str] = ...) -> None: ...

class Inspect(_message.Message):
    __slots__ = ("number", "namespace", "prefixes", "side")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    number: int
    namespace: str
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    side: MoveSide
    def __init__(self, number: _Optional[int] = ..., namespace: _Optional[str] = ..., prefixes: _Optional[_Iterable[str]] = ..., side: _Optional[_Union[MoveSide, str]] = ...) -> None: ...

class Inspection(_message.Message):
    __slots__ = ("number", "namespace", "side", "airflow_version", "schema_revision", "schema_digest", "not_understood", "database", "dags_folder", "providers", "pools", "fernet_digest", "secrets_backend", "dags", "runs", "task_instances", "running", "deferred", "open_backfills", "asset_crossings", "obstacles")
    class ProvidersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    AIRFLOW_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_REVISION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOT_UNDERSTOOD_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    DAGS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    FERNET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SECRETS_BACKEND_FIELD_NUMBER: _ClassVar[int]
    DAGS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    TASK_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    OPEN_BACKFILLS_FIELD_NUMBER: _ClassVar[int]
    ASSET_CROSSINGS_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    number: int
    namespace: str
    side: MoveSide
    airflow_version: str
    schema_revision: str
    schema_digest: str
    not_understood: _containers.RepeatedScalarFieldContainer[str]
    database: str
    dags_folder: str
    providers: _containers.ScalarMap[str, str]
    pools: _containers.RepeatedScalarFieldContainer[str]
    fernet_digest: str
    secrets_backend: str
    dags: int
    runs: int
    task_instances: int
    running: int
    deferred: int
    open_backfills: _containers.RepeatedScalarFieldContainer[str]
    asset_crossings: _containers.RepeatedScalarFieldContainer[str]
    obstacles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., namespace: _Optional[str] = ..., side: _Optional[_Union[MoveSide, str]] = ..., airflow_version: _Optional[str] = ..., schema_revision: _Optional[str] = ..., schema_digest: _Optional[str] = ..., not_understood: _Optional[_Iterable[str]] = ..., database: _Optional[str] = ..., dags_folder: _Optional[str] = ..., providers: _Optional[_Mapping[str, str]] = ..., pools: _Optional[_Iterable[str]] = ..., fernet_digest: _Optional[str] = ..., secrets_backend: _Optional[str] = ..., dags: _Optional[int] = ..., runs: _Optional[int] = ..., task_instances: _Optional[int] = ..., running: _Optional[int] = ..., deferred: _Optional[int] = ..., open_backfills: _Optional[_Iterable[str]] = ..., asset_crossings: _Optional[_Iterable[str]] = ..., obstacles: _Optional[_Iterable[str]] = ...) -> None: ...

class DagChange(_message.Message):
    __slots__ = ("number", "namespace", "generation", "dag_id", "patience_ms", "trigger", "clear", "paused")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_MS_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    CLEAR_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    number: int
    namespace: str
    generation: int
    dag_id: str
    patience_ms: int
    trigger: DagTrigger
    clear: DagClear
    paused: bool
    def __init__(self, number: _Optional[int] = ..., namespace: _Optional[str] = ..., generation: _Optional[int] = ..., dag_id: _Optional[str] = ..., patience_ms: _Optional[int] = ..., trigger: _Optional[_Union[DagTrigger, _Mapping]] = ..., clear: _Optional[_Union[DagClear, _Mapping]] = ..., paused: bool = ...) -> None: ...

class DagTrigger(_message.Message):
    __slots__ = ("run_id", "conf_json", "logical_date", "note")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CONF_JSON_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_DATE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    conf_json: str
    logical_date: _timestamp_pb2.Timestamp
    note: str
    def __init__(self, run_id: _Optional[str] = ..., conf_json: _Optional[str] = ..., logical_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class DagClear(_message.Message):
    __slots__ = ("run_id", "only_failed", "task_ids")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ONLY_FAILED_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    only_failed: bool
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run_id: _Optional[str] = ..., only_failed: bool = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DagChangeResult(_message.Message):
    __slots__ = ("number", "done", "failed")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    number: int
    done: DagChangeDone
    failed: DagChangeFailure
    def __init__(self, number: _Optional[int] = ..., done: _Optional[_Union[DagChangeDone, _Mapping]] = ..., failed: _Optional[_Union[DagChangeFailure, _Mapping]] = ...) -> None: ...

class DagChangeDone(_message.Message):
    __slots__ = ("run_state", "existed", "cleared")
    RUN_STATE_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    run_state: str
    existed: bool
    cleared: int
    def __init__(self, run_state: _Optional[str] = ..., existed: bool = ..., cleared: _Optional[int] = ...) -> None: ...

class DagChangeFailure(_message.Message):
    __slots__ = ("trouble", "message")
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    trouble: DagChangeTrouble
    message: str
    def __init__(self, trouble: _Optional[_Union[DagChangeTrouble, str]] = ..., message: _Optional[str] = ...) -> None: ...

class TransferRequest(_message.Message):
    __slots__ = ("open", "begin", "table", "chunk", "trailer", "ack", "result")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    open: TransferOpen
    begin: TransferBegin
    table: TransferTable
    chunk: TransferChunk
    trailer: TransferTrailer
    ack: TransferAck
    result: TransferResult
    def __init__(self, open: _Optional[_Union[TransferOpen, _Mapping]] = ..., begin: _Optional[_Union[TransferBegin, _Mapping]] = ..., table: _Optional[_Union[TransferTable, _Mapping]] = ..., chunk: _Optional[_Union[TransferChunk, _Mapping]] = ..., trailer: _Optional[_Union[TransferTrailer, _Mapping]] = ..., ack: _Optional[_Union[TransferAck, _Mapping]] = ..., result: _Optional[_Union[TransferResult, _Mapping]] = ...) -> None: ...

class TransferResponse(_message.Message):
    __slots__ = ("joined", "begin", "table", "chunk", "trailer", "ack", "result")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TRAILER_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    joined: TransferJoined
    begin: TransferBegin
    table: TransferTable
    chunk: TransferChunk
    trailer: TransferTrailer
    ack: TransferAck
    result: TransferResult
    def __init__(self, joined: _Optional[_Union[TransferJoined, _Mapping]] = ..., begin: _Optional[_Union[TransferBegin, _Mapping]] = ..., table: _Optional[_Union[TransferTable, _Mapping]] = ..., chunk: _Optional[_Union[TransferChunk, _Mapping]] = ..., trailer: _Optional[_Union[TransferTrailer, _Mapping]] = ..., ack: _Optional[_Union[TransferAck, _Mapping]] = ..., result: _Optional[_Union[TransferResult, _Mapping]] = ...) -> None: ...

class TransferOpen(_message.Message):
    __slots__ = ("shard", "namespace", "move_id", "side", "part", "attempt", "kept")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MOVE_ID_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    shard: str
    namespace: str
    move_id: str
    side: MoveSide
    part: TransferPart
    attempt: int
    kept: TransferPosition
    def __init__(self, shard: _Optional[str] = ..., namespace: _Optional[str] = ..., move_id: _Optional[str] = ..., side: _Optional[_Union[MoveSide, str]] = ..., part: _Optional[_Union[TransferPart, str]] = ..., attempt: _Optional[int] = ..., kept: _Optional[_Union[TransferPosition, _Mapping]] = ...) -> None: ...

class TransferPosition(_message.Message):
    __slots__ = ("sequence", "digest")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    digest: int
    def __init__(self, sequence: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class TransferJoined(_message.Message):
    __slots__ = ("kept",)
    KEPT_FIELD_NUMBER: _ClassVar[int]
    kept: TransferPosition
    def __init__(self, kept: _Optional[_Union[TransferPosition, _Mapping]] = ...) -> None: ...

class TransferBegin(_message.Message):
    __slots__ = ("after", "total_bytes", "tables", "keeps_ahead")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    KEEPS_AHEAD_FIELD_NUMBER: _ClassVar[int]
    after: TransferPosition
    total_bytes: int
    tables: _containers.RepeatedCompositeFieldContainer[TableEstimate]
    keeps_ahead: bool
    def __init__(self, after: _Optional[_Union[TransferPosition, _Mapping]] = ..., total_bytes: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[TableEstimate, _Mapping]]] = ..., keeps_ahead: bool = ...) -> None: ...

class TableEstimate(_message.Message):
    __slots__ = ("table", "rows", "bytes")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: int
    bytes: int
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class TransferTable(_message.Message):
    __slots__ = ("table", "columns")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    table: str
    columns: _containers.RepeatedCompositeFieldContainer[TransferColumn]
    def __init__(self, table: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[TransferColumn, _Mapping]]] = ...) -> None: ...

class TransferColumn(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class TransferChunk(_message.Message):
    __slots__ = ("sequence", "table", "rows", "checksum", "digest")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    table: str
    rows: bytes
    checksum: int
    digest: int
    def __init__(self, sequence: _Optional[int] = ..., table: _Optional[str] = ..., rows: _Optional[bytes] = ..., checksum: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class TransferTrailer(_message.Message):
    __slots__ = ("last", "tables", "marks", "stop_time", "changed_runs")
    LAST_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    STOP_TIME_FIELD_NUMBER: _ClassVar[int]
    CHANGED_RUNS_FIELD_NUMBER: _ClassVar[int]
    last: TransferPosition
    tables: _containers.RepeatedCompositeFieldContainer[TableSum]
    marks: _containers.RepeatedCompositeFieldContainer[Mark]
    stop_time: _timestamp_pb2.Timestamp
    changed_runs: _containers.RepeatedCompositeFieldContainer[TransferRun]
    def __init__(self, last: _Optional[_Union[TransferPosition, _Mapping]] = ..., tables: _Optional[_Iterable[_Union[TableSum, _Mapping]]] = ..., marks: _Optional[_Iterable[_Union[Mark, _Mapping]]] = ..., stop_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., changed_runs: _Optional[_Iterable[_Union[TransferRun, _Mapping]]] = ...) -> None: ...

class TransferRun(_message.Message):
    __slots__ = ("dag_id", "run_id")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    run_id: str
    def __init__(self, dag_id: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class TransferAck(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class TransferResult(_message.Message):
    __slots__ = ("obstacle",)
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    obstacle: Obstacle
    def __init__(self, obstacle: _Optional[_Union[Obstacle, _Mapping]] = ...) -> None: ...

class OwnersQuery(_message.Message):
    __slots__ = ("number", "dag_ids")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DAG_IDS_FIELD_NUMBER: _ClassVar[int]
    number: int
    dag_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, number: _Optional[int] = ..., dag_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class OwnersAnswer(_message.Message):
    __slots__ = ("number", "revision", "prefixes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    number: int
    revision: int
    prefixes: _containers.RepeatedCompositeFieldContainer[ForeignPrefix]
    def __init__(self, number: _Optional[int] = ..., revision: _Optional[int] = ..., prefixes: _Optional[_Iterable[_Union[ForeignPrefix, _Mapping]]] = ...) -> None: ...

class ForeignPrefix(_message.Message):
    __slots__ = ("prefix", "namespace", "shard")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    namespace: str
    shard: str
    def __init__(self, prefix: _Optional[str] = ..., namespace: _Optional[str] = ..., shard: _Optional[str] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("owners", "guardrails", "source", "pools", "variables", "connections", "retention", "drift")
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    GUARDRAILS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    owners: _containers.RepeatedScalarFieldContainer[str]
    guardrails: _common_pb2.Guardrails
    source: _common_pb2.DagSource
    pools: _containers.RepeatedCompositeFieldContainer[_common_pb2.Pool]
    variables: _containers.RepeatedCompositeFieldContainer[_common_pb2.Variable]
    connections: _containers.RepeatedCompositeFieldContainer[_common_pb2.Connection]
    retention: _common_pb2.Retention
    drift: _common_pb2.Enforcement
    def __init__(self, owners: _Optional[_Iterable[str]] = ..., guardrails: _Optional[_Union[_common_pb2.Guardrails, _Mapping]] = ..., source: _Optional[_Union[_common_pb2.DagSource, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[_common_pb2.Pool, _Mapping]]] = ..., variables: _Optional[_Iterable[_Union[_common_pb2.Variable, _Mapping]]] = ..., connections: _Optional[_Iterable[_Union[_common_pb2.Connection, _Mapping]]] = ..., retention: _Optional[_Union[_common_pb2.Retention, _Mapping]] = ..., drift: _Optional[_Union[_common_pb2.Enforcement, str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("sequence", "full", "observe_time", "health", "usage", "capacity", "namespaces", "removed_namespaces", "signals", "unowned_dags", "airflow_version", "schema_revision", "roles", "removed_roles", "events")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    OBSERVE_TIME_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    UNOWNED_DAGS_FIELD_NUMBER: _ClassVar[int]
    AIRFLOW_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_REVISION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_ROLES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    full: bool
    observe_time: _timestamp_pb2.Timestamp
    health: _common_pb2.Health
    usage: _common_pb2.Resources
    capacity: _common_pb2.Resources
    namespaces: _containers.RepeatedCompositeFieldContainer[NamespaceReport]
    removed_namespaces: _containers.RepeatedScalarFieldContainer[str]
    signals: Signals
    unowned_dags: int
    airflow_version: str
    schema_revision: str
    roles: _containers.RepeatedCompositeFieldContainer[ObservedRole]
    removed_roles: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, sequence: _Optional[int] = ..., full: bool = ..., observe_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., health: _Optional[_Union[_common_pb2.Health, _Mapping]] = ..., usage: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., capacity: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., namespaces: _Optional[_Iterable[_Union[NamespaceReport, _Mapping]]] = ..., removed_namespaces: _Optional[_Iterable[str]] = ..., signals: _Optional[_Union[Signals, _Mapping]] = ..., unowned_dags: _Optional[int] = ..., airflow_version: _Optional[str] = ..., schema_revision: _Optional[str] = ..., roles: _Optional[_Iterable[_Union[ObservedRole, _Mapping]]] = ..., removed_roles: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class ObservedRole(_message.Message):
    __slots__ = ("namespace", "role", "generation", "target_role", "target_generation", "obstacle", "release", "drift", "violations", "violation_count", "fenced_dags", "role_time", "manifest_revision")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TARGET_ROLE_FIELD_NUMBER: _ClassVar[int]
    TARGET_GENERATION_FIELD_NUMBER: _ClassVar[int]
    OBSTACLE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    VIOLATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    FENCED_DAGS_FIELD_NUMBER: _ClassVar[int]
    ROLE_TIME_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_REVISION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    role: _common_pb2.Role
    generation: int
    target_role: _common_pb2.Role
    target_generation: int
    obstacle: Obstacle
    release: Release
    drift: _containers.RepeatedCompositeFieldContainer[Drift]
    violations: _containers.RepeatedCompositeFieldContainer[PolicyViolation]
    violation_count: int
    fenced_dags: int
    role_time: _timestamp_pb2.Timestamp
    manifest_revision: int
    def __init__(self, namespace: _Optional[str] = ..., role: _Optional[_Union[_common_pb2.Role, str]] = ..., generation: _Optional[int] = ..., target_role: _Optional[_Union[_common_pb2.Role, str]] = ..., target_generation: _Optional[int] = ..., obstacle: _Optional[_Union[Obstacle, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., drift: _Optional[_Iterable[_Union[Drift, _Mapping]]] = ..., violations: _Optional[_Iterable[_Union[PolicyViolation, _Mapping]]] = ..., violation_count: _Optional[int] = ..., fenced_dags: _Optional[int] = ..., role_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., manifest_revision: _Optional[int] = ...) -> None: ...

class Obstacle(_message.Message):
    __slots__ = ("code", "message", "attempts", "since_time")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    attempts: int
    since_time: _timestamp_pb2.Timestamp
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., attempts: _Optional[int] = ..., since_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("id", "switch_time", "files", "bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    SWITCH_TIME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    switch_time: _timestamp_pb2.Timestamp
    files: int
    bytes: int
    def __init__(self, id: _Optional[str] = ..., switch_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("kind", "name", "code", "message", "tolerated")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOLERATED_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    code: str
    message: str
    tolerated: bool
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., tolerated: bool = ...) -> None: ...

class PolicyViolation(_message.Message):
    __slots__ = ("code", "mode", "dag_id", "task_id", "message", "first_time", "last_time", "count")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    code: str
    mode: _common_pb2.Enforcement
    dag_id: str
    task_id: str
    message: str
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    count: int
    def __init__(self, code: _Optional[str] = ..., mode: _Optional[_Union[_common_pb2.Enforcement, str]] = ..., dag_id: _Optional[str] = ..., task_id: _Optional[str] = ..., message: _Optional[str] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("namespace", "time", "code", "message", "warning", "id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    time: _timestamp_pb2.Timestamp
    code: str
    message: str
    warning: bool
    id: str
    def __init__(self, namespace: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., warning: bool = ..., id: _Optional[str] = ...) -> None: ...

class NamespaceReport(_message.Message):
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

class Signals(_message.Message):
    __slots__ = ("scheduler_heartbeat_age_ms", "dag_processor_heartbeat_age_ms", "triggerer_heartbeat_age_ms", "live_workers", "queued_messages", "unacked_messages", "scheduling_delay_p95_ms", "late_dags", "lateness_max_ms", "import_errors", "oldest_waiting_ms", "failures_last_hour", "metadata_probe_ms", "broker_probe_ms", "api_probe_ms", "occupied_slots", "pool_slots")
    SCHEDULER_HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DAG_PROCESSOR_HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    TRIGGERER_HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    LIVE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    UNACKED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SCHEDULING_DELAY_P95_MS_FIELD_NUMBER: _ClassVar[int]
    LATE_DAGS_FIELD_NUMBER: _ClassVar[int]
    LATENESS_MAX_MS_FIELD_NUMBER: _ClassVar[int]
    IMPORT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAITING_MS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_LAST_HOUR_FIELD_NUMBER: _ClassVar[int]
    METADATA_PROBE_MS_FIELD_NUMBER: _ClassVar[int]
    BROKER_PROBE_MS_FIELD_NUMBER: _ClassVar[int]
    API_PROBE_MS_FIELD_NUMBER: _ClassVar[int]
    OCCUPIED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    POOL_SLOTS_FIELD_NUMBER: _ClassVar[int]
    scheduler_heartbeat_age_ms: int
    dag_processor_heartbeat_age_ms: int
    triggerer_heartbeat_age_ms: int
    live_workers: int
    queued_messages: int
    unacked_messages: int
    scheduling_delay_p95_ms: int
    late_dags: int
    lateness_max_ms: int
    import_errors: int
    oldest_waiting_ms: int
    failures_last_hour: int
    metadata_probe_ms: int
    broker_probe_ms: int
    api_probe_ms: int
    occupied_slots: int
    pool_slots: int
    def __init__(self, scheduler_heartbeat_age_ms: _Optional[int] = ..., dag_processor_heartbeat_age_ms: _Optional[int] = ..., triggerer_heartbeat_age_ms: _Optional[int] = ..., live_workers: _Optional[int] = ..., queued_messages: _Optional[int] = ..., unacked_messages: _Optional[int] = ..., scheduling_delay_p95_ms: _Optional[int] = ..., late_dags: _Optional[int] = ..., lateness_max_ms: _Optional[int] = ..., import_errors: _Optional[int] = ..., oldest_waiting_ms: _Optional[int] = ..., failures_last_hour: _Optional[int] = ..., metadata_probe_ms: _Optional[int] = ..., broker_probe_ms: _Optional[int] = ..., api_probe_ms: _Optional[int] = ..., occupied_slots: _Optional[int] = ..., pool_slots: _Optional[int] = ...) -> None: ...
