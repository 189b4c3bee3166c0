"""One list of words says what a good part is called, in folders and in manifests."""

from pathlib import Path

import pytest
from layout_rows import seen

from pipeline.datasets.good_words import is_good_word, meant_word, says_nothing
from pipeline.datasets.layouts import LayoutError, read_layout


@pytest.mark.parametrize(
    "word",
    [
        *("good", "Good", " GOOD ", "ok", "OK", "okay", "normal", "pass", "passed", "i.O.", "IO"),
        *("io.", "i. O.", "OK!", "in Ordnung", "fehlerfrei", "flawless", "accepted", "undamaged"),
        *("gut", "intact", "defect-free", "Defect Free", "no_defect", "0", "0.0", "False"),
        *("healthy", "Nominal", "clean", "einwandfrei", "acceptable", "nondefective", "fault-free"),
    ],
)
def test_words_for_good(word: str) -> None:
    assert is_good_word(word)
    assert meant_word(word) is None


@pytest.mark.parametrize(
    "word",
    [
        *("abnormal", "anormal", "unnormal", "imperfect", "nok", "NOK", "n.i.O.", "not_ok", "ko"),
        *("bad", "defect", "defective", "1", "true", "wood", "gold", "hood", "scratch", "combined"),
        *("no_good_parts", "contact", "flash", "formed", "pressed", "NG_1", "OK_or_NG", "bad 2"),
        *(
            "hole_0",
            "false_colour",
            "defect_good_side",
            "nicht iO",
            "okra",
            "nok/ok",
            "n.i.O.-Teile",
        ),
        *("broken_large", "contamination", "not good", "non-normal", "crack", "2", "no_pass"),
    ],
)
def test_words_for_defects(word: str) -> None:
    assert not is_good_word(word)
    assert meant_word(word) is None


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(("goood", "good"), ("god", "good"), ("good_", "good"), ("norml", "normal")),
        *(("gooood", "good"), ("good_1", "good"), ("good_parts", "good"), ("OK images", "ok")),
        *(("normals", "normal"), ("pased", "passed"), ("okayy", "okay"), ("perfekt", "perfect")),
        *(("okk", "ok"), ("okey", "okay"), ("go0d", "good"), ("0K", "ok"), ("Gutteile", "gut")),
    ],
)
def test_slips(word: str, meant: str) -> None:
    assert not is_good_word(word)
    assert meant_word(word) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(("good_v2", "good"), ("good copy", "good"), ("good (2)", "good"), ("good_cam1", "good")),
        *(("cam1_good", "good"), ("good_2024_05", "good"), ("OK-Teile", "ok"), ("OK_neu", "ok")),
        *(("Gut-Teile", "gut"), ("iO-Teile", "io"), ("i.O.-Teile", "i.o"), ("test_good", "good")),
        *(("00_good", "good"), ("01-ok", "ok"), ("defect_free_2", "defect-free")),
        *(("cam1 no defect", "no-defect"), ("normal_map", "normal"), ("ok_but_bent", "ok")),
    ],
)
def test_words_that_have_one_for_good_as_a_part(word: str, meant: str) -> None:
    assert not is_good_word(word)
    assert meant_word(word) == meant


@pytest.mark.parametrize("word", ["None", "nan", "NULL", " n/a ", "NA", "?", "-", "Unlabeled"])
def test_words_for_a_missing_value_are_neither(tmp_path: Path, word: str) -> None:
    assert says_nothing(word)
    assert not is_good_word(word)
    assert meant_word(word) is None
    if "/" not in word:
        images = tree(tmp_path, "train/good/0.png", f"test/{word}/1.png")
        with pytest.raises(LayoutError, match="says neither good nor which defect"):
            read_layout("mvtec", images)


