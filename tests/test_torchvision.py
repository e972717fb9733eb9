"""The remedy for a torchvision whose compiled operators do not load, each case in a fresh interpreter."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_torchvision_imports_after_the_models_package():
    code = """
import bitemporal.models
import torch
from torchvision.transforms import v2
from torchvision import tv_tensors
flipped = v2.functional.horizontal_flip(tv_tensors.Image(torch.arange(6).reshape(1, 2, 3)))
print(flipped[0, 0].tolist())
"""
    assert run(code) == "[2, 1, 0]"


def test_the_remedy_is_applied_when_operators_do_not_load_and_only_once():
    code = """
from bitemporal import _torchvision
_torchvision._compiled_operators_load = lambda: False
defined = []

class Library:
    def __init__(self, *arguments):
        defined.append(arguments)
    def define(self, schema):
        defined.append(schema.split("(")[0])

_torchvision.torch.library.Library = Library
print(_torchvision.make_importable(), _torchvision.make_importable())
print(defined)
"""
    assert run(code).splitlines() == ["True True", "[('torchvision', 'DEF'), 'nms', 'qnms']"]


@pytest.mark.parametrize(
    "situation",
    ["_torchvision._compiled_operators_load = lambda: True", "import sys; sys.modules['torchvision'] = object()"],
    ids=["operators load", "already imported"],
)
def test_the_remedy_is_inactive_where_it_is_not_needed(situation):
    code = f"""
from bitemporal import _torchvision
{situation}
def refuse(*arguments):
    raise AssertionError("a library was declared")
_torchvision.torch.library.Library = refuse
print(_torchvision.make_importable(), _torchvision._library)
"""
    assert run(code) == "False None"


def test_a_torchvision_without_compiled_operators_is_told_from_one_with(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from bitemporal import _torchvision
loaded = []
_torchvision.torch.ops.load_library = loaded.append
print(_torchvision._compiled_operators_load(), len(loaded))
"""
    assert run(code) == "False 0"  # no library at all
    (package / "_C.so").write_bytes(b"")
    assert run(code) == "True 1"
    assert run(code.replace("= loaded.append", "= lambda path: (_ for _ in ()).throw(OSError(path))")) == "False 0"
