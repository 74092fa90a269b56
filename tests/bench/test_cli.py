"""Options that exclude each other are refused with a clear line."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from bench import cli


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, dict[str, Any]]]:
    """What would be run."""
    calls: list[tuple[str, bool, dict[str, Any]]] = []
    monkeypatch.setattr(cli, "_run", lambda mode, json, given: calls.append((mode, json, given)))
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    return calls


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--growth --soak", "--growth and --soak exclude each other"),
        ("--soak --profile", "--soak and --profile exclude each other"),
        ("--sizes 1k,2k", "--sizes is an option of --growth"),
        ("--soak --keep", "--keep is an option of --growth"),
        ("--minutes 3", "--minutes is an option of --soak"),
        ("--folder x", "--folder is an option of --profile"),
        ("--soak --only start", "--only is an option of the plain form"),
        ("--soak --rounds 3", "--rounds is an option of the plain form or --growth"),
        ("--growth --ceiling-threads 2", "--ceiling-threads is an option of the plain form"),
        ("--only start,fly", "fly: choose among start, ceiling"),
        ("--growth --sizes 5k", "two or more growing numbers"),
        ("--growth --sizes 5k,1k", "two or more growing numbers"),
        ("--growth --sizes 5k,lots", "lots is no number of sessions"),
        ("--soak --minutes 0", "0"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: list[Any], arguments: str, line: str) -> None:
    done = CliRunner().invoke(cli.core, arguments.split())
    assert (done.exit_code, asked) == (2, [])
    assert line in done.output


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ("", ("", False, {})),
        ("--json --only start,hot_zone", ("", True, {"only": ("start", "hot_zone")})),
        (
            "--growth --sizes 10k,1M,20000000 --rounds 2",
            ("growth", False, {"sizes": (10_000, 1_000_000, 20_000_000), "rounds": 2}),
        ),
        ("--soak --minutes 0.5 --json", ("soak", True, {"minutes": 0.5})),
        ("--profile --seconds 4", ("profile", False, {"seconds": 4})),
    ],
)
def test_what_is_asked_for_is_run(asked: list[Any], arguments: str, call: tuple[str, bool, dict[str, Any]]) -> None:
    CliRunner().invoke(cli.core, arguments.split())
    assert asked == [call]


def test_every_option_belongs_to_a_form() -> None:
    names = {option.name for option in cli.core.params if isinstance(option, click.Option)}
    assert names == {"json_", *cli.MODES, *set().union(*cli.TAKEN.values())}


def test_parts_of_the_money_bench_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("bench.money.run", lambda json, **given: asked.append({"json": json, **given}) or 0)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    refused = CliRunner().invoke(cli.money, ["--only", "alms"])
    assert (refused.exit_code, asked) == (2, []) and "choose among wallet_start" in refused.output
    assert CliRunner().invoke(cli.money, ["--only", "wallet_start", "--rounds", "2", "--json"]).exit_code == 0
    assert asked == [{"json": True, "only": ("wallet_start",), "rounds": 2}]
