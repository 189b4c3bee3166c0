"""A night of every kind of detector on a real, small Ray cluster, killed and started again.

The images of one category are cut into tiles.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import factory
import pytest
import ray
from every_kind import prepare_small, small_category
from ray_watch import wait_until

from jobs.cluster.join import cluster
from jobs.night.score import score
from model.kinds import KINDS
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night, stored_shards
from pipeline.onboarding.finish import write_package
from pipeline.registry import models

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

NIGHT = "2026-03-12"
NUM_IMAGES = 40  # of each category: enough for a kill to come between two shards
DRIVER = """\
import sys
from jobs.night.score import score
from pipeline.night.folder import NightFolder
score(sys.argv[1], NightFolder(sys.argv[2], sys.argv[3]), rows_per_shard=4)
"""


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """A night's images of one registered category of each kind, while the cluster runs."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "mlflow.db").write_bytes(empty_database.read_bytes())
    images = factory.make_category(root / "images", num_test=0)
    categories = [small_category(images, kind, name=kind.replace("_", "-")) for kind in KINDS]
    cut: dict[str, Any] = {"tiles": {"size": 64}, "crop": None, "resize": None}
    categories.append(small_category(images, "simplenet", name="cut", **cut))
    for category in categories:
        factory.write_images(root / "dump" / category.name, range(700, 700 + NUM_IMAGES))
    with pytest.MonkeyPatch.context() as monkeypatch, cluster(num_cpus=2):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        for category in categories:
            prepared = prepare_small(category)
            list(prepared.trainer.run())
            write_package(prepared, root / category.name)
            models.promote(models.register(category.name, category.name, root / category.name))
        yield root / "dump"


def test_a_killed_night_of_every_kind_goes_on_to_the_same_rows(dump: Path, tmp_path: Path) -> None:
    folder, undisturbed = (NightFolder(str(tmp_path / name), NIGHT) for name in ("out", "other"))
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(dump), folder.out, NIGHT],
        env={
            **os.environ,
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "RAY_AUTH_MODE": "token",
        },
    )
    try:
        wait_until(lambda: stored_shards(folder) or driver.poll() is not None)
    finally:
        driver.kill()
        driver.wait(60)
    total = NUM_IMAGES * (len(KINDS) + 1)
    night = score(str(dump), folder, rows_per_shard=4)
    assert 0 < night.num_scored < total
    assert (night.num_failed, score(str(dump), folder, rows_per_shard=4).num_scored) == (0, 0)
    assert score(str(dump), undisturbed, rows_per_shard=4).num_scored == total
    rows, expected = (read_night(each).sort_by("image_uri") for each in (folder, undisturbed))
    assert rows.num_rows == total
    for column in ("image_uri", "category", "model_digest", "score"):
        assert rows[column].equals(expected[column])
