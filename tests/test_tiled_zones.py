"""Zones of images that are cut into tiles: where they are cut, and what of it counts."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from every_kind import SMALL
from factory import SETTINGS, backbone, make_category, score_without_cluster, texture
from PIL import Image
from torch import Tensor

from model.ensemble import EnsembleRecipe
from model.feature_bank import FeatureBank
from model.kind import Heads, TrainingSet
from model.kinds import make_trainer
from model.memory_bank import MemoryBankRecipe
from model.preprocessing import Preprocessing
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.tile_pixels import join
from model.tiled_bank import TiledBank, of_levels
from model.tiled_heads import TiledHeads
from model.tiled_zones import zones_of_inputs
from model.tiles import Share, Tiles
from model.training import TrainingConfig
from model.zones import EVERYWHERE, Zones
from pipeline.calibration import CalibrationConfig, fit
from pipeline.catalogue.catalogue import Category
from pipeline.data_report.zone_view import line_of_zones
from pipeline.feature_store.embedder import embedder_of
from pipeline.images.decode import ImageStatus, announced_pixels, read_image
from pipeline.night.feedback.explanation import explain
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_night
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.prepare import make_detector, prepare
from pipeline.onboarding.squeeze import squeeze_of
from pipeline.onboarding.zones import ZonesError, zones_of
from pipeline.package import Package
from pipeline.predictor import Predictor

SHORT = TrainingConfig(
    head=HeadConfig(hidden=8, members=3), passes=2, steps_per_pass=3, batch_rows=32, coreset=0
)
TILES = Tiles(size=64)


def category(images: Path, **changes: object) -> Category:
    settings = SETTINGS | {"resize": None, "crop": None, "tiles": {"size": 64}, "training": {}}
    settings |= changes
    return Category.model_validate({"name": "steel", "images": str(images), **settings})


def png(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **options)
    return file.getvalue()


def test_a_region_of_interest_is_what_is_cut(tmp_path: Path) -> None:
    """Sizes, tiles and features are those of images that have been cut out before."""
    for name in ("whole", "inside"):
        (tmp_path / name).mkdir()
    pixels = np.concatenate([texture(1), texture(2)], axis=1)  # 96 x 192
    (tmp_path / "whole/a.png").write_bytes(png(pixels))
    (tmp_path / "inside/a.png").write_bytes(png(pixels[10:90, 60:190]))
    zones = {"size": [192, 384], "roi": [120, 20, 260, 160]}  # at twice the scale
    found = []
    for name, changes in (("whole", {"zones": zones}), ("inside", {})):
        uris = [str(tmp_path / name / "a.png")]
        own = with_found_settings(category(tmp_path / name, **changes), uris)
        assert own.tiles == dataclasses.replace(TILES, image=(80, 130))
        (batch,) = embedder_of(own, backbone()).read(uris, own.preprocessing)
        read = read_image(uris[0], own.preprocessing)
        found.append((batch, read, own))
    (one, read, own), (other, plain, _) = found
    assert own.preprocessing.num_inputs == 2 * 4 + 1  # they start every 32 pixels
    assert np.array_equal(read.pixels, plain.pixels)
    assert np.array_equal(read.view, plain.view)
    assert read.size == (96, 192)
    assert one.levels[0].size == other.levels[0].size == (80, 130)
    pairs = zip(one.levels[0].chunks(), other.levels[0].chunks(), strict=True)
    for levels, others in pairs:
        assert all(torch.equal(*pair) for pair in zip(levels, others, strict=True))
    squeeze = squeeze_of([read], own.preprocessing)
    assert squeeze is not None
    assert squeeze.input == (80, 130)
    assert squeeze.seen == pytest.approx(80 * 130 / (96 * 192))


def test_an_image_is_refused_for_the_tiles_of_its_region_alone() -> None:
    """Also where it lies on its side in the file."""
    way = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, overlap=0))
    way = dataclasses.replace(way, roi=(0, 0, 64, 500), drawn_on=(1000, 2000))
    pixels = np.zeros((2000, 4000), np.uint8)
    data = png(pixels)
    read = read_image("a.png", way, lambda _: data)
    assert read.status is ImageStatus.OK
    assert read.pixels is not None
    assert read.pixels.shape == (1000, 128, 3)
    assert announced_pixels(lambda _: data, way) == pixels.size
    turned = png(np.ascontiguousarray(pixels.T), exif=b"Exif\0\0" + exif_of(6))
    again = read_image("a.png", way, lambda _: turned)
    assert again.pixels is not None
    assert again.pixels.shape == (1000, 128, 3)
    assert announced_pixels(lambda _: turned, way) == pixels.size
    wide = dataclasses.replace(way, roi=(0, 0, 2000, 600))
    many = read_image("a.png", wide, lambda _: data)
    assert many.status is ImageStatus.TOO_LARGE
    assert "4000 x 1200 pixels are 1,197 tiles of 64" in str(many.error)
    other = read_image("a.png", way, lambda _: png(pixels[:, :2000]))
    assert other.status is ImageStatus.UNREADABLE
    assert "2000 x 2000 pixels have other proportions than the 2000 x 1000" in str(other.error)
    small = io.BytesIO()
    Image.fromarray(pixels).save(small, "jpeg")
    eighth = dataclasses.replace(way, tiles=Tiles(size=64, scale=0.125), drawn_on=(2000, 2000))
    drafted = read_image("a.jpg", eighth, lambda _: small.getvalue())
    assert "4000 x 2000 pixels have other proportions" in str(drafted.error)


@pytest.mark.parametrize("side", [1, 8, 16, 40])
def test_a_region_lies_in_an_image_however_small_that_is(side: int) -> None:
    way = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64))
    way = dataclasses.replace(way, roi=(968, 968, 32, 32), drawn_on=(1000, 1000))
    pixels = np.full((side, side, 3), 200, np.uint8)
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, pixels, rowsperstrip=max(1, side // 4), photometric="rgb")
    for data in (png(pixels), tiff.getvalue()):
        read = read_image("a", way, lambda _, data=data: data)  # type: ignore[misc]
        assert read.pixels is not None
        assert (read.pixels.shape, read.pixels.min()) == ((1, 1, 3), 200)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


CORNER = ("111111110000",) * 8 + ("0" * 12,) * 4  # of 96 x 96 pixels, a position for 8 of them
LEFT_TOP = Zones(ignored=CORNER, stride=8)
USUAL = dataclasses.replace(TILES, image=(96, 96))
SPECKS = dataclasses.replace(LEFT_TOP, min_area=3)


class Levels(Heads):
    """A head whose score is the highest level of its only channel."""

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        patch_scores = levels[0][:, 0]
        return self.zones.highest(patch_scores), self.zones.filled(patch_scores)

    def in_float32(self) -> "Levels":
        return self


def test_what_counts_of_inputs_is_what_counts_of_their_pixels() -> None:
    found = zones_of_inputs(LEFT_TOP, USUAL, (96, 96))
    assert found.counts.tolist() == [False, True, True, True, True]
    first, right, below, last, thumbnail = found.of_inputs
    assert first == EVERYWHERE  # which does not count: it is asked for nothing
    assert right == Zones(ignored=("11110000",) * 8)
    assert below == Zones(ignored=("11111111",) * 4 + ("00000000",) * 4)
    assert last == Zones(ignored=("11110000",) * 4 + ("00000000",) * 4)
    assert thumbnail == Zones(ignored=("11111100",) * 6 + ("00000000",) * 2)  # 64 of 96, by 12
    assert found.taking_part(torch.tensor([0, 0, 0, 0, 1])).tolist() == [False] + [True] * 4
    assert found.taking_part(torch.arange(5)).all()  # positions that have heads of their own


def test_zones_hold_in_shares_of_an_image_of_another_size() -> None:
    usual = zones_of_inputs(SPECKS, USUAL, (96, 96)).positions
    twice = zones_of_inputs(SPECKS, USUAL, (192, 192))
    assert usual is not None
    assert twice.positions is not None
    expected = usual.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(twice.positions, expected)
    assert {zones.min_area for zones in twice.of_inputs[:-1]} == {1, 12}  # 1: does not count
    assert twice.of_inputs[-1].min_area == 2  # 3 of 144 positions are 1.3 of 64
    large = zones_of_inputs(Zones(min_area=20, stride=8), USUAL, (192, 192))
    assert [zones.min_area for zones in large.of_inputs] == [20] * 25 + [9]  # 80 is all of a tile
    large = zones_of_inputs(SPECKS, USUAL, (384, 384))
    assert {zones.min_area for zones in large.of_inputs[:-1]} == {1, 16}  # of an overlap of 4 x 4
    tiny = zones_of_inputs(Zones(ignored=("01" + "1" * 10,) * 12, stride=8), USUAL, (9, 9))
    assert tiny.counts.all()  # no position is left of it


def test_a_border_that_is_repeated_has_no_area() -> None:
    small = dataclasses.replace(TILES, thumbnail=False, image=(40, 100))
    below = ("0" * 8,) * 5 + ("1" * 8,) * 3
    beside = ("0" * 5 + "111",) * 5 + ("1" * 8,) * 3  # 100 pixels end in the middle of a position
    own = zones_of_inputs(Zones(min_area=3, stride=8), small, (40, 100)).of_inputs
    assert [zones.ignored for zones in own] == [below, below, beside]


def test_an_image_s_score_and_map_are_of_what_counts() -> None:
    heads = TiledHeads([Levels(), Levels()], USUAL).with_zones(LEFT_TOP)
    levels = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    levels[0], levels[1, :, :, :4], levels[4, :, :5, :5] = 7, 8, 9  # nothing of it counts
    levels[2, 0, 7, 0] = 3
    scores, maps = heads([of_levels((96, 96), [levels])])
    assert scores.tolist() == [3]
    assert maps.max() == maps[0, 11, 0] == 3
    assert (maps[0, :7, :7] < 1).all()
    least, _ = heads.with_zones(SPECKS)([of_levels((96, 96), [levels])])
    assert least.item() < 1  # one position is less than three
    levels[2, 0, 7, :3] = 2
    assert heads([of_levels((96, 96), [levels])])[0].tolist() == [2]


def test_the_thumbnail_shows_nothing_where_nothing_counts() -> None:
    """One of its positions is two of the image, and the map lies between them."""
    tiles = dataclasses.replace(TILES, image=(128, 128))
    patches, counts = torch.zeros(tiles.num_inputs((128, 128)), 8, 8), torch.ones(16, 16).bool()
    patches[-1, 4:], counts[:8] = 1, False
    joined = join(tiles, patches, (128, 128), (16, 16), counts)
    assert joined[:8].max() == joined[8:].min() < joined[9:].min()


def test_a_position_that_does_not_count_has_no_say_in_the_scale_of_others() -> None:
    tiles = dataclasses.replace(USUAL, share="position")
    heads = TiledHeads([Levels() for _ in tiles.group_names], tiles).with_zones(LEFT_TOP)
    levels = torch.arange(5.0).add(1000).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    image = of_levels((96, 96), [levels])
    assert heads.group_scores(image).tolist() == [0, 1001, 1002, 1003, 1004]


def filled_bank(tiles: Tiles, zones: Zones, num_images: int = 12) -> TiledBank:
    generator = torch.Generator().manual_seed(0)
    bank = TiledBank(FeatureBank(1, [(6, 8, 8), (10, 4, 4)]), tiles)
    bank.zones = zones
    for number in range(num_images):
        shapes = [(5, 6, 8, 8), (5, 10, 4, 4)]
        levels = [torch.randn(shape, generator=generator).half() for shape in shapes]
        levels[0][0] *= 100 * number  # of a tile that is ignored
        bank.write(number, [of_levels((96, 96), levels)])
    return bank


def test_of_tiles_what_counts_of_each_is_what_is_trained_on() -> None:
    bank = filled_bank(USUAL, LEFT_TOP, 2)
    tiles, thumbnail = (inputs for inputs, _ in bank.groups_of(torch.arange(2)))
    assert bank.inputs.num_patches(tiles) == 2 * (32 + 32 + 48)
    assert len(bank.inputs.whole(thumbnail)) == 2 * (64 - 36)


@pytest.mark.parametrize(("share", "zones"), [("all", LEFT_TOP), ("position", SPECKS)])
def test_what_is_ignored_changes_no_bit_of_tiled_heads(share: Share, zones: Zones) -> None:
    """Of SimpleNet, a memory bank and the pooled distance, which are scaled by what counts."""
    tiles = dataclasses.replace(USUAL, share=share)
    bank, images = filled_bank(tiles, zones), torch.arange(12)
    recipe = EnsembleRecipe(
        simplenet=Recipe(patch=SHORT, image=SHORT),
        memory_bank=MemoryBankRecipe(size=9, folds=3, neighbours=2),
    )
    training_set = TrainingSet(bank=bank, images=images, folds=images % 3)
    trainer = make_trainer("ensemble", training_set, recipe)
    list(trainer.run())
    heads = trainer.folded()
    assert all(group.zones == EVERYWHERE for group in heads.groups)
    (image,) = bank.images(torch.tensor([3]))
    levels = [torch.cat(each) for each in zip(*image.chunks(), strict=True)]
    scores, maps = heads([of_levels((96, 96), levels)])
    counts = zones_of_inputs(zones, tiles, (96, 96))
    for number, own in enumerate(counts.of_inputs):
        ignored = own.ignored or ("1" * 8,) * 8
        mask = torch.tensor([[place == "1" for place in row] for row in ignored])
        if own.ignored or not counts.counts[number]:
            levels[0][number, :, mask] += 50
    again, maps_again = heads([of_levels((96, 96), levels)])
    assert torch.equal(scores, again)
    assert torch.equal(maps, maps_again)
    everywhere, _ = heads.with_zones(EVERYWHERE)([of_levels((96, 96), levels)])
    assert everywhere.item() > 2 * abs(scores.item())
    in_float32 = heads.with_zones(zones).in_float32()
    assert torch.allclose(in_float32([of_levels((96, 96), levels)])[0], scores, rtol=1e-4)
    unseen = [member.zones == zones for member, _ in trainer.unseen(heads)]
    assert unseen == [True] * 12


def test_good_images_are_flagged_as_often_as_was_promised() -> None:
    """With part of them ignored and a least area: 0.1, and four standard deviations of chance."""
    heads = TiledHeads([Levels(), Levels()], USUAL).with_zones(SPECKS)
    levels = torch.rand(249, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = torch.cat([heads([of_levels((96, 96), [each])])[0] for each in levels]).numpy()
    calibration = fit(scores[:99], CalibrationConfig(false_alarm_rate=0.1))
    share = calibration.flagged(scores[99:]).mean()
    assert share == pytest.approx(0.1, abs=4 * (0.1 * 0.9 * (1 / 150 + 1 / 101)) ** 0.5)


ZONES = {
    "size": [192, 192],  # images have half of it
    "roi": [0, 0, 192, 180],
    "ignore": [[[0, 0], [128, 0], [128, 128], [0, 128]]],
    "min_area": 600,
}


@pytest.mark.parametrize(
    ("kind", "calibration", "share"),
    [("memory_bank", "cross", "all"), ("simplenet", "split", "position")],
)
def test_from_the_catalogue_to_the_rows_of_a_night(
    kind: str, calibration: str, share: str, tmp_path: Path
) -> None:
    images = make_category(tmp_path / "images", num_good=12, num_test=1)
    of_kind = SMALL[kind] if kind == "memory_bank" else {"training": SETTINGS["training"]}
    tiles = {"size": 64, "share": share}
    changes = {"zones": ZONES, "calibration": calibration, "false_alarm_rate": 0.3, **of_kind}
    prepared = prepare(category(images, detector=kind, tiles=tiles, **changes))
    list(prepared.trainer.run())
    package = write_package(prepared, tmp_path / "package")
    zones = package.header.zones
    assert (len(zones.ignored), len(zones.ignored[0]), zones.stride) == (12, 12, 8)
    assert zones.ignored == CORNER
    assert zones.min_area == 3  # 600 of 192 x 192 pixels are 150 of 96 x 96: 2.3 positions
    again = Package.read(tmp_path / "package")
    assert again.header == package.header
    assert (again.reference.zones, again.heads.zones) == (zones,) * 2
    assert again.reference.regions is not None
    assert again.reference.regions.least == 160  # of 96 x 96, of which 90 rows are looked at
    pixels = texture(77)
    dump = tmp_path / "dump/steel"
    dump.mkdir(parents=True)
    for name, part in (("ignored", np.s_[8:40, 8:40]), ("seen", np.s_[30:60, 66:90])):
        changed = pixels.copy()
        changed[part] = 255
        Image.fromarray(changed).save(dump / f"{name}.png")
    Image.fromarray(pixels).resize((192, 192)).save(dump / "twice.png")
    Image.fromarray(pixels[:60]).save(dump / "wide.png")
    folder = NightFolder(str(tmp_path / "out"), "2026-03-12")
    score_without_cluster(tmp_path / "dump", folder, {"steel": tmp_path / "package"})
    ignored, seen, twice, wide = read_night(folder).to_pylist()
    assert kind == "simplenet" or seen["score"] > ignored["score"]  # it has had a few steps
    assert twice["status"] == "ok"
    assert (wide["status"], wide["score"]) == ("unreadable", None)
    assert "96 x 60 pixels have other proportions than the 192 x 192" in wide["error"]
    for row in (ignored, seen, twice):
        inside = 60 * row["image_width"] // 96  # of what is ignored, but for what is smoothed
        assert not any(
            each["x"] + each["width"] < inside and each["y"] + each["height"] < inside
            for each in row["regions"]
        )
    explained = explain(seen["image_uri"], folder)
    assert explained.difference == 0
    uris = [prepared.good.uris[2], seen["image_uri"]]
    own = make_detector(prepared, prepared.trainer)
    (of_bank, _) = own.heads(prepared.good.bank.images(torch.tensor([2])))
    scores = Predictor(again, prepared.backbone).predict(uris).score.to_numpy()
    assert scores[1] == seen["score"]
    assert scores[0] == pytest.approx(of_bank.item(), rel=1e-4)


def test_zones_of_tiles_that_leave_nothing_are_refused_in_one_line(tmp_path: Path) -> None:
    tiles = dataclasses.replace(TILES, image=(90, 96))
    line = line_of_zones(category(tmp_path, tiles=tiles, zones=ZONES))
    assert line is not None
    said = "80 of 144 positions of the map count; an anomaly has 3 of them at least; 192 x 180"
    assert line.check.finding.startswith(said)
    own = category(tmp_path, tiles=tiles, zones=ZONES | {"min_area": 17_000})
    with pytest.raises(ZonesError, match="positions of the anomaly map, and no more than 48 that"):
        zones_of(own)
    bars = [[[0, y], [192, y], [192, y + 64], [0, y + 64]] for y in (0, 128)]
    band = {"size": [192, 192], "ignore": bars, "min_area": 10_000}  # of 48 positions
    with pytest.raises(ZonesError, match=r"40 positions .* 32 that count touch .* in a tile"):
        zones_of(category(tmp_path, tiles=USUAL, zones=band))
    whole = [[[0, 0], [192, 0], [192, 192], [0, 192]]]
    with pytest.raises(ZonesError, match="covers all that is looked at"):
        zones_of(category(tmp_path, tiles=tiles, zones=ZONES | {"ignore": whole}))
