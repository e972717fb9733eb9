import re
from pathlib import Path

import datasets_page
import pytest
import yaml

from bitemporal.cli.main import main
from bitemporal.datasets import catalog
from bitemporal.datasets.catalog import DATASETS, Direct, Hub, Manual, dataset_card, manual_text, read_catalog
from bitemporal.errors import DataError, OptionError

CATALOG = Path(catalog.__file__).with_name("catalog.yaml")

# pairs by split, from the papers and the authors' repositories
SPLITS = {
    "jl1-cd": (4000, None, 1000),
    "sysu-cd": (12000, 4000, 4000),
    "levir-cd": (445, 64, 128),
    "whu-cd": (None, None, None),
    "s2looking": (3500, 500, 1000),
    "clcd": (360, 120, 120),
    "dsifn": (3600, 340, 48),
    "svcd": (10000, 3000, 3000),
    "levir-cd-plus": (None, None, None),
    "egy-bcd": (None, None, None),
    "gvlm": (None, None, None),
    "second": (2968, None, 1694),
    "hi-ucd": (None, None, None),
    "xbd": (None, None, None),
    "bright": (2918, 450, 878),  # lines of the lists in the authors' repository
    "oscd": (14, None, 10),
}


def test_every_data_set_of_the_field_has_a_card():
    assert set(DATASETS) == set(SPLITS)
    for name, sizes in SPLITS.items():
        assert tuple(DATASETS[name].splits.get(split) for split in ("train", "val", "test")) == sizes


@pytest.mark.parametrize("card", DATASETS.values(), ids=lambda card: card.name)
def test_a_card_is_complete(card):
    assert all((card.title, card.paper, card.url, card.size, card.resolution, card.changes, card.licence))
    assert card.url.startswith(("https://", "http://gpcv.whu.edu.cn"))
    assert re.fullmatch(r"\d+x\d+|varies", card.size)
    assert not card.splits or sum(card.splits.values()) == card.pairs
    rules = (card.label_values, card.changed, card.label_threshold)
    of_dates = len(card.folders) == 4
    assert sum(rule is not None for rule in rules) == (not of_dates)
    assert of_dates or len(card.folders) == 3
    assert card.layout or card.splits


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ({"licens": "MIT"}, "licens"),
        ({"licence": None}, "licence"),
        ({"source": None}, "source: found None"),
        ({"source": {"ftp": {}}}, "source: found .*ftp.*, expected hub, manual, or direct"),
        ({"source": {"hub": {"repo": "a/b"}}}, "repo"),
        ({"source": {"direct": {"archives": [{"url": "https://x", "filename": "x.zip"}]}}}, "digest"),
        ({"source": {"direct": {}}}, "source: found .*, expected .* direct with archives"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named_by_file_data_set_and_field(mistake, named, tmp_path):
    content = yaml.safe_load(CATALOG.read_text(encoding="utf-8"))
    fields = content["clcd"] | mistake
    content["clcd"] = {key: value for key, value in fields.items() if value is not None}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"mine\.yaml: clcd: .*{named}"):
        read_catalog(file)


def test_direct_links_are_encrypted_pinned_and_have_a_checksum_of_full_length():
    lengths = {"md5": 32, "sha256": 64}
    direct = [card for card in DATASETS.values() if isinstance(card.source, Direct)]
    assert direct
    for card in direct:
        for archive in card.source.archives:
            algorithm, digest = archive.digest.split(":")
            assert re.fullmatch(r"[0-9a-f]+", digest) and len(digest) == lengths[algorithm]
            assert re.match(r"https://huggingface\.co/datasets/.*/resolve/[0-9a-f]{40}/", archive.url)
            assert archive.filename == archive.url.rsplit("/", 1)[1]


def test_jl1_cd_comes_from_its_hub():
    assert dataset_card("jl1-cd").source == Hub("circleLZY/JL1-CD")


def test_the_jpeg_labels_of_svcd_are_cut_and_not_compared():
    card = dataset_card("svcd")
    assert card.label_threshold == 128 and card.label_values is None


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("JL1-CD", "jl1-cd"),
        ("jl1_cd", "jl1-cd"),
        ("CDD", "svcd"),
        ("whu", "whu-cd"),
        ("LEVIR-CD+", "levir-cd-plus"),
        (" clcd ", "clcd"),
    ],
)
def test_names_are_found_in_any_spelling(asked, name):
    assert dataset_card(asked).name == name


def test_an_unknown_name_gives_near_names():
    with pytest.raises(OptionError, match="'jl1cd'; did you mean jl1-cd"):
        dataset_card("jl1cd")
    with pytest.raises(OptionError, match=r"known are jl1-cd, sysu-cd.*; `bitemporal"):
        dataset_card("imagenet-22k")


@pytest.mark.parametrize("card", DATASETS.values(), ids=lambda card: card.name)
def test_the_text_for_fetching_by_hand_says_where_and_how(card):
    text = manual_text(card)
    assert "https://" in text or "http://gpcv" in text
    assert f"`bitemporal data check ROOT{' ' if card.options else ''}{card.options}`" in text
    for split in () if card.layout else card.splits:
        assert f"ROOT/{split}/{{{','.join(card.folders)}}}/" in text
    assert all(f"  ROOT/{place}\n" in text for place in card.layout)


def test_the_page_of_data_sets_is_current():
    assert datasets_page.PAGE.read_text(encoding="utf-8") == datasets_page.page(), "run benchmarks/datasets_page.py"


def test_the_page_names_every_data_set_with_its_terms():
    page = datasets_page.page()
    for card in DATASETS.values():
        section = page.split(f"\n## {card.name}\n")[1].split("\n## ")[0]
        assert card.licence in section and card.paper in section and card.url in section
        assert all(note in section for note in card.notes)


def test_the_command_lists_all(capsys):
    assert main(["data", "download"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in DATASETS)


def test_the_command_prints_the_text_of_a_set_got_by_hand_and_says_that_nothing_was_fetched(capsys, tmp_path):
    by_hand = next(card for card in DATASETS.values() if isinstance(card.source, Manual))
    assert main(["data", "download", by_hand.name, "-o", str(tmp_path / "x")]) == 1
    assert manual_text(by_hand) in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_an_unknown_name(capsys):
    assert main(["data", "download", "levircd"]) == 1
    assert "did you mean levir-cd" in capsys.readouterr().err
