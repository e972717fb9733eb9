"""Fetching, unpacking and laying out the data sets of the catalogue.

Files gather in ``TARGET.download`` beside the target, where an interrupted download goes on at the next call; the
target itself appears at once, complete and laid out as ``SPLIT/{A,B,label}``.
"""

import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download

from bitemporal.datasets.catalog import Archive, DatasetCard, Direct, Hub, Manual, dataset_card, manual_text
from bitemporal.datasets.unpack import is_archive, safe_extract
from bitemporal.errors import DownloadError

Progress = Callable[[str, int, int | None], None]
"""Told of every piece of a direct download: file name, bytes so far, bytes in all if known."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_ROLES = (
    ("A", ("a", "t1", "time1", "im1", "image1", "before")),
    ("B", ("b", "t2", "time2", "im2", "image2", "after")),
    ("label", ("label", "labels", "out", "mask", "gt")),
)
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class SplitFolders:
    """One split as it lies on disk.

    Attributes:
        before: Folder of the earlier images.
        after: Folder of the later images.
        label: Folder of the change masks.
        pairs: Number of stems that all three hold.
        odd: Number of stems that one or two of them lack.
    """

    before: Path
    after: Path
    label: Path
    pairs: int
    odd: int


def download(
    name: str,
    target: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a data set, unpack it and lay it out as ``SPLIT/{A,B,label}``.

    Counts that differ from the card are no error here; ``compare_with_card`` tells.

    Args:
        name: Name or alias of the data set.
        target: Folder to make; ``data/NAME`` when ``None``. It may exist when empty.
        revision: Branch, tag or commit of a hub repository; the card's when ``None``.
        progress: Told of direct downloads; the hub client shows its own bars.

    Returns:
        The folder, absolute. ``source.json`` in it records the origin (commit or checksums) and the pairs found.

    Raises:
        OptionError: When no data set of that name is known.
        DownloadError: When it has to be got by hand, cannot be reached, fails its checksum, is refused by the safe
            unpacking, or holds no folders that look like pairs; the text says what is kept and what to do.
    """
    card = dataset_card(name)
    folder = Path(os.path.abspath(target if target is not None else Path("data") / card.name))
    if isinstance(card.source, Manual):
        raise DownloadError(f"{card.name} has to be got by hand; nothing was fetched.\n{manual_text(card)}")
    if revision is not None and not isinstance(card.source, Hub):
        raise DownloadError(f"revision: found {revision!r}, but {card.name} does not come from a hub; leave it out")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DownloadError(f"{folder}: exists and is not an empty folder; remove it, or name another one with -o")
    staging = folder.with_name(f"{folder.name}.download")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        origin = (
            _fetch_hub(card, card.source, revision, staging)
            if isinstance(card.source, Hub)
            else _fetch_direct(card, card.source, staging, progress)
        )
        _unpack_all(staging)
        _arrange(card, staging, folder, origin)
    except OSError as error:
        raise DownloadError(
            f"{folder}: {type(error).__name__}: {error}; mend that and run the command again"
        ) from error
    finally:
        if staging.exists() and not any(_payload(staging)):
            shutil.rmtree(staging)
    return folder


def _payload(staging: Path) -> Iterator[Path]:
    """Files worth keeping for the next call: neither empty nor the hub client's own notes."""
    for path in staging.rglob("*"):
        noted = path.suffix in (".lock", ".metadata", ".json") or path.name in (".gitignore", "CACHEDIR.TAG")
        if path.is_file() and path.stat().st_size and not (".cache" in path.parts and noted):
            yield path


def _by_hand(card: DatasetCard, host: str, what: str, error: BaseException, staging: Path) -> DownloadError:
    reason = str(error).strip().split("\n")[0]
    kept = (
        f"What arrived is kept in {staging}, and the same command goes on from there."
        if any(_payload(staging))
        else "Nothing was kept."
    )
    return DownloadError(
        f"{card.name}: could not fetch {what} from {host} ({type(error).__name__}: {reason}). {kept} Check the network "
        f"(HTTPS_PROXY, and HF_ENDPOINT for a mirror of the hub), or get it by hand.\n{manual_text(card)}"
    )


