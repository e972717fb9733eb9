"""An archive's list of scenes: csv, parquet, or a STAC item collection."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from bitemporal.errors import DataError
from bitemporal.files import not_there
from bitemporal.imagery.scale import RGB
from bitemporal.reading import read_json, reading
from bitemporal.remedies import as_option
from bitemporal.scenes.bands import Stated, StatedBand
from bitemporal.scenes.manifest_tables import COLUMNS, read_rows
from bitemporal.scenes.sources import is_remote
from bitemporal.scenes.stac import baseline_warnings, names_by_colour, stated_bands

_TILE_PROPERTIES = ("grid:code", "s2:mgrs_tile", "tile", "tile_id")
"""Where STAC items say which tile they show."""

_ASSETS = (("visual",), ("red", "green", "blue"), ("B04", "B03", "B02"))
"""Assets looked for in this order."""


@dataclass(frozen=True)
class SceneFiles:
    """One line of a manifest.

    Attributes:
        id: Name of the scene, and of its folder in the output.
        before: Date 1: a raster, or one for each band.
        after: Date 2, likewise.
        error: Why its line cannot be used; empty where it can.
        mask: Rasters that mark pixels to leave out; see ``SceneOptions``.
        before_date: When date 1 was, for merged polygons; empty where the manifest does not say.
        after_date: When date 2 was, likewise.
        stated: What a STAC manifest says about bands of the files.
        warnings: What makes a comparison of the dates doubtful.
        row: Where it stands in the manifest, for messages.
        manifest: The manifest, which no output may replace.
    """

    id: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    error: str = ""
    mask: tuple[str, ...] = ()
    before_date: str = ""
    after_date: str = ""
    stated: Stated = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    row: str = field(default="", compare=False)
    manifest: str = field(default="", compare=False)


def read_manifest(path: str | os.PathLike[str], assets: Sequence[str] | None = None) -> list[SceneFiles]:
    """Read which scenes an archive holds.

    Args:
        path: A csv or parquet file with the columns ``before`` and ``after`` (files of several bands separated by
            semicolons; relative paths start at the manifest's folder), and perhaps ``id``, ``mask``, likewise, and
            ``before_date`` and ``after_date``. A scene without an id is named after its file of date 1, or, where
            several are called so, after its row; or a STAC item collection (.json): the
            earliest and the latest item of each tile are a pair. The columns of a csv file are separated by commas,
            semicolons, tabs, spaces or vertical bars; capitals in their names do not matter.
        assets: Assets of STAC items to use: one with all bands, or one for each channel of the detector. By default
            ``visual``, or else the colours by their common names.

    Raises:
        DataError: When it cannot be read. A bad line becomes a scene with an ``error``.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(
            f"{not_there(file, 'file')}; expected a manifest: csv, parquet, or a STAC item collection (.json)"
        )
    match file.suffix.lower():
        case ".csv" | ".tsv" | ".txt" | ".parquet":
            scenes = _of_table(file)
        case ".json" | ".geojson":
            scenes = _of_items(file, assets)
        case _:
            raise DataError(
                f"{file}: found a name that is not a manifest's; expected one that ends in .csv, .tsv, .txt, .parquet "
                "or .json"
            )
    if not scenes:
        raise DataError(f"{file}: lists no scene; expected at least one")
    return with_own_folders([replace(scene, manifest=str(file)) for scene in scenes])


def with_own_folders(scenes: Sequence[SceneFiles]) -> list[SceneFiles]:
    """The scenes, each with an id of its own that names a folder, or else with an ``error``.

    Of equal scenes the first one stays, with a warning.
    """
    groups: dict[str, list[SceneFiles]] = defaultdict(list)
    for scene in scenes:
        groups[scene.id].append(scene)
    kept = []
    for scene in scenes:
        same = groups[scene.id]
        if (
            not scene.id
            or scene.id != Path(scene.id).name
            or scene.id.startswith(".")
            or "\\" in scene.id
            or not scene.id.isprintable()
            or scene.id.casefold() == "status.csv"  # the table of results has that name
        ):
            fault = f"the id {scene.id!r} cannot name a folder; use letters, digits, - and _"
            kept.append(replace(scene, error=scene.error or fault))
        elif len(same) == 1:
            kept.append(scene)
        elif any(other != same[0] for other in same):
            rows = ", ".join(filter(None, (other.row for other in same)))
            fault = f"{len(same)} scenes have the id {scene.id!r}{f' ({rows})' if rows else ''}, which names a folder"
            kept.append(replace(scene, error=f"{fault}; make their ids differ, or leave the column id out"))
        elif scene is same[0]:
            rows = ", ".join(other.row for other in same[1:])
            kept.append(replace(scene, warnings=(*scene.warnings, f"the manifest repeats this scene ({rows})")))
    return kept


def _of_table(file: Path) -> list[SceneFiles]:
    rows = read_rows(file)
    names = _names([row.values for row in rows], [row.place.replace(" ", "-") for row in rows])
    scenes = []
    for row, name in zip(rows, names, strict=True):
        missing = [date for date in COLUMNS if not row.values.get(date)]
        fault = row.fault
        if not fault and missing:
            fault = f"has no {' and no '.join(missing)}; expected both: fill them"
        text = f"{file}: {row.place} {fault}" if fault else ""
        before, after = (() if fault else _files(row.values[date], file) for date in ("before", "after"))
        masks = _files(row.values.get("mask") or "", file)
        first, last = (str(row.values.get(date) or "") for date in ("before_date", "after_date"))
        scenes.append(SceneFiles(name, before, after, text, masks, first, last, row=row.place))
    return scenes


def _names(rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> list[str]:
    """Ids of rows; where there is none, the name of the first file of date 1, or the row where that is not its own."""
    stated = ["" if row.get("id") is None else str(row["id"]).strip() for row in rows]
    words = [_words(row.get("before") or "") for row in rows]
    files = [PurePath(first[0].split("?")[0]).stem if first else "" for first in words]
    count = Counter(name or file for name, file in zip(stated, files, strict=True))
    return [
        name or (file if file and count[file] == 1 else place)
        for name, file, place in zip(stated, files, places, strict=True)
    ]


def _words(value: object) -> list[str]:
    words = [str(v) for v in value] if isinstance(value, list) else str(value).split(";")
    return [word.strip() for word in words if word.strip()]


def _files(value: object, file: Path) -> tuple[str, ...]:
    return tuple(_resolved(word, file) for word in _words(value))


def _resolved(address: str, file: Path) -> str:
    if is_remote([address]):
        return address
    path = file.parent / address
    return str(path if os.path.exists(path) else file.parent / address.replace("\\", "/"))  # as Windows writes paths


def _of_items(file: Path, assets: Sequence[str] | None) -> list[SceneFiles]:
    what = (
        "is not a STAC item collection; expected a FeatureCollection of items, as `pystac_client`'s "
        "item_collection().save_object() writes it"
    )
    with reading(file, DataError, what):
        items = read_json(file)["features"]
        tiles: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
        scenes = []
        for number, item in enumerate(items, start=1):
            try:
                tile, date = _tile_and_date(item, file)
            except DataError as error:
                scenes.append(SceneFiles(str(item.get("id") or f"item-{number}"), error=str(error)))
                continue
            tiles[tile].append((date, item))
    for tile, dated in sorted(tiles.items()):
        dated.sort(key=lambda entry: entry[0])
        (first, before), (last, after) = dated[0], dated[-1]
        try:
            if first == last:
                raise DataError(f"{file}: the tile {tile!r} has items of only one date, {first}; expected two dates")
            with reading(f"{file}: the tile {tile!r}", DataError, "expected assets as STAC has them: correct them"):
                first_files, last_files = (_assets(item, assets, file) for item in (before, after))
                stated = first_files | last_files
                scenes.append(
                    SceneFiles(
                        tile,
                        tuple(first_files),
                        tuple(last_files),
                        before_date=first,
                        after_date=last,
                        stated=stated,
                        warnings=baseline_warnings(before, after, [*stated.values()]),
                    )
                )
        except DataError as error:
            scenes.append(SceneFiles(tile, error=str(error)))
    return scenes


def _tile_and_date(item: Mapping[str, Any], file: Path) -> tuple[str, str]:
    properties = item["properties"]
    tile = next((str(properties[name]) for name in _TILE_PROPERTIES if properties.get(name)), None)
    date = properties.get("datetime") or properties.get("start_datetime")
    if tile is None or not date:
        raise DataError(
            f"{file}: the item {item.get('id')!r} has no tile or no date; expected one of "
            f"{', '.join(_TILE_PROPERTIES)}, and datetime, among its properties"
        )
    return tile, str(date)


def _assets(item: Mapping[str, Any], chosen: Sequence[str] | None, file: Path) -> dict[str, tuple[StatedBand, ...]]:
    """The files of an item, and what it says about their bands."""
    known = {name: asset for name, asset in (item.get("assets") or {}).items() if asset.get("href")}
    choices = (*_ASSETS, names_by_colour(known)) if chosen is None else (tuple(chosen),)
    for names in choices:
        if names and all(name in known for name in names):
            try:
                return {_resolved(known[name]["href"], file): stated_bands(known[name], item) for name in names}
            except (AttributeError, TypeError, ValueError) as error:
                raise DataError(
                    f"{file}: the item {item.get('id')!r} describes the bands of its assets in a way that cannot be "
                    f"read ({error}); expected lists of objects as in STAC's raster extension: correct or remove them"
                ) from error
    wanted = ", ".join(chosen) if chosen else " or ".join(", ".join(names) for names in _ASSETS)
    raise DataError(
        f"{file}: the item {item.get('id')!r} has no assets {wanted}; it has {', '.join(sorted(known)) or 'none'}"
        f"{_likely_assets(known)}"
    )


def _likely_assets(known: Mapping[str, Any]) -> str:
    """The option that names assets that a date can be read from; empty where there are none."""
    usual = (names for names in (*_ASSETS, names_by_colour(known)) if names and {*names} <= known.keys())
    rasters = [name for name in sorted(known) if str(known[name]["href"]).lower().endswith((".tif", ".tiff", ".jp2"))]
    likely = next(usual, rasters[: RGB if len(rasters) >= RGB else 1])
    return f": name those to use, as in {as_option('assets', likely)}" if likely else ""
