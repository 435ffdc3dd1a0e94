"""Build the bodies of cycles, people and street objects, as `vehicles` does those of vehicles."""

from __future__ import annotations

from bridgeta_synth.traffic.bodies.vehicles import DARK, RUBBER, STEEL, Body, Size
from bridgeta_synth.world.solids import BARRIER, BIN, CARGO, CLOTH, CONE, CYCLE, SKIN, WALL, WHEEL, Colour

_CONE: Colour = (0.92, 0.34, 0.08)


def bicycle(body: Body, size: Size, colour: Colour) -> None:
    """Build a bicycle without a rider."""
    length, width, height = size
    _bicycle_frame(body, length, width, height, colour)


def _bicycle_frame(body: Body, length: float, width: float, height: float, colour: Colour, main: bool = True) -> None:
    """Build wheels, frame, handlebar and saddle up to a height."""
    radius = min(0.35, 0.2 * length)
    for x in (0.5 * length - radius, radius - 0.5 * length):
        body.wheel(x, radius, 0.07)
    frame = (length - 2 * radius, 0.06, 0.4)
    body.box(CYCLE, (0, 0, 0.8 * radius), frame, colour, lean=(0.2, 0.5, 0), main=main)
    body.box(CYCLE, (0.24 * length, 0, height - 0.3), (0.06, 0.05, 0.26), STEEL)
    body.box(CYCLE, (0.23 * length, 0, height - 0.05), (0.09, width, 0.05), DARK)
    body.box(CYCLE, (-0.14 * length, 0, height - 0.2), (0.26, 0.16, 0.09), DARK)


def _rider(body: Body, seat: float, width: float, height: float, x: float, colour: Colour, helmet: Colour) -> None:
    """Build a rider who sits at x and bends forward, from the pedals to a height."""
    head = 0.27
    torso = height - head - seat + 0.04
    for y in (0.14, -0.14):
        body.box(CLOTH, (x + 0.16, y, 0.45 * seat), (0.34, 0.13, 0.6 * seat), (0.15, 0.16, 0.2), lean=(0.1, 0.15, 0))
    body.box(CLOTH, (x + 0.02, 0, seat), (0.42, width, torso), colour, lean=(0.05, 0.3, 0.12), main=True)
    for y in (0.5 * width - 0.09, 0.09 - 0.5 * width):
        body.box(CLOTH, (x + 0.32, y, seat + 0.3 * torso), (0.4, 0.1, 0.12), colour)
    body.ball(SKIN, (x + 0.16, 0, height - head), (0.26, 0.22, head), helmet)


def bicycle_rider(body: Body, size: Size, colour: Colour) -> None:
    """Build a bicycle with its rider."""
    length, width, height = size
    _bicycle_frame(body, length, width, 1.02, (0.2, 0.22, 0.25), main=False)
    _rider(body, 0.88, width - 0.06, height, -0.18, colour, (0.75, 0.75, 0.72))


def _motorcycle_frame(body: Body, length: float, width: float, height: float, colour: Colour, main: bool) -> None:
    radius = 0.29
    for x in (0.5 * length - radius, radius - 0.5 * length):
        body.wheel(x, radius, 0.14)
    block = (0.66 * length, 0.32, 0.42)
    body.box(CYCLE, (0, 0, 0.3), block, colour, lean=(0.3, 0.25, 0.05), main=main)
    body.box(CYCLE, (-0.18 * length, 0, 0.7), (0.36 * length, 0.26, 0.12), DARK)
    body.box(CYCLE, (0.27 * length, 0, 0.66), (0.18, 0.3, height - 0.72), colour, lean=(0.1, 0.1, 0.1))
    body.box(CYCLE, (0.24 * length, 0, height - 0.06), (0.1, width, 0.06), DARK)


def motorcycle(body: Body, size: Size, colour: Colour) -> None:
    """Build a motorcycle without a rider."""
    length, width, height = size
    _motorcycle_frame(body, length, width, height, colour, True)


def motorcycle_rider(body: Body, size: Size, colour: Colour) -> None:
    """Build a motorcycle with its rider; every other one carries a box."""
    length, width, height = size
    _motorcycle_frame(body, length, width, 1.08, colour, False)
    cloth = (0.14, 0.14, 0.16) if body.seed % 3 else (0.45, 0.1, 0.1)
    _rider(body, 0.78, width - 0.16, height, -0.14, cloth, (0.85, 0.85, 0.85) if body.seed % 2 else (0.1, 0.1, 0.12))
    if body.seed % 2:
        body.box(CARGO, (0.21 - 0.5 * length, 0, 0.82), (0.4, 0.42, 0.4), (0.16, 0.5, 0.3))


