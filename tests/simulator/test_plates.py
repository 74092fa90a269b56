"""Invented plates: valid, all different, and never reached by one wrong digit."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.plates import MOTORBIKE_SERIES, SERIALS, SERIES, mistyped, plates
from zones.plates import parse


@given(seed=st.integers(0, 10**9), vehicle_class=st.sampled_from(["car", "motorbike"]))
@settings(deadline=None, max_examples=30)
def test_invented_plates_are_valid_and_all_different(seed: int, vehicle_class: str) -> None:
    another = plates(vehicle_class, seed)
    made = [another() for _ in range(300)]
    assert len(set(made)) == 300
    form = r"\d\d[A-Z]-\d{3}\.\d\d" if vehicle_class == "car" else r"\d\d-[A-Z][A-Z1-9] \d{3}\.\d\d"
    for text in made:
        assert re.fullmatch(form, text)
        assert parse(text, vehicle_class).text == text
        assert sum(int(digit) for digit in text[-6:] if digit.isdigit()) % 10 == 0


def test_plates_run_out_with_a_clear_word_after_each_was_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SERIES, "car", ("30A-", "30B-"))
    another = plates("car", 3)
    made = {another() for _ in range(2 * SERIALS)}
    assert len(made) == 2 * SERIALS
    with pytest.raises(ValueError, match="19,998 invented car plates"):
        another()
    assert len(set(MOTORBIKE_SERIES)) == len(MOTORBIKE_SERIES)


@given(place=st.integers(0, 4), step=st.integers(1, 9), seed=st.integers(0, 1000))
def test_mistyped_plate_is_valid_and_no_invented_one(place: int, step: int, seed: int) -> None:
    true = plates("motorbike", seed)()
    typed = mistyped(true, place, step)
    assert sum(a != b for a, b in zip(true, typed, strict=True)) == 1
    assert parse(typed, "motorbike").text == typed
    assert sum(int(digit) for digit in typed[-6:] if digit.isdigit()) % 10 != 0
