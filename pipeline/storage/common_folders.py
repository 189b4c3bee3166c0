"""The folders to list in order to find many objects with few requests."""

from collections.abc import Collection, Iterable


def by_folder(uris: Collection[str], at_most: int) -> dict[str, set[str]]:
    """The objects by their common folder; see ``common_folders``."""
    folders = common_folders(uris, at_most)
    own: dict[str, set[str]] = {folder: set() for folder in folders}
    for uri in uris:
        [folder] = _ancestors(uri) & folders
        own[folder].add(uri)
    return own


def common_folders(uris: Iterable[str], at_most: int) -> set[str]:
    """Return folders below which all objects lie, none of them inside of another.

    The folders that hold the objects where these are few; else those above them, up to the bucket.
    They are ``at_most`` so many, or as many as there are buckets.
    """
    folders = _outermost({_above(uri) for uri in uris})
    while len(folders) > at_most:
        higher = _outermost({_above(folder) for folder in folders})
        if higher == folders:  # buckets
            break
        folders = higher
    return folders


def _above(uri: str) -> str:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    folder = key.rpartition("/")[0]
    return f"s3://{bucket}/{folder}" if folder else f"s3://{bucket}"


def _outermost(folders: set[str]) -> set[str]:
    return {folder for folder in folders if not _ancestors(folder) & folders}


def _ancestors(folder: str) -> set[str]:
    found: set[str] = set()
    while (above := _above(folder)) != folder:
        folder = above
        found.add(folder)
    return found
