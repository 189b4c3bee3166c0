"""Features of a study: one pass of the backbone, exactly the features of an onboarding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from factory import backbone, make_category
from studied import load, make_study, write_study_catalogue

from pipeline import storage
from pipeline.calibration import Part, TooFewImages, split_by_content
from pipeline.datasets.layouts import read_layout
from pipeline.datasets.samples import LayoutError
from pipeline.feature_store.embedder import embedder_of
from pipeline.onboarding.features import extract
from pipeline.study.check import build_test
from pipeline.study.feature_view import FeatureView, about, is_there, masks, open_bank, wanted_views
from pipeline.study.sets import FoldPlan, Passes, build_view, fold_plan
from pipeline.study.settings import LabelledSet, Study, StudySettings

SPACE = {
    "layers": {"choice": [[2], [1, 3], [2, 3]]},
    "patch_size": {"choice": [1, 3]},
    "sigma": {"uniform": [1, 2]},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, FeatureView, str, Passes]:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, space=SPACE)
    (view,) = wanted_views(study).values()
    place = str(folder / "features")
    return study, view, place, build_view(view, fold_plan(study.settings), place, None)


def test_one_view_holds_every_level_and_patch_size_of_a_backbone_and_image_size(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, space=SPACE | {"crop": {"choice": [32, 64]}})
    found = wanted_views(study)
    assert len(found) == 2
    for view in found.values():
        wanted = {(embedding.patch_size, layers) for embedding, layers in view.settings}
        sets = ((2,), (1, 3), (2, 3))
        assert wanted == {(size, layers) for size in (1, 3) for layers in sets}
        assert view.category.layers == [1, 2, 3]
    assert len({view.name for view in found.values()}) == 2


def test_every_image_passes_the_backbone_once_whatever_is_searched(
    built: tuple[Study, FeatureView, str, Passes],
) -> None:
    study, view, place, passes = built
    num_anomalies = len(about(f"{place}/anomalies")["folds"])
    assert num_anomalies == 12 * 3  # folds 0, 1 and 2: the search and two repeats
    assert passes == (40 + num_anomalies, 40 + num_anomalies)
    assert build_view(view, fold_plan(study.settings), place, None) == (0, 0)


@pytest.mark.parametrize(("layers", "size"), [([2], 3), ([1, 3], 1), ([2, 3], 3)])
def test_a_bank_holds_what_an_onboarding_would_train_on(
    built: tuple[Study, FeatureView, str, Passes], layers: list[int], size: int
) -> None:
    study, _, place, _ = built
    variant = study.apply({"layers": layers, "patch_size": size}, study.categories[0])
    bank = open_bank(f"{place}/good", variant)
    samples = [s for s in read_layout("mvtec", variant.images).samples if s.split == "train"]
    embedder = embedder_of(variant, fresh_backbone(variant))
    plain = extract([s.uri for s in samples], variant, embedder).bank
    everything = torch.arange(40)
    for found, expected in zip(bank.images(everything), plain.images(everything), strict=True):
        assert torch.equal(found, expected)


def fresh_backbone(variant: object) -> torch.nn.Module:
    from pipeline.backbones import fetch_backbone

    return fetch_backbone(variant.backbone_config)  # type: ignore[attr-defined]


def test_images_held_out_for_the_calibration_are_in_no_fold(
    built: tuple[Study, FeatureView, str, Passes],
) -> None:
    study, _, place, _ = built
    category = study.categories[0]
    uris = [s.uri for s in read_layout("mvtec", category.images).samples if s.split == "train"]
    hashes = extract(uris, category, embedder_of(category, backbone())).hashes
    parts = split_by_content(hashes, category.calibration_config)
    told = about(f"{place}/good")
    assert told["rows"] == np.flatnonzero(parts == Part.TRAIN).tolist()
    sizes = np.bincount(told["folds"])
    assert len(sizes) == 4
    assert sizes.max() - sizes.min() <= 1


def test_anomalies_are_marked_where_they_differ(
    built: tuple[Study, FeatureView, str, Passes],
) -> None:
    _, view, place, _ = built
    marks = masks(f"{place}/anomalies")
    side = view.category.preprocessing.size[0] // 4
    assert marks.shape == (36, side, side)
    assert marks.any(axis=(1, 2)).mean() > 0.8  # the smallest may fall between thinned pixels


def test_test_images_are_embedded_apart_and_once(
    built: tuple[Study, FeatureView, str, Passes],
) -> None:
    _, view, place, _ = built
    assert not is_there(f"{place}/test")
    assert build_test(view, place) == (8, 8)
    assert build_test(view, place) == (0, 0)
    assert about(f"{place}/test") == {
        "size": [64, 64],
        "defective": [False] * 4 + [True] * 4,
        "marked": [True] * 4 + [False] * 4,
    }


def test_a_category_too_small_for_a_fold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    make_category(tmp_path / "steel", num_good=19, num_test=0)
    study = load(write_study_catalogue(tmp_path))
    (view,) = wanted_views(study).values()
    with pytest.raises(TooFewImages, match=r"steel: 19 good images .* 20 in all"):
        build_view(view, fold_plan(study.settings), str(tmp_path / "features"), None)


def test_a_category_too_small_besides_its_calibration_says_so(tmp_path: Path) -> None:
    make_category(tmp_path / "steel", num_good=25, num_test=0)
    study = load(write_study_catalogue(tmp_path))
    (view,) = wanted_views(study).values()
    with pytest.raises(TooFewImages, match="16 good images to train on besides those that are"):
        build_view(view, fold_plan(study.settings), str(tmp_path / "features"), None)


def test_test_images_are_no_validation_set(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    (view,) = wanted_views(study).values()
    labelled = LabelledSet(images=study.categories[0].images)
    with pytest.raises(LayoutError, match=r"8 of the 8 labelled images .* are test images"):
        build_view(view, fold_plan(study.settings), str(tmp_path / "features"), labelled)
    assert not storage.exists(str(tmp_path / "features/good"))


def test_a_labelled_set_is_embedded_where_the_catalogue_names_one(tmp_path: Path) -> None:
    other = make_category(tmp_path / "other", num_good=1, num_test=3, seed=7)
    study = make_study(tmp_path)
    (view,) = wanted_views(study).values()
    place = str(tmp_path / "features")
    build_view(view, fold_plan(study.settings), place, LabelledSet(images=str(other)))
    assert about(f"{place}/labelled")["defective"] == [False] * 3 + [True] * 3


def test_the_search_and_every_repeat_leave_another_fold_out_as_long_as_there_are_any() -> None:
    assert fold_plan(StudySettings()) == FoldPlan(num_folds=4, used=[0, 1, 2, 3], num_anomalies=96)
    assert fold_plan(StudySettings(seeds=1)).used == [0, 1]
    assert fold_plan(StudySettings(seeds=9, validation_share=0.5)).used == [0, 1]
