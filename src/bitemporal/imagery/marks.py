"""The mark in a PNG that this package has written, by which an earlier output is known from a picture of the user's."""

from pathlib import Path

THRESHOLD = "THRESHOLD"
"""Keyword of a PNG, or tag of a GeoTIFF, that holds the threshold of a mask."""

_SOFTWARE = "bitemporal"
_HEAD = 400
"""Bytes at the start of a PNG that contain the mark, which follows the header."""


def mark(title: str = "") -> dict[str, str]:
    """Texts to write into a PNG, by their keywords (PNG specification, 11.3.3.2).

    Args:
        title: What the picture shows; masks have none.
    """
    return {"Software": _SOFTWARE, **({"Title": title} if title else {})}


def as_threshold(noted: str | None) -> float | None:
    """The threshold that a mask's tag holds; ``None`` where it holds none from 0 to below 1."""
    try:
        threshold = float(noted or "")
    except ValueError:
        return None
    return threshold if 0 <= threshold < 1 else None


def is_marked(path: Path, title: str = "") -> bool:
    """Whether a file is a PNG that this package has written, with that title.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    has_title = b"tEXtTitle\0" in head
    texts = [f"tEXt{keyword}\0{text}".encode() for keyword, text in mark(title).items()]
    return head.startswith(b"\x89PNG\r\n") and has_title == bool(title) and all(text in head for text in texts)
