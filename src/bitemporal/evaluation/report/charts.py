"""Charts as SVG text whose colours the page's style sheet chooses, so that they follow dark mode and print."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 480, 270
COLOURS, DASHES = 8, 3
"""Of the series, that the page's style sheet knows: s0, s1, ..., and d1, d2, ... besides."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 10, 44


@dataclass(frozen=True)
class Series:
    """Points of one name; NaN leaves a gap.

    Attributes:
        name: For the legend.
        x: Of the points.
        y: Of the points.
        low: Lower ends of their intervals, if they are to be drawn.
        high: Upper ends of their intervals.
        marks: Draw the points of a line.
        look: Number of its colour and dashes, see ``style``: what is one thing in several charts looks alike in all.
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
    """One point to point out.

    Attributes:
        x: Where.
        y: Where.
        text: What it is.
        look: That of the series it belongs to.
    """

    x: float
    y: float
    text: str
    look: int = 0


_TICKS = 5


def _step(low: float, high: float) -> float:
    """Between ticks: a round number."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within a range, about five."""
    if not high > low:
        return [low]
    step = _step(low, high)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _ticks_about(low: float, high: float) -> list[float]:
    """Round numbers the first and last of which enclose a range, so that an axis says where it begins and ends."""
    step = _step(low, high)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}"


