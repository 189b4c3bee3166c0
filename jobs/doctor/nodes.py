"""Joins the cluster at RAY_ADDRESS and prints, as JSON, what each of its nodes has.

A process of its own, because joining a cluster may hang for ever.
"""

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.join import cluster, reason
from pipeline.checks import Check, failed, passed
from pipeline.doctor.services import check_rights

NODE_TIMEOUT_S = 60
PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow")
SAME_ADVICE = "Install the same commit of Nightshift with the same constraints.txt on every node."


def look(out: str | None) -> list[Check]:
    """Join, count, and ask every node."""
    with cluster(ask_first=False):
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return [check_resources(nodes), *_ask(nodes, out)]


def check_resources(nodes: list[dict[str, Any]]) -> Check:
    """Say what the cluster has to work with."""
    cpus = sum(node["Resources"].get("CPU", 0) for node in nodes)
    gpus = sum(node["Resources"].get("GPU", 0) for node in nodes)
    said = f"Ray {ray.__version__}, {len(nodes)} nodes, {cpus:g} CPUs, {gpus:g} GPUs"
    if cpus < 1:
        return failed("ray", f"{said}: nothing to work with", "Add a worker node with CPUs.")
    return passed("ray", said)


def _ask(nodes: list[dict[str, Any]], out: str | None) -> list[Check]:
    """Run one task on each node; one that cannot answer is a FAIL of that node."""
    ask = ray.remote(num_cpus=0, max_retries=0)(describe)
    ours = describe(None)[0]
    waiting = [
        (
            f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})",
            ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(out),
        )
        for node in nodes
    ]
    checks: list[Check] = []
    for name, reference in waiting:
        try:
            theirs, rights = ray.get(reference, timeout=NODE_TIMEOUT_S)
        except RayError as error:
            checks.append(failed(name, f"cannot run Nightshift: {reason(error)}", SAME_ADVICE))
        else:
            checks.append(compare(name, ours, theirs))
            checks += [Check(**vars(right) | {"name": f"{name}, {right.name}"}) for right in rights]
    return checks


def compare(name: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Check:
    """Say in what a node differs from this machine."""
    differing = [
        f"{part} {theirs.get(part)} there, {here} here"
        for part, here in ours.items()
        if theirs.get(part) != here
    ]
    if differing:
        return failed(name, "; ".join(differing), SAME_ADVICE)
    return passed(name, f"Nightshift {ours['Nightshift']} and the same packages")


def describe(out: str | None) -> tuple[dict[str, str], list[Check]]:
    """What this node runs, and what it may do below ``out``: AWS_* must be set there, too."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    rights = list(check_rights(out)) if out is not None else []
    return {"Nightshift": source_digest(Path(__file__).parents[2]), **versions}, rights


def source_digest(root: Path) -> str:
    """Name the code by its content: two checkouts of one commit are equal."""
    total = hashlib.sha256()
    for package in ("jobs", "model", "pipeline"):
        for path in sorted((root / package).rglob("*.py")):
            total.update(f"{path.relative_to(root).as_posix()}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:12]


def main() -> None:
    """Answer on stdout; the only argument, if any, is the place whose rights are tried."""
    with redirect_stdout(sys.stderr):
        checks = look(sys.argv[1] if len(sys.argv) > 1 else None)
    print(json.dumps([asdict(check) for check in checks]))  # noqa: T201  the answer
