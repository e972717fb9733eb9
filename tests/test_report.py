"""The report of a run: what it shows is what the files say, and it needs no other file."""

import csv
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from bitemporal.cli.main import main
from bitemporal.errors import BitemporalError, BundleError, DataError, RecipeError
from bitemporal.evaluation import Evaluation, Protocol, Result, read_result
from bitemporal.method.car import CarPartition
from bitemporal.report import write_report
from bitemporal.report.charts import (
    COLOURS,
    DASHES,
    Mark,
    Series,
    bar_chart,
    car_histogram,
    interval_chart,
    line_chart,
    style,
)
from bitemporal.report.gallery import choose
from bitemporal.run.recipe import DistillRecipe
from bitemporal.run.stages import DistillationRun


class Page(HTMLParser):
    """Elements of a page, and the cells of its tables; refuses what is not closed."""

    VOID = frozenset({"meta", "img", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.tables, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tiny_pairs, tmp_path_factory):
    """A short run whose folder of pairs has a name with signs that mean something in HTML."""
    root = tmp_path_factory.mktemp("report")
    data = root / "a<b>&c"
    shutil.copytree(tiny_pairs, data)
    for name in ("A", "B", "label"):
        (data / "test" / name / "pair_03.png").rename(data / "test" / name / "x<script>'&.png")
    steps = {"max_steps": 12, "teacher_steps": 4, "student_steps": 8, "validate_every": 4}
    recipe = DistillRecipe(
        model="test_tinycd", data=str(data), out=str(root / "run"), batch_size=4, crop_size=32, workers=0, **steps
    )
    DistillationRun(recipe, Console(quiet=True))()
    return root / "run"


@pytest.fixture(scope="module")
def page(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_nothing_is_fetched_and_nothing_of_the_users_becomes_markup(page, run):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not page.of("link") and not page.of("iframe") and all("src" not in script for script in page.of("script"))
    assert all(image["src"].startswith("data:image/") for image in page.of("img")) and page.of("img")
    assert "url(" not in text and "@import" not in text and not re.search(r"(src|href)=.?(https?:)?//", text)
    assert len(page.of("script")) == 1 and not page.of("b")
    assert "x<script>'&" in "".join(page.texts) and "a<b>&c" in "".join(page.texts)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.of("meta")
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_table_is_that_of_the_scores(page, run):
    content = json.loads((run / "metrics.json").read_text())
    header, *rows = page.tables[0]
    assert header[1:] == ["origin", "o-p", "control", "student"]
    found = {row[0]: row[1:] for row in rows}
    for label, averaging in (("mIoU", "dataset"), ("mIoU, image mean, empty 0", "image_mean_empty_0")):
        for name, cell in zip(header[1:], found[label], strict=True):
            result = json.loads((run / f"scores/test/{name}.json").read_text())
            assert result["dataset"] == content["results"][name]["dataset"]
            low, high = result["intervals"][averaging]["miou"]
            value = result[averaging]["miou"]
            assert cell == f"{100 * value:.2f}{100 * low:.2f} to {100 * high:.2f}"
    assert found["forward passes per pair"] == ["1", "2", "1", "1"]
    assert content["verdict"] in page.texts


def test_the_routing_is_that_of_the_counts(page, run):
    with (run / "scores/test/o-p.confusions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    counted = Counter((row["part"], row["sent_to"]) for row in rows)
    table = next(t for t in page.tables if t[0][0] == "part of the label")
    names = ["small", "medium", "large"]
    assert [row[1:] for row in table[1:]] == [[str(counted[part, sent]) for sent in names] for part in names]
    right = sum(row["part"] == row["sent_to"] for row in rows)
    assert any(f"{right} of {len(rows)} pairs" in text for text in page.texts)
    assert table[0][1:] == [f"sent to {part}answer: its teacher" for part in names]


def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("last.ckpt", "report.html")))


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    content.pop("sha256", None)  # of a bundle
    path.write_text(json.dumps(content))


def test_a_pair_without_a_valid_pixel_is_no_routing_error(run, tmp_path):
    folder = copied(run, tmp_path)
    routes = []
    for path in folder.glob("scores/test/*.confusions.csv"):
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        rows[0] |= {"car": "", "part": "", **dict.fromkeys(("tn", "fp", "fn", "tp"), 0)}
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        result = path.with_name(path.name.replace(".confusions.csv", ".json"))
        edited(result, lambda content, digest=digest: content["confusions"].update(sha256=digest))
        if path.name.startswith("o-p"):
            routes = [(row["part"], row["sent_to"]) for row in rows[1:]]
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    table = next(t for t in page.tables if t[0][0] == "part of the label")
    assert sum(int(cell) for row in table[1:] for cell in row[1:]) == len(routes)
    told = next(" ".join(text.split()) for text in page.texts if "to the part of their label" in text)
    right = sum(part == sent for part, sent in routes)
    assert f"sent {right} of {len(routes)} pairs" in told
    assert told.endswith("to the part of their label. One more without a valid pixel has no part and is left out.")


def test_a_part_without_a_teacher_is_answered_by_the_origin(run, tmp_path):
    folder = copied(run, tmp_path)
    sent = Counter(read_result(folder / "scores/test/o-p.json").evaluation.sent_to)
    gone = sent.most_common(1)[0][0]
    rest = [part for part in ("small", "medium", "large") if part != gone]
    edited(folder / "o-p/bundle/bundle.json", lambda content: content.update(teachers=rest))
    second = 1 - sent[gone] / sent.total()

    def shown():
        page = Page(write_report(folder).read_text(encoding="utf-8"))
        header = next(t for t in page.tables if t[0][0] == "part of the label")[0]
        return page, header[1:], next(row for row in page.tables[0] if row[0] == "forward passes per pair")[2]

    page, header, passes = shown()
    assert [name for name in header if "origin (no teacher)" in name] == [f"sent to {gone}answer: origin (no teacher)"]
    assert passes == f"{1 + second:.2f} (at most 2)"
    told = next(" ".join(text.split()) for text in page.texts if "to the part of their label" in text)
    assert told.endswith(
        f"part of their label. There is no teacher for {gone}: the origin itself answered {sent[gone]} of the pairs."
    )
    edited(folder / "o-p/bundle/bundle.json", lambda content: content.update(teachers=[]))
    assert all("origin (no teacher)" in name for name in shown()[1]) and shown()[2] == "1.00 (at most 2)"
    # without the bundle of Origin-Partition, those of the teachers tell
    shutil.rmtree(folder / "o-p")
    shutil.rmtree(folder / f"teacher-{gone}")
    assert shown()[1:] == (header, passes)
    for part in rest:
        shutil.rmtree(folder / f"teacher-{part}")
    assert shown()[1:] == ([f"sent to {part}" for part in ("small", "medium", "large")], "at most 2")


def test_a_detector_has_one_colour_in_every_chart(run):
    text = write_report(run).read_text(encoding="utf-8")
    looks = {}
    for look, name in re.findall(r'<li><span class="key (s\d[ d\d]*)"></span>([^<]+)</li>', text):
        looks.setdefault(name, set()).add(look)
    assert {"origin", "o-p", "control", "student", "teacher-small"} <= looks.keys()
    assert all(len(found) == 1 for found in looks.values())
    assert len({found for (found,) in (looks[name] for name in ("origin", "o-p", "control", "student"))}) == 4
    differences = re.search(r"<svg[^>]*aria-label=.Difference in mIoU.*?</svg>", text, re.DOTALL)[0]
    rows = re.findall(r"<title>([\w-]+): [^<]*</title>.*?<use [^>]*fill: var\(--(s\d)\)", differences, re.DOTALL)
    assert len(rows) == 3 and all({look} == looks[name] for name, look in rows)


def test_the_gallery_shows_the_extremes_and_no_pair_twice(page, run):
    student, control = (read_result(run / f"scores/test/{name}.json").evaluation for name in ("student", "control"))

    def miou(counts):
        tn, fp, fn, tp = counts.tolist()
        return sum(1.0 if not below else above / below for above, below in ((tp, tp + fp + fn), (tn, tn + fp + fn))) / 2

    gain = {s: miou(a) - miou(b) for s, a, b in zip(student.stems, student.counts, control.counts, strict=True)}
    groups = choose({"student": student, "control": control})
    shown = [stem for stems in groups.values() for stem in stems]
    assert len(shown) == len(set(shown))
    improved, harmed = groups.get("most improved", []), groups.get("most harmed", [])
    assert improved == sorted((s for s in gain if gain[s] > 0), key=lambda s: -gain[s])[: len(improved)]
    assert all(gain[s] < 0 for s in harmed)
    cards = sum(attributes.get("class") == "card" for attributes in page.of("figure"))
    assert cards == len(shown) and len(page.of("input")) == cards


def test_without_imagery_only_masks_are_shown(run, tmp_path, capsys):
    target = tmp_path / "new" / "masks.html"
    assert main(["report", str(run), "--no-imagery", "-o", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    page = Page(target.read_text(encoding="utf-8"))
    assert page.of("img") and all(image["src"].startswith("data:image/png") for image in page.of("img"))
    assert not page.of("input")


def test_what_is_no_report_is_not_overwritten(run, tmp_path, capsys):
    ours, theirs = tmp_path / "ours.html", tmp_path / "theirs.html"
    for _ in range(2):  # the second replaces the first
        assert main(["report", str(run), "-o", str(ours), "--data", str(tmp_path / "gone")]) == 0
        assert "shows no pictures" in capsys.readouterr().err
    theirs.write_text("<title>A page</title>")
    for path, words in (
        (theirs, "exists and is not a report"),
        (run / "recipe.yaml", "expected a name that ends in .html"),
        (tmp_path, "is a folder, expected the name of a report"),
    ):
        assert main(["report", str(run), "-o", str(path)]) == 1
        assert words in capsys.readouterr().err
    assert theirs.read_text() == "<title>A page</title>"


def test_without_the_pairs_everything_else_is_there(run, tmp_path):
    with pytest.warns(UserWarning, match=r"r\.html: shows no pictures: .*gone"):
        page = Page(write_report(run, tmp_path / "r.html", data=tmp_path / "gone").read_text(encoding="utf-8"))
    assert not page.of("img") and any("No pictures" in text and "gone" in text for text in page.texts)
    assert page.tables


def why_no_pictures(run, tmp_path, **options):
    with pytest.warns(UserWarning, match="shows no pictures"):
        page = Page(write_report(run, tmp_path / "r.html", **options).read_text(encoding="utf-8"))
    assert not page.of("img") and page.tables
    return next(text for text in page.texts if text.startswith("No pictures: "))


def test_pairs_set_aside_for_val_are_not_those_of_test_with_the_same_names(tiny_pairs, tmp_path):
    data = tmp_path / "pairs"
    shutil.copytree(tiny_pairs, data)
    shutil.rmtree(data / "val")
    shutil.rmtree(data / "test" / "label")
    steps = {"max_steps": 2, "teacher_steps": 1, "student_steps": 1, "validation_share": 0.5}
    recipe = DistillRecipe(
        model="test_tinycd", data=str(data), out=str(tmp_path / "run"), batch_size=4, crop_size=32, workers=0, **steps
    )
    DistillationRun(recipe, Console(quiet=True))()
    page = Page(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    cars = {stem: car for e in [read_result(tmp_path / "run/scores/val/student.json").evaluation]
            for stem, car in zip(e.stems, e.cars, strict=True)}  # fmt: skip
    told = [re.match(r"(\S+), CAR ([\d.]+);", text) for text in page.texts]
    shown = {match[1]: match[2] for match in told if match}
    assert shown and shown == {stem: f"{cars[stem]:.3f}" for stem in shown}
    shutil.rmtree(data / "train" / "label")
    why = why_no_pictures(tmp_path / "run", tmp_path)
    assert re.search(r"train/A/pair_\d\d\.png: has no label, expected .* --data", why)
    (data / "train").rename(data / "val")
    assert "has no label" in why_no_pictures(tmp_path / "run", tmp_path)


def test_why_there_are_no_pictures_names_folder_pair_and_option(run, tiny_pairs, tmp_path):
    stem = re.escape(repr("x<script>'&"))
    assert re.search(rf"pairs: found no pair {stem} among 6 of split test, expected .* --data", why_no_pictures(
        run, tmp_path, data=tiny_pairs
    ))  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(Path(recipe_of(run)["data"]) / "test", other / "test")
    for path in (other / "test" / "label").iterdir():  # the same CAR, elsewhere
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    assert re.search(r"the labels of split test are not those that the run was scored on, .* --data", why_no_pictures(
        run, tmp_path, data=other
    ))  # fmt: skip
    (other / "test").rename(other / "train")
    shutil.copytree(other / "train", other / "val")
    assert "other: found the splits train, val, expected test" in why_no_pictures(run, tmp_path, data=other)
    assert "No pictures" in why_no_pictures(run, tmp_path, data=os.fsdecode(b"gone\xff"))


def recipe_of(run):
    return yaml.safe_load((run / "recipe.yaml").read_text())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", None),
        ("label_values", 5),
        ("label_values", ["a", "b"]),
        ("label_threshold", "high"),
        ("image_range", 3),
    ],
)
def test_a_field_of_the_recipe_that_hides_the_pictures_is_named(run, tmp_path, field, value):
    folder = copied(run, tmp_path)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_of(run) | {field: value}))
    why = why_no_pictures(folder, tmp_path)
    assert str(folder / "recipe.yaml") in why and f"recipe.{field}" in why and "; restore" in why
    assert value is None or f"Given value: {value}" in why


