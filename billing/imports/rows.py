"""From bytes to the rows of a CSV file, not yet checked cell by cell."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from billing.imports.report import ImportRefused, Problems, shown


class Row(NamedTuple):
    """The filled cells of one row by column; `where` names its line."""

    where: str
    cells: dict[str, str]


def rows(path: Path, needed: Iterable[str], optional: Iterable[str], problems: Problems) -> list[Row]:
    """The rows of a file with these columns. What is wrong with the file as such goes to `problems`."""
    found = lines(path, problems)
    if not found:
        return []
    (where, header), *body = found
    names = [name.strip().lower() for name in header]
    _check_header(where, names, set(needed), set(optional), problems)
    return [row for line, cells in body for row in cells_of(line, names, cells, problems)]


def lines(path: Path, problems: Problems) -> list[tuple[str, list[str]]]:
    """The header and the rows of a CSV file, each with the line on which it begins; none where it is no such file."""
    text = _decoded(_bytes(path), problems)
    if path.suffix.lower() in (".json", ".geojson") or text.lstrip()[:1] in ("{", "["):
        problems.add("file", "not_csv", "it is JSON, and only CSV is read")
        return []
    found = list(_parsed(text, problems))
    if len(found) < 2:
        problems.add("file", "empty_file", "it has no rows" if found else "it has no header")
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problems = Problems()
        problems.add("file", "unreadable_file", f"{path.name}: {error.strerror}")
        raise ImportRefused(problems.records) from error


def _decoded(data: bytes, problems: Problems) -> str:
    """The text, without a byte order mark; each line that is not UTF-8 is a problem."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                problems.add(f"line {number}", "bad_utf8", f"byte 0x{line[error.start]:02x} is not UTF-8")
        return data.decode("utf-8-sig", errors="replace")


def _parsed(text: str, problems: Problems) -> Iterator[tuple[str, list[str]]]:
    """Every row that is not blank, with the line on which it begins."""
    delimiter = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for row in reader:
            where, begins = f"line {begins}", reader.line_num + 1
            if any(cell.strip() for cell in row):
                yield where, row
    except csv.Error as error:
        problems.add(f"line {begins}", "malformed_csv", str(error))


def _check_header(where: str, names: list[str], needed: set[str], optional: set[str], problems: Problems) -> None:
    for name in sorted(needed - set(names)):
        problems.add(where, "missing_column", "is needed", field=name)
    for name in sorted(set(names) - needed - optional):
        problems.add(where, "unknown_column", "is no setting of a rate", field=shown(name))
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.add(where, "duplicate_column", "two columns have this name", field=shown(name))


def cells_of(where: str, names: list[str], cells: list[str], problems: Problems) -> Iterator[Row]:
    """The row of a line, unless it has another number of cells than the header."""
    if len(cells) != len(names):
        problems.add(where, "wrong_number_of_columns", f"{len(cells)} instead of {len(names)}")
        return
    yield Row(where, {name: cell.strip() for name, cell in zip(names, cells, strict=True) if cell.strip()})
