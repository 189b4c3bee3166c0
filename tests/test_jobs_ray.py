"""The jobs on a real, small Ray cluster: what is killed goes on, and Ray changes no number."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from command_line import Run
from factory import category, make_category, texture, write_catalogue
from mlflow import MlflowClient
from pictures import encoded
from PIL import Image
from ray_watch import Watch, checkpoints, training_workers, wait_until

from jobs.cluster import slots
from jobs.cluster.beside import ask, beside
from jobs.cluster.join import Resources, cluster, memory_per_job, resources_for
from jobs.cluster.probe import ClusterError
from jobs.cluster.progress_board import Reporter, read_board, start_board
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Ended, WorkQueue
from jobs.local.s3 import LocalS3
from jobs.night import score as scoring
from jobs.onboard import onboard as onboarding
from jobs.onboard.onboard import OnboardingOptions, Outcome, onboard
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.results import read_night
from pipeline.night.scoring import plan
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.onboarding.overview import failed_categories
from pipeline.registry import connection, models

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NIGHT = "2026-03-12"
PASSES = 300  # so many that nobody is done between two looks
HALF = Resources(num_jobs=2, cpus=1, gpus=0)  # another number of threads would be other last bits
DRIVER = """\
import sys
from jobs.onboard import onboard
from jobs.cluster import slots
from jobs.cluster.beside import ask, beside
from jobs.cluster.join import Resources
from pipeline.catalogue.catalogue import Category
onboard.resources_for = lambda num_tasks: Resources(num_jobs=2, cpus=1, gpus=0)
plan = onboard.OnboardingOptions(runs=sys.argv[2], checkpoint_every_s=0)
onboard.onboard([Category.model_validate_json(sys.argv[1])], plan)
"""


@pytest.fixture(scope="module")
def ray_cluster(s3_server: LocalS3) -> Iterator[None]:
    """Two CPUs; its workers know the S3 server."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in s3_server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how soon an end is noticed
        with cluster(num_cpus=2):
            yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    make_category(root / "steel")
    make_category(root / "few", num_good=5, seed=2)
    return root


@pytest.fixture(scope="module")
def steel(images: Path) -> Category:
    return category(images / "steel", training={"passes": PASSES})


@dataclass
class Onboarded:
    """What an undisturbed onboarding of a good category and a bad one left."""

    categories: list[Category]
    outcomes: list[Outcome]
    tracking_uri: str
    runs: str
    digest: str  # of steel's package


@pytest.fixture(scope="module")
def onboarded(
    ray_cluster: None,
    images: Path,
    steel: Category,
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Onboarded:
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "mlflow.db").write_bytes(empty_database.read_bytes())
    uri = f"sqlite:///{root}/mlflow.db"
    categories = [category(images / "few", name="few"), steel]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        outcomes = onboard(categories, OnboardingOptions(runs=str(root / "runs")))
        digest = models.champions()["steel"].digest
    return Onboarded(categories, outcomes, uri, str(root / "runs"), digest)


