"""Several detectors on the same images: one backbone pass, one table per category, one picture."""

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import factory
import numpy as np
import pytest
from evaluated import category_result
from PIL import Image

from jobs.cluster.progress_board import Reporter
from jobs.cluster.work_queue import Job
from jobs.evaluate.evaluation_loop import EvaluationWorker, Measured
from model.backbone import Backbone
from pipeline.backbones import LoadedBackbone
from pipeline.evaluation.comparison import comparison
from pipeline.evaluation.cost import Cost
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.tables import Evaluation
from pipeline.evaluation.variants import UnknownDetector, find_detector, variant


def quiet(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simplenet", ("simplenet", None)),
        ("memory_bank", ("memory_bank", None)),
        ("patchcore", ("memory_bank", "patchcore")),
        ("official", ("simplenet", "official")),
        ("simplenet-paper", ("simplenet", "paper")),
        ("realnet", ("realnet", None)),
        ("realnet-paper", ("realnet", "paper")),
    ],
)
def test_a_detector_is_named_by_its_kind_or_its_preset(
    name: str, expected: tuple[str, str | None]
) -> None:
    assert find_detector(name) == expected


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "default",
            "take simplenet-default or memory_bank-default or ensemble-default or realnet-default",
        ),
        ("paper", "take simplenet-paper or realnet-paper"),
    ],
)
def test_a_preset_of_several_kinds_is_named_with_its_kind(name: str, advice: str) -> None:
    with pytest.raises(UnknownDetector, match=advice):
        find_detector(name)


@pytest.mark.parametrize("name", ["padim", "", "memory_bank-official"])
def test_a_name_of_no_detector_lists_those_there_are(name: str) -> None:
    with pytest.raises(
        UnknownDetector,
        match="known: simplenet, memory_bank, ensemble, realnet, official, paper, patchcore",
    ):
        find_detector(name)


def test_a_kind_has_the_categorys_own_settings_and_a_preset_is_as_published() -> None:
    category = factory.category("/a/steel", training={"seed": 5})
    assert variant(category, "simplenet") == category
    bank = variant(category, "memory_bank")
    assert not isinstance(bank, str)
    assert (bank.detector, bank.recipe.size, bank.recipe.seed) == ("memory_bank", 1000, 5)
    assert (bank.false_alarm_rate, bank.crop) == (category.false_alarm_rate, category.crop)
    paper = variant(category, "simplenet-paper")
    assert not isinstance(paper, str)
    assert (paper.preset, paper.recipe.patch.passes) == ("paper", 160)
    back = variant(bank, "simplenet")
    assert not isinstance(back, str)
    assert back.recipe.patch.passes == 30


def test_a_detector_that_a_category_cannot_have_says_why() -> None:
    category = factory.category("/a/steel", calibration="cross", training={"members": 2})
    reason = variant(category, "simplenet-paper")
    assert isinstance(reason, str)
    assert "calibration: cross needs members that leave images out" in reason


def test_detectors_that_see_the_same_features_share_the_backbone_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = factory.make_category(tmp_path / "steel", num_good=40, num_test=3)
    category = factory.category(images)
    variants = {name: variant(category, name) for name in ("simplenet", "memory_bank")}
    seen = 0
    forward = Backbone.forward

    def counted(self: Backbone, images: object) -> object:
        nonlocal seen
        seen += len(images)  # type: ignore[arg-type]
        return forward(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "forward", counted)
    protocol = Protocol(num_seeds=2, progress=quiet)
    found = {name: protocol.measure(each) for name, each in variants.items()}  # type: ignore[arg-type]
    assert seen == 40 + 6
    assert list(found) == ["simplenet", "memory_bank"]
    for result in found.values():
        assert [seed.seed for seed in result.seeds] == [0, 1]
        assert all(seed.fit_s > 0 for seed in result.seeds)
        assert result.cost is not None
        assert result.cost.ms_per_image > 0
    bank = found["memory_bank"]
    assert bank.summary()["image_auroc"][0] == 1.0
    assert not np.array_equal(bank.seeds[0].scores, found["simplenet"].seeds[0].scores)


def evaluations() -> dict[str, Evaluation]:
    made = {}
    for number, detector in enumerate(("simplenet", "memory_bank")):
        results = {
            name: dataclasses.replace(
                category_result(name, 2), cost=Cost(ms_per_image=20.0 + number, megabytes=1.5)
            )
            for name in ("gear", "nut")
        }
        made[detector] = Evaluation(categories=["gear", "nut"], num_seeds=2, results=results)
    broken = made["memory_bank"]
    made["patchcore"] = dataclasses.replace(
        broken, results={"gear": broken.results["gear"]}, errors={"nut": "too few images"}
    )
    return made


def test_a_comparison_has_a_table_per_category_and_the_means() -> None:
    files = comparison(evaluations())
    text = files["comparison.md"].decode()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Comparison", "## gear", "## nut", "## Mean of 2", "## Failed"]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    detectors = ["simplenet", "memory_bank", "patchcore"]
    assert rows == [*("detector", "---", *detectors) * 2, "detector", "---", *detectors[:2]]
    assert "| patchcore | failed |" in text
    assert "- patchcore, nut: too few images" in text
    assert "| 20.0 | 1.50 |" in text
    assert "| 21.0 | 1.50 |" in text


def test_a_comparison_is_json_and_a_picture_too() -> None:
    files = comparison(evaluations())
    document = json.loads(files["comparison.json"])
    assert list(document) == ["simplenet", "memory_bank", "patchcore"]
    assert document["memory_bank"]["costs"]["nut"]["ms_per_image"] == 21.0
    assert document["patchcore"]["categories"]["nut"]["error"] == "too few images"
    assert Image.open(io.BytesIO(files["comparison.png"])).size == (1400, 720)


def test_a_detector_that_fails_says_why_and_stops_no_other(tmp_path: Path) -> None:
    images = factory.make_category(tmp_path / "steel", num_good=40, num_test=3)
    bank = variant(factory.category(images), "memory_bank")
    assert not isinstance(bank, str)
    lost = bank.model_copy(update={"images": str(tmp_path / "nowhere")})
    worker = EvaluationWorker(num_seeds=1, features=None, backbone=LoadedBackbone())
    payload = {"lost": lost.model_dump(), "own": bank.model_dump()}
    found = worker.measure(
        Job(name="steel", payload=payload), cast(Reporter, SimpleNamespace(tell=quiet))
    )
    assert "nowhere" in str(found["lost"])
    assert isinstance(found["own"], Measured)
