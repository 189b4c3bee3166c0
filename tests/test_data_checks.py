"""The checks of a category's images: what is planted is found, what is clean stays unreported."""

import io

import factory
import numpy as np
import pytest
from image_sets import changed, digest, image_set
from PIL import Image
from scipy import ndimage

from pipeline.checks import Verdict
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.fingerprint import as_words, differing_bits, fingerprint
from pipeline.inspection.category_summary import CategorySummary, summarise
from pipeline.inspection.data_checks import CHECKS, examine
from pipeline.inspection.found import Line
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.near_duplicates import near_pairs
from pipeline.inspection.robust_tail import beyond, critical_spread
from pipeline.inspection.strangers import strangers
from pipeline.inspection.suspects import RATE, are_suspects, unseen_scores


def lines(images: ImageSet) -> dict[str, Line]:
    return {line.check.name: line for line in examine(images)}


def found(images: ImageSet, name: str) -> list[int]:
    return [int(each.uri[-7:-4]) for each in lines(images)[name].images]


def test_a_clean_category_passes_every_check() -> None:
    for seed in range(20):
        features = np.random.default_rng(seed).normal(size=(60, 24))
        answer = lines(image_set(pooled=features, seed=seed))
        assert len(answer) == len(CHECKS) + 1
        assert {line.check.verdict for line in answer.values()} == {Verdict.PASS}


def test_no_check_stumbles_over_an_empty_category() -> None:
    assert {line.check.verdict for line in examine(image_set(0))} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("name", "statistic", "value"),
    [
        ("dark", "brightness", 60.0),
        ("dark", "brightness", 2.0),
        ("bright", "brightness", 200.0),
        ("bright", "brightness", 254.0),
        ("blurred", "sharpness", 3.0),
        ("blurred", "sharpness", 0.0),
        ("flat", "contrast", 8.0),
        ("flat", "contrast", 0.5),
    ],
)
def test_an_image_that_stands_out_is_found_and_no_other(
    name: str, statistic: str, value: float
) -> None:
    values = image_set().statistics[statistic].copy()
    values[[7, 31]] = value
    images = image_set(statistics={statistic: values})
    assert sorted(found(images, name)) == [7, 31]
    warned = {k for k, line in lines(images).items() if line.check.verdict is not Verdict.PASS}
    assert warned == {name}


def test_a_category_that_is_dark_as_a_whole_is_no_news() -> None:
    values = np.full(60, 3, np.float32)
    assert found(image_set(statistics={"brightness": values}), "dark") == []


def test_a_step_that_nobody_sees_is_no_news_however_alike_the_others_are() -> None:
    values = np.full(60, 120, np.float32)
    values[5] = 115
    assert found(image_set(statistics={"brightness": values}), "dark") == []


def test_copies_are_told_by_where_they_lie() -> None:
    images = changed(image_set(), 9, sha256=digest(4))
    assert found(images, "exact duplicates") == [9]
    assert lines(images)["exact duplicates"].images[0].beside == "/images/good/004.png"
    in_test = changed(images, 9, split="test")
    assert found(in_test, "exact duplicates") == []
    assert found(in_test, "train and test") == [4]
    assert lines(in_test)["train and test"].check.verdict is Verdict.FAIL
    two_labels = changed(in_test, 9, defect="scratch")
    assert found(two_labels, "labels") == [9]
    assert lines(two_labels)["labels"].check.verdict is Verdict.FAIL


@pytest.mark.parametrize("size", [(96, 64), (128, 96), (960, 1280)])
def test_another_size_among_equal_ones_is_found(size: tuple[int, int]) -> None:
    assert found(changed(image_set(), 3, size=size), "size") == [3]


def test_among_many_sizes_only_other_proportions_are_found() -> None:
    images = image_set()
    for index in range(60):
        images = changed(images, index, size=(90 + index, 2 * (90 + index)))
    assert found(images, "size") == []
    assert found(changed(images, 3, size=(100, 100)), "size") == [3]


@pytest.mark.parametrize("mode", ["L", "RGBA", "L;uint16", "P"])
def test_another_mode_is_found(mode: str) -> None:
    assert found(changed(image_set(), 3, mode=mode), "mode") == [3]
    half = image_set()
    for index in range(0, 60, 2):
        half = changed(half, index, mode=mode)
    assert found(half, "mode") == []


def test_unreadable_files_are_named_with_their_reason() -> None:
    read = ImageRead("/images/good/077.png", ImageStatus.UNREADABLE, "the file is empty")
    line = lines(image_set(unreadable=[read]))["unreadable"]
    assert (line.images[0].uri, line.images[0].because) == (read.uri, "the file is empty")


def saved_again(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def part(seed: int) -> np.ndarray:
    """Soft shapes, as a photograph has them."""
    random = np.random.default_rng(seed)
    soft = ndimage.gaussian_filter(random.normal(size=(96, 96, 3)), (5, 5, 0))
    return np.clip(120 + 400 * soft, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: saved_again(pixels, 90),
        lambda pixels: saved_again(pixels, 80),
        lambda pixels: np.clip(pixels.astype(int) + 10, 0, 255).astype(np.uint8),
        lambda pixels: np.asarray(Image.fromarray(pixels).resize((64, 64)).resize((96, 96))),
    ],
)
def test_what_was_saved_again_is_a_near_duplicate(change: object) -> None:
    assert callable(change)
    pictures = [part(seed) for seed in range(12)]
    prints = [fingerprint(each) for each in [*pictures, change(pictures[5])]]
    pairs = near_pairs(prints, np.zeros((13, 0), np.float32))
    assert [pair[:2] for pair in pairs] == [(12, 5)]


