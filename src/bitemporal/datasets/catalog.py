"""Cards of the known change-detection data sets: what each is, how its labels are stored, where to get it.

Every fact was looked up in the paper, the authors' repository or an issue thread there; what could not be seen says
"not stated" or "not verified". ``docs/datasets.md`` is written from these cards::

    python -m bitemporal.datasets.catalog > docs/datasets.md
"""

import difflib
from dataclasses import dataclass

from bitemporal.errors import RecipeError


@dataclass(frozen=True)
class Hub:
    """A data set repository on the Hugging Face hub.

    Attributes:
        repo_id: ``owner/name``.
        revision: Branch, tag or commit; ``None`` takes the newest. ``source.json`` records the commit taken.
    """

    repo_id: str
    revision: str | None = None


@dataclass(frozen=True)
class Archive:
    """One file behind a direct link.

    Attributes:
        url: https link that needs no login.
        filename: Name to store it under. An archive named after a split (``train.zip``) is unpacked into that split.
        digest: ``algorithm:hexadecimal`` as published, for example ``sha256:...``; ``md5:`` guards against damage only.
    """

    url: str
    filename: str
    digest: str


@dataclass(frozen=True)
class Direct:
    """Archives behind direct links with published checksums."""

    archives: tuple[Archive, ...]


@dataclass(frozen=True)
class Manual:
    """A data set that the user fetches by hand; ``text`` says where."""

    text: str


@dataclass(frozen=True)
class DatasetCard:
    """What is known of one data set.

    Attributes:
        name: Name on the command line.
        title: Name in the literature.
        paper: Reference of the paper that introduced it.
        url: Page of the data set.
        pairs: Number of pairs, as released.
        size: Image size in pixels, width x height.
        resolution: Ground sampling distance, metres per pixel.
        changes: What counts as change.
        splits: Pairs per split as released; empty when the authors publish no split by pairs.
        licence: Terms of use, or "not stated".
        source: Where the files come from.
        folders: Names of the before, after and label folder as released.
        label_values: Stored UNCHANGED,CHANGED or UNCHANGED,CHANGED,IGNORE, for the pair reader; else ``None``.
        label_threshold: Stored values at or above it are changed, for the pair reader; else ``None``.
        label_note: How sure the label coding is, and from where it is known.
        notes: What one should know before comparing numbers.
        mirrors: Other places where the authors keep the same files, for fetching by hand.
        aliases: Other names accepted on the command line.
    """

    name: str
    title: str
    paper: str
    url: str
    pairs: int
    size: str
    resolution: str
    changes: str
    splits: dict[str, int]
    licence: str
    source: Hub | Direct | Manual
    folders: tuple[str, str, str] = ("A", "B", "label")
    label_values: tuple[int, ...] | None = None
    label_threshold: float | None = None
    label_note: str = ""
    notes: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def label_coding(self) -> str:
        """The label decoding in words."""
        if self.label_values is not None:
            names = ("unchanged", "changed", "ignored")
            coding = ", ".join(f"{value} {name}" for value, name in zip(self.label_values, names, strict=False))
        elif self.label_threshold is not None:
            coding = f"changed at {self.label_threshold:g} and above"
        else:
            coding = "not known"
        return f"{coding}; {self.label_note}" if self.label_note else coding

    @property
    def split_text(self) -> str:
        """The splits in words, as in ``train 4,000, test 1,000``."""
        return ", ".join(f"{name} {count:,}" for name, count in self.splits.items()) or "none by pairs"

    @property
    def how(self) -> str:
        """How ``bitemporal data download`` gets it, in a word or two."""
        match self.source:
            case Hub():
                return "hub"
            case Direct():
                return "direct, with checksums"
            case Manual():
                return "by hand"


_HAND = "The files have to be fetched by hand, in a browser."

_LEVIR_MIRROR = (
    "https://huggingface.co/datasets/satellite-image-deep-learning/LEVIR-CD/resolve/"
    "6a6bb0a5b389403d81c05e33bf08bc0b9e5f13a6/"
)

