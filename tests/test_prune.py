"""Old nights make room: what is large goes, what nothing else has stays."""

import json
from pathlib import Path

import pytest
from command_line import Run
from factory import write_images

from pipeline import storage
from pipeline.night.dumps import take_in
from pipeline.night.folder import NightError, NightFolder
from pipeline.night.prune import PruneError, prune

NIGHTS = ["2025-12-31", "2026-01-02", "2026-01-10", "2026-01-09"]
KINDS = (
    "manifest",
    "fleet",
    "results",
    "maps",
    "thumbnails",
    "drift",
    "summary",
    "report",
    "labels",
)


@pytest.fixture(params=["disk", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Four nights, each with a file of 10 bytes of every kind."""
    base = request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)
    for night in NIGHTS:
        for kind in KINDS:
            storage.write_bytes(f"{base}/out/{kind}/night={night}/sub/file", b"0123456789")
    return f"{base}/out"


def kinds_of(out: str, night: str) -> set[str]:
    found = (item.uri.removeprefix(out).split("/") for item in storage.list_objects(out))
    return {kind for _, kind, name, *_ in found if name == f"night={night}"}


def test_the_last_nights_stay_whole_and_of_the_others_what_nothing_else_has(out: str) -> None:
    pruned = list(prune(out, 2))
    assert [night.night for night in pruned] == ["2025-12-31", "2026-01-02"]
    assert {(night.num_files, night.size_bytes) for night in pruned} == {(6, 60)}
    for night in NIGHTS[:2]:
        assert kinds_of(out, night) == {"fleet", "summary", "labels"}
    for night in NIGHTS[2:]:
        assert kinds_of(out, night) == set(KINDS)
    assert list(prune(out, 2)) == []  # nothing is left to remove


def test_what_a_night_links_to_stays_and_a_hidden_folder_does_not(tmp_path: Path) -> None:
    photo, night = tmp_path / "photos/x.png", tmp_path / "out/maps/night=2026-01-01"
    storage.write_bytes(str(photo), b"1")
    storage.write_bytes(str(night / ".ipynb_checkpoints/a"), b"1")
    (night / "link").symlink_to(photo.parent)
    storage.write_bytes(str(tmp_path / "out/maps/night=2026-01-02/map"), b"1")
    assert [pruned.night for pruned in prune(str(tmp_path / "out"), 1)] == ["2026-01-01"]
    assert photo.exists()
    assert not night.exists()


def test_a_late_dump_does_not_overwrite_what_is_left_of_a_pruned_night(
    out: str, tmp_path: Path
) -> None:
    folder = NightFolder(out, NIGHTS[0])
    storage.write_bytes(folder.summary, b"{}")
    write_images(tmp_path / "late/steel", range(1))
    list(prune(out, 1))
    with pytest.raises(NightError, match=r"2025-12-31 was pruned.* --replace"):
        take_in(str(tmp_path / "late"), folder)
    night, _ = take_in(str(tmp_path / "late"), folder, replace=True)
    assert night.rows.num_rows == 1


def test_a_prune_that_was_cut_off_is_gone_on_with(out: str) -> None:
    for kind in ("report", "thumbnails", "maps", "drift", "results"):
        storage.delete(f"{out}/{kind}/night=2025-12-31/sub/file")
    (first, *_) = prune(out, 3)
    assert (first.night, first.num_files) == ("2025-12-31", 1)
    assert kinds_of(out, "2025-12-31") == {"fleet", "summary", "labels"}


def test_a_dry_run_removes_nothing(out: str) -> None:
    before = {item.uri for item in storage.list_objects(out)}
    assert len(list(prune(out, 1, dry_run=True))) == 3
    assert {item.uri for item in storage.list_objects(out)} == before


@pytest.mark.parametrize(
    "name", ["night=2025-99-01", "night=old", "backup", "night=", "2020-01-01"]
)
def test_what_is_no_night_is_left_alone(out: str, name: str) -> None:
    storage.write_bytes(f"{out}/results/{name}/file", b"mine")
    list(prune(out, 1))
    assert storage.read_bytes(f"{out}/results/{name}/file") == b"mine"


@pytest.mark.parametrize("keep", [0, -1])
def test_some_night_must_be_kept(out: str, keep: int) -> None:
    with pytest.raises(PruneError, match="at least 1"):
        list(prune(out, keep))


def test_a_folder_without_nights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(PruneError, match="has no nights"):
        list(prune(str(tmp_path), 1))


def test_the_command_says_what_went(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for night in NIGHTS:
        folder = NightFolder(str(out), night)
        storage.write_bytes(folder.report, b"page")
    answer = run("prune", out, "--keep-nights", 3, "--dry-run")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, f"{out}: 1 nights, 0.0 MB would go")
    told = json.loads(run("prune", out, "--keep-nights", 3, "--json").out)
    assert told["nights"] == [{"night": "2025-12-31", "num_files": 1, "size_bytes": 4}]
    assert "at least 1" in run("prune", out, "--keep-nights", 0).refusal()
