"""Meta's Rebalancer (PyPI `rebalancer`) on a dumped instance.

Asked for what Airfleet is asked for: nothing above `target` times the mean utilization, in any
dimension (squares above it, so that the hottest counts most), capacities kept, and as few moves as
possible. Prints one JSON object.

Tuned by trying (see README.md): the quick single move first, then sampled swaps; a bound
relative to utilization, so that capacities that differ are dealt with; the hierarchy of goals instead
of weights.
"""

import argparse
import json
import os
import time

from instance import Instance
from rebalancer import ProblemSolver

# The wheel takes enumerations as their Thrift numbers.
FORMULAS = {"linear": 1, "squares": 2, "max": 3}
BOUNDS = {"absolute": 1, "relative": 2, "relative-util": 3}

MOVES = {
    "single": {"singleMoveTypeSpec": {}},
    "single-fast": {"singleFastMoveTypeSpec": {}},
    "single-greedy": {"singleGreedyMoveTypeSpec": {}},
    "stratified": {"singleRandomStratifiedMoveTypeSpec": {}},
    "swap": {"swapMoveTypeSpec": {}},
    "swap-sampled": {"swapMoveTypeSpec": {"sampleSize": {"defaultSampleSize": 50}}},
    "chain": {"singleChainFastMoveTypeSpec": {}},
}


def solve(instance: Instance, options: argparse.Namespace) -> dict:
    solver = ProblemSolver("airfleet", "peer")
    solver.set_log_level(options.log_level)
    solver.disable_scuba_logging()
    solver.disable_solution_summary()
    solver.set_object_name("namespace")
    solver.set_container_name("shard")
    on = {shard: [] for shard in instance.shards}
    for name, shard in zip(instance.namespaces, instance.start):
        on[instance.shards[shard]].append(name)
    solver.set_assignment(on)
    for d in range(instance.dimensions):
        name = f"dimension{d}"
        solver.add_object_dimension(
            name, {n: float(own[d]) for n, own in zip(instance.namespaces, instance.demand)}
        )
        solver.add_container_dimension(
            name, {s: float(own[d]) for s, own in zip(instance.shards, instance.capacity)}
        )
        solver.add_constraint(
            {"capacitySpec": {"name": f"capacity{d}", "scope": "shard", "dimension": name}}
        )
        solver.add_goal(
            {
                "balanceSpec": {
                    "name": f"balance{d}",
                    "scope": "shard",
                    "dimension": name,
                    "formula": FORMULAS[options.formula],
                    "boundType": BOUNDS[options.bound],
                    "upperBound": options.target,
                }
            },
            1.0,
            0,
        )
    bound = [
        {
            "object": name,
            "scopeItems": [s for at, s in enumerate(instance.shards) if at not in set(allowed)],
        }
        for name, allowed in zip(instance.namespaces, instance.allowed)
        if allowed is not None
    ]
    if bound:
        solver.add_constraint(
            {
                "avoidAssignmentsSpec": {
                    "name": "regions",
                    "scope": "shard",
                    "assignments": bound,
                }
            }
        )
    solver.add_goal(
        {
            "minimizeMovementSpec": {
                "name": "moves",
                "scope": "shard",
                "dimension": "namespace_count",
                "doNotNormalize": True,
            }
        },
        1.0,
        1,
    )
    solver.add_solver(
        {
            "localSearchSolverSpec": {
                "solveTime": options.seconds,
                "moveTypeList": [MOVES[name] for name in options.moves.split(",")],
            }
        }
    )
    begun = time.monotonic()
    cpu = time.process_time()
    solution = solver.solve()
    took, cpu = time.monotonic() - begun, time.process_time() - cpu
    number = {name: at for at, name in enumerate(instance.shards)}
    after = {
        name: number[shard] for name, shard in assignment_of(solution, instance).items()
    }
    assignment = [after[name] for name in instance.namespaces]
    profile = solution.get("profile", {})
    return {
        "seconds": took,
        "cpu_seconds": cpu,
        "solve_seconds": profile.get("solveSec"),
        "threads": os.cpu_count(),
        **instance.figures(assignment, instance.mean_peak() * options.target),
    }


def assignment_of(solution: dict, instance: Instance) -> dict[str, str]:
    assignment = solution["assignment"]
    if all(isinstance(value, str) for value in assignment.values()):
        return assignment
    return {
        name: shard
        for shard, names in assignment.items()
        for name in (names if isinstance(names, list) else names.keys())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump")
    parser.add_argument("--target", type=float, default=1.005)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--formula", choices=FORMULAS, default="squares")
    parser.add_argument("--bound", choices=BOUNDS, default="relative")
    parser.add_argument("--moves", default="single-fast,swap-sampled")
    parser.add_argument("--log-level", default="ERROR")
    options = parser.parse_args()
    print(json.dumps(solve(Instance.read(options.dump), options)))


if __name__ == "__main__":
    main()
