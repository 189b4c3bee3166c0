"""The feature store: the second command computes nothing, and no trouble of a store stops one."""

import json
import logging
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import factory
import numpy as np
import pytest
from every_kind import small_category
from PIL import Image
from studied import make_study

from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.protocol import Protocol
from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.stored_groups import IMAGES, stored_groups
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.health import NUM_ANOMALIES
from pipeline.onboarding.prepare import PreparedCategory, prepare
from pipeline.onboarding.small_defects import SIZES
from pipeline.package import Package, package_digest
from pipeline.study.check import build_test
from pipeline.study.feature_view import wanted_views
from pipeline.study.sets import build_view, fold_plan

NUM_GOOD, NUM_TEST = 20, 6
NUM_ALL = NUM_GOOD + NUM_TEST + NUM_ANOMALIES + 9 * len(SIZES)  # nine are held out
# A 64-pixel crop with EfficientNet-Lite0: 40 channels on 8 x 8, 112 on 4 x 4, half precision.
IMAGE_BYTES = 2 * (40 * 64 + 112 * 16)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.make_category(tmp_path_factory.mktemp("images"), num_good=NUM_GOOD)


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    if request.param == "disk":
        return StorePlace(uri=str(tmp_path / "features"))
    return StorePlace(uri=f"{request.getfixturevalue('s3')}/features")


@pytest.fixture
def local(tmp_path: Path) -> StorePlace:
    return StorePlace(uri=str(tmp_path / "features"))


def onboard(category: Category, folder: Path, features: StorePlace | None) -> Package:
    prepared = prepare(category, features=features)
    for _ in prepared.trainer.run():
        pass
    return write_package(prepared, folder)


