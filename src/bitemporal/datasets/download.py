"""Fetching, unpacking and arranging the data sets of the catalogue.

Files are gathered in ``TARGET.download`` next to the target, where the next call resumes an interrupted download. The
target itself appears at once, complete, arranged as ``SPLIT/{A,B,label}``.
"""

import errno
import hashlib
import http
import json
import os
import shutil
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub  # which imports what is asked of it

from bitemporal.datasets.catalog import Archive, DatasetCard, Direct, Hub, Manual, dataset_card, manual_text
from bitemporal.datasets.layout import SplitFolders, compare_with_card, find_splits
from bitemporal.datasets.unpack import archive_stem, check_space, is_archive, safe_extract
from bitemporal.errors import DataError, DownloadError, OptionError, OutputError
from bitemporal.imagery.training_images import SOURCE
from bitemporal.outputs import NEW_FOLDER, Output, check_outputs, locked, unwritable
from bitemporal.pairs.listing import is_litter

Progress = Callable[[str, int, int | None], None]
"""Called for every chunk of a direct download: file name, bytes so far, bytes in all if known."""

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without an answer


def download(
    name: str,
    target: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a data set, unpack it and arrange it as ``SPLIT/{A,B,label}``.

    Counts that differ from the card are no error here; ``compare_with_card`` lists them.

    Args:
        name: Name or alias of the data set.
        target: Folder to make; ``data/NAME`` when ``None``. It may exist when empty.
        revision: Branch, tag or commit of a hub repository; the card's when ``None``.
        progress: Called during direct downloads; the hub client shows its own bars.

    Returns:
        The folder, absolute. ``source.json`` in it records the origin (commit or checksums) and the pairs found.

    Raises:
        OptionError: When no data set has that name, or it has no revisions.
        OutputError: When the target holds something, or the disk is full.
        DownloadError: When the data set must be fetched by hand, cannot be reached, fails its checksum, is refused by
            ``safe_extract``, or holds no folders that look like pairs; the text says what is kept and what to do.
    """
    card = dataset_card(name)
    folder = Path(os.path.abspath(target if target is not None else Path("data") / card.name))
    if isinstance(card.source, Manual):
        raise DownloadError(f"{card.name} must be fetched by hand; nothing was fetched.\n{manual_text(card)}")
    if revision is not None and not isinstance(card.source, Hub):
        raise OptionError(f"revision: found {revision!r}, but {card.name} does not come from a hub; leave it out")
    staging = folder.with_name(f"{folder.name}.download")
    with locked(folder):
        check_outputs([Output("output", folder, NEW_FOLDER, "choose another one")], ())
        _check_staging(staging)
        try:
            staging.mkdir(parents=True, exist_ok=True)
            (staging / _MARK).write_text(f"{card.name}\n", encoding="utf-8")
            origin = _fetch(card, card.source, revision, staging, progress)
            _unpack_all(staging)
            _arrange(card, staging, folder, origin)
        except OSError as error:
            problem = f"{folder}: {type(error).__name__}: {error}; fix this and repeat the command"
            raise DownloadError(problem) from error
        finally:
            if staging.exists() and not _holds_data(staging):
                shutil.rmtree(staging)
    return folder


_MARK = ".bitemporal-download"
"""File in the folder of an unfinished download, by which it is told apart from a folder of the user's."""


def _check_staging(staging: Path) -> None:
    """Refuse a folder of the user's, whose files would be taken for those that were fetched.

    Raises:
        OutputError: When it is one.
    """
    mark = staging / _MARK
    ours = mark.is_file() or (staging.is_dir() and not staging.is_symlink() and not any(staging.iterdir()))
    if os.path.lexists(staging) and not ours:
        raise OutputError(
            f"output: {staging} exists and is not an unfinished download by bitemporal, which would be gathered there; "
            "choose another folder, or move it"
        )


def _holds_data(staging: Path) -> bool:
    """Whether the next call can use anything in the folder; the hub client's own notes do not count."""
    return any(
        path.is_file() and path.stat().st_size and (".cache" not in path.parts or path.suffix == ".incomplete")
        for path in staging.rglob("*")
        if path.name != _MARK
    )


def _fetch(
    card: DatasetCard, source: Hub | Direct, revision: str | None, staging: Path, progress: Progress | None
) -> dict[str, Any]:
    """Fetch all files of a data set; returns what ``source.json`` says of their origin."""
    url = ""
    try:
        match source:
            case Hub(repo_id, pinned):
                url = f"{huggingface_hub.constants.ENDPOINT}/datasets/{repo_id}"
                # the commit is settled first, so that an interrupted download never mixes two
                commit = (
                    huggingface_hub.HfApi().dataset_info(repo_id, revision=revision or pinned, timeout=_TIMEOUT).sha
                )
                huggingface_hub.snapshot_download(repo_id, repo_type="dataset", revision=commit, local_dir=staging)
                return {"hub": repo_id, "commit": commit}
            case Direct(archives):
                for archive in archives:
                    url = archive.url
                    fetch_file(archive, staging / archive.filename, progress)
                return {"archives": [{"url": archive.url, "digest": archive.digest} for archive in archives]}
    except DownloadError:
        raise
    except Exception as error:  # what the hub client's transport raises differs from release to release
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise unwritable(staging, error) from error  # what is there is kept, and the same command resumes
        reason = str(error).strip().split("\n")[0]
        kept = (
            f"What was downloaded is kept in {staging}; repeat the command to resume." if _holds_data(staging) else ""
        )
        raise DownloadError(
            f"{card.name}: could not fetch {url} ({type(error).__name__}: {reason}). {kept or 'Nothing was kept.'} "
            "Check the network (HTTPS_PROXY, and HF_ENDPOINT for a mirror of the hub), or fetch the files by hand.\n"
            f"{manual_text(card)}"
        ) from error


def fetch_file(archive: Archive, path: Path, progress: Progress | None = None) -> None:
    """Fetch one file and verify it, resuming where an earlier call was interrupted.

    Args:
        archive: Link and checksum.
        path: Where to put it; ``path`` with ``.part`` appended holds the unfinished file.
        progress: Called for every chunk.

    Raises:
        DownloadError: When the checksum differs (the file is removed then) or the disk is too small.
        OSError: When the transfer fails or ends early; what arrived is kept.
    """
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        _transfer(archive, part, progress)
        part.rename(path)
    algorithm, _, expected = archive.digest.partition(":")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, algorithm).hexdigest()
    if digest != expected.lower():
        size = path.stat().st_size
        path.unlink()
        raise DownloadError(
            f"{archive.url}: {algorithm} is {digest} ({size:,} bytes), expected {expected}; the file was removed. "
            "Repeat the command. If the checksum differs again, the file at that address has changed and must not be "
            "trusted"
        )


