"""Draws docs/images/architecture.svg from the imports of the package.

    python docs/draw_architecture.py

A box is a room: a folder of src/bitemporal, or a file at its top. An arrow says that a room imports another one. It is
left out where a longer way over other rooms says the same. Files that import no room but each other are the foundation:
they share a box without arrows, as any room may import them.
"""

import ast
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "bitemporal"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"


def _room(name: str) -> str:
    """The room of a module, such as ``pairs`` of ``bitemporal.pairs.folder``; empty for the package itself."""
    return name.split(".")[1] if name.startswith("bitemporal.") else ""


def room_imports() -> dict[str, set[str]]:
    """Rooms that each room imports."""
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] == "__init__":
            continue
        own = imports.setdefault(parts[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            own.update(room for room in map(_room, names) if room)
    known = imports.keys()
    return {room: {other for other in others if other in known} - {room} for room, others in imports.items()}


def levels(imports: dict[str, set[str]]) -> list[list[str]]:
    """Rooms from the lowest to the highest: each stands above all that it imports.

    Raises:
        ValueError: When rooms import each other in a circle.
    """
    placed: list[list[str]] = []
    left = set(imports)
    while left:
        row = sorted(room for room in left if not imports[room] & left)
        if not row:
            raise ValueError(f"{', '.join(sorted(left))} import each other in a circle")
        placed.append(row)
        left -= set(row)
    return placed


def direct(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports that no longer way over other rooms implies."""
    below: dict[str, set[str]] = {}
    for row in levels(imports):
        for room in row:
            below[room] = set(imports[room]).union(*(below[other] for other in imports[room]))
    return [
        (room, other)
        for room, others in sorted(imports.items())
        for other in sorted(others)
        if not any(other in below[between] for between in others)
    ]


def foundation(imports: dict[str, set[str]]) -> set[str]:
    """Files at the top of the package that import nothing but such files."""
    files = {room for room in imports if not (PACKAGE / room).is_dir()}
    while more := {room for room in files if imports[room] - files}:
        files -= more
    return files


def description(imports: dict[str, set[str]]) -> str:
    """The picture in words."""
    return "; ".join(
        f"{room} imports {', '.join(sorted(others)) or 'nothing'}" for room, others in sorted(imports.items())
    )


def draw(imports: dict[str, set[str]], path: Path) -> None:
    """Draw the rooms in rows, the lowest at the bottom."""
    ground = foundation(imports)
    above = {room: others - ground for room, others in imports.items() if room not in ground}
    rows = levels(above)
    figure = Figure(figsize=(9, 0.95 * (len(rows) + 1)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10)
    axes.set_ylim(-1.6, len(rows) - 0.4)
    axes.axis("off")
    places = {
        room: (10 * (position + 1) / (len(row) + 1), height)
        for height, row in enumerate(rows)
        for position, room in enumerate(row)
    }
    for room, other in direct(above):
        (x0, y0), (x1, y1) = places[room], places[other]
        bow = 0.3 if x1 <= x0 else -0.3  # outwards, around the boxes between
        arrow = FancyArrowPatch(
            (x0, y0 - 0.24),
            (x1, y1 + 0.24),
            arrowstyle="-|>",
            mutation_scale=11,
            color="#7a8ca3",
            linewidth=1.1,
            connectionstyle=f"arc3,rad={bow if y0 - y1 > 1 else 0}",
            zorder=0,
        )
        axes.add_patch(arrow)
    for room, (x, y) in places.items():
        box = FancyBboxPatch(
            (x - 0.72, y - 0.2),
            1.44,
            0.4,
            boxstyle="round,pad=0.03",
            facecolor="#f4d58d" if room == "method" else "#dfe8f3",
            edgecolor="#3a4a5e",
        )
        axes.add_patch(box)
        axes.text(x, y, room, ha="center", va="center", fontsize=11, color="#1c2733")
    box = FancyBboxPatch((0.4, -1.35), 9.2, 0.6, boxstyle="round,pad=0.03", facecolor="#f1f1ee", edgecolor="#8b8f94")
    axes.add_patch(box)
    named = sorted(ground)
    half = (len(named) + 1) // 2
    for words, y in ((named[:half], -0.93), (named[half:], -1.18)):
        axes.text(5, y, "   ".join(words), ha="center", va="center", fontsize=11, color="#1c2733")
    with matplotlib.rc_context({"svg.hashsalt": "bitemporal", "svg.fonttype": "none"}):
        figure.savefig(
            path, format="svg", facecolor="white", metadata={"Date": None, "Description": description(imports)}
        )


if __name__ == "__main__":
    draw(room_imports(), PICTURE)
