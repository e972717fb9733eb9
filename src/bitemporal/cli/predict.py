"""``bitemporal predict``."""

import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bitemporal.errors import RecipeError
from bitemporal.inference import Augmentation, Detector, compose, predict_files
from bitemporal.scenes.options import SceneOptions


def predict(
    before_image: str | None = None,
    after_image: str | None = None,
    /,
    *,
    bundle: list[str],
    output: str,
    before: list[str] | None = None,
    after: list[str] | None = None,
    manifest: str | None = None,
    probability: str | None = None,
    polygons: str | None = None,
    quicklook: str | None = None,
    summary: str | None = None,
    device: str = "auto",
    tta: Augmentation | None = None,
    scales: tuple[float, ...] = (1.0,),
    assets: list[str] | None = None,
    engine: str = "local",
    workers: int = 1,
    threads: int | None = None,
    options: SceneOptions,
) -> int:
    """Find what changed between two images or folders of images (-o mask.png), scenes (-o change.tif), or an archive.

    Args:
        before_image: Image of date 1, a folder of images, or a georeferenced raster.
        after_image: Image of date 2, a folder of images with the same stems, or a raster of the same place.
        bundle: Bundle folder of a network or of Origin-Partition, or owner/name on the Hugging Face hub; the
            probabilities of several are averaged.
        output: Mask to write: a PNG with 0 unchanged and 255 changed; for folders, the folder of the masks; for scenes,
            a GeoTIFF with 0 unchanged, 1 changed, 255 no data; for a manifest, the folder of the scenes.
        before: Rasters of date 1, one for each band, instead of an image: red, green, blue.
        after: Rasters of date 2, likewise.
        manifest: Many scenes: csv or parquet with the columns id, before, after, or a STAC item collection (.json).
        probability: Where to write probabilities of change too: a PNG with 0..255 for 0..1, a folder for folders, a
            GeoTIFF for scenes; a file name within each scene's folder for a manifest.
        polygons: For scenes: where to write changed areas, .gpkg, .parquet or .geojson.
        quicklook: For scenes: where to write a picture of both dates and the changes, .png.
        summary: For scenes: where to write CAR, hectares and timing, .json; a manifest's scenes always have one.
        device: auto (CUDA, else MPS, else CPU), or a device's name.
        tta: Test-time augmentation: average the answers to mirrored or turned images: flips, rotations or
            flips-rotations.
        scales: Sizes at which images are seen, as in 0.75,1,1.25; the answers are averaged.
        assets: For a STAC manifest: assets to use, one with three bands, or those of red, green and blue.
        engine: For a manifest: local (processes), or ray (actors of a Ray cluster).
        workers: For a manifest: scenes predicted at the same time.
        threads: For a manifest: CPU threads of each worker; by default this machine's cores divided by workers.
        options: How scenes are read and drawn; batch_size and image_range are for images too.

    Returns:
        1 when something could not be predicted, else 0.
    """
    products = {"probability": probability, "polygons": polygons, "quicklook": quicklook, "summary": summary}
    if manifest is not None:
        if before_image or after_image or before or after:
            raise RecipeError("manifest: names its own images; leave before and after out")
        return _archive(
            manifest, assets, engine, workers, threads, tuple(bundle), output, device, tta, scales, products, options
        )
    first, second = _date("before", before_image, before), _date("after", after_image, after)
    detector = compose(bundle, device, tta, scales)
    if isinstance(first, str) and isinstance(second, str) and Path(output).suffix.lower() not in (".tif", ".tiff"):
        for name in ("polygons", "quicklook", "summary"):
            if products[name] is not None:
                raise RecipeError(f"{name}: is for scenes, whose output ends in .tif; found {output}")
        return _images(detector, first, second, output, probability, options)
    return _scene(detector, first, second, output, products, options)


def _date(name: str, image: str | None, files: list[str] | None) -> str | list[str]:
    """A date given as one word, or as a file for each band."""
    if (image is None) == (not files):
        found = "both" if files else "neither"
        raise RecipeError(f"{name}: expected an image, or --{name} with a file for each band; found {found}")
    if image is not None:
        return image
    assert files is not None
    return files[0] if len(files) == 1 else files