def tree(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


@pytest.mark.parametrize("word", ["ok", "OK", "Good", "normal", "i.O.", "defect_free"])
@pytest.mark.parametrize("layout", ["mvtec", "btad", "visa"])
def test_a_folder_by_any_word_for_good_holds_good_images(
    tmp_path: Path, layout: str, word: str
) -> None:
    images = tree(
        tmp_path,
        *(f"train/{word}/0.png", "test/good/1.png", f"test/{word}/2.png", "test/hole/3.png"),
    )
    found = {
        (name.rpartition("/")[2], split, kind) for name, split, kind, _ in seen(layout, images)
    }
    assert found == {
        ("0.png", "train", "good"),
        ("1.png", "test", "good"),
        ("2.png", "test", "good"),
        ("3.png", "test", "hole"),
    }


@pytest.mark.parametrize("word", ["goood", "god", "norml", "good_v2", "01-ok", "OK-Teile"])
def test_a_folder_nearly_called_good_is_refused(tmp_path: Path, word: str) -> None:
    images = tree(tmp_path, "train/good/0.png", f"test/{word}/1.png")
    with pytest.raises(LayoutError, match=rf"test/{word}: is `{word}` to mean"):
        read_layout("mvtec", images)


@pytest.mark.parametrize(
    "names",
    [
        ("train/good/0.png", "test/hole/1.png"),
        ("a.png", "ground_truth/a_mask.png"),
        ("good/0.png", "bad/1.png"),
        ("0.png", "NOK/1.png"),
        ("kos01/Part0.jpg", "kos01/Part0_label.bmp"),
        ("0.png", "n.i.O./1.png"),
        ("0.png", "Not OK/1.png"),
        ("cam 1/0.png", "cam 1/failed/1.png"),
        ("0.png", "0-mask.png"),
        ("good/0.png", "scratch/1.png"),
        ("cam 1/OK/0.png", "cam 1/3/1.png"),
        ("normal/0.png", "1.png"),
        ("OK_1/0.png", "NG_1/1.png"),
        ("1/0.png", "NG_parts/1.png"),
        ("a/0.png", "bad_images/1.png"),
        ("a/0.png", "defects2/1.png"),
        ("normal_parts/0.png", "defect_scratch/1.png"),
        ("normal_parts/0.png", "dent/1.png"),
        ("x.png", "test_images/1.png"),
        ("x.png", "test2/1.png"),
        ("trainset/x.png", "testset/1.png"),
        ("x.png", "x_Masks/1.png"),
        ("train/good/0.png", "val/scratch/1.png"),
        ("training/OK/0.png", "validation/3/1.png"),
    ],
)
def test_a_plain_folder_that_is_none_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(LayoutError, match=r"takes all of 2 images for good ones, and 1 lie"):
        read_layout("folder", tree(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "1"),
        ("good/0.png", "OK/1.png"),
        ("cam 1/good/0.png", "cam 2/good/1.png"),
        ("0/a.png", "1/b.png"),  # numbers of cameras, no labels
        ("front_label.png", "back_label.png"),  # pictures of labels: no image has these names
        ("testbench/0.png", "masking tape/1.png"),
        ("OK_1/0.png", "OK_2/1.png"),
        ("train/good/0.png", "val/good/1.png"),
        ("train/0.png", "val/1.png"),
    ],
)
def test_a_plain_folder_is_taken_as_it_is(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert len(read_layout("folder", tree(tmp_path, *names)).samples) == 2


def test_what_a_tree_holds_beside_its_samples_is_found(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/good/0.png", "test/good/0.png", "test/hole/1.png", "test/hole/2.png"),
        *("test/cut/1.png", "ground_truth/hole/1_mask.png", "ground_truth/hole/7_mask.png"),
        *("preview.png", "val/good/1.png", "ground_truth/9.png", "license.txt", "test/hole/1.json"),
    )
    assert read_layout("mvtec", images).findings == (
        "defects: 1 cut, 2 hole",
        f"2 of 3 defective images have no mask, first {images}/test/cut/1.png",
        f"masks without an image: 1, first {images}/ground_truth/hole/7_mask.png; "
        "looked for test/hole/7.*",
        "images outside of the layout, not used: ground_truth/9.png, preview.png, val/good/1.png",
        "files that are no images: 1 .json, 1 .txt",
    )