_CARDS = (
    DatasetCard(
        name="jl1-cd",
        title="JL1-CD",
        paper="Liu et al., JL1-CD: A New Benchmark for Remote Sensing Change Detection and a Robust Multi-Teacher "
        "Knowledge Distillation Framework, arXiv 2502.13407 (2025)",
        url="https://huggingface.co/datasets/circleLZY/JL1-CD",
        pairs=5000,
        size="512x512",
        resolution="0.5-0.75",
        changes="natural and man-made: buildings, roads, hardened surfaces, woodland, grassland, cropland, water, "
        "photovoltaic panels and others",
        splits={"train": 4000, "test": 1000},
        licence="not stated in the sources seen; read the data set's page before use",
        source=Hub("circleLZY/JL1-CD"),
        label_values=(0, 255),
        label_note="PNG; 0 / 255 by the authors' code, which cuts at 128",
        notes=(
            "Ships no validation split, although the authors' code expects one. `stratified_split` takes one from "
            "train, stratified by CAR part and seeded; the test split chooses nothing.",
            "Pairs without any change and pairs changed all over both exist.",
            "How the files are packed on the hub is not verified: the download looks for A, B and label folders or "
            "archives, and says what it found.",
        ),
        mirrors=(
            "https://drive.google.com/drive/folders/1ELoqx7J3GrEFMX5_rRynMjW9-Poxz3Uu",
            "https://pan.baidu.com/s/1_vcO4c5DM5LDuOqLwLrWJg (code 5byn)",
        ),
    ),
    DatasetCard(
        name="sysu-cd",
        title="SYSU-CD",
        paper="Shi et al., A Deeply Supervised Attention Metric-Based Network and an Open Aerial Image Dataset for "
        "Remote Sensing Change Detection, IEEE TGRS 2021, doi 10.1109/TGRS.2021.3085870",
        url="https://github.com/liumency/SYSU-CD",
        pairs=20000,
        size="256x256",
        resolution="0.5",
        changes="Hong Kong 2007-2014: new buildings, suburban growth, groundwork, vegetation, roads, sea construction",
        splits={"train": 12000, "val": 4000, "test": 4000},
        licence="not stated (asked in issue 5 of the authors' repository, unanswered when last seen)",
        source=Manual(
            f"{_HAND} The page https://github.com/liumency/SYSU-CD is where the authors post the links; in issue 1 "
            "there they give https://pan.baidu.com/share/init?surl=5lQPG_hXZbLp91VywwcT7Q (code mlls)."
        ),
        folders=("time1", "time2", "label"),
        label_values=(0, 255),
        label_note="PNG; by a third-party reader that divides by 255, not verified on the files",
        notes=(
            "A third party keeps a copy as parquet on the hub (ericyu/SYSU_CD, same split sizes, no licence given); "
            "it does not hold folders of images, so it is not downloaded here.",
        ),
    ),
    DatasetCard(
        name="levir-cd",
        title="LEVIR-CD",
        paper="Chen and Shi, A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing Image "
        "Change Detection, Remote Sensing 12(10) 1662, 2020, doi 10.3390/rs12101662",
        url="https://justchenhao.github.io/LEVIR/",
        pairs=637,
        size="1024x1024",
        resolution="0.5",
        changes="buildings built or gone, Texas 2002-2018",
        splits={"train": 445, "val": 64, "test": 128},
        licence="academic use; Google Earth imagery. The wording of the terms on the data set's page is not verified",
        source=Direct(
            (
                Archive(_LEVIR_MIRROR + "train.zip", "train.zip", "md5:a638e71f480628652dea78d8544307e4"),
                Archive(_LEVIR_MIRROR + "val.zip", "val.zip", "md5:f7b857978524f9aa8c3bf7f94e3047a4"),
                Archive(_LEVIR_MIRROR + "test.zip", "test.zip", "md5:07d5dd89e46f5c1359e2eca746989ed9"),
            )
        ),
        label_values=(0, 255),
        label_note="PNG; seen on some files of the test split",
        notes=(
            "The links are a pinned copy on the hub that torchgeo uses; the MD5 sums are torchgeo's, not the authors'.",
            "Cut into 256x256 tiles it has 7,120 / 1,024 / 2,048; whole images and tiles differ by 0.4 to 1 point of "
            "F1, so say which was scored.",
            "The JL1-CD paper's Table I prints 0.3 m; the data set's own description says 0.5 m.",
        ),
    ),
    DatasetCard(
        name="whu-cd",
        title="WHU-CD (WHU building change detection)",
        paper="Ji, Wei and Lu, Fully Convolutional Networks for Multisource Building Extraction From an Open Aerial "
        "and Satellite Imagery Data Set, IEEE TGRS 57(1), 2019, doi 10.1109/TGRS.2018.2858817",
        url="http://gpcv.whu.edu.cn/data/building_dataset.html",
        pairs=1,
        size="32507x15354",
        resolution="0.2",
        changes="buildings, Christchurch (New Zealand), 2012 and 2016",
        splits={},
        licence="not stated in the sources seen",
        source=Manual(
            f"{_HAND} Take the building change detection part of "
            "http://gpcv.whu.edu.cn/data/building_dataset.html, cut the one large pair into tiles and lay them out by "
            "split."
        ),
        label_values=(0, 255),
        label_note="by Open-CD's reader, which cuts at 128; not verified on the files, which exist in more than one "
        "edition",
        notes=(
            "The release is one large pair with a train and a test area. Most papers cut their own tiles and "
            "split them at random (6,096 / 762 / 762 and 5,947 / 743 / 744 are both in use), so that neighbouring "
            "tiles can stand on both sides. F1 of about 93 is published for random tiles and about 82 for the "
            "official areas, by different networks: state the split.",
            "A, B and label are the folders of the copies cut into tiles; the names in the release are not verified.",
        ),
        aliases=("whu",),
    ),
    DatasetCard(
        name="s2looking",
        title="S2Looking",
        paper="Shen et al., S2Looking: A Satellite Side-Looking Dataset for Building Change Detection, Remote Sensing "
        "13(24) 5094, 2021, doi 10.3390/rs13245094",
        url="https://github.com/S2Looking/Dataset",
        pairs=5000,
        size="1024x1024",
        resolution="0.5-0.8",
        changes="buildings built or demolished, rural areas of the world, off-nadir views",
        splits={"train": 3500, "val": 500, "test": 1000},
        licence="not stated (the authors' repository holds no licence; the paper's CC BY covers the article)",
        source=Manual(
            f"{_HAND} https://github.com/S2Looking/Dataset links a Google Drive folder with one file, S2Looking.zip "
            "(about 11 GB): https://drive.google.com/drive/folders/1zzb6hif2hwWx4z8UIMLpMAInkhbmmrFY"
        ),
        folders=("Image1", "Image2", "label"),
        label_values=(0, 255),
        label_note="PNG; by a third party's check of every file",
        notes=(
            "`label` is the union of `label1` (newly built, blue) and `label2` (demolished, red).",
            "A third party finds that label1 marks buildings that stand in Image1 and not in Image2, so either the "
            "dates or the two labels are swapped against the paper's words. Binary change is not affected.",
            "The same party reports 10,959,772,884 bytes and SHA-256 "
            "4100e5bfadd53556a3508cdec99bdf789a2289a303328119469437d6d1b0c6b8 for S2Looking.zip; not verified here.",
        ),
    ),
    DatasetCard(
        name="clcd",
        title="CLCD (CropLand-CD)",
        paper="Liu et al., A CNN-Transformer Network With Multiscale Context Aggregation for Fine-Grained Cropland "
        "Change Detection, IEEE JSTARS 15, 2022, doi 10.1109/JSTARS.2022.3177235",
        url="https://github.com/liumency/CropLand-CD",
        pairs=600,
        size="512x512",
        resolution="0.5-2",
        changes="cropland turned into buildings, roads, lakes, bare soil; Guangdong, Gaofen-2, 2017 and 2019",
        splits={"train": 360, "val": 120, "test": 120},
        licence="not stated in the authors' repository",
        source=Manual(
            f"{_HAND} https://github.com/liumency/CropLand-CD links OneDrive and "
            "https://pan.baidu.com/s/1Un-bVxUm1N9IHiDOXLLHlg (code miu2)."
        ),
        folders=("time1", "time2", "label"),
        label_values=(0, 255),
        label_note="PNG; by third-party readers, not verified on the files",
        notes=("320 training pairs are quoted in places; the authors say 360 (issue 1 of their repository).",),
        aliases=("cropland-cd",),
    ),
    DatasetCard(
        name="dsifn",
        title="DSIFN-CD",
        paper="Zhang et al., A deeply supervised image fusion network for change detection in high resolution "
        "bi-temporal remote sensing images, ISPRS Journal 166, 2020",
        url="https://github.com/GeoZcx/A-deeply-supervised-image-fusion-network-for-change-detection-in-remote-sensing-"
        "images/tree/master/dataset",
        pairs=3988,
        size="512x512",
        resolution="2",
        changes="several kinds, six Chinese cities, Google Earth",
        splits={"train": 3600, "val": 340, "test": 48},
        licence="not stated in the authors' repository",
        source=Manual(
            f"{_HAND} The page above links https://pan.baidu.com/s/19TRsdPiRym9DoV76DukQ5g (code hetu); in issue 30 "
            "there the authors give https://drive.google.com/drive/folders/1yutLU4WI7eeeGbuxilsq2OtGQr9EHDLy"
        ),
        folders=("t1", "t2", "mask"),
        label_threshold=1,
        label_note="the authors say 0 / 1 for their masks; copies cut to 256x256 PNG hold 0 / 255 (seen on ten tiles)",
        notes=(
            "Train and val are 394 pairs multiplied by augmentation, val drawn from the same five cities; the test "
            "split is a sixth city.",
            "One processed copy that circulates links to LEVIR-CD under this name (ChangeFormer issues 104 and 111): "
            "check the counts.",
        ),
        aliases=("dsifn-cd",),
    ),
    DatasetCard(
        name="svcd",
        title="SVCD / CDD (season-varying)",
        paper="Lebedev et al., Change Detection in Remote Sensing Images Using Conditional Adversarial Networks, ISPRS "
        "Archives XLII-2, 2018",
        url="https://drive.google.com/file/d/1GX656JqqOyBi_Ef0w65kDGVto-nHrNs9",
        pairs=16000,
        size="256x256",
        resolution="0.03-1",
        changes="objects that come and go, seasonal changes excluded; Google Earth",
        splits={"train": 10000, "val": 3000, "test": 3000},
        licence="not stated in the sources seen",
        source=Manual(
            f"{_HAND} https://drive.google.com/file/d/1GX656JqqOyBi_Ef0w65kDGVto-nHrNs9 (a RAR archive; unpack it with "
            "unrar or 7-Zip) holds ChangeDetectionDataset/Real/subset, which is the part that papers use."
        ),
        folders=("A", "B", "OUT"),
        label_threshold=128,
        label_note="JPEG: values between 0 and 255 lie along every edge, and everyone cuts them differently; 128 as in "
        "Open-CD and CDLab",
        notes=(
            "Tiles are cut and rotated from eleven scenes; whether train and test share scenes is not stated.",
            "One copy is reported to hold 2,998 validation pairs.",
        ),
        aliases=("cdd",),
    ),
)

