"""The served document against the served interface: no 500, no undocumented answer, whatever is sent."""

import contextlib
import os
import re

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_schema_validator import OAS31Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.conftest import KEYS, Client

# What a valid body meets in a city depends on facts (404, 409), so "valid data must be accepted" is no rule here.
EXAMPLES = 300 if os.environ.get("IPARKING_TEST_DEEP") else 40
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_served_interface_is_as_documented(app: Flask, mode: GenerationMode):
    served = schemathesis.openapi.from_wsgi("/openapi.json", app)
    operations = [found.ok() for found in served.get_all_operations()]
    assert len(operations) >= 12
    for operation in operations:
        attack(operation, mode)


def attack(operation: schemathesis.schemas.APIOperation, mode: GenerationMode) -> None:
    """Send many generated requests of one mode, in the role that the operation is for."""
    role = re.search(r"Role: (\w+)", operation.definition.raw.get("description", ""))
    # What is wrong with a query may be lost on its way into an address; what is wrong with a body arrives.
    wanted = [*CHECKS, checks.negative_data_rejection] if operation.body else CHECKS
    headers = {"Authorization": f"Bearer {KEYS[role[1]]}"} if role else {}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=headers, checks=wanted)

    with contextlib.suppress(Unsatisfiable):  # an operation without parameters cannot be called wrongly
        send()


def test_document_is_valid_openapi(client: Client):
    document = client.get("/openapi.json").json
    for one in document["components"]["schemas"].values():
        OAS31Validator.check_schema(one)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                assert operation["summary"], (method, path)
