"""``bitemporal predict-scene``."""

import sys
from dataclasses import asdict, dataclass

from bitemporal import scenes
from bitemporal.cli.detector import DetectorOptions
from bitemporal.cli.maps import map_results, print_files, print_measurements
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Products:
    """Output.

    Attributes:
        output: Change mask to write, a GeoTIFF (.tif) with 0 unchanged, 1 changed, 255 no data.
        probability: Also write the probability of change, a GeoTIFF (.tif).
        polygons: Also write the changed areas, .gpkg, .parquet or .geojson.
        quicklook: Also write a picture of both dates and the changes, .png.
        summary: Also write CAR, hectares and timing, .json.
        overwrite: Also replace files that are not earlier outputs of the same kind.
    """

    output: str
    probability: str | None = None
    polygons: str | None = None
    quicklook: str | None = None
    summary: str | None = None
    overwrite: bool = False


def predict_scene(
    before_image: str | None = None,
    after_image: str | None = None,
    /,
    *,
    before: list[str] | None = None,
    after: list[str] | None = None,
    files: Products,
    detector: DetectorOptions,
    options: scenes.SceneOptions,
) -> Outcome:
    """Map what changed between two rasters of one place, of any size.

    Args:
        before_image: Raster of date 1.
        after_image: Raster of date 2.
        before: Raster of date 1, or one raster for each channel of the detector, such as red, green and blue; instead
            of the positional argument.
        after: Raster of date 2, or one raster for each channel of the detector, such as red, green and blue; instead
            of the positional argument.
        files: What is written.
        detector: Which detector predicts, and how.
        options: How the scene is read, predicted and drawn.
    """
    first, second = _date("before", before_image, before), _date("after", after_image, after)
    result = scenes.predict_scene(
        detector.load(), first, second, **asdict(files), progress=sys.stderr.isatty(), **asdict(options)
    )
    print_measurements(result)
    if shift := result.shift:
        print(f"date 2 was shifted by {shift.columns:+.2f} columns and {shift.rows:+.2f} rows; this was corrected")
    if result.parts:
        print("predicted by: " + ", ".join(f"{part} {count} tiles" for part, count in result.parts.items()))
    if result.resumed:
        print(f"resumed after {result.resumed} strips of tiles that an interrupted run had finished")
    print(f"{result.tiles} tiles, {result.skipped} skipped without data, {result.seconds['total']:.1f} s")
    print_files(result)
    return Outcome(
        map_results(result)
        | {
            "shift": None if result.shift is None else {"rows": result.shift.rows, "columns": result.shift.columns},
            "parts": result.parts,
            "tiles": result.tiles,
            "skipped": result.skipped,
            "seconds": result.seconds,
        }
    )


def _date(name: str, image: str | None, rasters: list[str] | None) -> str | list[str]:
    """The raster of a date, or one for each band."""
    if image is not None and not rasters:
        return image
    if image is None and rasters:
        return rasters[0] if len(rasters) == 1 else rasters
    given = "both" if rasters else "neither"
    raise OptionError(f"{name}: expected one raster, or --{name} with a raster for each band; found {given}")
