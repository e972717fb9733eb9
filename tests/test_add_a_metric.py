"""The example of docs/add-a-metric.md is a complete metric: put in its place as the page says, and used."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from bitemporal import metrics

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "add-a-metric.md").read_text(encoding="utf-8")

SCRIPT = """
import json, sys, types

module = types.ModuleType("bitemporal.metrics")
sys.modules["bitemporal.metrics"] = module  # dataclasses look their module up
exec(compile(sys.stdin.read(), "metrics.py", "exec"), module.__dict__)

import numpy as np
from bitemporal.evaluation import Evaluation, Protocol, Result, compare, score_tables
from bitemporal.method.car import CarPartition
from bitemporal.tables import print_table

counts = np.array(json.loads(sys.argv[1]))
evaluation = Evaluation(
    stems=tuple(map(str, range(len(counts)))),
    counts=counts,
    cars=counts[:, 2:].sum(1) / counts.sum(1),
    sent_to=(None,) * len(counts),
    boundary=np.zeros((len(counts), 4), np.int64),
    objects=np.zeros((len(counts), 3, 3), np.int64),
    partition=CarPartition(),
)
protocol = Protocol(data="d", split="test", pairs_hash="", pairs=len(counts))
comparison = compare([Result("d", protocol, evaluation)]).to_json()
(table,) = score_tables(evaluation)
print_table(table)
print(json.dumps([evaluation.summary(intervals=True), comparison["detectors"]["d"]]))
"""


@pytest.fixture(scope="module")
def shown():
    """Counts, the table that is printed of them, their summary, and the detector in a comparison."""
    function, entry = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    above, end = "def _of_unchanged", '    "kappa": Metric('
    assert source.count(above) == source.count(end) == 1 and "above `_of_unchanged`" in PAGE
    source = source.replace(above, f"{function}\n\n{above}").replace(end, entry + end)
    counts = np.random.default_rng(0).integers(1, 1000, (30, 4))
    counts[0] = [500, 0, 0, 0]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(counts.tolist())],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *table, last = done.stdout.strip().splitlines()
    return counts, "\n".join(table), *json.loads(last)


def correlation(counts):
    """scikit-learn's, of pixels that have these counts."""
    tn, fp, fn, tp = counts.tolist()
    return matthews_corrcoef(np.repeat([0, 0, 1, 1], (tn, fp, fn, tp)), np.repeat([0, 1, 0, 1], (tn, fp, fn, tp)))


def test_it_is_the_coefficient_in_every_averaging(shown):
    counts, _, summary, _ = shown
    assert summary["dataset"]["mcc"] == pytest.approx(correlation(counts.sum(0)))
    each = [correlation(row) for row in counts[1:]]
    assert summary["image_mean"]["mcc"] == pytest.approx((1 + sum(each)) / 30)
    assert summary["image_mean_empty_0"]["mcc"] == pytest.approx(sum(each) / 30)


def test_it_is_printed_and_has_intervals(shown):
    _, table, summary, compared = shown
    (line,) = (line for line in table.splitlines() if line.strip().startswith("mcc"))
    assert f"{100 * summary['dataset']['mcc']:.2f} / {100 * summary['image_mean']['mcc']:.2f}" in line
    low, high = summary["intervals"]["dataset"]["mcc"]
    assert low < summary["dataset"]["mcc"] < high
    assert compared["dataset"]["mcc"] == {"value": summary["dataset"]["mcc"], "low": low, "high": high}


def test_the_page_is_true_about_what_is_shown_where():
    for name in ("METRICS", "MAIN_METRICS", "MAIN_SCORES", "PAPER_METRICS", "METRIC_VERSION"):
        assert f"`{name}`" in PAGE and hasattr(metrics, name)
    assert metrics.TABLE_METRICS == tuple(name for name in metrics.METRICS if not name.endswith("_unchanged"))
