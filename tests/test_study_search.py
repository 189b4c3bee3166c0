"""What a search notes of trials that go wrong, and which categories it is over."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from ray.exceptions import RayTaskError
from studied import make_study

from jobs.cluster.work_queue import Ended
from jobs.study import tune as tuning
from jobs.study.search import Recorder
from pipeline.storage import StorageAway
from pipeline.study.feature_view import FeatureView
from pipeline.study.records import Ledger, StudyFolder, TrialStatus
from pipeline.study.tracking import begin


def trial(folder: Path, error: Exception) -> Any:
    """A trial of Ray Tune that has failed; the storage has half of what it died of as yet."""
    noted = folder / "error.pkl"
    noted.write_bytes(cloudpickle.dumps(RayTaskError("step", "a traceback", error)))
    return SimpleNamespace(
        trial_id="t1",
        config={"sigma": 1.0, "layers": "2"},
        pickled_error_file=str(noted),
        get_pickled_error=lambda: cloudpickle.loads(b""),
    )


def test_a_trial_that_dies_before_it_begins_is_noted_as_failed(
    tmp_path: Path, tracking_uri: str
) -> None:
    study = make_study(tmp_path).at(str(tmp_path))
    recorder = Recorder(study=study, place=str(tmp_path), parent=begin(study))
    recorder.on_trial_error(1, [], trial(tmp_path, RuntimeError("no place to run")))
    noted = StudyFolder(str(tmp_path)).trials()["t1"]
    assert (noted.status, noted.error) == (TrialStatus.FAILED, "RuntimeError: no place to run")
    assert noted.configuration == {"sigma": 1.0, "layers": [2]}


def test_a_service_that_is_away_ends_the_search_before_a_trial_has_failed(tmp_path: Path) -> None:
    recorder = Recorder(study=make_study(tmp_path), place=str(tmp_path), parent="")
    away = StorageAway("s3://study does not answer")
    recorder.on_trial_recover(1, [], trial(tmp_path, RuntimeError("no memory")))
    for failed in (recorder.on_trial_recover, recorder.on_trial_error):
        with pytest.raises(StorageAway, match="does not answer"):
            failed(1, [], trial(tmp_path, away))
    assert not StudyFolder(str(tmp_path)).trials()


def test_a_category_that_was_left_out_when_the_search_began_stays_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def embed(stage: str, work: Any, views: Mapping[str, FeatureView]) -> Iterator[Ended]:
        for key in work:
            name = views[key].category.name
            asked.append(name)
            yield Ended(name=key, error=None if name == "steel" else "cannot be read")

    monkeypatch.setattr(tuning, "embed", embed)
    monkeypatch.setattr(Ledger, "embedded", lambda *_: None)
    study, folder = make_study(tmp_path, ("steel", "brass", "iron")), StudyFolder(str(tmp_path))
    folder.note(tuning.LEFT_OUT, {"errors": {"brass": "too few images"}})
    views, errors = tuning._features(study, folder, Ledger(folder))
    assert set(asked) == {"steel", "iron"}
    assert errors == {"brass": "too few images", "iron": "cannot be read"}
    assert not any(key.startswith("brass") for key in views)
