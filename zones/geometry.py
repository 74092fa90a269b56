"""Distances in metres on a small piece of the earth, without a projection library."""

from dataclasses import dataclass
from math import cos, radians
from typing import Any, TypeVar

import shapely
from shapely.geometry.base import BaseGeometry

METRES_PER_DEGREE = 111_195.0  # of a great circle, on the mean earth radius of 6,371,009 m

Shape = TypeVar("Shape", bound="BaseGeometry | Any")


@dataclass(frozen=True, slots=True)
class LocalPlane:
    """A flat map around one point: degrees in, metres east and north of that point out.

    Within a city (30 km) lengths are right to half a percent.
    """

    longitude: float
    latitude: float

    def to_metres(self, geometry: Shape) -> Shape:
        """The same shape, or shapes in an array (WGS 84 degrees, longitude first), in metres."""
        return shapely.transform(geometry, self._metres)

    def to_degrees(self, geometry: Shape) -> Shape:
        """The same shape (metres) in WGS 84 degrees, longitude first."""
        return shapely.transform(geometry, self._degrees)

    @property
    def metres_per_degree(self) -> tuple[float, float]:
        """Of longitude and of latitude, here."""
        return METRES_PER_DEGREE * cos(radians(self.latitude)), METRES_PER_DEGREE

    def _metres(self, points: Any) -> Any:
        return (points - (self.longitude, self.latitude)) * self.metres_per_degree

    def _degrees(self, points: Any) -> Any:
        return points / self.metres_per_degree + (self.longitude, self.latitude)
