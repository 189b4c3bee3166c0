"""Banks of synthetic images: what they are made from, what they hold, and how they go on."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factory import category, make_category
from PIL import Image

from model.diffusion.denoiser_trainer import DenoiserConfig, DenoiserTrainer, Workers
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.calibration import Part, TooFewImages, split_by_content
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.bank_files import UnfinishedBank, refuse_unfinished
from pipeline.images.decode import read_image
from pipeline.images.file_names import other_kind
from pipeline.synthesis import synthesis
from pipeline.synthesis.bank_folder import BankFolder
from pipeline.synthesis.bank_order import BankOrder, SynthesisError, read_strength
from pipeline.synthesis.training_images import TrainingImages, read_training_images, scaled

TRAINING = DenoiserConfig(size=32, steps=10)


@pytest.fixture(scope="module")
def steel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_category(tmp_path_factory.mktemp("images") / "steel", num_good=24)


def order_of(images: Path, out: Path | str, **changes: Any) -> BankOrder:
    settings: dict[str, Any] = {"strength": (0.1, 0.5), "count": 10, "training": TRAINING}
    return BankOrder(category=category(images), out=str(out), **(settings | changes))


@pytest.fixture(scope="module")
def images(steel: Path) -> TrainingImages:
    return read_training_images(category(steel), 32)


@pytest.fixture(scope="module")
def trained(steel: Path, images: TrainingImages) -> DenoiserTrainer:
    trainer = synthesis.make_trainer(order_of(steel, "bank"), images, "cpu")
    list(trainer.run())
    return trainer


def make(order: BankOrder, trainer: DenoiserTrainer, images: TrainingImages) -> dict[str, Any]:
    BankFolder.of(order).begin()
    synthesis.fill(order, trainer)
    return synthesis.finish(order, synthesis.facts_of(trainer, images))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bank_holds_png_files_and_says_what_they_are(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    make(order_of(steel, tmp_path / "bank"), trained, images)
    found = contents(tmp_path / "bank")
    provenance = json.loads(found.pop("provenance.json"))
    assert sorted(found) == [f"{number:06d}.png" for number in range(10)]
    for data in found.values():
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (32, 32))
    assert provenance["synthetic"] is True
    expected = {"category": "steel", "count": 10, "size": 32, "seed": 0, "training_steps": 10}
    assert {name: provenance[name] for name in expected} == expected
    assert provenance["strength"] == [0.1, 0.5]
    assert provenance["settings"]["images"] == str(steel)
    assert provenance["dataset_digest"] == images.dataset_digest
    assert [each["name"] for each in provenance["images"]] == sorted(found)
    strengths = [each["strength"] for each in provenance["images"]]
    assert all(0.1 <= strength <= 0.5 for strength in strengths)
    assert len(set(strengths)) == 10


def test_strengths_spread_evenly_over_their_range(steel: Path) -> None:
    strengths = np.array(synthesis.strength_of(order_of(steel, "bank", count=2000)))
    shares, _ = np.histogram(strengths, bins=4, range=(0.1, 0.5))
    assert shares.sum() == 2000
    assert (abs(shares - 500) < 5 * np.sqrt(500)).all()


def test_a_bank_of_one_strength_has_that_strength(steel: Path) -> None:
    assert synthesis.strength_of(order_of(steel, "bank", strength=(0.0, 0.0))) == [0.0] * 10


def test_a_bank_that_was_cut_off_is_completed_to_the_same_bytes(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    make(order_of(steel, tmp_path / "whole"), trained, images)
    cut = order_of(steel, tmp_path / "cut")
    BankFolder.of(cut).begin()
    synthesis.fill(cut, trained)
    for number in (0, 3, 9):
        (tmp_path / "cut" / f"{number:06d}.png").unlink()
    make(cut, trained, images)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_smaller_bank_is_the_beginning_of_a_larger_one(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    make(order_of(steel, tmp_path / "large"), trained, images)
    make(order_of(steel, tmp_path / "small", count=8), trained, images)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    names = [name for name in small if name.endswith(".png")]
    assert len(names) == 8
    assert all(small[name] == large[name] for name in names)


def test_several_workers_write_the_bank_of_one(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    make(order_of(steel, tmp_path / "one", count=12), trained, images)
    shared = order_of(steel, tmp_path / "two", count=12)
    BankFolder.of(shared).begin()
    written: list[int] = []
    for rank in (1, 0):
        before = len(BankFolder.of(shared).missing())
        one = DenoiserTrainer(images.pixels, TRAINING, "cpu", Workers(rank=rank, size=2))
        one.load_state_dict(trained.state_dict())
        synthesis.fill(shared, one)
        written.append(before - len(BankFolder.of(shared).missing()))
    assert written == [4, 8]
    make(shared, trained, images)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_bank_that_lacks_images_is_not_finished(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    order = order_of(steel, tmp_path / "bank")
    BankFolder.of(order).begin()
    synthesis.fill(order, trained)
    (tmp_path / "bank/000004.png").unlink()
    with pytest.raises(SynthesisError, match=r"1 of 10 images .* were not written"):
        synthesis.finish(order, synthesis.facts_of(trained, images))
    assert BankFolder.of(order).provenance() is None
    with pytest.raises(UnfinishedBank, match=r"steel: the bank .* is not finished"):
        refuse_unfinished("steel", order.out)
    make(order, trained, images)
    refuse_unfinished("steel", order.out)


def test_a_folder_of_anybodys_images_is_no_unfinished_bank(steel: Path, tmp_path: Path) -> None:
    refuse_unfinished("steel", str(steel))
    refuse_unfinished("steel", str(tmp_path / "nowhere"))


def test_a_bank_on_s3_is_the_bank_on_a_disk(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path, s3: str
) -> None:
    make(order_of(steel, tmp_path / "bank"), trained, images)
    order = order_of(steel, f"{s3}/banks/steel")
    assert BankFolder.of(order).provenance() is None
    made = make(order, trained, images)
    assert BankFolder.of(order).provenance() == made
    found = {
        name: storage.read_bytes(f"{order.out}/{name}") for name in contents(tmp_path / "bank")
    }
    assert found == contents(tmp_path / "bank")
    assert storage.list_names(order.out) == sorted(found)


def test_what_lies_beside_the_images_is_not_taken_for_one() -> None:
    assert other_kind("provenance.json") == other_kind("unfinished.json") == ".json"


def test_the_same_order_knows_its_bank_and_another_one_is_refused(
    steel: Path, trained: DenoiserTrainer, images: TrainingImages, tmp_path: Path
) -> None:
    order = order_of(steel, tmp_path / "bank")
    made = make(order, trained, images)
    assert BankFolder.of(order_of(steel, tmp_path / "bank")).provenance() == made
    others = [
        replace(order, count=11),
        replace(order, strength=(0.1, 0.6)),
        replace(order, training=replace(TRAINING, seed=1)),
        replace(order, training=replace(TRAINING, steps=11)),
        replace(order, category=category(steel, fit="pad")),
    ]
    for other in others:
        with pytest.raises(SynthesisError, match='another bank: category "steel", count 10'):
            BankFolder.of(other).provenance()


def test_settings_of_the_detector_leave_the_bank_as_it_is(steel: Path) -> None:
    plain = order_of(steel, "bank")
    settings = category(steel).model_dump(exclude={"training"}) | {"detector": "memory_bank"}
    changed = replace(plain, category=Category.model_validate(settings))
    hidden = replace(plain, category=category(steel, training={"hidden": 16}))
    assert plain.key == hidden.key
    assert changed.category.preprocessing == plain.category.preprocessing
    assert plain.key == changed.key


def test_another_image_makes_another_training(steel: Path, tmp_path: Path) -> None:
    copied = make_category(tmp_path / "steel", num_good=5)
    before = order_of(copied, "bank").training_key
    assert order_of(copied, "bank").training_key == before
    make_category(tmp_path / "steel", num_good=6)
    assert order_of(copied, "bank").training_key != before


def test_strength_and_count_need_no_other_training(steel: Path) -> None:
    first = order_of(steel, "bank")
    other = order_of(steel, "other", count=3, strength=(0.0, 1.0))
    assert first.training_key == other.training_key
    assert first.key != other.key


def test_an_order_travels_to_a_worker_and_stays_the_same(steel: Path) -> None:
    order = order_of(steel, "bank")
    assert BankOrder.of_plain(order.to_plain()) == order


@pytest.mark.parametrize("name", ["notes.txt", "a.png", "folder/b.png"])
def test_a_folder_that_holds_something_else_is_left_alone(
    steel: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(SynthesisError, match=r"holds 1 other files or folders, such as \w+"):
        BankFolder.of(order_of(steel, tmp_path / "out")).begin()
    assert [each.name for each in (tmp_path / "out").rglob("*") if each.is_file()] == [path.name]


@pytest.mark.parametrize("content", ["{", "[]", "3", '"text"'])
@pytest.mark.parametrize("name", ["provenance.json", "unfinished.json"])
def test_a_file_of_that_name_that_is_not_ours_is_refused(
    steel: Path, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    folder = BankFolder.of(order_of(steel, tmp_path))
    look = folder.provenance if name == "provenance.json" else folder.begin
    with pytest.raises(SynthesisError, match=f"its {name} is not Nightshift's"):
        look()


def test_an_unfinished_bank_of_another_order_is_left_alone_once_it_has_images(
    steel: Path, tmp_path: Path
) -> None:
    first, second = (order_of(steel, tmp_path, count=count) for count in (3, 4))
    BankFolder.of(first).begin()
    BankFolder.of(second).begin()  # nothing was drawn for the first yet
    BankFolder.of(second).write_image(0, np.zeros((32, 32, 3), np.uint8))
    BankFolder.of(second).begin()
    with pytest.raises(SynthesisError, match="an unfinished bank of other settings"):
        BankFolder.of(first).begin()
    assert BankFolder.of(second).missing() == [1, 2, 3]


@pytest.mark.parametrize("inside", ["", "bank", "train/good"])
def test_a_bank_within_its_own_category_is_refused(steel: Path, inside: str) -> None:
    with pytest.raises(SynthesisError, match="lies within the images of steel"):
        order_of(steel, steel / inside)


def test_a_bank_beside_its_category_is_none_within_it(steel: Path) -> None:
    assert order_of(steel, f"{steel}-bank").out == f"{steel}-bank"


@pytest.mark.parametrize("count", [0, -1])
def test_a_bank_of_no_image_is_refused(steel: Path, count: int) -> None:
    with pytest.raises(SynthesisError, match=f"--count {count}: .* at least one"):
        order_of(steel, "bank", count=count)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1-0.5", (0.1, 0.5)),
        ("0-1", (0, 1)),
        (" .2 - .2 ", (0.2, 0.2)),
        ("0-0", (0, 0)),
        ("1-10", (1, 10)),
    ],
)
def test_a_strength_is_a_range(text: str, expected: tuple[float, float]) -> None:
    assert read_strength(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.1",
        "-0.1-0.5",
        "0.1--0.5",
        "0.5-0.1",
        "a-b",
        "0.1-nan",
        "0.1-inf",
        "0.1,0.5",
        "1e-3-1",
    ],
)
def test_what_is_no_range_of_strengths_is_refused(text: str) -> None:
    with pytest.raises(SynthesisError, match=r"expected LOW-HIGH"):
        read_strength(text)


def test_held_out_images_are_not_learned_from(steel: Path, images: TrainingImages) -> None:
    one = category(steel)
    small = scaled(one.preprocessing, 32)
    read = [read_image(str(path), small) for path in sorted((steel / "train/good").iterdir())]
    parts = split_by_content([each.sha256 for each in read], one.calibration_config)
    expected = [each.pixels for each, part in zip(read, parts, strict=True) if part == Part.TRAIN]
    assert 0 < len(expected) < 24
    assert np.array_equal(images.pixels.numpy(), np.stack(expected))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "expected"), [(32, (37, 32)), (64, (73, 64)), (256, (293, 256)), (224, (256, 224))]
)
def test_a_smaller_image_shows_the_same_part(size: int, expected: tuple[int, int]) -> None:
    smaller = scaled(Preprocessing(resize=256, crop=224), size)  # 256 / 224 = 1.1429
    assert (smaller.resize, smaller.crop) == expected


def test_too_few_good_images_are_named_with_how_many_it_takes(tmp_path: Path) -> None:
    few = make_category(tmp_path / "few", num_good=5)
    with pytest.raises(TooFewImages, match=r"5 distinct good images.* need at least 18"):
        read_training_images(category(few), 32)


def test_a_stronger_bank_lies_farther_from_the_training_images(
    steel: Path, trained: DenoiserTrainer
) -> None:
    artist = synthesis.Artist.of(trained)
    numbers = list(range(8))
    known = trained.images.float().flatten(1)

    def distance(strength: float) -> float:
        drawn = artist.draw(numbers, torch.full((8,), strength)).float().flatten(1)
        return float(torch.cdist(drawn, known).min(1).values.mean())

    distances = [distance(strength) for strength in (0.0, 0.5, 2.0)]
    assert distances == sorted(set(distances))


def test_a_rectangle_is_learned_as_a_square() -> None:
    wide = scaled(Preprocessing(crop=(96, 192), fit="pad"), 64)
    assert (wide.size, wide.fit) == ((64, 64), "stretch")
    assert scaled(Preprocessing(crop=192, fit="pad"), 64).fit == "pad"
