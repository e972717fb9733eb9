"""What commands print and give of a map of change."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # needs the extra geo, whose absence the command reports
    from bitemporal.scenes.outputs import MapResult


def print_measurements(result: "MapResult") -> None:
    """Print what has changed."""
    area = "" if result.changed_hectares is None else f", {result.changed_hectares:.2f} ha"
    print(f"changed: {result.changed_pixels} of {result.valid_pixels} valid pixels (CAR {result.car:.4f}{area})")
    if result.polygons is not None:
        print(f"polygons: {result.polygons}")


def print_files(result: "MapResult") -> None:
    """Print where the files are."""
    for name, path in result.outputs.named().items():
        print(f"{name}: {path}")


def map_results(result: "MapResult") -> dict[str, object]:
    """Files and measurements for ``--json``."""
    return {
        "outputs": result.outputs.named(),
        "changed_pixels": result.changed_pixels,
        "valid_pixels": result.valid_pixels,
        "car": result.car,
        "changed_hectares": result.changed_hectares,
        "polygons": result.polygons,
    }
