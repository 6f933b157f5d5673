"""The MIP solver HiGHS (PyPI `highspy`) on a dumped instance: the least possible peak.

Minimises the fullest dimension of the fullest shard, exactly if the time is enough; prints one JSON
object with the peak that it found and the bound that it proved.
"""

import argparse
import json
import time

import highspy

from instance import Instance


def solve(instance: Instance, seconds: float) -> dict:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("time_limit", seconds)
    # A tenth of a percent is a tenth of what is asked for.
    highs.setOptionValue("mip_rel_gap", 0.001)
    peak = highs.addVariable(lb=0, name="peak")
    shards = range(len(instance.shards))
    on: list[dict[int, object]] = []
    for allowed in instance.allowed:
        may = allowed if allowed is not None else shards
        on.append({s: highs.addBinary() for s in may})
        highs.addConstr(highs.qsum(list(on[-1].values())) == 1)
    for s in shards:
        for d in range(instance.dimensions):
            capacity = instance.capacity[s][d]
            load = highs.qsum(
                [
                    demand[d] / capacity * variables[s]
                    for demand, variables in zip(instance.demand, on)
                    if s in variables
                ]
            )
            highs.addConstr(load <= peak)
    begun = time.monotonic()
    highs.minimize(peak)
    took = time.monotonic() - begun
    info = highs.getInfo()
    values = highs.getSolution().col_value
    assignment = [
        max(variables, key=lambda s: values[variables[s].index]) for variables in on
    ]
    return {
        "seconds": took,
        "bound": info.mip_dual_bound,
        "optimal": info.mip_gap <= 0.0011,
        **instance.figures(assignment, instance.mean_peak()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(json.dumps(solve(Instance.read(options.dump), options.seconds)))


if __name__ == "__main__":
    main()
