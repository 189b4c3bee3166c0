"""Tiles: how images are cut, how what is said of tiles is joined, and heads for both."""

import dataclasses
import io
from pathlib import Path

import factory
import numpy as np
import pytest
import torch
from every_kind import SMALL
from PIL import Image
from torch import Tensor

from model.ensemble import EnsembleRecipe
from model.feature_bank import FeatureBank
from model.kind import Heads, TrainingSet
from model.kinds import make_trainer
from model.memory_bank import MemoryBankRecipe
from model.mixed_batch import score_images
from model.preprocessing import Preprocessing
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.tile_pixels import cut, join, thumbnail_of
from model.tiled_bank import TiledBank, of_levels
from model.tiled_heads import TiledHeads
from model.tiled_training import _scale_of, _scales_of_others
from model.tiles import MOST_TILES, Share, Tiles
from model.training import TrainingConfig
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.embedder import Embedder, embedder_of
from pipeline.images.decode import ImageRead, ImageStatus, read_image
from pipeline.onboarding.find_tiles import OtherPositions, refuse_other_positions
from pipeline.onboarding.finish import write_package
from pipeline.onboarding.key import onboarding_key
from pipeline.onboarding.prepare import prepare
from pipeline.onboarding.squeeze import say_squeeze
from pipeline.package import Package
from pipeline.predictor import Predictor

TILES = Tiles(size=64, overlap=0.25)
SHORT = TrainingConfig(
    head=HeadConfig(hidden=8, members=3), passes=2, steps_per_pass=3, batch_rows=32, coreset=0
)
SIZES = [(64, 64), (65, 64), (500, 300), (100, 100), (20, 20), (30, 1200), (3, 120), (1000, 40)]


def image_of(height: int, width: int, seed: int = 0) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


class Brightness(Heads):
    """A head whose scores can be told by eye: how bright an input is, by patch and on average."""

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        (level,) = levels
        return level.mean(dim=(1, 2, 3)), level[:, 0]

    def in_float32(self) -> "Brightness":
        return self


def test_tiles_start_where_they_must() -> None:
    tiles = Tiles(size=256, overlap=0.25)
    tops, lefts = [0, 192, 256], [0, 64]  # 500 and 300 pixels end within 512 and 320
    assert tiles.corners((500, 300)) == [(top, left) for top in tops for left in lefts]
    assert tiles.num_tiles((500, 300)) == 6
    assert tiles.num_inputs((500, 300)) == 7
    assert dataclasses.replace(tiles, overlap=0).corners((512, 256)) == [(0, 0), (256, 0)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.75])
def test_every_pixel_is_in_a_tile_as_it_is(size: tuple[int, int], overlap: float) -> None:
    tiles = dataclasses.replace(TILES, overlap=overlap)
    image = image_of(*size)
    seen = torch.zeros(size, dtype=torch.bool)
    inputs = torch.cat(list(cut(tiles, image, most=3)))
    assert inputs.shape == (tiles.num_inputs(size), 64, 64, 3)
    for tile, (top, left) in zip(inputs, tiles.corners(size), strict=False):
        own = image[top : top + 64, left : left + 64]
        assert torch.equal(tile[: own.shape[0], : own.shape[1]], own)
        assert torch.equal(tile[-1, -1], own[-1, -1])  # the border goes on
        seen[top : top + 64, left : left + 64] = True
    assert seen.all()