def prepared_with(images: Path, features: StorePlace, **changes: Any) -> PreparedCategory:
    return prepare(factory.category(images, **changes), features=features)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but the record, which has times in it."""
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "onboarding.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def entries(features: StorePlace) -> list[str]:
    return [item.uri for item in storage.list_objects(storage.join(features.uri, IMAGES))]


def test_a_second_onboarding_makes_no_pass_and_leaves_the_same_package(
    images: Path, place: StorePlace, tmp_path: Path
) -> None:
    category = factory.category(images)
    plain = onboard(category, tmp_path / "plain", None).record
    first = onboard(category, tmp_path / "first", place).record
    second = onboard(category, tmp_path / "second", place).record
    assert (plain.features, plain.backbone_images) == (None, NUM_ALL)
    assert (first.features, first.backbone_images) == (
        {"images": NUM_ALL, "from_store": 0},
        NUM_ALL,
    )
    assert (second.features, second.backbone_images) == (
        {"images": NUM_ALL, "from_store": NUM_ALL},
        0,
    )
    expected = files_of(tmp_path / "plain")
    assert len(expected) > 2
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second") == expected
    assert plain.metrics == first.metrics == second.metrics


def test_evaluate_takes_what_onboard_left(images: Path, local: StorePlace, tmp_path: Path) -> None:
    onboard(factory.category(images), tmp_path / "package", local)
    plain, stored = (
        Protocol(num_seeds=1, progress=lambda *_: None, features=features).measure(
            factory.category(images)
        )
        for features in (None, local)
    )
    num_images = NUM_GOOD + NUM_TEST
    assert stored.features == {"images": num_images, "from_store": num_images}
    assert plain.features is None
    assert np.array_equal(plain.seeds[0].scores, stored.seeds[0].scores)


def test_synthetic_anomalies_to_learn_from_are_kept_as_well(
    images: Path, local: StorePlace
) -> None:
    category = small_category(images, "realnet")
    first, second = (prepare(category, features=local) for _ in range(2))
    num_images = NUM_GOOD + category.realnet.pairs
    assert second.embedder.counts == {"images": num_images, "from_store": num_images}
    assert first.pairs is not None
    assert second.pairs is not None
    for one, other in zip(first.pairs.bank.levels, second.pairs.bank.levels, strict=True):
        assert one.equal(other)


def test_a_changed_image_is_computed_alone(images: Path, local: StorePlace, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "steel")
    prepared_with(copy, local)
    Image.fromarray(factory.texture(999)).save(copy / "train/good/000003.png")
    again = prepared_with(copy, local)
    assert again.embedder.counts == {"images": NUM_GOOD, "from_store": NUM_GOOD - 1}
    assert again.backbone.num_images_seen == 1


def test_a_renamed_or_moved_image_is_the_same_image(
    images: Path, local: StorePlace, tmp_path: Path
) -> None:
    prepared_with(images, local)
    copy = shutil.copytree(images, tmp_path / "moved")
    (copy / "train/good/000003.png").rename(copy / "train/good/zzz.png")
    assert prepared_with(copy, local).backbone.num_images_seen == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": 32},
        {"fit": "pad"},
        {"patch_size": 5},
        {"layers": [1, 2]},
        {"embedding_kind": "official"},
        {"max_pixels": 10**7},
        {"precision": "bfloat16"},
        {"precision": "int8"},
    ],
)
def test_what_changes_a_feature_is_never_taken_for_another(
    images: Path, local: StorePlace, changes: dict[str, Any]
) -> None:
    from model.precision import has_bfloat16

    if changes.get("precision") == "bfloat16" and not has_bfloat16(factory.backbone().mean.device):
        pytest.skip("this processor has no bfloat16")
    prepared_with(images, local)
    assert prepared_with(images, local, **changes).backbone.num_images_seen == NUM_GOOD


@pytest.mark.parametrize(
    "changes", [{"training": {"seed": 3}}, {"false_alarm_rate": 0.2}, {"max_images": 18}]
)
def test_what_changes_no_feature_makes_no_pass(
    images: Path, local: StorePlace, changes: dict[str, Any]
) -> None:
    prepared_with(images, local)
    assert prepared_with(images, local, **changes).backbone.num_images_seen == 0


@pytest.mark.parametrize("kind", ["memory_bank", "ensemble"])
def test_kinds_of_detector_share_features(images: Path, local: StorePlace, kind: str) -> None:
    prepared_with(images, local)
    assert prepare(small_category(images, kind), features=local).backbone.num_images_seen == 0


def test_features_of_more_layers_serve_those_who_want_fewer(
    images: Path, local: StorePlace
) -> None:
    wide = prepared_with(images, local, layers=[1, 2, 3])
    narrow = prepared_with(images, local, layers=[2, 3])
    assert narrow.backbone.num_images_seen == 0
    for one, other in zip(wide.good.bank.levels[1:], narrow.good.bank.levels, strict=True):
        assert one.equal(other)


def test_unreadable_images_are_told_again(images: Path, local: StorePlace, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "steel")
    (copy / "train/good/000003.png").write_bytes(b"no image")
    for num_passes in (NUM_GOOD - 1, 0):
        prepared = prepared_with(copy, local)
        assert [image.uri[-10:] for image in prepared.good.unreadable] == ["000003.png"]
        assert prepared.backbone.num_images_seen == num_passes


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        damaged,
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 3000),
        lambda path: shutil.copy(next(p for p in path.parent.iterdir() if p != path), path),
    ],
    ids=["a flipped bit", "cut off", "empty", "no such file", "of another image"],
)
def test_a_damaged_entry_is_said_dropped_and_computed_again(
    images: Path,
    local: StorePlace,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    expected = prepared_with(images, local).good.bank.levels
    victim = Path(entries(local)[4])
    damage(victim)
    with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
        again = prepared_with(images, local)
    assert again.backbone.num_images_seen == 1
    assert all(a.equal(b) for a, b in zip(again.good.bank.levels, expected, strict=True))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{victim} is damaged")
    assert "\n" not in line
    caplog.clear()
    assert prepared_with(images, local).backbone.num_images_seen == 0
    assert not caplog.records


def test_writers_at_once_are_harmless(images: Path, local: StorePlace) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: prepared_with(images, local), range(3)))
    assert len({package.good.digest for package in made}) == 1
    assert prepared_with(images, local).backbone.num_images_seen == 0
    (group,) = stored_groups(local.uri)
    assert group.num_images == NUM_GOOD
    assert group.size_bytes == sum(Path(path).stat().st_size for path in entries(local))


def test_a_place_that_cannot_be_written_is_said_once_and_stops_nothing(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    features = StorePlace(uri=str(tmp_path / "file/features"))
    with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
        record = onboard(factory.category(images), tmp_path / "package", features).record
    assert record.features == {"images": NUM_ALL, "from_store": 0}
    (line,) = [r.getMessage() for r in caplog.records if "feature_store" in r.name]
    assert line.startswith("the feature store keeps nothing more of steel")
    assert line in record.findings  # a log of a worker on another machine is far


def test_a_disk_that_takes_no_more_is_said_once_and_leaves_nothing_half_written(
    images: Path, local: StorePlace, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # an entry is larger
    try:
        with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
            prepared = prepared_with(images, local)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert prepared.backbone.num_images_seen == NUM_GOOD
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the feature store keeps nothing more of steel")
    kept = [path for path in Path(local.uri, IMAGES).rglob("*") if path.is_file()]
    assert kept == []


def test_a_bucket_that_is_not_there_is_said_once_and_stops_nothing(
    images: Path, s3: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
        prepared = prepared_with(images, StorePlace(uri="s3://no-such-bucket/features"))
    assert prepared.embedder.counts == {"images": NUM_GOOD, "from_store": 0}
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no-such-bucket" in line


def test_a_store_that_may_only_be_read_is_read(
    images: Path,
    local: StorePlace,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared_with(images, local)

    def denied(uri: str, data: bytes) -> None:
        raise storage.AccessDenied(f"{uri} may not be accessed")

    monkeypatch.setattr(storage, "write_bytes", denied)
    with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
        again = prepared_with(images, local)
    assert again.backbone.num_images_seen == 0
    assert len(caplog.records) == 1


def test_the_least_recently_used_go_first_and_the_bound_holds(
    images: Path, place: StorePlace
) -> None:
    room = 2.5 * NUM_GOOD * (IMAGE_BYTES + 700) / 1e9  # for two categories and a half
    features = replace(place, max_gb=room)
    for name in ("a", "b", "a", "c"):  # the second time a is only used
        prepared_with(images, features, name=name)
    assert [group.category for group in stored_groups(features.uri)] == ["a", "c"]
    assert sum(len(storage.read_bytes(uri)) for uri in entries(features)) <= features.max_bytes
    assert prepared_with(images, features, name="a").backbone.num_images_seen == 0
    assert prepared_with(images, features, name="b").backbone.num_images_seen == NUM_GOOD


def test_a_category_larger_than_the_bound_is_kept_in_part(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features = StorePlace(uri=str(tmp_path / "features"), max_gb=10 * (IMAGE_BYTES + 700) / 1e9)
    with caplog.at_level(logging.WARNING, "pipeline.feature_store"):
        prepared_with(images, features)
    assert len(caplog.records) == 1
    assert 0 < sum(Path(path).stat().st_size for path in entries(features)) <= features.max_bytes
    again = prepared_with(images, features)
    assert again.backbone.num_images_seen == NUM_GOOD - len(entries(features))


def test_a_group_evicted_while_it_is_read_is_computed_again(
    images: Path, local: StorePlace
) -> None:
    from pipeline.feature_store.embedder import embedder_of
    from pipeline.feature_store.stored_groups import trim
    from pipeline.onboarding.features import extract

    prepared = prepared_with(images, local)
    embedder = embedder_of(prepared.category, factory.backbone(), local)
    trim(local.uri, 0)
    again = extract(prepared.good.uris, prepared.category, embedder)
    assert embedder.num_stored == 0
    assert all(
        a.equal(b) for a, b in zip(again.bank.levels, prepared.good.bank.levels, strict=True)
    )


def test_the_record_of_an_earlier_release_has_no_counter(tmp_path: Path, package: Path) -> None:
    folder = shutil.copytree(package, tmp_path / "package")
    record = json.loads((folder / "onboarding.json").read_text())
    del record["features"]
    (folder / "onboarding.json").write_text(json.dumps(record))
    assert Package.read(folder).record.features is None
    assert package_digest(folder) == package_digest(package)


def test_a_second_study_makes_no_pass_and_reads_the_same_features(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    local = StorePlace(uri=str(tmp_path / "features"))
    folds = fold_plan(study.settings)
    num_images = 40 + 12 * len(folds.used)
    took = {}
    for name, store in {"plain": None, "first": local, "second": local}.items():
        (view,) = wanted_views(replace(study, store=store)).values()
        took[name] = build_view(view, folds, str(tmp_path / name), None)
        took[f"{name} test"] = build_test(view, str(tmp_path / name))
    assert took == {
        "plain": (num_images, num_images),
        "plain test": (8, 8),
        "first": (num_images, num_images),
        "first test": (8, 8),
        "second": (num_images, 0),
        "second test": (8, 0),
    }
    for path in (tmp_path / "plain").rglob("*.npy"):
        inside = path.relative_to(tmp_path / "plain")
        assert path.read_bytes() == (tmp_path / "second" / inside).read_bytes()


def test_a_study_takes_what_an_onboarding_of_the_same_layers_left(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    local = StorePlace(uri=str(tmp_path / "features"))
    (view,) = wanted_views(replace(study, store=local)).values()
    prepare(study.categories[0], features=local)
    took = build_view(view, fold_plan(study.settings), str(tmp_path / "view"), None)
    assert took.images - took.passes == 40  # the good images; its anomalies are its own
