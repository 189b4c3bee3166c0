"""What may name a category: safe in a file's name, an address and the registry."""

import hashlib
import re

PATTERN = "[a-z0-9][a-z0-9_-]{0,56}"


def is_category_name(text: str) -> bool:
    """Say whether a category may be called so."""
    return re.fullmatch(PATTERN, text) is not None


def file_name(category: str) -> str:
    """What files of a category are called: a folder of a dump may have any name."""
    if is_category_name(category):
        return category
    return f"_{hashlib.sha256(category.encode()).hexdigest():.12}"
