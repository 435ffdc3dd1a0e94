"""Build the bodies of vehicles: solids in the frame of their actor.

An actor's frame has its origin on the ground below the middle of the actor, x forward, y left and z up. Every builder
fills a box of `size` (length, width, height) around that origin to its faces, so that the box is the annotation.
Wheels of cars stand at 31 % and -29 % of the length, where `BODY` is painted with wheel arches.
"""

from __future__ import annotations

from collections.abc import Callable

from bridgeta_synth.world.solids import BODY, BUS, CABIN, CARGO, LAMPHEAD, TRUCK, WALL, WHEEL, Colour, SolidList

Size = tuple[float, float, float]
Lean = tuple[float, float, float]
Builder = Callable[["Body", Size, Colour], None]

RUBBER: Colour = (0.05, 0.05, 0.055)
DARK: Colour = (0.13, 0.13, 0.15)
STEEL: Colour = (0.45, 0.46, 0.48)
_MACHINE: Colour = (0.86, 0.62, 0.10)


class Body:
    """The body of one actor: `owner` is the actor's index, `seed` varies the look of its solids."""

    def __init__(self, into: SolidList, owner: int, seed: int) -> None:
        self._into, self.owner, self.seed = into, owner, seed

    def box(
        self, kind: int, at: Size, size: Size, colour: Colour, lean: Lean = (0.0, 0.0, 0.0), main: bool = False
    ) -> None:
        """Add a tapered box: `at` is the middle of its base."""
        self._into.add(kind, at, size, colour, lean=lean, seed=self.seed, owner=self.owner, main=main)

    def ball(self, kind: int, at: Size, size: Size, colour: Colour, main: bool = False) -> None:
        """Add an ellipsoid: `at` is its lowest point."""
        self._into.add(kind, at, size, colour, seed=self.seed, owner=self.owner, main=main, is_round=True)

    def wheels(self, xs: tuple[float, ...], width: float, radius: float, tyre: float = 0.24) -> None:
        """Add a wheel on either side of a vehicle for every x."""
        for x in xs:
            for y in (0.5 * (width - tyre) - 0.01, -0.5 * (width - tyre) + 0.01):
                self.ball(WHEEL, (x, y, 0.0), (2 * radius, tyre, 2 * radius), RUBBER)

    def wheel(self, x: float, radius: float, tyre: float) -> None:
        """Add a wheel of a cycle."""
        self.ball(WHEEL, (x, 0.0, 0.0), (2 * radius, tyre, 2 * radius), RUBBER)


def _car(body: Body, size: Size, colour: Colour, waist: float, cabin: tuple[float, float], lean: Lean) -> None:
    """Build a car with its waist at a share of its height and a cabin (length, middle) in shares of its length."""
    length, width, height = size
    rise = waist * height
    body.wheels((0.31 * length, -0.29 * length), width, 0.235 * min(height, 1.5))
    body.box(BODY, (0, 0, 0.2), (length, width, rise - 0.2), colour, lean=(0.12, 0.08, 0.06), main=True)
    long, middle = cabin
    top = (long * length, width - 0.1, height - rise + 0.02)
    body.box(CABIN, (middle * length, 0, rise - 0.02), top, colour, lean=lean)


def saloon(body: Body, size: Size, colour: Colour) -> None:
    """Build a car with a boot."""
    _car(body, size, colour, 0.56, (0.62, -0.06), (1.0, 0.75, 0.25))


def hatchback(body: Body, size: Size, colour: Colour) -> None:
    """Build a short car without a boot."""
    _car(body, size, colour, 0.56, (0.68, -0.14), (0.95, 0.4, 0.22))


def suv(body: Body, size: Size, colour: Colour) -> None:
    """Build a tall car."""
    _car(body, size, colour, 0.58, (0.70, -0.13), (0.75, 0.22, 0.16))


def van(body: Body, size: Size, colour: Colour) -> None:
    """Build a van: a short bonnet and an upright tail."""
    _car(body, size, colour, 0.54, (0.88, -0.055), (0.55, 0.05, 0.08))


def pickup(body: Body, size: Size, colour: Colour) -> None:
    """Build a pickup: a cabin before an open bed."""
    _car(body, size, colour, 0.54, (0.42, 0.03), (0.7, 0.15, 0.16))


def patrol_car(body: Body, size: Size, colour: Colour) -> None:
    """Build a police car with lights on the roof."""
    length, width, height = size
    _car(body, (length, width, height - 0.1), colour, 0.58, (0.66, -0.08), (0.85, 0.45, 0.2))
    body.box(LAMPHEAD, (-0.08 * length, 0, height - 0.1), (0.25, 0.6 * width, 0.1), (0.15, 0.25, 0.85))


def ambulance(body: Body, size: Size, colour: Colour) -> None:
    """Build a box with lights behind a van's cab."""
    length, width, height = size
    _lorry_cab(body, size, colour, 0.34, 0.72)
    box = 0.64 * length
    body.box(CARGO, (0.5 * (box - length), 0, 0.4), (box, width, height - 0.5), colour, main=True)
    body.box(LAMPHEAD, (0.5 * box - 0.36 * length, 0, height - 0.1), (0.3, 0.8 * width, 0.1), (0.8, 0.12, 0.1))


