"""The job that makes a bank, on a real, small Ray cluster."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run
from factory import category, make_category, write_catalogue

from jobs.cluster.join import Resources, cluster
from jobs.synthesise import synthesise as job
from model.diffusion.denoiser_trainer import DenoiserConfig
from pipeline.synthesis import synthesis
from pipeline.synthesis.bank_folder import BankFolder
from pipeline.synthesis.bank_order import BankOrder
from pipeline.synthesis.training_images import read_training_images

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STEPS = 20
ONE_CPU = Resources(num_jobs=1, cpus=1, gpus=0)  # another number of threads: other last bits


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how soon an end is noticed
        with cluster(num_cpus=1):
            yield


def plain_call(images: Path, out: Path) -> dict[str, bytes]:
    """The bank without Ray, PNG files by name."""
    order = BankOrder(
        category=category(images),
        out=str(out),
        strength=(0.1, 0.5),
        count=3,
        training=DenoiserConfig(size=32, steps=STEPS),
    )
    BankFolder.of(order).begin()
    trainer = synthesis.make_trainer(order, read_training_images(order.category, 32), "cpu")
    list(trainer.run())
    synthesis.fill(order, trainer)
    return pictures(out)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_ray_makes_the_bank_of_a_plain_call_once_and_trains_once_for_two_banks(
    ray_cluster: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "resources_for", lambda num_tasks: ONE_CPU)
    images = make_category(tmp_path / "steel", num_good=24)
    catalogue = write_catalogue(tmp_path / "catalogue.yaml", {"steel": images})
    options = ["--strength", "0.1-0.5", "--size", 32, "--steps", STEPS, "--json"]

    answer = run("synthesise", catalogue, "--count", 3, "--out", "bank", *options)
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert (made["category"], made["count"], made["was_there"]) == ("steel", 3, False)
    found = pictures(tmp_path / "bank")
    assert found == plain_call(images, tmp_path / "plain")

    (checkpoint,) = (tmp_path / "nightshift-runs").rglob("denoiser.pt")
    (tmp_path / "bank/provenance.json").unlink()  # as if it had been cut off before the end,
    (tmp_path / "bank/000001.png").unlink()  # with this image not written yet
    marker = {"key": made["key"]}
    (tmp_path / "bank/unfinished.json").write_text(json.dumps(marker))
    answer = run("synthesise", catalogue, "--count", 3, "--out", "bank", *options)
    assert answer.code == 0, answer.err
    assert pictures(tmp_path / "bank") == found
    assert json.loads(answer.out)["loss"] == made["loss"]
    assert "training" not in answer.err
    assert len(list((tmp_path / "nightshift-runs").iterdir())) == 1
    assert not checkpoint.exists()  # the one that replaced it holds the same training

    monkeypatch.setattr(job, "cluster", lambda: sys.exit("nothing is left to do"))
    answer = run("synthesise", catalogue, "--count", 3, "--out", "bank", *options)
    assert json.loads(answer.out)["was_there"]
