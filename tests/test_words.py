import datetime as dt

import pytest

from pipeline.pages.words import (
    about,
    clock,
    decimal,
    duration,
    long_date,
    percent,
    plural,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\x00b\x1b[31m", "a\\u0000b\\u001b[31m"),
        ("two\r\n  lines", "two lines"),
        ("תמונה.png", "תמונה.png"),
        (None, ""),
    ],
)
def test_hidden_characters_are_spelled_out(text: str | None, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(("rate", "text"), [(0.01, "1 %"), (0.005, "0.5 %"), (0.1, "10 %")])
def test_rates_read_as_percentages(rate: float, text: str) -> None:
    assert percent(rate) == text


@pytest.mark.parametrize(
    ("number", "text"), [(1.4, "1.40"), (0.12345, "0.123"), (1234.0, "1.23e+03"), (125.0, "125")]
)
def test_three_digits_count_so_that_columns_line_up(number: float, text: str) -> None:
    assert decimal(number) == text


def test_where_there_is_no_number_there_is_a_dash() -> None:
    assert (decimal(None), percent(None)) == ("–", "–")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (1234, "1,234 images")]
)
def test_a_noun_follows_its_count(number: int, text: str) -> None:
    assert plural(number, "image") == text


@pytest.mark.parametrize(("number", "text"), [(0.04, "0.0"), (9.94, "9.9"), (1234.5, "1,234")])
def test_an_expected_count_has_a_decimal_while_it_is_small(number: float, text: str) -> None:
    assert about(number) == text


def test_times_are_written_as_people_read_them() -> None:
    noon = dt.datetime(2026, 3, 12, 13, 5, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert clock(noon) == "2026-03-12 12:05 UTC"
    assert long_date("2026-03-12") == "12 March 2026"
    assert (duration(30), duration(180)) == ("30 s", "3.0 min")