def test_what_is_damaged_is_named(run, tmp_path):
    def text(path, content):
        return path, lambda: (folder / path).write_text(content)

    def scores(change):
        return "scores/test/o-p.json", lambda: edited(folder / "scores/test/o-p.json", change)

    def counts(change):
        return scores(lambda content: content["probabilities"]["counts"].update(change))

    head, curve = "step,loss,val_miou\n", "origin/metrics.csv"
    cases = [
        (*text(curve, head + "5,abc,\n"), DataError, r", line 2: found step '5', loss 'abc'"),
        (*text(curve, head + "5\n"), DataError, r", line 2: found step '5', loss None"),
        (*text(curve, "step,a\n5,1\n"), DataError, r": column\(s\) loss, val_miou missing, expected step,"),
        (*text(curve, ""), DataError, r": column\(s\) step, loss, val_miou missing"),
        (*text("recipe.yaml", "data: d\n"), RecipeError, r": model: found None, expected a network's name"),
        (*text("student/bundle/bundle.json", '{"kind": "network", "format": 1, "metadata": [1]}'), BundleError,
         r": .*field metadata holds \[1\], expected a mapping"),
        (*counts({"changed": [1, 2]}), DataError, r": cannot be read \(probabilities: expected three"),
        (*counts({"total": ["a"] * 100}), DataError, r": cannot be read \(probabilities: expected three"),
        (*counts({"unchanged": [-1] * 100}), DataError, r": cannot be read \(.* none below 0"),
        (*scores(lambda content: content.update(probabilities=0)), DataError, r": .*lacks a part"),
        (*scores(lambda content: content.update(origin=[1])), DataError, r": cannot be read .*origin \[1\]"),
    ]  # fmt: skip
    folder = copied(run, tmp_path)
    for path, damage, error, told in cases:
        damage()
        with pytest.raises(error, match=re.escape(path) + told) as raised:
            write_report(folder)
        assert "; " in str(raised.value)  # and the remedy
        assert isinstance(raised.value, BitemporalError) and not (folder / "report.html").exists()
        shutil.copy(run / path, folder / path)
    write_report(folder)


