"""Plates: the samples, the traps, and that one plate has one canonical text."""

import csv
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zones import plates
from zones.errors import InvalidPlate
from zones.plates import PROVINCES, parse

CLASSES = ("car", "motorbike")
letters = st.sampled_from("ABCDEFGHKLMNPSTUVXYZ")
numbers = st.one_of(st.from_regex(r"[0-9]{4}", fullmatch=True), st.from_regex(r"[0-9]{3}\.[0-9]{2}", fullmatch=True))
provinces = st.sampled_from(sorted(PROVINCES))
# A motorbike's two letters; of the special series, which any class may have, they are the same as of a car.
SPECIAL = ("LD", "DA", "KT", "CD", "HC", "MK", "RM")
pairs = st.builds("{}{}".format, letters, letters).filter(lambda pair: pair not in SPECIAL)
canonical = st.one_of(
    st.builds("{}{}-{}".format, provinces, letters, numbers),
    st.builds("{}-{}{} {}".format, provinces, letters, st.integers(1, 9), numbers),
    st.builds("{}-{} {:03}.{:02}".format, provinces, pairs, st.integers(0, 999), st.integers(0, 99)),
    st.builds("{}-MĐ{} {:03}.{:02}".format, provinces, st.integers(1, 9), st.integers(0, 999), st.integers(0, 99)),
    st.builds("{}KT-{}".format, provinces, numbers),
    st.builds("T{}-{}".format, provinces, numbers),
    st.builds(
        "80-{:03}-{}-{:02}".format, st.integers(0, 999), st.sampled_from(["NG", "QT", "CV", "NN"]), st.integers(0, 99)
    ),
    st.builds("QA-{:04}".format, st.integers(0, 9999)),
)


def test_samples_belong_to_their_series(shared: Path):
    with (shared / "data/plates/samples.csv").open(encoding="utf-8", newline="") as file:
        samples = list(csv.DictReader(file))
    assert len(samples) > 20
    for sample in samples:
        if sample["expected"] == "invalid":
            with pytest.raises(InvalidPlate):
                parse(sample["plate"])
        else:
            assert parse(sample["plate"]).series == sample["expected"], sample


@pytest.mark.parametrize(
    ("typed", "vehicle_class", "text"),
    [
        ("29E11234", None, "29E-112.34"),
        ("29E11234", "car", "29E-112.34"),
        ("29E11234", "motorbike", "29-E1 1234"),
        ("29-X1 2345", None, "29-X1 2345"),
        ("29X-123.45", None, "29X-123.45"),
        ("30a12345", "car", "30A-123.45"),
        ("３０Ａ－１２３．４５", "car", "30A-123.45"),
        ("30А-123.45", "car", "30A-123.45"),  # Cyrillic А
        ("29mđ1 12345", "motorbike", "29-MĐ1 123.45"),
        ("29MÐ112345", "motorbike", "29-MĐ1 123.45"),  # Icelandic Ð
        ("29MƉ112345", "motorbike", "29-MĐ1 123.45"),  # African Ɖ
        ("30A\u200b-123\u00a0.45", "car", "30A-123.45"),
        ("30A,123,45", "car", "30A-123.45"),
        ("80NG-123-45", "car", "80-123-NG-45"),
        ("29KT-123.45", "motorbike", "29KT-123.45"),
    ],
)
def test_text_is_canonical(typed: str, vehicle_class: str | None, text: str):
    assert parse(typed, vehicle_class).text == text


@pytest.mark.parametrize(
    ("typed", "vehicle_class"),
    [
        ("29-B1 123.45", "car"),
        ("29-AB 123.45", "car"),
        ("30A-123.45", "motorbike"),
        ("29-X1 2345", "car"),
        ("29E-112.34", "motorbike"),
        ("29MD112345", "motorbike"),  # D is not Đ in a plate
        ("", None),
        (" - . ", None),
        ("30A-123.4", None),
        ("30A-123.456", None),
        ("13A-123.45", None),
        ("00A-123.45", None),
        ("30A\x0012345", None),
        ("30A-123.45" + " " * 1_000_000, None),
        ("30Á-123.45", None),
        ("²⁹A-123.45X", None),
        ("30A-١٢٣٤٥", None),  # Arabic digits are no plate's
        ("29ß12345", None),
        ("29-AB1 2345", None),  # a digit is missing
        ("30A-1 23.45", None),
    ],
)
def test_what_is_no_plate_is_refused(typed: str, vehicle_class: str | None):
    with pytest.raises(InvalidPlate):
        parse(typed, vehicle_class)


@given(canonical, st.sampled_from([None, *CLASSES]))
@example("29E-112.34", "car")
@example("29-E1 1234", "motorbike")
@example("80-011-NG-01", None)
def test_canonical_text_reads_as_itself(text: str, vehicle_class: str | None):
    series_class = parse(text).vehicle_class
    if vehicle_class in (None, series_class) or series_class is None:
        assert parse(text, vehicle_class).text == text
    else:
        with pytest.raises(InvalidPlate):
            parse(text, vehicle_class)


@given(canonical, canonical, st.sampled_from(CLASSES))
def test_two_texts_are_two_plates(one: str, other: str, vehicle_class: str):
    def bare(text: str) -> str:
        return "".join(c for c in text if c.isalnum())

    classes = [parse(text).vehicle_class for text in (one, other)]
    if one != other and bare(one) == bare(other):
        assert set(classes) == set(CLASSES), "the same signs are two plates only where their classes differ"


@given(st.text(max_size=40), st.sampled_from([None, *CLASSES]))
def test_any_text_is_a_plate_or_refused(text: str, vehicle_class: str | None):
    try:
        plate = parse(text, vehicle_class)
    except InvalidPlate:
        return
    assert plate.text and parse(plate.text, vehicle_class or plate.vehicle_class) == plate


@given(canonical, st.randoms(use_true_random=False))
def test_spacing_and_case_do_not_matter_where_nothing_is_ambiguous(text: str, random):
    plate = parse(text)
    vehicle_class = plate.vehicle_class or "car"
    typed = "".join(c.lower() if random.random() < 0.5 else c for c in text if c.isalnum())
    assert parse(typed, vehicle_class).text == text


def test_folding_is_for_searching_only():
    assert plates.fold("29-MĐ1 123.45") == "29MD112345"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("30A-123.45", "30A-12•••"),
        ("30A-1234", "30A-1•••"),
        ("29-B1 123.45", "29-B1 12•••"),
        ("29-MĐ1 123.45", "29-MĐ1 12•••"),
        ("29MĐ-123.45", "29MĐ-12•••"),
        ("T29-123.45", "T29-12•••"),
        ("80-011-NG-01", "80-011-N•-••"),
        ("QA-1234", "QA-1•••"),
    ],
)
def test_masked_plate_hides_the_last_three(text: str, masked: str):
    assert plates.masked(text) == masked


@given(canonical)
def test_a_masked_plate_stands_for_many_and_shows_no_other_letter(text: str):
    masked = plates.masked(text)
    assert masked.count("•") == 3
    assert text.startswith(masked[: masked.index("•")])
    assert sum(c.isalnum() for c in masked) == sum(c.isalnum() for c in text) - 3
