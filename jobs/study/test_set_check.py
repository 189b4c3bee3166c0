"""After the choice: test images are embedded, and say what the study's objective was worth."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from jobs.cluster.as_completed import PLENTY, as_completed
from jobs.cluster.join import reason, resources_for
from jobs.study.tasks import embed_test, measure, measure_repeat
from pipeline import storage
from pipeline.study.answer import Answer
from pipeline.study.check import Measured, all_measured, correlations, discard, paired
from pipeline.study.choice import DEFAULT
from pipeline.study.feature_view import FeatureView, wanted_views
from pipeline.study.records import Ledger, StudyFolder, TrialRecord
from pipeline.study.run import StudyContext

logger = logging.getLogger(__name__)


def check(
    plan: StudyContext, folder: StudyFolder, records: Sequence[TrialRecord], found: Answer
) -> dict[str, Any]:
    """Compare objective and choice with labelled test images, where there are some.

    Args:
        plan: of the study.
        folder: where it lies.
        records: of the search.
        found: the answer, which stays as it is.
    """
    known = folder.noted("check")
    if known:
        return known
    ledger = Ledger(folder)
    resources = resources_for(PLENTY)
    named = {place: view for view, place in _views_of(plan)}
    task = embed_test.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    work = {place: task.remote(view, place) for place, view in named.items()}
    for place, outcome in as_completed(work, "test images"):
        if isinstance(outcome, Exception):
            logger.warning("no check of %s: %s", named[place].category.name, reason(outcome))
        else:
            ledger.embedded(f"{named[place].name}/test", outcome)
    told = correlations(_measured(plan, [record for record in records if record.rungs]))
    for name, values in _best_and_default(plan, found).items():
        told[name]["best_over_default"] = values
    folder.note("check", told)
    discard(plan.heads)
    return told


def _measured(plan: StudyContext, records: Sequence[TrialRecord]) -> list[Measured]:
    """Return the records whose kept heads could be measured, with their test metrics."""
    resources = resources_for(PLENTY)
    task = measure.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    shared = ray.put(plan)
    work = {
        record.trial: task.remote(
            shared, record.configuration, storage.join(plan.heads, record.trial)
        )
        for record in records
    }
    told = dict(as_completed(work, "check"))
    for trial, outcome in told.items():
        if isinstance(outcome, Exception):
            logger.warning("no check of trial %s: %s", trial, reason(outcome))
    return [
        (record, told[record.trial])
        for record in records
        if not isinstance(told[record.trial], Exception)
    ]


def _best_and_default(plan: StudyContext, found: Answer) -> dict[str, Any]:
    """Return test metrics of the best settings and of those as they are, over the repeats."""
    resources = resources_for(PLENTY)
    task = measure_repeat.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    shared = ray.put(plan)
    repeats = range(1, plan.study.settings.seeds + 1)
    work = {
        f"{name} {which} {number}": task.remote(shared, configuration, name, number)
        for name, own in found["categories"].items()
        for which, configuration in (("best", own["best"]["configuration"]), ("default", DEFAULT))
        for number in repeats
    }
    told = dict(as_completed(work, "check of the choice"))
    pairs = {
        name: [
            [told[f"{name} {which} {number}"] for number in repeats]
            for which in ("best", "default")
        ]
        for name in found["categories"]
    }
    return {name: paired(*both) for name, both in pairs.items() if all(map(all_measured, both))}


def _views_of(plan: StudyContext) -> Iterator[tuple[FeatureView, str]]:
    for key, view in wanted_views(plan.study).items():
        yield view, plan.places[key]
