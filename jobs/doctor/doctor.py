"""``nightshift doctor``: is everything there that a job needs, and how is it mended?

Looks at this machine, at the services and, where RAY_ADDRESS names a cluster, at each of its
nodes. Whatever hangs is given up: the cluster is joined by a process of its own.
"""

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jobs.local.process import bound_to_this_process
from pipeline.doctor.machine import Check, Verdict, check_machine, failed, passed, warned, worst
from pipeline.doctor.services import (
    check_clock,
    check_mlflow,
    check_place,
    check_weights,
    store_address,
)

JOIN_TIMEOUT_S = 90
RAY_ADVICE = (
    "Start the cluster or correct RAY_ADDRESS, with the same Ray, Python and RAY_AUTH_MODE (and "
    "token) here as there; unset RAY_ADDRESS to run on this machine."
)


def examine(out: str | None, catalogue: str | None) -> Iterator[Check]:
    """Yield every check as it is done.

    Args:
        out: where results go or checkpoints lie; its rights are tried out.
        catalogue: its backbones' weights are loaded.
    """
    yield from check_machine()
    yield from check_weights(catalogue)
    yield from check_mlflow()
    store = store_address(out)
    if store is not None:
        yield check_clock(store, lambda: dt.datetime.now(dt.UTC))
    if out is None:
        advice = (
            "Pass --out with the place of the results, and again with the one of NIGHTSHIFT_RUNS."
        )
        yield warned("out", "no place was named, so no rights were tried", advice)
    else:
        yield from check_place(out)
    yield from check_ray(os.environ.get("RAY_ADDRESS", ""), out)


def check_ray(address: str, out: str | None) -> Iterator[Check]:
    """Join the cluster and have each of its nodes say what it has."""
    if address in ("", "local"):
        yield passed("ray", f"no RAY_ADDRESS: each command starts its own, {os.cpu_count()} CPUs")
        return
    # Not with -m: nodes are to run their own jobs.doctor_ray, not what __main__ is here.
    run = "from jobs.doctor.nodes import main; main()"
    command = [sys.executable, "-c", run, *([out] if out else [])]
    try:
        done = subprocess.run(  # noqa: S603  ourselves, no shell
            bound_to_this_process(command),
            capture_output=True,
            text=True,
            timeout=JOIN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        finding = f"the cluster at RAY_ADDRESS={address} gave no answer within {JOIN_TIMEOUT_S} s"
        yield failed("ray", finding, RAY_ADVICE)
        return
    try:
        answer: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
        yield failed(
            "ray", f"the cluster at RAY_ADDRESS={address} was not joined: {last}", RAY_ADVICE
        )
        return
    for check in answer:
        yield Check(**check | {"verdict": Verdict(check["verdict"])})


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
