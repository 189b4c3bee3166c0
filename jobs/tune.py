"""Study hyper-parameters across categories: features once, the search, finalists, answer, check."""

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from jobs.cluster import cluster, reason, slots
from jobs.progress import Display
from jobs.search import search
from jobs.trials import embed, embed_test, measure, repeat
from pipeline import storage, study_tracking, tracking
from pipeline.study_answer import Answer, answer, catalogue_fragment, log_metrics
from pipeline.study_check import Measured, correlations, discard
from pipeline.study_choice import finalists
from pipeline.study_features import View, wanted_views
from pipeline.study_page import study_page
from pipeline.study_records import (
    FRAGMENT,
    PAGE,
    RESULT,
    StudyError,
    StudyFolder,
    TrialRecord,
    repeat_name,
)
from pipeline.study_run import Plan, Repeat
from pipeline.study_sets import Passes, fold_plan
from pipeline.study_settings import Study

logger = logging.getLogger(__name__)

HEADS = "heads"
PLENTY = 10_000  # tasks; each gets the least there is


@dataclass
class Ledger:
    """What a study has cost so far, over all the times it was begun or resumed."""

    folder: StudyFolder
    images: dict[str, int] = field(default_factory=dict)  # embedded, by view
    backbone_passes: dict[str, int] = field(default_factory=dict)  # over them, by view
    seconds: dict[str, float] = field(default_factory=dict)  # by stage

    def __post_init__(self) -> None:
        told = self.folder.noted("ledger")
        self.images = told.get("images", {})
        self.backbone_passes = told.get("backbone_passes", {})
        self.seconds = told.get("seconds", {})

    def embedded(self, view: str, took: Passes) -> None:
        """Add the backbone passes of a view."""
        if took.images:
            self.images[view] = took.images
            self.backbone_passes[view] = self.backbone_passes.get(view, 0) + took.passes
            self._keep()

    def took(self, stage: str, started: float) -> None:
        """Add the time since ``started``."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
        self._keep()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "images": self.images,
            "backbone_passes": self.backbone_passes,
            "seconds": self.seconds,
        }

    def _keep(self) -> None:
        self.folder.note("ledger", self.to_json())


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a study came to, and where it lies."""

    answer: Answer
    page: str
    catalogue: bytes  # of the winners
    errors: dict[str, str]  # by category


def tune(study: Study, out: str, *, resume: bool = False) -> Done:
    """Run a study, or go on with it; write its answer below ``out``. Nothing is promoted.

    Raises:
        StudyError: its name is taken, or no trial or category is left.
        RegistryError, StorageError, ClusterError: what every trial needs is away.
    """
    tracking.connect()
    folder = StudyFolder(storage.join(out, study.name))
    folder.begin(study, resume=resume)
    study = study.at(folder.place)
    ledger = Ledger(folder)
    parent = study_tracking.begin(study)
    with cluster():
        share = slots(PLENTY)
        places, errors = _features(study, folder, ledger)
        left = [category for category in study.categories if category.name not in errors]
        if not left:
            raise StudyError(f"no category is left to study: {'; '.join(errors.values())}")
        plan = Plan(
            study=dataclasses.replace(study, categories=left),
            places=places,
            heads=folder.join(HEADS),
            threads=share.cpus,
        )
        started = time.monotonic()
        records = search(plan, folder, parent, share)
        ledger.took("search", started)
        repeats = _finals(plan, folder, records, ledger)
        found = answer(plan.study, records, repeats)
        _write(folder, found)  # before any test image is read
        found["check"] = _check(plan, folder, records, ledger)
    found["cost"] = ledger.to_json()
    found["failed_categories"] = errors
    return _finish(plan.study, folder, records, found)


def _features(
    study: Study, folder: StudyFolder, ledger: Ledger
) -> tuple[dict[str, str], dict[str, str]]:
    """Embed every view; return its place by key, and why a category has none."""
    started = time.monotonic()
    wanted = wanted_views(study)
    places = {key: folder.join("features", view.name) for key, view in wanted.items()}
    share = slots(len(wanted))
    task = embed.options(num_cpus=share.cpus, num_gpus=share.gpus)
    folds = fold_plan(study.settings)
    work = {
        key: task.remote(
            view, folds, places[key], study.settings.validation.get(view.category.name)
        )
        for key, view in wanted.items()
    }
    errors: dict[str, str] = {}
    for key, outcome in _gather(work, "features"):
        name = wanted[key].category.name
        if isinstance(outcome, Exception):
            errors.setdefault(name, reason(outcome))
        else:
            ledger.embedded(wanted[key].name, outcome)
    ledger.took("features", started)
    return places, errors


