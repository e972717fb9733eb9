"""What STAC items say about the bands of their assets."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitemporal.imagery.colours import RED_GREEN_BLUE
from bitemporal.imagery.physical import UNSCALED
from bitemporal.scenes.bands import StatedBand

_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties that say that the offset is in the pixels already, although it is stated; they are the truth."""

_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
_SHIFTED = 4.0
"""Processing baseline of Sentinel-2 from which stored values are larger by 1000."""


def stated_bands(asset: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[StatedBand, ...]:
    """What an item says about the bands of an asset, band by band.

    Read are ``raster:bands`` and ``eo:bands`` of STAC 1.0, and ``bands`` of STAC 1.1, whose fields may also be the
    asset's own.

    Raises:
        ValueError: When a number is not one.
        TypeError: When bands are no list of objects.
    """
    merged = [
        {**asset, **first, **second, **third}
        for first, second, third in _padded(*(asset.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")))
    ]
    applied = any((item.get("properties") or {}).get(name) for name in _APPLIED)
    return tuple(
        StatedBand(
            name=str(band.get("eo:common_name") or band.get("common_name") or band.get("name") or ""),
            scale=float(_of(band, "scale", 1.0)),
            offset=0.0 if applied else float(_of(band, "offset", 0.0)),
            nodata=_nodata(band.get("nodata")),
        )
        for band in merged
    )


def _padded(*lists: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], ...]]:
    """The lists side by side, at least one line, as an asset without bands has one."""
    length = max(1, *map(len, lists))
    return [tuple(each[i] if i < len(each) else {} for each in lists) for i in range(length)]


def _of(band: Mapping[str, Any], name: str, default: float) -> Any:  # noqa: ANN401  whatever the JSON holds
    for key in (f"raster:{name}", name):
        if band.get(key) is not None:
            return band[key]
    return default


def _nodata(value: Any) -> float | None:  # noqa: ANN401  whatever the JSON holds
    if value is None or math.isnan(float(value)):  # pixels that are no numbers never count
        return None
    return float(value)


def names_by_colour(assets: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the assets of one band that are red, green and blue by their common names; empty without all three."""
    found: dict[str, str] = {}
    for name, asset in assets.items():
        bands = asset.get("bands") or asset.get("eo:bands") or []
        if len(bands) == 1:
            found.setdefault(str(bands[0].get("eo:common_name") or bands[0].get("common_name")), name)
    return tuple(found[colour] for colour in RED_GREEN_BLUE) if {*RED_GREEN_BLUE} <= found.keys() else ()


def baseline_warnings(
    before: Mapping[str, Any], after: Mapping[str, Any], stated: Sequence[Sequence[StatedBand]]
) -> tuple[str, ...]:
    """A warning where the values of Sentinel-2 shifted between the items and nothing states by how much.

    Pictures of three bands in one asset are not concerned.
    """
    baselines = [_baseline(item) for item in (before, after)]
    if (
        len(stated) == 2
        or any((band.scale, band.offset) != UNSCALED for bands in stated for band in bands)
        or None in baselines
    ):
        return ()
    applied = any(item["properties"].get(name) for item in (before, after) for name in _APPLIED)
    first, second = (float(baseline or 0) for baseline in baselines)
    if applied or (first < _SHIFTED) == (second < _SHIFTED):
        return ()
    return (
        f"the items have the processing baselines {first:05.2f} and {second:05.2f}; since 04.00, Sentinel-2 "
        "stores values that are larger by 1000, and no item states an offset. Unless the archive has corrected it, "
        "state it: "
        'add "raster:bands": [{"scale": 0.0001, "offset": -0.1}] to the assets of the later baseline in the manifest, '
        'and [{"scale": 0.0001, "offset": 0}] to the others',
    )


def _baseline(item: Mapping[str, Any]) -> float | None:
    for name in _BASELINES:
        try:
            return float(item["properties"][name])
        except (KeyError, TypeError, ValueError):
            continue
    return None
