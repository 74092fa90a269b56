import re, contextlib, json
import pytest, schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from tests.contract.test_openapi import CHECKS, MODES
from tests.conftest import KEYS
from tests.conftest import *
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_mine(app, mode):
    served = schemathesis.openapi.from_wsgi("/openapi.json", app)
    n=0; from collections import Counter; seen=Counter()
    for op in [f.ok() for f in served.get_all_operations()]:
        if "reports" not in op.path and "enforcement" not in op.path: continue
        role = re.search(r"Role: (\w+)", op.definition.raw["description"])[1]
        @given(case=op.as_strategy(generation_mode=mode))
        @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def send(case):
            r = case.call(headers={"Authorization": f"Bearer {KEYS[role]}"})
            seen[op.path, r.status_code]+=1
            case.validate_response(r, checks=CHECKS)
        send(); n+=1
    print(seen)
    assert n==3
def test_doc(client):
    d=client.get("/openapi.json").json
    print(json.dumps(d["paths"]["/v1/reports/occupancy"],indent=1))
    print(json.dumps(d["paths"]["/v1/enforcement/checks"],indent=1)[:1500])
    for n in ("Sighting","PlateCheck","Position","OccupancyRow","Occupancy","RevenueRow"): print(n, json.dumps(d["components"]["schemas"][n]))
