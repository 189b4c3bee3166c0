"""What `nightshift synthesise` answers when a bank cannot be made, in one line."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run
from factory import category, make_category, write_catalogue
from ray.train import Checkpoint

from jobs.synthesise import synthesise as job
from jobs.synthesise.synthesis_loop import STATE_FILE, restore
from model.diffusion.denoiser_trainer import DenoiserConfig
from pipeline.synthesis import synthesis
from pipeline.synthesis.bank_order import BankOrder
from pipeline.synthesis.training_images import read_training_images

GIVEN = {"--strength": "0.1-0.5", "--count": "3", "--out": "bank", "--size": "32"}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    images = {name: make_category(tmp_path / name, num_good=5) for name in ("steel", "wood")}
    return write_catalogue(tmp_path / "catalogue.yaml", images)


def asked(**changes: str) -> list[str]:
    options = GIVEN | {"--only": "steel"} | {f"--{name}": value for name, value in changes.items()}
    return [word for option in options.items() for word in option if option[1]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strength": "0.5"}, "--strength 0.5: expected LOW-HIGH"),
        ({"strength": "-0.1-0.5"}, "--strength -0.1-0.5: expected LOW-HIGH"),
        ({"count": "0"}, "--count 0: a bank needs at least one image"),
        ({"size": "100"}, "--size must be one of 32, 64, 128, 256 pixels, got 100"),
        ({"steps": "0"}, "--steps must be at least 1, got 0"),
        ({"only": "steal"}, "--only steal: no such category; did you mean `steel`?"),
        ({"only": ""}, "has 2 categories and a bank is of one: name it with --only"),
        ({"out": "steel/bank"}, "lies within the images of steel"),
        ({"out": "wood"}, "holds 2 other files or folders, such as test"),
        ({"out": "ftp://host/bank"}, "s3://bucket/key and local paths only"),
    ],
)
def test_what_cannot_be_made_is_told_before_a_cluster_starts(
    run: Run, two: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert said in run("synthesise", two, *asked(**changes)).refusal()


def test_what_a_worker_says_is_the_one_line(
    run: Run, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts(order: BankOrder, runs: str) -> dict[str, Any]:
        assert runs == str(tmp_path / "nightshift-runs")
        return {"error": f"5 distinct good images of {order.category.name} are too few"}

    monkeypatch.setattr(job, "cluster", contextlib.nullcontext)
    monkeypatch.setattr(job, "_run", facts)
    line = run("synthesise", two, *asked()).refusal()
    assert line == "nightshift: steel: 5 distinct good images of steel are too few\n"
    assert json.loads((tmp_path / "bank/unfinished.json").read_text())["key"]


def test_a_checkpoint_is_gone_on_from_and_one_without_a_training_begins_anew(
    tmp_path: Path,
) -> None:
    steel = category(make_category(tmp_path / "steel", num_good=20))
    config = DenoiserConfig(size=32, steps=20)
    order = BankOrder(category=steel, out="bank", strength=(0, 1), count=1, training=config)
    images = read_training_images(steel, 32)
    first, second = (synthesis.make_trainer(order, images, "cpu") for _ in range(2))
    next(first.run())
    (tmp_path / "checkpoint").mkdir()
    restore(second, None)
    restore(second, Checkpoint.from_directory(tmp_path / "checkpoint"))
    assert second.step == 0
    torch.save(first.state_dict(), tmp_path / "checkpoint" / STATE_FILE)
    restore(second, Checkpoint.from_directory(tmp_path / "checkpoint"))
    assert (second.step, second.loss) == (10, first.loss)
