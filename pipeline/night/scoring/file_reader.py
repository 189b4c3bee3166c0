"""From an address of the manifest to pixels and their statistics: all that needs no network.

It runs in threads of a scoring worker, or in processes that feed one (``jobs/night/feeders.py``).
Both give the same pages, so that rows do not depend on who has read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from model.errors import ServiceAway
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.images.decode import ImageRead, ImageStatus, announced_pixels, read_pages
from pipeline.images.image_statistics import image_statistics
from pipeline.night.scoring.observer import Observer, timed
from pipeline.night.scoring.waiting_pixels import WaitingPixels
from pipeline.storage import StorageError
from pipeline.storage.retry import Retry


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of the manifest."""

    uri: str
    etag: str | None
    category: str  # one that has a champion


@dataclass(frozen=True, slots=True)
class Page:
    """An image of a file, with its statistics by name where it has pixels."""

    image: ImageRead
    statistics: Mapping[str, float] = field(default_factory=dict)
    num_pixels: int = 0  # of its tiles, that count among ``WaitingPixels`` until they are scored


Fetch = Callable[[str], bytes]


class Source(Protocol):
    """Who reads files for a ``ShardScorer``."""

    num_requests: int  # that are under way at a time, each from a thread
    ahead: int  # requests that may be under way or waiting to be scored, for each of these
    files_a_request: int  # at most
    pixels_a_request: int  # of images as they are in memory; one image may have more

    def read(self, files: Sequence[Listed]) -> Sequence[list[Page]]:
        """Return the pages of each file, in order; what is wrong with an image is its status.

        Raises:
            ServiceAway: the storage as a whole does not answer any more.
        """


class Reader:
    """Fetches and decodes one file after the other; many threads may use it."""

    def __init__(
        self,
        preprocessing: Mapping[str, Preprocessing],
        retry: Retry,
        observer: Observer,
        waiting: WaitingPixels | None = None,
    ) -> None:
        """Take how each category's images are read, how often storage is asked, and who listens.

        Who scores in the same process gives back to ``waiting`` what it has scored.
        """
        self.preprocessing, self.retry, self.observer = preprocessing, retry, observer
        self.waiting = waiting

    def read(self, file: Listed, *, waits: bool = True) -> list[Page]:
        """Fetch and decode one file, which is one image unless each of its pages is.

        It waits for what is read already to be scored, where too much of it is cut into tiles.

        Raises:
            ServiceAway: the storage as a whole does not answer any more.
        """
        try:
            fetch = self._fetched(file)
        except ServiceAway as error:
            if self.retry.gave_up:
                raise
            return [Page(ImageRead(file.uri, ImageStatus.UNREACHABLE, str(error)))]
        preprocessing, num_pixels = self.preprocessing[file.category], 0
        if preprocessing.tiles is not None and self.waiting is not None:
            num_pixels = announced_pixels(fetch, preprocessing, file.uri)
            self.waiting.add(num_pixels, waits=waits)
        with timed(self.observer, "decode"):
            images = read_pages(file.uri, preprocessing, fetch)
            share, rest = divmod(num_pixels, len(images))  # each page gives its own back
            shares = [share + rest, *[share] * (len(images) - 1)]
            return [
                Page(image, _statistics(image), share)
                for image, share in zip(images, shares, strict=True)
            ]

    def _fetched(self, file: Listed) -> Fetch:
        """Fetch a file now; return what gives its bytes, or raises what was wrong with it."""
        with timed(self.observer, "fetch"):
            try:
                data = self.retry.call(lambda: storage.read_bytes(file.uri, file.etag))
            except StorageError as error:
                return partial(_raise, error)
        return lambda _: data


class InThreads:
    """Reads in the process that scores, each file in a thread."""

    ahead, files_a_request, pixels_a_request = 4, 1, 0

    def __init__(self, reader: Reader, num_threads: int) -> None:
        self.reader, self.num_requests = reader, num_threads

    def read(self, files: Sequence[Listed]) -> Sequence[list[Page]]:
        """Return the pages of each file; raises as ``Reader.read`` does."""
        # What is read of the first files is scored with the last one: these cannot wait for it.
        return [self.reader.read(file, waits=not n) for n, file in enumerate(files)]


def _statistics(image: ImageRead) -> dict[str, float]:
    if image.shown is None:
        return {}
    return {name: float(value[0]) for name, value in image_statistics(image.shown[None]).items()}


def _raise(error: StorageError, _: str) -> bytes:
    raise error
