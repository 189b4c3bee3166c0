"""After the choice: test images are embedded, and say what the study's objective was worth."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from jobs.study.stage import Work, embed, train_or_score
from pipeline import storage
from pipeline.study.answer import Answer
from pipeline.study.check import (
    Measured,
    all_measured,
    build_test,
    correlations,
    measure_again,
    measure_heads,
    paired,
)
from pipeline.study.choice import DEFAULT
from pipeline.study.feature_view import wanted_views
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
    views = wanted_views(context.study)
    work = {key: partial(build_test, view, context.features[key]) for key, view in views.items()}
    for ended in embed("test images", work, views):
        view = views[ended.name]
        if ended.error is not None:
            logger.warning("no check of %s: %s", view.category.name, ended.error)
        else:
            ledger.embedded(f"{view.name}/test", ended.result)
    told = correlations(_measured(context, [record for record in records if record.rungs]))
    for name, values in _best_and_default(context, found).items():
        told[name]["best_over_default"] = values
    folder.note("check", told)
    storage.remove_below(context.heads)
    return told


def _measured(context: StudyContext, records: Sequence[TrialRecord]) -> list[Measured]:
    """Return the records whose kept heads could be measured, with their test metrics."""
    heads = {record.trial: storage.join(context.heads, record.trial) for record in records}
    work = {
        record.trial: partial(measure_heads, context, record.configuration, heads[record.trial])
        for record in records
    }
    told = _told("check", work)
    return [(record, told[record.trial]) for record in records if record.trial in told]


def _told(stage: str, work: Work) -> dict[str, Any]:
    """Return what each piece of work comes to; what fails is left out."""
    told = {}
    for ended in train_or_score(stage, work):
        if ended.error is not None:
            logger.warning("no check of %s: %s", ended.name, ended.error)
        else:
            told[ended.name] = ended.result
    return told


def _best_and_default(context: StudyContext, found: Answer) -> dict[str, Any]:
    """Return test metrics of the best settings and of those as they are, over the repeats."""
    repeats = range(1, context.study.settings.seeds + 1)
    work = {
        f"{name} {which} {number}": partial(measure_again, context, configuration, name, number)
        for name, own in found["categories"].items()
        for which, configuration in (("best", own["best"]["configuration"]), ("default", DEFAULT))
        for number in repeats
    }
    told = _told("check of the choice", work)
    found_again = {}
    for name in found["categories"]:
        sides = [
            [told.get(f"{name} {which} {number}", {}) for number in repeats]
            for which in ("best", "default")
        ]
        if all(map(all_measured, sides)):
            found_again[name] = paired(*sides)
    return found_again
