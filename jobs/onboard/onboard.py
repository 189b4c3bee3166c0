"""Onboard many categories: a Ray Train run for as many at once as the cluster holds.

The runs take the categories from a queue. What a category has stored lies under its onboarding
key, so that an onboarding that was killed is found again and goes on from its last checkpoint; a
category that fails is reported and never stops the rest.
"""

import datetime as dt
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.cluster.join import cluster, reason, resources_for
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Ended, Job
from jobs.onboard.gated import ask_gate, learned_instead, promote_first, refuse_without_results
from jobs.onboard.train_loop import run
from jobs.terminal.progress import Display
from model.errors import CategoryFault, NightshiftError, ServiceAway
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.catalogue.rename_table import RenamesError
from pipeline.catalogue.renames import Rename, earlier_names
from pipeline.feature_store.place import StorePlace
from pipeline.inspection.known_categories import SUMMARIES_FILE, collect
from pipeline.labels.label import LabelsError
from pipeline.labels.label_table import LabelTable
from pipeline.labels.told import told_of
from pipeline.onboarding.key import Identity, identify
from pipeline.onboarding.overview import add_to_overview
from pipeline.onboarding.unfinished import UnfinishedOnboarding
from pipeline.package import RECORD_FILE
from pipeline.registry import aliases, category_names, connection, models
from pipeline.registry.aliases import CHAMPION
from pipeline.registry.models import RegisteredVersion

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_S = 15.0
LOOKED_UP_AT_A_TIME = 8
REGISTERS_S = 60.0  # at most, for one version
ASK_EVERY_S = 0.5


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
    gate: str | None = None  # what the gate said; None where it was not asked
    counts: dict[str, int] | None = None
    metrics: dict[str, float] | None = None
    timings_s: dict[str, float] | None = None
    findings: list[str] | None = None  # what a person should know of the data
    features: dict[str, int] | None = None  # embedded, and from the store; None without one
    defect_sizes: list[dict[str, Any]] | None = None  # made ones that were found
    num_files: int | None = None  # masks included; None where nothing was done


# Of the record.
DETAILS = ("counts", "metrics", "timings_s", "findings", "features", "defect_sizes")


@dataclass(frozen=True, kw_only=True)
class OnboardingPlan:
    """What an onboarding would do with one category."""

    status: str  # to do, to go on, unchanged, failed
    num_files: int | None = None
    error: str | None = None


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
    refuse_without_results(categories if options.promote else ())
    connection.connect(connection.ONBOARDINGS)
    looks = _look_up_all(categories, options)
    outcomes = {look.category: look for look in looks if isinstance(look, Outcome)}
    todo = [look for look in looks if isinstance(look, _Todo)]
    if todo:
        try:
            with cluster():
                _fan_out(todo, options, outcomes)
        except ServiceAway:  # what has ended, has
            _show(options, [*outcomes.values()])
            raise
    waiting = [category for category in categories if outcomes[category.name].gate is not None]
    for name, (promoted, said) in ask_gate(waiting).items():
        is_champion = promoted == outcomes[name].version
        outcomes[name] = replace(outcomes[name], is_champion=is_champion, gate=said)
    _show(options, found := [outcomes[category.name] for category in categories])
    return found


def _show(options: OnboardingOptions, outcomes: Sequence[Outcome]) -> None:
    try:
        page = add_to_overview(options.runs, to_json(outcomes), dt.datetime.now(dt.UTC))
        logger.info("overview: %s", page)
    except (storage.StorageError, storage.StorageAway) as error:  # what is registered, is
        logger.warning("the overview could not be written: %s", error)


def plan(categories: Sequence[Category], options: OnboardingOptions) -> dict[str, OnboardingPlan]:
    """Return what an onboarding would do with each category, which changes nothing.

    Raises:
        ServiceAway: what every category needs is away.
    """
    connection.connect()
    looks = _look_up_all(categories, replace(options, promote=False))
    plans = {}
    for category, look in zip(categories, looks, strict=True):
        if isinstance(look, _Todo):
            files = UnfinishedOnboarding(look.place)
            status = "to go on" if files.is_begun else "to do"
            plans[category.name] = OnboardingPlan(status=status, num_files=look.identity.num_files)
        else:
            plans[category.name] = OnboardingPlan(status=look.status.value, error=look.error)
    return plans


