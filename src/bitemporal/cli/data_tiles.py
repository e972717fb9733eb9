"""``bitemporal data tiles``."""

from bitemporal import scenes
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import OptionError
from bitemporal.pairs import PairOptions, resolve_decoding
from bitemporal.scenes.options import IGNORED, TileOptions


def tiles(
    before: str,
    after: str | None = None,
    /,
    *,
    output: str,
    label: str | None = None,
    options: TileOptions,
    nodata: float | None = None,
    pair_options: PairOptions,
) -> Outcome:
    """Cut two large images, or every pair of a folder, into tiles: a folder of pairs.

    Tiles keep bands, values and georeference. Date 2 and the label are brought to the pixels of date 1.

    Args:
        before: Image of date 1; or, given alone, a folder of pairs. A folder of files with one band each (B02.tif,
            B03.tif, ...) is an image.
        after: Image of date 2.
        output: Folder to make, new or empty.
        label: Raster of one band, or vector file (.gpkg, .geojson, .shp, .parquet) with what has changed.
        options: How tiles are cut.
        nodata: Value of the images that means no data, overriding what the files say.
        pair_options: How the label, or a folder of pairs, is read.
    """
    pair_options.refuse("tiles keep all bands and values as they are stored", ("bands", "image_range"))
    if after is None:
        if label is not None:
            raise OptionError(f"label: found {label} with one path; a folder of pairs has its own labels: leave it out")
        folder = resolve_decoding(pair_options.pair_folder(before))
        cut = scenes.cut_pairs(folder, output, options, nodata)
    else:
        pair_options.refuse(f"{before} and {after} are two images", ("folders", "suffixes", "splits"))
        cut = scenes.cut_scene(before, after, output, label, options, pair_options, nodata)
    counts = ", ".join(f"{split} {count:,}" for split, count in cut.written.items())
    left_out = f"; {cut.without_data:,} without enough data left out" if cut.without_data else ""
    small = f"; {cut.too_small:,} images smaller than a tile left out" if cut.too_small else ""
    print(
        f"{output}: {sum(cut.written.values()):,} tiles of {options.size} x {options.size} ({counts}){left_out}{small}"
    )
    if cut.ignores:
        print(
            f"labels: 0 unchanged, 255 changed, {IGNORED} without data: read them with --label-values 0,255,{IGNORED}"
        )
    return Outcome(
        {
            "folder": output,
            "tiles": cut.written,
            "without_data": cut.without_data,
            "too_small": cut.too_small,
            "ignored_value": IGNORED if cut.ignores else None,
        }
    )
