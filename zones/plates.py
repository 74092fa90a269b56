"""Number plates: read as people type them, checked against the series in use, written in one canonical way.

    series               canonical        what it is
    car                  30A-123.45       one letter, 5 digits; older ones 4 (30A-1234)
    special_series       29KT-123.45      LD DA KT CD HC MK R RM TĐ MĐ; the driver says which class
    temporary            T29-123.45       T before the province; the driver says which class
    motorcycle_old       29-B1 123.45     a letter and a digit, then 5 digits; older ones 4
    motorcycle_2023      29-AB 123.45     two letters, since 15 August 2023
    motorcycle_electric  29-MĐ1 123.45    MĐ and a digit
    diplomatic           80-011-NG-01     country, NG QT CV or NN, number; the driver says which class
    military             QA-1234          two letters, 4 digits; the driver says which class

Without separators 29E11234 is a car (29E-112.34) or an old motorbike (29-E1 1234): separators decide, else the stated
vehicle class, else it is taken for a car. One plate and class has one canonical text, which reads as itself.
"""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from zones.errors import InvalidPlate

LONGEST_TEXT = 32
HIDDEN_CHARACTERS = 3
# Provinces are 11 to 99 but for those not in use; 80 is the central police department.
PROVINCES = frozenset(str(n) for n in range(11, 100)) - {"13", "42", "44", "45", "46", "87", "91", "96"}
_LETTER = "[ABCDEFGHKLMNPSTUVXYZ]"
_SEPARATORS = re.compile(r"[\s.,\-_·•‐‑‒–—―−/]+")
# Letters of other scripts that look like ours, and the other letters that are typed for Đ.
_LOOK_ALIKES = str.maketrans("АВСЕНКМРТХУЅΑΒΕΗΚΜΝΡΤΧΥΖÐƉ", "ABCEHKMPTXYSABEHKMNPTXYZĐĐ")
# 29E11234 with a separator before (car) or after (motorbike) its first digit.
_HINT = re.compile(rf"\d\d\W*{_LETTER}(?P<before>\W*)[1-9](?P<after>\W*)\d{{2,3}}\W?\d{{1,2}}", re.ASCII)


# How many digits a number has, and how they may be grouped.
_GROUPED = {n: re.compile(rf"[0-9]{{{n - 2}}}\W{{0,2}}[0-9]{{2}}$") for n in (2, 4, 5)}


class Plate(NamedTuple):
    """A plate in use. `text` is its canonical form; the class is None where the series leaves it to the driver."""

    text: str
    series: str
    vehicle_class: str | None


class _Series(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    vehicle_class: str | None
    form: str


def _series(name: str, pattern: str, vehicle_class: str | None, form: str) -> _Series:
    return _Series(name, re.compile(pattern, re.ASCII), vehicle_class, form)


# p: province, s: series, a: country, n: number. In this order: the first that fits text and class is the plate's.
_GRAMMAR = (
    _series("car", rf"(?P<p>\d\d)(?P<s>{_LETTER})(?P<n>\d{{4,5}})", "car", "{p}{s}-{n}"),
    _series("motorcycle_old", rf"(?P<p>\d\d)(?P<s>{_LETTER}[1-9])(?P<n>\d{{4,5}})", "motorbike", "{p}-{s} {n}"),
    _series("diplomatic", r"(?P<p>\d\d)(?P<a>\d{3})(?P<s>NG|QT|CV|NN)(?P<n>\d\d)", None, "{p}-{a}-{s}-{n}"),
    _series("diplomatic", r"(?P<p>80)(?P<s>NG|QT|CV|NN)(?P<a>\d{3})(?P<n>\d\d)", None, "{p}-{a}-{s}-{n}"),
    _series("motorcycle_electric", r"(?P<p>\d\d)(?P<s>MĐ[1-9])(?P<n>\d{5})", "motorbike", "{p}-{s} {n}"),
    _series("special_series", r"(?P<p>\d\d)(?P<s>LD|DA|KT|CD|HC|MK|RM?|TĐ|MĐ)(?P<n>\d{4,5})", None, "{p}{s}-{n}"),
    _series("motorcycle_2023", rf"(?P<p>\d\d)(?P<s>{_LETTER}{{2}})(?P<n>\d{{5}})", "motorbike", "{p}-{s} {n}"),
    _series("temporary", r"T(?P<p>\d\d)(?P<n>\d{4,5})", None, "T{p}-{n}"),
    _series("military", r"(?P<s>[ABHKPQT][A-HK-NP-VXYZ])(?P<n>\d{4})", None, "{s}-{n}"),
)


@lru_cache(maxsize=4096)
def parse(text: str, vehicle_class: str | None = None) -> Plate:
    """Read a plate. Raises InvalidPlate, which says what is wrong, also where the plate is of another class."""
    written = _unify(text)
    series, match = _find(_SEPARATORS.sub("", written), _hinted(written) or vehicle_class)
    if vehicle_class is not None and series.vehicle_class not in (None, vehicle_class):
        raise InvalidPlate(f"this is a {series.vehicle_class}'s plate, not a {vehicle_class}'s")
    parts = match.groupdict()
    if parts.get("p", "80") not in PROVINCES:
        raise InvalidPlate(f"{parts['p']} is no province in use")
    number = parts["n"]
    if not _GROUPED[len(number)].search(written):
        raise InvalidPlate("the number's digits stand together, but for a dot before the last two")
    parts["n"] = f"{number[:3]}.{number[3:]}" if len(number) == 5 else number
    return Plate(series.form.format(**parts), series.name, series.vehicle_class)


def _find(bare: str, wanted: str | None) -> tuple[_Series, re.Match[str]]:
    """The first series that fits the text and the wanted class, else the first that fits the text."""
    fallback = None
    for series in _GRAMMAR:
        if match := series.pattern.fullmatch(bare):
            if wanted is None or series.vehicle_class in (None, wanted):
                return series, match
            fallback = fallback or (series, match)
    if fallback is None:
        raise InvalidPlate("this is no plate of a series in use")
    return fallback


def fold(text: str) -> str:
    """A plate's text for searching: no separators, Đ as D. Two plates may fold alike; never store this."""
    return _SEPARATORS.sub("", _unify(text)).replace("Đ", "D")


def masked(text: str) -> str:
    """A canonical plate for papers that others may see: its last three letters or digits hidden, 30A-12•••.

    A dot among those goes, a dash or space stays; letters stand as they are, Đ too.
    """
    hidden, kept = 0, list(text)
    for position in reversed(range(len(kept))):
        if hidden == HIDDEN_CHARACTERS:
            break
        if kept[position].isalnum():
            kept[position], hidden = "•", hidden + 1
        elif kept[position] == ".":
            kept[position] = ""
    return "".join(kept)


def _unify(text: str) -> str:
    """Upper case in our own letters, without marks that cannot be seen."""
    if len(text) > LONGEST_TEXT:
        raise InvalidPlate(f"a plate has at most {LONGEST_TEXT} characters")
    if text.isascii():
        return text.upper().strip()
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    # A letter that becomes two in upper case (ß) is none of ours and stays as it is, to be refused.
    upper = (c.upper() if len(c.upper()) == 1 else c for c in seen)
    return "".join(upper).translate(_LOOK_ALIKES).strip()


def _hinted(written: str) -> str | None:
    """The class that separators tell where a text fits both a car's and an old motorbike's series."""
    match = _HINT.fullmatch(written)
    if match is None or bool(match["before"]) == bool(match["after"]):
        return None
    return "car" if match["before"] else "motorbike"
