"""A run folder: files are whole or not there, damage is told in a sentence."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from osdtw_models.files import write_whole
from osdtw_training.runs import Run, pack_state, unpack_state


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def refuse(path):
    path.write_text("half")
    raise OSError("disk full")


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "file.txt"
    write_whole(file, lambda path: path.write_text("old"))
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, refuse)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "new.txt", refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_failing_checkpoint_leaves_the_last_one(run, monkeypatch):
    run.save_checkpoint("joint", {"a": torch.ones(2)}, {"epoch": 1})
    monkeypatch.setattr("osdtw_training.checkpoints.save_file", lambda tensors, path, metadata: refuse(path))
    with pytest.raises(OSError, match="disk full"):
        run.save_checkpoint("joint", {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, state = run.load_checkpoint("joint")
    assert (tensors["a"].tolist(), state) == ([1, 1], {"epoch": 1})


def test_files_can_be_read_by_others(run):
    run.write_json("results.json", {})
    assert (run.folder / "results.json").stat().st_mode & 0o777 == 0o644


def test_checkpoints_come_back_as_they_were_saved(run):
    tensors = {"a.b": torch.randn(3, 4).t(), "n": torch.tensor(7), "half": torch.randn(2).bfloat16()}
    run.save_checkpoint("task0", tensors, {"epoch": 3})
    loaded, state = run.load_checkpoint("task0")
    assert state == {"epoch": 3}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    assert run.load_checkpoint("task1") is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_one_sentence(run, share):
    run.save_checkpoint("joint", {"a": torch.randn(1000)}, {"epoch": 1})
    file = run.folder / "checkpoints" / "joint.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"joint.safetensors is damaged .*; delete it to train that stage again"):
        run.load_checkpoint("joint")


def test_a_checkpoint_without_its_state_is_damaged(run):
    for metadata in (None, {"other": "1"}, {"state": "{"}):
        save_file({"a": torch.ones(1)}, run.folder / "checkpoints" / "joint.safetensors", metadata)
        with pytest.raises(ValueError, match="is damaged"):
            run.load_checkpoint("joint")


def test_every_flipped_bit_of_a_checkpoint_is_found(run):
    run.save_checkpoint("joint", {"a": torch.tensor([0.5, -2.0]), "n": torch.tensor(7)}, {"epoch": 1})
    file = run.folder / "checkpoints" / "joint.safetensors"
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match="is damaged"):
            run.load_checkpoint("joint")


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_the_checkpoint_before_a_damaged_one_counts(run, damage, capsys):
    for epoch in (1, 2, 3):
        run.save_checkpoint("joint", {"a": torch.full((50,), epoch)}, {"epoch": epoch})
    file = run.folder / "checkpoints" / "joint.safetensors"
    whole = file.read_bytes()
    if damage == "gone":  # killed between the two renames of a save
        file.unlink()
    else:
        file.write_bytes(whole[:-1] + (b"" if damage == "cut" else bytes([whole[-1] ^ 1])))
    assert run.has_checkpoint("joint")
    tensors, state = run.load_checkpoint("joint")
    assert (tensors["a"].unique().tolist(), state) == ([2], {"epoch": 2})
    said = capsys.readouterr().out
    assert said == "" if damage == "gone" else f"{file} is damaged" in said
    run.save_checkpoint("joint", tensors, {"epoch": 3})  # the good one is not replaced by the damaged one
    file.unlink()
    assert run.load_checkpoint("joint")[1] == {"epoch": 2}


def test_checkpoints_from_before_there_were_formats_are_read_and_newer_ones_refused(run):
    file = run.folder / "checkpoints" / "joint.safetensors"
    save_file({"a": torch.ones(1)}, file, {"state": '{"epoch": 4}'})
    assert run.load_checkpoint("joint")[1] == {"epoch": 4}
    digest = hashlib.sha256(b'["2", "{}"]["a", "torch.float32", [1]]' + torch.ones(1).numpy().tobytes()).hexdigest()
    save_file({"a": torch.ones(1)}, file, {"state": "{}", "format": "2", "sha256": digest})
    with pytest.raises(ValueError, match="has format 2, this version reads 1; update osdtw-models"):
        run.load_checkpoint("joint")


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"


def test_two_runs_in_one_folder(run):
    drafts = [run.folder / ".plan.json.1.tmp", run.folder / "checkpoints" / ".tmpAbC"]
    for draft in drafts:
        draft.write_text("half")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder / "checkpoints" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(BlockingIOError, match="is in use by another process; wait for it"), run.held():
            pass
        assert all(draft.exists() for draft in drafts)  # they may be the other run's
        other.kill()
    with run.held():  # the lock died with its process
        assert f"process {os.getpid()} on" in (run.folder / "checkpoints" / "lock").read_text()
        assert not any(draft.exists() for draft in drafts)
    with run.held():
        pass


def test_a_folder_with_a_run_is_not_overwritten(run):
    Run(run.folder)  # nothing there yet
    run.write_json("recipe.json", {})
    with pytest.raises(FileExistsError, match="--resume"):
        Run(run.folder)
    Run(run.folder, resume=True)


def test_a_file_that_is_not_there_is_named(run):
    with pytest.raises(FileNotFoundError, match=r"has no plan\.json"):
        run.read_json("plan.json")


def test_forgetting_drops_a_stage_from_an_epoch_on_and_lines_cut_short(run):
    assert run.metrics() == []
    for stage, epoch in [("warmup", 0), ("warmup", 1), ("joint", 0), ("joint", 1), ("joint", 2)]:
        run.log(stage, epoch, loss=0.5)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "jo')
    assert len(run.metrics()) == 5
    run.forget("joint", 1)
    assert [(row["stage"], row["epoch"]) for row in run.metrics()] == [("warmup", 0), ("warmup", 1), ("joint", 0)]
    assert run.metrics()[0] == {"stage": "warmup", "epoch": 0, "loss": 0.5}


def test_json_is_written_for_people(run):
    run.write_json("plan.json", {"a": [1.5, None]})
    text = (run.folder / "plan.json").read_text()
    assert json.loads(text) == run.read_json("plan.json") == {"a": [1.5, None]}
    assert text.endswith("}\n")


def test_the_optimisers_state_is_packed_with_the_network():
    def trained(steps):
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for _ in range(steps):
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        return network, optimizer

    network, optimizer = trained(2)
    tensors = pack_state(network.state_dict(), optimizer)
    other, fresh = trained(0)
    other.load_state_dict(unpack_state(tensors, fresh))
    assert torch.equal(other.weight, network.weight)
    moments = [state["momentum_buffer"] for state in optimizer.state.values()]
    found = [fresh.state[parameter]["momentum_buffer"] for parameter in other.parameters()]
    assert len(found) == 2
    assert all(torch.equal(a, b) for a, b in zip(found, moments, strict=True))
    assert unpack_state(tensors, None).keys() == network.state_dict().keys()
