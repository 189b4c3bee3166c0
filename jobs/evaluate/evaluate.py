"""Evaluate a catalogue by the honest protocol, in as many slots as the cluster holds.

A category's files and its MLflow run are written as soon as it is measured, the tables of all at
the end. A category that fails has its place in the tables and never stops the rest.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from jobs.cluster.join import cluster, reason, resources_for
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Job
from jobs.evaluate.evaluation_loop import Measured, run
from jobs.terminal.progress import Display
from model.errors import NightshiftError
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.comparison import comparison, to_markdown
from pipeline.evaluation.protocol import CategoryResult
from pipeline.evaluation.tables import Evaluation, tables
from pipeline.evaluation.variants import refuse_unknown, variant
from pipeline.feature_store.place import StorePlace
from pipeline.registry import connection, runs
from pipeline.registry.runs import ImageSet, RunRecord

__all__ = ["compare", "evaluate", "to_markdown"]

logger = logging.getLogger(__name__)

OWN = ""  # the detector that each category has in the catalogue


@dataclass(kw_only=True)
class Evaluator:
    """Takes categories one by one as they are measured, and keeps what they come to."""

    categories: Sequence[Category]
    num_seeds: int
    out: str
    detector: str = OWN  # the same for all categories; OWN: each has its own
    results: dict[str, CategoryResult] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)

    def take(self, category: Category, work: Callable[[], Measured]) -> None:
        """Log and write what a category's work gives, or note why it gives nothing.

        Raises:
            StorageError: the files cannot be written; nor could the next category's be.
        """
        name, files = category.name, {}
        try:
            measured = work()
        except Exception as error:  # one bad category never stops the others
            logger.info("evaluating %s failed", name, exc_info=True)
            self.errors[name] = reason(error)
        else:
            files = {f"{name}/{file}": data for file, data in sorted(measured.files.items())}
            self.results[name], self.files[name] = measured.result, list(files)
        try:
            runs.log_run(self._record(category, files))
        except NightshiftError as error:  # what was measured is still worth having
            self.errors[name] = f"{self.errors.get(name, 'measured, but not logged')}: {error}"
        for path, data in files.items():
            storage.write_bytes(storage.join(self.out, path), data)
        logger.info("evaluated %s: %s", name, self.errors.get(name, "done"))

    def evaluation(self, only: str | None = None) -> Evaluation:
        """Return what became of all categories, or of one."""
        names = [category.name for category in self.categories if only in (None, category.name)]
        return Evaluation(
            categories=names,
            num_seeds=self.num_seeds,
            results={name: self.results[name] for name in names if name in self.results},
            errors={name: self.errors[name] for name in names if name in self.errors},
            files={name: self.files[name] for name in names if name in self.files},
        )

    def finish(self) -> Evaluation:
        """Write the tables of all categories."""
        evaluation = self.evaluation()
        for name, content in tables(evaluation).items():
            storage.write_bytes(storage.join(self.out, name), content)
        return evaluation

    def _record(self, category: Category, files: Mapping[str, bytes]) -> RunRecord:
        """What goes into the category's run: its own tables and the files they link to."""
        result = self.results.get(category.name)
        settings = category.model_dump(mode="json") | {"num_seeds": self.num_seeds}
        record = RunRecord(
            experiment=connection.EVALUATIONS,
            name=f"evaluate {category.name}{f' with {self.detector}' if self.detector else ''}",
            key=_key(settings),
            category=category.name,
            settings=settings,
            files={**tables(self.evaluation(category.name)), **files},
            error=self.errors.get(category.name),
        )
        if result is None:
            return record
        return replace(
            record,
            settings=settings | {"recipe": asdict(category.recipe)},
            metrics=_means(result),
            curves=_of_seeds(result),
            images=ImageSet(
                digest=result.dataset_digest, uri=category.images, counts=result.counts
            ),
        )


def evaluate(
    categories: Sequence[Category], num_seeds: int, out: str, features: StorePlace | None = None
) -> Evaluation:
    """Train and measure every category, plot it and log it; write the tables under ``out``.

    Features that were computed before are taken from the store ``features``, if there is one.

    Raises:
        RegistryError, StorageError, ClusterError: what every category needs is away.
    """
    evaluator = Evaluator(categories=categories, num_seeds=num_seeds, out=out)
    variants = {OWN: {category.name: category for category in categories}}
    _run({OWN: evaluator}, variants, features)
    return evaluator.finish()


