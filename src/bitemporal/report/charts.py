"""Charts as SVG text in the colours of the page's style sheet, so that they follow dark mode and print.

matplotlib draws them with a placeholder colour for every CSS variable; the variables replace the colours afterwards.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

COLOURS = 8
"""Number of CSS variables ``--s0``, ``--s1``, ... for series."""

DASHES = ("solid", (0, (3.5, 2)), (0, (1, 1.5)), (0, (6, 1.5)))
"""Dashes for more series than colours, in line widths; the style sheet has matching keys ``d1``, ``d2``, ..."""

_WIDTH, _HEIGHT = 480, 270
_INK, _SOFT, _GRID = "#010000", "#010001", "#010002"
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _GRID: "--line"} | {f"#0200{i:02x}": f"--s{i}" for i in range(COLOURS)}
_STYLE: dict[Any, Any] = {
    "axes.autolimit_mode": "round_numbers",  # an axis says where it begins and ends
    "axes.axisbelow": True,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.labelpad": 12,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "font.size": 12,
    "grid.color": _GRID,
    "svg.fonttype": "none",
    "svg.hashsalt": "bitemporal",  # the same chart is the same text
    "text.parse_math": False,  # names may hold dollars
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Series:
    """Points of one name; NaN leaves a gap.

    Attributes:
        name: For the legend.
        x: Horizontal positions; not used for bars.
        y: Values.
        low: Lower ends of intervals, if any.
        high: Upper ends of intervals.
        marks: Draw the points of a line.
        look: Number of the colour and dashes; the same thing has the same look in every chart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marks: bool = False
    look: int = 0


@dataclass(frozen=True)
class Mark:
    """A ring around one point.

    Attributes:
        x: Horizontal position.
        y: Value.
        text: Explanation, shown under the pointer.
        look: Look of the series that it belongs to.
    """

    x: float
    y: float
    text: str
    look: int = 0


class _Chart:
    def __init__(self, title: str, x_label: str, y_label: str, height: int = _HEIGHT) -> None:
        self.title, self.size = title, (_WIDTH, height)
        self._tips: list[str] = []
        # in points, which are the units of the view box
        self.figure = Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained")
        self.axes = self.figure.subplots()
        self.axes.set(xlabel=x_label, ylabel=y_label)

    def tip(self, artist: Artist, text: str) -> None:
        """Show a text under the pointer."""
        artist.set_gid(f"tip{len(self._tips)}")
        self._tips.append(text)

    def intervals(self, series: Series, x: Sequence[float], colour: str) -> None:
        for place, low, high in zip(x, series.low, series.high, strict=len(series.low) > 0):
            if math.isfinite(low) and math.isfinite(high):
                self.axes.plot([place, place], [low, high], color=colour, linewidth=1.5)

    def svg(self) -> Markup:
        stream = io.StringIO()
        self.figure.savefig(stream, format="svg", transparent=True)
        text = stream.getvalue()
        text = text[text.index(">", text.index("<svg")) + 1 :]
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
        # the style sheet chooses fonts; identifiers would occur in every chart
        text = re.sub(r'font-size: [^"]*?;( text-anchor)', r"\1", text)
        text = re.sub(r' clip-path="[^"]*"| id="[\w.]+_\d+"|<clipPath.*?</clipPath>', "", text, flags=re.DOTALL)
        text = re.sub(r' id="tip(\d+)">', lambda tip: f"><title>{escape(self._tips[int(tip[1])])}</title>", text)
        text = re.sub("#0[12]00[0-9a-f]{2}", lambda colour: f"var({_VARIABLES[colour[0]]})", text)
        width, height = self.size
        title = escape(self.title)
        head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}"><title>{title}</title>'
        return Markup(head + text)


def _colour(look: int) -> str:
    return f"#0200{look % COLOURS:02x}"


def style(look: int) -> str:
    """CSS classes of the key in a legend; looks repeat after 32."""
    turn = look // COLOURS % len(DASHES)
    return f"s{look % COLOURS}" + (f" d{turn}" if turn else "")


def _legend(series: Sequence[Series]) -> Markup:
    """Names in their colours; empty for a single series."""
    if len(series) < 2:
        return Markup("")
    items = "".join(f'<li><span class="key {style(one.look)}"></span>{escape(one.name)}</li>' for one in series)
    return Markup(f'<ul class="legend">{items}</ul>')


