"""The example of docs/add-a-criterion.md is a complete criterion: put in its place as the page says, and used."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bitemporal.errors import RecipeError
from bitemporal.method import loss

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "add-a-criterion.md").read_text(encoding="utf-8")

SCRIPT = """
import json, sys, types

module = types.ModuleType("bitemporal.method.loss")
sys.modules["bitemporal.method.loss"] = module
exec(compile(sys.stdin.read(), "loss.py", "exec"), module.__dict__)

import torch
from bitemporal.cli.main import main
from bitemporal.inference.bundle import load_network

options = ["--max-steps=2", "--teacher-steps=2", "--student-steps=2", "--batch-size=4", "--crop-size=32", "--workers=0"]
run = ["distill", "--model=test_tinycd", f"--data={sys.argv[1]}", f"--out={sys.argv[2]}", "--criterion=hellinger"]
assert main([*run, *options, "--stages=origin,teachers,control,student"]) == 0
students = [load_network(f"{sys.argv[2]}/{name}/bundle").state_dict() for name in ("student", "control")]
differs = any(not torch.equal(students[0][name], students[1][name]) for name in students[0])
odds = torch.tensor(json.loads(sys.argv[3]), requires_grad=True)
distance = module.hellinger(odds[0], odds[1])
distance.sum().backward()
print(json.dumps([differs, distance.tolist(), odds.grad.tolist()]))
"""


def test_it_is_the_distance_of_the_formula_and_a_run_learns_from_it(tiny_pairs, tmp_path):
    function, entry = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    source = Path(loss.__file__).read_text(encoding="utf-8")
    above, end = "CRITERIA = {\n", '    "mse": Criterion('
    assert source.count(above) == source.count(end) == 1 and "above `CRITERIA`" in PAGE
    source = source.replace(above, f"{function}\n\n{above}").replace(end, entry + end)
    odds = np.random.default_rng(0).normal(size=(2, 1, 1, 4, 4))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_pairs), str(tmp_path / "run"), json.dumps(odds.tolist())],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differs, distance, gradient = json.loads(done.stdout.splitlines()[-1])
    p, q = 1 / (1 + np.exp(-odds))
    # one minus the overlap of the two Bernoulli distributions
    assert np.array(distance) == pytest.approx(1 - np.sqrt(p * q) - np.sqrt((1 - p) * (1 - q)), abs=1e-6)
    assert differs and np.abs(gradient).min() > 0


def test_an_unknown_criterion_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"criterion: found 'hellinger', expected one of kl, mse"):
        loss.criterion("hellinger")
