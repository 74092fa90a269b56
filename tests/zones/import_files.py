"""A city of two square districts, and files about it.

lat 52.6 +-------+-------+
         |   A   |   B   |      Both axes are under 90 degrees here, so that swapped axes are not simply out of
lat 52.5 +-------+-------+      range: the districts tell.
     lon 13.3   13.4   13.5
"""

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from zones import imports
from zones.imports import ImportRefused

DISTRICTS = {"A": shapely.box(13.3, 52.5, 13.4, 52.6), "B": shapely.box(13.4, 52.5, 13.5, 52.6)}
RATE_AREAS = ("inner", "outer")


def square(lon: float = 13.35, lat: float = 52.55, side: float = 0.001) -> dict[str, Any]:
    return shapely.geometry.mapping(shapely.box(lon, lat, lon + side, lat + side))


def zone(geometry: Any = None, **changes: Any) -> dict[str, Any]:
    facts = {
        "code": "Z-1",
        "name": "Phố Huế 1",
        "street": "Phố Huế",
        "district": "A",
        "rate_area": "inner",
        "kind": "kerb",
        "admission": "advisory",
        "max_stay_minutes": 720,
        "capacity": {"car": 16, "motorbike": 40},
        "capacity_source": "counted",
    }
    known = {name: value for name, value in (facts | changes).items() if value is not ...}
    return {"type": "Feature", "properties": known, "geometry": square() if geometry is None else geometry}


def area(geometry: Any = None, **changes: Any) -> dict[str, Any]:
    facts = {"code": "A", "name": "Ba Đình", **changes}
    known = {name: value for name, value in facts.items() if value is not ...}
    return {"type": "Feature", "properties": known, "geometry": square() if geometry is None else geometry}


def collection(*features: Any, **members: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features, **members}).encode()


class City:
    """Reads files as the command line would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, content: bytes | str, kind: imports.Kind = "zones", name: str = "city.geojson") -> list[Any]:
        file = self.folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return imports.read(kind, file, rate_areas=RATE_AREAS, districts=DISTRICTS)

    def refusals(self, content: bytes) -> list[Any]:
        """What is wrong, if anything."""
        try:
            self.read(content)
        except ImportRefused as refused:
            return refused.records
        return []

    def problems(self, content: bytes | str, kind: imports.Kind = "zones", name: str = "city.geojson") -> list[Any]:
        with pytest.raises(ImportRefused) as refused:
            self.read(content, kind, name)
        return refused.value.records

    def broken(self, content: bytes | str, kind: imports.Kind = "zones", name: str = "city.geojson") -> list[Any]:
        """Of each problem where, id, field and rule."""
        return [(each.where, each.id, each.field, each.rule) for each in self.problems(content, kind, name)]