class _Axes:
    """Where values lie on the paper."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT, left: int = _LEFT) -> None:
        self.x, self.y, self.height, self.left = x, y, height, left

    def across(self, value: float) -> float:
        low, high = self.x
        return round(self.left + (WIDTH - self.left - _RIGHT) * (value - low) / (high - low or 1), 1)

    def down(self, value: float) -> float:
        low, high = self.y
        return round(self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * (value - low) / (high - low or 1), 1)

    def frame(
        self,
        x_label: str,
        y_label: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[float] = (),
    ) -> list[str]:
        bottom = self.height - _BOTTOM
        found = []
        for value in y_ticks:
            y = self.down(value)
            found.append(f'<line class="grid" x1="{self.left}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            found.append(f'<text x="{self.left - 6}" y="{y + 4}" text-anchor="end">{_number(value)}</text>')
        for value, text in [(v, _number(v)) for v in ticks(*self.x)] if x_ticks is None else x_ticks:
            x = self.across(value)
            found.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
            found.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
        found.append(f'<line class="axis" x1="{self.left}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
        middle = (self.left + WIDTH - _RIGHT) / 2
        found.append(f'<text x="{middle}" y="{self.height - 8}" text-anchor="middle">{escape(x_label)}</text>')
        centre = (_TOP + bottom) / 2
        turned = f'transform="rotate(-90 13 {centre})"'
        found.append(f'<text x="13" y="{centre}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
        return found


def _svg(parts: Sequence[str], title: str, height: int = HEIGHT) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def style(number: int) -> str:
    """Classes of a look: a colour, and dashes where all colours have been taken; all again after 32."""
    turn = number // COLOURS % (DASHES + 1)
    return f"s{number % COLOURS}" + (f" d{turn}" if turn else "")


def _legend(series: Sequence[Series]) -> Markup:
    """Names in their colours, where there are several."""
    if len(series) < 2:
        return Markup("")
    items = "".join(f'<li><span class="key {style(one.look)}"></span>{escape(one.name)}</li>' for one in series)
    return Markup(f'<ul class="legend">{items}</ul>')


def _range(values: Sequence[float], at_least: tuple[float, float] | None = None) -> tuple[float, float]:
    known = [v for v in values if math.isfinite(v)]
    if at_least is not None:
        known += at_least
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
) -> Markup:
    """Lines.

    Args:
        title: Said by screen readers.
        series: What to draw.
        x_label: Of the axis.
        y_label: Of the axis.
        y_range: Lowest and highest value; round ones about the data by default.
        x_range: Lowest and highest value; those of the data by default.
        x_ticks: Values and their texts; round numbers by default.
        marks: Points to point out.
        diagonal: Draw x = y.
    """
    horizontal = x_range or _range([v for s in series for v in s.x])
    known = _range([v for s in series for v in (*s.y, *s.low, *s.high)])
    y_ticks = ticks(*y_range) if y_range else _ticks_about(*known)
    axes = _Axes(horizontal, y_range or (y_ticks[0], y_ticks[-1]))
    parts = axes.frame(x_label, y_label, x_ticks, y_ticks)
    if diagonal:
        ends = [(axes.across(v), axes.down(v)) for v in (0.0, 1.0)]
        parts.append(
            f'<line class="diagonal" x1="{ends[0][0]}" y1="{ends[0][1]}" x2="{ends[1][0]}" y2="{ends[1][1]}"/>'
        )
    for one in series:
        path, pen = [], "M"
        for x, y in zip(one.x, one.y, strict=True):
            if not math.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{axes.across(x)} {axes.down(y)}")
            pen = "L"
            if one.marks:
                parts.append(f'<circle class="dot {style(one.look)}" cx="{axes.across(x)}" cy="{axes.down(y)}" r="3"/>')
        for x, low, high in zip(one.x, one.low, one.high, strict=len(one.low) > 0):
            if math.isfinite(low) and math.isfinite(high):
                place = f'x1="{axes.across(x)}" x2="{axes.across(x)}" y1="{axes.down(low)}" y2="{axes.down(high)}"'
                parts.append(f'<line class="interval {style(one.look)}" {place}/>')
        parts.append(f'<path class="line {style(one.look)}" d="{" ".join(path)}"/>')
    for mark in marks:
        if math.isfinite(mark.x) and math.isfinite(mark.y):
            x, y = axes.across(mark.x), axes.down(mark.y)
            told = f"<title>{escape(mark.text)}</title>"
            parts.append(f'<circle class="mark {style(mark.look)}" cx="{x}" cy="{y}" r="5">{told}</circle>')
    return _svg(parts, title) + _legend(series)


def interval_chart(title: str, rows: Sequence[tuple[str, float, float, float, int]], x_label: str) -> Markup:
    """A point and its interval a row, and a line at zero.

    Args:
        title: Said by screen readers.
        rows: Name, value, low, high and look of each, see ``style``.
        x_label: Of the axis.
    """
    height = _TOP + _BOTTOM + 30 * len(rows)
    values = [v for _, *numbers, _ in rows for v in numbers]
    low, high = _range(values, (0.0, 0.0))
    room = 0.05 * (high - low)
    axes = _Axes((low - room, high + room), (0.0, float(len(rows))), height, left=150)
    parts = axes.frame(x_label, "")
    zero = axes.across(0.0)
    parts.append(f'<line class="axis" x1="{zero}" x2="{zero}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
    for i, (name, value, least, most, look) in enumerate(rows):
        y = axes.down(len(rows) - i - 0.5)
        parts.append(f'<text x="144" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        if math.isfinite(least) and math.isfinite(most):
            parts.append(
                f'<line class="interval {style(look)}" x1="{axes.across(least)}" x2="{axes.across(most)}" y1="{y}" '
                f'y2="{y}"/>'
            )
        if math.isfinite(value):
            parts.append(f'<circle class="dot {style(look)}" cx="{axes.across(value)}" cy="{y}" r="4"/>')
    return _svg(parts, title, height)


def bar_chart(
    title: str,
    groups: Sequence[str],
    series: Sequence[Series],
    y_label: str,
) -> Markup:
    """Bars in groups, with their intervals; the axis begins at 0.

    Args:
        title: Said by screen readers.
        groups: Names of the groups.
        series: A bar for each group; ``x`` is not used.
        y_label: Of the axis.
    """
    y_ticks = _ticks_about(0.0, _range([v for s in series for v in (*s.y, *s.high)], (0.0, 0.0))[1])
    axes = _Axes((0.0, float(len(groups))), (0.0, y_ticks[-1]))
    parts = axes.frame("", y_label, [(i + 0.5, name) for i, name in enumerate(groups)], y_ticks)
    width = 0.8 / len(series)
    for i, one in enumerate(series):
        for group, value in enumerate(one.y):
            if not math.isfinite(value):
                continue
            left, right = (axes.across(group + 0.1 + width * (i + k)) for k in (0, 0.92))
            top, bottom = axes.down(value), axes.down(0.0)
            place = f'x="{left}" y="{top}" width="{right - left:.1f}" height="{max(bottom - top, 0):.1f}"'
            told = f"{escape(one.name)}, {escape(groups[group])}: {_number(round(value, 4))}"
            parts.append(f'<rect class="bar {style(one.look)}" {place}><title>{told}</title></rect>')
            if len(one.low) and math.isfinite(one.low[group]):
                x = (left + right) / 2
                ends = axes.down(one.low[group]), axes.down(one.high[group])
                parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{ends[0]}" y2="{ends[1]}"/>')
    return _svg(parts, title) + _legend(series)


def car_histogram(cars: Mapping[str, Sequence[float]], look: int) -> Markup:
    """Shares of the pairs of each split by CAR.

    Args:
        cars: CARs by split.
        look: Of the first split, see ``style``; the others follow.
    """
    bounds = [0.0, 1e-9, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0 + 1e-9]
    names = ["0", "to .01", ".02", ".05", ".1", ".2", ".4", ".6", ".8", "1"]
    series = []
    for place, (split, values) in enumerate(cars.items()):
        known = np.array([v for v in values if math.isfinite(v)])
        # a CAR at a bound belongs below it, as in the partition
        counts = np.histogram(-known, bins=-np.array(bounds)[::-1])[0][::-1] if len(known) else np.zeros(len(names))
        shares = (100 * counts / max(len(known), 1)).tolist()
        series.append(Series(f"{split} ({len(known)})", [], shares, look=look + place))
    return bar_chart("Pairs by change area ratio", names, series, "per cent of the pairs")
