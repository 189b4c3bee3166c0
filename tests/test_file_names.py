"""One rule says which files are taken for images."""

import pytest

from pipeline.images.file_names import HIDDEN, kinds_in_words, other_kind


@pytest.mark.parametrize(
    "name",
    [
        *("a.png", "a.PNG", "A.JPG", "a.jfif", "a.jp2", "a.jpe", "a.tga", "cam1/a.tif"),
        *("20260312T0600", "cam1/0001", "a.raw", "a.json.png", "v1.2/part", "a.", "json"),
        *("SUCCESS", "~a.png", "ok/a", "partial.png"),
    ],
)
def test_what_may_be_an_image_is_tried(name: str) -> None:
    assert other_kind(name) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            ("a.json", ".json"),
            ("a.png.XML", ".xml"),
            ("Thumbs.db", ".db"),
            ("x/desktop.ini", ".ini"),
        ),
        *((".DS_Store", HIDDEN), ("cam1/._a.png", HIDDEN), (".trash/a.png", HIDDEN)),
        *(("a.xmp", ".xmp"), ("a.svg", ".svg"), ("a.sha512", ".sha512"), ("a.dat", ".dat")),
        *(("a.png.partial", ".partial"), ("a.filepart", ".filepart"), ("a.done", ".done")),
        *(("a.jpg.crdownload", ".crdownload"), ("cam1/0001.OK", ".ok"), ("a.png~", "~")),
        *(("_SUCCESS", "_SUCCESS"), ("x/@eaDir/a.png", "@eaDir"), ("@eadir/a.jpg", "@eaDir")),
        *(("$Recycle.Bin/$R1.png", "$RECYCLE.BIN"), ("a/__MACOSX/a.png", "__MACOSX")),
        ("System Volume Information/a.png", "System Volume Information"),
        *(("good/labels.csv", ".csv"), ("readme.txt", ".txt"), ("dump.tar", ".tar")),
    ],
)
def test_what_is_something_else_says_what(name: str, kind: str) -> None:
    assert other_kind(name) == kind


def test_kinds_are_counted_in_words_the_most_frequent_first() -> None:
    assert kinds_in_words({}) == ""
    assert kinds_in_words({".xml": 2, HIDDEN: 1200, ".db": 2}) == "1,200 hidden, 2 .db, 2 .xml"
    many = {f".{letter}": 10 - number for number, letter in enumerate("abcdefg")}
    assert kinds_in_words(many) == "10 .a, 9 .b, 8 .c, 7 .d, 6 .e, 9 of 2 other kinds"