def test_what_may_be_missing_is_left_out_in_words(run, tmp_path):
    folder = copied(run, tmp_path)
    (folder / "student/bundle/weights.safetensors").unlink()
    for path in (folder / "scores/test").glob("*.json"):
        edited(path, lambda content: content.update(origin={}))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "weights.safetensors is no longer there" in page.texts
    assert any("student/bundle/weights.safetensors" in text and "No pictures" in text for text in page.texts)
    told = " ".join("".join(page.texts).split())
    assert re.search(r"hash [0-9a-f]{16}\. Save what follows", told) and "None, commit" not in told
    for path in (folder / "scores/test").glob("*.json"):
        edited(path, lambda content: content.update(origin={"bitemporal": "1", "commit": 40 * "a" + "-dirty"}))
    told = " ".join("".join(Page(write_report(folder).read_text(encoding="utf-8")).texts).split())
    assert "commit aaaaaaaaaaaa, with changes since" in told


def test_a_difference_is_said_to_be_one_of_these_weights(page):
    told = "of these weights; one seed says nothing about other seeds"
    assert any(f"shows a difference {told}." in text for text in page.texts)
    most = [text for text in page.texts if text.startswith("Most ")]
    assert len(most) == sum(text == f"O{told[1:]}." for text in page.texts)
    assert not any("by distillation" in text for text in page.texts)


