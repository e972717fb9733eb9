"""Loaders: every sample is a function of the seed and its running number, whatever loads it."""

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bitemporal import train, workers
from bitemporal.errors import DataError, OptionError
from bitemporal.pairs import PairFolder, check_pairs, resolve_decoding
from bitemporal.pairs.batch import Batch
from bitemporal.run import fit, loading
from bitemporal.run.loading import TrainingSamples, ValidationPairs, training_loader, validation_loader
from bitemporal.run.processes import make_fabric
from bitemporal.run.recipe import TrainRecipe
from conftest import write_pair

COUNT = 12


def samples(data: Path, augmentation: str = "none", seed: int = 0) -> TrainingSamples:
    folder = resolve_decoding(PairFolder(data))
    pairs = [pair for pair in folder.pairs() if pair.split == "train"]
    return TrainingSamples(folder, pairs, augmentation, 32, seed)  # type: ignore[arg-type]  # a plain string


def batches(source: TrainingSamples, first_step: int = 0, **options: int) -> list[Batch]:
    return list(training_loader(source, first_step=first_step, steps=7, batch_size=4, **({"workers": 0} | options)))


def read(data: Path, part: str, stem: str) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(data / "train" / part / f"{stem}.png")))


def stem_of(data: Path, before: torch.Tensor) -> str:
    stems = [path.stem for path in sorted((data / "train/A").iterdir())]
    (found,) = [stem for stem in stems if torch.equal(read(data, "A", stem).permute(2, 0, 1), before)]
    return found


def test_every_pass_holds_every_pair_once_in_its_own_order(tiny_pairs):
    drawn = [stem_of(tiny_pairs, samples(tiny_pairs)[number][0][0]) for number in range(3 * COUNT)]
    passes = [drawn[start : start + COUNT] for start in range(0, 3 * COUNT, COUNT)]
    assert all(len(set(one)) == COUNT for one in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert drawn[:COUNT] != [stem_of(tiny_pairs, samples(tiny_pairs, seed=1)[number][0][0]) for number in range(COUNT)]


def test_before_is_a_and_after_is_b(tiny_pairs):
    batch = batches(samples(tiny_pairs))[0]
    for before, after, target in zip(batch.before, batch.after, batch.target, strict=True):
        stem = stem_of(tiny_pairs, before)
        assert torch.equal(after, read(tiny_pairs, "B", stem).permute(2, 0, 1))
        assert torch.equal(target, (read(tiny_pairs, "label", stem) > 0).long())


@pytest.mark.parametrize("augmentation", ["standard", "changer"])
def test_samples_differ_from_pass_to_pass_but_not_from_time_to_time(tiny_pairs, augmentation):
    first = batches(samples(tiny_pairs, augmentation))
    torch.rand(5)  # whatever else draws random numbers
    again = batches(samples(tiny_pairs, augmentation))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.before, two.before)
        assert torch.equal(one.after, two.after)
        assert torch.equal(one.target, two.target)
    images = torch.cat([batch.before for batch in first]).flatten(1)
    assert len(images.unique(dim=0)) == 28  # 12 pairs, twice and a third, never augmented alike


def test_the_seed_of_a_run_decides_how_each_sample_is_augmented(tiny_pairs):
    """Of one pair alone, so that the order, which depends on the seed too, makes no difference."""
    first, again, other = (samples(tiny_pairs, "changer", seed) for seed in (1, 1, 2))
    for source in (first, again, other):
        del source.pairs[1:]
    drawn = [[source[number][0] for number in range(4)] for source in (first, again, other)]
    assert all(torch.equal(one, same) for one, same in zip(*drawn[:2], strict=True))
    assert not any(torch.equal(one, another) for one, another in zip(drawn[0], drawn[2], strict=True))


def test_samples_leave_the_random_numbers_of_their_caller_alone(tiny_pairs):
    source = samples(tiny_pairs, "standard")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    source[0]
    assert torch.equal(torch.rand(3), expected)


