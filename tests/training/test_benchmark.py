"""Lists of runs: trained once, their first stages shared, their results gathered with the command that made them."""

import json
from pathlib import Path

import pytest

from osdtw_training.benchmark import main
from osdtw_training.benchmark_list import Entry, Published, read_list, select
from osdtw_training.benchmark_table import page, unexplained

LIST = """
[[run]]
name = "plain"
recipe = "{recipe}"

[[run]]
name = "means"
recipe = "{recipe}"
options = ["--method", "ncm"]
begin_with = "plain"
"""
RECIPE = """
method = "cross_entropy"
model = "osdtw_resnet14"
imbalance_factor = 20
img_size = 16
[train]
epochs = 2
lr = 0.05
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "list.toml").write_text(LIST.format(recipe=tmp_path / "tiny.toml"))
    return tmp_path


def test_a_list_is_trained_once_and_shares_first_stages(place, capsys):
    words = [str(place / "list.toml"), "--runs", str(place / "runs"), "--jobs", "2"]
    assert main(words) == 0
    assert "2 of 2 results" in capsys.readouterr().out
    results = {
        name: json.loads((place / "results" / "list" / f"{name}.json").read_text()) for name in ("plain", "means")
    }
    assert results["means"]["command"] == f"osdtw-train {place / 'tiny.toml'} --method ncm"
    assert (results["means"]["recipe"], results["means"]["method"]) == ("means", "ncm")
    first = [(place / "runs" / name / "checkpoints" / "train.safetensors").read_bytes() for name in ("plain", "means")]
    assert first[0] == first[1]
    assert results["means"]["training_hours"] == results["plain"]["training_hours"]  # counted for both
    page = (place / "list.md").read_text().splitlines()
    assert sum("1 thread, float32 forward pass, 20" in line for line in page) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page if line.startswith("| ")]
    assert [len(row) for row in rows] == [len(rows[0])] * 3
    best = max(results.values(), key=lambda found: found["test"]["overall"])
    assert rows[1][:2] == [best["method"], f"{best['test']['overall']:.2f}"]
    log = (place / "runs" / "means.log").read_text()
    assert "epoch" not in log.lower().replace("0 epochs", "")
    assert main(words) == 0
    assert "finished" not in capsys.readouterr().out


def test_a_run_that_fails_is_named_and_the_others_are_kept(place, capsys):
    text = (place / "list.toml").read_text() + '\n[[run]]\nname = "broken"\nrecipe = "nowhere"\n'
    (place / "list.toml").write_text(text)
    words = [str(place / "list.toml"), "--runs", str(place / "runs"), "--only", "plain", "broken"]
    assert main(words) == 2
    assert "1 runs failed (broken)" in capsys.readouterr().err
    assert "No recipe nowhere" in (place / "runs" / "broken.log").read_text()
    assert (place / "results" / "list" / "plain.json").is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[run]]\nname = 'a'\nrecipe = 'b'\nbegin_with = 'c'", "begins with 'c', which is not above it"),
        ("[[run]]\nname = 'a'\nrecipe = 'b'\n" * 2, "is there twice"),
        (
            "[[run]]\nname = 'a_seed1'\nrecipe = 'b'\n[[run]]\nname = 'a'\nrecipe = 'b'\nseeds = [0, 1]",
            "'a_seed1' is there",
        ),
        ("[[run]]\nname = '../a'\nrecipe = 'b'", "is no list of runs .*leave out slashes"),
        ("[[run]]\nname = 'a'", "is no list of runs"),
        ("run = 3", "is no list of runs"),
        ("[[run", "is not a TOML file"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, text, said):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_list(tmp_path / "list.toml")


def test_a_missing_list_and_an_unknown_run_are_named(place, capsys):
    assert main([str(place / "none.toml")]) == 2
    assert "There is no list" in capsys.readouterr().err
    assert main([str(place / "list.toml"), "--only", "other"]) == 2
    assert "has no run 'other'; it has plain, means" in capsys.readouterr().err


def test_an_entry_is_all_of_its_seeds_and_a_run_is_one(tmp_path):
    text = "[[run]]\nname = 'a'\nrecipe = 'r'\nseeds = [0, 1, 2]\n[[run]]\nname = 'b'\nrecipe = 'r'\n"
    (tmp_path / "list.toml").write_text(text + "begin_with = 'a'\nseeds = [0, 1]\n")
    _, entries = read_list(tmp_path / "list.toml")

    def runs(*names):
        return {run.name: run.begin_with for entry in select(entries, names) for run in entry.runs()}

    assert runs("a") == {"a": None, "a_seed1": None, "a_seed2": None}
    assert runs("a_seed1", "b_seed1") == {"a_seed1": None, "b_seed1": "a_seed1"}
    assert runs("b_seed1") == {"b_seed1": None}
    with pytest.raises(ValueError, match="no run 'b_seed2'; it has a, b"):
        runs("b_seed2")


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def committed(name):
    """A list's title and runs, and the committed results of it."""
    results = {file.stem: json.loads(file.read_text()) for file in (BENCHMARKS / "results" / name).glob("*.json")}
    return (*read_list(BENCHMARKS / f"{name}.toml"), results)


