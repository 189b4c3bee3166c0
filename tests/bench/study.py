"""A study of sixty configurations over three categories against a process for every training."""

import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from pipeline.catalogue.catalogue import load_catalogue
from pipeline.study.feature_view import wanted_views
from pipeline.study.run import RUNGS, StudyContext, StudyTrial
from pipeline.study.sets import build_view, fold_plan
from pipeline.study.settings import Study, load_study
from tests.bench.material import write_pictures
from tests.bench.measure import Ratio, in_fresh_process

CONFIGURATIONS, CATEGORIES = 60, ("first", "second", "third")
IMAGES = 209  # as many as bottle has
SAMPLED = (  # what is really run; the rest is scaled
    {"sigma": 0.5, "layers": [2, 3]},
    {"sigma": 2.0, "layers": [2, 3]},
    {"sigma": 1.0, "layers": [2, 3]},
)


def study_vs_processes() -> Iterator[Ratio]:
    """CPU time of 180 trainings in a process each over that of a study.

    The study computes features once and trains one configuration after the other in a process
    that stays. A process for every training embeds the images that it needs, or finds the study's
    features ready. Nothing is stopped early on any side.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in CATEGORIES:
            write_pictures(folder / name, IMAGES, "png")
        catalogue = _catalogue(folder)
        features_s, shared_s = in_fresh_process(_as_a_study, catalogue, folder / "features")
        alone_s = _mean_s(catalogue, {name: folder / f"apart-{name}" for name in CATEGORIES})
        ready_s = _mean_s(catalogue, dict.fromkeys(CATEGORIES, folder / "features"))
    trainings = CONFIGURATIONS * len(CATEGORIES)
    whole_s = features_s + trainings * shared_s
    measured = f"{len(SAMPLED) * len(CATEGORIES)} and {len(CATEGORIES)} trainings measured"
    for name, each_s, before_s in (
        ("study_vs_processes", alone_s, 0.0),
        ("study_vs_processes, features ready", ready_s, features_s),
    ):
        apart_s = before_s + trainings * each_s
        detail = (
            f"{trainings} trainings, scaled ({measured}): {whole_s / 60:.1f} CPU min, "
            f"{shared_s:.1f} s each, against {apart_s / 60:.1f} CPU min, {each_s:.1f} s each"
        )
        target = 1.0 if before_s else 3.0
        yield Ratio(name=name, value=apart_s / whole_s, target=target, detail=detail)


def _mean_s(catalogue: Path, folders: Mapping[str, Path]) -> float:
    """Return the mean CPU time of a training of each category, its process included."""
    started = _children_s()
    for name, folder in folders.items():
        in_fresh_process(_in_a_process, catalogue, name, folder)
    return (_children_s() - started) / len(folders)


def _children_s() -> float:
    """Return the CPU time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _catalogue(folder: Path) -> Path:
    entries = [
        {"name": name, "images": str(folder / name), "layout": "folder"} for name in CATEGORIES
    ]
    defaults = {"backbone": "efficientnet_lite0", "calibration": "cross", "false_alarm_rate": 0.05}
    space = {"sigma": {"loguniform": [0.25, 4]}, "layers": {"choice": [[2], [2, 3]]}}
    document = {"defaults": defaults, "categories": entries, "study": {"space": space}}
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _study(catalogue: Path, names: tuple[str, ...]) -> Study:
    categories = [one for one in load_catalogue(str(catalogue)) if one.name in names]
    return load_study(str(catalogue), "bench", categories, {})


def _as_a_study(catalogue: Path, folder: Path) -> tuple[float, float]:
    """Return CPU seconds for all features, and for a training after them."""
    torch.set_num_threads(1)
    study, started = _study(catalogue, CATEGORIES), time.process_time()
    context = _embedded(study, folder)
    features_s, started = time.process_time() - started, time.process_time()
    for configuration in SAMPLED:
        trial = StudyTrial(context, configuration)
        for rung in range(len(RUNGS)):
            trial.advance(rung)
    num_trainings = len(SAMPLED) * len(CATEGORIES)
    return features_s, (time.process_time() - started) / num_trainings


def _in_a_process(catalogue: Path, name: str, folder: Path) -> None:
    """Do for one training all that it needs."""
    torch.set_num_threads(1)
    study = _study(catalogue, (name,))
    run = _embedded(study, folder, used=(0,)).run(SAMPLED[0], name, 0)
    run.train_to(1.0)
    run.judge().metrics()


def _embedded(study: Study, folder: Path, used: Sequence[int] | None = None) -> StudyContext:
    """Compute features unless they are there; ``used`` are the folds that are ever left out."""
    plan, places = fold_plan(study.settings), {}
    plan = plan if used is None else replace(plan, used=used)
    for key, view in wanted_views(study).items():
        places[key] = str(folder / view.name)
        build_view(view, plan, places[key], None)
    return StudyContext(study=study, features=places, heads=str(folder / "heads"))
