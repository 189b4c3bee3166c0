"""After the choice: test images are embedded, and say what the study's objective was worth."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import ray

from jobs.cluster.join import reason, resources_for
from jobs.study.outcomes import PLENTY, outcomes
from jobs.study.tasks import embed_test, measure, measure_repeat
from pipeline import storage
from pipeline.study.answer import Answer
from pipeline.study.check import Measured, all_measured, correlations, paired
from pipeline.study.choice import DEFAULT
from pipeline.study.feature_view import FeatureView, wanted_views
from pipeline.study.records import Ledger, StudyFolder, TrialRecord
from pipeline.study.run import StudyContext

logger = logging.getLogger(__name__)


def check(
    context: StudyContext, folder: StudyFolder, records: Sequence[TrialRecord], found: Answer
) -> dict[str, Any]:
    """Compare objective and choice with labelled test images, where there are some.

    Args:
        context: of the study.
        folder: where it lies.
        records: of the search.
        found: the answer, which stays as it is.
    """
    known = folder.noted("check")
    if known:
        return known
    ledger = Ledger(folder)
    resources = resources_for(PLENTY)
    named = {uri: view for view, uri in _views_of(context)}
    task = embed_test.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    work = {uri: partial(task.remote, view, uri) for uri, view in named.items()}
    for uri, outcome in outcomes(work, "test images"):
        if isinstance(outcome, Exception):
            logger.warning("no check of %s: %s", named[uri].category.name, reason(outcome))
        else:
            ledger.embedded(f"{named[uri].name}/test", outcome)
    told = correlations(_measured(context, [record for record in records if record.rungs]))
    for name, values in _best_and_default(context, found).items():
        told[name]["best_over_default"] = values
    folder.note("check", told)
    storage.remove_below(context.heads)
    return told


def _measured(context: StudyContext, records: Sequence[TrialRecord]) -> list[Measured]:
    """Return the records whose kept heads could be measured, with their test metrics."""
    resources = resources_for(PLENTY)
    task = measure.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    shared = ray.put(context)
    work = {
        record.trial: partial(
            task.remote, shared, record.configuration, storage.join(context.heads, record.trial)
        )
        for record in records
    }
    told = dict(outcomes(work, "check"))
    for trial, outcome in told.items():
        if isinstance(outcome, Exception):
            logger.warning("no check of trial %s: %s", trial, reason(outcome))
    return [
        (record, told[record.trial])
        for record in records
        if not isinstance(told[record.trial], Exception)
    ]


def _best_and_default(context: StudyContext, found: Answer) -> dict[str, Any]:
    """Return test metrics of the best settings and of those as they are, over the repeats."""
    resources = resources_for(PLENTY)
    task = measure_repeat.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    shared = ray.put(context)
    repeats = range(1, context.study.settings.seeds + 1)
    work = {
        f"{name} {which} {number}": partial(task.remote, shared, configuration, name, number)
        for name, own in found["categories"].items()
        for which, configuration in (("best", own["best"]["configuration"]), ("default", DEFAULT))
        for number in repeats
    }
    told = dict(outcomes(work, "check of the choice"))
    pairs = {
        name: [
            [told[f"{name} {which} {number}"] for number in repeats]
            for which in ("best", "default")
        ]
        for name in found["categories"]
    }
    return {name: paired(*both) for name, both in pairs.items() if all(map(all_measured, both))}


def _views_of(context: StudyContext) -> Iterator[tuple[FeatureView, str]]:
    for key, view in wanted_views(context.study).items():
        yield view, context.features[key]