@pytest.mark.parametrize("name", sorted(path.name for path in (BENCHMARKS / "results").iterdir() if path.is_dir()))
def test_the_committed_tables_are_those_of_the_committed_results(name):
    title, entries, results = committed(name)
    assert (BENCHMARKS / f"{name}.md").read_text() == page(title, entries, results, [f"{name}.png"])
    assert (BENCHMARKS / f"{name}.png").is_file()
    runs = {run.name: run for entry in entries for run in entry.runs()}
    assert results.keys() <= runs.keys()
    for run, found in results.items():
        assert found["command"] == runs[run].command
        assert f"--seed {found['seed']}" in found["command"] or not found["seed"]
        if "at one budget" in title:
            assert sum(found["training_passes"].values()) == pytest.approx(40, rel=0.05)


def test_gains_far_below_what_others_report_are_explained():
    _, entries, results = committed("cifar100_lt")
    assert not unexplained(entries, results)


def made(method, overall, seed):
    """A results file, but for its numbers that of cross-entropy."""
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "cifar100_lt"
    found = json.loads((folder / "cross_entropy.json").read_text())
    return {**found, "method": method, "seed": seed, "test": {**found["test"], "overall": overall}}


def test_a_run_of_several_seeds_is_one_row_of_means(tmp_path):
    text = (
        "[[run]]\nname = 'base'\nrecipe = 'r'\nseeds = [0, 2]\n[[run]]\nname = 'ours'\nrecipe = 'r'\nseeds = [0, 2]\n"
    )
    (tmp_path / "list.toml").write_text(text + "begin_with = 'base'\n")
    _, entries = read_list(tmp_path / "list.toml")
    runs = [run for entry in entries for run in entry.runs()]
    assert [(run.name, run.command, run.begin_with) for run in runs] == [
        ("base", "osdtw-train r", None),
        ("base_seed2", "osdtw-train r --seed 2", None),
        ("ours", "osdtw-train r", "base"),
        ("ours_seed2", "osdtw-train r --seed 2", "base_seed2"),
    ]
    results = {
        "base": made("cross_entropy", 30.0, 0),
        "base_seed2": made("cross_entropy", 32.0, 2),
        "ours": made("osdtw", 36.0, 0),
        "ours_seed2": made("osdtw", 33.0, 2),
    }
    lines = page("", entries, results, []).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert [(row[0], row[1], row[8], row[12]) for row in rows[1:]] == [
        ("osdtw", "34.50 ± 2.12", "+3.50", "0, 2"),  # sqrt(2 * 1.5^2) and sqrt(2 * 1^2)
        ("cross_entropy", "31.00 ± 1.41", "+0.00", "0, 2"),
    ]
    del results["ours"], results["base_seed2"]
    said = page("", entries, results, [])
    assert "| 33.00 |" in said
    assert "Not run yet: base_seed2, ours." in said


@pytest.mark.parametrize("seeds", ["[]", "[1, 1]", "[-1]", "['a']", "[true]"])
def test_seeds_are_different_numbers(tmp_path, seeds):
    (tmp_path / "list.toml").write_text(f"[[run]]\nname = 'a'\nrecipe = 'r'\nseeds = {seeds}")
    with pytest.raises(ValueError, match=r"not different numbers|must be of type int"):
        read_list(tmp_path / "list.toml")


def test_a_gain_under_half_of_the_published_needs_a_word():
    def entry(note):
        return Entry("peer", "recipe", published=(Published("a", 40, 44), Published("b", 38, 48)), note=note)

    plain = Entry("plain", "recipe")

    def results(accuracy):
        return {
            "plain": {"method": "cross_entropy", "test": {"overall": 30.0}},
            "peer": {"method": "peer", "test": {"overall": accuracy}},
        }

    assert unexplained([plain, entry("")], results(31.9)) == ["peer"]  # half of the least, 4 points, is 2
    assert unexplained([plain, entry("")], results(32.0)) == []
    assert unexplained([plain, entry("because")], results(31.0)) == []
    assert unexplained([entry("")], {"peer": results(31.0)["peer"]}) == []  # nothing to count from


def test_the_page_says_whose_epoch_was_chosen():
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "cifar100_lt"
    found = json.loads((folder / "cross_entropy.json").read_text())
    entries = [Entry("cross_entropy", "cifar100_lt"), Entry("best", "cifar100_lt", title="kept at its best")]
    said = page("", entries, {"cross_entropy": found, "best": {**found, "epoch_taken": {"epochs": 3}}}, [])
    assert "The last epoch counts, but for kept at its best: there the best on held-out images; no test image" in said
