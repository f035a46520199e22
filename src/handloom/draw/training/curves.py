"""Line charts as SVG elements of the training page, drawn by matplotlib in the colours of the page's style."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

NUM_COLOURS = 6
MAX_POINTS = 800
LARGEST = 1e100  # matplotlib cannot scale an axis on which differences or ratios overflow
ROUND = (1, 2, 5, 10)
SIZE = (520, 290)
"""Width and height of a chart; the page scales it to its column."""

# matplotlib writes colours as hex. These stand-ins become the style's variables, which follow the light or dark theme.
CURVE_COLOURS = tuple(f"#0001{number:02x}" for number in range(NUM_COLOURS))
TEXT, GRID = "#000200", "#000201"
VARIABLES = {colour: f"var(--c{number})" for number, colour in enumerate(CURVE_COLOURS)}
VARIABLES |= {TEXT: "var(--soft)", GRID: "var(--line)"}


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

    def values(self) -> NDArray[np.float64]:
        """y, with NaN for None, for what is not finite and for what is too large to draw; 0 for what is too small."""
        y = np.array([np.nan if value is None or not abs(value) < LARGEST else value for value in self.y], np.float64)
        y[np.abs(y) < 1 / LARGEST] = 0
        return y


@dataclass(frozen=True)
class Chart:
    """Curves over one x axis; `curves` holds those of which a value is known."""

    title: str
    curves: Sequence[Curve]
    x_label: str
    y_label: str

    def __post_init__(self) -> None:
        known = [curve for curve in self.curves if np.isfinite(curve.values()).any()]
        object.__setattr__(self, "curves", known)

    def legend(self) -> list[Curve]:
        return [curve for curve in self.curves if curve.style != "faint"]

    def svg(self) -> str:
        """An `<svg>` element; the y axis is logarithmic where all values are positive and span two decades.

        Empty where there is no curve. The same curves make the same text.
        """
        return _themed(_drawn(self), self) if self.curves else ""


def smoothed(values: Sequence[float | None], width: int) -> list[float | None]:
    """Running mean of the known values over `width` of them, None until there is one."""
    out: list[float | None] = []
    window: list[float] = []
    for value in values:
        if value is not None and math.isfinite(value):
            window = [*window, float(value)][-width:]
        out.append(sum(window) / len(window) if window else None)
    return out


def _drawn(chart: Chart) -> bytes:
    """The chart as matplotlib's SVG file; group `curve-N` holds curve N."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": chart.title,  # ids differ between the charts of a page, not between two runs
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; wider than the fonts that a browser takes instead
        "font.size": 13,
        "axes.edgecolor": TEXT,
        "axes.labelcolor": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "grid.color": GRID,
    }
    with matplotlib_style.context(["default", style]):  # not the user's own matplotlibrc
        figure = Figure((SIZE[0] / 72, SIZE[1] / 72), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.spines[["left", "top", "right"]].set_visible(False)
        for number, curve in enumerate(chart.curves):
            _draw(axes, curve, f"curve-{number}")
        _scale(axes, chart)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw(axes: Axes, curve: Curve, name: str) -> None:
    y = curve.values()
    colour = CURVE_COLOURS[curve.colour % NUM_COLOURS]
    if curve.style == "level":
        axes.axhline(y[np.isfinite(y)][-1], color=colour, linewidth=1.5, linestyle="--", gid=name, clip_on=False)
        return
    is_dotted = curve.style == "dots" or np.isfinite(y).sum() == 1  # a line through one point is not seen
    look: dict[str, Any] = {"linewidth": 1, "alpha": 0.28, "zorder": 1} if curve.style == "faint" else {"linewidth": 2}
    marker: dict[str, Any] = {"marker": "o", "markersize": 6} if is_dotted else {}
    step = -(-len(y) // MAX_POINTS)  # a page of a long job stays small
    kept = np.unique([*range(0, len(y), max(step, 1)), len(y) - 1])
    axes.plot(np.asarray(curve.x)[kept], y[kept], color=colour, gid=name, clip_on=False, **look, **marker)


def _scale(axes: Axes, chart: Chart) -> None:
    """Limits, ticks and labels of both axes."""
    values = np.concatenate([curve.values() for curve in chart.curves])
    low, high = np.nanmin(values), np.nanmax(values)
    is_log = low > 0 and high / low > 100
    axes.margins(x=0, y=0.06)
    axes.grid(axis="y")
    axes.tick_params(length=0, pad=7)
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
        if 0 <= low < 0.5 * high:
            axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND, integer=True))  # steps and epochs are whole
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel(_shown(chart.x_label), parse_math=False)  # a recipe's names are no TeX
    axes.set_ylabel(_shown(chart.y_label) + (" (log)" if is_log else ""), labelpad=8, parse_math=False)


def _shown(label: str) -> str:
    """The label without control characters: SVG cannot hold them."""
    return "".join(filter(str.isprintable, label))


def _tick(value: float, _: int) -> str:
    return f"{value:.0e}" if value and not 1e-4 <= abs(value) < 1e5 else f"{value:.6g}"


def _themed(file: bytes, chart: Chart) -> str:
    """The file as an element inside of HTML: no namespaces, a label for screen readers, tooltips with the names."""
    root = ElementTree.fromstring(file)
    for part in (*root.findall("{*}metadata"), *root.findall("{*}defs[{*}style]")):  # its style would reach the page
        root.remove(part)
    for element in root.iter():
        element.text, element.tail = (element.text or "").strip(), (element.tail or "").strip()
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: text for name, text in element.attrib.items()}
        name = element.attrib.pop("id", "") if element.tag == "g" else ""
        if name.startswith("curve-"):
            title = ElementTree.Element("title")
            title.text = _shown(chart.curves[int(name.removeprefix("curve-"))].name)
            element.insert(0, title)
    names = ", ".join(curve.name for curve in chart.curves if curve.style != "faint")
    label = _shown(f"{chart.y_label} by {chart.x_label}: {names}")
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text