def test_going_on_gives_the_batches_that_were_left(tiny_pairs):
    whole, rest = batches(samples(tiny_pairs, "standard")), batches(samples(tiny_pairs, "standard"), first_step=5)
    assert [batch.before.tolist() for batch in rest] == [batch.before.tolist() for batch in whole[5:]]


def test_devices_share_every_batch(tiny_pairs):
    source = samples(tiny_pairs, "standard")
    shares = [batches(source, rank=rank, world_size=2) for rank in range(2)]
    for whole, first, second in zip(batches(source), *shares, strict=True):
        assert torch.equal(whole.before, torch.cat([first.before, second.before]))


@pytest.mark.parametrize("world_size", [1, 2])
def test_devices_validate_every_pair_once_whole_whatever_its_size(tmp_path, world_size):
    rng = np.random.default_rng(0)
    sizes = [(16, 16), (24, 16), (16, 16), (8, 40), (24, 16)]
    for i, size in enumerate(sizes):
        label = np.full(size, i % 2, dtype=np.uint8)
        label[0, 0] = 0
        write_pair(tmp_path, "val", f"p{i}", *rng.integers(0, 256, (2, *size, 3), dtype=np.uint8), label)
    folder = resolve_decoding(PairFolder(tmp_path))
    pairs = ValidationPairs(folder, list(folder.pairs()))
    found: list[tuple[int, ...]] = []
    for rank in range(world_size):
        for group in validation_loader(pairs, batch_size=3, workers=0, rank=rank, world_size=world_size):
            for batch in group:
                assert batch.before.shape[-2:] == batch.after.shape[-2:] == batch.target.shape[-2:]
                found += [tuple(mask.shape) for mask in batch.target]
    assert sorted(found) == sorted(sizes)


def refuse_shared_memory(*_: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


@pytest.fixture
def no_shared_memory(monkeypatch):
    """What torch does where /dev/shm is full, as in the loading processes that are forked from this one."""
    monkeypatch.setattr("torch.UntypedStorage._share_fd_cpu_", refuse_shared_memory)
    monkeypatch.setattr("torch.UntypedStorage._share_filename_cpu_", refuse_shared_memory)


def assert_same(one: Batch, two: Batch) -> None:
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("before", "after", "target"))
    assert one.target.dtype == two.target.dtype == torch.int64


