"""Made defects by size: where they lie, what of them goes through the network, what is said."""

import dataclasses
import json
from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from command_line import Run
from every_kind import SMALL, prepare_small, small_category
from PIL import Image

from model.preprocessing import Preprocessing
from model.tile_pixels import cut
from model.tiles import Tiles
from pipeline.calibration import fit
from pipeline.data_report.setting_comparison import on_few_images, other_setting
from pipeline.images.decode import ImageRead, ImageStatus, as_scored, read_image
from pipeline.onboarding.defect_change import GoodImage
from pipeline.onboarding.defect_sizes import (
    SizeFound,
    _scores,
    _unseen,
    findings_of_sizes,
    measure_sizes,
)
from pipeline.onboarding.prepare import PreparedCategory, make_detector
from pipeline.onboarding.size_curve import _apart, size_figure
from pipeline.onboarding.size_words import sizes_in_words
from pipeline.onboarding.small_defects import (
    SIZES,
    SmallDefect,
    common_bounds,
    read_whole,
    small_defects,
    where_ignored,
)
from pipeline.onboarding.squeeze import squeeze_of
from pipeline.onboarding.zones import marked_image

TILES = Tiles(size=64)
TILED = {"tiles": {"size": 64}, "resize": None, "crop": None}
IMAGE = factory.texture(0)
ALL = (0, 0, 96, 96)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.make_category(tmp_path_factory.mktemp("images"), num_good=20, num_test=1)


def trained(images: Path, kind: str, **changes: object) -> PreparedCategory:
    prepared = prepare_small(small_category(images, kind, false_alarm_rate=0.2, **changes))
    for _ in prepared.trainer.run():
        pass
    return prepared


def whole(image: np.ndarray, defect: SmallDefect) -> np.ndarray:
    made = image.copy()
    made[defect.place] = defect.pixels
    return made


