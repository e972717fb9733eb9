"""The command itself: help of every command, options from YAML, unusable words, errors of the user's."""

import ast
import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import bitemporal
from bitemporal import evaluation, inference, models, scenes
from bitemporal.cli.dispatch import which_predict
from bitemporal.cli.main import COMMANDS, main
from bitemporal.cli.outcome import Outcome
from bitemporal.cli.parser import call, make_parser
from bitemporal.cli.words import arrange
from forked import run_command
from test_reading import DAMAGED_YAML


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"bitemporal {command}" in text
    assert "(type: " in text or "--" in text
    assert "<function" not in text and " at 0x" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_types_and_choices_in_plain_words(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    raw = ("Literal[", "Union[", "Optional[", "<class", "| null", "null)", "typing.", "dict[", "list[", "\b", r"\x08")
    assert not [mark for mark in raw if mark in text]


def test_help_lists_choices(capsys):
    for command, choices in (
        ("distill", "--teachers {all,part}"),
        ("predict", "--tta {flips,rotations,flips-rotations}"),
        ("data synth", "comma-separated names of {building,road,hard- surface,woodland,greenhouse"),
        ("completion", "[{bash,zsh}]"),
    ):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        assert choices in re.sub(r"\s+", " ", capsys.readouterr().out)


# --- positional arguments in a file of options


@pytest.mark.parametrize(
    ("command", "content", "word"),
    [
        ("data check", "path: none", "none: no such folder"),
        ("report", "run: none", "none: no such folder"),
        ("compare", "results: [one.json, b.json]", "one.json: no such file"),
        ("compare", "results: one.json", "one.json: no such file"),
        ("predict --bundle b -o m.png", "{before_image: one.png, after_image: b.png}", "b: no such folder"),
        ("predict-scene", "{before_image: one.tif, after_image: 2.tif, bundle: b, output: m.tif}", "b: no such folder"),
        ("models", "name: tinycdd", "model 'tinycdd' is not registered"),
        ("threshold -o m.tif", "probability: one.tif", "one.tif: no such file"),
    ],
)
def test_positional_arguments_may_stand_in_the_file_of_options(command, content, word, tmp_path, monkeypatch, capsys):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "options.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--config", "inner/options.yaml"]) == 1
    error = capsys.readouterr().err
    assert word in error
    assert "no such" not in word or str(tmp_path) in error


def test_a_file_of_options_may_be_utf_16_and_else_says_how_to_save_it(tmp_path, capsys):
    text = "path: none  # Zürich"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "o.yaml").write_bytes(text.encode(encoding))
        assert main(["data", "check", "--config", str(tmp_path / "o.yaml")]) == 1
        assert "none: no such folder" in capsys.readouterr().err
    (tmp_path / "o.yaml").write_bytes(text.encode("cp1252"))
    with pytest.raises(SystemExit):
        main(["data", "check", "--config", str(tmp_path / "o.yaml")])
    assert "its text is not UTF-8, at byte 15: save it as UTF-8" in capsys.readouterr().err


def test_positional_arguments_on_the_command_line_come_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text("shell: zsh")
    for words, is_zsh in (([], True), (["bash"], False), (["zsh"], True)):
        assert main(["completion", "--config=options.yaml", *words]) == 0
        assert ("bashcompinit" in capsys.readouterr().out) is is_zsh
    Path("options.yaml").write_text("{before_image: a.png, after_image: b.png, bundle: [c, d], output: m.png}")
    assert parsed("predict x.png --config options.yaml") == ["x.png", str(tmp_path / "b.png")]
    assert parsed("predict --bundle c d --config options.yaml") == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for content in ("shell: fish", "shell: 3"):
        Path("options.yaml").write_text(content)
        with pytest.raises(SystemExit, match="2"):
            main(["completion", "--config", "options.yaml"])
        assert "expected one of bash, zsh" in capsys.readouterr().err


