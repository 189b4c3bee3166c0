"""Images that belong together: frames of one burst, shots of one part.

What a pattern's groups match in an image's address names its burst. Images of one burst are too
much alike to be on both sides of training and calibration.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator


def _as_pattern(given: str) -> str:
    try:
        pattern = re.compile(given)
    except re.error as error:
        raise ValueError(f"{given!r} is no regular expression: {error}") from error
    if not pattern.groups:
        raise ValueError(
            f"{given!r} has no group in parentheses; what it matches there names the burst, as in "
            r"'/([^/]+)_\d+\.png$'"
        )
    return given


BurstPattern = Annotated[str, AfterValidator(_as_pattern)]


def bursts(pattern: str | None, uris: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return a digest of what each image stays together with: hex sha256.

    Args:
        pattern: a regular expression, searched for in addresses; None: nothing belongs together.
        uris: addresses of images.
        hashes: digests of their contents; one whose address does not match is a burst of its own.
    """
    if pattern is None:
        return list(hashes)
    found = (re.search(pattern, uri) for uri in uris)
    return [
        content if match is None else _digest(match.groups())
        for match, content in zip(found, hashes, strict=True)
    ]


def _digest(names: Sequence[str | None]) -> str:
    return hashlib.sha256(repr(tuple(names)).encode(errors="surrogatepass")).hexdigest()