def test_every_series_has_a_look_of_its_own_in_the_style_sheet(run, tmp_path):
    folder = copied(run, tmp_path)
    for i in range(9):
        (folder / f"teacher-part{i}").mkdir()
        shutil.copy(run / "teacher-small/metrics.csv", folder / f"teacher-part{i}")
    text = write_report(folder).read_text(encoding="utf-8")
    chart = re.search(r"<svg[^>]*aria-label=\"Training loss\".*?</ul>", text, re.DOTALL)[0]
    looks = re.findall(r'style="fill: none;( stroke-dasharray: [^;]*;)?[^"]* stroke: var\(--(s\d)\)', chart)
    assert len(looks) == len(set(looks)) == 15 == len(set(re.findall(r'class="key ([^"]+)"', chart)))
    every = [style(i) for i in range(COLOURS * len(DASHES))]
    assert len(set(every)) == len(every) and style(len(every)) == every[0]
    for name in {name for look in every for name in look.split()}:
        assert f".{name} {{" in text
    assert all(f"--s{i}: #" in text for i in range(COLOURS))


def test_what_is_no_finished_run_is_an_error(run, tmp_path):
    with pytest.raises(DataError, match=r"has no recipe\.yaml"):
        write_report(tmp_path)
    for text in ("[1", "7"):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(RecipeError, match=r"recipe\.yaml: cannot be read"):
            write_report(tmp_path)
    shutil.copy(run / "recipe.yaml", tmp_path)
    with pytest.raises(DataError, match="has no scores; finish the run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_thousand_pairs_without_bundles(run, tmp_path):
    random = np.random.default_rng(0)
    shutil.copy(run / "recipe.yaml", tmp_path)
    cars = random.random(1000) ** 4
    for name in ("origin", "student"):
        counts = random.integers(1, 5000, (1000, 4))
        found = Evaluation(
            stems=tuple(f"p{i}" for i in range(1000)),
            counts=counts,
            cars=cars,
            sent_to=(None,) * 1000,
            boundary=np.ones((1000, 4), np.int64),
            objects=np.ones((1000, 3, 3), np.int64),
            partition=CarPartition(),
        )
        protocol = Protocol(data="d", split="val", pairs_hash="h", pairs=1000)
        Result(f"m {name}", protocol, found, 0, {"bitemporal": "1", "commit": None}).write(
            tmp_path / "scores/val" / f"{name}.json"
        )
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert any("no test scores" in text for text in page.texts)
    told = "No difference could be shown: m student minus m origin"
    (verdict,) = (text for text in page.texts if text.startswith(told))
    assert verdict.endswith("no control was trained as long without teachers.")
    assert (tmp_path / "report.html").stat().st_size < 500_000
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    chart = re.search(r"<svg[^>]*aria-label=.mIoU by CAR decile.*?</svg>", text, re.DOTALL)[0]
    # ten deciles, a point and an interval each; those of the two detectors next to each other
    for look in ("s0", "s3"):
        assert len(points(chart, look)) == len(intervals(chart, look)) == 10
    assert len({x for look in ("s0", "s3") for x, _ in points(chart, look)}) == 20


# ---------------------------------------------------------------- charts


def points(text, look):
    """Where the dots and rings of a series are."""
    found = re.findall(rf'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="[^"]*stroke: var\(--{look}\)', text)
    return [(float(x), float(y)) for x, y in found]


def intervals(text, variable):
    """The ends of the lines with two points."""
    line = (
        rf'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) ([\d.]+) \n" style="[^"]*stroke: var\(--{variable}\); stroke-width: 1.5'
    )
    return [tuple(map(float, ends)) for ends in re.findall(line, text)]


def axis(text):
    """Places and values of the labels of the vertical axis."""
    told = re.findall(r'text-anchor: end; [^>]* y="([\d.]+)"[^>]*>([^<]+)</text>', text)
    return [(float(y), float(value.replace("\u2212", "-"))) for y, value in told]


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.68), (-3.2, 71), (12.04, 12.09), (0, 1e5)])
def test_an_axis_says_where_it_begins_and_ends(low, high):
    text = str(line_chart("t", [Series("a", [0, 1], [low, high])], "x", "y"))
    told = [value for _, value in axis(text)]
    assert told[0] <= low and told[-1] >= high and told[-1] - told[0] <= 2.1 * (high - low)


