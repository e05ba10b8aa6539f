"""The folder that is published: what it holds, what it does not, and what keeps it from being published."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from osdtw_export import publish, release
from osdtw_export.card_fields import results_table
from osdtw_export.publish import assemble, check, check_card, without_places
from osdtw_export.publish_cli import main
from osdtw_models import releases

REPO = "org/birds"
FILES = {
    "README.md",
    "config.json",
    "figures/plan.png",
    "model.safetensors",
    "onnx/model.onnx",
    "preprocessor_config.json",
    "recipe.json",
    "results.json",
}
ROOT = Path(__file__).parents[2]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(trained, tmp_path):
    assemble(str(trained), REPO, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def sentence(folder, error=ValueError):
    with pytest.raises(error) as caught:
        check(folder)
    return str(caught.value)


def test_the_folder_is_complete_and_holds_what_the_run_held(folder, trained):
    made = files(folder)
    assert made.keys() == FILES
    for name in ("config.json", "model.safetensors", "onnx/model.onnx"):
        assert made[name] == files(trained)[name]
    assert results_of(folder)["test"] == results_of(trained)["test"]
    loads, agrees, states = check(folder)
    assert "parameters" in loads
    assert "onnx/model.onnx agrees with PyTorch" in agrees
    assert states == "README.md states the figures of results.json"


def test_the_same_run_makes_the_same_folder_and_the_folder_itself(folder, trained, tmp_path):
    for source in (trained, folder):
        assemble(str(source), REPO, tmp_path / "again")
        assert files(tmp_path / "again") == files(folder)


def test_the_card_says_how_the_network_is_loaded_and_nothing_of_the_released_ones(folder):
    text = (folder / "README.md").read_text()
    for words in ('create_model("hf-hub:org/birds"', "--model hf-hub:org/birds", "# birds\n", "import osdtw_models"):
        assert words in text
    assert "No other method" not in text
    assert "license: apache-2.0" in text


def test_where_files_lie_stays_private(folder):
    assert not [name for name, content in files(folder).items() if b"someone" in content]
    assert json.loads((folder / "recipe.json").read_text()) == {"name": "birds", "data": "birds", "data_dir": "x"}
    places = {"a": ["/x/y", "~/z", "C:\\u\\v", "x/y", "cifar100", 3, None]}
    assert without_places(places) == {"a": ["y", "z", "v", "x/y", "cifar100", 3, None]}


@pytest.mark.parametrize("name", ["results.json", "recipe.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(run, tmp_path, name):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no {name}"):
        assemble(str(run), REPO, tmp_path / "folder")


def test_other_weights_than_those_of_the_onnx_file_are_noticed(folder):
    weights = load_file(folder / "model.safetensors")
    name = "encoder.block1.conv1.weight"
    save_file({**weights, name: weights[name] + 1e-3}, folder / "model.safetensors", metadata={"format": "pt"})
    assert sentence(folder) == "onnx/model.onnx was made from other weights; delete it to have it made anew."


def test_weights_that_do_not_load_are_noticed(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    assert "is damaged or cut short" in sentence(folder)


@pytest.mark.parametrize("figure", ["40.00 %", "40.57 %", "40.86 %"])
def test_another_figure_in_the_card_is_noticed(folder, figure):
    edit(folder / "README.md", f" {figure} |", " 99.00 |")
    assert "README.md does not show the figures of results.json" in sentence(folder)


def test_another_figure_in_the_cards_header_or_in_the_results_is_noticed(folder):
    card = (folder / "README.md").read_text()
    edit(folder / "README.md", "value: 40.0", "value: 50.0")
    assert "states accuracy 50.0; results.json does not" in sentence(folder)
    changed = results_of(folder)
    changed["test"]["few"] += 1
    with pytest.raises(ValueError, match="does not show the figures"):
        check_card(card, changed)
    with pytest.raises(ValueError, match="is not what the Hub reads"):
        check_card(f"---\n: [\n---\n{results_table(changed)}", changed)


def test_a_card_that_somebody_wrote_is_taken_if_its_figures_are_right(run, folder, tmp_path):
    (run / "README.md").write_text(f"# Mine\n\n{results_table(results_of(run))}\n")
    assemble(str(run), REPO, tmp_path / "mine")
    check(tmp_path / "mine")
    assert files(tmp_path / "mine")["README.md"] == (run / "README.md").read_bytes()


def test_a_run_of_another_method_has_a_card_too_with_the_licence_that_is_asked_for(run, tmp_path):
    results = {**results_of(run), "method": "balanced_softmax"}
    del results["plan"]
    (run / "results.json").write_text(json.dumps(results))
    assemble(str(run), REPO, tmp_path / "peer", "cc-by-nc-4.0")
    check(tmp_path / "peer")
    text = (tmp_path / "peer" / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in text
    assert "trained with balanced softmax" in text


class TestDoor:
    def test_a_dry_run_writes_the_folder_and_uploads_nothing(self, hub, folder, trained, tmp_path, capsys, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        assert main([str(trained), "--repo", REPO, "--dry-run", str(tmp_path / "dry" / "run")]) == 0
        assert files(tmp_path / "dry" / "run") == files(folder)
        assert [path.name for path in (tmp_path / "dry").iterdir()] == ["run"]
        assert not hub.log
        assert re.search(r"Checked  onnx/model.onnx agrees .*\n", capsys.readouterr().out)
        monkeypatch.chdir(tmp_path)
        assert main([str(trained), "--repo", REPO, "--dry-run"]) == 0
        assert files(tmp_path / "birds") == files(folder)
        capsys.readouterr()
        assert main([str(trained), "--repo", REPO, "--dry-run"]) == 2
        said = capsys.readouterr()
        assert "birds is there already" in said.err
        assert not said.out  # nothing was made that could not be kept

    def test_it_publishes_and_the_second_time_says_so(self, hub, folder, trained, capsys):
        assert main([str(trained), "--repo", REPO, "--private"]) == 0
        assert {name: content for name, content in hub.files(REPO).items() if name[0] != "."} == files(folder)
        assert hub.repositories["model", REPO].private
        assert f"Uploaded {hub.url}/{REPO} is at {hub.commits(REPO)[-1]}" in capsys.readouterr().out
        assert main([str(trained), "--repo", REPO, "--private"]) == 0
        assert "Nothing new:" in capsys.readouterr().out
        assert len(hub.commits(REPO)) == 2  # its creation and ours

    def test_nothing_is_sent_that_does_not_pass_its_check(self, hub, run, capsys):
        (run / "README.md").write_text("# Mine, without figures")
        assert main([str(run), "--repo", REPO]) == 2
        assert capsys.readouterr().err.startswith("osdtw-publish: README.md does not show")
        assert not hub.log

    def test_refusals_are_sentences_with_an_exit_code(self, hub, trained, tmp_path, capsys, monkeypatch):
        assert main([str(trained)]) == 2
        assert main([str(trained), "--repo", "birds"]) == 2
        assert main([str(tmp_path / "none"), "--repo", REPO]) == 2
        hub.fail("POST /api/repos/create", 500)
        hub.fail("GET /api", 500)
        assert main([str(trained), "--repo", REPO]) == 2
        monkeypatch.delenv("HF_TOKEN")
        assert main([str(trained), "--repo", REPO]) == 2
        words = [line for line in capsys.readouterr().err.splitlines() if line.startswith("osdtw-publish: ")]
        assert len(words) == 5
        for line, part in zip(words, ["--repo", "org/name", "no folder", "(500)", "No token"], strict=True):
            assert part in line

    @pytest.mark.parametrize("repo", ["org/..", "org/", "org/bad--name", "org/b.git"])
    def test_a_name_that_the_hub_does_not_take_is_refused_before_any_work(
        self, repo, trained, tmp_path, capsys, monkeypatch
    ):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert main([str(trained), "--repo", repo, "--dry-run"]) == 2
        said = capsys.readouterr()
        assert "The repository is no name on the Hub" in said.err
        assert not said.out
        assert [path.name for path in tmp_path.iterdir()] == ["here"]

    def test_a_space_goes_up_as_it_is(self, hub, tmp_path, capsys):
        (tmp_path / "README.md").write_text("---\nsdk: static\n---\n")
        (tmp_path / "index.html").write_text("<html>")
        words = [str(tmp_path), "--space", "--repo", REPO]
        assert main([*words, "--dry-run"]) == 0
        assert not hub.log
        assert main(words) == 0
        assert hub.files(REPO, "space")["index.html"] == b"<html>"


class TestRelease:
    NAME = "osdtw_resnet14.birds"

    @pytest.fixture
    def released(self, run, tmp_path, monkeypatch):
        """A packaged checkpoint in place of the real ones."""
        (tmp_path / "weights").mkdir()
        folder = run.rename(tmp_path / "weights" / self.NAME)
        for module in (release, publish, releases):
            monkeypatch.setattr(module, "RELEASES", folder.parent)
        known = publish.folder_of
        monkeypatch.setattr(
            "osdtw_models.load.folder_of", lambda source: folder if source == self.NAME else known(source)
        )
        monkeypatch.setattr(publish, "folder_of", lambda source: folder)
        return folder

    def test_every_release_goes_up_and_its_commit_is_written_down(self, hub, released, capsys):
        hub.tokens["writer"] = {release.ORGANISATION}
        assert release.main([]) == 0
        repo = f"{release.ORGANISATION}/{self.NAME}"
        noted = releases.record(self.NAME)
        assert noted.pinned == f"{repo}@{hub.commits(repo)[-1]}"
        assert noted.sha256 in hub.large
        assert hub.files(repo)["README.md"].count(f"hf-hub:{repo}".encode()) >= 3
        assert f"# {self.NAME}\n".encode() in hub.files(repo)["README.md"]
        assert "hub.json" not in hub.files(repo)
        before = (released / "hub.json").read_bytes()
        assert release.main([]) == 0
        assert (released / "hub.json").read_bytes() == before

    def test_a_dry_run_needs_no_token(self, hub, released, tmp_path, capsys, monkeypatch):
        monkeypatch.delenv("HF_TOKEN")
        assert release.main(["--dry-run", str(tmp_path / "dry")]) == 0
        assert files(tmp_path / "dry" / self.NAME).keys() == FILES
        assert not hub.log
        assert release.main([]) == 2
        assert release.main(["--dry"]) == 2
        assert capsys.readouterr().err.endswith(
            "--dry-run: expected one argument; see python -m osdtw_export.release --help.\n"
        )


def test_a_packaged_checkpoint_takes_its_recipe_from_training(tmp_path):
    publish._write_recipe(tmp_path, tmp_path / "folder", {"recipe": "cifar100_lt"})
    recipe = ROOT / "training" / "osdtw_training" / "recipes" / "cifar100_lt.toml"
    assert (tmp_path / "folder" / "recipe.toml").read_bytes() == recipe.read_bytes()
