"""The chart of a replay's latencies, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 960, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 12, 34
_BARS = 160  # as many as can be distinguished; each shows the mean of its sets
# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


def draw_latencies(latencies: Mapping[str, Sequence[float]], stamps: Sequence[int], period_ms: float | None) -> str:
    """Draw bars over time, one per set or per few sets, with the stages stacked in milliseconds.

    `stamps` are in nanoseconds. A dashed line marks `period_ms`, the time between two sets, when it is on the scale.
    """
    stages = [name for name, values in latencies.items() if len(values)]
    if not stages or not len(stamps):
        return ""
    groups = np.array_split(np.arange(len(stamps)), min(len(stamps), _BARS))
    heights = np.array([[np.mean(np.asarray(latencies[s])[g]) for g in groups] for s in stages])
    seconds = (np.asarray(stamps) - stamps[0]) / 1e9
    top, step = _choose_scale(float(heights.sum(axis=0).max()))
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def to_y(milliseconds: float) -> float:
        return _TOP + plot_height * (1 - milliseconds / top)

    label = "Latency of each stage over the recording, stacked"
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for tick in np.arange(0, top + step / 2, step):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{to_y(tick):.1f}" y2="{to_y(tick):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{to_y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    bar = plot_width / len(groups)
    base = np.zeros(len(groups))
    for stage, row, colour in zip(stages, heights, COLOURS, strict=False):
        tops = base + row
        path = "".join(
            f"M{_LEFT + i * bar:.1f} {to_y(low):.1f}V{to_y(high):.1f}h{0.86 * bar:.2f}V{to_y(low):.1f}z"
            for i, (low, high) in enumerate(zip(base, tops, strict=True))
        )
        parts.append(f'<path fill="{colour}" d="{path}"><title>{escape(stage)}</title></path>')
        base = tops
    for share in np.linspace(0, 1, 6 if len(groups) > 5 else 1):
        group = round(share * (len(groups) - 1))
        x = _LEFT + (group + 0.43) * bar
        time = seconds[groups[group][0]]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{time:.1f}</text>')
    if period_ms is not None and period_ms <= top:
        level = to_y(period_ms)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{WIDTH - _RIGHT - 4}" y="{level - 4:.1f}" text-anchor="end">between two sets</text>')
    parts.append(
        f'<text x="{_LEFT + plot_width / 2}" y="{HEIGHT - 2}" text-anchor="middle">seconds of recording</text>'
    )
    parts.append(f'<text transform="translate(12 {_TOP + plot_height / 2}) rotate(-90)" text-anchor="middle">ms</text>')
    parts.append(f'<line id="now" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" data-left="{_LEFT}" data-width="{plot_width}"/>')
    return "".join(parts) + "</svg>"


def _choose_scale(largest: float) -> tuple[float, float]:
    """Return a round end of the axis above the largest value, and a round step that divides it in four to eight."""
    magnitude = 10.0 ** np.floor(np.log10(max(largest, 1e-3)))
    step = next(s * magnitude / 10 for s in (1, 2, 5, 10, 20, 50) if largest / (s * magnitude / 10) <= 8)
    return float(np.ceil(largest / step) * step), float(step)
