import datetime

from airfleet.common.v1 import common_pb2 as _common_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MovePhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_PHASE_UNSPECIFIED: _ClassVar[MovePhase]
    MOVE_PHASE_PLANNED: _ClassVar[MovePhase]
    MOVE_PHASE_STAGING: _ClassVar[MovePhase]
    MOVE_PHASE_QUIESCING: _ClassVar[MovePhase]
    MOVE_PHASE_SEALING: _ClassVar[MovePhase]
    MOVE_PHASE_COPYING: _ClassVar[MovePhase]
    MOVE_PHASE_FLIPPED: _ClassVar[MovePhase]
    MOVE_PHASE_ACTIVATING: _ClassVar[MovePhase]
    MOVE_PHASE_RETIRING: _ClassVar[MovePhase]
    MOVE_PHASE_DONE: _ClassVar[MovePhase]
    MOVE_PHASE_ABORTING: _ClassVar[MovePhase]
    MOVE_PHASE_ABORTED: _ClassVar[MovePhase]

class MoveSeverity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MOVE_SEVERITY_UNSPECIFIED: _ClassVar[MoveSeverity]
    MOVE_SEVERITY_BLOCKS: _ClassVar[MoveSeverity]
    MOVE_SEVERITY_DELAYS: _ClassVar[MoveSeverity]
    MOVE_SEVERITY_WARNS: _ClassVar[MoveSeverity]
MOVE_PHASE_UNSPECIFIED: MovePhase
MOVE_PHASE_PLANNED: MovePhase
MOVE_PHASE_STAGING: MovePhase
MOVE_PHASE_QUIESCING: MovePhase
MOVE_PHASE_SEALING: MovePhase
MOVE_PHASE_COPYING: MovePhase
MOVE_PHASE_FLIPPED: MovePhase
MOVE_PHASE_ACTIVATING: MovePhase
MOVE_PHASE_RETIRING: MovePhase
MOVE_PHASE_DONE: MovePhase
MOVE_PHASE_ABORTING: MovePhase
MOVE_PHASE_ABORTED: MovePhase
MOVE_SEVERITY_UNSPECIFIED: MoveSeverity
MOVE_SEVERITY_BLOCKS: MoveSeverity
MOVE_SEVERITY_DELAYS: MoveSeverity
MOVE_SEVERITY_WARNS: MoveSeverity

