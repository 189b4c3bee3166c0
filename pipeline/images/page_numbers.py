"""Pages of a file that Pillow opens: which of its frames are images of their own."""

from PIL import Image

SUBFILE, OLD_SUBFILE = 254, 255  # TIFF tags NewSubfileType and SubfileType
REDUCED, MASK, OLD_REDUCED = 1, 4, 2  # of the first two flags, of the last a value
PREVIEWS = ("MPO",)  # a JPEG with smaller or stereo copies of itself behind


def frames_of_pages(image: Image.Image) -> list[int]:
    """Return the numbers of the frames that are pages; thumbnails and masks are none."""
    num_frames = 1 if image.format in PREVIEWS else getattr(image, "n_frames", 1)
    if num_frames == 1 or image.format != "TIFF":
        return list(range(num_frames))
    pages = [number for number in range(num_frames) if _is_page(image, number)]
    image.seek(0)
    return pages or [0]


def _is_page(image: Image.Image, number: int) -> bool:
    image.seek(number)
    tags = image.tag_v2  # type: ignore[attr-defined]
    flags = int(tags.get(SUBFILE, 0))
    return not flags & (REDUCED | MASK) and tags.get(OLD_SUBFILE) != OLD_REDUCED
