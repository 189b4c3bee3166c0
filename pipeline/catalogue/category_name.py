"""What may name a category: safe in a file's name, an address and the registry."""

import re

PATTERN = "[a-z0-9][a-z0-9_-]{0,56}"


def is_category_name(text: str) -> bool:
    """Say whether a category may be called so."""
    return re.fullmatch(PATTERN, text) is not None
