"""Pairs whose pixels are in another split too, and images that are the same at both dates."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from bitemporal.imagery.decoded import Decoded
from bitemporal.pairs.names import in_split_order

SAME_DATES = "holds the same pixels as the image of the other date, as if one folder were a copy of the other"


def digest_of(decoded: Decoded) -> bytes:
    """What equal pixels have in common; nothing for an image of one value, which shows no place."""
    samples = decoded.samples
    if not samples.size or samples.min() == samples.max():
        return b""
    return hashlib.blake2b(samples.tobytes(), digest_size=8).digest()


def in_several_splits(digests: Iterable[tuple[str, str, bytes]]) -> Iterator[str]:
    """Warnings about pairs that two splits share.

    Args:
        digests: Split, stem and digest of each pair; an empty digest is like no other.
    """
    by_split: dict[str, dict[bytes, str]] = defaultdict(dict)
    for split, stem, digest in digests:
        if digest:
            by_split[split].setdefault(digest, stem)
    for first, second in combinations(in_split_order(by_split), 2):
        both = by_split[first].keys() & by_split[second].keys()
        if both:
            digest = min(both, key=by_split[second].__getitem__)
            shown = f"{by_split[second][digest]}, in {first} as {by_split[first][digest]}"
            yield (
                f"split {second}: {len(both):,} of its pairs hold the same pixels as pairs of {first}, such as "
                f"{shown}; scores on pairs that a network has seen mean little: keep each pair in one split"
            )
