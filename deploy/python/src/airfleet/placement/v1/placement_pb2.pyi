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

class PlanState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLAN_STATE_UNSPECIFIED: _ClassVar[PlanState]
    PLAN_STATE_READY: _ClassVar[PlanState]
    PLAN_STATE_APPLYING: _ClassVar[PlanState]
    PLAN_STATE_STOPPED: _ClassVar[PlanState]
    PLAN_STATE_DONE: _ClassVar[PlanState]
    PLAN_STATE_CANCELLED: _ClassVar[PlanState]

class PlannedMoveState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLANNED_MOVE_STATE_UNSPECIFIED: _ClassVar[PlannedMoveState]
    PLANNED_MOVE_STATE_WAITING: _ClassVar[PlannedMoveState]
    PLANNED_MOVE_STATE_RUNNING: _ClassVar[PlannedMoveState]
    PLANNED_MOVE_STATE_DONE: _ClassVar[PlannedMoveState]
    PLANNED_MOVE_STATE_FAILED: _ClassVar[PlannedMoveState]
    PLANNED_MOVE_STATE_SKIPPED: _ClassVar[PlannedMoveState]

class PlacementVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_VERDICT_UNSPECIFIED: _ClassVar[PlacementVerdict]
    PLACEMENT_VERDICT_UNPLACED: _ClassVar[PlacementVerdict]
    PLACEMENT_VERDICT_MISPLACED: _ClassVar[PlacementVerdict]
    PLACEMENT_VERDICT_COULD_MOVE: _ClassVar[PlacementVerdict]
    PLACEMENT_VERDICT_WELL_PLACED: _ClassVar[PlacementVerdict]

class ShardAnswer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARD_ANSWER_UNSPECIFIED: _ClassVar[ShardAnswer]
    SHARD_ANSWER_YES: _ClassVar[ShardAnswer]
    SHARD_ANSWER_THROTTLED: _ClassVar[ShardAnswer]
    SHARD_ANSWER_NO: _ClassVar[ShardAnswer]
PLAN_STATE_UNSPECIFIED: PlanState
PLAN_STATE_READY: PlanState
PLAN_STATE_APPLYING: PlanState
PLAN_STATE_STOPPED: PlanState
PLAN_STATE_DONE: PlanState
PLAN_STATE_CANCELLED: PlanState
PLANNED_MOVE_STATE_UNSPECIFIED: PlannedMoveState
PLANNED_MOVE_STATE_WAITING: PlannedMoveState
PLANNED_MOVE_STATE_RUNNING: PlannedMoveState
PLANNED_MOVE_STATE_DONE: PlannedMoveState
PLANNED_MOVE_STATE_FAILED: PlannedMoveState
PLANNED_MOVE_STATE_SKIPPED: PlannedMoveState
PLACEMENT_VERDICT_UNSPECIFIED: PlacementVerdict
PLACEMENT_VERDICT_UNPLACED: PlacementVerdict
PLACEMENT_VERDICT_MISPLACED: PlacementVerdict
PLACEMENT_VERDICT_COULD_MOVE: PlacementVerdict
PLACEMENT_VERDICT_WELL_PLACED: PlacementVerdict
SHARD_ANSWER_UNSPECIFIED: ShardAnswer
SHARD_ANSWER_YES: ShardAnswer
SHARD_ANSWER_THROTTLED: ShardAnswer
SHARD_ANSWER_NO: ShardAnswer

