"""What the doctor says of servers that are there, dead, unwilling or of another time."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from factory import SETTINGS, write_catalogue
from web_server import Quiet, serving

from jobs.local.s3 import LocalS3
from pipeline import storage
from pipeline.checks import Check, Verdict
from pipeline.doctor.services import (
    AMAZON,
    check_clock,
    check_mlflow,
    check_rights,
    check_weights,
    store_address,
)

NOON = dt.datetime(2026, 3, 12, 12, tzinfo=dt.UTC)
ALL = ["write", "read", "list", "conditional write", "delete"]


def verdicts(place: str) -> dict[str, str]:
    return {check.name.removeprefix("out: "): check.verdict for check in check_rights(place)}


class Noon(Quiet):
    """Refuses, as an object store does, and says that it is noon."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "Thu, 12 Mar 2026 12:00:00 GMT"


class Timeless(Noon):
    """Answers without a Date."""

    def send_header(self, keyword: str, value: str) -> None:
        pass


@pytest.fixture
def noon() -> Iterator[str]:
    with serving(Noon) as place:
        yield f"http://{place}"


@pytest.fixture
def timeless() -> Iterator[str]:
    with serving(Timeless) as place:
        yield f"http://{place}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """A server that knows people with few rights."""
    guests = {
        "nobody": [],
        "reader": ["Read:results", "List:results"],
        "writer": ["Write:results"],
        "keeper": ["Read:results", "List:results", "Write:results"],
    }
    with LocalS3(tmp_path_factory.mktemp("guarded"), guests) as server:
        server.create_bucket("results")
        yield server


def become(server: LocalS3, guest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment(guest).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


def test_every_right_is_tried_and_nothing_stays(s3: str) -> None:
    assert verdicts(f"{s3}/night") == dict.fromkeys(ALL, "PASS")
    assert not storage.exists(f"{s3}/night")


@pytest.mark.parametrize("guest", ["nobody", "reader"])
def test_who_may_not_write_is_told_once(
    guarded: LocalS3, guest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(guarded, guest, monkeypatch)
    [check] = check_rights("s3://results")
    assert (check.name, check.verdict) == ("out: write", Verdict.FAIL)
    assert "s3:PutObject" in check.advice
    secrets = guarded.environment(guest)
    assert secrets["AWS_SECRET_ACCESS_KEY"] not in check.finding + check.advice


def test_who_may_only_write_is_told_what_else_is_needed(
    guarded: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(guarded, "writer", monkeypatch)
    found = {check.name.removeprefix("out: "): check for check in check_rights("s3://results")}
    assert found["write"].verdict is Verdict.PASS
    assert found["read"].verdict is found["list"].verdict is Verdict.FAIL
    assert "s3:GetObject" in found["read"].advice
    assert "s3:ListBucket" in found["list"].advice
    assert found["delete"].verdict is Verdict.PASS


def test_read_list_and_write_of_one_bucket_are_enough(
    guarded: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(guarded, "keeper", monkeypatch)
    assert verdicts("s3://results") == dict.fromkeys(ALL, "PASS")
    guarded.create_bucket("others")
    assert verdicts("s3://others") == {"write": "FAIL"}


def test_a_bucket_that_is_missing_is_named(s3: str) -> None:
    [check] = check_rights("s3://no-such-bucket")
    assert check.verdict is Verdict.FAIL
    assert "no-such-bucket" in check.finding


def test_a_place_that_is_none_is_a_finding() -> None:
    [check] = check_rights("gs://bucket")
    assert check.verdict is Verdict.FAIL


def test_a_local_folder_is_tried_alike(tmp_path: Path) -> None:
    assert verdicts(str(tmp_path / "new")) == dict.fromkeys(ALL, "PASS")
    (tmp_path / "file").write_text("")
    assert verdicts(str(tmp_path / "file")) == {"write": "FAIL"}


@pytest.mark.parametrize("place", ["local", "s3"])
def test_of_two_that_write_a_new_object_one_does(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3")
    uri = storage.join(folder, "deep", "claim")
    assert storage.write_new(uri, b"first")
    assert not storage.write_new(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_names(storage.join(folder, "deep")) == ["claim"]


@pytest.mark.parametrize(
    ("off_s", "verdict", "said"),
    [
        (0, "PASS", "within 60 s"),
        (-59, "PASS", "within 60 s"),
        (61, "WARN", "61 s ahead"),
        (-899, "WARN", "899 s behind"),
        (900, "FAIL", "900 s ahead"),
        (-86400, "FAIL", "86400 s behind"),
    ],
)
def test_the_clock_is_compared_with_the_stores(
    noon: str, off_s: int, verdict: str, said: str
) -> None:
    check = check_clock(noon, lambda: NOON + dt.timedelta(seconds=off_s))
    assert check.verdict == verdict
    assert said in check.finding


def test_the_time_of_the_request_itself_is_no_skew(noon: str) -> None:
    sent_and_answered = iter([NOON - dt.timedelta(minutes=5), NOON + dt.timedelta(minutes=5)])
    assert check_clock(noon, lambda: next(sent_and_answered)).verdict is Verdict.PASS


def test_a_real_store_says_its_time(s3_server: LocalS3) -> None:
    endpoint = s3_server.endpoint_url.replace("http://", "http://me:s3cret@")
    assert check_clock(endpoint, lambda: dt.datetime.now(dt.UTC)).verdict is Verdict.PASS


@pytest.mark.parametrize("endpoint", ["http://me:s3cret@127.0.0.1:9", "127.0.0.1", "file:///x"])
def test_a_store_that_is_none_has_no_time(endpoint: str) -> None:
    check = check_clock(endpoint, lambda: NOON)
    assert check.verdict is Verdict.FAIL
    assert "AWS_ENDPOINT_URL" in check.advice
    assert "s3cret" not in check.finding


def test_an_answer_without_a_date_is_said(timeless: str) -> None:
    assert "has no Date" in check_clock(timeless, lambda: NOON).finding


def test_the_store_is_where_aws_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert store_address(None) is store_address("/data") is None
    assert store_address("s3://results") == AMAZON
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://a:1")
    assert store_address(None) == "http://a:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://b:2")
    assert store_address("s3://results") == "http://b:2"


def test_the_registry_takes_a_model_and_forgets_it(tracking_uri: str) -> None:
    from mlflow import MlflowClient

    [check] = check_mlflow()
    assert check.verdict is Verdict.PASS
    assert "0 champions" in check.finding
    assert list(MlflowClient().search_registered_models()) == []


def test_a_database_of_this_folder_beside_a_cluster_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    [check] = check_mlflow()
    assert check.verdict is Verdict.WARN
    assert "MLFLOW_TRACKING_URI" in check.advice


def weights(catalogue: Path | str | None) -> list[Check]:
    return list(check_weights(str(catalogue) if catalogue else None))


def test_the_weights_that_ship_are_loaded() -> None:
    [check] = weights(None)
    assert (check.name, check.verdict) == ("weights of efficientnet_lite0", Verdict.PASS)


def test_each_backbone_of_a_catalogue_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    images = dict.fromkeys(["a", "b"], tmp_path)
    good = write_catalogue(tmp_path / "good.yaml", images)
    assert [check.verdict for check in weights(good)] == [Verdict.PASS]
    settings = SETTINGS | {"backbone": "resnet18", "weights": "bad.pth"}
    bad = write_catalogue(tmp_path / "bad.yaml", images, settings)
    [check] = weights(bad)
    assert (check.name, check.verdict) == ("weights of resnet18", Verdict.FAIL)
    assert "bad.pth cannot be read" in check.finding


def test_a_catalogue_with_faults_is_a_finding(tmp_path: Path) -> None:
    [check] = weights(tmp_path / "none.yaml")
    assert (check.name, check.verdict) == ("catalogue", Verdict.FAIL)
