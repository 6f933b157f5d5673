import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Place(_message.Message):
    __slots__ = ("namespace", "shard", "generation")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shard: str
    generation: int
    def __init__(self, namespace: _Optional[str] = ..., shard: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class TriggerDagRequest(_message.Message):
    __slots__ = ("dag_id", "run_id", "conf_json", "logical_date", "note")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CONF_JSON_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_DATE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    run_id: str
    conf_json: str
    logical_date: _timestamp_pb2.Timestamp
    note: str
    def __init__(self, dag_id: _Optional[str] = ..., run_id: _Optional[str] = ..., conf_json: _Optional[str] = ..., logical_date: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class TriggerDagResponse(_message.Message):
    __slots__ = ("place", "run_id", "state", "existed")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    place: Place
    run_id: str
    state: str
    existed: bool
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., run_id: _Optional[str] = ..., state: _Optional[str] = ..., existed: bool = ...) -> None: ...

class ClearDagRunRequest(_message.Message):
    __slots__ = ("dag_id", "run_id", "only_failed", "task_ids")
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ONLY_FAILED_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    run_id: str
    only_failed: bool
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dag_id: _Optional[str] = ..., run_id: _Optional[str] = ..., only_failed: bool = ..., task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ClearDagRunResponse(_message.Message):
    __slots__ = ("place", "cleared")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    place: Place
    cleared: int
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., cleared: _Optional[int] = ...) -> None: ...

class PauseDagRequest(_message.Message):
    __slots__ = ("dag_id",)
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    def __init__(self, dag_id: _Optional[str] = ...) -> None: ...

class PauseDagResponse(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class UnpauseDagRequest(_message.Message):
    __slots__ = ("dag_id",)
    DAG_ID_FIELD_NUMBER: _ClassVar[int]
    dag_id: str
    def __init__(self, dag_id: _Optional[str] = ...) -> None: ...

class UnpauseDagResponse(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...
