"""The options of `./iparking bench core` and `./iparking bench money`."""

import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

MODES = ("growth", "soak", "profile")
# Which options each form takes besides --json; "" is the form without a mode.
TAKEN = {
    "": {"rounds", "seconds", "only", "ceiling_threads", "service_threads"},
    "growth": {"sizes", "keep", "rounds", "seconds", "service_threads"},
    "soak": {"minutes", "rate", "service_threads"},
    "profile": {"folder", "seconds", "service_threads"},
}


def _names(_: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.core import NAMES

    return _chosen(option, value, NAMES)


def _chosen(option: click.Parameter, value: str | None, known: tuple[str, ...]) -> tuple[str, ...] | None:
    """Names with commas between, each one that the bench knows."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: choose among {', '.join(known)}", param=option)
    return names


def _parts(_: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from bench.money import PARTS

    return _chosen(option, value, tuple(PARTS))


def _sizes(_: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """At least two growing numbers with commas between; 10k and 20M are numbers too."""
    if value is None:
        return None
    try:
        sizes = tuple(_number(part.strip()) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{error} is no number of sessions", param=option) from None
    if len(sizes) < 2 or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
        raise click.BadParameter("two or more growing numbers are needed", param=option)
    return sizes


def _number(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kM]?)", text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * {"": 1, "k": 10**3, "M": 10**6}[found[2]]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--growth", is_flag=True, help="Measure at growing numbers of past sessions instead.")
@click.option("--soak", is_flag=True, help="Watch the memory of the API's workers under a steady load instead.")
@click.option(
    "--profile", is_flag=True, help="Leave a flame graph and the top statements of a burst of starts instead."
)
@click.option("--rounds", type=click.IntRange(1), help="How many rounds.  [default: 7; of --growth, 3]")
@click.option("--seconds", type=click.IntRange(1), help="Length of each burst.  [default: 3; of a profile, 10]")
@click.option("--only", callback=_names, help="Only these loads (and what each is divided by), with commas between.")
@click.option(
    "--ceiling-threads", type=click.IntRange(1, 128), help="Threads of a reference's worker.  [default: the best]"
)
@click.option(
    "--service-threads",
    type=click.IntRange(1, 128),
    help="Threads of the service's worker.  [default: the best, else 16]",
)
@click.option("--sizes", callback=_sizes, help="Numbers of past sessions, for --growth.  [default: 10k,1M,20M]")
@click.option(
    "--keep", is_flag=True, default=None, help="Leave the databases of --growth, and take those that are there."
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="How long to soak.  [default: 10]")
@click.option("--rate", type=click.IntRange(1), help="Requests a second of the soak.  [default: 200]")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where a profile goes.  [default: profile]"
)
@click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
def core(json_: bool, growth: bool, soak: bool, profile: bool, **options: Any) -> None:
    """Each call of the service beside a bare Flask view that does the least it could be, in alternating rounds.

    \b
    Example: ./iparking bench core --json
    Example: ./iparking bench core --only start,hot_zone --rounds 3 --service-threads 16
    Example: ./iparking bench core --growth --sizes 10k,1M,20M --keep
    Example: ./iparking bench core --soak --minutes 10
    Example: ./iparking bench core --profile --folder profile
    """
    given = {name: value for name, value in options.items() if value is not None}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, as after Ctrl-C
    raise SystemExit(_run(_mode({"growth": growth, "soak": soak, "profile": profile}, given), json_, given))


def _mode(wanted: Mapping[str, bool], given: Mapping[str, Any]) -> str:
    """The form that is asked for. Raises UsageError where options exclude each other."""
    modes = [mode for mode in MODES if wanted[mode]]
    if len(modes) > 1:
        raise click.UsageError(f"--{modes[0]} and --{modes[1]} exclude each other")
    mode = modes[0] if modes else ""
    for name in given:
        if name not in TAKEN[mode]:
            takers = " or ".join(f"--{other}" if other else "the plain form" for other in TAKEN if name in TAKEN[other])
            raise click.UsageError(f"--{name.replace('_', '-')} is an option of {takers}")
    return mode


def _run(mode: str, json: bool, given: dict[str, Any]) -> int:
    """Measure and print; the exit code."""
    threads = given.pop("service_threads", None)
    if mode == "growth":
        from bench.growth import run
    elif mode == "soak":
        from bench.soak import run
    elif mode == "profile":
        from bench.profile import run
    else:
        return _run_plain(json, threads, given)
    return run(json, **given, **({} if threads is None else {"threads": threads}))


def _run_plain(json: bool, threads: int | None, given: dict[str, Any]) -> int:
    from bench import core

    if threads is not None:
        given["service_threads"] = (threads,)
    if "ceiling_threads" in given:
        given["ceiling_threads"] = (given["ceiling_threads"],)
    return core.run(json, **given)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--rounds", type=click.IntRange(1), help="How many rounds of bursts.  [default: 7]")
@click.option("--seconds", type=click.IntRange(1), help="Length of each burst.  [default: 3]")
@click.option("--only", callback=_parts, help="Only these parts, with commas between.")
@click.option(
    "--keep", is_flag=True, default=None, help="Leave the database of ledger_check, and take the one that is there."
)
@click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
def money(json_: bool, **options: Any) -> None:
    """Wallet starts and stops beside free ones, and how long a large ledger takes to check and to reconcile.

    \b
    Example: ./iparking bench money --json
    Example: ./iparking bench money --only wallet_start --rounds 3
    Example: ./iparking bench money --only ledger_check --keep
    """
    from bench.money import run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, as after Ctrl-C
    raise SystemExit(run(json_, **{name: value for name, value in options.items() if value is not None}))
