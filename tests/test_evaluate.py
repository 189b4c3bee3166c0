"""What an evaluation leaves: files, a run per category, and a reason for every failure."""

import gc
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from evaluated import category_result
from factory import category, write_catalogue
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from jobs.cluster.join import Resources
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slots import Slots
from jobs.cluster.work_queue import Ended, Job
from jobs.evaluate import evaluate as job
from jobs.evaluate import evaluation_loop
from jobs.evaluate.evaluate import Evaluator
from jobs.evaluate.evaluation_loop import EvaluationWorker, Measured
from model.errors import NightshiftError
from pipeline.backbones import LoadedBackbone
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import CategoryResult, Protocol
from pipeline.evaluation.tables import scores_csv
from pipeline.registry import connection
from pipeline.storage import StorageAway

FILES = ("heatmaps.png", "pro.png", "roc.png", "scores.csv", "scores.png")


class Killed(BaseException):
    """Nothing that is caught below."""


@pytest.fixture(scope="module")
def measured() -> Measured:
    result = category_result("gear", 2)
    files = {**draw(result), "scores.csv": scores_csv(result).encode()}
    return Measured(result=result, files=files)


@pytest.fixture
def gear(tmp_path: Path) -> Category:
    return category(tmp_path / "gear", "gear")


@pytest.fixture
def evaluator(gear: Category, tracking_uri: str, tmp_path: Path) -> Evaluator:
    others = [category(tmp_path / "few", "few")]
    return Evaluator(categories=[*others, gear], num_seeds=2, out=str(tmp_path / "out"))


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


def runs() -> list[MlflowRun]:
    client = MlflowClient()
    return list(client.search_runs([connection.experiment_id(client, connection.EVALUATIONS)]))


def artifacts(run: MlflowRun, folder: str = "") -> dict[str, bytes]:
    client, found = MlflowClient(), {}
    for item in client.list_artifacts(run.info.run_id, folder or None):
        if item.is_dir:
            found |= artifacts(run, item.path)
        else:
            local = client.download_artifacts(run.info.run_id, item.path)
            found[item.path] = Path(local).read_bytes()
    return found


def test_a_measured_category_leaves_one_finished_run_with_every_file(
    evaluator: Evaluator, gear: Category, measured: Measured
) -> None:
    evaluator.take(gear, lambda: measured)
    (run,) = runs()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "evaluate gear")
    assert run.data.tags["nightshift.category"] == "gear"
    found = artifacts(run)
    assert found.keys() == {
        "evaluation.json",
        "evaluation.md",
        "settings.json",
        *(f"gear/{name}" for name in FILES),
    }
    for name, data in measured.files.items():
        assert found[f"gear/{name}"] == data
        assert Path(evaluator.out, "gear", name).read_bytes() == data
    document = json.loads(found["evaluation.json"])
    assert list(document["categories"]) == ["gear"]  # of its own category alone
    assert document["categories"]["gear"]["files"] == [f"gear/{name}" for name in FILES]


def test_a_run_holds_settings_means_deviations_and_every_seed(
    evaluator: Evaluator, gear: Category, measured: Measured
) -> None:
    evaluator.take(gear, lambda: measured)
    (run,) = runs()
    assert run.data.params["backbone"] == "efficientnet_lite0"
    assert run.data.params["num_seeds"] == "2"
    assert run.data.params["recipe.patch.passes"] == "2"
    result = evaluator.evaluation().to_json()["categories"]["gear"]
    for name, value in (result["results"] | result["oracle"]).items():
        assert run.data.metrics[name] == value["mean"]
        assert run.data.metrics[f"std/{name}"] == value["std"]
    history = MlflowClient().get_metric_history(run.info.run_id, "seeds/pixel_aupro_30")
    expected = [(s["seed"], s["results"]["pixel_aupro_30"]) for s in result["seeds"]]
    assert [(point.step, point.value) for point in history] == expected


