"""Logs: the outings of the vehicle that the scenes are cut from, at hours that suit their light."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from bridgeta_synth.seeds import Seed, token

_FIRST_DAY = datetime.datetime(2023, 6, 5)
_SCENES_PER_LOG = 40
_SCENE_PERIOD_US = 90_000_000  # from the start of a scene to that of the next; scenes last 60 s at most
_HOUR = {"clear": 10, "overcast": 13, "dusk": 19, "night": 21}  # local time at which an outing in such light begins
_UTC_OFFSET = {"boston-seaport": -4}  # hours, in summer
_SINGAPORE_OFFSET = 8


@dataclass(frozen=True)
class Log:
    """One outing: in which city, in which light (`Light.kind`), on which day since the first one."""

    location: str
    light: str
    day: int

    @classmethod
    def of(cls, location: str, light: str, turn: int, city: int, cities: int) -> Log:
        """The log of a city's scene number `turn`; the one vehicle is in one city a day."""
        return cls(location, light, turn // _SCENES_PER_LOG * cities + city)

    @property
    def start(self) -> datetime.datetime:
        """When the outing begins."""
        zone = datetime.timezone(datetime.timedelta(hours=_UTC_OFFSET.get(self.location, _SINGAPORE_OFFSET)))
        return (_FIRST_DAY + datetime.timedelta(days=self.day, hours=_HOUR[self.light])).replace(tzinfo=zone)

    @property
    def name(self) -> str:
        """Name of the log file; the names of sensor files begin with it."""
        return "n000-" + self.start.strftime("%Y-%m-%d-%H-%M-%S%z")

    def scene_start_us(self, turn: int) -> int:
        """Stamp, in microseconds since 1970, of the first keyframe of the city's scene number `turn`."""
        return round(self.start.timestamp()) * 1_000_000 + turn % _SCENES_PER_LOG * _SCENE_PERIOD_US

    def token(self, seed: Seed) -> str:
        """Token of its record."""
        return token(seed, "log", self.location, self.light, self.day)

    def record(self, seed: Seed) -> dict[str, Any]:
        """Its record in the log table."""
        return {
            "token": self.token(seed),
            "logfile": self.name,
            "vehicle": "n000",
            "date_captured": self.start.strftime("%Y-%m-%d"),
            "location": self.location,
        }