def _console(error: bool = False) -> Console:
    return Console(stderr=error, soft_wrap=True, highlight=False, markup=False)


def _images(
    detector: Detector, before: str, after: str, output: str, probability: str | None, options: SceneOptions
) -> int:
    if options.image_range is not None and len(options.image_range) != 2:
        raise RecipeError(f"image_range: found {options.image_range}, expected two numbers for images")
    report = predict_files(
        detector,
        before,
        after,
        output,
        probability=probability,
        batch_size=options.batch_size,
        image_range=options.image_range,
        progress=sys.stderr.isatty(),
    )
    _console().print(f"{len(report.masks)} mask(s) written to {output}")
    errors = _console(error=True)
    for note in report.notes:
        errors.print(f"note: {note}")
    if not report.faults:
        return 0
    errors.print(f"{len(report.faults)} fault(s), the images concerned were left out:")
    for fault in report.faults:
        errors.print(f"  {fault}")
    return 1


def _scene(
    detector: Detector,
    before: str | list[str],
    after: str | list[str],
    output: str,
    products: dict[str, str | None],
    options: SceneOptions,
) -> int:
    from bitemporal.scenes import predict_scene

    progress = sys.stderr.isatty()
    found = predict_scene(detector, before, after, output, **products, progress=progress, **asdict(options))
    area = "" if found.changed_hectares is None else f", {found.changed_hectares:.2f} ha"
    lines = [f"changed: {found.changed_pixels} of {found.valid_pixels} valid pixels (CAR {found.car:.4f}{area})"]
    if found.polygons is not None:
        lines.append(f"polygons: {found.polygons}")
    if found.shift is not None:
        lines.append(
            f"date 2 lay off by {found.shift.columns:+.2f} columns and {found.shift.rows:+.2f} rows, which was undone"
        )
    if found.parts:
        lines.append("answered by: " + ", ".join(f"{part} {count} tiles" for part, count in found.parts.items()))
    if found.resumed:
        lines.append(f"went on with {found.resumed} strips of tiles that an interrupted run had done")
    lines.append(f"{found.tiles} tiles, {found.skipped} skipped without data, {found.seconds['total']:.1f} s")
    lines += [f"{name}: {path}" for name, path in found.outputs.named().items()]
    _console().print("\n".join(lines))
    return 0


def _archive(
    manifest: str,
    assets: list[str] | None,
    engine: str,
    workers: int,
    threads: int | None,
    bundles: tuple[str, ...],
    output: str,
    device: str,
    tta: Augmentation | None,
    scales: tuple[float, ...],
    products: dict[str, str | None],
    options: SceneOptions,
) -> int:
    from bitemporal.scenes.archive import Plan, SceneStatus, predict_archive, threads_a_worker
    from bitemporal.scenes.manifest import read_manifest

    if products["summary"] is not None:
        raise RecipeError("summary: every scene of a manifest has its summary.json; leave the option out")
    if engine not in ("local", "ray"):
        raise RecipeError(f"engine: found {engine!r}, expected local or ray")
    names = {name: file for name, file in products.items() if file is not None}
    for name, file in names.items():
        if Path(file).name != file:
            raise RecipeError(f"{name}: found {file}, expected a plain file name; it stands in every scene's folder")
    scenes = read_manifest(manifest, assets)
    plan = Plan(bundles, output, device, tta, scales, names, options, threads or threads_a_worker(workers))
    console = _console()

    def report(status: SceneStatus) -> None:
        console.print(f"{status.id}: {status.status}{': ' + status.error if status.error else ''}")

    found = predict_archive(plan, scenes, "ray" if engine == "ray" else "local", workers, report)
    table = Table("scene", "status", "CAR", "hectares", "seconds", "tries")
    for status in found:
        numbers = ((status.car, ".4f"), (status.changed_hectares, ".2f"), (status.seconds, ".1f"))
        table.add_row(
            status.id,
            status.status,
            *("-" if value is None else format(value, form) for value, form in numbers),
            str(status.attempts),
        )
    console.print(table)
    failed = [status for status in found if status.status == "failed"]
    for status in failed:
        _console(error=True).print(f"{status.id}: {status.error}")
    console.print(f"{len(found) - len(failed)} of {len(found)} scenes in {output}; all of them in status.csv there")
    return 1 if failed else 0