def test_loading_processes_need_no_shared_memory(tiny_pairs, no_shared_memory):
    """Such a run used to wait for ever for batches that could not be sent."""
    source = samples(tiny_pairs)
    for one, two in zip(batches(source), batches(source, workers=2), strict=True):
        assert_same(one, two)
    pairs = ValidationPairs(source.folder, source.pairs)
    for ours, theirs in zip(*(validation_loader(pairs, batch_size=3, workers=n) for n in (0, 2)), strict=True):
        assert_same(ours[0], theirs[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_while_training_is_one_line(workers, tiny_pairs, tmp_path):
    data = shutil.copytree(tiny_pairs, tmp_path / "pairs")
    source = samples(data)
    (data / "train/A/pair_03.png").write_bytes(b"no picture any more")
    with pytest.raises(DataError) as caught:
        batches(source, workers=workers)
    assert "pair_03.png" in str(caught.value) and "\n" not in str(caught.value)


class Killed(TrainingSamples):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


class Buggy(TrainingSamples):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise RuntimeError("a bug of this package")


def test_a_loading_process_that_is_killed_stops_the_run_with_the_remedy(tiny_pairs):
    source = samples(tiny_pairs)
    with pytest.raises(OptionError, match=r"2 loading processes.*worker.*use fewer .--workers 0"):
        batches(Killed(source.folder, source.pairs, "none", 32, 0), workers=2)


class Frozen(TrainingSamples):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        if number == 1:  # nothing is on its way then that would be cut in the middle
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().__getitem__(number)


@pytest.fixture
def short_spans(monkeypatch):
    monkeypatch.setattr(loading, "SPAN", 0.1)
    monkeypatch.setattr(workers, "SPAN", 0.1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # for the end of its processes


def test_loading_processes_that_hang_stop_the_run_with_the_remedy(tiny_pairs, short_spans, monkeypatch):
    monkeypatch.setattr(workers, "SPANS", 3)
    source = samples(tiny_pairs)
    with pytest.raises(OptionError, match=r"no sign of life for .* from 2 loading processes.*drive.*command again"):
        batches(Frozen(source.folder, source.pairs, "none", 32, 0), workers=2)
    for child in multiprocessing.active_children():
        child.join(30)
        assert not child.is_alive()


def test_a_loading_process_that_freezes_in_the_middle_of_a_batch_stops_the_run(tiny_pairs, short_spans, monkeypatch):
    """Its reader waits for the rest, and no timeout of a queue helps."""
    monkeypatch.setattr(workers, "SPANS", 3)
    this, send = os.getpid(), Connection._send

    def freeze(self: Connection, part: bytes, *others: object) -> None:
        if os.getpid() == this:
            send(self, part, *others)
        else:
            send(self, part[: len(part) // 2], *others)
            os.kill(os.getpid(), signal.SIGSTOP)
            threading.Event().wait()  # another thread may be the first to stop

    monkeypatch.setattr(Connection, "_send", freeze)
    with pytest.raises(OptionError, match=r"no sign of life for .* from 2 loading processes.*drive.*command again"):
        batches(samples(tiny_pairs), workers=2)
    for child in multiprocessing.active_children():
        child.join(30)
        assert not child.is_alive()


def test_loading_processes_that_take_long_are_waited_for(tiny_pairs, short_spans, monkeypatch):
    def wake(_: object) -> bool:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGCONT)
        return False

    monkeypatch.setattr(loading.Watch, "is_over", wake)
    source = samples(tiny_pairs)
    late = batches(Frozen(source.folder, source.pairs, "none", 32, 0), workers=2)
    for one, two in zip(batches(source), late, strict=True):
        assert_same(one, two)


def test_a_loading_process_that_dies_during_a_step_is_one_line(tiny_pairs, tmp_path, monkeypatch):
    """The next batches are made then: torch interrupts the step, wherever it is."""

    def step(*_: object) -> None:
        while True:  # until the signal comes
            pass

    monkeypatch.setattr(fit, "training_step", step)
    monkeypatch.setattr(fit.Stage, "samples", lambda stage, card: DyingLater(stage.pairs, stage.train, "none", 32, 0))
    recipe = TrainRecipe(
        model="test_tinycd", data=str(tiny_pairs), out=str(tmp_path / "r"), max_steps=8, batch_size=2, crop_size=32,
        workers=1,
    )  # fmt: skip
    with pytest.raises(OptionError, match=r"1 loading processes.*DataLoader worker.*use fewer .--workers 0"):
        train(recipe)


class DyingLater(TrainingSamples):
    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        if number >= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


def test_a_bug_in_a_loading_process_is_not_taken_for_a_lack_of_memory(tiny_pairs):
    source = samples(tiny_pairs)
    with pytest.raises(RuntimeError, match="a bug of this package"):
        batches(Buggy(source.folder, source.pairs, "none", 32, 0), workers=1)


def test_without_any_shared_memory_the_remedy_is_said(tiny_pairs, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("multiprocessing.Lock", full)
    with pytest.raises(OptionError, match=r"No space left.*/dev/shm.*use --workers 0") as caught:
        batches(samples(tiny_pairs), workers=2)
    assert "--shm-size" in str(caught.value)
    assert batches(samples(tiny_pairs), workers=0)  # the remedy
    folder = PairFolder(tiny_pairs)
    with pytest.raises(OptionError, match="use --workers 1"):
        check_pairs(folder, workers=2)
    monkeypatch.setattr("bitemporal.pairs.check._SMALL", 1)
    assert not check_pairs(folder).faults  # the number was not asked for: it does without
    with pytest.raises(OptionError, match="use --devices 1"):
        make_fabric(TrainRecipe(model="test_tinycd", data=str(tiny_pairs), out="r", devices=2))