DATASETS: dict[str, DatasetCard] = {card.name: card for card in _CARDS}
"""Every card by its name."""


def dataset_card(name: str) -> DatasetCard:
    """The card of a data set.

    Args:
        name: Name or alias; case and ``_`` for ``-`` do not matter.

    Raises:
        RecipeError: When no data set of that name is known; the text gives near names.
    """
    names = {alias: card for card in _CARDS for alias in (card.name, *card.aliases)}
    wanted = name.strip().lower().replace("_", "-")
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DATASETS)};"
    raise RecipeError(f"no data set named {name!r}; {hint} `bitemporal data download` lists all")


def manual_text(card: DatasetCard) -> str:
    """Where a user gets a data set by hand and how to lay it out, as text of several lines."""
    places = " or ".join((card.url, *card.mirrors))
    where = card.source.text if isinstance(card.source, Manual) else f"Get it from {places}."
    before, after, label = card.folders
    splits = tuple(card.splits) or ("train", "val", "test")
    lines = [f"{card.title}: {where}", f"Licence: {card.licence}.", "Lay it out as"]
    lines += [f"  ROOT/{split}/{{A,B,label}}/STEM.*" for split in splits]
    lines.append("with equal stems in A (before), B (after) and label (change mask).")
    renamed = [
        f"{old} -> {new}" for old, new in zip((before, after, label), ("A", "B", "label"), strict=True) if old != new
    ]
    if renamed:
        lines.append(f"As released the folders are named otherwise; rename {', '.join(renamed)}.")
    lines.append(f"Pairs: {card.split_text}. Labels: {card.label_coding}.")
    lines.append(f"Then run `bitemporal data check ROOT{_label_option(card)}`.")
    return "\n".join(lines)