class Move(_message.Message):
    __slots__ = ("id", "namespace", "source_shard", "target_shard", "generation", "phase", "phase_time", "deadline_time", "attempt", "next_attempt_time", "last_error", "waiting", "options", "requested_by", "reason", "cancel", "create_time", "quiesce_time", "flip_time", "finish_time", "progress", "alarming", "proof", "revision", "blackout_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_SHARD_FIELD_NUMBER: _ClassVar[int]
    TARGET_SHARD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    QUIESCE_TIME_FIELD_NUMBER: _ClassVar[int]
    FLIP_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ALARMING_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BLACKOUT_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: str
    source_shard: str
    target_shard: str
    generation: int
    phase: MovePhase
    phase_time: _timestamp_pb2.Timestamp
    deadline_time: _timestamp_pb2.Timestamp
    attempt: int
    next_attempt_time: _timestamp_pb2.Timestamp
    last_error: MoveFailure
    waiting: str
    options: MoveOptions
    requested_by: str
    reason: str
    cancel: MoveCancel
    create_time: _timestamp_pb2.Timestamp
    quiesce_time: _timestamp_pb2.Timestamp
    flip_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    progress: MoveProgress
    alarming: bool
    proof: MoveProof
    revision: int
    blackout_ms: int
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[str] = ..., source_shard: _Optional[str] = ..., target_shard: _Optional[str] = ..., generation: _Optional[int] = ..., phase: _Optional[_Union[MovePhase, str]] = ..., phase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., next_attempt_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_error: _Optional[_Union[MoveFailure, _Mapping]] = ..., waiting: _Optional[str] = ..., options: _Optional[_Union[MoveOptions, _Mapping]] = ..., requested_by: _Optional[str] = ..., reason: _Optional[str] = ..., cancel: _Optional[_Union[MoveCancel, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., quiesce_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., flip_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., progress: _Optional[_Union[MoveProgress, _Mapping]] = ..., alarming: bool = ..., proof: _Optional[_Union[MoveProof, _Mapping]] = ..., revision: _Optional[int] = ..., blackout_ms: _Optional[int] = ...) -> None: ...

class MoveFailure(_message.Message):
    __slots__ = ("code", "message", "phase", "time")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    phase: MovePhase
    time: _timestamp_pb2.Timestamp
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., phase: _Optional[_Union[MovePhase, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class MoveCancel(_message.Message):
    __slots__ = ("actor", "reason", "time")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    actor: str
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, actor: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class MoveOptions(_message.Message):
    __slots__ = ("history", "drain_timeout", "allow_asset_crossings", "force_lost_source")
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_ASSET_CROSSINGS_FIELD_NUMBER: _ClassVar[int]
    FORCE_LOST_SOURCE_FIELD_NUMBER: _ClassVar[int]
    history: _common_pb2.MoveHistory
    drain_timeout: _duration_pb2.Duration
    allow_asset_crossings: bool
    force_lost_source: bool
    def __init__(self, history: _Optional[_Union[_common_pb2.MoveHistory, str]] = ..., drain_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., allow_asset_crossings: bool = ..., force_lost_source: bool = ...) -> None: ...

class MoveProgress(_message.Message):
    __slots__ = ("running", "queued", "deferred", "copied_bytes", "total_bytes", "estimated_end_time", "source_connected", "target_connected", "ahead", "tables")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    COPIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_END_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    TARGET_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    running: int
    queued: int
    deferred: int
    copied_bytes: int
    total_bytes: int
    estimated_end_time: _timestamp_pb2.Timestamp
    source_connected: bool
    target_connected: bool
    ahead: int
    tables: _containers.RepeatedCompositeFieldContainer[MoveTable]
    def __init__(self, running: _Optional[int] = ..., queued: _Optional[int] = ..., deferred: _Optional[int] = ..., copied_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., estimated_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source_connected: bool = ..., target_connected: bool = ..., ahead: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[MoveTable, _Mapping]]] = ...) -> None: ...

class MoveTable(_message.Message):
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

class MoveProof(_message.Message):
    __slots__ = ("dags", "runs_expected", "runs_found", "runs_inserted", "blackout_ms", "lines", "differing")
    DAGS_FIELD_NUMBER: _ClassVar[int]
    RUNS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOUND_FIELD_NUMBER: _ClassVar[int]
    RUNS_INSERTED_FIELD_NUMBER: _ClassVar[int]
    BLACKOUT_MS_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    dags: int
    runs_expected: int
    runs_found: int
    runs_inserted: int
    blackout_ms: int
    lines: _containers.RepeatedCompositeFieldContainer[MoveProofLine]
    differing: int
    def __init__(self, dags: _Optional[int] = ..., runs_expected: _Optional[int] = ..., runs_found: _Optional[int] = ..., runs_inserted: _Optional[int] = ..., blackout_ms: _Optional[int] = ..., lines: _Optional[_Iterable[_Union[MoveProofLine, _Mapping]]] = ..., differing: _Optional[int] = ...) -> None: ...

class MoveProofLine(_message.Message):
    __slots__ = ("dag_id", "runs_expected", "runs_found", "newest_expected", "newest_found", "runs_inserted", "differs")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOUND_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FOUND_FIELD_NUMBER: _ClassVar[int]
    RUNS_INSERTED_FIELD_NUMBER: _ClassVar[int]
    DIFFERS_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    runs_expected: int
    runs_found: int
    newest_expected: _timestamp_pb2.Timestamp
    newest_found: _timestamp_pb2.Timestamp
    runs_inserted: int
    differs: bool
    def __init__(self, dag_id: _Optional[str] = ..., runs_expected: _Optional[int] = ..., runs_found: _Optional[int] = ..., newest_expected: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., newest_found: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., runs_inserted: _Optional[int] = ..., differs: bool = ...) -> None: ...

class StartMoveRequest(_message.Message):
    __slots__ = ("namespace", "target_shard", "options", "reason", "validate_only", "request_id", "expected_generation")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TARGET_SHARD_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    target_shard: str
    options: MoveOptions
    reason: str
    validate_only: bool
    request_id: str
    expected_generation: int
    def __init__(self, namespace: _Optional[str] = ..., target_shard: _Optional[str] = ..., options: _Optional[_Union[MoveOptions, _Mapping]] = ..., reason: _Optional[str] = ..., validate_only: bool = ..., request_id: _Optional[str] = ..., expected_generation: _Optional[int] = ...) -> None: ...

class StartMoveResponse(_message.Message):
    __slots__ = ("move", "findings")
    MOVE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    move: Move
    findings: _containers.RepeatedCompositeFieldContainer[MoveFinding]
    def __init__(self, move: _Optional[_Union[Move, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[MoveFinding, _Mapping]]] = ...) -> None: ...

class MoveFinding(_message.Message):
    __slots__ = ("code", "severity", "message", "remedy")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    code: str
    severity: MoveSeverity
    message: str
    remedy: str
    def __init__(self, code: _Optional[str] = ..., severity: _Optional[_Union[MoveSeverity, str]] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class GetMoveRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListMovesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "namespace", "shard", "include_ended")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENDED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    namespace: str
    shard: str
    include_ended: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., namespace: _Optional[str] = ..., shard: _Optional[str] = ..., include_ended: bool = ...) -> None: ...

class ListMovesResponse(_message.Message):
    __slots__ = ("moves", "next_page_token")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[Move]
    next_page_token: str
    def __init__(self, moves: _Optional[_Iterable[_Union[Move, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchMoveRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class AbortMoveRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