def _fetch_hub(card: DatasetCard, hub: Hub, revision: str | None, staging: Path) -> dict[str, Any]:
    try:
        # the commit is settled first, so that an interrupted download never mixes two
        commit = HfApi().dataset_info(hub.repo_id, revision=revision or hub.revision, timeout=_TIMEOUT).sha
        snapshot_download(hub.repo_id, repo_type="dataset", revision=commit, local_dir=staging)
    except Exception as error:  # the client's transport, and so what it raises, differs from release to release
        host = urllib.parse.urlsplit(constants.ENDPOINT).netloc
        raise _by_hand(card, host, f"data set {hub.repo_id}", error, staging) from error
    return {"hub": hub.repo_id, "commit": commit}


def _fetch_direct(card: DatasetCard, direct: Direct, staging: Path, progress: Progress | None) -> dict[str, Any]:
    for archive in direct.archives:
        try:
            fetch_file(archive, staging / archive.filename, progress)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            host = urllib.parse.urlsplit(archive.url).netloc or "this machine"
            raise _by_hand(card, host, archive.url, error, staging) from error
    return {"archives": [{"url": a.url, "digest": a.digest} for a in direct.archives]}


def fetch_file(archive: Archive, path: Path, progress: Progress | None = None) -> None:
    """Fetch one file and verify it; go on where an earlier call broke off.

    Args:
        archive: Link and checksum.
        path: Where to put it; ``path`` with ``.part`` appended holds the unfinished file.
        progress: Told of every piece.

    Raises:
        DownloadError: When the checksum differs (the file is removed then) or the disk is too small.
        OSError: When the transfer fails or ends early; the piece that arrived is kept.
    """
    if path.exists():
        _verify(archive, path)
        return
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "bitemporal"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if not (have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            raise
        # nothing follows what is there: complete, or longer than the file; the checksum decides
        part.rename(path)
        _verify(archive, path)
        return
    with response:
        # a server that knows no ranges sends all of it again
        have = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        _check_space(part, total - have if total else 0)
        with part.open("ab" if have else "wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                if progress:
                    progress(archive.filename, have, total)
    if total is not None and have != total:
        raise OSError(f"the transfer ended after {have:,} of {total:,} bytes")
    part.rename(path)
    _verify(archive, path)


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DownloadError(
            f"{path}: {needed:,} bytes are to come, but {path.parent} has {free:,} free; make room or name "
            "another folder"
        )


def _verify(archive: Archive, path: Path) -> None:
    algorithm, _, expected = archive.digest.partition(":")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if found != expected.lower():
        size = path.stat().st_size
        path.unlink()
        raise DownloadError(
            f"{archive.url}: {algorithm} is {found} ({size:,} bytes), expected {expected}; the file was removed. Run "
            "the command again; if it stays so, the file at that address has changed and is not to be trusted"
        )


def _unpack_all(staging: Path) -> None:
    """Unpack every archive into a folder of its name; one that is there already came whole from an earlier call."""
    for archive in sorted(p for p in staging.rglob("*") if p.is_file() and is_archive(p) and ".cache" not in p.parts):
        stem = archive.name.lower()
        while Path(stem).suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz"):
            stem = Path(stem).stem
        folder = archive.with_name(archive.name[: len(stem)])
        if not folder.exists() or not any(folder.iterdir()):
            safe_extract(archive, folder)


def find_splits(root: str | os.PathLike[str]) -> dict[str, SplitFolders]:
    """Find the before, after and label folders of every split below a folder.

    Known are ``.../SPLIT/.../{A,B,label}`` and ``.../{A,B,label}/SPLIT``, with the folder names that the known data
    sets use (time1, Image1, t1, OUT, mask, ...) in any case. Hidden folders and ``__MACOSX`` are passed over.

    Returns:
        Folders and counts by split (train, val, test), in that order.

    Raises:
        DownloadError: When two places claim one split.
    """
    found: dict[str, SplitFolders] = {}
    top = Path(root)
    for place, names, _ in os.walk(top):
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        trio = _trio(Path(place), names)
        if trio is None:
            continue
        names.clear()
        for split, folders in _splits_of(trio, Path(place).relative_to(top)):
            if split in found:
                raise DownloadError(
                    f"{top}: {found[split].before} and {folders[0]} both look like the before images of {split}; "
                    "keep one of them"
                )
            found[split] = _counted(*folders)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _trio(place: Path, names: list[str]) -> tuple[Path, Path, Path] | None:
    by_role = [[n for n in names if n.lower() in aliases] for _, aliases in _ROLES]
    if any(len(candidates) != 1 for candidates in by_role):
        return None
    before, after, label = (place / candidates[0] for candidates in by_role)
    return before, after, label


def _splits_of(trio: tuple[Path, Path, Path], place: Path) -> Iterator[tuple[str, tuple[Path, Path, Path]]]:
    inside = {p.name for p in trio[0].iterdir() if p.is_dir() and p.name.lower() in _SPLITS}
    if inside:
        for name in sorted(inside):
            before, after, label = (folder / name for folder in trio)
            if after.is_dir() and label.is_dir():
                yield _SPLITS[name.lower()], (before, after, label)
        return
    for part in reversed(place.parts):
        if part.lower() in _SPLITS:
            before, after, label = (_innermost(folder) for folder in trio)
            yield _SPLITS[part.lower()], (before, after, label)
            return


def _innermost(folder: Path) -> Path:
    """The folder that holds the files, for archives such as ``A.zip`` that hold a folder ``A`` again."""
    content = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX"]
    return _innermost(content[0]) if len(content) == 1 and content[0].is_dir() else folder


def _counted(before: Path, after: Path, label: Path) -> SplitFolders:
    stems = [
        {p.stem for p in folder.iterdir() if p.suffix.lower() in _IMAGES and not p.name.startswith(".")}
        for folder in (before, after, label)
    ]
    common = len(set.intersection(*stems))
    return SplitFolders(before, after, label, common, len(set.union(*stems)) - common)


def compare_with_card(card: DatasetCard, found: dict[str, SplitFolders]) -> list[str]:
    """What differs from the card, one sentence each; empty when all is as it should be."""
    complaints = []
    for split in dict.fromkeys((*card.splits, *found)):
        pairs = found[split].pairs if split in found else 0
        expected = card.splits.get(split)
        if expected is not None and pairs != expected:
            complaints.append(f"{split}: found {pairs:,} pairs, expected {expected:,}")
        if expected is None and card.splits:
            complaints.append(f"{split}: found {pairs:,} pairs, but {card.title} ships no such split")
        if split in found and found[split].odd:
            complaints.append(f"{split}: {found[split].odd:,} stems lack an image or a label")
    return complaints


def _arrange(card: DatasetCard, staging: Path, folder: Path, origin: dict[str, Any]) -> None:
    found = find_splits(staging)
    if not found:
        raise DownloadError(
            f"{card.name}: the files are here, but no folders that look like A, B and label of a split. {staging} "
            f"holds {_overview(staging)}. The files are kept; lay them out yourself.\n{manual_text(card)}"
        )
    # inside the staging folder, where a further call still finds them should this one be cut short
    arranged = staging / "arranged"
    for split, folders in found.items():
        for (role, _), origin_folder in zip(_ROLES, (folders.before, folders.after, folders.label), strict=True):
            destination = arranged / split / role
            if origin_folder != destination:
                destination.parent.mkdir(parents=True, exist_ok=True)
                origin_folder.rename(destination)
    _keep_rest(staging, arranged)
    record = {
        "data_set": card.name,
        **origin,
        "pairs": {split: folders.pairs for split, folders in found.items()},
        "differs": compare_with_card(card, found),
    }
    (arranged / "source.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    arranged.rename(folder)
    shutil.rmtree(staging)


def _keep_rest(staging: Path, arranged: Path) -> None:
    """Move what belongs to no split (read-me, licence, lists) to ``other``, so that nothing fetched is lost."""
    rest = [
        path
        for path in staging.rglob("*")
        if path.is_file()
        and arranged not in path.parents
        and not is_archive(path)
        and not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(staging).parts)
    ]
    for path in rest:
        destination = arranged / "other" / path.relative_to(staging)
        destination.parent.mkdir(parents=True, exist_ok=True)
        path.rename(destination)


def _overview(staging: Path) -> str:
    counts: dict[str, int] = {}
    for path in staging.rglob("*"):
        parts = path.relative_to(staging).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            place = "/".join(parts[:-1]) or "."
            counts[place] = counts.get(place, 0) + 1
    shown = [f"{place} ({count:,} files)" for place, count in sorted(counts.items())]
    more = f" and {len(shown) - 8} more folders" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more if shown else "no files"
