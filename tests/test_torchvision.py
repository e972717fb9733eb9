"""The remedy for a torchvision whose compiled operators do not load, each case in a fresh interpreter."""

import subprocess
import sys

FAKE = """
import torch
{first}
torch.library.register_fake("torchvision::nms")(lambda *tensors: None)
torch.library.register_fake("torchvision::qnms")(lambda *tensors: None)
"""
"""Registers what torchvision registers when it is imported."""

REPORT = """
from bitemporal import _torchvision
print("declared" in vars(_torchvision), _torchvision.tvf)
"""


def run(code: str, *paths: object) -> subprocess.CompletedProcess[str]:
    path = f"import sys\nsys.path[:0] = {[str(path) for path in paths]!r}\n"
    return subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, timeout=120)


def output(code: str, *paths: object) -> str:
    finished = run(code, *paths)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def fake(folder, first: str):
    """A package named torchvision."""
    package = folder / "torchvision"
    (package / "transforms" / "v2").mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE.format(first=first))
    (package / "tv_tensors.py").write_text("")
    (package / "transforms" / "__init__.py").write_text("")
    (package / "transforms" / "v2" / "__init__.py").write_text("functional = 'transforms'")
    return folder


def test_torchvision_imports_after_the_models_package():
    code = """
from bitemporal.models import ChangeModel
import torch
from torchvision.transforms import v2
from torchvision import tv_tensors
flipped = v2.functional.horizontal_flip(tv_tensors.Image(torch.arange(6).reshape(1, 2, 3)))
print(flipped[0, 0].tolist())
"""
    assert output(code) == "[2, 1, 0]"


def test_operators_that_do_not_load_are_declared(tmp_path):
    folder = fake(tmp_path, first="")
    assert "torchvision::nms does not exist" in run("import torchvision", folder).stderr
    assert output(REPORT, folder) == "True transforms"


def test_nothing_is_declared_where_the_operators_load(tmp_path):
    first = """
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
    assert output(REPORT, fake(tmp_path, first)) == "False transforms"


def test_another_fault_of_torchvision_is_not_hidden(tmp_path):
    finished = run(REPORT, fake(tmp_path, first="raise RuntimeError('built for another release')"))
    assert finished.returncode == 1
    assert "built for another release" in finished.stderr