@contextmanager
def driver(steel: Category, runs: str) -> Iterator[subprocess.Popen[bytes]]:
    """Onboard in another process on the same cluster; it is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, steel.model_dump_json(), runs],
        env={
            **os.environ,
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "RAY_AUTH_MODE": "token",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture
def watch(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch()
    monkeypatch.setattr(slots, "beside", watch.beside)
    monkeypatch.setattr(onboarding, "resources_for", lambda num_tasks: HALF)
    thread = threading.Thread(target=watch.follow)
    thread.start()
    yield watch
    watch.ended.set()
    thread.join(10)


@pytest.mark.skipif(
    Path(tempfile.gettempdir(), "ray", "ray_current_cluster").exists(),
    reason="a Ray cluster runs on this machine, and `auto` would rightly join it",
)
def test_no_cluster_to_be_found_is_one_line(
    run: Run, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    # Ray would look for processes: those of the tests that run beside this one are not meant.
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", set)
    assert "RAY_ADDRESS=auto" in run("onboard", catalogue).refusal()


def test_a_board_that_is_lost_shows_nothing_and_stops_nobody(ray_cluster: None) -> None:
    board = start_board()
    Reporter(board, "steel").tell("training", 3, 9)
    assert wait_until(lambda: read_board(board)) == {"steel": ("training", 3, 9)}
    ray.kill(board)
    assert wait_until(lambda: read_board(board) == {})


def test_a_queue_that_is_lost_is_one_line(ray_cluster: None) -> None:
    queue = beside(WorkQueue, [])
    assert ask(queue.news, 0).is_over
    ray.kill(queue)

    def loss() -> str:
        try:
            ask(queue.news, 0)
        except ClusterError as error:
            return str(error)
        return ""  # it is about to be lost

    assert wait_until(loss).endswith("is lost; run the same command again.")


def test_what_has_ended_before_an_outage_is_in_the_overview(
    ray_cluster: None,
    steel: Category,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut_off(*_: object) -> Iterator[Ended]:
        yield Ended(name="steel", error="too few images")
        raise ClusterError("the queue is lost")

    monkeypatch.setattr(Slots, "work_through", cut_off)
    with pytest.raises(ClusterError):
        onboard([steel], OnboardingOptions(runs=str(tmp_path)))
    assert failed_categories(str(tmp_path)) == ["steel"]


def test_slots_share_the_cluster_out(ray_cluster: None) -> None:
    assert resources_for(1) == Resources(num_jobs=1, cpus=2, gpus=0)
    assert resources_for(2) == resources_for(99) == HALF
    memory = ray.cluster_resources()["memory"]
    assert memory_per_job(HALF) == pytest.approx(memory / 2)
    assert memory_per_job(resources_for(1)) == pytest.approx(memory)


def test_a_good_category_is_onboarded_whatever_becomes_of_a_bad_one(onboarded: Onboarded) -> None:
    few, good = onboarded.outcomes
    assert [outcome.status for outcome in (few, good)] == ["failed", "onboarded"]
    assert few.error is not None
    assert "5 distinct good images" in few.error
    assert "\n" not in few.error
    assert (good.version, good.is_champion, good.error) == ("1", True, None)
    assert good.counts is not None
    assert good.counts["train"] + good.counts["calibration"] == 40


def test_the_registry_holds_one_run_and_one_champion_each_and_nothing_is_done_twice(
    onboarded: Onboarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", onboarded.tracking_uri)
    good = [c for c in onboarded.categories if c.name != "few"]
    monkeypatch.setattr(onboarding, "_fan_out", None)  # nothing is left to train
    (again,) = onboard(good, OnboardingOptions(runs=onboarded.runs))
    assert again.status == "unchanged"
    assert list(models.champions()) == ["steel"]
    client = MlflowClient()
    assert len(client.search_model_versions()) == 1
    experiment = client.get_experiment_by_name("nightshift")
    runs = client.search_runs([experiment.experiment_id])
    assert [len(client.get_metric_history(run.info.run_id, "patch_loss")) for run in runs] == [
        PASSES
    ]


def test_a_killed_worker_and_a_killed_driver_go_on_to_the_very_same_head(
    onboarded: Onboarded, steel: Category, tracking_uri: str, s3: str, watch: Watch
) -> None:
    runs = f"{s3}/runs"
    with driver(steel, runs) as process:
        seen: set[str] = set()

        def wait_for_more_checkpoints() -> None:
            least = len(seen) + 3

            def are_there() -> bool:
                seen.update(checkpoints(runs))
                return len(seen) >= least or process.poll() is not None

            wait_until(are_there)
            assert process.poll() is None

        wait_for_more_checkpoints()
        (worker,) = training_workers()
        os.kill(worker, signal.SIGKILL)
        seen |= checkpoints(runs)
        wait_for_more_checkpoints()  # from a worker that was started again
    (outcome,) = onboard([steel], OnboardingOptions(runs=runs))
    assert outcome.status == "onboarded"
    assert min(watch.passes()) > 2  # each of them went on from the one before
    assert models.champions()["steel"].digest == onboarded.digest
    assert not [item for item in storage.list_objects(runs) if "/steel-" in item.uri]
    client = MlflowClient()
    assert len(client.search_model_versions()) == 1
    experiment = client.get_experiment_by_name("nightshift")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_night_on_s3_has_the_rows_of_a_plain_call_and_is_scored_once(
    onboarded: Onboarded, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", onboarded.tracking_uri)
    dump, folder = f"{s3}/dump", NightFolder(f"{s3}/out", NIGHT)
    other_folder = NightFolder(f"{s3}/plain", NIGHT)
    for name, first in (("steel", 700), ("wood", 3)):
        for i in range(9):
            picture = Image.fromarray(texture(first + i, scratched=i % 2 == 1))
            storage.write_bytes(f"{dump}/{name}/{i}.png", encoded(picture))
    storage.write_bytes(f"{dump}/wood/broken.png", b"")
    night = scoring.score(dump, folder, rows_per_shard=5)
    assert (night.num_scored, night.num_failed) == (19, 10)
    rows = read_night(folder)

    versions = models.champions()
    fleet = scoring.snapshot_fleet(other_folder, versions, versions, models.download)
    tasks = plan.plan_night(list_dump(dump).images, fleet, other_folder, 5).tasks
    plain = ShardScorer(fleet, other_folder).score(tasks)
    expected = {row["image_uri"]: row for row in plain.to_pylist()}
    assert len(expected) == rows.num_rows == 19
    for row in rows.to_pylist():
        other = expected[row["image_uri"]]
        for name in ("category", "status", "error", "model_version", "model_digest", "shard"):
            assert row[name] == other[name]
        assert row["score"] == pytest.approx(other["score"], abs=2e-3)

    stored = {item.uri: item.etag for item in storage.list_objects(folder.results)}
    again = scoring.score(dump, folder, rows_per_shard=5)
    assert again.num_scored == 0
    assert {item.uri: item.etag for item in storage.list_objects(folder.results)} == stored
    assert read_night(folder).equals(rows)
    assert storage.exists(again.report)


def test_a_catalogue_is_evaluated_whatever_becomes_of_one_category(
    ray_cluster: None, run: Run, tmp_path: Path
) -> None:
    images = {
        "few": make_category(tmp_path / "few", num_good=5, num_test=2, seed=1),
        "steel": make_category(tmp_path / "steel", num_good=24, num_test=3),
        "left-out": tmp_path / "nowhere",
    }
    catalogue = write_catalogue(tmp_path / "catalogue.yaml", images)
    chosen = ["--only", "few", "--only", "steel"]
    answer = run("evaluate", catalogue, *chosen, "--seeds", 2, "--out", "out")
    assert answer.code == 3
    (line,) = answer.err.splitlines()[-1:]
    assert line.startswith("nightshift: few: 5 distinct good images")
    markdown = (tmp_path / "out/evaluation.md").read_text()
    assert answer.out.strip() == markdown.strip()
    assert "| few | failed |" in markdown
    document = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert list(document["categories"]) == ["few", "steel"]
    steel = document["categories"]["steel"]
    assert steel["status"] == "measured"
    assert steel["results"]["pixel_auroc"] == {"mean": None, "std": None}
    assert steel["files"] == [
        f"steel/{name}" for name in ("heatmaps.png", "roc.png", "scores.csv", "scores.png")
    ]
    for path in (tmp_path / "out" / name for name in steel["files"] if name.endswith(".png")):
        assert Image.open(io.BytesIO(path.read_bytes())).format == "PNG"
    client = MlflowClient()
    found = client.search_runs([connection.experiment_id(client, connection.EVALUATIONS)])
    status = {one.info.run_name: one.info.status for one in found}
    assert status == {"evaluate few": "FAILED", "evaluate steel": "FINISHED"}