def _look_up_all(
    categories: Sequence[Category], options: OnboardingOptions
) -> "list[Outcome | _Todo]":
    renames = category_names.all_renames()
    outs = {out for category in categories for out in category.labels}
    known = _Known(renames=renames, tables={out: LabelTable(out, renames) for out in outs})
    for out in sorted(out for out, table in known.tables.items() if table.is_empty):
        logger.warning("%s: no labels are there, and none are learned from", out)
    with ThreadPoolExecutor(LOOKED_UP_AT_A_TIME) as pool:
        return list(pool.map(lambda each: _look_up(each, options, known), categories))


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What all categories are looked up in."""

    renames: Sequence[Rename]
    tables: Mapping[str, LabelTable]  # of labels, by the results beside which they lie


@dataclass(frozen=True, kw_only=True)
class _Todo:
    """A category to onboard, what it is known by, and where its files lie meanwhile."""

    category: Category
    identity: Identity
    place: str

    @property
    def job(self) -> Job:
        """What a worker is given."""
        return Job(
            name=self.category.name,
            size=self.identity.num_files,
            group=repr(self.category.backbone_config),
            payload={
                "category": self.category.model_dump(),
                "place": self.place,
                "told": self.identity.told,
            },
        )


def _look_up(
    category: Category, options: OnboardingOptions, names_and_labels: "_Known"
) -> Outcome | _Todo:
    """Find out whether a category has been onboarded as it is, by whatever name.

    Raises:
        ServiceAway: what every category needs is away.
    """
    try:
        names = [name for name, _ in earlier_names(category.name, names_and_labels.renames)]
        told = told_of(category.name, [names_and_labels.tables[out] for out in category.labels])
        identity = identify(category, names, told)
    except (CategoryFault, LabelsError, RenamesError, storage.StorageError) as error:
        return _failed(category, str(error))
    found = (models.find(category.name, key) for key in (identity.key, *identity.earlier_keys))
    known = next((version for version in found if version is not None), None)
    if known is not None:
        return _registered(category, OnboardingStatus.UNCHANGED, known, options)
    place = storage.join(options.runs, f"{category.name}-{identity.key[:16]}")
    return _Todo(category=category, identity=identity, place=place)


def _fan_out(todo: list[_Todo], options: OnboardingOptions, outcomes: dict[str, Outcome]) -> None:
    """Have every category onboarded, register each as it comes in, and note what it came to."""
    config = {
        "checkpoint_every_s": options.checkpoint_every_s,
        "features": options.features,
        "summaries": _collect_summaries(options.runs),
    }
    resources = resources_for(len(todo))
    config["makes_ahead"] = bool(resources.gpus)  # training on CPUs leaves none to read with
    slots = Slots(loop=run, config=config, runs=options.runs, resources=resources)
    finished: list[Future[Outcome]] = []
    by_name = {each.category.name: each for each in todo}
    display = Display("onboarding", num_jobs=len(todo))
    try:
        with display.shown(), ThreadPoolExecutor(2) as registrars:
            for ended in slots.work_through([each.job for each in todo], display.update):
                finished.append(registrars.submit(_take, ended, by_name[ended.name], options))
    finally:
        outcomes |= {(outcome := future.result()).category: outcome for future in finished}


def _collect_summaries(runs: str) -> str | None:
    """Bring what all champions look like to where workers read it; None: it cannot be had."""
    uri = storage.join(runs, SUMMARIES_FILE)
    try:
        champions = models.champions()
        digests = {name: version.digest for name, version in champions.items()}
        collect(uri, digests, lambda name: models.training_images(champions[name]))
    except NightshiftError as error:  # images are compared for a finding, nothing rests on it
        logger.warning("no image is compared with other categories: %s", error)
        return None
    return uri


def _take(ended: Ended, todo: _Todo, options: OnboardingOptions) -> Outcome:
    """Register what an onboarding left, or say why there is nothing."""
    category, files = todo.category, UnfinishedOnboarding(todo.place)
    if ended.error is not None:
        return _failed(category, ended.error)
    try:
        known = _registered_by_another(todo, files)
        if known is not None:
            return _registered(category, OnboardingStatus.UNCHANGED, known, options)
        outcome = _register(todo, files, options)
    except Exception as error:  # one bad category never stops the others
        logger.info("onboarding %s failed", category.name, exc_info=True)
        return _failed(category, reason(error))
    try:
        files.remove()
    except (storage.StorageError, storage.StorageAway) as error:  # the version is registered
        logger.warning("what lies in %s is not needed any more: %s", todo.place, error)
    return outcome


def _register(todo: _Todo, files: UnfinishedOnboarding, options: OnboardingOptions) -> Outcome:
    try:
        with tempfile.TemporaryDirectory(prefix="nightshift-package-") as scratch:
            folder = Path(scratch)
            files.fetch_package(folder)
            version = models.register(todo.category.name, todo.identity.key, folder)
            record = json.loads((folder / RECORD_FILE).read_text())
    except BaseException:
        files.release()
        raise
    outcome = _registered(todo.category, OnboardingStatus.ONBOARDED, version, options, record)
    return replace(outcome, num_files=todo.identity.num_files)


def _registered_by_another(todo: _Todo, files: UnfinishedOnboarding) -> RegisteredVersion | None:
    """Return the version that another command registers meanwhile; None: it is left to us.

    A command that was killed while it registered is waited for in vain.
    """
    asked = time.monotonic()
    while (known := models.find(todo.category.name, todo.identity.key)) is None:
        if files.claim() or time.monotonic() - asked > REGISTERS_S:
            return models.find(todo.category.name, todo.identity.key)  # until the claim was made
        time.sleep(ASK_EVERY_S)
    return known


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
    said: dict[str, Any] = {}
    if options.promote and not version.is_champion:
        version, said = _promoted(category, status, version)
    details = {name: (record or {}).get(name) for name in DETAILS}
    return Outcome(
        category=category.name,
        status=status,
        model=version.name,
        version=version.version,
        is_champion=version.is_champion,
        **(details | said),
    )


def _promoted(
    category: Category, status: OnboardingStatus, version: RegisteredVersion
) -> tuple[RegisteredVersion, dict[str, Any]]:
    """Make a version the champion, or leave it and return what its outcome says of that."""
    is_known = status is OnboardingStatus.UNCHANGED
    if is_known or category.promote == "gate":
        history = aliases.history(version.category)
        if is_known and aliases.stays(history):
            return version, {}
        if is_known and (instead := learned_instead(version, history)):
            return version, {"findings": [instead]}
        if category.promote == "gate":
            if CHAMPION in history.aliases:
                return version, {"gate": "not asked: it is not the challenger"}
            return promote_first(version)
    return models.promote(version), {}


def to_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes as plain JSON values."""
    return [asdict(outcome) for outcome in outcomes]
