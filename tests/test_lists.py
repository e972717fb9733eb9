"""Lists of splits as other people write them: encodings, columns, comments, formats and places."""

import json

import pytest
from PIL import Image

from bitemporal.cli.main import main
from bitemporal.errors import DataError
from bitemporal.pairs import PairFolder, check_pairs
from remedies import follow_options

SPLITS = {"train": ["0", "1", "2"], "val": ["3"], "test": ["4", "5"]}
FILES = [("train", "0"), ("train", "1"), ("train", "2"), ("val", "3"), ("test", "4"), ("test", "5")]


def put_images(root, stems, folders=("A", "B", "label")):
    for place in folders:
        (root / place).mkdir(parents=True, exist_ok=True)
        for stem in stems:
            image = Image.new("L", (8, 8), 0 if place == "label" else 90)
            image.paste(255, (0, 0, 3, 3))
            image.save(root / place / f"{stem}.png")


def put_lists(place, lines, ending=".txt", encoding="utf-8"):
    """Write a list for each split; ``lines`` gives its text from the split and its stems."""
    place.mkdir(parents=True, exist_ok=True)
    for split, stems in SPLITS.items():
        (place / f"{split}{ending}").write_bytes(lines(split, stems).encode(encoding))


def splits_of(root, **options):
    folder = PairFolder(root, **options)
    check = check_pairs(folder)
    assert not check.faults, check.report()
    return {split: [pair.stem for pair in folder.pairs(split)] for split in folder.splits}, check


def of_lines(line, mark="\n"):
    return lambda split, stems: mark.join(line.format(stem) for stem in stems) + mark


