"""The parameter file: each fault is named by its field."""

import re
from pathlib import Path

import msgspec
import pytest

from simulator.parameters import DEFAULT_FILE, load
from simulator.trace import InputError


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("car = 3.5", "car = -1", "stays_per_place.car"),
        ("car = 3.5\n", "", "stays_per_place"),
        ("never_stopped = 0.03", "never_stopped = 1.5", "stay.never_stopped"),
        ("[again]\nshare", "[again]\nchance = 1\nshare", "again"),
        ("[districts.default]", '[districts."000"]', "districts"),
        ("office = 0.45", "office = 0.46", "districts.001.mix"),
        ("office = 0.45", "offices = 0.45", "districts.001.mix"),
        ("dwell_p90 = 330", "dwell_p90 = 80", "land_uses.office.dwell_p90"),
        ("early_stop = 0.45", "early_stop = 0.95", "prepaid"),
        ("lead_minutes = 8", "lead_minutes = 45", "prepaid.lead_minutes"),
        ("late_minutes = [2, 14]", "late_minutes = [20, 14]", "prepaid.late_minutes"),
        ("pause_minutes = 25", "pause_minutes = 5", "again.pause_minutes"),
        ('"01-01"', '"1 January"', "holidays.every_year"),
        ("[stock]", "[stock", None),
    ],
)
def test_bad_parameter_is_named(tmp_path: Path, old: str, new: str, field: str | None) -> None:
    text = DEFAULT_FILE.read_text()
    assert old in text
    path = tmp_path / "demand.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert (caught.value.field or "").startswith(field or "") and (field is None) == (caught.value.field is None)


def test_profile_of_zeros_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demand.toml"
    path.write_text(re.sub(r"(?m)^weekday = \[.*\]", f"weekday = {[0] * 24}", DEFAULT_FILE.read_text(), count=1))
    with pytest.raises(InputError, match=r"land_uses\.office\.profile\.weekday"):
        load(path)


def test_missing_and_unreadable_parameter_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(InputError):
        load(tmp_path / "bad.toml")


def test_digest_of_parameters_follows_their_values() -> None:
    read = load()
    changed = msgspec.structs.replace(read, stay=msgspec.structs.replace(read.stay, never_stopped=0.04))
    assert load().digest() == read.digest() != changed.digest()
