"""Onboard many categories: one Ray Train job each, as many at once as the cluster holds.

A job's name is its onboarding key, so a run that was killed is found again under the same name
and goes on from its last checkpoint; a category that fails is reported and never stops the rest.
"""

import json
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import ray

from jobs.cluster.as_completed import as_completed
from jobs.cluster.join import cluster, reason, resources_for
from jobs.cluster.train_run import TrainRun
from jobs.onboard.train import fit
from jobs.onboard.train_loop import ERROR_FILE
from jobs.terminal.progress import Display, read_board, start_board
from model.errors import CategoryFault
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.place import StorePlace
from pipeline.onboarding.key import onboarding_key
from pipeline.package import RECORD_FILE
from pipeline.registry import connection, models
from pipeline.registry.models import RegisteredVersion

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 15.0
AHEAD = 1  # jobs beyond what the cluster holds: their processes start while the others train


class OnboardingStatus(StrEnum):
    """What became of one category, in a word."""

    ONBOARDED = "onboarded"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one category."""

    category: str
    status: OnboardingStatus
    error: str | None = None
    model: str | None = None
    version: str | None = None
    is_champion: bool = False
    counts: dict[str, int] | None = None
    metrics: dict[str, float] | None = None
    timings_s: dict[str, float] | None = None
    findings: list[str] | None = None  # what a person should know of the data
    features: dict[str, int] | None = None  # embedded, and from the store; None without one


DETAILS = ("counts", "metrics", "timings_s", "findings", "features")  # of the record


@dataclass(frozen=True, kw_only=True)
class OnboardingOptions:
    """How the categories of one call are onboarded."""

    runs: str  # folder or S3 prefix for checkpoints; every node must reach it
    features: StorePlace | None = None  # features that were computed before
    promote: bool = True  # make the new versions champions
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


def onboard(categories: Sequence[Category], options: OnboardingOptions) -> list[Outcome]:
    """Onboard every category and register what comes out; one outcome each, in their order.

    A cluster is joined or started when there is something to train.

    Raises:
        ServiceAway: what every category needs is away.
    """
    connection.connect(connection.ONBOARDINGS)
    outcomes: dict[str, Outcome] = {}
    keys: dict[str, str] = {}
    for category in categories:
        try:
            keys[category.name] = onboarding_key(category)
        except (CategoryFault, storage.StorageError) as error:
            outcomes[category.name] = _failed(category, str(error))
            continue
        known = models.find(category.name, keys[category.name])
        if known is not None:
            outcomes[category.name] = _registered(
                category, OnboardingStatus.UNCHANGED, known, options
            )
    todo = [category for category in categories if category.name not in outcomes]
    if todo:
        with cluster():
            outcomes |= _fan_out(todo, keys, options)
    return [outcomes[category.name] for category in categories]


def _fan_out(
    todo: list[Category], keys: dict[str, str], options: OnboardingOptions
) -> dict[str, Outcome]:
    """Keep a few more fits in flight than the cluster holds; register each as it comes in."""
    resources, board = resources_for(len(todo)), start_board()

    def start(category: Category) -> Any:
        name = f"{category.name}-{keys[category.name][:16]}"
        run = TrainRun(name=name, runs=options.runs, resources=resources)
        return fit.remote(
            category.model_dump(), run, options.checkpoint_every_s, board, options.features
        )

    work = [(category, partial(start, category)) for category in todo]
    finished: list[Future[Outcome]] = []
    with Display("onboarding").shown() as display, ThreadPoolExecutor(2) as registrars:
        show = lambda: display.update(read_board(board))  # noqa: E731
        for category, reference in as_completed(work, resources.num_jobs + AHEAD, show):
            key = keys[category.name]
            finished.append(registrars.submit(_take, reference, category, key, options))
        outcomes = [future.result() for future in finished]
    return {outcome.category: outcome for outcome in outcomes}


def _take(reference: Any, category: Category, key: str, options: OnboardingOptions) -> Outcome:
    """Register what a job left, or say why there is nothing."""
    try:
        package = ray.get(reference)
        with tempfile.TemporaryDirectory(prefix="nightshift-package-") as scratch:
            folder = Path(scratch)
            for item in storage.list_objects(package):
                path = folder / item.uri[len(package) :].lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(storage.read_bytes(item.uri))
            if (folder / ERROR_FILE).exists():
                return _failed(category, json.loads((folder / ERROR_FILE).read_text())["error"])
            version = models.register(category.name, key, folder)
            record = json.loads((folder / RECORD_FILE).read_text())
        return _registered(category, OnboardingStatus.ONBOARDED, version, options, record)
    except Exception as error:  # one bad category never stops the others
        logger.info("onboarding %s failed", category.name, exc_info=True)
        return _failed(category, reason(error))


def _failed(category: Category, error: str) -> Outcome:
    logger.info("onboarding %s failed: %s", category.name, error)
    return Outcome(category=category.name, status=OnboardingStatus.FAILED, error=error)


def _registered(
    category: Category,
    status: OnboardingStatus,
    version: RegisteredVersion,
    options: OnboardingOptions,
    record: dict[str, Any] | None = None,
) -> Outcome:
    if options.promote and not version.is_champion:
        version = models.promote(version)
    details = {name: (record or {}).get(name) for name in DETAILS}
    return Outcome(
        category=category.name,
        status=status,
        model=version.name,
        version=version.version,
        is_champion=version.is_champion,
        **details,
    )


def to_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as plain JSON values."""
    return [asdict(outcome) for outcome in outcomes]
