"""Line charts and heat maps as SVG text: colours come from the page's style, so they follow its light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 14, 46
MAX_POINTS = 800
NUM_COLOURS = 6


@dataclass(frozen=True)
class Curve:
    """One line of a chart. x, y: equally many; a y of None or NaN leaves a gap. colour: 0 to 5, of the page's palette.

    style: `line`, `dots` (a line with a dot at every point), `faint` (thin, behind the others, not in the legend), or
    `level`: a dashed horizontal at its last value, for what does not change.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    style: str = "line"


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """An SVG element with axes and lines; the y axis is logarithmic if all is positive and spans two decades."""
    curves = [_thinned(curve) for curve in curves if any(_known(y) for y in curve.y)]
    if not curves:
        return "<p class='none'>Nothing to draw: no number is known.</p>"
    ys = [y for curve in curves for y in curve.y if _known(y)]
    xs = [x for curve in curves if curve.style != "level" for x in curve.x] or [0.0, 1.0]
    frame = _Frame(min(xs), max(xs), min(ys), max(ys))
    body = [frame.axes(x_label, y_label), *(frame.curve(c) for c in sorted(curves, key=lambda c: c.style != "faint"))]
    label = escape(f"{y_label} by {x_label}: {', '.join(curve.name for curve in curves)}", quote=True)
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>{''.join(body)}</svg>{_legend(curves)}"


def heat_map(values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """A table of coloured cells: the hue says a value's sign, its strength the size; unknown is hatched."""
    largest = max((abs(v) for row in values for v in row if _known(v)), default=0.0) or 1.0
    head = "".join(f"<th scope='col'><span>{escape(name)}</span></th>" for name in columns)
    lines = []
    for name, row in zip(rows, values, strict=True):
        cells = "".join(_cell(value, largest) for value in row)
        lines.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>")
    return f"<div class='wide'><table class='heat'><tr><td></td>{head}</tr>{''.join(lines)}</table></div>"


def smoothed(values: Sequence[float | None], width: int) -> list[float | None]:
    """Running mean of the known values over `width` of them, None until there is one."""
    out: list[float | None] = []
    window: list[float] = []
    for value in values:
        if _known(value):
            window = [*window, float(value)][-width:]
        out.append(sum(window) / len(window) if window else None)
    return out


class _Frame:
    """The plotting area: from numbers to pixels, and the axes with round ticks."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self._log = y_low > 0 and y_high / y_low > 100
        if self._log:
            low, high = math.log10(y_low), math.log10(y_high)
            margin = 0.04 * (high - low)
            self._y = (low - margin, high + margin)
        else:
            low = 0.0 if 0 <= y_low < 0.5 * y_high else y_low
            margin = 0.06 * (y_high - low) or abs(y_high) * 0.1 or 1.0
            self._y = (low - (margin if low else 0.0), y_high + margin)
        self._x = (x_low, x_high if x_high > x_low else x_low + 1)

    def px(self, x: float) -> float:
        return LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        value = math.log10(y) if self._log else y
        return HEIGHT - BOTTOM - (value - self._y[0]) / (self._y[1] - self._y[0]) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_label: str, y_label: str) -> str:
        parts = []
        for y in self._y_ticks():
            at = self.py(y)
            parts.append(f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{at:.1f}' y2='{at:.1f}'/>")
            parts.append(f"<text class='tick' x='{LEFT - 8}' y='{at + 4:.1f}' text-anchor='end'>{_number(y)}</text>")
        for x in _round_ticks(*self._x, 7, whole=True):
            parts.append(
                f"<text class='tick' x='{self.px(x):.1f}' y='{HEIGHT - BOTTOM + 20}' text-anchor='middle'>"
                f"{_number(x)}</text>"
            )
        base = HEIGHT - BOTTOM
        parts.append(f"<line class='axis' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{base}' y2='{base}'/>")
        parts.append(
            f"<text class='label' x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 4}' text-anchor='middle'>"
            f"{escape(x_label)}</text>"
        )
        middle = (TOP + base) / 2
        parts.append(
            f"<text class='label' transform='translate(13 {middle}) rotate(-90)' text-anchor='middle'>{escape(y_label)}"
            f"{' (log)' if self._log else ''}</text>"
        )
        return "".join(parts)

    def curve(self, curve: Curve) -> str:
        classes = f"{curve.style} c{curve.colour % NUM_COLOURS}"
        title = f"<title>{escape(curve.name)}</title>"
        if curve.style == "level":
            y = self.py(next(y for y in reversed(curve.y) if _known(y)))
            return f"<line class='{classes}' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'>{title}</line>"
        points = [(self.px(x), self.py(y)) if _known(y) else None for x, y in zip(curve.x, curve.y, strict=True)]
        path = "".join(f"{'L' if i and points[i - 1] else 'M'}{p[0]:.1f} {p[1]:.1f}" for i, p in enumerate(points) if p)
        known = [point for point in points if point]
        dots = known if curve.style == "dots" else []
        marks = "".join(f"<circle class='{classes}' cx='{x:.1f}' cy='{y:.1f}' r='3'/>" for x, y in dots)
        return f"<path class='{classes}' d='{path}'>{title}</path>{marks}"

    def _y_ticks(self) -> list[float]:
        if not self._log:
            return _round_ticks(*self._y, 6)
        low, high = self._y
        steps = (1, 2, 5) if high - low < 3 else (1,)
        found = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
        return [value for value in found if low <= math.log10(value) <= high]


def _round_ticks(low: float, high: float, wanted: int, whole: bool = False) -> list[float]:
    """At most `wanted` + 1 round numbers from `low` to `high`; `whole`: no fractions, as of steps and epochs."""
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= wanted)
    step = max(step, 1) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if value and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.0e}"
    return f"{value:.6g}"


def _legend(curves: Sequence[Curve]) -> str:
    names = (
        f"<li><i class='{curve.style} c{curve.colour % NUM_COLOURS}'></i>{escape(curve.name)}</li>"
        for curve in curves
        if curve.style != "faint"
    )
    return f"<ul class='legend'>{''.join(names)}</ul>"


def _cell(value: float | None, largest: float) -> str:
    if not _known(value):
        return "<td class='unknown'></td>"
    share = abs(value) / largest
    sign = "plus" if value >= 0 else "minus"
    strong = " strong" if share > 0.75 else ""
    return f"<td class='{sign}{strong}' style='--share:{share:.3f}'>{_short(value, largest)}</td>"


def _short(value: float, largest: float) -> str:
    if 0.1 <= largest < 1000:
        return f"{value:.2f}"
    return f"{value:.3f}" if 0.005 <= largest < 0.1 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _thinned(curve: Curve) -> Curve:
    """At most `MAX_POINTS` points: a page of a long job stays small."""
    step = -(-len(curve.x) // MAX_POINTS)
    if step <= 1:
        return curve
    kept = sorted({*range(0, len(curve.x), step), len(curve.x) - 1})
    return Curve(curve.name, [curve.x[i] for i in kept], [curve.y[i] for i in kept], curve.colour, curve.style)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
