"""What a wallet costs a start and a stop: beside free ones on the same service, in alternating rounds.

Half of the zones cost nothing, and are parked in by the method `free`; in the other half the shipped rates hold, and
sessions are paid from wallets: a start puts money aside, a stop charges it and books what it takes in the ledger.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from app.stack import Stack
from bench import city, report
from bench.core import Say, alternating
from bench.loads import ServiceLoads
from bench.money import Part, Plan, at_least
from bench.servers import Service
from bench.site import FUNDS, Load, Measured, Site, open_site, serving

# What is divided by what.
PAIRS = {"wallet_start": ("wallet_start", "free_start"), "wallet_stop": ("wallet_stop", "free_stop")}
AT_LEAST = {"wallet_start": 0.75}


def measure(stack: Stack, plan: Plan, say: Say) -> Part:
    """Both kinds of starts and stops, on a database of their own. Raises BenchError."""
    with open_site(stack, plan.client, free=False) as site:
        free, paid = site.zones[::2], site.zones[1::2]
        city.make_free(site.connection, free)
        service = Service(site.stack, site.folder, "money", plan.workers, plan.threads, plan.drivers, funds=FUNDS)
        with serving(service):
            without = ServiceLoads(site, service, "free", free, "free_")
            by_wallet = ServiceLoads(site, service, "wallet", paid, "wallet_")
            loads = [without.start, by_wallet.start, without.stop, by_wallet.stop]
            rounds = _rounds(site, plan, loads, say)
    return _part(rounds, plan)


def _rounds(site: Site, plan: Plan, loads: Sequence[Load], say: Say) -> list[dict[str, Measured]]:
    rounds: list[dict[str, Measured]] = []
    for number in range(plan.rounds):
        measured: dict[str, Measured] = {}
        for load in alternating(list(loads), number):
            measured[load.name] = site.measure(load, plan.warm_seconds, plan.seconds)
            rate = measured[load.name].burst.rps
            say(f"round {number + 1} of {plan.rounds}: {load.name}: {rate:,.0f} a second")
        rounds.append({load.name: measured[load.name] for load in loads})
    return rounds


def _part(rounds: Sequence[Mapping[str, Measured]], plan: Plan) -> Part:
    """Medians, and medians of the ratios within a round."""
    paired = {name: report.paired(rounds, *pair) for name, pair in PAIRS.items()}
    ratios = {name: round(median(values), 3) for name, values in paired.items()}
    sizes: dict[str, Any] = {"rounds": len(rounds), "burst_seconds": plan.seconds, "workers": plan.workers}
    sizes |= {"threads": plan.threads, "drivers": plan.drivers, "connections": plan.client.connections}
    return Part(
        report.results(rounds),
        ratios,
        {name: at_least(ratios[name], bound) for name, bound in AT_LEAST.items()},
        {"ratio_rounds": paired, **sizes},
    )
