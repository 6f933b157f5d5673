#!/usr/bin/env python3
"""Onboards a tenant: registers its namespace and waits until a shard takes it.

Run it as often as you like: a namespace that is there already is changed to what is asked for, or
left as it is. Exit codes are those of the airfleet command: 0 done, 1 refused or failed, 2 no shard
took the namespace in time.

Needs the client under deploy/python: pip install './deploy/python[yaml]'
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

try:
    import airfleet
except ImportError:
    sys.exit("the client is missing: pip install './deploy/python[yaml]'")

DONE, FAILED, NOT_PLACED = 0, 1, 2

EXAMPLES = """examples:
  a namespace with one prefix, owned by one team, on the control plane of `airfleet dev`:
    %(prog)s payments --owner finance-data --prefix payments__

  with what it will need, so that it gets a shard with room:
    %(prog)s payments --owner finance-data --prefix payments__ --dags 120 --slots 4

  from the YAML that `airfleet apply` takes, checking only:
    %(prog)s --file namespace.yaml --dry-run

  against a production control plane; the token may also be in AIRFLEET__TOKEN:
    %(prog)s --file namespace.yaml --registry https://registry.example.net:7401 \\
        --router https://router.example.net:7402 --ca ca.pem --token-file token

exit codes: 0 done, 1 refused or failed, 2 no shard took the namespace in time
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description="Register a namespace with an Airfleet control plane and wait for its shard.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_argument_group("what to register")
    what.add_argument("name", nargs="?", help="name of the namespace: 3 to 50 of a-z 0-9 - _")
    what.add_argument("-f", "--file", metavar="FILE", help="YAML with one or more namespaces")
    what.add_argument("--owner", action="append", metavar="TEAM", help="owning team; repeatable")
    what.add_argument(
        "--prefix",
        action="append",
        metavar="TEXT",
        help="dag_ids that start so are the namespace's",
    )
    what.add_argument("--label", action="append", metavar="KEY=VALUE", help="label; repeatable")
    what.add_argument("--description", default="", metavar="TEXT", help="what it is for")
    what.add_argument("--dags", type=int, metavar="N", help="DAGs that it will have")
    what.add_argument("--task-starts", type=int, metavar="N", help="task starts an hour")
    what.add_argument("--slots", type=int, metavar="N", help="slots that run at the peak")
    what.add_argument("--region", default="", help="region that its shard must be in")
    what.add_argument(
        "--airflow-version", default="", metavar="RANGE", help='Airflow that it runs on: ">=3, <4"'
    )

    how = made.add_argument_group("how")
    how.add_argument("--new", action="store_true", help="fail where the name is taken")
    how.add_argument("--dry-run", action="store_true", help="check everything, change nothing")
    how.add_argument("--no-wait", action="store_true", help="do not wait for a shard")
    how.add_argument(
        "--timeout", type=float, default=60, metavar="S", help="seconds to wait [default: 60]"
    )
    how.add_argument("-o", "--output", choices=("text", "json"), default="text")

    where = made.add_argument_group("connection")
    for service, port in (("registry", 7401), ("router", 7402)):
        where.add_argument(
            f"--{service}",
            action="append",
            metavar="URL",
            help=f"{service}; give it for each replica [default: http://127.0.0.1:{port}]",
        )
    where.add_argument(
        "--request-timeout",
        type=float,
        default=15,
        metavar="S",
        help="seconds for one request with all its tries [default: 15]",
    )
    where.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    where.add_argument("--ca", metavar="FILE", help="authority of the servers, PEM")
    where.add_argument("--cert", metavar="FILE", help="client certificate, PEM")
    where.add_argument("--key", metavar="FILE", help="key of the client certificate, PEM")
    return made


def namespaces(options: argparse.Namespace) -> list[airfleet.Namespace]:
    """What to register."""
    if options.file:
        if options.name or options.owner or options.prefix:
            raise ValueError("give either --file, or a name with --owner and --prefix")
        found = airfleet.load(options.file)
        if not found:
            raise ValueError(f"{options.file} holds no namespace")
        return found
    if not options.name:
        raise ValueError("give the name of the namespace, or --file; --help shows examples")
    labels = {}
    for label in options.label or ():
        key, equals, value = label.partition("=")
        if not equals:
            raise ValueError(f"--label {label}: write KEY=VALUE")
        labels[key] = value
    demand = {
        "dags": options.dags,
        "taskStartsPerHour": options.task_starts,
        "runningSlots": options.slots,
    }
    return [
        airfleet.namespace(
            options.name,
            owners=options.owner or (),
            prefixes=options.prefix or (),
            labels=labels,
            description=options.description,
            demand={dimension: amount for dimension, amount in demand.items() if amount},
            region=options.region,
            airflow_version=options.airflow_version,
        )
    ]