def test_images_of_one_kind_are_no_near_duplicates() -> None:
    prints = [fingerprint(factory.texture(seed)) for seed in range(40)]
    features = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    assert near_pairs(prints, features) == []


def test_between_the_two_bounds_features_decide() -> None:
    base = np.zeros(4, np.uint64)
    other = np.array([2**16 - 1, 0, 0, 0], np.uint64)  # 16 bits
    prints = [each.tobytes().hex() for each in (base, other)]
    prints += [fingerprint(factory.texture(seed)) for seed in range(20)]
    features = np.random.default_rng(0).normal(size=(22, 16)).astype(np.float32)
    assert near_pairs(prints, features) == []
    features[1] = features[0] + 0.01
    assert near_pairs(prints, features) == [(1, 0, 16)]


def test_fingerprints_are_compared_bit_by_bit() -> None:
    words = as_words([f"{0b1011:064x}", f"{0b0010:064x}", "f" * 64])
    assert differing_bits(words, words).tolist() == [[0, 2, 253], [2, 0, 255], [253, 255, 0]]


def test_the_level_is_exceeded_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    raised = sum(beyond(random.logistic(size=70), 0.05).any() for _ in range(1_000))
    assert 25 <= raised <= 75  # 50 expected; the number of values is rounded up


def test_the_level_goes_on_where_the_simulation_ends() -> None:
    assert critical_spread(1_001, 0.02) == pytest.approx(critical_spread(1_000, 0.02), abs=0.3)
    levels = [critical_spread(num, 0.02) for num in (20, 100, 400, 1_500, 10_000)]
    assert levels == sorted(levels)


@pytest.mark.parametrize("long_tails", [False, True])
def test_at_most_five_of_a_hundred_clean_sets_have_a_suspect(long_tails: bool) -> None:
    raised = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        features = random.normal(size=(80, 20)) @ random.normal(size=(20, 40))
        if long_tails:
            features *= random.chisquare(8, size=(80, 1)) ** -0.5
        scores = unseen_scores(features.astype(np.float32), [digest(i) for i in range(80)])
        raised += bool(are_suspects(scores).any())
    assert raised <= 5


@pytest.mark.parametrize("num_planted", [1, 3, 5])
def test_defects_among_the_good_are_suspected(num_planted: int) -> None:
    random = np.random.default_rng(num_planted)
    features = random.normal(size=(120, 30))
    features[:num_planted, :6] += random.choice([-12, 12], size=(num_planted, 6))
    images = image_set(120, pooled=features)
    assert sorted(found(images, "suspected defects")) == list(range(num_planted))
    for each in lines(images)["suspected defects"].images:
        assert each.beside is not None
        assert int(each.beside[-7:-4]) >= num_planted  # a good one


def test_defects_of_one_kind_do_not_hide_each_other() -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(120, 30))
    features[:10, :3] += 9  # all alike
    index, _ = image_set(120, pooled=features).least_usual
    assert set(index[:10].tolist()) == set(range(10))


def test_few_images_are_not_judged() -> None:
    features = np.random.default_rng(0).normal(size=(12, 8))
    features[0] += 50
    assert found(image_set(12, pooled=features), "suspected defects") == []
    assert 0 < RATE <= 0.05


def summary_of(centre: float, name: str, seed: int = 0, space: str = "s") -> CategorySummary:
    rows = np.random.default_rng(seed).normal(centre, 1, size=(80, 16)).astype(np.float32)
    return summarise(name, space, rows)


def test_an_image_of_another_category_is_found_and_named() -> None:
    rows = np.random.default_rng(5).normal(size=(60, 16)).astype(np.float32)
    rows[[4, 40]] = np.random.default_rng(6).normal(7, 1, size=(2, 16))
    others = [summary_of(7, "gear"), summary_of(-7, "bolt"), summary_of(7, "far", space="other")]
    own = summarise("steel", "s", rows)
    assert sorted(strangers(rows, own, others)) == [(4, "gear"), (40, "gear")]


def test_what_looks_like_no_category_is_no_stranger() -> None:
    rows = np.random.default_rng(5).normal(size=(60, 16)).astype(np.float32)
    rows[4] = 30
    own = summarise("steel", "s", rows)
    assert strangers(rows, own, [summary_of(7, "gear")]) == []


def test_two_categories_of_one_product_have_no_strangers() -> None:
    for seed in range(10):
        rows = np.random.default_rng(seed).normal(size=(60, 16)).astype(np.float32)
        own = summarise("left", "s", rows)
        assert strangers(rows, own, [own, summary_of(0, "right", seed + 50)]) == []


def test_a_summary_is_the_same_after_a_file() -> None:
    before = summary_of(3, "gear")
    after = CategorySummary.from_json(before.to_json())
    rows = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    assert after.distances(rows).tolist() == before.distances(rows).tolist()
    assert (after.name, after.space, after.usual) == (before.name, before.space, before.usual)
