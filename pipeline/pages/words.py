"""Numbers, times and names as people read them, the same on every page, picture and table."""

import datetime as dt
import re
import unicodedata

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
NONE = "–"  # where there is no number


def visible(text: str | None) -> str:
    """Text on one line with hidden characters spelled out, so that no name can pose as another.

    Line breaks, other control characters and those that reverse the reading direction of what
    follows are hidden characters; letters of right-to-left scripts are not.
    """
    joined = re.sub(r"\s*[\r\n]\s*", " ", text or "")
    return "".join(f"\\u{ord(c):04x}" if _is_hidden(c) else c for c in joined)


def _is_hidden(character: str) -> bool:
    if unicodedata.category(character) == "Cc":
        return True
    return unicodedata.bidirectional(character) in BIDI_CONTROLS


def decimal(number: float | None) -> str:
    """Three digits that count, zeros included: 1.40, so that columns line up."""
    return NONE if number is None else f"{number:#.3g}".rstrip(".")


def percent(share: float | None) -> str:
    """A share with as many digits as it has: 1 %, 0.5 %."""
    return NONE if share is None else f"{share * 100:.3g} %"


def count(number: int) -> str:
    """A whole number in groups of three."""
    return f"{number:,}"


def about(number: float) -> str:
    """An expected count: one decimal while it is small."""
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds, or minutes from two of them on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def long_date(night: str) -> str:
    """2026-03-12 as 12 March 2026."""
    date = dt.date.fromisoformat(night)
    return f"{date.day} {date:%B %Y}"


def clock(time: dt.datetime) -> str:
    """A time in UTC, to the minute."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


FILTERS = {
    function.__name__: function for function in (about, count, decimal, duration, percent, plural)
} | {"visible": visible}
