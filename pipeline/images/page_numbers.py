"""Pages of image files: which frames are images of their own, and how a page is addressed.

Where each page is an image, that of the third page of ``a.tif`` has the address ``a.tif#page=3``.
"""

import re

from PIL import Image

PAGE = re.compile(r"#page=([1-9][0-9]*)$")

SUBFILE, OLD_SUBFILE = 254, 255  # TIFF tags NewSubfileType and SubfileType
REDUCED, MASK, OLD_REDUCED = 1, 4, 2  # of the first two flags, of the last a value
PREVIEWS = ("MPO",)  # a JPEG with smaller or stereo copies of itself behind


def page_uri(file: str, number: int) -> str:
    """Return the address of a page, the first of which is 1."""
    return f"{file}#page={number}"


def split_page(uri: str) -> tuple[str, int | None]:
    """Return the file of an address, and its page where it names one."""
    found = PAGE.search(uri)
    return (uri[: found.start()], int(found[1])) if found else (uri, None)


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