def test_points_lie_where_their_values_say():
    text = str(line_chart("t", [Series("a", [0, 5, 10], [0.0, 50.0, 100.0], marks=True)], "x", "y"))
    (left, bottom), middle, (right, top) = points(text, "s0")
    assert middle == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.1) and top < bottom
    (lowest, first), *_, (highest, last) = axis(text)
    assert (first, last) == (0, 100)
    assert highest - lowest == pytest.approx(top - bottom, abs=0.1)  # labels stand below their lines, all as much


def test_the_intervals_of_a_line_stand_around_its_points():
    first = Series("a", [0, 1], [1.0, 2.0], [0.0, math.nan], [4.0, math.nan], marks=True)
    text = str(line_chart("t", [first, Series("b", [0], [3.0], look=1)], "x", "y"))
    ((x, low, same, high),), ((point, height), _) = intervals(text, "s0"), points(text, "s0")
    assert x == same == point and "nan" not in text
    assert low - height == pytest.approx((low - high) / 4, abs=0.1)


def test_gaps_stay_gaps_and_texts_are_escaped():
    series = [Series("<a>", [0, 1, 2, 3], [1.0, float("nan"), 2.0, 3.0], marks=True), Series("b", [0], [float("nan")])]
    text = str(line_chart("<t>", series, "<x>", "$y", marks=[Mark(1, 1.5, "<m>"), Mark(1, float("nan"), "no")]))
    (line,) = re.findall(r'd="([^"]+)" style="fill: none; stroke: var\(--s0\); stroke-width: 2', text)
    assert (
        re.fullmatch(r"(M [\d.]+ [\d.]+ \n)?M [\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \n", line)
        and len(points(text, "s0")) == 4
    )
    for name in ("a", "t", "x", "m"):
        assert f"<{name}>" not in text and f"&lt;{name}&gt;" in text
    assert text.count("<title>&lt;m&gt;</title>") == 1 and ">no<" not in text and "nan" not in text and ">$y<" in text


