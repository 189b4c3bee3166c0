"""Least rights: the jobs work with those of infra/rights, and with none of them left out."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from factory import category, make_category, make_fleet, make_package, write_images

from jobs.local.s3 import OWNER, LocalS3
from pipeline import storage
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.night.dumps import take_in
from pipeline.night.fleet.fleet import Fleet, champions_so_far
from pipeline.night.fleet.hold import held_fleet
from pipeline.night.folder import NightFolder
from pipeline.night.record import note_reported
from pipeline.night.results import read_night, remove_shards, stored_shards, write_shard
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.settling.settle import settle
from pipeline.onboarding.prepare import prepare
from pipeline.report.writing import write_report
from pipeline.storage import AccessDenied

RIGHTS = Path(__file__).resolve().parents[1] / "infra/rights"
TABLE: dict[str, list[str]] = json.loads((RIGHTS / "seaweedfs.json").read_text())
NIGHT = "2026-03-12"
OUT = "s3://results"
BUCKETS = ("factory", "dump", "results", "runs", "mlflow")
ACTIONS = {
    "s3:GetObject": "Read",
    "s3:PutObject": "Write",
    "s3:DeleteObject": "Write",
    "s3:AbortMultipartUpload": "Write",
    "s3:ListMultipartUploadParts": "Write",
    "s3:ListBucket": "List",
}


def without(action: str) -> str:
    """The guest who may do all that a night does but this."""
    return f"night-without-{TABLE['night'].index(action)}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalS3]:
    """Knows every job, and nights that lack one right each."""
    night = TABLE["night"]
    guests = {**TABLE, **{without(one): [may for may in night if may != one] for one in night}}
    with LocalS3(tmp_path_factory.mktemp("rights"), guests) as running:
        for bucket in BUCKETS:
            running.create_bucket(bucket)
        yield running


def become(server: LocalS3, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in server.environment(name).items():
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def material(server: LocalS3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, and its category's images in both buckets that jobs only read."""
    root = tmp_path_factory.mktemp("material")
    make_package(root / "package")
    write_images(root / "dump/steel", range(2))
    make_category(root / "factory/onboarding/steel", num_good=20, num_test=0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        become(server, OWNER, monkeypatch)
        for bucket in ("dump", "factory"):
            for path in (root / bucket).rglob("*.png"):
                name = path.relative_to(root / bucket).as_posix()
                storage.write_bytes(f"s3://{bucket}/{name}", path.read_bytes())
        storage.write_bytes(f"{OUT}/elsewhere/x", b"x")
    return root


def forget_the_night(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier night left, and one label that somebody imported."""
    become(server, OWNER, monkeypatch)
    for item in list(storage.list_objects(OUT)):
        if "/elsewhere/" not in item.uri:
            storage.delete(item.uri)
    said = Label(
        image_uri="s3://dump/steel/000000.png",
        category="steel",
        label="good",
        night=NIGHT,
        labelled_at=dt.datetime(2026, 3, 13, 6, tzinfo=dt.UTC),
    )
    LabelTable(OUT).append(to_rows([said]))


def night(material: Path) -> int:
    """Everything that ``nightshift score`` does with storage, in its order; return the rows."""
    for _ in range(2):  # the second time it is known
        images, _change = take_in("s3://dump/", NightFolder(OUT, NIGHT))
    held_fleet(OUT)
    champions_so_far(NightFolder(OUT, NIGHT))
    make_fleet(NightFolder(OUT, NIGHT), {"steel": material / "package"})
    fleet = Fleet.read(NightFolder(OUT, NIGHT).fleet)
    plan = plan_night(images.manifest, fleet, NightFolder(OUT, NIGHT))
    ShardScorer(fleet, NightFolder(OUT, NIGHT)).write(plan.tasks)
    for kind in ("maps", "thumbnails"):  # whether or not an image was flagged
        storage.write_bytes(f"{OUT}/{kind}/night={NIGHT}/steel/x", b"picture")
    rows = read_night(NightFolder(OUT, NIGHT))
    if "denied" in rows["status"].to_pylist():  # a status, as one image never stops a night
        raise AccessDenied("no rights on the dump")
    write_shard(NightFolder(OUT, NIGHT), "outdated", rows.slice(0, 0))
    remove_shards(NightFolder(OUT, NIGHT), ["outdated"])
    for _ in range(2):  # the second time it is found settled
        settle(NightFolder(OUT, NIGHT), fleet)
    write_report(NightFolder(OUT, NIGHT))
    note_reported(NightFolder(OUT, NIGHT), stored_shards(NightFolder(OUT, NIGHT)))
    return int(rows.num_rows)


def test_a_night_needs_no_more_than_its_rights(
    server: LocalS3, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_the_night(server, monkeypatch)
    become(server, "night", monkeypatch)
    assert night(material) == 2


@pytest.mark.parametrize("action", TABLE["night"])
def test_a_night_needs_each_of_its_rights(
    server: LocalS3, material: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_the_night(server, monkeypatch)
    become(server, without(action), monkeypatch)
    with pytest.raises(AccessDenied, match="rights"):
        night(material)


@pytest.mark.parametrize(
    ("job", "uri"),
    [
        ("night", "s3://dump/steel/new.png"),
        ("night", "s3://results/elsewhere/new"),
        ("night", "s3://results/new"),
        ("night", "s3://factory/new"),
        ("night", "s3://runs/new"),
        ("night", "s3://mlflow/new"),
        ("onboard", "s3://factory/onboarding/steel/new.png"),
        ("onboard", "s3://dump/new"),
        ("onboard", "s3://results/results/new"),
        ("onboard", "s3://mlflow/new"),
        ("mlflow", "s3://runs/new"),
        ("mlflow", "s3://results/results/new"),
    ],
)
def test_no_job_writes_what_is_not_its_own(
    server: LocalS3, material: Path, job: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(server, job, monkeypatch)
    with pytest.raises(AccessDenied, match="rights"):
        storage.write_bytes(uri, b"x")
    with pytest.raises(AccessDenied, match="rights"):
        storage.delete(uri)


@pytest.mark.parametrize(
    ("job", "uri"),
    [
        ("night", "s3://factory/onboarding/steel/train/good/000000.png"),
        ("night", "s3://results/elsewhere/x"),
        ("onboard", "s3://dump/steel/000000.png"),
        ("onboard", "s3://results/elsewhere/x"),
        ("mlflow", "s3://dump/steel/000000.png"),
    ],
)
def test_no_job_reads_what_it_does_not_need(
    server: LocalS3, material: Path, job: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(server, job, monkeypatch)
    with pytest.raises(AccessDenied, match="rights"):
        storage.read_bytes(uri)


def test_an_onboarding_reads_the_factory(
    server: LocalS3, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(server, "onboard", monkeypatch)
    assert len(prepare(category("s3://factory/onboarding/steel")).parts) == 20


def as_seaweedfs(policy: dict[str, Any]) -> set[str]:
    """What an Amazon policy allows, in the words of SeaweedFS."""
    allowed = set()
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        for resource in statement["Resource"]:
            place = resource.removeprefix("arn:aws:s3:::")
            bucket, _, prefix = place.partition("/")
            whole = f"{bucket}/{prefix}" if prefix not in ("", "*") else bucket
            allowed |= {f"{ACTIONS[action]}:{whole}" for action in statement["Action"]}
    return allowed


@pytest.mark.parametrize("job", TABLE)
def test_amazons_policies_say_the_same(job: str) -> None:
    policy = json.loads((RIGHTS / f"{job}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    assert as_seaweedfs(policy) == set(TABLE[job])
