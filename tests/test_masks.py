"""Masks are label files: their numbers count as they are, whatever their type."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pictures import encoded
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.datasets.samples import Sample
from pipeline.images.decode import UnreadableImage
from pipeline.images.masks import read_mask
from pipeline.measuring.labelled import read_marks

SMALL = Preprocessing(resize=32, crop=32)


def mask_of(tmp_path: Path, image: Image.Image) -> NDArray[np.bool_] | None:
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(image))
    return read_mask([str(path)], SMALL)


def marks_its_right_half(mask: NDArray[np.bool_] | None) -> bool:
    assert mask is not None
    assert (mask.dtype, mask.shape) == (np.bool_, (32, 32))
    return bool(not mask[:, :15].any() and mask[:, 17:].all())


def halves(left: object, right: object, mode: str) -> Image.Image:
    image = Image.new(mode, (64, 64), left)  # type: ignore[arg-type]
    image.paste(right, (32, 0, 64, 64))  # type: ignore[arg-type]
    return image


@pytest.mark.parametrize(
    ("left", "right", "mode"),
    [
        (0, 255, "L"),
        (0, 255, "1"),
        (100, 160, "L"),  # grey: half of full scale decides
        (0, 1, "L"),  # class numbers: anything but 0
        (0, 7, "L"),
        ((0, 0, 0), (128, 0, 0), "RGB"),  # colours on black
        ((255, 255, 255), (44, 160, 44), "RGB"),  # colours on white
        ((0, 0, 0, 255), (255, 255, 255, 255), "RGBA"),
    ],
)
def test_every_kind_of_mask_marks_its_right_half(
    tmp_path: Path, left: object, right: object, mode: str
) -> None:
    assert marks_its_right_half(mask_of(tmp_path, halves(left, right, mode)))


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        *(((0, 1), np.uint16), ((0, 255), np.uint16), ((0, 65535), np.uint16)),
        *(((0, 100), np.uint8), ((0, 16), np.uint8), ((0, 300), np.int32)),
        *(((0, 1), np.float32), ((0, 0.25), np.float64), ((0, 7), np.int16)),
        *(((0, 3, 9), np.uint16), ((32_000, 33_500), np.uint16), ((0, 90, 200), np.uint16)),
        *(((0, 0.3, 0.8), np.float32), ((100, 160), np.uint16)),
    ],
)
def test_numbers_of_any_type_mark_their_right_half(
    tmp_path: Path, numbers: tuple[float, ...], dtype: type
) -> None:
    values = np.full((64, 64), numbers[0], dtype)
    values[:, 32:] = numbers[-1]
    if len(numbers) == 3:  # a class of defects, or the edge of a soft mask
        is_class = max(numbers) < 16
        values[:, 33 if is_class else 31] = numbers[1]
    tifffile.imwrite(tmp_path / "mask.tif", values)
    assert marks_its_right_half(read_mask([str(tmp_path / "mask.tif")], SMALL))


def test_sixteen_bit_colours_mark_what_is_coloured(tmp_path: Path) -> None:
    values = np.zeros((64, 64, 3), np.uint16)
    values[:, 32:] = (4000, 40, 40)
    values[:, 40:] = (40, 4000, 40)
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric="rgb")
    assert marks_its_right_half(read_mask([str(tmp_path / "mask.tif")], SMALL))


@pytest.mark.parametrize(
    ("left", "right", "mode", "reason"),
    [
        ((200, 0, 0), (0, 0, 200), "RGB", "every pixel is coloured"),
        (-7, 1, "I", "numbers from -7 on"),
    ],
)
def test_what_is_no_mask_is_refused(
    tmp_path: Path, left: object, right: object, mode: str, reason: str
) -> None:
    halves(left, right, mode).save(tmp_path / "mask.tif")
    with pytest.raises(UnreadableImage, match=rf"mask\.tif: {reason}.*write defects in 255 on 0"):
        read_mask([str(tmp_path / "mask.tif")], SMALL)


@pytest.mark.parametrize("numbers", [(0, 5, 16, 20), (0, 20, 40, 60), (0, 50, 100, 200)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_class_and_every_instance_is_marked(
    tmp_path: Path, numbers: tuple[int, ...], dtype: type
) -> None:
    values = np.full((64, 64), numbers[0], dtype)
    for row, number in enumerate(numbers[1:]):
        values[20 * row : 20 * row + 30, 32:] = number
    tifffile.imwrite(tmp_path / "mask.tif", values)
    assert marks_its_right_half(read_mask([str(tmp_path / "mask.tif")], SMALL))


@pytest.mark.parametrize("level", [40, 100, 255])
def test_soft_edges_are_cut_in_their_middle_whatever_the_level(tmp_path: Path, level: int) -> None:
    values = np.zeros((64, 64), np.float64)
    values[:, 32:] = level
    noisy = np.clip(values + np.random.default_rng(0).normal(0, level / 20, values.shape), 0, 255)
    (tmp_path / "mask.jpg").write_bytes(encoded(Image.fromarray(noisy.astype(np.uint8)), "JPEG"))
    assert marks_its_right_half(read_mask([str(tmp_path / "mask.jpg")], SMALL))


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_numbers_count_as_they_are_stored_whatever_is_white(
    tmp_path: Path, photometric: str, dtype: type
) -> None:
    values = np.zeros((64, 64), dtype)
    values[:, 32:] = 1
    tifffile.imwrite(tmp_path / "mask.tif", values, photometric=photometric)
    assert marks_its_right_half(read_mask([str(tmp_path / "mask.tif")], SMALL))


def test_a_mask_that_is_marked_everywhere_is_not_empty(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, Image.new("L", (64, 64), 100))
    assert mask is not None
    assert mask.all()


@pytest.mark.parametrize("number", [1, 7])
def test_a_palettes_numbers_are_classes_where_the_first_colour_is_black(
    tmp_path: Path, number: int
) -> None:
    image = Image.new("P", (64, 64))
    image.putpalette([0, 0, 0, 128, 0, 0, *[0] * 15, 128, 128, 128])  # class 7 is grey
    image.paste(number, (32, 0, 64, 64))
    assert marks_its_right_half(mask_of(tmp_path, image))


@pytest.mark.parametrize("colours", [((255, 255, 255), (200, 0, 0)), ((1, 0, 0), (0, 2, 0))])
def test_all_that_is_not_black_is_marked(
    tmp_path: Path, colours: tuple[tuple[int, int, int], ...]
) -> None:
    image = halves((0, 0, 0), colours[0], "RGB")
    image.paste(colours[1], (32, 0, 64, 30))
    assert marks_its_right_half(mask_of(tmp_path, image))


def test_a_mask_that_cannot_be_read_is_told_and_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"hello")
    uris = [str(tmp_path / "torn.png"), str(tmp_path / "gone.png")]
    samples = [Sample(f"/{n}.png", "test", "hole", (uri,)) for n, uri in enumerate(uris)]
    marks = read_marks(samples, SMALL)
    assert not marks.known.any()
    (finding,) = marks.findings
    assert finding.startswith(f"masks that cannot be read: 2, first of /0.png (mask {uris[0]}: ")


def test_several_pages_are_no_mask(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((2, 64, 64), np.uint8))
    with pytest.raises(UnreadableImage, match="2 pages are no mask"):
        read_mask([str(tmp_path / "mask.tif")], SMALL)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_empty_mask_marks_nothing(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((64, 64), dtype))
    assert read_mask([str(tmp_path / "mask.tif")], SMALL) is None


def test_an_empty_mask_of_a_defective_image_is_reported_and_does_not_count(
    tmp_path: Path,
) -> None:
    for name, right in (("empty", 0), ("half", 255)):
        (tmp_path / f"{name}.png").write_bytes(encoded(halves(0, right, "L")))
    masks = [(str(tmp_path / "empty.png"),), (str(tmp_path / "half.png"),), ()]
    samples = [Sample(f"/{n}.png", "test", "hole", uris) for n, uris in enumerate(masks)]
    samples.append(Sample("/good.png", "test", "good"))
    marks = read_marks(samples, SMALL)
    assert marks.known.tolist() == [False, True, False, True]
    assert marks.empty == ("/0.png",)
    assert marks_its_right_half(marks.masks[1])
    assert marks.findings == [
        "masks that mark nothing: 1, first of /0.png; these images do not count for pixel metrics"
    ]


def test_a_defect_outside_of_the_crop_is_no_empty_mask(tmp_path: Path) -> None:
    narrow = Preprocessing(resize=256, crop=64)
    values = np.zeros((256, 256), np.uint8)
    values[:10] = 255
    (tmp_path / "mask.png").write_bytes(encoded(Image.fromarray(values)))
    mask = read_mask([str(tmp_path / "mask.png")], narrow)
    assert mask is not None
    assert not mask.any()


def test_a_mask_follows_the_geometry_of_its_image(tmp_path: Path) -> None:
    from torchvision import transforms

    random = np.random.default_rng(1)
    blobs = Image.fromarray(random.integers(0, 2, (9, 12), dtype=np.uint8) * 255)
    mask = blobs.resize((400, 300), Image.Resampling.NEAREST)
    (tmp_path / "mask.png").write_bytes(encoded(mask))
    seen = read_mask([str(tmp_path / "mask.png")], Preprocessing())
    resized = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(mask)
    assert (seen != (np.asarray(resized) > 127.5)).mean() < 0.001


def test_a_mask_that_is_no_image_names_itself(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"hello")
    with pytest.raises(UnreadableImage, match=r"mask .*mask\.png: 5 bytes that are no image"):
        read_mask([str(tmp_path / "mask.png")], SMALL)
