"""What an assignment of a dumped instance is worth, in the figures that peers are weighed by."""

import argparse
import json

from instance import Instance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump")
    parser.add_argument("assignment", help="JSON list of shards, by namespace")
    parser.add_argument("--target", type=float, default=1.005)
    options = parser.parse_args()
    instance = Instance.read(options.dump)
    number = {name: at for at, name in enumerate(instance.shards)}
    with open(options.assignment, encoding="utf-8") as file:
        assignment = [number[name] for name in json.load(file)]
    figures = instance.figures(assignment, instance.mean_peak() * options.target)
    print(json.dumps({"seconds": 0.0, **figures}))


if __name__ == "__main__":
    main()
