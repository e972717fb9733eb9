"""The command itself: help of every command, options from YAML, unusable words, errors of the user's."""

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import bitemporal
from bitemporal.cli.dispatch import which_predict
from bitemporal.cli.main import COMMANDS, main
from bitemporal.cli.parser import call, make_parser


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"bitemporal {command}" in text
    assert "(type: " in text or "--" in text
    assert "<function" not in text and " at 0x" not in text


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("words", [["data"], ["data", "--help"], ["data", "-h"]])
def test_a_group_names_its_commands(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert (command in text) == command.startswith("data ")


PREDICTIONS = ["predict", "predict-scene", "predict-archive"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("before.png after.png --bundle b -o mask.png", "predict"),
        ("A B --bundle b --out masks --image-range -25,0", "predict"),
        ("before.tif after.tif -o mask.png", "predict"),
        ("--help", "predict"),
        ("before.tif after.tif --bundle b -o change.tif", "predict-scene"),
        ("--out=change.TIFF before.tif after.tif", "predict-scene"),
        ("before.tif after.tif --bundle b c -ochange.tif --image-range -25,0", "predict-scene"),
        ("--before r.tif g.tif b.tif --after r2.tif g2.tif b2.tif --output here", "predict-scene"),
        ("--manifest scenes.csv --bundle b --out results", "predict-archive"),
        ("--bundle b --manifest=scenes.csv -o results.tif", "predict-archive"),
        ("a.tif b.tif --config images.yaml", "predict"),
        ("--config names.yaml", "predict"),
        ("a.tif b.tif --config scene.yaml", "predict-scene"),
        ("--config=archive.yaml -o results", "predict-archive"),
        ("a.tif b.tif -o change.tif --config none.yaml", "predict-scene"),
        ("a.tif b.tif -o change.tif --config odd.yaml", "predict-scene"),
    ],
)
def test_words_of_predict_find_their_command(words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images.yaml").write_text("output: mask.png\nmanifest: null\n")
    (tmp_path / "names.yaml").write_text("before_image: a.tif\nafter_image: b.tif\noutput: mask.png\n")
    (tmp_path / "scene.yaml").write_text("output: change.tif\ntile: 512\n")
    (tmp_path / "archive.yaml").write_text("manifest: scenes.csv\n")
    (tmp_path / "odd.yaml").write_text("- a list: [\n")
    assert which_predict(words.split()) == command


def test_predictions_show_their_own_options_only(capsys):
    """Each in its own help; `predict`, from which the others are called too, names them."""
    helps = {}
    for command in PREDICTIONS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        helps[command] = capsys.readouterr().out
    options = {command: set(re.findall(r"^  (--[a-z-]+)", text, flags=re.M)) for command, text in helps.items()}
    assert {"--bundle", "--output", "--probability", "--scales"} <= set.intersection(*options.values())
    assert not options["predict"] & {"--polygons", "--before", "--tile", "--manifest", "--workers"}
    assert {"--polygons", "--before", "--tile"} <= options["predict-scene"]
    assert not options["predict-scene"] & {"--manifest", "--workers"}
    assert {"--polygons", "--tile", "--manifest", "--workers"} <= options["predict-archive"]
    assert not options["predict-archive"] & {"--before", "--summary"}
    unwrapped = "".join(helps["predict"].split())
    assert all(command in unwrapped for command in PREDICTIONS)


def test_unknown_command_is_refused(capsys):
    assert main(["detect"]) == 2
    assert "no command 'detect'" in capsys.readouterr().err


def test_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--model", "tinycd", "--data", "x", "--out", "y", "--steps", "3"])
    assert ended.value.code == 2


def test_numbers_are_read_from_words_and_from_yaml(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("label_values: [1, 2]\nmax_steps: 3\nlambda: 0.5\n")
    for given in (["--label-values=1,2"], [f"--config={tmp_path / 'options.yaml'}"]):
        words = ["distill", "--model=tinycd", f"--data={tmp_path / 'none'}", f"--out={tmp_path / 'run'}", *given]
        assert main(words) == 1  # no such folder: read that far
        assert str(tmp_path / "none") in capsys.readouterr().err


def test_wrong_count_of_numbers_is_refused(capsys):
    assert main(["data", "check", "x", "--image-range=1,2,3"]) == 1
    assert "image_range: found (1.0, 2.0, 3.0)" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--image-range", "-25,0"], ["--image-range=-25,0"], ["--image-range", "-.5,-.25"]])
def test_ranges_may_start_below_zero(option, tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "none"), *option]) == 1  # no such folder: read that far
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_an_interrupted_command_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitemporal.pairs.options.PairFolder", interrupted)
    assert main(["data", "check", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "bitemporal data check: interrupted\n"


def test_version():
    done = subprocess.run([sys.executable, "-m", "bitemporal.cli.main", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == bitemporal.__version__


def test_public_names_are_these():
    assert sorted(bitemporal.__all__) == [
        "BitemporalError",
        "CarPartition",
        "ChangeModel",
        "Detector",
        "DistillRecipe",
        "DistillationRun",
        "Ensemble",
        "Evaluation",
        "OriginPartition",
        "PairFolder",
        "Prediction",
        "Result",
        "TestTimeAugmentation",
        "TrainRecipe",
        "__version__",
        "change_area_ratio",
        "create_model",
        "evaluate",
        "list_models",
        "load",
        "predict_scene",
        "register_model",
        "threshold_scene",
        "train",
    ]
    for name in bitemporal.__all__:
        assert getattr(bitemporal, name) is not None


def test_importing_the_package_loads_no_framework():
    code = "import sys, bitemporal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@dataclass(frozen=True)
class Base:
    """The first group.

    Attributes:
        place: Where.
        sizes: How large.
    """

    place: str
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Derived(Base):
    """The second group.

    Attributes:
        lambda_: Weight.
        extra: A mapping.
    """

    lambda_: float | None = None
    extra: dict[str, int] = field(default_factory=dict)


def documented(
    first: str,
    second: str | None = None,
    /,
    *,
    output: str,
    names: list[str] | None = None,
    span: tuple[float, float] | None = None,
    nodata: float | None = None,
    loud: bool = False,
    options: Derived,
) -> dict[str, object]:
    """Do what is asked, 100 %.

    At length.

    Args:
        first: One.
        second: Two, 50 %.
        output: Three.
        names: Four.
        span: Five.
        nodata: Six.
        loud: Seven.
        options: Eight.
    """
    return dict(locals())


def called(*words):
    return call(documented, make_parser("program", documented).parse_args([*words]))


def test_a_function_gets_what_its_parser_read():
    least = called("a", "-o", "c", "--place=d")
    assert least == {
        "first": "a",
        "second": None,
        "output": "c",
        "names": None,
        "span": None,
        "nodata": None,
        "loud": False,
        "options": Derived("d"),
    }
    words = "a b --out c --names e f --span 0,1.5 --nodata 2 --loud --place d --sizes 3 --lambda .5".split()
    everything = called(*words, "--extra", "{g: 1}")
    assert everything == {
        "first": "a",
        "second": "b",
        "output": "c",
        "names": ["e", "f"],
        "span": (0.0, 1.5),
        "nodata": 2.0,
        "loud": True,
        "options": Derived("d", (3,), 0.5, {"g": 1}),
    }


def test_a_file_says_the_same_and_words_go_first(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "output: c\nnames: [e, f]\nspan: [0, 1.5]\nloud: true\nplace: d\nsizes: [3, 4]\nlambda: 0.5\nextra: {g: 1}\n"
    )
    given = called("a", f"--config={tmp_path / 'c.yaml'}", "--sizes", "5")
    assert given["options"] == Derived("d", (5,), 0.5, {"g": 1})
    assert (given["names"], given["span"], given["loud"]) == (["e", "f"], (0.0, 1.5), True)
    (tmp_path / "c.yaml").write_text("sizes: [3.5]\n")
    with pytest.raises(SystemExit):
        called("a", "-o", "c", "--place", "d", f"--config={tmp_path / 'c.yaml'}")


def test_help_shows_fields_of_dataclasses_in_groups():
    text = make_parser("program", documented).format_help()
    assert "Do what is asked, 100 %. At length." in text and "Two, 50 %." in text
    own, first, second = re.split("The (?:first|second) group:\n", text)
    for part, words in (
        (own, ("  --output", " -o", " --out", "--names NAMES [NAMES ...]", "2 comma-separated numbers")),
        (first, ("--place PLACE", "Where. (required", "--sizes", "How large.", "comma-separated integers")),
        (second, ("--lambda LAMBDA", "Weight.", "--extra", "A mapping.")),
    ):
        assert all(word in part for word in words)
    assert "--options" not in text and "lambda_" not in text.lower()


@pytest.mark.parametrize("value", ["-9999", "-3.4028234663852886e+38", "-.inf", "-.5", "-1e-3"])
def test_negative_values_belong_to_their_option(value):
    given = called("a", "--nodata", value, "-o", "x", "--place", "d")
    assert (given["nodata"], given["output"]) == (float(value.replace(".inf", "inf")), "x")


@pytest.mark.parametrize("value", ["-25,0", "-.5,-.25"])
def test_negative_ranges_belong_to_their_option(value):
    given = called("a", "b", "--span", value, "-o", "x", "--place", "d")
    assert (given["span"], given["output"]) == (tuple(map(float, value.split(","))), "x")


def test_an_overview_imports_no_command():
    code = (
        "import sys; from bitemporal.cli.main import main; main(['--help']); main(['data']); "
        "sys.exit(bool({'torch', 'bitemporal.cli.train'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_extras_name_what_scenes_import():
    root = Path(__file__).resolve().parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {
        re.split(r"[\[<>=]", word)[0].lower() for word in project["dependencies"] + extras["geo"] + extras["cluster"]
    }
    own = {"skimage": "scikit-image", "PIL": "pillow"}
    for file in (root / "src/bitemporal/scenes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"bitemporal"}:
                assert own.get(module, module) in named, f"{file.name} imports {module}"
