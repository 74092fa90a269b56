"""Small cities for the tests of the simulator."""

from typing import Any

from simulator.city import City, District, Zone


def zone(code: str, **facts: Any) -> Zone:
    """A kerb zone in Hoàn Kiếm for 20 cars and 40 motorbikes, unless told otherwise."""
    usual: dict[str, Any] = {
        "name": code,
        "district": "002",
        "rate_area": "core",
        "kind": "kerb",
        "admission": "advisory",
        "max_stay_minutes": 720,
        "capacity": {"car": 20, "motorbike": 40},
        "centroid": (105.85, 21.03),
    }
    return Zone(code=code, **(usual | facts))


def small_city() -> City:
    """Two districts: kerb zones, one small strict one, one that serves cars alone, one without places for anybody."""
    return City(
        (
            zone("HK-001"),
            zone("HK-002", capacity={"car": 60, "motorbike": 120}),
            zone("HK-003", admission="strict", kind="off_street", max_stay_minutes=1440, capacity={"car": 6}),
            zone("DD-001", district="006", capacity={"car": 40, "motorbike": 90}),
            zone("DD-002", district="006", max_stay_minutes=60),
            zone("DD-003", district="006", capacity={"car": 0, "motorbike": 0}),
        ),
        (District("002", "Hoàn Kiếm"), District("006", "Đống Đa")),
    )
