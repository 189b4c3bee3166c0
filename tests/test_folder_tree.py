"""What is found in a folder tree beside its samples: masks, kinds of defects, other files."""

from pathlib import Path

import pytest

from pipeline.datasets.layouts import read_layout


def tree(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


@pytest.mark.parametrize(
    ("good", "mask"),
    [("good", "good/1_mask.png"), ("good", "OK/1.png"), ("ok", "good/1/0.png")],
)
def test_masks_of_good_images_are_named(tmp_path: Path, good: str, mask: str) -> None:
    names = ("train/good/0.png", f"test/{good}/1.png", f"ground_truth/{mask}")
    images = tree(tmp_path, *names)
    assert read_layout("mvtec", images).findings == (
        f"masks of good images, not used: 1, first of {images}/test/{good}/1.png",
    )


def test_a_kind_of_defect_is_one_in_whatever_case(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/good/0.png", "test/Scratch/1.png", "test/scratch/2.png", "test/DENT/3.png"),
        *("ground_truth/scratch/1_mask.png", "ground_truth/SCRATCH/2.png"),
        "ground_truth/Dent/3/0.png",
    )
    listing = read_layout("mvtec", images)
    assert listing.findings == ("defects: 1 dent, 2 scratch",)
    assert [len(sample.mask_uris) for sample in listing.samples if not sample.is_good] == [1, 1, 1]
    table = "image_uri,split,label\na,train,good\nb,,Broken\nc,,broken\nd,,BROKEN\n"
    (tmp_path / "a.csv").write_text(table)
    assert read_layout("manifest", f"{images}/a.csv").findings == ("defects: 3 broken",)


def test_masks_of_folders_that_differ_in_case_are_not_mixed(tmp_path: Path) -> None:
    images = tree(
        tmp_path,
        *("train/good/0.png", "test/Cut/1.png", "test/cut/1.png", "test/Cut/2.png"),
        *("ground_truth/cut/1_mask.png", "ground_truth/cut/2_mask.png"),
    )
    samples = read_layout("mvtec", images).samples
    masks = {sample.uri.removeprefix(images): sample.mask_uris for sample in samples}
    assert masks == {
        "/train/good/0.png": (),
        "/test/Cut/1.png": (),
        "/test/cut/1.png": (f"{images}/ground_truth/cut/1_mask.png",),
        "/test/Cut/2.png": (f"{images}/ground_truth/cut/2_mask.png",),
    }


@pytest.mark.parametrize("folder", ["2", "002", "a/2"])
def test_a_lost_folder_of_masks_names_its_image(tmp_path: Path, folder: str) -> None:
    masks = [f"ground_truth/logical/{folder}/00{number}.png" for number in range(3)]
    images = tree(tmp_path, "train/good/0.png", "test/logical/1.png", *masks)
    assert (
        f"masks without an image: 3, first {images}/{masks[0]}; looked for test/logical/{folder}.*"
    ) in read_layout("mvtec_loco", images).findings


@pytest.mark.parametrize("layout", ["folder", "mvtec"])
def test_hidden_files_are_counted(tmp_path: Path, layout: str) -> None:
    images = tree(tmp_path, "train/good/0.png", "train/good/.DS_Store", "._0.png", ".snap/0.png")
    listing = read_layout(layout, images)
    assert len(listing.samples) == 1
    assert listing.findings == ("files that are no images: 3 hidden",)
