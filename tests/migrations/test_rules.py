"""What a migration may do to tables that a running service uses: read from the files."""

import re
from pathlib import Path

import pytest

from app.database import MIGRATIONS

# Made before the first release, when every table was empty.
FIRST_WITH_RULES = "0004"
FILES = sorted(
    file for file in (MIGRATIONS / "versions").iterdir()
    if file.suffix in (".sql", ".py") and file.name >= FIRST_WITH_RULES
)  # fmt: skip
# What locks a table for as long as its rows take, and what to do instead.
FORBIDDEN = {
    r"CREATE (UNIQUE )?INDEX(?! CONCURRENTLY)": "create_index() of migrations/concurrently.py",
    r"ALTER COLUMN \w+ (SET DATA )?TYPE": "a new column, filled in batches",
    r"ALTER COLUMN \w+ SET NOT NULL": "a CHECK that is NOT VALID, then VALIDATE CONSTRAINT, then SET NOT NULL",
    r"ADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY)(?!.*NOT VALID)": "NOT VALID, and VALIDATE CONSTRAINT in the next one",
    r"ADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)(?! USING INDEX)": "USING INDEX, of create_index()",
    r"ADD COLUMN [^,;]*DEFAULT [^,;]*\(": "a constant DEFAULT: another rewrites the table",
    r"^\s*(VACUUM FULL|CLUSTER|REINDEX(?!.*CONCURRENTLY)|LOCK TABLE)": "nothing",
    r"^\s*UPDATE \w+ SET": "batches, outside of migrations",
}


def made_here(text: str) -> set[str]:
    return set(re.findall(r"CREATE TABLE (\w+)", text))


def breaches(text: str) -> list[str]:
    """What a migration's text breaks; tables that it makes itself are nobody's yet."""
    found = []
    for statement in re.sub(r"--[^\n]*", "", text).split(";"):
        tables = re.findall(r"(?:ALTER TABLE(?: ONLY)?|INDEX[^;]*? ON|^\s*UPDATE) (\w+)", statement, re.DOTALL)
        if tables and set(tables) <= made_here(text):
            continue
        found += [f"{pattern}: use {instead}" for pattern, instead in FORBIDDEN.items()
                  if re.search(pattern, statement, re.MULTILINE | re.DOTALL)]  # fmt: skip
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_migration_locks_no_big_table(file: Path):
    assert breaches(file.read_text()) == []


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("CREATE INDEX a ON payment (client);", True),
        ("CREATE TABLE b (c int); CREATE INDEX a ON b (c);", False),
        ("ALTER TABLE payment ADD COLUMN note text;", False),
        ("ALTER TABLE payment ADD COLUMN note text DEFAULT 'x';", False),
        ("ALTER TABLE payment ADD COLUMN id2 uuid DEFAULT gen_random_uuid();", True),
        ("ALTER TABLE payment ALTER COLUMN amount TYPE numeric;", True),
        ("ALTER TABLE payment ADD CHECK (amount > 1);", True),
        ("ALTER TABLE payment ADD CHECK (amount > 1) NOT VALID;", False),
        ("ALTER TABLE payment ADD CONSTRAINT u UNIQUE (client);", True),
        ("ALTER TABLE payment ADD CONSTRAINT u UNIQUE USING INDEX i;", False),
        ("UPDATE payment SET amount = 1;", True),
    ],
)
def test_rules_find_what_they_are_for(text: str, is_refused: bool):
    assert bool(breaches(text)) == is_refused