def extent(one: np.ndarray, other: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what differs."""
    rows, columns = np.nonzero((one != other).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("seed", range(8))
def test_a_defect_has_its_size_and_lies_where_it_may(seed: int) -> None:
    ignored = np.zeros((96, 96), dtype=bool)
    ignored[:, 50:] = True
    defects = list(small_defects(IMAGE, (10, 20, 80, 90), ignored, seed))
    assert [each.size for each in defects] == list(SIZES)
    for defect in defects:
        left, top, right, bottom = extent(IMAGE, whole(IMAGE, defect))
        assert 10 <= left < right <= 50
        assert 20 <= top < bottom <= 90
        assert defect.size / 2 <= np.hypot(right - left, bottom - top)
        assert max(right - left, bottom - top) <= defect.size


def test_the_seed_alone_says_which_defects_are_made() -> None:
    first, again, other = (
        [whole(IMAGE, each) for each in small_defects(IMAGE, ALL, None, seed)] for seed in (1, 1, 2)
    )
    assert all(map(np.array_equal, first, again))
    assert not any(map(np.array_equal, first, other))


@pytest.mark.parametrize(
    ("image", "sizes"),
    [
        (IMAGE[:20, :9], [4, 8]),  # no room for more
        (IMAGE[:3], []),
        (np.zeros((96, 96, 3), np.uint8), []),  # nothing would be seen
    ],
)
def test_what_has_no_room_or_is_not_seen_is_left_out(image: np.ndarray, sizes: list[int]) -> None:
    within = 0, 0, image.shape[1], image.shape[0]
    assert [each.size for each in small_defects(image, within, None, 0)] == sizes


def test_defects_lie_where_every_way_of_reading_looks() -> None:
    crop = Preprocessing(resize=256, crop=224)  # 224 / 256 of the shorter side, in the middle
    assert common_bounds((256, 512), (crop,)) == (144, 16, 368, 240)
    tiled = Preprocessing(crop=64, fit="stretch", tiles=TILES)
    assert common_bounds((256, 512), (tiled,)) == (0, 0, 512, 256)
    assert common_bounds((256, 512), (tiled, crop)) == (144, 16, 368, 240)
    padded = Preprocessing(fit="pad")
    assert common_bounds((256, 512), (padded,)) == (0, 0, 512, 256)


def test_zones_are_drawn_in_pixels_of_an_image_of_any_size(images: Path) -> None:
    zones = {"size": [48, 48], "ignore": [[[0, 0], [24, 0], [24, 48], [0, 48]]]}
    ignored = where_ignored(marked_image(factory.category(images, zones=zones)), (96, 96))
    assert ignored is not None
    assert ignored[:, :48].all()
    assert not ignored[:, 52:].any()
    assert where_ignored(marked_image(factory.category(images)), (96, 96)) is None


def at(top: int, left: int) -> SmallDefect:
    """Four pixels of inverted colours."""
    place = slice(top, top + 4), slice(left, left + 4)
    return SmallDefect(size=4, place=place, pixels=255 - IMAGE[place])


def test_only_the_tiles_that_a_defect_lies_in_go_through_the_network() -> None:
    tiled = Preprocessing(crop=64, fit="stretch", tiles=TILES)  # four tiles and the thumbnail
    good = GoodImage(whole=IMAGE, read=IMAGE.copy(), preprocessing=tiled)
    changed = good.changed_inputs(at(2, 2))
    assert sorted(changed) == [0, 4]
    assert np.array_equal(changed[0], whole(IMAGE, at(2, 2))[:64, :64])
    same = SmallDefect(size=4, place=at(2, 2).place, pixels=IMAGE[2:6, 2:6])
    assert good.changed_inputs(same) == {}
    # where all of them overlap
    assert sorted(good.changed_inputs(at(40, 40))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "ways",
    [
        Preprocessing(crop=64, fit="stretch", tiles=TILES),
        Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, scale=0.7)),
        Preprocessing(
            **{"crop": 64, "fit": "stretch", "tiles": Tiles(size=64, scale=0.7)},
            **{"roi": (40, 10, 100, 70), "drawn_on": (90, 192)},
        ),
        Preprocessing(resize=64, crop=32),
        Preprocessing(crop=64, fit="pad"),
        Preprocessing(crop=(64, 32), fit="stretch"),
        Preprocessing(crop=160, fit="stretch"),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_changed_is_what_the_whole_image_becomes(ways: Preprocessing, seed: int) -> None:
    image = np.concatenate([IMAGE, factory.texture(1)], axis=1)[:90]
    read = as_scored(Image.fromarray(image), ways, (90, 192))[0]
    good = GoodImage(whole=image, read=read, preprocessing=ways)
    for defect in small_defects(image, common_bounds((90, 192), (ways,)), None, seed):
        made = as_scored(Image.fromarray(whole(image, defect)), ways, (90, 192))[0]
        expected, before = (inputs_of(each, ways) for each in (made, read))
        changed = good.changed_inputs(defect)
        assert changed
        for number, pixels in enumerate(expected):
            own = changed.get(number, before[number])
            assert np.abs(own.astype(int) - pixels).max() <= 2  # rounded twice


def inputs_of(pixels: np.ndarray, ways: Preprocessing) -> list[np.ndarray]:
    if ways.tiles is None:
        return [pixels]
    return [each.numpy() for some in cut(ways.tiles, torch.from_numpy(pixels), 8) for each in some]


def test_how_a_jpeg_was_decoded_is_no_defect(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    uri, ways = str(tmp_path / "a.jpg"), Preprocessing(crop=64, fit="stretch")
    image, read = read_whole(uri, ways), read_image(uri, ways).pixels
    assert image is not None
    assert read is not None
    assert not np.array_equal(read, as_scored(Image.fromarray(image), ways, (512, 512))[0])
    good = GoodImage(whole=image, read=read, preprocessing=ways)
    changed = good.changed_inputs(next(small_defects(image, (0, 0, 64, 64), None, 0, [32])))[0]
    assert not np.array_equal(changed[:10, :10], read[:10, :10])
    assert np.array_equal(changed[10:], read[10:])
    assert np.array_equal(changed[:, 10:], read[:, 10:])


def test_an_image_is_read_whole_whatever_the_network_sees(images: Path) -> None:
    uri = str(min((images / "train/good").iterdir()))
    pixels = read_whole(uri, factory.category(images).preprocessing)
    assert pixels is not None
    assert np.array_equal(pixels, np.asarray(Image.open(uri)))
    assert read_whole(uri + "x", Preprocessing()) is None


@pytest.mark.parametrize("calibration", ["split", "cross"])
def test_a_defect_scores_as_its_whole_image_does(images: Path, calibration: str) -> None:
    members = {"training": {"members": 2}}
    prepared = trained(images, "memory_bank", calibration=calibration, **TILED, **members)
    detector = make_detector(prepared, prepared.trainer)
    heads, index = _unseen(prepared, detector)[0]
    assert prepared.good.hashes[index] == min(
        prepared.good.hashes[each] for _, each in _unseen(prepared, detector)
    )
    scores = dict(_scores(prepared, heads, index, None, ()))
    assert list(scores) == list(SIZES)
    uri, digest = prepared.good.uris[index], prepared.good.hashes[index]
    image = np.asarray(Image.open(uri))
    for defect in small_defects(image, ALL, None, int(digest[:16], 16)):
        levels = prepared.embedder.levels_of_pixels(heads, [whole(image, defect)])
        with torch.inference_mode():
            expected = heads(levels)[0].numpy()
        assert scores[defect.size] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", SMALL)
def test_every_kind_says_what_it_finds(images: Path, kind: str) -> None:
    prepared = trained(images, kind)
    detector = make_detector(prepared, prepared.trainer)
    never = fit(np.full(9, 1e9, np.float32), prepared.category.calibration_config)
    always = dataclasses.replace(never, threshold=-1e9)
    for calibration, count in ((never, 0), (always, 3)):
        found = measure_sizes(prepared, detector, calibration, num_images=3)
        assert [(each.size, each.found, each.of) for each in found] == [
            (size, count, 3) for size in SIZES
        ]


def test_a_threshold_above_all_that_is_made_is_said() -> None:
    found = [SizeFound.of_flags(size, [False] * 12) for size in (8, 32)]
    assert "none of 12 made defects of 32 pixels is found" in findings_of_sizes(found)[0]
    assert findings_of_sizes(found, min_area=1100) == []
    found[-1] = SizeFound.of_flags(32, [False, True])
    assert findings_of_sizes(found) == findings_of_sizes([]) == []


def test_a_share_has_its_exact_interval() -> None:
    found = SizeFound.of_flags(8, [True, False, False, False, False])
    assert (found.found, found.of, found.share) == (1, 5, 0.2)
    assert (found.low, found.high) == pytest.approx((0.00505, 0.71642), abs=1e-5)  # tables
    all_of_12 = dataclasses.asdict(SizeFound.of_flags(16, [True] * 12))
    said = sizes_in_words([dataclasses.asdict(found), all_of_12])
    assert said == "20/100 % of 8/16 pixels"


@pytest.mark.parametrize(
    ("size", "ways", "expected"),
    [  # what is seen, pixels that become one, share of pixels kept
        ((1500, 2000), Preprocessing(fit="stretch", crop=224), (1, 2000 / 224, 224**2 / 3e6)),
        ((512, 512), Preprocessing(), ((224 / 256) ** 2, 2, (224 / 512) ** 2)),
        ((100, 100), Preprocessing(fit="stretch"), (1, 1, 1)),
        ((96, 96), Preprocessing(crop=64, fit="stretch", tiles=TILES), (1, 1, 1)),
        (
            (96, 96),
            Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, scale=0.5)),
            (1, 2, 0.25),
        ),
        ((100, 200), Preprocessing(fit="pad", crop=64), (1, 200 / 64, 64 * 32 / 20000)),
    ],
)
def test_what_is_kept_of_an_image(
    size: tuple[int, int], ways: Preprocessing, expected: tuple[float, float, float]
) -> None:
    squeeze = squeeze_of([ImageRead("a.png", ImageStatus.OK, size=size)] * 2, ways)
    assert squeeze is not None
    assert (squeeze.seen, squeeze.factor, squeeze.kept) == pytest.approx(expected)
    assert squeeze_of([], ways) is None


def test_the_other_setting_has_tiles_or_has_none(images: Path) -> None:
    plain = factory.category(images)
    tiled = other_setting(plain, (96, 90))
    assert tiled.tiles == Tiles(size=96)
    assert other_setting(plain, (3000, 4000)).tiles == Tiles()
    untiled = other_setting(tiled, (96, 90)).preprocessing
    assert (untiled.tiles, untiled.size) == (None, (224, 224))
    zones = {"size": [96, 96], "roi": [0, 0, 64, 64]}
    assert other_setting(factory.category(images, zones=zones), (64, 64)).tiles == Tiles(size=64)


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 120),
        ({"false_alarm_rate": 0.01}, 218),  # half of 198 is held out, and a tenth more
        ({"max_images": 30}, 30),
    ],
)
def test_few_images_are_as_many_as_the_rate_needs(
    images: Path, changes: dict[str, float], most: int
) -> None:
    assert on_few_images(factory.category(images, **changes)).max_images == most


def test_names_beside_the_curves_do_not_lie_on_one_another() -> None:
    assert _apart([0.5, 0.52, 0.05], gap=0.1) == pytest.approx([0.5, 0.6, 0.05])
    found = [SizeFound.of_flags(size, [True, False]) for size in SIZES]
    figure = size_figure("steel $x$", {"one input": found, "tiles of 64": found[1:]}, 0.05)
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {
        *("one input", "tiles of 64", "false alarms 5 %")
    }
    assert axes.get_ylim() == (0, 1.04)


def test_inspect_compares_the_setting_with_tiles(run: Run, images: Path, tmp_path: Path) -> None:
    catalogue = factory.write_catalogue(tmp_path / "catalogue.yaml", {"steel": images})
    document = catalogue.read_text().replace("false_alarm_rate: 0.1", "false_alarm_rate: 0.2")
    catalogue.write_text(document)
    answer = run("inspect", catalogue, "--defect-sizes", "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)["categories"]["steel"]
    assert told["squeeze"]["image"] == [96, 96]
    sizes = told["defect_sizes"]
    assert list(sizes["settings"]) == ["as it is: one input", "tiles of 96"]
    for found in sizes["settings"].values():
        assert [each["size"] for each in found] == list(SIZES)
        assert all(each["low"] <= each["share"] <= each["high"] for each in found)
    said = next(each for each in told["checks"] if each["name"] == "defect sizes")
    assert "which stand for no real ones" in said["finding"]
    page = (tmp_path / "out/index.html").read_text()
    assert "Which defects are too small?" in page
    assert "data:image/png" in page
    assert (tmp_path / "out/defect-sizes-steel.png").exists()
    artefacts = {path.name for path in tmp_path.rglob("artifacts/*")}
    assert artefacts >= {"defect-sizes-steel.png"}