def _transfer(archive: Archive, part: Path, progress: Progress | None) -> None:
    """Fetch what the partial file lacks."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "bitemporal"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(archive.url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing follows what is there: it is complete, or too long; the checksum decides
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server ignores ranges and sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        check_space(part, total - have if total else 0, part.parent)
        with part.open("ab" if have else "wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                if progress:
                    progress(archive.filename, have, total)
    if total is not None and have != total:
        raise OSError(f"the transfer ended after {have:,} of {total:,} bytes")


def _unpack_all(staging: Path) -> None:
    """Unpack every archive into a folder of its name; one that is there was completed by an earlier call."""
    for archive in sorted(path for path in staging.rglob("*") if path.is_file() and is_archive(path)):
        folder = archive.with_name(archive_stem(archive))
        if ".cache" not in archive.parts and not (folder.exists() and any(folder.iterdir())):
            safe_extract(archive, folder)


def _arrange(card: DatasetCard, staging: Path, folder: Path, origin: dict[str, Any]) -> None:
    splits = _splits_to_arrange(card, staging)
    # inside the staging folder, where the next call still finds them if this one is interrupted
    arranged = staging / "arranged"
    for split, folders in splits.items():
        for role, source in (("A", folders.before), ("B", folders.after), ("label", folders.label)):
            destination = arranged / split / role
            if source != destination:
                destination.parent.mkdir(parents=True, exist_ok=True)
                source.rename(destination)
    # read-me, licence and lists, so that nothing fetched is lost
    rest = [path for path in _visible_files(staging) if arranged not in path.parents and not is_archive(path)]
    for path in rest:
        destination = arranged / "other" / path.relative_to(staging)
        destination.parent.mkdir(parents=True, exist_ok=True)
        path.rename(destination)
    record = {
        "data_set": card.name,
        **origin,
        "pairs": {split: folders.pairs for split, folders in splits.items()},
        "differs": compare_with_card(card, splits),
    }
    (arranged / SOURCE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    arranged.rename(folder)
    shutil.rmtree(staging)


def _splits_to_arrange(card: DatasetCard, staging: Path) -> dict[str, SplitFolders]:
    """The splits of what was fetched.

    Raises:
        DownloadError: When there are none that can be arranged.
    """
    reason = "no split has folders before, after and of labels for itself alone"
    try:
        if splits := find_splits(staging):
            return splits
    except DataError as error:
        reason = str(error)
    raise DownloadError(
        f"{card.name}: the files were fetched, but {reason}. {staging} holds {_overview(staging)}. The files are kept; "
        f"arrange them yourself.\n{manual_text(card)}"
    )


def _visible_files(staging: Path) -> Iterator[Path]:
    for path in staging.rglob("*"):
        if path.is_file() and not any(map(is_litter, path.relative_to(staging).parts)):
            yield path


def _overview(staging: Path) -> str:
    counts = Counter(path.parent.relative_to(staging).as_posix() for path in _visible_files(staging))
    shown = [f"{place} ({count:,} files)" for place, count in sorted(counts.items())]
    more = f" and {len(shown) - 8} more folders" if len(shown) > 8 else ""
    return ", ".join(shown[:8]) + more if shown else "no files"