def _finals(
    plan: Plan, folder: StudyFolder, records: Sequence[TrialRecord], ledger: Ledger
) -> list[Repeat]:
    """Train the finalists again with other seeds; what is there already stays."""
    started = time.monotonic()
    settings = plan.study.settings
    names = [category.name for category in plan.study.categories]
    chosen = finalists(records, names, settings.finalists)
    if len(chosen) == len(names):
        why = next((record.error for record in records if record.error), "none was trained")
        raise StudyError(f"no trial of {len(records)} finished its training: {why}")
    known = folder.repeats()
    wanted = {
        repeat_name(configuration, name, number): (configuration, name, number)
        for configuration, name in chosen
        for number in range(1, settings.seeds + 1)
    }
    share = slots(PLENTY)
    task = repeat.options(num_cpus=share.cpus, num_gpus=share.gpus)
    shared = ray.put(plan)
    work = {key: task.remote(shared, *job) for key, job in wanted.items() if key not in known}
    for key, outcome in _gather(work, "finalists"):
        if isinstance(outcome, Exception):
            raise StudyError(f"a finalist could not be trained again: {reason(outcome)}")
        folder.write_repeat(outcome)
        known[key] = outcome
    ledger.took("finalists", started)
    return [known[key] for key in wanted]


def _gather(work: Mapping[str, Any], stage: str) -> Iterator[tuple[str, Any]]:
    """Yield the outcome of every task, or what it died of, as they come in."""
    running = {reference: key for key, reference in work.items()}
    with Display("tuning").shown() as display:
        while running:
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in done:
                key = running.pop(reference)
                try:
                    yield key, ray.get(reference)
                except Exception as error:  # noqa: BLE001  the caller knows what it means
                    yield key, error
            display.update({stage: (stage, len(work) - len(running), len(work))})


def _check(
    plan: Plan, folder: StudyFolder, records: Sequence[TrialRecord], ledger: Ledger
) -> dict[str, Any]:
    """Compare the objective with labelled test images, where there are some; choose nothing."""
    known = folder.noted("check")
    if known:
        return known
    started = time.monotonic()
    share = slots(PLENTY)
    named = {place: view for view, place in _views_of(plan)}
    task = embed_test.options(num_cpus=share.cpus, num_gpus=share.gpus)
    work = {place: task.remote(view, place) for place, view in named.items()}
    for place, outcome in _gather(work, "test images"):
        if isinstance(outcome, Exception):
            logger.warning("no check of %s: %s", named[place].category.name, reason(outcome))
        else:
            ledger.embedded(f"{named[place].name}/test", outcome)
    found = correlations(_measured(plan, [record for record in records if record.rungs]))
    ledger.took("check", started)
    folder.note("check", found)
    discard(plan.heads)
    return found


def _measured(plan: Plan, records: Sequence[TrialRecord]) -> list[Measured]:
    """Return the records whose kept heads could be measured, with their test metrics."""
    share = slots(PLENTY)
    task = measure.options(num_cpus=share.cpus, num_gpus=share.gpus)
    shared = ray.put(plan)
    work = {
        record.trial: task.remote(
            shared, record.configuration, storage.join(plan.heads, record.trial)
        )
        for record in records
    }
    told = dict(_gather(work, "check"))
    for trial, outcome in told.items():
        if isinstance(outcome, Exception):
            logger.warning("no check of trial %s: %s", trial, reason(outcome))
    return [
        (record, told[record.trial])
        for record in records
        if not isinstance(told[record.trial], Exception)
    ]


def _views_of(plan: Plan) -> Iterator[tuple[View, str]]:
    for key, view in wanted_views(plan.study).items():
        yield view, plan.places[key]


def _write(folder: StudyFolder, found: Answer) -> None:
    storage.write_bytes(folder.join(RESULT), json.dumps(found, indent=1).encode())


def _finish(
    study: Study, folder: StudyFolder, records: Sequence[TrialRecord], found: Answer
) -> Done:
    """Write and log everything."""
    files = {
        RESULT: json.dumps(found, indent=1).encode(),
        PAGE: study_page(found).encode(),
        FRAGMENT: catalogue_fragment(study, found),
    }
    for name, content in files.items():
        storage.write_bytes(folder.join(name), content)
    study_tracking.finish(study, records, log_metrics(found), files)
    return Done(
        answer=found,
        page=folder.join(PAGE),
        catalogue=files[FRAGMENT],
        errors=found["failed_categories"],
    )