@rc_context(_STYLE)
def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    unit_square: bool = False,
    x_ticks: Mapping[float, str] | None = None,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
) -> Markup:
    """Lines.

    Args:
        title: Read out by screen readers.
        series: What to draw.
        x_label: Label of the horizontal axis.
        y_label: Label of the vertical axis.
        unit_square: Both axes run from 0 to 1; else they enclose the data.
        x_ticks: Labels by position; round numbers by default.
        marks: Rings around points.
        diagonal: Draw x = y.
    """
    chart = _Chart(title, x_label, y_label)
    chart.axes.grid(axis="y")
    if diagonal:
        chart.axes.plot([0, 1], [0, 1], color=_SOFT, linestyle="--", linewidth=1)
    for one in series:
        dashes = DASHES[one.look // COLOURS % len(DASHES)]
        mark = "o" if one.marks else None
        chart.axes.plot(one.x, one.y, color=_colour(one.look), linestyle=dashes, linewidth=2, marker=mark, markersize=6)
        chart.intervals(one, one.x, _colour(one.look))
    for ring in marks:
        if math.isfinite(ring.x) and math.isfinite(ring.y):
            colour = _colour(ring.look)
            (drawn,) = chart.axes.plot(ring.x, ring.y, "o", fillstyle="none", color=colour, markersize=10, mew=2.5)
            chart.tip(drawn, ring.text)
    if unit_square:
        chart.axes.set(xlim=(0, 1), ylim=(0, 1))
    if x_ticks is not None:
        chart.axes.set_xticks(list(x_ticks), list(x_ticks.values()))
        chart.axes.set_xlim(min(x_ticks, default=0) - 0.5, max(x_ticks, default=0) + 0.5)
    return chart.svg() + _legend(series)


@rc_context(_STYLE)
def interval_chart(title: str, rows: Sequence[tuple[str, float, float, float, int]], x_label: str) -> Markup:
    """One row per point with its interval, and a line at zero.

    Args:
        title: Read out by screen readers.
        rows: Name, value, low, high and look of each.
        x_label: Label of the horizontal axis.
    """
    chart = _Chart(title, x_label, "", 54 + 30 * len(rows))
    chart.axes.axvline(0, color=_SOFT, linewidth=1)
    for place, (name, value, low, high, look) in enumerate(rows):
        chart.axes.plot([low, high], [place, place], color=_colour(look), linewidth=1.5)
        (drawn,) = chart.axes.plot(value, place, "o", color=_colour(look), markersize=8)
        chart.tip(drawn, f"{name}: {value:+.2f}")
    chart.axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    chart.axes.set_ylim(len(rows) - 0.5, -0.5)
    return chart.svg()


@rc_context(_STYLE)
def bar_chart(title: str, groups: Sequence[str], series: Sequence[Series], y_label: str) -> Markup:
    """Bars in groups, with their intervals; the axis begins at 0.

    Args:
        title: Read out by screen readers.
        groups: Names of the groups.
        series: A bar for each group.
        y_label: Label of the vertical axis.
    """
    chart = _Chart(title, "", y_label)
    chart.axes.grid(axis="y")
    width = 0.8 / len(series)
    for i, one in enumerate(series):
        places = [group - 0.4 + width * (i + 0.5) for group in range(len(groups))]
        for group, place, value in zip(groups, places, one.y, strict=True):
            if math.isfinite(value):
                (bar,) = chart.axes.bar(place, value, 0.92 * width, color=_colour(one.look))
                chart.tip(bar, f"{one.name}, {group}: {value:.6g}")
        chart.intervals(one, places, _INK)
    chart.axes.set_xticks(range(len(groups)), groups)
    chart.axes.set_xlim(-0.5, len(groups) - 0.5)
    return chart.svg() + _legend(series)


def car_histogram(cars: Mapping[str, Sequence[float]], look: int) -> Markup:
    """Shares of the pairs of each split by CAR.

    Args:
        cars: CARs by split.
        look: Look of the first split; the others follow.
    """
    bounds = [0.0, 1e-9, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0 + 1e-9]
    names = ["0", "to .01", ".02", ".05", ".1", ".2", ".4", ".6", ".8", "1"]
    series = []
    for place, (split, values) in enumerate(cars.items()):
        known = np.array([v for v in values if math.isfinite(v)])
        # a CAR at a bound belongs below it, as in the partition
        counts = np.histogram(-known, bins=-np.array(bounds)[::-1])[0][::-1]
        shares = (100 * counts / max(len(known), 1)).tolist()
        series.append(Series(f"{split} ({len(known)})", [], shares, look=look + place))
    return bar_chart("Pairs by change area ratio", names, series, "per cent of the pairs")
