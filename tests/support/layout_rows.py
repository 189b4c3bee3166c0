"""What a layout found, in a form that a test can write down."""

from pipeline import storage
from pipeline.datasets.layouts import read_layout


def seen(layout: str, images: str) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(name, split, defect, mask names), names below the folder of the images."""
    root = storage.absolute(images).rstrip("/")
    if layout == "manifest":
        root = root.rpartition("/")[0]

    def name(uri: str) -> str:
        return uri.removeprefix(f"{root}/")

    samples = read_layout(layout, images).samples
    assert [sample.uri for sample in samples] == sorted(sample.uri for sample in samples)
    assert all(sample.is_good for sample in samples if sample.split == "train")
    return [
        (name(s.uri), s.split, s.defect, tuple(name(mask) for mask in s.mask_uris)) for s in samples
    ]
