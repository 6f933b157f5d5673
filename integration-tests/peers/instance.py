"""An instance of placement, read from a dump, and what an assignment of it is worth.

The same figures for everybody: peak, excess over the target, moves. Works on the fleets that the
benchmark generates: rules are regions, everything may be moved.
"""

import json
from dataclasses import dataclass


@dataclass
class Instance:
    shards: list[str]
    capacity: list[list[int]]
    namespaces: list[str]
    demand: list[list[int]]
    start: list[int]
    """The shard that each is on; -1 where it has none yet."""
    allowed: list[list[int] | None]
    """Shards that a namespace may be on; none where all will do."""
    dimensions: int

    @classmethod
    def read(cls, path: str) -> "Instance":
        with open(path, encoding="utf-8") as file:
            dump = json.load(file)
        dump = dump.get("snapshot", dump)
        shards = [shard["name"] for shard in dump["shards"]]
        number = {name: at for at, name in enumerate(shards)}
        by_region: dict[str, list[int]] = {}
        for at, shard in enumerate(dump["shards"]):
            by_region.setdefault(shard.get("region", ""), []).append(at)
        asked = [question["constraints"].get("region", "") for question in dump["asked"]]
        namespaces = dump["namespaces"]
        return cls(
            shards=shards,
            capacity=[shard["capacity"] for shard in dump["shards"]],
            namespaces=[namespace["name"] for namespace in namespaces],
            demand=[namespace["demand"] for namespace in namespaces],
            start=[number.get(namespace.get("shard"), -1) for namespace in namespaces],
            allowed=[
                by_region.get(asked[namespace.get("asks", 0)], [])
                if asked[namespace.get("asks", 0)]
                else None
                for namespace in namespaces
            ],
            dimensions=len(dump["dimensions"]),
        )

    def mean_peak(self) -> float:
        """All demand over all capacity, in the dimension where that is most."""
        return max(
            sum(own[d] for own in self.demand) / sum(own[d] for own in self.capacity)
            for d in range(self.dimensions)
        )

    def figures(self, assignment: list[int], target: float) -> dict[str, float]:
        """What an assignment is worth. Excess: squares of what stands above the target, summed."""
        load = [[0] * self.dimensions for _ in self.shards]
        for demand, shard in zip(self.demand, assignment):
            for d in range(self.dimensions):
                load[shard][d] += demand[d]
        full = [
            load[s][d] / self.capacity[s][d]
            for s in range(len(self.shards))
            for d in range(self.dimensions)
        ]
        misplaced = sum(
            allowed is not None and shard not in allowed
            for allowed, shard in zip(self.allowed, assignment)
        )
        return {
            "peak": max(full),
            "excess": sum(max(0.0, one - target) ** 2 for one in full),
            "moves": sum(a != b for a, b in zip(assignment, self.start)),
            "misplaced": misplaced,
        }
