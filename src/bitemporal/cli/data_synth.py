"""``bitemporal data synth``."""

import os
from pathlib import Path

from rich.console import Console

from bitemporal.errors import DataError, RecipeError
from bitemporal.synthetic import CarDistribution, ChangeKind, write_folder, write_scene


def _divided(pairs: int) -> dict[str, int]:
    if pairs < 3:
        raise RecipeError(f"--pairs: found {pairs}, expected at least 3, one each for train, val and test")
    held_out = max(1, round(0.15 * pairs))
    return {"train": pairs - 2 * held_out, "val": held_out, "test": held_out}


def synth(
    root: Path,
    /,
    pairs: int = 300,
    size: int = 256,
    seed: int = 0,
    unchanged: float = CarDistribution.none,
    small: float = CarDistribution.small,
    medium: float = CarDistribution.medium,
    large: float = CarDistribution.large,
    full: float = CarDistribution.full,
    cars: list[float] | None = None,
    kinds: list[ChangeKind] | None = None,
    gsd: float = 0.5,
    scene: int | None = None,
    workers: int | None = None,
) -> None:
    """Make synthetic pairs of images with exact change masks.

    The pairs look like high-resolution imagery of fields, woods, water, roads and roofs; what JL1-CD names changes,
    while season, light, haze and a slight shift change the images and not the mask. The folder can be trained on.

    Args:
        root: Folder to write: train, val and test with A, B and label each; it must be new, empty, or hold this set.
        pairs: Number of pairs in all, divided 70 : 15 : 15 into train, val and test.
        size: Height and width of a pair in pixels.
        seed: Equal options give equal files.
        unchanged: Share of pairs in which nothing changes; this and the next four are relative to one another.
        small: Share of pairs with a change area ratio (CAR) up to 0.05.
        medium: Share of pairs with a CAR above 0.05 and up to 0.20.
        large: Share of pairs with a CAR above 0.20.
        full: Share of pairs in which everything changes.
        cars: CARs of the pairs, gone through again and again, in place of the shares, as in --cars '[0, 0.02, 0.3]'.
        kinds: Kinds of change allowed, as in --kinds '[building, water]'; all by default.
        gsd: Metres of a pixel.
        scene: Write one georeferenced scene of this many pixels a side in place of pairs: before.tif, after.tif and
            label.tif; needs the extra geo. The first of --cars is its CAR, 0.05 by default.
        workers: Processes to use; all cores by default.
    """
    console = Console()
    if scene is not None:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DataError(
                f"{root}: found a file or a folder with files, expected a new or empty folder for the scene"
            )
        car = cars[0] if cars else 0.05
        before, after, label = (root / name for name in ("before.tif", "after.tif", "label.tif"))
        write_scene(before, after, label, seed, scene, scene, car, gsd, kinds)
        console.print(f"{root}: one scene of {scene} x {scene} pixels, seed {seed}", soft_wrap=True)
        return
    divided = _divided(pairs)
    shares = CarDistribution(unchanged, small, medium, large, full)
    processes = workers if workers is not None else max(1, min(os.cpu_count() or 1, pairs // 8))
    write_folder(root, divided, size, seed, cars or shares, gsd, kinds, processes, progress=console.is_terminal)
    counts = ", ".join(f"{count} {split}" for split, count in divided.items())
    console.print(f"{root}: {counts} pairs of {size} x {size} pixels, seed {seed}", soft_wrap=True)
