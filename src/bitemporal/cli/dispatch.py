"""Which command `bitemporal predict` means: it was one command for images, scenes and archives."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

from bitemporal.errors import RecipeError
from bitemporal.reading import read_yaml, reading


def which_predict(words: Sequence[str]) -> str:
    """Find the command for the words after `bitemporal predict`, and for the values in their ``--config`` file.

    Returns:
        ``predict-archive`` where a manifest is given, ``predict-scene`` where rasters are listed by date or the output
        is a GeoTIFF, else ``predict``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (["--config"], ["--manifest"], ["--before"], ["--after"], ["-o", "--out", "--output"]):
        parser.add_argument(*names, dest=names[-1].lstrip("-"), nargs="?", default=argparse.SUPPRESS)
    given = vars(parser.parse_known_args(words)[0])
    with contextlib.suppress(RecipeError), reading("--config", RecipeError, ""):  # the command reports a bad file
        given = read_yaml(Path(given.get("config", ""))) | given
    if given.get("manifest"):
        return "predict-archive"
    is_geotiff = Path(str(given.get("output"))).suffix.lower() in (".tif", ".tiff")
    return "predict-scene" if is_geotiff or given.get("before") or given.get("after") else "predict"
