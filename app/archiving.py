"""The archive beside the other jobs: in a thread of its own, for a month takes minutes and a copy must heal in seconds.

A process that ends in the middle of it loses nothing (zones/archive.py).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from app.resources import Resources
from app.stack import Stack, find_database
from zones import archive
from zones.archive import ArchiveBusy, ArchiveError
from zones.parquet import UnknownColumns

log = logging.getLogger(__name__)
_at_work = threading.Lock()


def begin(resources: Resources) -> int:
    """Begin to archive what is old enough, unless no folder is set or it goes on since the last time; 1 if it began."""
    if resources.settings.archive_folder is None or not _at_work.acquire(blocking=False):
        return 0
    threading.Thread(target=_run, args=(resources,), name="archive", daemon=True).start()
    return 1


def is_at_work() -> bool:
    """Whether this process is archiving."""
    return _at_work.locked()


@contextmanager
def opened(database: str) -> Iterator[psycopg.Connection]:
    """A connection to a database of the private server, or of IPARKING_DATABASE_URL's, for a command."""
    with Stack() as stack, closing(archive.connect(find_database(stack, database))) as connection:
        yield connection


def _run(resources: Resources) -> None:
    settings = resources.settings
    assert settings.archive_folder is not None
    try:
        with closing(archive.connect(settings.owner_url or settings.database_url)) as connection:
            archive.run(connection, settings.archive_folder, resources.clock.now(), settings.archive_after_months)
    except ArchiveBusy as busy:
        log.info("%s", busy)
    except (ArchiveError, UnknownColumns, OSError, psycopg.Error):
        log.exception("the archive stopped; nothing is lost, and it goes on within the hour")
    finally:
        _at_work.release()
