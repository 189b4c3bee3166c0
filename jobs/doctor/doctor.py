"""``nightshift doctor``: is everything there that a job needs, and how is it mended?

Looks at this machine, at the services and, where RAY_ADDRESS names a cluster, at each of its
nodes. Whatever hangs is given up: the cluster is joined by a process of its own.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jobs.cluster.probe import ClusterError, ask_cluster
from jobs.cluster.session_folder import session_folder
from pipeline.checks import Check, Verdict, failed, passed, warned, worst
from pipeline.doctor.machine import check_machine
from pipeline.doctor.services import (
    check_clock,
    check_mlflow,
    check_rights,
    check_weights,
    store_address,
)

NODES_TIMEOUT_S = 90
# Not with -m: nodes are to run their own jobs.doctor.nodes, not what __main__ is here.
ASK_NODES = "from jobs.doctor.nodes import main; main()"


def examine(out: str | None, catalogue: str | None) -> Iterator[Check]:
    """Yield every check as it is done, those of ``out``'s rights and a catalogue's weights too."""
    yield from check_machine()
    yield from check_weights(catalogue)
    yield from check_mlflow()
    store = store_address(out)
    if store is not None:
        yield check_clock(store, lambda: dt.datetime.now(dt.UTC))
    if out is None:
        advice = "Pass --out with where results go, and again with the one of NIGHTSHIFT_RUNS."
        yield warned("out", "no --out was given, so no rights were tried", advice)
    else:
        yield from check_rights(out)
    yield from check_ray(os.environ.get("RAY_ADDRESS", ""), out)


def check_ray(address: str, out: str | None, timeout_s: float = NODES_TIMEOUT_S) -> Iterator[Check]:
    """Join the cluster and have each of its nodes say what it has."""
    if address in ("", "local"):
        yield _check_local_ray()
        return
    try:
        checks = ask_cluster(address, ASK_NODES, [out] if out else [], timeout_s)
    except ClusterError as error:
        yield failed("ray", str(error), "Mend that first; its nodes were not asked.")
        return
    for check in json.loads(checks):
        yield Check(**check | {"verdict": Verdict(check["verdict"])})


def _check_local_ray() -> Check:
    try:
        with session_folder():
            return passed(
                "ray", f"no RAY_ADDRESS: each command starts its own, {os.cpu_count()} CPUs"
            )
    except ClusterError as error:
        return failed("ray", str(error), "Mend that, and run this again.")


def to_json(checks: list[Check]) -> dict[str, Any]:
    """Return the checks and the verdict on all of them as plain JSON values."""
    return {"verdict": worst(checks), "checks": [asdict(check) for check in checks]}


def to_text(checks: list[Check]) -> str:
    """One line per check, and under each that did not pass how to mend it."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.verdict}  {check.name:{width}}  {check.finding}")
        if check.advice:
            lines.append(f"{'':{width + 8}}{check.advice}")
    return "\n".join(lines)
