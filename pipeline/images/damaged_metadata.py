"""A picture's file without its metadata.

Damaged metadata says nothing about the pixels: a text chunk with a wrong checksum, a colour profile
that was cut short. Every viewer shows such a picture, so it is decoded again without them before
it counts as unreadable. What holds pixels, or says how they are coded or turned, is never touched.

Sources: PNG, ISO/IEC 15948:2004, 5.3 and 5.4 (chunks); JPEG, ITU-T T.81, annex B (segments).
"""

import struct

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_KEPT = (b"tRNS", b"eXIf")  # the ancillary chunks that change what is seen here
ANCILLARY = 0x20  # bit of a chunk type's first letter
START_OF_SCAN, COMMENT, EXIF, ADOBE = 0xDA, 0xFE, 0xE1, 0xEE
ADOBE_BYTES = 14  # of a whole one, which says how colours are coded
BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}  # without a length


def without_metadata(data: bytes) -> bytes | None:
    """Return the file without its metadata; None when there is none, or it is of another kind."""
    if data.startswith(PNG_START):
        bare = _png_without(data)
    elif data.startswith(JPEG_START):
        bare = _jpeg_without(data)
    else:
        return None
    return bare if len(bare) < len(data) else None


def _png_without(data: bytes) -> bytes:
    parts, place = [PNG_START], len(PNG_START)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if not kind[0] & ANCILLARY or kind in PNG_KEPT:
            parts.append(data[place:end])
        place = end
    return b"".join([*parts, data[place:]])


def _jpeg_without(data: bytes) -> bytes:
    parts, place = [JPEG_START], len(JPEG_START)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == START_OF_SCAN:
            break
        (length,) = (0,) if marker in BARE_MARKERS else struct.unpack_from(">H", data, place + 2)
        end = place + 2 + length
        segment = data[place:end]
        if not _is_metadata(marker, segment):
            parts.append(segment)
        place = end
    return b"".join([*parts, data[place:]])


def _is_metadata(marker: int, segment: bytes) -> bool:
    if marker == ADOBE:
        return len(segment) < 2 + ADOBE_BYTES
    if marker == EXIF:
        return segment[4:8] != b"Exif"
    return marker == COMMENT or 0xE0 <= marker <= 0xEF
