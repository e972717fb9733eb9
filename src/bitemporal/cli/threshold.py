"""``bitemporal threshold``."""

from dataclasses import asdict, dataclass

from bitemporal import scenes
from bitemporal.cli.maps import map_results, print_files, print_measurements
from bitemporal.cli.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Products:
    """Output.

    Attributes:
        output: Change mask to write, a GeoTIFF (.tif) with 0 unchanged, 1 changed, 255 no data.
        polygons: Also write the changed areas, .gpkg, .parquet or .geojson.
        quicklook: Also write a picture of both dates and the changes, .png; needs before and after.
        summary: Also write CAR and hectares, .json.
        overwrite: Also replace files that are not earlier outputs of the same kind.
    """

    output: str
    polygons: str | None = None
    quicklook: str | None = None
    summary: str | None = None
    overwrite: bool = False


def threshold(
    probability: str,
    /,
    *,
    files: Products,
    before: list[str] | None = None,
    after: list[str] | None = None,
    options: scenes.MapOptions,
    date_options: scenes.DateOptions,
) -> Outcome:
    """Make a new map from probabilities, with another threshold or area, without a network.

    The files are those that `bitemporal predict-scene` writes with the same threshold.

    Args:
        probability: Raster of one band with values in [0, 1], as `bitemporal predict-scene --probability` writes.
        files: What is written.
        before: Raster of date 1, or one raster for each of red, green and blue; for the quicklook alone.
        after: Raster of date 2, or one raster for each of red, green and blue; for the quicklook alone.
        options: How the map is made.
        date_options: How the dates are read, for the quicklook alone.
    """
    result = scenes.threshold_scene(
        probability,
        **asdict(files),
        before=before,
        after=after,
        date_options=date_options,
        **asdict(options),
    )
    print_measurements(result)
    print_files(result)
    return Outcome(map_results(result))