def _label_option(card: DatasetCard) -> str:
    if card.label_values is not None:
        return f" --label-values {','.join(map(str, card.label_values))}"
    return "" if card.label_threshold is None else f" --label-threshold {card.label_threshold:g}"


def datasets_markdown() -> str:
    """The page ``docs/datasets.md``: a table of all cards, then one section each."""
    lines = [
        "# Data sets",
        "",
        "<!-- Written from the cards in src/bitemporal/datasets/catalog.py: python -m bitemporal.datasets.catalog -->",
        "",
        "`bitemporal data download` lists these. `bitemporal data download NAME -o DIR` fetches one where a hub or a",
        "link with a checksum exists; else it says where to get it and how to lay it out, with exit status 1 since",
        "nothing was fetched.",
        "`not stated` and `not verified` mean what they say: look before you rely on it.",
        "",
        "| name | pairs | size | m / pixel | splits | download |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| [{c.name}](#{c.name}) | {c.pairs:,} | {c.size} | {c.resolution} | {c.split_text} | {c.how} |"
        for c in _CARDS
    ]
    for card in _CARDS:
        lines += [
            "",
            f"## {card.name}",
            "",
            f"**{card.title}.** {card.paper}. <{card.url}>",
            "",
            f"- Pairs: {card.pairs:,} of {card.size} pixels, {card.resolution} m; {card.split_text}",
            f"- Change: {card.changes}",
            f"- Licence: {card.licence}",
            f"- Folders as released: {', '.join(f'`{folder}`' for folder in card.folders)}",
            f"- Labels: {card.label_coding}",
            f"- Download: {_download_line(card)}",
        ]
        lines += [f"- Also at {mirror}" for mirror in card.mirrors]
        lines += [f"- {note}" for note in card.notes]
    return "\n".join(lines) + "\n"


def _download_line(card: DatasetCard) -> str:
    match card.source:
        case Hub(repo_id):
            return f"`bitemporal data download {card.name}` (hub, data set `{repo_id}`; `--revision` pins a commit)"
        case Direct(archives):
            sums = ", ".join(f"`{a.filename}` {a.digest}" for a in archives)
            return f"`bitemporal data download {card.name}` (direct links; {sums})"
        case Manual(text):
            return f"by hand. {text}"


if __name__ == "__main__":
    print(datasets_markdown(), end="")
