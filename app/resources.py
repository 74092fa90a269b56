"""What the service needs of its surroundings, made once and handed down."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any, TypeVar

import psycopg
from flask import current_app
from sqlalchemy import Engine

from app.catalogue import Catalogue
from app.clock import Clock, make_clock
from app.config import BadSetting, Settings
from app.database import ThreadConnections, make_engine
from app.grouping import Group
from app.identity.keys import Keys, load_keys
from app.replica import Replica, ReplicaAway
from billing.einvoices import Provider
from billing.einvoices.folder import Folder
from billing.gateways import CardGateway
from zones.nodes import Nodes, connect
from zones.occupancy import Copies
from zones.sessions import Count

log = logging.getLogger(__name__)
Call = TypeVar("Call")
Answer = TypeVar("Answer")
# Carries out calls of one kind, on one connection: see Group.
Run = Callable[["Resources", psycopg.Connection, Sequence[Call]], Sequence[Answer | Exception | None]]
# A group does not wait for the rival of one of its members: that member waits by itself, as long as others may.
GROUP_LOCK_TIMEOUT_SECONDS = 0.2


@dataclass(frozen=True)
class Resources:
    """One process's clock, connections, keys and copies of what is in force."""

    settings: Settings
    clock: Clock
    engine: Engine
    connections: ThreadConnections
    redis: Nodes
    keys: Keys
    catalogue: Catalogue
    replica: Replica | None = None
    einvoices: Provider | None = None

    def read(self, ask: Callable[[psycopg.Connection, datetime], Answer]) -> Answer:
        """What reads that may be a little old are answered: by the replica where one keeps up, else by the primary.

        `ask` is given the instant up to which its connection knows everything; where a replica fails in the middle it
        is called again. Raises psycopg.OperationalError.
        """
        now = self.clock.now()
        if self.replica is not None:
            try:
                with self.replica.reading() as (connection, age):
                    return ask(connection, now - age * self.clock.speed)
            except ReplicaAway as away:
                log.debug("the primary is asked: %s", away)
        return ask(self.connections.get(), now)

    @property
    def copies(self) -> Copies:
        """The counts in Redis, of the database as it is now. Raises Unavailable while its id is not known."""
        database_id = self.catalogue.database_id
        try:
            return self._copies[database_id]
        except KeyError:
            return self._copies.setdefault(database_id, Copies(self.redis, database_id))

    def push(self, *counts: Count | None) -> None:
        """Hand changed counts to Redis, after their commit. A lost one is repaired by the reconciler."""
        changed = [count for count in counts if count is not None]
        if changed:
            self.copies.push(changed)

    @cached_property
    def _copies(self) -> dict[str, Copies]:
        return {}

    @cached_property
    def card_gateway(self) -> CardGateway | None:
        """Stripe, where it is set up, for the jobs and the command line. Loaded when it is first asked for: it takes
        tens of megabytes."""
        if self.settings.stripe_key is None:
            return None
        from billing.gateways.stripe import Stripe

        return Stripe(self.settings.stripe_key, self.settings.stripe_url, self.settings.stripe_minimum)

    @cached_property
    def inline_card_gateway(self) -> CardGateway | None:
        """The same for the threads of requests, which do not wait for it together, nor for long."""
        given = self.settings
        if given.stripe_key is None:
            return None
        from app.inline import InlineStripe

        return InlineStripe(given.stripe_key, given.stripe_url, given.stripe_minimum, given.threads)

    def group(self, run: Run[Call, Answer]) -> Group[Call, Answer]:
        """The group in which this process's threads run calls of one kind together."""
        try:
            return self._groups[run]
        except KeyError:
            connect = self.connections.own(GROUP_LOCK_TIMEOUT_SECONDS)
            made = Group(partial(run, self), connect, self.connections.get)
            return self._groups.setdefault(run, made)

    @cached_property
    def _groups(self) -> dict[Callable[..., Any], Group[Any, Any]]:
        return {}

    def watch(self) -> None:
        """Begin to keep the catalogue fresh and to watch over all servers, in threads of their own, until `close`."""
        self.catalogue.keep_fresh()
        self.connections.pulse.watch()
        if self.replica is not None:
            self.replica.watch()

    def close(self) -> None:
        """End the threads and the connections of this process, once nothing uses them any more."""
        self.catalogue.stop()
        for copies in self._copies.values():
            copies.close()
        self.redis.close()
        self.connections.close()
        if self.replica is not None:
            self.replica.close()
        self.engine.dispose()


def make_redis(settings: Settings) -> Nodes:
    """A client that gives up fast: copies are never worth waiting for. Raises BadSetting where the URL is wrong."""
    try:
        return connect(settings.redis_url, settings.redis_timeout_seconds)
    except ValueError as error:
        raise BadSetting(f"IPARKING_REDIS_URL: {error}") from None


def make_resources(settings: Settings) -> Resources:
    """Everything that the settings name. Nothing is connected yet."""
    engine, connections = make_engine(settings), ThreadConnections(settings)
    connections.adopt(engine)
    replica = Replica(settings) if settings.replica_url else None
    return Resources(
        settings=settings,
        clock=make_clock(settings),
        engine=engine,
        connections=connections,
        redis=make_redis(settings),
        keys=load_keys(settings.keys_path),
        catalogue=Catalogue(engine, replica.note) if replica else Catalogue(engine),
        replica=replica,
        einvoices=Folder(settings.einvoice_folder) if settings.einvoice_folder else None,
    )


def resources() -> Resources:
    """The resources of the application that handles the current request."""
    return current_app.extensions["iparking"]
