"""What is shot together stays together, from the catalogue to the parts of an onboarding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from factory import category, make_category, write_catalogue
from image_sets import image_set

from model.errors import CategoryFault
from pipeline.calibration import Part
from pipeline.catalogue.catalogue import CatalogueError, Category, load_catalogue
from pipeline.checks import Verdict
from pipeline.datasets.bursts import bursts
from pipeline.inspection.data_checks import examine
from pipeline.inspection.near_duplicates import near_neighbours
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.listed_images import list_images, stay_together
from pipeline.onboarding.prepare import prepare

PATTERN = r"/([^/]+)_\d+\.png$"


def test_a_pattern_names_bursts_and_what_it_does_not_match_is_alone() -> None:
    uris = ["s3://b/good/p1_0.png", "s3://b/good/p1_1.png", "s3://b/good/p2_0.png", "s3://b/x.png"]
    found = bursts(PATTERN, uris, list("abcd"))
    assert found[0] == found[1] != found[2]
    assert found[3] == "d"
    assert bursts(None, uris, list("abcd")) == list("abcd")


@pytest.mark.parametrize(
    ("given", "said"), [("(", "no regular expression"), (r"\d+", "no group in parentheses")]
)
def test_a_pattern_that_cannot_be_used_is_one_line(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        category(tmp_path, group=given)


EXPECTED = "expected a regular expression with a group in parentheses, or `{column: NAME}`"


@pytest.mark.parametrize("given", [3, [], {}, {"column": 3}, {"column": " "}, {"columns": "part"}])
def test_what_is_neither_pattern_nor_column_is_one_line(tmp_path: Path, given: object) -> None:
    with pytest.raises(CatalogueError) as told:
        load_catalogue(str(write_catalogue(tmp_path / "c.yaml", {"steel": "i"}, {"group": given})))
    assert EXPECTED in str(told.value)
    assert str(told.value).count("\n") == 0


def test_a_column_needs_a_manifest(tmp_path: Path) -> None:
    settings = {"group": {"column": "part"}}
    with pytest.raises(CatalogueError, match=r"group: layout mvtec has no columns.*expression"):
        load_catalogue(str(write_catalogue(tmp_path / "c.yaml", {"steel": "i"}, settings)))


def write_manifest(path: Path, header: str, rows: Sequence[str]) -> Category:
    path.write_text("\n".join([header, *rows]))
    return category(path, layout="manifest", group={"column": "part"})


def test_a_manifests_column_names_bursts_and_empty_values_are_alone(tmp_path: Path) -> None:
    rows = ["a/1.png,7", "a/2.png, 7 ", "s3://b/3.png,8", "a/4.png,", "a/5.png,"]
    listed = write_manifest(tmp_path / "m.csv", "image_uri, Part", rows)
    uris = [f"{tmp_path}/a/1.png", f"{tmp_path}/a/2.png", "s3://b/3.png"]
    uris += [f"{tmp_path}/a/4.png", f"{tmp_path}/a/5.png", "s3://b/unknown.png"]
    found = stay_together(listed, uris, list("abcdef"))
    assert found[0] == found[1]
    assert len(set(found)) == 5
    assert found[3:] == ["d", "e", "f"]
    assert list_images(listed).findings == ()


def test_all_pages_of_a_file_are_of_its_burst(tmp_path: Path) -> None:
    listed = write_manifest(tmp_path / "m.csv", "image_uri,part", ["a.tif,7", "b.tif,7"])
    paged = listed.model_copy(update={"pages": "each"})
    uris = [f"{tmp_path}/a.tif#page=1", f"{tmp_path}/a.tif#page=2", f"{tmp_path}/b.tif"]
    assert len(set(stay_together(paged, uris, list("abc")))) == 1


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image_uri,station", "no column 'part', which `group` names.*it has station"),
        ("image_uri,parts", "no column .part., which `group` names.*it has parts"),
        ("image_uri", "no column 'part', which `group` names.*it has none"),
    ],
)
def test_a_missing_column_is_refused(tmp_path: Path, header: str, said: str) -> None:
    row = ",".join(["a.png", "1"][: header.count(",") + 1])
    listed = write_manifest(tmp_path / "m.csv", header, [row])
    with pytest.raises(CategoryFault, match=said):
        list_images(listed)


def test_a_column_has_a_key_of_its_own_and_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    listed = write_manifest(tmp_path / "m.csv", "image_uri,part", ["a.png,1"])
    plain = listed.model_copy(update={"group": None})
    assert onboarding_key(listed) != onboarding_key(plain)
    assert Category.model_validate(listed.model_dump()) == listed


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty good images, five of each part."""
    root = make_category(tmp_path_factory.mktemp("images"), num_good=40)
    for number, path in enumerate(sorted((root / "train/good").iterdir())):
        path.rename(path.with_name(f"part{number // 5}_{number % 5}.png"))
    return root


def part_of(prepared_uris: Sequence[str], parts: np.ndarray) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for uri, part in zip(prepared_uris, parts, strict=True):
        found.setdefault(Path(uri).name.split("_")[0], set()).add(int(part))
    return found


def test_an_onboarding_holds_out_whole_bursts(images: Path) -> None:
    plain, grouped = category(images), category(images, group=PATTERN)
    assert onboarding_key(plain) == onboarding_key(category(images, group=None))
    assert onboarding_key(plain) != onboarding_key(grouped)
    together = prepare(grouped)
    found = part_of(together.good.uris, together.parts)
    assert len(found) == 8
    assert all(len(parts) == 1 for parts in found.values())
    assert {part for parts in found.values() for part in parts} == {Part.TRAIN, Part.CALIBRATION}
    apart = prepare(plain)
    assert any(len(parts) > 1 for parts in part_of(apart.good.uris, apart.parts).values())


def names(num: int) -> list[str]:
    return [f"/a/{number}.png" for number in range(num)]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_names_that_tell_of_bursts_are_found(size: int) -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(60 // size, 40)).repeat(size, axis=0)
    pooled = (centres + 0.1 * random.normal(size=centres.shape)).astype(np.float32)
    found = near_neighbours(names(60), pooled)
    assert len(found) == 60 - 60 // size
    assert all(image // size == before // size and image == before + 1 for image, before in found)
    line = {line.check.name: line for line in examine(image_set(pooled=pooled))}["bursts"]
    assert line.check.verdict is Verdict.WARN


@pytest.mark.parametrize("seed", range(5))
def test_images_that_are_independent_are_no_bursts(seed: int) -> None:
    pooled = np.random.default_rng(seed).normal(size=(60, 40)).astype(np.float32)
    assert near_neighbours(names(60), pooled) == []


def test_numbers_count_as_numbers() -> None:
    order = np.random.default_rng(0).permutation(40)
    values = np.random.default_rng(1).normal(size=(20, 30)).repeat(2, axis=0).astype(np.float32)
    shuffled = near_neighbours([names(40)[index] for index in order], values[order])
    assert {(int(order[a]), int(order[b])) for a, b in shuffled} == {
        (2 * pair + 1, 2 * pair) for pair in range(20)
    }