@pytest.mark.parametrize("size", SIZES)
def test_the_thumbnail_is_the_whole_image(size: tuple[int, int]) -> None:
    image = image_of(*size)
    expected = Image.fromarray(image.numpy()).resize((64, 64), Image.Resampling.BILINEAR)
    thumbnail = thumbnail_of(TILES, image)[0].numpy().astype(int)
    assert np.abs(thumbnail - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_a_joined_map_has_no_seams(size: tuple[int, int]) -> None:
    tiles = dataclasses.replace(TILES, thumbnail=False)
    corners = tiles.corners(size)
    ramp = torch.arange(8.0)
    patches = torch.stack([(top + left) / 8 + ramp[:, None] + ramp for top, left in corners])
    grid = (-(-size[0] // 8), -(-size[1] // 8))
    rows, columns = torch.arange(float(grid[0])), torch.arange(float(grid[1]))
    torch.testing.assert_close(join(tiles, patches, size, grid), rows[:, None] + columns)


def test_what_one_patch_says_does_not_vanish_in_a_coarser_map() -> None:
    tiles = dataclasses.replace(TILES, thumbnail=False, overlap=0)
    patches = torch.zeros(64, 8, 8)
    patches[9, 3, 3] = 5
    joined = join(tiles, patches, (512, 512), (16, 16))
    assert joined.max() == 5
    assert (joined > 0).sum() == 1
    assert joined[2, 2] == 5  # row 11 and column 11 of 64


def test_of_tiles_and_thumbnail_the_higher_one_counts_in_a_map() -> None:
    patches = torch.zeros(2, 8, 8)
    patches[0, 0, 0], patches[1, 7, 7] = 1, 2
    joined = join(TILES, patches, (64, 64), (8, 8))
    assert joined[0, 0] == 1
    assert joined[7, 7] == 2


def test_a_map_is_bounded_and_has_the_proportions_of_the_images() -> None:
    assert Tiles(image=(1500, 2000)).view == (768, 1024)
    assert Tiles(image=(1500, 2000), scale=0.25).view == (384, 512)
    assert Tiles(image=(10, 410)).view == (32, 416)
    assert Tiles(image=(100, 40_000)).view == (32, 1024)


def test_an_image_scores_as_the_group_that_says_more() -> None:
    heads = TiledHeads([Brightness(), Brightness()], TILES)
    heads.with_scale(torch.tensor([1.0, 10.0]), torch.tensor([2.0, 5.0]))
    levels = torch.zeros(3, 1, 8, 8)  # two tiles and a thumbnail
    levels[0], levels[1], levels[2] = 3, 5, 12
    scores, maps = heads([of_levels((64, 96), [levels])])
    assert scores.tolist() == [2.0]  # (5 - 1) / 2 of the tiles, (12 - 10) / 5 of the thumbnail
    assert maps.shape == (1, 8, 8)
    levels[2] = 30
    scores, maps = heads([of_levels((64, 96), [levels])])
    assert scores.tolist() == [4.0]
    assert (maps == 4).all()


def test_each_position_is_judged_by_its_own_head() -> None:
    tiles = dataclasses.replace(TILES, share="position", image=(64, 96))
    assert tiles.group_names == ["tile_1", "tile_2", "thumbnail"]
    heads = TiledHeads([Brightness(), Brightness(), Brightness()], tiles)
    heads.with_scale(torch.tensor([0.0, 10.0, 20.0]), torch.tensor([1.0, 2.0, 5.0]))
    levels = torch.tensor([3.0, 18.0, 30.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    image = of_levels((64, 96), [levels])
    assert heads.group_scores(image).tolist() == [3, 4, 2]
    assert heads([image])[0].tolist() == [4]


def test_tiles_of_another_size_have_the_heads_of_the_nearest_position() -> None:
    tiles = dataclasses.replace(TILES, share="position", image=(64, 192), overlap=0)
    assert tiles.groups((64, 192)) == [0, 1, 2, 3]
    assert tiles.groups((64, 384)) == [0, 0, 1, 1, 2, 2, 3]
    assert tiles.groups((30, 128)) == [0, 2, 3]  # 1/4 and 3/4 of the width: 1/6, 5/6
    with pytest.raises(ValueError, match="the size of the images is not known"):
        Tiles(share="position").groups((64, 192))


def test_images_that_are_cut_otherwise_are_refused_where_positions_have_heads() -> None:
    tiles = Tiles(size=64, image=(96, 96), share="position")
    refuse_other_positions("steel", tiles, [(96, 96), (96, 90)])  # four tiles each
    with pytest.raises(OtherPositions, match="1 of 2 good images have other tiles than one of 96"):
        refuse_other_positions("steel", tiles, [(96, 96), (64, 96)])
    refuse_other_positions("steel", dataclasses.replace(tiles, share="all"), [(64, 96)])


def test_without_a_thumbnail_tiles_speak_alone() -> None:
    tiles = dataclasses.replace(TILES, thumbnail=False)
    levels = torch.tensor([3.0, 5.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    scores, _ = TiledHeads([Brightness()], tiles)([of_levels((64, 96), [levels])])
    assert scores.tolist() == [5.0]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"size": 250}, "multiple of 32"),
        ({"size": 32}, "multiple of 32 in"),
        ({"overlap": 0.9}, "tiles.overlap must lie in"),
        ({"scale": 0.0}, "tiles.scale must lie in"),
        ({"scale": 2.0}, "tiles.scale must lie in"),
        ({"sise": 256}, "expected {size: 256"),
        ({"size": "256"}, "expected {size: 256"),
        (256, "expected {size: 256"),
        ({"share": "cluster"}, "tiles.share must be all or position"),
    ],
)
def test_a_catalogue_says_what_is_wrong_with_tiles(setting: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        category(Path("somewhere"), tiles=setting)


def test_what_says_how_a_whole_image_is_squeezed_is_refused_beside_tiles() -> None:
    with pytest.raises(ValueError, match="which crop, fit would change; leave them out"):
        Category(name="steel", images="somewhere", tiles={}, crop=64, fit="pad")
    with pytest.raises(ValueError, match="realnet learns from anomalies"):
        Category(name="steel", images="somewhere", tiles={}, detector="realnet")


def category(images: Path, **changes: object) -> Category:
    settings = factory.SETTINGS | {"resize": None, "crop": None}
    settings |= {"tiles": {"size": 64}, "false_alarm_rate": 0.3} | changes
    return Category.model_validate({"name": "steel", "images": str(images), **settings})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images of 96 x 96 and 96 x 90 pixels: four tiles each."""
    folder = factory.make_category(tmp_path_factory.mktemp("images"), num_good=12, num_test=2)
    for path in sorted((folder / "train/good").iterdir())[::2]:
        Image.open(path).crop((0, 0, 90, 96)).save(path)
    return folder


def test_who_looks_at_whole_images_alone_embeds_no_tile(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = category(images), []
    embedder: Embedder = embedder_of(made, factory.backbone())
    own = embedder._of_inputs
    monkeypatch.setattr(
        embedder, "_of_inputs", lambda pixels: seen.append(len(pixels)) or own(pixels)
    )
    uris = [str(path) for path in sorted((images / "train/good").iterdir())[:2]]
    batches = list(embedder.read(uris, made.preprocessing))
    assert seen == [1, 1]
    for batch in batches:
        (image,) = batch.levels
        chunks = list(image.chunks())
        assert [len(levels[0]) for levels in chunks] == [4, 1]
        for plane, level in zip(batch.planes.values(), chunks[-1], strict=True):
            assert torch.equal(plane, level)
    assert seen == [1, 1, 4, 4]


def test_pixels_of_several_sizes_score_the_bits_of_their_features(images: Path) -> None:
    backbone, made = factory.backbone(), category(images)
    embedder: Embedder = embedder_of(made, backbone)
    uris = [str(path) for path in sorted((images / "train/good").iterdir())[:4]]
    batches = list(embedder.read(uris, made.preprocessing))
    prepared = prepare(made)
    for _ in prepared.trainer.run():
        pass
    heads = prepared.trainer.folded()
    pixels = [torch.from_numpy(read_image(uri, made.preprocessing).pixels) for uri in uris]
    assert {each.shape[:2] for each in pixels} == {(96, 96), (96, 90)}
    one = score_images(backbone, made.embedding, [heads] * 4, pixels)
    for place, batch in enumerate(batches):
        alone = score_images(backbone, made.embedding, [heads], pixels[place : place + 1])
        for whole, single in zip(one, alone, strict=True):
            assert torch.equal(whole[place : place + 1], single)
        assert torch.allclose(heads(batch.levels)[0], alone[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "calibration", "share"),
    [
        ("simplenet", "split", "all"),
        ("memory_bank", "cross", "all"),
        ("memory_bank", "cross", "position"),
    ],
)
def test_a_package_of_every_kind_scores_as_it_was_calibrated(
    images: Path, tmp_path: Path, kind: str, calibration: str, share: Share
) -> None:
    training = factory.SETTINGS["training"] if kind == "simplenet" else {}
    made = category(
        images,
        detector=kind,
        calibration=calibration,
        tiles={"size": 64, "share": share},
        **{"training": training, **SMALL[kind]},
    )
    prepared = prepare(made)
    for _ in prepared.trainer.run():
        pass
    package = write_package(prepared, tmp_path)
    assert package.header.preprocessing.tiles == Tiles(size=64, image=(96, 93), share=share)
    again = Package.read(tmp_path)
    assert again.header == package.header
    predictor = Predictor(again, prepared.backbone)
    uris = [str(path) for path in sorted((images / "test").glob("*/*.png"))]
    rows = predictor.predict(uris)
    assert list(rows.status) == ["ok"] * 4
    own, maps = predictor.detector([torch.from_numpy(np.array(Image.open(uri))) for uri in uris])
    assert rows.score.to_numpy() == pytest.approx(own.numpy(), rel=1e-6)
    assert predictor.detector.maps(maps).shape == (4, 96, 96)
    assert sorted((tmp_path / "examples").iterdir())


def tiled_bank(num_images: int = 13) -> TiledBank:
    """Images of two sizes, with four and two tiles."""
    generator = torch.Generator().manual_seed(0)
    bank = TiledBank(FeatureBank(1, [(6, 8, 8), (10, 4, 4)]), TILES)
    for number in range(num_images):
        size = (96, 96) if number % 2 else (64, 96)
        shapes = [(TILES.num_inputs(size), 6, 8, 8), (TILES.num_inputs(size), 10, 4, 4)]
        levels = [torch.randn(shape, generator=generator).half() for shape in shapes]
        bank.write(number, [of_levels(size, levels)])
    return bank


def test_members_are_asked_about_every_image_none_of_whose_tiles_they_have_seen() -> None:
    bank = tiled_bank()
    images = torch.arange(13)[torch.arange(13) != 4]
    folds = images % 3
    recipe = EnsembleRecipe(
        simplenet=Recipe(patch=SHORT, image=SHORT), memory_bank=MemoryBankRecipe(size=9, folds=3)
    )
    trainer = make_trainer("ensemble", TrainingSet(bank=bank, images=images, folds=folds), recipe)
    assert len(list(trainer.run())) == trainer.num_passes == len(trainer.reports) == 10
    heads = trainer.folded()
    assert isinstance(heads, TiledHeads)
    found = list(trainer.unseen(heads))
    assert sorted(int(index) for _, index in found) == images.tolist()
    groups = torch.stack(
        [one.group_scores(bank.images(index)[0]) * one.spread + one.offset for one, index in found]
    )
    torch.testing.assert_close(heads.offset, groups.mean(dim=0))
    torch.testing.assert_close(heads.spread, groups.std(dim=0, correction=0))
    for number, (one, _) in enumerate(found):  # its scale is that of the other unseen images
        others = torch.cat([groups[:number], groups[number + 1 :]])
        torch.testing.assert_close(one.offset, others.mean(dim=0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            one.spread, others.std(dim=0, correction=0), rtol=1e-4, atol=1e-4
        )
    again = make_trainer("ensemble", TrainingSet(bank=bank, images=images, folds=folds), recipe)
    again.load_state_dict(trainer.state_dict())
    scores, maps = heads(bank.images(images))
    assert maps.shape == (12, 8, 8)
    assert torch.equal(again.folded()(bank.images(images))[0], scores)


@pytest.mark.parametrize("num_constant", [1, 20])
def test_a_position_whose_good_tiles_are_alike_counts_at_most_twice_as_finely(
    num_constant: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    varying = torch.randn(30, 3, generator=generator) * torch.tensor([1.0, 0.7, 2.0])
    scores = torch.cat([varying, torch.full((30, num_constant), 4.0)], dim=1)
    own = varying.std(dim=0, correction=0)
    offset, spread = _scale_of(scores)
    assert torch.equal(spread[:3], own)
    torch.testing.assert_close(spread[3:], (own.median() / 2).expand(num_constant))
    torch.testing.assert_close(offset, scores.mean(dim=0))
    offsets, spreads = _scales_of_others(scores)
    for number in range(30):
        others = _scale_of(torch.cat([scores[:number], scores[number + 1 :]]))
        torch.testing.assert_close((offsets[number], spreads[number]), others)


def test_tiles_of_one_image_share_its_fold_and_a_bank_grows_with_them() -> None:
    bank = tiled_bank(3)
    (inputs, whose), (thumbnails, _) = bank.groups_of(torch.tensor([2, 1]))
    assert inputs.tolist() == [8, 9, 3, 4, 5, 6]
    assert whose.tolist() == [0, 0, 1, 1, 1, 1]
    assert thumbnails.tolist() == [10, 7]
    assert bank.inputs.num_images >= 11
    (again,) = tiled_bank(3).images(torch.tensor([1]))
    (image,) = bank.images(torch.tensor([1]))
    assert torch.equal(next(again.chunks())[0], next(image.chunks())[0])


def test_a_larger_image_than_at_onboarding_is_cut_by_the_same_rule(images: Path) -> None:
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, image=(96, 93)))
    large = io.BytesIO()
    Image.fromarray(image_of(300, 200).numpy()).save(large, "png")
    read = read_image("large.png", ways, lambda _: large.getvalue())
    assert read.pixels is not None
    assert read.view is not None
    assert read.pixels.shape == (300, 200, 3)
    assert read.view.shape == (96, 96, 3)
    assert read.size == (300, 200)


def test_an_image_of_too_many_tiles_is_refused_with_their_number() -> None:
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, overlap=0.5))
    huge = io.BytesIO()
    Image.new("L", (2000, 2000)).save(huge, "png")
    read = read_image("huge.png", ways, lambda _: huge.getvalue())
    assert read.status is ImageStatus.TOO_LARGE
    assert "2000 x 2000 pixels are 3,844 tiles of 64, at most 1,024 are scored" in str(read.error)
    assert MOST_TILES == 1024


@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_a_jpeg_is_decoded_at_the_least_scale_that_is_asked_for(scale: float) -> None:
    smooth = np.asarray(Image.fromarray(image_of(20, 30).numpy()).resize((600, 400)))
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "jpeg", quality=95)
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64, scale=scale))
    read = read_image("large.jpg", ways, lambda _: file.getvalue())
    height, width = round(400 * scale), round(600 * scale)
    whole = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    assert read.pixels is not None
    assert read.size == (400, 600)
    assert read.pixels.shape == (height, width, 3)
    assert np.abs(read.pixels.astype(int) - np.asarray(whole)).mean() < 3


def test_a_key_changes_with_the_tiles_and_not_with_what_was_found(images: Path) -> None:
    one = category(images)
    found = one.model_copy(update={"tiles": dataclasses.replace(one.tiles, image=(96, 96))})
    assert onboarding_key(one) == onboarding_key(found)
    assert onboarding_key(one) != onboarding_key(category(images, tiles={"size": 96}))


def test_a_detector_with_tiles_is_not_for_releases_that_know_none() -> None:
    ways = Preprocessing(crop=64, tiles=TILES)
    assert not ways.is_for_all_releases
    assert Preprocessing.from_json(ways.to_json()) == ways
    assert "tiles" not in Preprocessing().to_json()


@pytest.mark.parametrize(
    ("size", "ways", "said"),
    [
        (
            (1500, 2000),
            Preprocessing(fit="stretch"),
            "8.9 pixels become one, and a defect",
        ),
        ((1500, 2000), Preprocessing(), "5.9 pixels become one"),  # the shorter side to 256
        ((800, 800), Preprocessing(fit="stretch"), ""),
        ((1500, 2000), Preprocessing(crop=64, fit="stretch", tiles=TILES), ""),
    ],
)
def test_it_is_said_what_a_squeeze_leaves_of_a_defect(
    size: tuple[int, int], ways: Preprocessing, said: str
) -> None:
    lines = say_squeeze([ImageRead("a.png", ImageStatus.OK, size=size)] * 3, ways)
    assert len(lines) == bool(said)
    assert said in "".join(lines)