def parsed(words):
    """The images of `predict` that its parser reads."""
    from bitemporal.cli.execution import CommonOptions
    from bitemporal.cli.predict import predict

    parser = make_parser("bitemporal predict", predict, CommonOptions)
    values = parser.parse_args(parser.arranged(words.split()[1:]))
    return [values["before_image"], values["after_image"]]


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
        assert (f"\n  {command} " in text) == command.startswith("data ")


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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train --max-steps 3.5", "--max-steps: found 3.5, expected a whole number"),
        ("train --lr high", "--lr: found high, expected a number"),
        ("train --augmentation strong", "--augmentation: found strong, expected one of model, standard, changer, none"),
        ("train --model-options 3", "--model-options: found 3, expected a mapping, as in '{name: value}'"),
        ("distill --teachers none", "--teachers: found none, expected one of all, part"),
        ("predict a b -o c --bundle d --tta flip", "--tta: found flip, expected one of flips, rotations, flips-rota"),
        ("data synth x --cars a", "--cars: found a, expected comma-separated numbers"),
        ("completion fish", "shell: found fish, expected one of bash, zsh"),
    ],
)
def test_a_value_of_another_kind_is_named_in_plain_words(words, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert f"error: {line}" in capsys.readouterr().err


def test_a_misspelt_key_of_a_file_gets_the_nearest(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("modl: tinycd\n")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--config", str(tmp_path / "a.yaml")])
    assert "Option 'modl' is not accepted; did you mean model" in capsys.readouterr().err


# --- names and places that nobody expects


def test_a_line_break_or_tab_in_a_name_makes_no_second_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "no\nsuch\tfolder"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    for date in ("A", "B", "label"):
        Path("set", date).mkdir(parents=True)
        Path("set", date, "a\nb\tc.png").write_bytes(b"no image")
    Path("set", "odd\nfolder").mkdir()
    assert main(["data", "check", "set", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "\nb\tc.png" not in out and "\nfolder" not in out
    assert "c.png: holds no image" in out and "folder: a folder without images" in out


def test_a_name_that_is_too_long_is_one_line_with_the_remedy(capsys):
    assert main(["data", "check", "z" * 300]) == 1
    said = capsys.readouterr().err
    assert "a name of 300 bytes is too long" in said and "choose a shorter one" in said and len(said) < 200


def test_a_current_folder_that_is_gone_is_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    script = (
        "import os; from bitemporal.cli.main import main; os.rmdir(os.getcwd()); raise SystemExit(main(['models']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path / "gone")
    assert done.returncode == 1
    assert done.stderr == (
        "bitemporal models: the current folder no longer exists; change to one that does, as in `cd ~`\n"
    )


def test_a_home_that_cannot_be_written_is_not_mentioned(tiny_pairs, tmp_path):
    words = ["data", "stats", str(tiny_pairs), "-o", str(tmp_path / "out"), "--workers", "1"]
    places = {"HOME": "/proc/none", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    environment = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"} | places
    command = [sys.executable, "-m", "bitemporal", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "atplotlib" not in done.stderr


def test_an_interrupted_command_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("bitemporal.pairs.options.PairFolder", interrupted)
    assert main(["data", "check", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "bitemporal data check: interrupted\n"
    monkeypatch.setattr("bitemporal.cli.main.importlib.import_module", interrupted)  # before the command runs
    assert main(["data", "check", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "bitemporal: interrupted\n"


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
        "evaluate_raster",
        "list_models",
        "load",
        "plot_pair",
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


HEAVY = {"torch", "torchvision", "timm", "lightning_fabric", "segmentation_models_pytorch"}
SLOW = {"matplotlib", "pandas", "geopandas", "rasterio", "scipy.stats", "skimage", "huggingface_hub.hf_api"}
"""Not needed to explain a command either: each takes longer to import than all the rest."""


def modules_after(code: str) -> set[str]:
    """Modules that a new process holds after some code, whatever status it ends with."""
    script = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('modules:', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "modules: " in done.stderr, done.stderr
    return set(done.stderr.rpartition("modules: ")[2].split())


def test_explaining_and_refusing_needs_none_of_the_large_libraries():
    """Of every command: its help, an unknown option, missing arguments, and a value that cannot be read."""
    calls = [["--help"], [], ["data"], ["help", "train"], ["trian"], ["data", "chekc"]]
    for command in COMMANDS:
        words = command.split()
        calls += [[*words, "--help"], [*words, "--bogus"], [*words, "a", "b", "c", "d", "--config", "none.yaml"]]
        if command not in ("data download", "models", "completion"):  # which need no arguments
            calls.append(words)
    code = f"""from bitemporal.cli.main import main
    for words in {calls}:
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
        assert status == (0 if words in ([], ["data"]) or "help" in words[0] + words[-1] else 2), (words, status)"""
    assert not modules_after(code) & (HEAVY | SLOW)


@pytest.mark.parametrize(
    "words",
    [
        "trian --model tinycd",
        "data chek x",
        "train --modle tinycd",
        "models",
        "models tinycd",
        "models tinycdd",
        "models --sort parameters --json",
        "data check {pairs}",
        "data stats {pairs} -o {out}/stats",
        "compare {out}/a.json {out}/b.json",
        "predict",
        "--version",
    ],
)
def test_small_commands_and_typing_errors_need_no_training_framework(words, tiny_pairs, tmp_path):
    words = words.format(pairs=tiny_pairs, out=tmp_path).split()
    assert not modules_after(f"from bitemporal.cli.main import main; main({words})") & HEAVY


def test_comparing_needs_no_training_framework(tiny_pairs, tmp_path):
    """With real results, which masks as another program writes them give."""
    masks = tiny_pairs / "test/label"
    for name in "ab":
        assert (
            main(["evaluate", str(masks), str(tiny_pairs), "-o", str(tmp_path / f"{name}.json"), "--name", name]) == 0
        )
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-o", str(tmp_path / "c.json")]
    assert not modules_after(f"from bitemporal.cli.main import main; assert main({words}) == 0") & HEAVY
    assert (tmp_path / "c.json").is_file()


def test_public_names_are_imported_on_first_use_and_all_exist():
    assert not modules_after("import bitemporal, bitemporal.models, bitemporal.scenes, bitemporal.inference") & HEAVY
    for package in (bitemporal, evaluation, inference, models, scenes):
        assert set(package.__all__) <= {*dir(package), "__version__"}
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = package.nothing


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "did you mean train?"),
        (["predictscene"], "predict-scene or predict or predict-archive?"),
        (["data", "chek"], "did you mean data check?"),
        (["check"], "did you mean data check?"),
        (["dat", "check"], "'dat'; did you mean data check?"),
        (["dta", "synht", "x"], "'dta'; did you mean data synth?"),
        (["dat"], "did you mean data?"),
        (["dat", "--help"], "did you mean data?"),
        (["data", "chekc"], "'data chekc'; did you mean data check?"),
        (["data", "train"], "did you mean train?"),
        (["data", "nothing-like-it"], "no command 'data nothing-like-it'"),
        (["data-check", "x"], "did you mean data check?"),
        (["modles"], "did you mean models?"),
        (["MODELS"], "did you mean models?"),
        (["help", "trian"], "'trian'; did you mean train?"),
        (["help", "dat", "check"], "did you mean data check?"),
        (["data", "help", "chekc"], "did you mean data check?"),
        (["--verison"], "did you mean --version?"),
        (["--tile", "models"], "options stand behind one, as in `bitemporal models --json`"),
    ],
)
def test_an_unknown_command_gets_the_nearest(words, meant, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[0].endswith(meant)
    for proposed in re.findall(r"did you mean (.*)\?", said.err):
        for command in proposed.split(" or "):
            with contextlib.suppress(SystemExit):
                assert main([*command.split(), "--help"] if "--" not in command else [command]) == 0


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["help"], ["--help"]),
        (["help", "train"], ["train", "--help"]),
        (["help", "data"], ["data"]),
        (["help", "data", "check"], ["data", "check", "--help"]),
        (["data", "help"], ["data", "--help"]),
        (["data", "help", "check"], ["data", "check", "--help"]),
        (["version"], ["--version"]),
    ],
)
def test_habits_from_other_programs_are_answered(words, same, capsys):
    answers = []
    for asked in (words, same):
        try:
            status = main(asked)
        except SystemExit as ended:
            status = ended.code
        answers.append((status, capsys.readouterr()))
    assert answers[0] == answers[1] and answers[0][0] == 0 and answers[0][1].out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "--modle", "tinycd"], "--model"),
        (["train", "--workrs=2"], "--workers"),
        (["train", "--model", "tinycd", "--data", "x", "--out", "y", "--device", "2"], "did you mean --devices"),
        (["data", "check", "x", "--label-value", "1,2"], "--label-values"),
        (["predict", "a", "b", "--bundle", "c", "-o", "d", "--prob", "p"], "--prob"),
    ],
)
def test_an_unknown_option_gets_the_nearest_and_prefixes_are_none(words, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert meant in capsys.readouterr().err


def read(command: str, words: str) -> dict[str, Any]:
    module, name = COMMANDS[command].split(":")
    parser = make_parser(command, getattr(importlib.import_module(module), name))
    return vars(parser.parse_args(arrange(parser, words.split())))


@pytest.mark.parametrize(
    ("words", "bundles"),
    [
        ("before.png after.png --bundle B -o m.png", ["B"]),
        ("--bundle B before.png after.png -o m.png", ["B"]),
        ("-o m.png --bundle B before.png after.png", ["B"]),
        ("--bundle B C before.png after.png -o m.png", ["B", "C"]),
        ("before.png --bundle B after.png -o m.png", ["B"]),
        ("before.png after.png --bundle B C -o m.png", ["B", "C"]),
        ("before.png after.png --bundle B --bundle C -o m.png", ["B", "C"]),
        ("--bundle B --bundle=C before.png after.png -o m.png", ["B", "C"]),
        ("--bundle=B before.png after.png --image-range -25,0 -o m.png", ["B"]),
    ],
)
def test_images_are_no_bundles(words, bundles):
    for command, output in (("predict", "m.png"), ("predict-scene", "m.tif")):
        values = read(command, words.replace("m.png", output))
        assert values["bundle"] == bundles
        assert (values["before_image"], values["after_image"]) == ("before.png", "after.png")


def test_rasters_of_bands_are_no_images():
    values = read("predict-scene", "--mask m.tif a.tif b.tif --bundle B -o m.tif")
    assert (values["mask"], values["before_image"], values["after_image"]) == (["m.tif"], "a.tif", "b.tif")
    values = read("predict-scene", "--before r g b --after r2 g2 b2 --bundle B C -o m.tif")
    assert (values["before"], values["after"]) == (["r", "g", "b"], ["r2", "g2", "b2"])
    assert values["bundle"] == ["B", "C"] and values["before_image"] is None
    assert read("compare", "a.json b.json --baseline x")["results"] == ["a.json", "b.json"]
    assert read("predict-archive", "--assets red green --bundle B --manifest m -o x")["assets"] == ["red", "green"]


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "bitemporal", "data"], capture_output=True, text=True)
    assert done.returncode == 0 and "data check" in done.stdout


@pytest.mark.parametrize("end", ["stdout", "stderr"])
def test_a_reader_that_ends_does_not_end_the_command(end, tiny_pairs, tmp_path):
    """As behind ``| head -1``: what is to be written is written, and nothing is said of the pipe."""
    words = ["data", "stats", str(tiny_pairs), "-o", str(tmp_path / "stats")]
    read_end, write_end = os.pipe()
    os.close(read_end)
    other = {"stdout": "stderr", "stderr": "stdout"}[end]
    streams = {end: write_end, other: subprocess.PIPE}
    done = subprocess.run([sys.executable, "-m", "bitemporal", *words], **streams, text=True)
    os.close(write_end)
    assert done.returncode == 0
    assert (tmp_path / "stats/partition.csv").is_file() and (tmp_path / "stats/car_histogram.png").is_file()
    assert "Broken" not in (getattr(done, other) or "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["--help"], ["data", "check", "--help"]])
def test_output_that_cannot_be_written_is_one_line(words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bitemporal", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "standard output cannot be written" in done.stderr, done.stderr


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_output_is_no_fault(closed):
    command = f"exec {sys.executable} -m bitemporal models {closed}>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


def test_results_as_json(tiny_pairs, tmp_path, capsys):
    assert main(["data", "check", str(tiny_pairs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"]["train"]["pairs"] == 12 and found["faults"] == []
    (tmp_path / "p/A").mkdir(parents=True)
    (tmp_path / "p/B").mkdir()
    assert main(["data", "check", str(tmp_path / "p"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"][0]["remedy"]
    assert main(["models", "tinycd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["title"] == "TinyCD"
    assert main(["evaluate", str(tiny_pairs / "test/label"), str(tiny_pairs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"]["miou"] == 1.0
    assert main(["data", "check", str(tmp_path / "none"), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "none" in said.err


def test_quiet_says_what_is_wrong_only(tiny_pairs, tmp_path, capsys):
    assert main(["data", "check", str(tiny_pairs), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["data", "check", str(tiny_pairs), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    shutil.copytree(tiny_pairs / "val", tmp_path / "odd")
    next((tmp_path / "odd/B").iterdir()).unlink()
    assert main(["data", "check", str(tmp_path / "odd"), "--quiet"]) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert "has no partner in B" in captured.err
    assert main(["data", "check", str(tmp_path / "none"), "--quiet"]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_verbose_shows_where_an_error_comes_from(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "none"), "--verbose"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and said.splitlines()[-1].startswith("bitemporal data check: ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "x"), ["Permission denied", "--verbose"]),
        (MemoryError("array of 1 TB"), ["out of memory", "array of 1 TB", "larger machine"]),
    ],
)
def test_errors_of_the_machine_are_one_line(error, words, monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("bitemporal.cli.data_check.check_pairs", fail)
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()
    assert main(["data", "check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_gives_results(command):
    module, name = COMMANDS[command].split(":")
    assert get_type_hints(getattr(importlib.import_module(module), name))["return"] is Outcome


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["da"], {"data"}),
        (["data", ""], {command.split()[1] for command in COMMANDS if command.startswith("data ")}),
        (["train", "--mod"], {"--model", "--model-options"}),
        (["predict-s"], {"predict-scene"}),
        (["predict", "--bun"], {"--bundle"}),
        (["predict-scene", "a.tif", "--poly"], {"--polygons"}),
    ],
)
def test_bash_completes(words, offered, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + (
        'COMP_WORDS=(bitemporal "$@"); COMP_CWORD=$#; _bitemporal; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_a_value_in_yaml_that_would_grow_without_end_is_refused(capsys):
    for name in ("billion laughs", "billion laughs by merging", "it holds itself", "brackets", "indents"):
        text = DAMAGED_YAML[name]
        for words, named in (
            (["train", "--model-options", text], "--model-options: found a value"),
            (["train", f"--seed={text}"], "--seed: found a value"),
            (["data", "check", text], ": found a value"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(words)
            error = capsys.readouterr().err.splitlines()[-1]
            assert ended.value.code == 2 and named in error and "nested deeper than" in error, (name, words[:2])
            assert len(error) < 300


def test_words_that_are_no_utf8_are_read_as_paths_and_refused_as_other_values(tiny_pairs, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    shutil.copytree(tiny_pairs, tmp_path / name)
    for words in ([str(tmp_path / name)], [str(tiny_pairs), f"--splits={tmp_path / name}.csv"]):
        ended = run_command(["data", "check", *words])
        assert ended.status == (len(words) > 1) and "caf\\udce9" in ended.said and "Traceback" not in ended.said
    for words in (["--model-options", f"{{weights: {name}}}"], ["--seed", name]):
        with pytest.raises(SystemExit):
            main(["train", *words])
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"{words[0]}: found a value that is not UTF-8, expected a" in error


def test_an_error_repeats_no_more_than_the_beginning_of_a_value(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--seed", "x" * 20_000])
    assert len(capsys.readouterr().err.splitlines()[-1]) < 300
