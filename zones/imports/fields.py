"""The fields of one raw record, checked one by one."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from zones.imports.files import Raw
from zones.imports.report import Problems, shown

# A code stands in addresses (`/v1/zones/HK-001`) and in keys of Redis, where braces and colons have a meaning.
CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
LONGEST_TEXT = 200
LARGEST = 1_000_000
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and line ends, and halves of surrogate pairs


class BadField(Exception):
    """A field's value that cannot be taken; `rule` names what it breaks."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


class Fields:
    """Reads a record's fields, and notes what is wrong with each; `good` says that nothing was."""

    def __init__(self, raw: Raw, problems: Problems) -> None:
        self.raw = raw
        self.problems = problems
        self.good = True

    def bad(self, field: str, rule: str, detail: str) -> None:
        self.good = False
        self.problems.add(self.raw.where, rule, detail, id=self.raw.id, field=field)

    def value(self, *names: str) -> Any:
        """The first of these fields that is there; None if none is."""
        return next((v for v in map(self.raw.properties.get, names) if v is not None), None)

    @contextmanager
    def noting(self, field: str) -> Iterator[None]:
        """A BadField raised within is noted and the reading goes on."""
        try:
            yield
        except BadField as error:
            self.bad(field, error.rule, str(error))

    def text(self, *names: str, default: str | None = None) -> str:
        """Text in NFC without blanks around it; `default` if it is left out. Empty if bad."""
        with self.noting(names[0]):
            value = self.value(*names)
            return text(default if value is None else value)
        return ""

    def code(self, *names: str, optional: bool = False) -> str:
        """A code as it may stand in an address. Empty if bad, or left out and optional."""
        if optional and self.value(*names) is None:
            return ""
        with self.noting(names[0]):
            code = text(self.value(*names))
            if CODE.fullmatch(code):
                return code
            raise BadField("invalid_code", "a code is 1 to 40 letters A to Z, digits, dots, underlines and hyphens")
        return ""

    def choice(self, name: str, allowed: Collection[str], rule: str) -> str:
        """One of a few words. Empty if bad."""
        with self.noting(name):
            word = text(self.value(name))
            if word in allowed:
                return word
            raise BadField(rule, f"{shown(word)} is not one of {', '.join(sorted(allowed))}")
        return ""

    def integer(self, name: str, least: int, most: int = LARGEST) -> int:
        """A whole number. `least` if bad."""
        with self.noting(name):
            return integer(self.value(name), least, most, self.raw.is_text)
        return least

    def day(self, name: str) -> date | None:
        """A date as YYYY-MM-DD. None if bad or left out."""
        value = self.value(name)
        with self.noting(name):
            if value is not None:
                return day(text(value))
        return None


def text(value: object) -> str:
    """Text that can be stored and shown. Raises BadField."""
    if value is None:
        raise BadField("missing_field", "is needed")
    if not isinstance(value, str):
        raise BadField("not_text", f"{shown(value)} is not text")
    if len(value) > LONGEST_TEXT:
        raise BadField("too_long", f"{len(value)} characters, at most {LONGEST_TEXT}")
    if CONTROL.search(value):
        raise BadField("control_character", f"{shown(value)} has a control character")
    stripped = unicodedata.normalize("NFC", value).strip()
    if not stripped:
        raise BadField("missing_field", "is needed and is blank")
    return stripped


def integer(value: object, least: int, most: int, is_text: bool) -> int:
    """A whole number within both bounds; from a text cell, or a JSON number (16.0 is whole). Raises BadField."""
    if value is None:
        raise BadField("missing_field", "is needed")
    if is_text and isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,12}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise BadField("not_an_integer", f"{shown(value)} is not a whole number")
    if not least <= value <= most:
        raise BadField("negative" if value < 0 else "out_of_range", f"{value} is not within {least} and {most}")
    return value


def day(value: str) -> date:
    """A calendar day. Raises BadField."""
    try:
        return date.fromisoformat(value)
    except ValueError as error:
        raise BadField("not_a_date", f"{shown(value)} is not a date as YYYY-MM-DD") from error
