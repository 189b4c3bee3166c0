"""Which files below a folder are taken for images: one rule for onboarding and for the night.

Hidden files, and files whose suffix says that they are something else, are no images: they are
counted and not read. Everything else is tried, whatever its suffix, a name without one too; what
turns out to be no image is then reported as unreadable.
"""

import posixpath
from collections.abc import Mapping

HIDDEN = "hidden"
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".qoi", ".tga", ".dds", ".pcx"),
)
MOST_KINDS = 5  # in a sentence
# What lies beside images in factories: sidecars, indices of file managers, archives, notes, videos.
SUFFIXES = """
.json .jsonl .ndjson .manifest .xml .yaml .yml .toml .ini .cfg .conf .csv .tsv .parquet .pq .db
.sqlite .sqlite3 .h5 .hdf5 .npy .npz .pkl .pt .safetensors .txt .md .rst .log .rtf .pdf .doc .docx
.odt .xls .xlsx .ods .ppt .pptx .html .htm .css .js .py .ipynb .sh .bat .exe .dll .lnk .url .zip
.gz .tgz .bz2 .xz .tar .7z .rar .md5 .sha1 .sha256 .sha512 .crc .lock .tmp .part .svg .xmp
.partial .filepart .crdownload .done .ok .dat .bak .mp4 .avi .mov .mkv
.webm .wav .mp3
"""
OTHER_SUFFIXES = frozenset(SUFFIXES.split())
# What file servers, Windows, macOS and Spark keep beside files; whatever lies in such a folder.
SYSTEM_NAMES = ("@eaDir", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "_SUCCESS")
BACKUP = "~"  # at the end of a name: the copy that an editor keeps


def other_kind(name: str) -> str | None:
    """Say what a file is that is no image; None: it is to be tried.

    Args:
        name: below the folder that is listed, slashes included.

    Returns:
        Its suffix in lower case; HIDDEN where the name of the file or of a folder starts with a
        dot; one of SYSTEM_NAMES or BACKUP.
    """
    parts = name.split("/")
    if any(part.startswith(".") for part in parts):
        return HIDDEN
    folded = {part.casefold() for part in parts}
    for system in SYSTEM_NAMES:
        if system.casefold() in folded:
            return system
    if name.endswith(BACKUP):
        return BACKUP
    suffix = posixpath.splitext(name)[1].lower()
    return suffix if suffix in OTHER_SUFFIXES else None


def kinds_in_words(counts: Mapping[str, int]) -> str:
    """Count files by ``other_kind``, the most frequent kinds first: ``12 .json, 2 hidden``."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{count:,} {kind}" for kind, count in ordered[:MOST_KINDS]]
    if rest := ordered[MOST_KINDS:]:
        words.append(f"{sum(count for _, count in rest):,} of {len(rest)} other kinds")
    return ", ".join(words)


def is_image_name(name: str) -> bool:
    """Whether a name alone says that a file is an image, for those who may not open it."""
    return other_kind(name) is None and name.lower().endswith(IMAGE_SUFFIXES)
