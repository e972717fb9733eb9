"""``bitemporal predict-archive``."""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bitemporal import scenes
from bitemporal.cli.detector import DetectorOptions
from bitemporal.cli.outcome import Outcome
from bitemporal.errors import OptionError
from bitemporal.tables import make_table, print_table
from bitemporal.texts import harmless

if TYPE_CHECKING:
    from bitemporal.scenes.manifest import SceneFiles

_NAMED = 3
"""Scenes named of those that fail in the same way."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """Additional files in the folder of each scene, next to change.tif and summary.json.

    Attributes:
        probability: File name for the probability of change, .tif.
        polygons: File name for the changed areas, .gpkg, .parquet or .geojson.
        quicklook: File name for a picture of both dates and the changes, .png.
        overwrite: Also replace files that are not earlier outputs of the same kind.
    """

    probability: str | None = None
    polygons: str | None = None
    quicklook: str | None = None
    overwrite: bool = False

    def names(self) -> dict[str, str]:
        """The file names that are given, by their kind."""
        names = {"probability": self.probability, "polygons": self.polygons, "quicklook": self.quicklook}
        return {kind: name for kind, name in names.items() if name is not None}

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            OptionError: When one is a path.
        """
        for name, file in self.names().items():
            if Path(file).name != file:
                raise OptionError(f"{name}: found {file}, expected a file name without a folder")


def predict_archive(
    *,
    manifest: str,
    output: str,
    assets: list[str] | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    threads: int | None = None,
    merge: str | None = None,
    products: Products,
    detector: DetectorOptions,
    options: scenes.SceneOptions,
) -> Outcome:
    """Map what changed in every scene of an archive, on several processes or a Ray cluster.

    Scenes that an earlier run finished with the same options are skipped. A scene that fails does not stop the others.

    Args:
        manifest: List of the scenes: csv or parquet with the columns before and after, and optionally id, mask,
            before_date, after_date; or a STAC item collection (.json).
        output: Folder of the results: one folder per scene, and the table status.csv.
        assets: Assets of a STAC manifest to use: one with all bands, or one for each channel of the detector, such as
            red, green and blue.
        engine: Where scenes are predicted: local (processes of this machine), or ray (actors of a Ray cluster).
        workers: Scenes predicted at the same time.
        threads: CPU threads per worker; by default the cores of this machine divided by workers.
        merge: File to write with the polygons of all finished scenes, .gpkg, .parquet or .geojson, with the scene and
            its dates; needs polygons.
        products: Further files that are written for each scene.
        detector: Which detector predicts, and how.
        options: How scenes are read, predicted and drawn.

    Returns:
        Status 1 when some scene failed.
    """
    entries = scenes.read_manifest(manifest, assets)
    plan = scenes.Plan(
        tuple(detector.bundle),
        output,
        detector.device,
        detector.tta,
        detector.scales,
        products.names(),
        options,
        threads,
        products.overwrite,
    )
    statuses = scenes.predict_archive(plan, entries, engine, workers, report=_print_status, merge=merge)
    print_table(
        make_table(("scene", "status", "CAR", "hectares", "seconds", "tries"), map(_row, statuses), text_columns=2)
    )
    failed = [status for status in statuses if status.status == "failed"]
    for line in _failures(statuses, entries):
        print(harmless(line), file=sys.stderr)
    done = len(statuses) - len(failed)
    print(f"{done} of {len(statuses)} scenes in {output}; status.csv there lists them all")
    if merge is not None and done:
        print(f"polygons of {done} scenes in {merge}")
    return Outcome([asdict(status) for status in statuses], status=1 if failed else 0)


def _failures(statuses: "Sequence[scenes.SceneStatus]", entries: "Sequence[SceneFiles]") -> list[str]:
    """Why scenes failed; of many that failed in the same way, but for the names of their own files, the first ones."""
    same: dict[str, list[str]] = defaultdict(list)
    for status, scene in zip(statuses, entries, strict=True):
        if status.status == "failed":
            kind = re.sub(r" \(did you mean [^)]*\)", "", status.error)  # other names for each
            for own in sorted({*scene.before, *scene.after, *scene.mask, status.id}, key=len, reverse=True):
                kind = kind.replace(own, "")
            same[kind].append(f"{status.id}: {status.error}")
    lines = []
    for failures in same.values():
        # a line in place of one scene would save nothing
        named = failures if len(failures) <= _NAMED + 1 else failures[:_NAMED]
        lines += named
        if more := len(failures) - len(named):
            lines.append(f"and {more:,} more scenes in the same way; status.csv has them all")
    return lines


def _print_status(status: "scenes.SceneStatus") -> None:
    print(f"{status.id}: {status.status}{': ' + status.error if status.error else ''}", flush=True)


def _row(status: "scenes.SceneStatus") -> list[str]:
    numbers = ((status.car, ".4f"), (status.changed_hectares, ".2f"), (status.seconds, ".1f"))
    cells = ["-" if value is None else format(value, form) for value, form in numbers]
    return [status.id, status.status, *cells, str(status.attempts)]