def bicycle_rack(body: Body, size: Size, colour: Colour) -> None:
    """Build hoops in a row across the heading, most of them with a bicycle."""
    length, width, height = size
    slots = max(2, round(width / 0.62))
    pitch = (width - 0.5) / (slots - 1)
    for slot in range(slots):
        y = 0.25 - 0.5 * width + slot * pitch
        occupied = slot in (0, slots - 1) or (body.seed >> slot) % 3
        body.box(CYCLE, (0.1, y, 0), (0.6, 0.05, 0.8), STEEL, main=slot == slots // 2)
        if occupied:
            paint = ((0.55, 0.12, 0.1), (0.12, 0.2, 0.4), (0.14, 0.14, 0.15), (0.3, 0.42, 0.3))[(body.seed + slot) % 4]
            for x in (0.5 * length - 0.34, 0.34 - 0.5 * length):
                body.ball(WHEEL, (x, y + 0.07, 0), (0.68, 0.06, 0.68), RUBBER)
            body.box(CYCLE, (0, y + 0.07, 0.28), (length - 0.68, 0.05, 0.4), paint, lean=(0.2, 0.5, 0))
            body.box(CYCLE, (0.23 * length, y, height - 0.3), (0.08, 0.5, 0.3), DARK, lean=(0, 0, 0.3))


def _head(body: Body, height: float, tall: float, x: float = 0.02) -> None:
    skin = ((0.66, 0.5, 0.4), (0.5, 0.36, 0.27), (0.36, 0.25, 0.19), (0.72, 0.56, 0.46))[body.seed % 4]
    body.ball(SKIN, (x, 0, height - tall), (0.21, 0.17, tall), skin)


def _person(body: Body, size: Size, colour: Colour, stride: bool, trousers: Colour | None = None) -> None:
    """Build legs, trunk, arms and head; with `stride` the legs are apart."""
    length, width, height = size
    legs, trunk, head = 0.48 * height, 0.385 * height, 0.15 * height
    tones = ((0.12, 0.13, 0.18), (0.2, 0.22, 0.3), (0.33, 0.3, 0.26), (0.08, 0.08, 0.09))
    tone = trousers if trousers is not None else tones[body.seed // 4 % 4]
    thick = 0.25 * width
    for side in (1, -1):
        y = side * 0.58 * thick
        if not stride:
            body.box(CLOTH, (0, y, 0), (length, thick, legs), tone, lean=(*(((length - 0.2) / 2 / legs,) * 2), 0.01))
            continue
        # One leg ahead, one behind; shins are farther from the middle than thighs.
        foot, ahead = 0.27, side * 0.5 * (length - 0.27)
        shin = (foot, 0.8 * thick, 0.55 * legs)
        lean = (0.12, 0.26, 0.01) if side < 0 else (0.3, 0.06, 0.01)
        body.box(CLOTH, (ahead, y, 0), shin, tone, lean=lean)
        body.box(CLOTH, (0.5 * ahead, y, 0.5 * legs), (0.24, thick, 0.5 * legs), tone, lean=(0.06, 0.06, 0.0))
    swing = 0.12 if stride else 0.0
    deep = min(0.28, length)
    arm = 0.19 * width
    chest = (deep, width - 1.7 * arm, trunk)
    body.box(CLOTH, (0, 0, legs - 0.02), chest, colour, lean=(0.04, 0.04, 0.03), main=True)
    for side in (1, -1):
        limb = (0.62 * deep, arm, 0.92 * trunk)
        body.box(CLOTH, (-side * swing, side * 0.5 * (width - arm), legs - 0.02), limb, colour, lean=(0.03, 0.03, 0.02))
    _head(body, height, head + 0.02)


def walker(body: Body, size: Size, colour: Colour) -> None:
    """Build somebody who walks."""
    _person(body, size, colour, stride=True)


def stander(body: Body, size: Size, colour: Colour) -> None:
    """Build somebody who stands."""
    _person(body, size, colour, stride=False)


def worker(body: Body, size: Size, colour: Colour) -> None:
    """Build a worker with a bright vest and a helmet."""
    length, width, height = size
    vest = (0.95, 0.42, 0.05) if body.seed % 2 else (0.75, 0.88, 0.12)
    _person(body, (length, width, height - 0.05), vest, stride=False, trousers=(0.16, 0.18, 0.3))
    body.ball(SKIN, (0.02, 0, height - 0.17), (0.29, 0.24, 0.17), (0.9, 0.78, 0.15))


def umbrella(body: Body, size: Size, colour: Colour) -> None:
    """Build somebody who walks under an umbrella."""
    length, width, height = size
    _person(body, (0.75, 0.55, height - 0.22), (0.2, 0.2, 0.24), stride=True)
    body.box(CYCLE, (0.14, 0.2, 0.5 * height), (0.03, 0.03, 0.45 * height), DARK)
    body.ball(CLOTH, (0, 0, height - 0.36), (length, width, 0.36), colour)


def sitter(body: Body, size: Size, colour: Colour) -> None:
    """Build somebody who sits on a stone bench."""
    length, width, height = size
    seat = 0.45
    body.box(WALL, (-0.14, 0, 0), (length - 0.28, width, seat - 0.05), (0.6, 0.59, 0.56))
    body.box(CLOTH, (0.5 * length - 0.2, 0, 0), (0.22, 0.36, seat), (0.16, 0.17, 0.22))
    body.box(CLOTH, (0.08, 0, seat - 0.05), (length - 0.24, 0.38, 0.17), (0.16, 0.17, 0.22))
    trunk = height - seat - 0.3
    body.box(CLOTH, (-0.14, 0, seat), (0.3, 0.5, trunk + 0.06), colour, lean=(0.08, 0.02, 0.06), main=True)
    _head(body, height, 0.27, x=-0.12)


def stroller(body: Body, size: Size, colour: Colour) -> None:
    """Build a stroller with its hood to the back."""
    length, width, height = size
    body.wheels((0.5 * length - 0.13, 0.13 - 0.5 * length), width, 0.13, 0.05)
    body.box(CLOTH, (0.02, 0, 0.32), (0.72 * length, width - 0.12, 0.34), colour, lean=(0.2, 0.1, 0), main=True)
    body.ball(CLOTH, (-0.08, 0, 0.48), (0.55 * length, width - 0.12, height - 0.48), colour)
    body.box(CYCLE, (0.03 - 0.5 * length, 0, 0.3), (0.06, width - 0.1, height - 0.32), STEEL)


def scooter_rider(body: Body, size: Size, colour: Colour) -> None:
    """Build somebody on a kick scooter."""
    length, width, height = size
    for x in (0.5 * length - 0.1, 0.1 - 0.5 * length):
        body.wheel(x, 0.1, 0.05)
    body.box(CYCLE, (0, 0, 0.1), (length - 0.2, 0.15, 0.06), DARK)
    body.box(CYCLE, (0.5 * length - 0.14, 0, 0.16), (0.05, 0.05, 0.9), STEEL)
    body.box(CYCLE, (0.5 * length - 0.14, 0, 1.06), (0.06, width, 0.05), DARK)
    legs, x = 0.5 * height, -0.16
    body.box(CLOTH, (x, 0, 0.16), (0.32, 0.26, legs - 0.16), (0.14, 0.15, 0.2), lean=(0.08, 0.08, 0.02))
    body.box(CLOTH, (x, 0, legs), (0.28, width - 0.02, 0.37 * height), colour, lean=(0, 0.1, 0.05), main=True)
    body.box(CLOTH, (x + 0.24, 0, 0.68 * height), (0.4, 0.8 * width, 0.1), colour)
    _head(body, height, 0.16 * height, x=x + 0.04)


def cone(body: Body, size: Size, colour: Colour) -> None:
    """Build a traffic cone on its foot."""
    length, width, height = size
    body.box(CONE, (0, 0, 0), (length, width, 0.05), RUBBER)
    base = 0.78 * min(length, width)
    lean = (0.5 * base - 0.025) / (height - 0.05)
    body.box(CONE, (0, 0, 0.05), (base, base, height - 0.05), _CONE, lean=(lean, lean, lean), main=True)


def drum(body: Body, size: Size, colour: Colour) -> None:
    """Build a traffic drum."""
    length, width, height = size
    body.box(CONE, (0, 0, 0), (length, width, 0.08), RUBBER)
    body.box(CONE, (0, 0, 0.08), (0.86 * length, 0.86 * width, height - 0.08), _CONE, lean=(0.06,) * 3, main=True)


def jersey_barrier(body: Body, size: Size, colour: Colour) -> None:
    """Build a barrier of concrete or water-filled plastic, long across its heading."""
    length, width, height = size
    body.box(BARRIER, (0, 0, 0), (length, width, 0.25 * height), colour)
    lean = 0.32 * length / (0.75 * height)
    body.box(BARRIER, (0, 0, 0.25 * height), (length, width, 0.75 * height), colour, lean=(lean, lean, 0), main=True)


def board_barrier(body: Body, size: Size, colour: Colour) -> None:
    """Build a barrier of boards between two feet, long across its heading."""
    length, width, height = size
    for y in (0.44 * width, -0.44 * width):
        body.box(BARRIER, (0, y, 0), (length, 0.07, 0.08), RUBBER)
        body.box(BARRIER, (0, y, 0.08), (0.08, 0.06, height - 0.08), STEEL)
    body.box(BARRIER, (0, 0, height - 0.34), (0.06, width, 0.3), colour, main=True)
    body.box(BARRIER, (0, 0, 0.36 * height), (0.05, width, 0.18), colour)


def wheeled_bin(body: Body, size: Size, colour: Colour) -> None:
    """Build a bin on two wheels."""
    length, width, height = size
    body.wheels((0.1 - 0.5 * length,), width, 0.1, 0.06)
    body.box(BIN, (0.02, 0, 0.06), (length - 0.04, width - 0.02, height - 0.12), colour, main=True)
    body.box(BIN, (0, 0, height - 0.07), (length, width, 0.07), DARK)


def debris(body: Body, size: Size, colour: Colour) -> None:
    """Build a full bag or a box."""
    if body.seed % 2:
        body.ball(BIN, (0, 0, 0), size, DARK, main=True)
    else:
        body.box(BIN, (0, 0, 0), size, (0.58, 0.44, 0.28), main=True)