def compare(
    categories: Sequence[Category],
    detectors: Sequence[str],
    num_seeds: int,
    out: str,
    features: StorePlace | None = None,
) -> dict[str, Evaluation]:
    """Evaluate every category with each of some detectors; write a comparison under ``out``.

    Args:
        categories: what the catalogue says of them holds for all detectors.
        detectors: kinds or presets.
        num_seeds: trainings of each.
        out: folder or prefix; each detector's own tables go below it.
        features: the store of features that were computed before, if there is one.

    Raises:
        UnknownDetector: a name is none.
        RegistryError, StorageError, ClusterError: what every category needs is away.
    """
    refuse_unknown(detectors)
    evaluators, variants = {}, {}
    for name in dict.fromkeys(detectors):
        found = {category.name: variant(category, name) for category in categories}
        evaluators[name] = Evaluator(
            categories=categories,
            num_seeds=num_seeds,
            out=storage.join(out, name),
            detector=name,
            errors={n: each for n, each in found.items() if isinstance(each, str)},
        )
        variants[name] = {n: each for n, each in found.items() if isinstance(each, Category)}
    _run(evaluators, variants, features)
    evaluations = {name: evaluator.finish() for name, evaluator in evaluators.items()}
    files = comparison(evaluations)
    for name, content in files.items():
        storage.write_bytes(storage.join(out, name), content)
    settings = {"detectors": list(evaluators), "num_seeds": num_seeds}
    settings |= {"categories": {c.name: c.model_dump(mode="json") for c in categories}}
    runs.log_run(
        RunRecord(
            experiment=connection.EVALUATIONS,
            name=f"compare {', '.join(evaluators)}",
            key=_key(settings),
            category="",
            settings=settings,
            files=files,
        )
    )
    return evaluations


def _run(
    evaluators: Mapping[str, Evaluator],
    variants: Mapping[str, Mapping[str, Category]],
    features: StorePlace | None,
) -> None:
    """Measure each category's variants as one job, which shares what they have in common.

    Args:
        evaluators: by detector; all of the same categories.
        variants: by detector and category.
        features: the store, if there is one.
    """
    connection.connect(connection.EVALUATIONS)
    first = next(iter(evaluators.values()))
    for evaluator in evaluators.values():
        _try_out(evaluator.out)
    own = {
        category.name: {d: of[category.name] for d, of in variants.items() if category.name in of}
        for category in first.categories
    }
    wanted = [category for category in first.categories if own[category.name]]
    with cluster():
        config = {"num_seeds": first.num_seeds, "features": features}
        slots = Slots(loop=run, config=config, resources=resources_for(max(len(wanted), 1)))
        display = Display("evaluating", num_jobs=len(wanted))
        jobs = [_job(category, own[category.name]) for category in wanted]
        with display.shown():
            for ended in slots.work_through(jobs, display.update):
                found = ended.result
                for detector, each in own[ended.name].items():
                    told = ended.error or found[detector]
                    evaluators[detector].take(each, partial(_checked, told))


def _job(category: Category, variants: Mapping[str, Category]) -> Job:
    plain = {detector: each.model_dump() for detector, each in variants.items()}
    return Job(name=category.name, group=repr(category.backbone_config), payload=plain)


def _checked(found: Measured | str) -> Measured:
    """Return what was measured.

    Raises:
        NightshiftError: with the reason why there is nothing.
    """
    if isinstance(found, str):
        raise NightshiftError(found)
    return found


def _key(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _try_out(out: str) -> None:
    """Find out that nothing can be written now, and not after hours of training."""
    probe = storage.join(out, ".nightshift")
    storage.write_bytes(probe, b"")
    storage.delete(probe)


def _means(result: CategoryResult) -> dict[str, float]:
    """Return every metric's mean over the seeds and, where there are several, its spread."""
    summary = result.summary()
    spreads = {f"std/{name}": std for name, (_, std) in summary.items() if std is not None}
    return {name: mean for name, (mean, _) in summary.items()} | spreads


def _of_seeds(result: CategoryResult) -> list[tuple[str, float, int]]:
    """Return each seed's values, each at the seed's own step."""
    names = result.summary()
    return [(f"seeds/{n}", seed.numbers[n], seed.seed) for n in names for seed in result.seeds]
