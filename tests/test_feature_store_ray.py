"""Commands on a cluster share a feature store in a bucket, and say what it spared them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run
from studied import write_study_catalogue

from jobs.cluster.join import cluster
from jobs.local.s3 import LocalS3
from pipeline.onboarding.health import NUM_ANOMALIES
from pipeline.onboarding.small_defects import SIZES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NUM_GOOD, NUM_TEST = 40, 8


@pytest.fixture(scope="module")
def ray_cluster(s3_server: LocalS3) -> Iterator[None]:
    """Two CPUs; its workers know the S3 server, and nothing of NIGHTSHIFT_FEATURES."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in s3_server.environment().items():
            monkeypatch.setenv(name, value)
        with cluster(num_cpus=2):
            yield


def test_each_command_takes_what_those_before_it_have_left(
    ray_cluster: None, run: Run, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_FEATURES", f"{s3}/features")
    changes = {"trials": 1, "seeds": 1, "space": {"sigma": {"uniform": [1, 2]}}}
    catalogue = write_study_catalogue(tmp_path, **changes)

    (onboarded,) = json.loads(run("onboard", catalogue, "--json").out)
    num_onboarded = NUM_GOOD + NUM_TEST + NUM_ANOMALIES + 9 * len(SIZES)
    assert onboarded["features"] == {"images": num_onboarded, "from_store": 0}

    evaluated = run("evaluate", catalogue, "--seeds", 1).out
    told = f"{NUM_GOOD + NUM_TEST} of {NUM_GOOD + NUM_TEST} images from the store"
    assert f"- steel: features: {told}" in evaluated

    studied = json.loads(run("tune", catalogue, "--study", "first", "--json").out)["cost"]
    assert studied["features"]["from_store"] == NUM_GOOD + NUM_TEST
    again = run("tune", catalogue, "--study", "second")
    num_studied = f"{studied['features']['images']}"
    assert f"features: {num_studied} of {num_studied} images from the store" in again.out

    shown = json.loads(run("cache", "show", "--json").out)
    assert {group["category"] for group in shown["groups"]} == {"steel"}
