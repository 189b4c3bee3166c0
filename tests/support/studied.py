"""Studies of tiny categories, and records as a search leaves them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from factory import SETTINGS, make_category

from pipeline.catalogue.catalogue import load_catalogue
from pipeline.study.records import TrialRecord, TrialStatus
from pipeline.study.run import RUNGS, Repeat, StudyContext
from pipeline.study.settings import Study, load_study

TRAINING = SETTINGS["training"] | {"passes": 4, "hidden": 16}
SPACE: dict[str, Any] = {
    "sigma": {"loguniform": [0.2, 4.0]},
    "layers": {"choice": [[2], [2, 3]]},
}
SECTION: dict[str, Any] = {
    "trials": 3,
    "seeds": 2,
    "finalists": 1,
    "anomalies": 12,
    "space": SPACE,
}


def write_study_catalogue(folder: Path, names: Sequence[str] = ("steel",), **changes: Any) -> Path:
    """A catalogue with its images and a study section."""
    entries = []
    for index, name in enumerate(names):
        images = folder / name
        if not images.exists():
            make_category(images, num_good=40, num_test=4, seed=index)
        entries.append({"name": name, "images": str(images)})
    document = {
        "defaults": {**SETTINGS, "training": TRAINING},
        "categories": entries,
        "study": SECTION | changes,
    }
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def load(path: Path, name: str = "first", **changes: Any) -> Study:
    return load_study(str(path), name, load_catalogue(str(path)), changes)


def make_study(folder: Path, names: Sequence[str] = ("steel",), **changes: Any) -> Study:
    return load(write_study_catalogue(folder, names, **changes))


def make_context(study: Study, features: dict[str, str], folder: Path) -> StudyContext:
    return StudyContext(study=study, features=features, heads=str(folder / "heads"))


def record(
    trial: str,
    configuration: dict[str, Any],
    values: dict[str, float],
    rungs: int = len(RUNGS),
    errors: dict[str, str] | None = None,
) -> TrialRecord:
    """A trial that gave each category the same objective at every rung."""
    rung = {
        "objective": sum(values.values()) / len(values),
        "categories": {
            name: {"objective": value, "image_auroc": value} for name, value in values.items()
        },
        "curves": {name: [0.9, 0.5] for name in values},
        "errors": errors or {},
    }
    return TrialRecord(
        trial=trial,
        configuration=configuration,
        status=TrialStatus.COMPLETE if rungs == len(RUNGS) else TrialStatus.STOPPED,
        rungs=[rung | {"share": share} for share in RUNGS[:rungs]],
        seconds=1.5,
    )


def repeat(
    configuration: dict[str, Any], value: float, number: int = 1, category: str = "steel"
) -> Repeat:
    return Repeat(
        configuration=configuration,
        category=category,
        repeat=number,
        metrics={"objective": value},
        good_scores=[float(score) for score in range(1, 20)],
        anomalous_scores=[5.0, 18.5, 30.0, 40.0],
    )
