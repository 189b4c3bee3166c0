"""Every data layout, read from a tiny tree in its real shape."""

import csv
import io
from pathlib import Path

import pytest
from layout_rows import seen
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.datasets.image_lists import ManifestError
from pipeline.datasets.layouts import LAYOUTS, LayoutError, Sample, read_layout
from pipeline.images.masks import read_mask


def tree(folder: Path, *names: str) -> str:
    """Empty files: no reader but KolektorSDD's looks inside."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


def picture(grey: int, form: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("L", (8, 8))
    image.putpixel((3, 3), grey)
    image.save(buffer, form)
    return buffer.getvalue()


MVTEC = (
    "train/good/000.png",
    "train/good/001.PNG",
    "test/good/000.png",
    "test/broken_large/000.png",
    "test/broken_large/001.png",
    "ground_truth/broken_large/000_mask.png",
    "license.txt",
    "readme.png",
)
MVTEC_SEEN = [
    ("test/broken_large/000.png", "test", "broken_large", MVTEC[5:6]),
    ("test/broken_large/001.png", "test", "broken_large", ()),  # no mask
    ("test/good/000.png", "test", "good", ()),
    ("train/good/000.png", "train", "good", ()),
    ("train/good/001.PNG", "train", "good", ()),
]


@pytest.mark.parametrize("layout", ["mvtec", "mpdd", "visa"])
def test_mvtec_and_its_followers(tmp_path: Path, layout: str) -> None:
    assert seen(layout, tree(tmp_path, *MVTEC)) == MVTEC_SEEN


def test_a_layout_on_s3_reads_the_same(s3: str) -> None:
    for name in MVTEC:
        storage.write_bytes(f"{s3}/bottle/{name}", b"")
    assert seen("mvtec", f"{s3}/bottle/") == MVTEC_SEEN


def test_visa_one_class_folders(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/good/0.JPG", "test/good/1.JPG", "test/bad/2.JPG", "ground_truth/bad/2.png"),
    )
    assert seen("visa", images) == [
        ("test/bad/2.JPG", "test", "bad", ("ground_truth/bad/2.png",)),
        ("test/good/1.JPG", "test", "good", ()),
        ("train/good/0.JPG", "train", "good", ()),
    ]


VISA_ROWS = [
    ["object", "split", "label", "image", "mask"],
    ["candle", "train", "normal", "candle/Data/Images/Normal/0836.JPG", ""],
    ["candle", "test", "normal", "candle/Data/Images/Normal/0001.JPG", ""],
    [
        *("candle", "test", "anomaly", "candle/Data/Images/Anomaly/000.JPG"),
        "candle/Data/Masks/Anomaly/000.png",
    ],
    ["capsules", "train", "normal", "capsules/Data/Images/Normal/000.JPG", ""],
]


def visa_root(folder: Path, rows: list[list[str]]) -> Path:
    (folder / "split_csv").mkdir()
    with (folder / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_visa_split_file(tmp_path: Path) -> None:
    root = visa_root(tmp_path, VISA_ROWS)
    assert seen("visa", str(root / "candle")) == [
        ("Data/Images/Anomaly/000.JPG", "test", "anomaly", ("Data/Masks/Anomaly/000.png",)),
        ("Data/Images/Normal/0001.JPG", "test", "good", ()),
        ("Data/Images/Normal/0836.JPG", "train", "good", ()),
    ]


def test_visa_split_file_without_the_object_names_those_it_has(tmp_path: Path) -> None:
    root = visa_root(tmp_path, VISA_ROWS)
    with pytest.raises(LayoutError, match="no object 'pcb1'; it has candle, capsules"):
        read_layout("visa", str(root / "pcb1"))


def test_visa_without_folders_or_split_file_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"1cls\.csv does not exist.*train/good/"):
        read_layout("visa", str(tmp_path / "candle"))


def test_visa_split_file_may_not_point_outside(tmp_path: Path) -> None:
    root = visa_root(tmp_path, [VISA_ROWS[0], ["candle", "train", "normal", "../secret/0.JPG", ""]])
    with pytest.raises(ManifestError, match="leads out of"):
        read_layout("visa", str(root / "candle"))


def test_btad_calls_good_ok_and_has_bitmap_masks(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0002.bmp", "test/ko/0003.bmp"),
        *("ground_truth/ko/0002.png", "ground_truth/ko/0003.bmp"),
    )
    assert seen("btad", images) == [
        ("test/ko/0002.bmp", "test", "ko", ("ground_truth/ko/0002.png",)),
        ("test/ko/0003.bmp", "test", "ko", ("ground_truth/ko/0003.bmp",)),
        ("test/ok/0001.bmp", "test", "good", ()),
        ("train/ok/0000.bmp", "train", "good", ()),
    ]


def test_mvtec_loco_has_several_masks_per_image(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/good/000.png", "validation/good/000.png", "test/good/000.png"),
        *("test/logical_anomalies/000.png", "test/structural_anomalies/000.png"),
        "ground_truth/logical_anomalies/000/000.png",
        "ground_truth/logical_anomalies/000/001.png",
        "ground_truth/structural_anomalies/000/000.png",
    )
    logical = "ground_truth/logical_anomalies/000"
    structural = "ground_truth/structural_anomalies/000"
    assert seen("mvtec_loco", images) == [
        ("test/good/000.png", "test", "good", ()),
        (
            *("test/logical_anomalies/000.png", "test", "logical_anomalies"),
            (f"{logical}/000.png", f"{logical}/001.png"),
        ),
        (
            *("test/structural_anomalies/000.png", "test", "structural_anomalies"),
            (f"{structural}/000.png",),
        ),
        ("train/good/000.png", "train", "good", ()),
        ("validation/good/000.png", "train", "good", ()),
    ]


def ksdd(folder: Path, parts: int) -> str:
    """Parts 0..parts-1 of one board; the labels of the first two are not black."""
    for part in range(parts):
        board = folder / "kos01"
        board.mkdir(exist_ok=True)
        (board / f"Part{part}.jpg").write_bytes(picture(90, "JPEG"))
        (board / f"Part{part}_label.bmp").write_bytes(picture([255, 1, 0][min(part, 2)], "BMP"))
    return str(folder)


def test_ksdd_takes_any_label_pixel_that_is_not_black_for_a_defect(tmp_path: Path) -> None:
    rows = seen("ksdd", ksdd(tmp_path, 30))
    assert len(rows) == 30
    assert [row for row in rows if row[2] != "good"] == [
        ("kos01/Part0.jpg", "test", "defect", ("kos01/Part0_label.bmp",)),
        ("kos01/Part1.jpg", "test", "defect", ("kos01/Part1_label.bmp",)),
    ]
    train = sum(row[1] == "train" for row in rows)
    assert 10 <= train <= 27  # 28 good parts, each in training with probability 0.7


def test_ksdd_splits_alike_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert seen("ksdd", ksdd(tmp_path / "one", 12)) == seen("ksdd", ksdd(tmp_path / "two", 12))


def test_ksdd_refuses_a_part_whose_label_is_missing_or_damaged(tmp_path: Path) -> None:
    images = ksdd(tmp_path, 3)
    (tmp_path / "kos01/Part2_label.bmp").write_bytes(b"BM")
    with pytest.raises(LayoutError, match=r"label .*Part2_label\.bmp: "):
        read_layout("ksdd", images)
    (tmp_path / "kos01/Part2_label.bmp").unlink()
    with pytest.raises(LayoutError, match=r"kos01/Part2\.jpg has no kos01/Part2_label\.bmp"):
        read_layout("ksdd", images)


def test_ksdd_names_labels_without_an_image(tmp_path: Path) -> None:
    images = ksdd(tmp_path, 4)
    (tmp_path / "kos01/Part3.jpg").unlink()
    assert read_layout("ksdd", images).findings == (
        "defects: 2 defect",
        "labels without an image: 1, first kos01/Part3_label.bmp",
    )


def test_cifar10_names_test_images_of_no_class(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat/1.png", "test/dog/2.png", "test/3.png")
    assert read_layout("cifar10", str(tmp_path / "train/cat")).findings == (
        "defects: 1 dog",
        "test images of no class, not used: 3.png",
    )


@pytest.mark.parametrize("layout", ["mvtec", "btad", "visa"])
@pytest.mark.parametrize("mask", ["7_mask.png", "7-mask.png", "7_GT.bmp", "7_label.png"])
def test_masks_among_the_images_are_refused(tmp_path: Path, layout: str, mask: str) -> None:
    images = tree(tmp_path, "train/good/0.png", "test/hole/7.png", f"test/hole/{mask}")
    with pytest.raises(LayoutError, match=rf"1 files among the images .*: test/hole/{mask}; move"):
        read_layout(layout, images)


def test_cifar10_makes_every_other_class_a_defect(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png"]
    tree(tmp_path, *names)
    samples = read_layout("cifar10", str(tmp_path / "train/cat")).samples
    assert samples == [
        Sample(f"{tmp_path}/test/cat/2.png", "test", "good", ()),
        Sample(f"{tmp_path}/test/dog/2.png", "test", "dog", ()),
        Sample(f"{tmp_path}/train/cat/1.png", "train", "good", ()),
    ]


def test_cifar10_needs_to_be_pointed_at_a_training_class(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"images must be <root>/train/<class>"):
        read_layout("cifar10", tree(tmp_path, "cat/1.png"))


def test_a_plain_folder_is_all_good_at_any_depth(tmp_path: Path) -> None:
    suffixes = ["png", "jpg", "JPEG", "bmp", "tif", "tiff", "webp", "gif", "ppm", "pgm"]
    names = [f"day {i}/deep/x.{suffix}" for i, suffix in enumerate(suffixes)]
    images = tree(tmp_path, *names, "notes.txt", "Thumbs.db", "no_suffix", ".thumb/x.png")
    names.append("no_suffix")
    assert seen("folder", images) == [(name, "train", "good", ()) for name in sorted(names)]
    assert read_layout("folder", images).findings == (
        "files that are no images: 1 .db, 1 .txt, 1 hidden",
    )


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"manifest", "cifar10"}))
def test_a_missing_folder_names_itself_and_the_structure(tmp_path: Path, layout: str) -> None:
    with pytest.raises(LayoutError, match=r"does not exist.*expected below images: .*"):
        read_layout(layout, str(tmp_path / "nowhere/bottle"))


def test_a_missing_bucket_is_a_layout_error_that_names_it(s3: str) -> None:
    with pytest.raises(LayoutError, match="bucket 'no-such-bucket' does not exist"):
        read_layout("mvtec", "s3://no-such-bucket/bottle")


def test_a_folder_one_level_too_high_shows_what_is_there(tmp_path: Path) -> None:
    images = tree(tmp_path, "bottle/train/good/0.png", "cable/train/good/0.png")
    with pytest.raises(
        LayoutError, match=r"no good training image.*train/good/\*.*found there: bottle, cable$"
    ):
        read_layout("mvtec", images)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no good training image among 0 images"):
        read_layout("folder", str(tmp_path))


def test_defects_among_the_training_images_are_refused(tmp_path: Path) -> None:
    images = tree(tmp_path, "train/good/0.png", "train/bad/1.png")
    with pytest.raises(LayoutError, match="train may hold only good/, found bad/"):
        read_layout("mvtec", images)


def test_an_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(LayoutError, match="unknown layout 'mvtek'; choose one of btad, cifar10, "):
        read_layout("mvtek", "/anywhere")


def test_a_mask_found_by_a_layout_can_be_read(tmp_path: Path) -> None:
    images = ksdd(tmp_path, 6)
    [first, _] = [sample for sample in read_layout("ksdd", images).samples if not sample.is_good]
    mask = read_mask(first.mask_uris[:1], Preprocessing(resize=32, crop=32))
    assert mask[14, 14]  # pixel (3, 3) of 8 lies at 12..16 of 32
    assert not mask[:8].any()
