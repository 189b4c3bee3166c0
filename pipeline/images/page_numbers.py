"""Pages of image files: which frames are images of their own, and how a page is addressed.

Where each page is an image, that of the third page of ``a.tif`` has the address ``a.tif#page=3``.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from PIL import Image

from model.preprocessing import Pages

PAGE = re.compile(r"#page=([1-9][0-9]*)$")
PREVIEWS = ("MPO",)  # a JPEG with smaller or stereo copies of itself behind
ONE_FRAME = (*PREVIEWS, "TIFF")  # those of a sound TIFF are counted by ``TiffPages``


def page_uri(file: str, number: int) -> str:
    """Return the address of a page, the first of which is 1."""
    return f"{file}#page={number}"


def split_page(uri: str) -> tuple[str, int | None]:
    """Return the file of an address, and its page where it names one."""
    found = PAGE.search(uri)
    return (uri[: found.start()], int(found[1])) if found else (uri, None)


def file_and_page(uri: str, pages: Pages) -> tuple[str, int | None]:
    """Return the file of an address, and its page where a category's pages are images."""
    return split_page(uri) if pages == "each" else (uri, None)


def of_same_file(uris: Iterable[str], most: int) -> Iterator[list[str]]:
    """Yield neighbouring pages of one file together, ``most`` at a time; in their order."""
    for _, pages in groupby(uris, key=lambda uri: split_page(uri)[0]):
        while some := list(islice(pages, most)):
            yield some


def frames_of_pages(image: Image.Image) -> list[int]:
    """Return the numbers of the frames that are pages; previews are none."""
    return list(range(1 if image.format in ONE_FRAME else getattr(image, "n_frames", 1)))
