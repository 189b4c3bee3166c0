"""Study hyper-parameters across categories: features once, the search, finalists, answer, check."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from jobs.cluster.join import cluster, resources_for
from jobs.study.search import search
from jobs.study.stage import PLENTY, embed, train_or_score
from jobs.study.test_set_check import check
from pipeline import storage
from pipeline.feature_store.place import StorePlace
from pipeline.registry import connection
from pipeline.study import tracking
from pipeline.study.answer import Answer, answer, catalogue_fragment, log_metrics
from pipeline.study.choice import always_failed, finalists
from pipeline.study.feature_view import wanted_views
from pipeline.study.page import study_page
from pipeline.study.records import (
    FRAGMENT,
    PAGE,
    RESULT,
    Ledger,
    StudyError,
    StudyFolder,
    TrialRecord,
    repeat_name,
)
from pipeline.study.run import Repeat, StudyContext, train_again
from pipeline.study.sets import build_view, fold_plan
from pipeline.study.settings import Study

logger = logging.getLogger(__name__)

HEADS, LEFT_OUT = "heads", "left_out"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a study came to, and where it lies."""

    answer: Answer
    page: str
    catalogue: bytes  # of the winners
    errors: dict[str, str]  # by category


def tune(
    study: Study, out: str, *, resume: bool = False, features: StorePlace | None = None
) -> Done:
    """Run a study, or go on with it; write its answer below ``out``. Nothing is promoted.

    Features that were computed before are taken from the store ``features``, if there is one.

    Raises:
        StudyError: its name is taken, or no trial or category is left.
        RegistryError, StorageError, ClusterError: what every trial needs is away.
    """
    connection.connect(connection.STUDIES)
    folder = StudyFolder(storage.join(out, study.name))
    folder.begin(study, resume=resume)
    study = dataclasses.replace(study.at(folder.uri), store=features)
    ledger = Ledger(folder)
    parent = tracking.begin(study)
    with cluster():
        resources = resources_for(PLENTY)
        views, errors = _features(study, folder, ledger)
        heads, threads = folder.join(HEADS), resources.cpus
        context = StudyContext(study=study, features=views, heads=heads, threads=threads)
        context = _without(context, errors)
        folder.note(LEFT_OUT, {"errors": errors})  # all trials are over the same categories
        started = time.monotonic()
        records = search(context, folder, parent, resources)
        ledger.took("search", started)
        errors |= always_failed(records, [category.name for category in context.study.categories])
        context = _without(context, errors)
        repeats = _finals(context, folder, records, ledger)
        found = answer(context.study, records, repeats)
        _write(folder, found)  # before any test image is read
        started = time.monotonic()
        found["check"] = check(context, folder, records, found)
        ledger.took("check", started)
    found["cost"] = ledger.to_json() | {"features": ledger.features() if features else None}
    found["failed_categories"] = errors
    return _finish(context.study, folder, records, found)


def _without(context: StudyContext, errors: Mapping[str, str]) -> StudyContext:
    study = context.study.without(errors)
    if not study.categories:
        raise StudyError(f"no category is left to study: {'; '.join(errors.values())}")
    return dataclasses.replace(context, study=study)


def _features(
    study: Study, folder: StudyFolder, ledger: Ledger
) -> tuple[dict[str, str], dict[str, str]]:
    """Embed every view; return its address by key, and why a category has none.

    A category that had none when the search began stays out.
    """
    started = time.monotonic()
    errors: dict[str, str] = folder.noted(LEFT_OUT).get("errors", {})
    wanted = wanted_views(study.without(errors))
    features = {key: folder.join("features", view.name) for key, view in wanted.items()}
    folds, labelled = fold_plan(study.settings), study.settings.validation
    work = {
        key: partial(build_view, view, folds, features[key], labelled.get(view.category.name))
        for key, view in wanted.items()
    }
    for ended in embed("features", work, wanted):
        view = wanted[ended.name]
        if ended.error is not None:
            errors.setdefault(view.category.name, ended.error)
        else:
            ledger.embedded(view.name, ended.result)
    ledger.took("features", started)
    return features, errors


def _finals(
    context: StudyContext, folder: StudyFolder, records: Sequence[TrialRecord], ledger: Ledger
) -> list[Repeat]:
    """Train the finalists again with other seeds; what is there already stays."""
    started = time.monotonic()
    settings = context.study.settings
    names = [category.name for category in context.study.categories]
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
    left = {key: partial(train_again, context, *w) for key, w in wanted.items() if key not in known}
    for ended in train_or_score("finalists", left):
        if ended.error is not None:
            raise StudyError(f"a finalist could not be trained again: {ended.error}")
        folder.write_repeat(ended.result)
        known[ended.name] = ended.result
    ledger.took("finalists", started)
    return [known[key] for key in wanted]


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
    tracking.finish(study, records, log_metrics(found), files)
    return Done(
        answer=found,
        page=folder.join(PAGE),
        catalogue=files[FRAGMENT],
        errors=found["failed_categories"],
    )
