"""Checkpoints: nothing is lost or changed by a restart, whatever moment the node died at."""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from flop_p2p.errors import NodeError
from flop_p2p.learning import Partway
from flop_p2p.node import checkpoint
from flop_p2p.node.checkpoint import Checkpoints, Progress
from flop_p2p.node.worker import SiteModel

MakeHospitals = Callable[..., Any]

never = lambda: False  # noqa: E731


def norm_net(sample_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Has BatchNorm, with its counter that is neither body nor head, and dropout, which draws random numbers."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(sample_shape)), 16), nn.BatchNorm1d(16), nn.ReLU())
    return nn.Sequential(body, nn.Dropout(0.3), nn.Linear(16, outputs))


NORM_NET = {"model__name": f"{__name__}:norm_net", "training__batch_size": 8, "training__local_steps": 9}


def at(round_index: int, partway: Partway | None = None, **extra: Any) -> Progress:
    return Progress(round_index, "training", "a" * 64, "b" * 64, partway, extra)


def state(model: SiteModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.tensors().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def two(hospitals: MakeHospitals, folder: Path) -> tuple[Callable[[], SiteModel], list[dict[str, torch.Tensor]]]:
    """Checkpoints after rounds 1 and 2 in `folder`: a maker of fresh models, and what the two hold."""
    three = hospitals(**NORM_NET)
    model, checkpoints, states = three.model(), Checkpoints(folder), []
    for round_index in (1, 2):
        model.train(round_index, never)
        checkpoints.save(model, at(round_index))
        states.append(state(model))
    assert not same(*states)
    return three.model, states


# Going on


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("method", ["p2p-flop", "p2p-flop-alt"])
@pytest.mark.parametrize("stop", [1, 6])
def test_a_restart_inside_a_round_changes_nothing(
    hospitals: MakeHospitals, folder: Path, optimizer: str, method: str, stop: int
) -> None:
    three = hospitals(**NORM_NET, method=method, training__optimizer=optimizer)
    whole, before = three.model(), three.model()
    expected = [whole.train(round_index, never) for round_index in range(3)]
    assert before.train(0, never) == expected[0]
    answers = iter([False] * (stop - 1) + [True])
    partway = before.train(1, lambda: next(answers))
    assert isinstance(partway, Partway)
    Checkpoints(folder).save(before, at(1, partway, absences={"Rome": [0]}))
    del before
    after = three.model()
    torch.manual_seed(0)
    progress = Checkpoints(folder).load(after)
    assert (progress.round, progress.phase, progress.extra) == (1, "training", {"absences": {"Rome": [0]}})
    assert (progress.federation_id, progress.chain) == ("a" * 64, "b" * 64)
    assert progress.partway.step == stop
    assert after.train(1, never, progress.partway) == expected[1]
    assert after.train(2, never) == expected[2]
    assert same(state(after), state(whole))
    assert "local/0.2.num_batches_tracked" in state(after)


def test_a_published_body_is_published_again(hospitals: MakeHospitals, folder: Path) -> None:
    three = hospitals()
    model = three.model()
    model.train(0, never)
    Checkpoints(folder).save(model, Progress(0, "published", "a" * 64, "b" * 64))
    again = three.model()
    progress = Checkpoints(folder).load(again)
    assert (progress.phase, progress.partway) == ("published", None)
    assert again.publish(0).sha256 == model.publish(0).sha256
    assert again.publish(0).sha256 != again.body_hash


def test_a_server_has_checkpoints_too(hospitals: MakeHospitals, folder: Path) -> None:
    three = hospitals(server=True, method="flop")
    server = three.model("server")
    server.body += 1
    Checkpoints(folder).save(server, at(3))
    again = three.model("server")
    assert Checkpoints(folder).load(again).round == 3
    assert torch.equal(again.body, server.body)


def test_without_checkpoints_there_is_nothing_to_load(hospitals: MakeHospitals, folder: Path) -> None:
    checkpoints = Checkpoints(folder)
    assert checkpoints.load(hospitals().model()) is None
    assert checkpoints.warnings == []


def test_the_chain_can_be_read_from_outside(hospitals: MakeHospitals, folder: Path) -> None:
    Checkpoints(folder).save(hospitals().model(), at(4))
    with safe_open(folder / "checkpoint-1.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["progress"])["chain"] == "b" * 64


def test_the_last_two_are_kept(hospitals: MakeHospitals, folder: Path) -> None:
    model = hospitals().model()
    for round_index in range(9):
        Checkpoints(folder).save(model, at(round_index))
    checkpoints = Checkpoints(folder)
    for round_index in (9, 10):
        checkpoints.save(model, at(round_index))
        assert Checkpoints(folder).load(model).round == round_index
    assert names(folder) == ["checkpoint-10.safetensors", "checkpoint-11.safetensors"]
    assert (folder / "checkpoint-11.safetensors").stat().st_mode & 0o077 == 0, "a head is nobody else's to read"


# Dying while writing


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["save_file", "fsync", "replace", "fsync of the folder", "unlink"])
def test_the_end_at_any_step_leaves_a_whole_checkpoint(
    two: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    make, states = two
    model = make()
    checkpoints = Checkpoints(folder)
    checkpoints.load(model)
    model.train(3, never)
    calls = [0]

    def fail(*arguments: Any, **options: Any) -> None:
        if step == "save_file":
            arguments[1].write_bytes(b"half a file")
        raise error

    def fail_second(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise error

    with monkeypatch.context() as patch:
        match step:
            case "save_file":
                patch.setattr(checkpoint, "save_file", fail)
            case "fsync of the folder":
                patch.setattr(os, "fsync", fail_second)
            case _:
                patch.setattr(os, step, fail)
        expected = NodeError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            checkpoints.save(model, at(3))
    if isinstance(caught.value, NodeError):
        assert "checkpoint-3.safetensors: cannot be written (No space left on device)" in str(caught.value)
        assert "\n" not in str(caught.value)
    is_there = step in ("fsync of the folder", "unlink")
    restarted, fresh = Checkpoints(folder), make()
    assert restarted.load(fresh).round == (3 if is_there else 2)
    assert restarted.warnings == []
    assert same(state(fresh), state(model) if is_there else states[1])
    restarted.save(model, at(4))
    assert Checkpoints(folder).load(fresh).round == 4
    assert len(names(folder)) == 2


def test_a_file_is_on_the_disk_before_it_has_its_name(
    hospitals: MakeHospitals, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(number: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{number}').readlink().name}")
        fsync(number)

    def watched_replace(source: Path, target: Path) -> None:
        events.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    Checkpoints(folder).save(hospitals().model(), at(1))
    assert events == ["fsync checkpoint.tmp", "replace checkpoint-1.safetensors", "fsync state"]


def test_ten_kills_at_random_moments_leave_no_damaged_checkpoint(hospitals: MakeHospitals, folder: Path) -> None:
    """The real thing: a process that saves all the time, killed with SIGKILL."""
    model = hospitals(**NORM_NET).model()
    model.train(0, never)
    Checkpoints(folder).save(model, at(0))
    moments = np.random.default_rng(0).uniform(0.001, 0.05, 10)
    reached = 0
    for moment in moments:
        child = os.fork()
        if child == 0:
            _save_forever(folder, model, reached)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the child must have been at work until then"
        checkpoints = Checkpoints(folder)
        progress = checkpoints.load(model)
        assert checkpoints.warnings == []
        assert progress.round >= reached
        assert float(model.body[0]) == progress.round
        reached = progress.round
    assert reached > 5, "the kills must fall while checkpoints are written"


def _save_forever(folder: Path, model: SiteModel, round_index: int) -> None:
    checkpoints = Checkpoints(folder)
    while True:
        round_index += 1
        model.body[0] = round_index
        try:
            checkpoints.save(model, at(round_index))
        except BaseException:
            os._exit(1)


# Damage on the disk


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_passed_over(two: Any, folder: Path, share: float) -> None:
    make, states = two
    path = folder / "checkpoint-2.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    checkpoints, model = Checkpoints(folder), make()
    assert checkpoints.load(model).round == 1
    assert same(state(model), states[0])
    assert len(checkpoints.warnings) == 1
    assert str(path) in checkpoints.warnings[0]
    assert "\n" not in checkpoints.warnings[0]
    checkpoints.save(model, at(3))
    assert names(folder) == ["checkpoint-1.safetensors", "checkpoint-3.safetensors"], "two whole ones, the damaged gone"


def test_a_flipped_bit_anywhere_is_found(two: Any, folder: Path) -> None:
    make, states = two
    path, model = folder / "checkpoint-2.safetensors", make()
    content = path.read_bytes()
    generator = np.random.default_rng(1)
    header = 8 + int.from_bytes(content[:8], "little")
    found = 0
    for place in [*generator.integers(header, size=60), *generator.integers(header, len(content), size=20)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        checkpoints = Checkpoints(folder)
        loaded = checkpoints.load(model).round  # 2 after a flip that says nothing, as in the padding of the header
        assert same(state(model), states[loaded - 1])
        assert len(checkpoints.warnings) == 2 - loaded
        found += loaded == 1
    assert found > 70


def test_all_damaged(two: Any, folder: Path) -> None:
    make, _ = two
    for number in (1, 2):
        (folder / f"checkpoint-{number}.safetensors").write_bytes(b"")
    checkpoints = Checkpoints(folder)
    model = make()
    before = state(model)
    assert checkpoints.load(model) is None
    assert len(checkpoints.warnings) == 2
    assert same(state(model), before)


def test_a_foreign_file_is_passed_over(two: Any, folder: Path) -> None:
    make, states = two
    save_file({"body": torch.zeros(3)}, folder / "checkpoint-7.safetensors")
    shutil.copy(folder / "checkpoint-7.safetensors", folder / "checkpoint-old.safetensors")
    checkpoints, model = Checkpoints(folder), make()
    assert checkpoints.load(model).round == 2
    assert same(state(model), states[1])
    assert len(checkpoints.warnings) == 1
    assert "checkpoint-7.safetensors: damaged (not written by a node)" in checkpoints.warnings[0]


def test_a_changed_tensor_with_the_old_hash_is_found(two: Any, folder: Path) -> None:
    make, _ = two
    path = folder / "checkpoint-2.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["head"][0] += 1
    save_file(tensors, path, metadata=metadata)
    checkpoints = Checkpoints(folder)
    assert checkpoints.load(make()).round == 1
    assert "its SHA-256 differs" in checkpoints.warnings[0]


@pytest.mark.parametrize("changes", [{"model__private": ("body.3.*", "head.*")}, {"data__source": "breast-cancer"}])
def test_another_model_or_split_is_an_error(hospitals: MakeHospitals, folder: Path, changes: dict[str, Any]) -> None:
    Checkpoints(folder).save(hospitals().model(), at(1))
    other = hospitals(**changes).model()
    before = state(other)
    with pytest.raises(NodeError, match=r"checkpoint-1\.safetensors: is of another model or split") as caught:
        Checkpoints(folder).load(other)
    assert "\n" not in str(caught.value)
    assert same(state(other), before)


def test_another_sites_state_is_an_error(hospitals: MakeHospitals, folder: Path) -> None:
    three = hospitals()
    Checkpoints(folder).save(three.model("hospital-1"), at(1))
    with pytest.raises(NodeError, match=r"checkpoint-1\.safetensors: is of site 'hospital-1', and this is hospital-2"):
        Checkpoints(folder).load(three.model("hospital-2"))


def test_a_folder_that_is_gone(hospitals: MakeHospitals, folder: Path) -> None:
    with pytest.raises(NodeError, match=r"absent.*cannot be written"):
        Checkpoints(folder / "absent").save(hospitals().model(), at(1))