def test_a_failed_category_is_a_failed_run_and_the_next_goes_on(
    evaluator: Evaluator, gear: Category, measured: Measured
) -> None:
    few = evaluator.categories[0]
    evaluator.take(few, fail(NightshiftError("5 distinct good images; need 18.")))
    evaluator.take(gear, lambda: measured)
    status = {run.info.run_name: run.info.status for run in runs()}
    assert status == {"evaluate few": "FAILED", "evaluate gear": "FINISHED"}
    failed = next(run for run in runs() if run.info.status == "FAILED")
    assert failed.data.tags["nightshift.error"] == "5 distinct good images; need 18."
    evaluation = evaluator.evaluation()
    assert evaluation.errors == {"few": "5 distinct good images; need 18."}
    assert list(evaluation.results) == ["gear"]


def test_an_error_of_our_own_is_reported_and_stops_nothing(
    evaluator: Evaluator, gear: Category
) -> None:
    evaluator.take(gear, fail(ZeroDivisionError("division by zero")))
    assert evaluator.errors == {"gear": "ZeroDivisionError: division by zero"}
    assert [run.info.status for run in runs()] == ["FAILED"]


@pytest.mark.parametrize("call", ["log_batch", "log_artifacts"])
def test_a_run_that_cannot_be_logged_is_failed_and_what_was_measured_is_kept(
    evaluator: Evaluator,
    gear: Category,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, call, fail(OSError("No space left on device")))
        evaluator.take(gear, lambda: measured)
    assert [run.info.status for run in runs()] == ["FAILED"]
    assert evaluator.errors["gear"].startswith("measured, but not logged: MLflow refused: No space")
    assert list(evaluator.evaluation().results) == ["gear"]
    assert Path(evaluator.out, "gear/roc.png").read_bytes() == measured.files["roc.png"]


def test_an_interrupted_logging_leaves_no_run_running(
    evaluator: Evaluator, gear: Category, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "log_artifacts", fail(KeyboardInterrupt("stop")))
    with pytest.raises(KeyboardInterrupt, match="stop"):
        evaluator.take(gear, lambda: measured)
    assert [run.info.status for run in runs()] == ["FAILED"]


def test_a_run_that_a_killed_process_left_is_taken_over_and_a_finished_one_never(
    evaluator: Evaluator, gear: Category, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_terminated", fail(Killed("died")))
        with pytest.raises(Killed, match="died"):
            evaluator.take(gear, lambda: measured)
    assert [run.info.status for run in runs()] == ["RUNNING"]
    evaluator.take(gear, lambda: measured)
    assert [run.info.status for run in runs()] == ["FINISHED"]
    (run,) = runs()
    assert len(MlflowClient().get_metric_history(run.info.run_id, "image_auroc")) == 1
    evaluator.take(gear, lambda: measured)
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]


def test_results_stand_in_the_order_of_the_catalogue(
    evaluator: Evaluator, gear: Category, measured: Measured
) -> None:
    few = Measured(result=category_result("few", 2), files={})
    evaluator.take(gear, lambda: measured)
    evaluator.take(evaluator.categories[0], lambda: few)
    assert list(evaluator.evaluation().results) == ["few", "gear"]


def test_where_nothing_can_be_written_is_said_before_anything_is_trained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_catalogue(tmp_path / "c.yaml", {"gear": tmp_path / "gear"})
    (tmp_path / "out").write_text("a file, no folder")
    monkeypatch.setattr(job, "cluster", fail(AssertionError("no cluster was needed")))
    refusal = run("evaluate", catalogue, "--out", "out").refusal()
    assert str(tmp_path / "out") in refusal