def connect(options: argparse.Namespace) -> airfleet.Client:
    """A client as the flags say, else the environment, else the defaults of the command."""
    token = os.environ.get("AIRFLEET__TOKEN")
    if file := options.token_file or os.environ.get("AIRFLEET__TOKEN_FILE"):
        token = Path(file).read_text(encoding="utf-8").strip()

    def addresses(flags: list[str] | None, service: str, port: int) -> list[str]:
        variable = os.environ.get(f"AIRFLEET__{service}__ENDPOINTS", "")
        return flags or variable.split(",") if flags or variable else [f"http://127.0.0.1:{port}"]

    return airfleet.Client(
        registry=addresses(options.registry, "REGISTRY", 7401),
        router=addresses(options.router, "ROUTER", 7402),
        token=token,
        ca=options.ca,
        cert=options.cert,
        key=options.key,
        timeout=options.request_timeout,
    )


class Report:
    """Tells people what happens as it happens, and scripts what came of it at the end."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._results: list[dict[str, object]] = []

    def say(self, text: str) -> None:
        """A line for people."""
        if self._form == "text":
            print(text, flush=True)

    def result(self, **fields: object) -> None:
        """What came of one namespace."""
        self._results.append(fields)

    def close(self) -> None:
        """Prints what scripts read."""
        if self._form == "json":
            print(json.dumps(self._results, indent=2))


def create(
    client: airfleet.Client, wanted: list[airfleet.Namespace], dry_run: bool
) -> list[airfleet.Applied]:
    """Registers namespaces that must not exist yet; none of them where one is refused."""
    checked = [client.register(namespace, validate_only=True) for namespace in wanted]
    made = checked if dry_run else [client.register(namespace) for namespace in wanted]
    return [airfleet.Applied("created", namespace) for namespace in made]


def onboard(client: airfleet.Client, options: argparse.Namespace, report: Report) -> int:
    """Registers, waits and tells; gives the exit code."""
    wanted = namespaces(options)
    outcomes = (
        create(client, wanted, options.dry_run)
        if options.new
        else client.apply(wanted, validate_only=options.dry_run)
    )
    for applied in outcomes:
        demand = airfleet.describe(applied.namespace.demand)
        dry = " (dry run)" if options.dry_run else ""
        report.say(f"namespace {applied.namespace.name}: {applied.outcome}{dry}, demand {demand}")
    code = DONE
    deadline = time.monotonic() + options.timeout
    for applied in outcomes:
        name, outcome = applied.namespace.name, applied.outcome
        if options.dry_run or options.no_wait:
            report.result(namespace=name, outcome=outcome)
            continue
        try:
            # The time is for all of them together; one that is placed is found so at once.
            assignment = client.wait_for_assignment(
                applied.namespace,
                max(deadline - time.monotonic(), 1),
                on_change=lambda seen: (
                    None if seen.shard else report.say(f"waiting: {seen.reason}")
                ),
            )
        except airfleet.AssignmentTimeout as error:
            print(error, file=sys.stderr)
            reason = error.last.reason if error.last else ""
            report.result(namespace=name, outcome=outcome, shard=None, reason=reason)
            code = NOT_PLACED
            continue
        url = client.resolve(namespace=name).endpoints.url
        at = f" at {url}" if url else ""
        report.say(f"namespace {name} lives on shard {assignment.shard}{at}: {assignment.reason}")
        report.result(
            namespace=name,
            outcome=outcome,
            shard=assignment.shard,
            url=url,
            generation=assignment.generation,
            reason=assignment.reason,
        )
    report.close()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    # argparse ends with 2 where the command line is wrong, which means something else here.
    try:
        options = parser().parse_args(arguments)
    except SystemExit as end:
        return FAILED if end.code else DONE
    try:
        with connect(options) as client:
            return onboard(client, options, Report(options.output))
    except airfleet.ManifestError as error:
        print(f"{options.file or 'the command line'} is not right:\n{error}", file=sys.stderr)
    except airfleet.Unavailable as error:
        hint = "" if error.reason else "\nis the control plane running? `airfleet dev` starts one"
        print(f"error: {error}{hint}", file=sys.stderr)
    except (airfleet.AirfleetError, ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; what was registered stays registered", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
