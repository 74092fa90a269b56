"""Our reference in the text of a transfer: found whatever a bank does to it, and never mistaken for another."""

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import references
from billing.references import ALPHABET, LENGTH, PREFIX

made = st.integers(0, 2**64).map(lambda seed: references.new(random.Random(seed).choice))
characters = st.sampled_from(ALPHABET)


def test_reference_is_short_and_has_no_character_that_is_taken_for_another():
    reference = references.new()
    assert len(reference) == LENGTH <= 25 and reference.startswith(PREFIX)
    assert not set("01OI") & set(ALPHABET) and set(reference) <= set(ALPHABET) and len(ALPHABET) == 32
    assert references.is_valid(reference) and references.new() != reference


@given(made, st.integers(0, LENGTH - 1), characters)
def test_one_wrong_character_is_found(reference: str, place: int, wrong: str):
    damaged = reference[:place] + wrong + reference[place + 1 :]
    assert references.is_valid(damaged) == (damaged == reference)


@given(made)
def test_any_two_characters_that_changed_places_are_found(reference: str):
    for one, other in combinations(range(len(PREFIX), LENGTH), 2):
        swapped = list(reference)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        assert references.is_valid("".join(swapped)) == (reference[one] == reference[other])


separators = st.text(" -\t\n\u00a0\u2013", max_size=3)
# Junk that cannot make up a reference by itself: it lacks the letter that begins one.
junk = st.text(st.characters(exclude_characters="Pp", exclude_categories=("Cs",)), max_size=40)


@given(made, st.lists(separators, min_size=LENGTH, max_size=LENGTH), junk, junk, st.booleans())
def test_reference_is_found_with_junk_around_it_and_gaps_inside(reference, gaps, before, after, lower):
    typed = "".join(f"{character}{gap}" for character, gap in zip(reference, gaps, strict=True))
    assert references.find(before + (typed.lower() if lower else typed) + after) == [reference]


@given(made, made)
def test_two_references_are_both_found_and_a_repeated_one_once(one: str, other: str):
    assert references.find(f"ND {one}.{other};{one}") == list(dict.fromkeys([one, other]))


@given(st.text(max_size=200))
def test_text_without_a_reference_has_none(text: str):
    assert all(references.is_valid(found) for found in references.find(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NGUYEN VAN A chuyen tien PARKING",
        "PARK",
        "PARK 2345 6789",
        "PARK0000000000O",  # neither 0 nor O is in the alphabet
        "PARKPARKPARKPARK",
        "MBVCB.4525077405.9P0019630833 CT tu 0351000646393 toi 1018795282",
    ],
)
def test_what_only_looks_like_a_reference_is_none(text: str):
    assert references.find(text) == []


def test_bank_texts_as_they_are_printed():
    reference = references.new(random.Random(7).choice)
    for text in (
        f"MBVCB.4554223041.{reference}.CT tu 0351000803936 LE THI MINH toi 0123456789",
        f"IBFT {reference[:4]} {reference[4:9]}-{reference[9:]} FT23304123456",
        f"//SAL2023304S//{reference[:8]}\n{reference[8:]}CHUYEN NHANH",
        f"park{reference[4:].lower()}",
    ):
        assert references.find(text) == [reference], text