def test_charts_follow_the_style_sheet_and_share_no_identifier():
    charts = [str(line_chart(title, [Series("a", [0, 1], [0, 1], marks=True)], "x", "y")) for title in "ab"]
    assert charts[0].replace(">a<", ">b<").replace('"a"', '"b"') == charts[1]  # the same whenever it is drawn
    for text in charts:
        assert not re.search(
            r"#[0-9a-f]{6}\b|font-family|<style|<metadata|clip-path", text.split("<ul")[0].split("use")[0]
        )
        assert {"--soft", "--line", "--s0"} == set(re.findall(r"var\((--\w+)\)", text))
        assert set(re.findall(r'href="#(\w+)"', text)) <= set(re.findall(r' id="(\w+)"', text))
        assert all(re.fullmatch("m[0-9a-f]+", name) for name in re.findall(r' id="([^"]*)"', text))


def test_bars_are_as_high_as_their_values():
    text = str(bar_chart("t", ["a", "b"], [Series("s", [], [10.0, 20.0], [5.0, 15.0], [15.0, 25.0])], "y"))
    bars = re.findall(
        r'<path d="M [\d.]+ ([\d.]+) \nL [\d.]+ [\d.]+ \nL [\d.]+ ([\d.]+) [^"]*" style="fill: var\(--s0\)', text
    )
    heights = [float(bottom) - float(top) for bottom, top in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2) and len(intervals(text, "ink")) == 2
    assert "<title>s, b: 20</title>" in text
    nothing = str(bar_chart("t", ["a"], [Series("s", [], [float("nan")])], "y"))
    assert "--s0" not in nothing and "nan" not in nothing


def test_intervals_stand_on_the_right_side_of_zero():
    rows = [("up", 1.0, 0.5, 1.5, 0), ("down", -1.0, -1.5, -0.5, 1), ("none", 0.0, float("nan"), float("nan"), 2)]
    text = str(interval_chart("t", rows, "x"))
    ((up, _),), ((down, _),), ((none, _),) = (points(text, look) for look in ("s0", "s1", "s2"))
    assert down < none < up and [len(intervals(text, look)) for look in ("s0", "s1", "s2")] == [1, 1, 0]


def test_a_ratio_at_a_bound_is_below_it():
    text = str(car_histogram({"train": [0.0, 0.01, 0.05, 0.0500001, 1.0, float("nan")], "val": []}, 4))
    told = dict(re.findall(r"<title>train \(5\), ([^:]+): ([\d.]+)</title>", text))
    assert {name: float(share) for name, share in told.items() if float(share)} == {
        "0": 20, "to .01": 20, ".05": 20, ".1": 20, "1": 20,
    }  # fmt: skip


def test_the_report_is_where_it_was_asked_for(run, tmp_path):
    assert write_report(run, tmp_path / "x.html") == tmp_path / "x.html"
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith(".")]