LINES = {
    "a mark and Windows' line ends": (of_lines("{}.png", "\r\n"), "utf-8-sig"),
    "UTF-16": (of_lines("{}.png", "\r\n"), "utf-16"),
    "UTF-16 without a mark": (of_lines("{}.png", "\r\n"), "utf-16-le"),
    "UTF-16 from its other end": (of_lines("{}.png"), "utf-16-be"),
    "old line ends": (of_lines("{}.png", "\r"), "utf-8"),
    "comments": (
        lambda split, stems: f"# {split}\n// 9.png\n# 3.png\n\n" + of_lines("\t{}.png \t")(split, stems),
        "utf-8",
    ),
    "Windows' paths": (of_lines("D:\\data\\LEVIR\\A\\{}.png"), "utf-8"),
    "a line for each file": (lambda split, stems: "".join(f"D:/x/{f}/{s}.png\n" for s in stems for f in "AB"), "utf-8"),
    "three columns": (of_lines("./A/{0}.png\t./B/{0}.png\t./label/{0}.png"), "utf-8"),
    "semicolons": (of_lines("A/{0}.png;B/{0}.png"), "utf-8"),
    "quotes": (of_lines('"A/{0}.png","B/{0}.png"'), "utf-8"),
    "names of columns": (
        lambda split, stems: "image1,image2\n" + of_lines("A/{0}.png,B/{0}.png")(split, stems),
        "utf-8",
    ),
    "an index": (lambda split, stems: "".join(f"{9 - i},A/{s}.png\n" for i, s in enumerate(stems)), "utf-8"),
    "leading zeros": (of_lines("{:0>4}.png"), "utf-8"),
    "another extension": (of_lines("{}.JPG"), "utf-8"),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_of_every_form(tmp_path, case):
    lines, encoding = LINES[case]
    put_images(tmp_path, [str(i) for i in range(6)])
    put_lists(tmp_path / "list", lines, encoding=encoding)
    splits, check = splits_of(tmp_path)
    assert splits == SPLITS and not any("list" in warning for warning in check.warnings)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_names_with_accents(tmp_path, encoding):
    put_images(tmp_path, ["münchen", "zürich"])
    for split, stem in (("train", "münchen"), ("val", "zürich")):
        (tmp_path / f"{split}.txt").write_bytes(f"{stem}.png\n".encode(encoding))
    assert splits_of(tmp_path)[0] == {"train": ["münchen"], "val": ["zürich"]}


def test_names_in_chinese(tmp_path):
    put_images(tmp_path, ["北京", "上海"])
    for split, stem in (("train", "北京"), ("val", "上海")):
        (tmp_path / f"{split}.txt").write_bytes(f"{stem}.png\r\n".encode("gbk"))
    assert splits_of(tmp_path)[0] == {"train": ["北京"], "val": ["上海"]}


@pytest.mark.parametrize(
    ("place", "ending"),
    [
        *(("list", ".lst"), ("list", ""), (".", ".csv"), ("list", ".CSV"), ("..", ".txt"), ("../list", ".txt")),
        *((place, ".txt") for place in ("ImageSets", "ImageSets/Main", "txt", "my lists")),
    ],
)
def test_places_and_endings(tmp_path, place, ending):
    root = tmp_path / "out" / "data"
    put_images(root, [str(i) for i in range(6)])
    put_lists(root / place, of_lines("{}.png"), ending)
    splits, check = splits_of(tmp_path / "out")
    assert splits == SPLITS and not any("not used" in warning for warning in check.warnings)


TABLES = {
    "split.csv": "filename,split\n" + "".join(f"{stem}.png,{split}\n" for split, stem in FILES),
    "splits.csv": "Image;Set\n" + "".join(f"{stem}.png;{split}\n" for split, stem in FILES),
    "splits.json": json.dumps(SPLITS),
    "split.json": json.dumps({"training": [0, 1, 2], "validation": ["3.png"], "test": [{"name": "4"}, {"name": "5"}]}),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_all_splits(tmp_path, name):
    put_images(tmp_path, [str(i) for i in range(6)])
    (tmp_path / name).write_text(TABLES[name])
    assert splits_of(tmp_path)[0] == SPLITS
    (tmp_path / name).rename(tmp_path / f"my-{name}")
    assert splits_of(tmp_path, splits=str(tmp_path / f"my-{name}"))[0] == SPLITS


@pytest.mark.parametrize(
    ("name", "text"),
    [("mine.txt", ""), ("splits.csv", "split,stem\n"), ("mine.json", "[]"), ("splits.csv", "split,stem,x,y\n")],
)
def test_stated_lists_that_name_no_pair_are_refused(tmp_path, name, text):
    put_images(tmp_path / "data", ["a", "b"])
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: names no pair"):
        splits_of(tmp_path / "data", splits=str(tmp_path / name))


def test_columns_by_the_thousand_are_not_repeated(tmp_path):
    put_images(tmp_path / "data", ["a", "b"])
    (tmp_path / "splits.csv").write_text(",".join(f"c{number}" for number in range(100_000)) + "\n")
    with pytest.raises(DataError, match=r"splits\.csv: found the columns c0, .*split and stem missing") as caught:
        splits_of(tmp_path / "data", splits=str(tmp_path / "splits.csv"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("coco", [False, True])
def test_json_of_each_split(tmp_path, coco):
    put_images(tmp_path, [str(i) for i in range(6)])
    images = {split: [{"id": 9, "file_name": f"{s}.png"} for s in stems] for split, stems in SPLITS.items()}
    put_lists(tmp_path, lambda split, stems: json.dumps({"images": images[split]} if coco else stems), ".json")
    assert splits_of(tmp_path)[0] == SPLITS


@pytest.mark.parametrize("name", ["train.csv", "results/test.txt"])
def test_files_that_name_no_pair_are_no_lists(tmp_path, name):
    put_images(tmp_path, ["a", "b"])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("step,loss\n1,0.5\n2,0.4\n")
    splits, check = splits_of(tmp_path)
    assert splits == {"all": ["a", "b"]} and any(f"{name} not used" in warning for warning in check.warnings)


def test_what_is_wrong_is_said_once(tmp_path, capsys):
    put_images(tmp_path, ["a", "b"])
    for split, text in (("train", "a\na\nb\n"), ("val", ""), ("test", "c\n")):
        (tmp_path / f"{split}.txt").write_text(text)
    assert main(["data", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "2 faults" in out and "val.txt: names no pair" in out and "test.txt: none of its 1 lines" in out
    assert "names 1 pair(s) more than once, such as a" in out and "hold no image" not in out


def test_lists_that_are_stated_are_not_named_as_unused(tmp_path):
    put_images(tmp_path / "train", ["a", "b"])
    put_images(tmp_path / "val", ["c"])
    (tmp_path / "lists of mine").mkdir()
    (tmp_path / "lists of mine" / "train.txt").write_text("a\nb\nc\n")
    splits, check = splits_of(tmp_path, splits=str(tmp_path / "lists of mine"))
    assert splits == {"train": ["a", "b", "c"]} and not any("not used" in warning for warning in check.warnings)


def test_the_remedy_of_unused_lists_works(tmp_path, capsys):
    put_images(tmp_path / "train", ["a", "b"])
    put_images(tmp_path / "val", ["c"])
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "train.csv").write_text("name\na\nc\n")
    command = ["data", "check", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert follow_options(text, command) == [["--splits", str(tmp_path / "list")]]
    assert splits_of(tmp_path, splits=str(tmp_path / "list"))[0] == {"train": ["a", "c"]}
