"""The example of docs/add-a-command.md is a complete command: registered as it stands, and called."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitemporal.cli.main import COMMANDS, main

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "add-a-command.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch):
    """The example as a module of another place, under the name that the page gives it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    ((command, module, function),) = re.findall(r'^"([a-z ]+)": "bitemporal\.cli\.(\w+):(\w+)",$', PAGE, flags=re.M)
    assert f"Save this as `src/bitemporal/cli/{module}.py`" in PAGE
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setitem(COMMANDS, command, f"{module}:{function}")


def cars(folder: Path, split: str) -> dict[str, float]:
    """Change area ratios by name, from the labels themselves."""
    labels = sorted((folder / split / "label").iterdir())
    return {f"{split}/{label.stem}": float((np.asarray(Image.open(label)) > 0).mean()) for label in labels}


def test_it_lists_the_pairs_in_order(tiny_pairs, tmp_path, capsys):
    expected = sorted(cars(tiny_pairs, "train").values())
    assert main(["data", "rank", str(tiny_pairs), "--only", "train", "--count", "3"]) == 0
    listed = dict(reversed(line.split("  ")) for line in capsys.readouterr().out.splitlines())
    assert [float(car) for car in listed.values()] == pytest.approx(expected[:-4:-1], abs=5e-5)
    assert all(float(car) == pytest.approx(cars(tiny_pairs, "train")[pair], abs=5e-5) for pair, car in listed.items())
    (tmp_path / "c.yaml").write_text("only: [train, val]\norder: least\ncount: 1000\nlabel_values: [0, 255]\n")
    assert main(["data", "rank", str(tiny_pairs), f"--config={tmp_path / 'c.yaml'}"]) == 0
    listed = [float(line.split("  ")[0]) for line in capsys.readouterr().out.splitlines()]
    every = cars(tiny_pairs, "train") | cars(tiny_pairs, "val")
    assert listed == pytest.approx(sorted(every.values()), abs=5e-5)
    assert main(["data", "rank", str(tiny_pairs), "--only", "val", "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)
    assert [row["car"] for row in ranked] == sorted(cars(tiny_pairs, "val").values(), reverse=True)


def test_its_help_shows_what_is_documented(capsys):
    with pytest.raises(SystemExit):
        main(["data", "rank", "--help"])
    text = capsys.readouterr().out
    own, labels = text.split("\nLabels:\n")
    assert "List the pairs with the most change, or with the least." in text and "{most,least}" in own
    assert "--count" in own and "--label-values" in labels and "Values of unchanged" in labels
    assert main(["data"]) == 0
    assert "data rank        List the pairs with the most change" in capsys.readouterr().out


def test_its_mistakes_are_reported(tiny_pairs, tmp_path, capsys):
    assert main(["data", "rank", str(tiny_pairs), "--count", "0"]) == 1
    assert "bitemporal data rank: count: found 0" in capsys.readouterr().err
    assert main(["data", "rank", str(tmp_path / "none")]) == 1
    with pytest.raises(SystemExit) as ended:
        main(["data", "rank", str(tiny_pairs), "--order", "best"])
    assert ended.value.code == 2
    for name in ("A", "B"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "pairs" / name / "0.png")
    assert main(["data", "rank", str(tmp_path / "pairs")]) == 1