def test_mlflow_that_is_away_is_said_before_anything_is_trained(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = write_catalogue(tmp_path / "c.yaml", {"gear": tmp_path / "gear"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://alice:s3cret@127.0.0.1:9")
    refusal = run("evaluate", catalogue).refusal()
    assert "the MLflow server http://127.0.0.1:9 does not answer" in refusal
    assert "s3cret" not in refusal


def measure_with(
    monkeypatch: pytest.MonkeyPatch, errors: dict[str, Exception], *, is_last_try: bool
) -> tuple[EvaluationWorker, dict[str, Measured | str]]:
    """What a worker makes of a job with three variants, some of which fail."""

    def measure(protocol: Protocol, category: Category) -> CategoryResult:
        if category.images in errors:
            raise errors[category.images]
        return category_result("gear", 1)

    monkeypatch.setattr(Protocol, "measure", measure)
    monkeypatch.setattr(evaluation_loop, "draw", lambda result: {})
    worker = EvaluationWorker(num_seeds=1, features=None, backbone=LoadedBackbone("cpu"))
    variants = {name: {"name": "gear", "images": name} for name in "abc"}
    job = Job(name="gear", payload=variants, is_last_try=is_last_try)
    return worker, worker.measure(job, Reporter(None, "gear"))


def test_a_variant_that_is_no_good_leaves_the_others_and_the_process_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: dict[str, Exception] = {"b": NightshiftError("too few images")}
    worker, found = measure_with(monkeypatch, errors, is_last_try=False)
    assert found["b"] == "too few images"
    assert [isinstance(found[name], Measured) for name in "ac"] == [True, True]
    worker.end_if_broken(1)


def test_a_worker_keeps_no_figure_from_category_to_category(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "measure", lambda protocol, category: measured.result)
    worker = EvaluationWorker(num_seeds=1, features=None, backbone=LoadedBackbone("cpu"))
    variants = {"": {"name": "gear", "images": "gear"}}
    gc.collect()
    before = count_figures()
    found = worker.measure(Job(name="gear", payload=variants), Reporter(None, "gear"))
    assert found[""].files == measured.files  # type: ignore[union-attr]
    assert count_figures() == before


def count_figures() -> int:
    return sum(type(each) is Figure for each in gc.get_objects())


def test_after_a_breakdown_a_new_process_tries_and_keeps_what_it_could_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: dict[str, Exception] = {"b": RuntimeError("an illegal memory access")}
    with pytest.raises(RuntimeError, match="illegal memory"):
        measure_with(monkeypatch, errors, is_last_try=False)
    worker, found = measure_with(monkeypatch, errors, is_last_try=True)
    assert found["b"] == "RuntimeError: an illegal memory access"
    assert [isinstance(found[name], Measured) for name in "ac"] == [True, True]
    with pytest.raises(RuntimeError, match="illegal memory"):  # the next category is not at risk
        worker.end_if_broken(1)


@pytest.mark.parametrize("is_last_try", [False, True])
def test_a_storage_that_is_away_is_no_variants_fault(
    monkeypatch: pytest.MonkeyPatch, *, is_last_try: bool
) -> None:
    with pytest.raises(StorageAway, match="does not answer"):
        measure_with(monkeypatch, {"b": StorageAway("does not answer")}, is_last_try=is_last_try)


def test_an_evaluation_that_is_cut_off_leaves_earlier_tables_alone(
    gear: Category,
    measured: Measured,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(slots: Slots, jobs: list[Job], show: Any) -> Iterator[Ended]:
        yield Ended(name="gear", value=pickle.dumps({"": measured}))
        raise StorageAway("s3://night does not answer")

    monkeypatch.setattr(Slots, "work_through", away)
    monkeypatch.setattr(job, "cluster", nullcontext)
    monkeypatch.setattr(job, "resources_for", lambda num: Resources(num_jobs=1, cpus=1, gpus=0))
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluation.json").write_text("yesterday's")
    with pytest.raises(StorageAway, match="does not answer"):
        job.evaluate([category(tmp_path / "few", "few"), gear], 2, str(out))
    assert (out / "evaluation.json").read_text() == "yesterday's"
    assert (out / "gear/scores.csv").is_file()