def _lorry_cab(body: Body, size: Size, colour: Colour, share: float, tall: float) -> None:
    """Build cab and wheels of a truck; `share` and `tall` are the cab's shares of its length and height."""
    length, width, height = size
    radius = 0.48 if length > 7 else 0.4
    rear = (-0.33 * length,) if length < 7.5 else (-0.27 * length, -0.27 * length - 2.3 * radius)
    cab = share * length
    body.wheels((0.5 * length - 0.62 * cab, *rear), width, radius, 0.3)
    body.box(
        TRUCK, (0.5 * (length - cab), 0, 0.4), (cab, width - 0.06, tall * height - 0.4), colour, lean=(0.12, 0, 0.03)
    )


def box_truck(body: Body, size: Size, colour: Colour) -> None:
    """Build a closed box behind a cab."""
    length, width, height = size
    cab = min(2.1, 0.3 * length)
    _lorry_cab(body, size, colour, cab / length, 0.8)
    box = length - cab - 0.12
    body.box(CARGO, (0.5 * (box - length), 0, 0.6), (box, width, height - 0.6), (0.82, 0.82, 0.8), main=True)


def tipper(body: Body, size: Size, colour: Colour) -> None:
    """Build a tipping skip behind a tall cab."""
    length, width, height = size
    cab = 2.0
    _lorry_cab(body, size, colour, cab / length, 1.0)
    box = length - cab - 0.15
    body.box(WALL, (0.5 * (box - length), 0, 0.65), (box, 0.5 * width, 0.35), DARK)
    skip = (box, width, 0.8 * height - 0.95)
    body.box(CARGO, (0.5 * (box - length), 0, 0.95), skip, (0.62, 0.46, 0.16), lean=(0, 0.1, 0), main=True)


def trailer(body: Body, size: Size, colour: Colour) -> None:
    """Build the box of a trailer on rear axles."""
    length, width, height = size
    body.wheels((-0.24 * length, -0.24 * length - 1.15), width, 0.48, 0.3)
    body.box(WALL, (0, 0, 0.75), (0.94 * length, 0.4 * width, 0.35), DARK)
    body.box(CARGO, (0, 0, 1.05), (length, width, height - 1.05), colour, main=True)


def bus(body: Body, size: Size, colour: Colour) -> None:
    """Build a city bus, or a section of one."""
    length, width, height = size
    body.wheels((0.28 * length, -0.26 * length), width, 0.48, 0.28)
    body.box(BUS, (0, 0, 0.3), (length, width, height - 0.3), colour, lean=(0.04, 0.02, 0.02), main=True)


def loader(body: Body, size: Size, colour: Colour) -> None:
    """Build a wheel loader with its bucket down."""
    length, width, height = size
    body.wheels((0.14 * length, -0.3 * length), width, 0.11 * length, 0.45)
    rear = (0.62 * length, 0.62 * width, 0.34 * height)
    body.box(CARGO, (-0.19 * length, 0, 0.2 * height), rear, _MACHINE, lean=(0.05, 0.15, 0.05), main=True)
    cab = (0.3 * length, 0.55 * width, 0.46 * height + 0.01)
    body.box(CABIN, (-0.04 * length, 0, 0.54 * height - 0.01), cab, DARK, lean=(0.1, 0.06, 0.06))
    for y in (0.19 * width, -0.19 * width):
        body.box(CARGO, (0.25 * length, y, 0.16 * height), (0.34 * length, 0.1, 0.16 * height), _MACHINE)
    bucket = (0.16 * length, width, 0.3 * height)
    body.box(CARGO, (0.42 * length, 0, 0.02), bucket, (0.4, 0.36, 0.3), lean=(0.35, 0.05, 0))


def excavator(body: Body, size: Size, colour: Colour) -> None:
    """Build a tracked excavator with a bent arm before it."""
    length, width, height = size
    rear = 0.5 * length
    for y in (0.5 * width - 0.25, 0.25 - 0.5 * width):
        tracks = (0.56 * length, 0.5, 0.26 * height)
        body.box(WALL, (-rear + 0.3 * length, y, 0), tracks, DARK, lean=(0.35, 0.35, 0))
    house = (0.52 * length, 0.86 * width, 0.34 * height)
    body.box(CARGO, (-rear + 0.26 * length, 0, 0.3 * height), house, _MACHINE, lean=(0.05, 0.12, 0.03), main=True)
    cab = (0.22 * length, 0.4 * width, 0.64 * height)
    body.box(CABIN, (-rear + 0.42 * length, 0.2 * width, 0.32 * height), cab, DARK, lean=(0.12, 0.03, 0.04))
    # Boom, stick and bucket go up, ahead and down in steps.
    for x, z, long, tall in ((0.5, 0.42, 0.2, 0.3), (0.62, 0.68, 0.28, 0.32), (0.8, 0.62, 0.24, 0.3)):
        body.box(CARGO, (-rear + x * length, -0.12 * width, z * height), (long * length, 0.34, tall * height), _MACHINE)
    body.box(CARGO, (-rear + 0.9 * length, -0.12 * width, 0.2 * height), (0.1 * length, 0.28, 0.45 * height), _MACHINE)
    bucket = (0.16 * length, 0.36 * width, 0.26 * height)
    body.box(CARGO, (-rear + 0.92 * length, -0.12 * width, 0.0), bucket, (0.36, 0.33, 0.3), lean=(0.15, 0.1, 0.05))