class CreatePlanRequest(_message.Message):
    __slots__ = ("name", "emergency", "drain_shard", "fill_shard", "lose", "cost_max", "moves_max", "seed", "time_limit_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMERGENCY_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SHARD_FIELD_NUMBER: _ClassVar[int]
    FILL_SHARD_FIELD_NUMBER: _ClassVar[int]
    LOSE_FIELD_NUMBER: _ClassVar[int]
    COST_MAX_FIELD_NUMBER: _ClassVar[int]
    MOVES_MAX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    emergency: Emergency
    drain_shard: str
    fill_shard: str
    lose: Loss
    cost_max: int
    moves_max: int
    seed: int
    time_limit_ms: int
    def __init__(self, name: _Optional[str] = ..., emergency: _Optional[_Union[Emergency, _Mapping]] = ..., drain_shard: _Optional[str] = ..., fill_shard: _Optional[str] = ..., lose: _Optional[_Union[Loss, _Mapping]] = ..., cost_max: _Optional[int] = ..., moves_max: _Optional[int] = ..., seed: _Optional[int] = ..., time_limit_ms: _Optional[int] = ...) -> None: ...

class Emergency(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Loss(_message.Message):
    __slots__ = ("shards", "failure_domains")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedScalarFieldContainer[str]
    failure_domains: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shards: _Optional[_Iterable[str]] = ..., failure_domains: _Optional[_Iterable[str]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("name", "hash", "state", "state_reason", "purpose", "hypothetical", "revision", "seed", "actor", "create_time", "levels", "peak_before", "peak_after", "peak_bound", "target", "stop", "moves", "move_count", "wave_count", "cost", "unsolved", "unsolved_count", "eta_ms", "done_count", "failed_count", "dimensions", "lost_shards")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    HYPOTHETICAL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    PEAK_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PEAK_AFTER_FIELD_NUMBER: _ClassVar[int]
    PEAK_BOUND_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    MOVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAVE_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    UNSOLVED_FIELD_NUMBER: _ClassVar[int]
    UNSOLVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    ETA_MS_FIELD_NUMBER: _ClassVar[int]
    DONE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    LOST_SHARDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    hash: str
    state: PlanState
    state_reason: str
    purpose: str
    hypothetical: bool
    revision: int
    seed: int
    actor: str
    create_time: _timestamp_pb2.Timestamp
    levels: _containers.RepeatedCompositeFieldContainer[Level]
    peak_before: int
    peak_after: int
    peak_bound: int
    target: int
    stop: str
    moves: _containers.RepeatedCompositeFieldContainer[PlannedMove]
    move_count: int
    wave_count: int
    cost: int
    unsolved: _containers.RepeatedCompositeFieldContainer[Unsolved]
    unsolved_count: int
    eta_ms: int
    done_count: int
    failed_count: int
    dimensions: _containers.RepeatedScalarFieldContainer[str]
    lost_shards: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., hash: _Optional[str] = ..., state: _Optional[_Union[PlanState, str]] = ..., state_reason: _Optional[str] = ..., purpose: _Optional[str] = ..., hypothetical: bool = ..., revision: _Optional[int] = ..., seed: _Optional[int] = ..., actor: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., levels: _Optional[_Iterable[_Union[Level, _Mapping]]] = ..., peak_before: _Optional[int] = ..., peak_after: _Optional[int] = ..., peak_bound: _Optional[int] = ..., target: _Optional[int] = ..., stop: _Optional[str] = ..., moves: _Optional[_Iterable[_Union[PlannedMove, _Mapping]]] = ..., move_count: _Optional[int] = ..., wave_count: _Optional[int] = ..., cost: _Optional[int] = ..., unsolved: _Optional[_Iterable[_Union[Unsolved, _Mapping]]] = ..., unsolved_count: _Optional[int] = ..., eta_ms: _Optional[int] = ..., done_count: _Optional[int] = ..., failed_count: _Optional[int] = ..., dimensions: _Optional[_Iterable[str]] = ..., lost_shards: _Optional[_Iterable[str]] = ...) -> None: ...

class Level(_message.Message):
    __slots__ = ("name", "before", "after", "change")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    before: str
    after: str
    change: int
    def __init__(self, name: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., change: _Optional[int] = ...) -> None: ...

class PlannedMove(_message.Message):
    __slots__ = ("namespace", "to", "wave", "cost", "reason", "state", "detail", "demand")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DEMAND_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    to: str
    wave: int
    cost: int
    reason: str
    state: PlannedMoveState
    detail: str
    demand: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, namespace: _Optional[str] = ..., to: _Optional[str] = ..., wave: _Optional[int] = ..., cost: _Optional[int] = ..., reason: _Optional[str] = ..., state: _Optional[_Union[PlannedMoveState, str]] = ..., detail: _Optional[str] = ..., demand: _Optional[_Iterable[int]] = ..., **kwargs) -> None: ...

class Unsolved(_message.Message):
    __slots__ = ("namespace", "reason")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    reason: str
    def __init__(self, namespace: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetPlanRequest(_message.Message):
    __slots__ = ("name", "summary_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    summary_only: bool
    def __init__(self, name: _Optional[str] = ..., summary_only: bool = ...) -> None: ...

class ListPlansRequest(_message.Message):
    __slots__ = ("page_size",)
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    def __init__(self, page_size: _Optional[int] = ...) -> None: ...

class ListPlansResponse(_message.Message):
    __slots__ = ("plans",)
    PLANS_FIELD_NUMBER: _ClassVar[int]
    plans: _containers.RepeatedCompositeFieldContainer[Plan]
    def __init__(self, plans: _Optional[_Iterable[_Union[Plan, _Mapping]]] = ...) -> None: ...

class CheckPlanRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CheckPlanResponse(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changes: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyPlanRequest(_message.Message):
    __slots__ = ("name", "expected_hash", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HASH_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    expected_hash: str
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., expected_hash: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class CancelPlanRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DumpPlanRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DumpPlanResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class FreezeRebalancingRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class UnfreezeRebalancingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRebalancingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Rebalancing(_message.Message):
    __slots__ = ("frozen", "actor", "reason", "time", "thrashed")
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    THRASHED_FIELD_NUMBER: _ClassVar[int]
    frozen: bool
    actor: str
    reason: str
    time: _timestamp_pb2.Timestamp
    thrashed: int
    def __init__(self, frozen: bool = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., thrashed: _Optional[int] = ...) -> None: ...

class ExplainNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "shards_max")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_MAX_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    shards_max: int
    def __init__(self, namespace: _Optional[str] = ..., shards_max: _Optional[int] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("namespace", "verdict", "shard", "best_shard", "levels", "not_moved", "eligible", "shard_count", "obstacles", "binding_code", "binding_count", "counterfactuals", "shards", "text")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    BEST_SHARD_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    NOT_MOVED_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBSTACLES_FIELD_NUMBER: _ClassVar[int]
    BINDING_CODE_FIELD_NUMBER: _ClassVar[int]
    BINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    COUNTERFACTUALS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    verdict: PlacementVerdict
    shard: str
    best_shard: str
    levels: _containers.RepeatedCompositeFieldContainer[Level]
    not_moved: str
    eligible: int
    shard_count: int
    obstacles: _containers.RepeatedCompositeFieldContainer[Obstacle]
    binding_code: str
    binding_count: int
    counterfactuals: _containers.RepeatedCompositeFieldContainer[Counterfactual]
    shards: _containers.RepeatedCompositeFieldContainer[ShardVerdict]
    text: str
    def __init__(self, namespace: _Optional[str] = ..., verdict: _Optional[_Union[PlacementVerdict, str]] = ..., shard: _Optional[str] = ..., best_shard: _Optional[str] = ..., levels: _Optional[_Iterable[_Union[Level, _Mapping]]] = ..., not_moved: _Optional[str] = ..., eligible: _Optional[int] = ..., shard_count: _Optional[int] = ..., obstacles: _Optional[_Iterable[_Union[Obstacle, _Mapping]]] = ..., binding_code: _Optional[str] = ..., binding_count: _Optional[int] = ..., counterfactuals: _Optional[_Iterable[_Union[Counterfactual, _Mapping]]] = ..., shards: _Optional[_Iterable[_Union[ShardVerdict, _Mapping]]] = ..., text: _Optional[str] = ...) -> None: ...

class Obstacle(_message.Message):
    __slots__ = ("code", "shards", "fix")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    code: str
    shards: int
    fix: str
    def __init__(self, code: _Optional[str] = ..., shards: _Optional[int] = ..., fix: _Optional[str] = ...) -> None: ...

class Counterfactual(_message.Message):
    __slots__ = ("dropped", "eligible")
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    dropped: str
    eligible: int
    def __init__(self, dropped: _Optional[str] = ..., eligible: _Optional[int] = ...) -> None: ...

class ShardVerdict(_message.Message):
    __slots__ = ("shard", "answer", "refusals", "peak", "dimension")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    PEAK_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    shard: str
    answer: ShardAnswer
    refusals: _containers.RepeatedCompositeFieldContainer[ShardRefusal]
    peak: int
    dimension: str
    def __init__(self, shard: _Optional[str] = ..., answer: _Optional[_Union[ShardAnswer, str]] = ..., refusals: _Optional[_Iterable[_Union[ShardRefusal, _Mapping]]] = ..., peak: _Optional[int] = ..., dimension: _Optional[str] = ...) -> None: ...

class ShardRefusal(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class GetCapacityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("rooms", "losses", "certified", "growth_days")
    ROOMS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_FIELD_NUMBER: _ClassVar[int]
    GROWTH_DAYS_FIELD_NUMBER: _ClassVar[int]
    rooms: _containers.RepeatedCompositeFieldContainer[Room]
    losses: _containers.RepeatedCompositeFieldContainer[DomainLoss]
    certified: bool
    growth_days: float
    def __init__(self, rooms: _Optional[_Iterable[_Union[Room, _Mapping]]] = ..., losses: _Optional[_Iterable[_Union[DomainLoss, _Mapping]]] = ..., certified: bool = ..., growth_days: _Optional[float] = ...) -> None: ...

class Room(_message.Message):
    __slots__ = ("asks", "shards", "namespaces", "capacity", "load", "typical", "fits", "fills_first", "full_in_days")
    ASKS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    FILLS_FIRST_FIELD_NUMBER: _ClassVar[int]
    FULL_IN_DAYS_FIELD_NUMBER: _ClassVar[int]
    asks: str
    shards: int
    namespaces: int
    capacity: _common_pb2.Resources
    load: _common_pb2.Resources
    typical: _common_pb2.Resources
    fits: int
    fills_first: str
    full_in_days: int
    def __init__(self, asks: _Optional[str] = ..., shards: _Optional[int] = ..., namespaces: _Optional[int] = ..., capacity: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., load: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., typical: _Optional[_Union[_common_pb2.Resources, _Mapping]] = ..., fits: _Optional[int] = ..., fills_first: _Optional[str] = ..., full_in_days: _Optional[int] = ...) -> None: ...

class DomainLoss(_message.Message):
    __slots__ = ("failure_domain", "shards", "namespaces", "misfits", "examples")
    FAILURE_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    MISFITS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    failure_domain: str
    shards: int
    namespaces: int
    misfits: int
    examples: _containers.RepeatedCompositeFieldContainer[Unsolved]
    def __init__(self, failure_domain: _Optional[str] = ..., shards: _Optional[int] = ..., namespaces: _Optional[int] = ..., misfits: _Optional[int] = ..., examples: _Optional[_Iterable[_Union[Unsolved, _Mapping]]] = ...) -> None: ...
