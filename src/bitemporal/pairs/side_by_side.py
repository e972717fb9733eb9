"""Images that hold before and after side by side, possibly with the label: how they are cut into folders of pairs."""

import json
import os
import shlex
from pathlib import Path

from PIL import Image

from bitemporal.files import special_file
from bitemporal.pairs.listing import is_image
from bitemporal.pairs.names import images_among, labels_among
from bitemporal.pairs.one_split import Level
from bitemporal.remedies import as_typed, free_name

_DEPTH = 3  # of folders that are searched for an image
_PARTS = {2: ("A", "B"), 3: ("A", "B", "label")}


def how_to_cut(level: Level) -> str:
    """The end of an error: a command that cuts images twice or three times as wide as high; empty for other images.

    Args:
        level: A folder in which no pairs were found.
    """
    labels = labels_among(level.folders)[:1]
    inside = images_among(level.folders) or [name for name in level.folders if name not in labels]
    images = level.path / inside[0] if (labels and len(inside) == 1) or images_among(level.folders) else level.path
    parts, ending = _parts(Level.of(images), _DEPTH) or ((), "")
    if not parts:
        return ""
    target = free_name(level.path.with_name(f"{level.path.absolute().name}-cut"))
    source, cut, label = (
        json.dumps(os.fspath(path), ensure_ascii=False) for path in (images, target, level.path.joinpath(*labels))
    )
    code = (
        f"import pathlib, shutil, PIL.Image; s, t = pathlib.Path({source}), pathlib.Path({cut}); "
        "[(o.parent.mkdir(parents=True, exist_ok=True), i.crop((k * w, 0, k * w + w, i.height)).save(o)) "
        f'for f in s.rglob("*{ending}") for i in [PIL.Image.open(f)] for w in [i.width // {len(parts)}] '
        f'for k, d in enumerate({json.dumps(parts)}) for o in [t / d / f.relative_to(s).with_suffix(".png")]]'
    )
    if labels and len(parts) == 2:
        code += f'; shutil.copytree({label}, t / "label")'
    words = "A, B and label" if len(parts) == 3 else "A and B"
    return (
        f"; if each image holds {words} side by side, as its width of {len(parts)} heights suggests, "
        f"`python -c {shlex.quote(code)}` makes the folder of pairs {as_typed(target)} of them "
        '(docs/pairs.md, "Before and after side by side in one image")'
    )


_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Formats that Pillow cuts without loss of what a GeoTIFF says of its place."""


def _parts(level: Level, depth: int) -> tuple[tuple[str, ...], str] | None:
    """What the first image in a folder, or below it, holds, and its ending; ``None`` for any other image."""
    for name in level.files:
        if is_image(name) and Path(name).suffix.lower() in _ENDINGS:
            if special_file(level.path / name):
                return None
            try:
                with Image.open(level.path / name) as image:
                    width, height = image.size
            except (OSError, ValueError, Image.DecompressionBombError):
                return None
            parts = _PARTS.get(width // height) if width % height == 0 else None
            return None if parts is None else (parts, Path(name).suffix)
    inner = (_parts(Level.of(level.path / name), depth - 1) for name in level.folders if depth)
    return next(filter(None, inner), None)
