"""``bitemporal data synth``."""

from pathlib import Path

from rich.console import Console

from bitemporal.cli.outcome import Outcome
from bitemporal.errors import OptionError
from bitemporal.outputs import Output, check_outputs, locked, replacing_folder
from bitemporal.synthetic import CarDistribution, ChangeKind, write_folder, write_scene
from bitemporal.synthetic.writing import SCENE_FOLDER
from bitemporal.workers import cpus


def _split_sizes(pairs: int) -> dict[str, int]:
    if pairs < 3:
        raise OptionError(f"pairs: found {pairs}, expected at least 3, one each for train, val and test")
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
    cars: tuple[float, ...] | None = None,
    kinds: tuple[ChangeKind, ...] | None = None,
    gsd: float = 0.5,
    scene: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Make synthetic pairs of images with exact change masks.

    The pairs look like high-resolution imagery of fields, woods, water, roads and roofs. The kinds of change are those
    that JL1-CD names. Season, light, haze and a slight shift change the images but not the mask. The result is a folder
    of pairs to train on.

    Args:
        root: Folder to write, with A, B and label in each of train, val and test. It must be new or empty, or hold
            exactly this set.
        pairs: Total number of pairs, split 70 : 15 : 15 into train, val and test.
        size: Height and width of a pair in pixels.
        seed: Random seed; equal options give equal files.
        unchanged: Share of pairs in which nothing changes. This and the next four shares are relative to one another.
        small: Share of pairs with a change area ratio (CAR) up to 0.05.
        medium: Share of pairs with a CAR above 0.05 and up to 0.20.
        large: Share of pairs with a CAR above 0.20.
        full: Share of pairs in which everything changes.
        cars: CARs of the pairs instead of the shares, repeated as often as needed, as in
            0,0.02,0.3.
        kinds: Kinds of change allowed, as in building,water; all by default.
        gsd: Metres per pixel.
        scene: Write one georeferenced scene with sides of this many pixels instead of pairs: before.tif, after.tif and
            label.tif. Needs the extra geo. Its CAR is the first of --cars, 0.05 by default.
        workers: Processes to use; all cores by default.
        overwrite: Also replace a set with other settings, or another scene; never a folder that holds any other file.
    """
    console = Console(markup=False)
    if scene is not None:
        car = cars[0] if cars else 0.05
        with locked(root):
            check_outputs([Output("root", root, SCENE_FOLDER, "choose another folder")], (), overwrite)
            with replacing_folder(root) as folder:
                first, second, mask = (folder / name for name in SCENE_FOLDER.members)
                write_scene(first, second, mask, seed, scene, scene, car, gsd, kinds)
        before, after, label = (root / name for name in SCENE_FOLDER.members)
        console.print(f"{root}: one scene of {scene} x {scene} pixels, seed {seed}", soft_wrap=True)
        return Outcome({"before": before, "after": after, "label": label})
    sizes = _split_sizes(pairs)
    shares = CarDistribution(unchanged, small, medium, large, full)
    processes = workers if workers is not None else max(1, min(cpus(), pairs // 8))
    write_folder(
        root,
        sizes,
        size,
        seed,
        cars or shares,
        gsd,
        kinds,
        processes,
        progress=console.is_terminal,
        overwrite=overwrite,
    )
    counts = ", ".join(f"{count} {split}" for split, count in sizes.items())
    console.print(f"{root}: {counts} pairs of {size} x {size} pixels, seed {seed}", soft_wrap=True)
    return Outcome({"folder": root, "pairs": sizes})
