"""The page of a run: all of it there, text never markup, made from the folder alone, and fit for a phone."""

import base64
import dataclasses
import json
import re
import shutil
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from osdtw_models.partition import ClassPartition
from osdtw_training import data, mistakes
from osdtw_training import report as page
from osdtw_training.cli import report
from osdtw_training.results import figures_of
from osdtw_training.runs import Run

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "</title><b>", "$x^$ & \\frac"]
SECTIONS = ["answer", "classes", "confidence", "plan", "confusion", "worst", "learning", "baselines", "run"]


class Reader(HTMLParser):
    """Elements with their attributes, and the text, as a browser takes them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, content):
        self.text += content

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, the only one in its folder."""
    shutil.copytree(finished.folder, tmp_path / "runs" / "own")
    return Run(tmp_path / "runs" / "own", resume=True)


@pytest.fixture
def peer(noise, tmp_path):
    """Makes the folder of a finished peer without training one: figures of random predictions."""

    def peer(names, name="peer", images=4, **changes):
        classes = len(names)
        labels = torch.arange(classes).repeat_interleave(images)
        logits = torch.randn(len(labels), classes) + 4 * torch.nn.functional.one_hot(labels, classes)
        counts = [max(1, 500 - 5 * c) for c in range(classes)]
        shown = dataclasses.replace(noise(labels), class_names=tuple(names))
        run = Run(tmp_path / "runs" / name, resume=True)
        test = figures_of(logits, shown, ClassPartition([range(classes)]), counts)
        test["mistakes"] = mistakes.keep(run, logits, shown, test["per_class"])
        results = {
            "recipe": name,
            "method": "balanced_softmax",
            "model": "osdtw_resnet20",
            "data": "folder",
            "imbalance_factor": 100,
            "seed": 0,
            "passes": 40,
            "training_passes": {"train": 40.0},
            "inference_ratio": 1.0,
            "training_hours": 0.1,
            "parameters": 275572,
            "hardware": {"processor": "a processor", "threads": 1},
            "versions": {"torch": "2"},
            "commit": None,
            "date": "2026-01-01",
            "class_counts": counts,
            "training_counts": counts,
            "test_images": len(labels),
            "test": test,
        }
        run.write_json("results.json", {**results, **changes})
        run.write_json("recipe.json", {})
        run.write_json("config.json", {"label_names": list(names)})
        run.log("train", 0, loss=2.0)
        run.log("train", 1, loss=1.0)
        return run

    return peer


def written(run):
    return Reader(page.write(run)[-1].read_text(encoding="utf-8"))


def test_every_section_and_every_picture_is_there_and_described(run):
    found = written(run)
    assert [each["id"] for tag, each in found.elements if tag in ("header", "section")] == SECTIONS
    embedded = {base64.b64decode(each["src"].partition("base64,")[2]) for each in found.all("img")}
    beside = [*run.folder.glob("*.png"), *run.folder.glob("mistakes/*.png")]
    assert {path.read_bytes() for path in beside} == embedded
    assert len(list(run.folder.glob("*.png"))) == 7
    assert all(len(each["alt"]) > 10 for each in found.all("img"))
    assert len(found.all("figcaption")) == len(found.all("img"))


def test_training_writes_the_page(finished):
    assert (finished.folder / "report.html").is_file()
    assert (finished.folder / "results.csv").is_file()


def test_the_page_answers_with_the_numbers_of_the_results(run):
    found, results = written(run), run.read_json("results.json")
    assert f"{results['test']['overall']:.1f} % of test images right" in found.text
    for name in ("many", "medium", "few", "macro_f1", "ece"):
        assert f"{results['test'][name]:.1f} %" in found.text
    assert run.read_json("plan.json")["why"] in found.text


def test_the_page_is_made_from_the_folder_alone_and_always_the_same(run, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in page.write(run)}
    for name in before:
        (run.folder / name).unlink()
    monkeypatch.setattr(data, "read_images", lambda *args: pytest.fail("read images"))
    assert report([str(run.folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert {name: (run.folder / name).read_bytes() for name in before} == before


def test_a_peer_has_no_plan(peer):
    found = written(peer(["cat", "dog"]))
    assert [each["id"] for tag, each in found.elements if tag in ("header", "section")] == [
        section for section in SECTIONS if section != "plan"
    ]
    assert "shared" not in found.text


def test_a_calibrated_run_says_what_calibration_changed(run):
    results = run.read_json("results.json")
    results["calibration"] = {"before": {"test": {**results["test"], "ece": 12.34}}}
    run.write_json("results.json", results)
    assert f"12.3 % before calibration, {results['test']['ece']:.1f} % after" in written(run).text


def test_without_test_images_the_held_out_ones_are_reported(peer):
    run = peer(["cat", "dog"])
    results = run.read_json("results.json")
    results["holdout"] = results.pop("test")
    run.write_json("results.json", results)
    found = written(run)
    assert "% of held-out images right" in found.text
    assert "test images right" not in found.text
    assert len(found.all("img")) > 4


def test_runs_beside_it_are_rows_with_their_folders(peer):
    own, other = peer(["cat", "dog"]), peer(["cat", "dog"], "another", method="cross_entropy")
    strange = peer(["cat", "dog"], "strange", seed=1)
    text = written(own).text
    assert "cross_entropy" in text
    assert f"{other.folder.name}/" in text
    assert f"{strange.folder.name}/" not in text
    shutil.rmtree(other.folder)
    assert "No other finished run" in written(own).text


def test_names_from_files_are_text(peer):
    run = peer(HOSTILE, HOSTILE[3].replace("/", "_"), recipe=HOSTILE[0], method=HOSTILE[1], model=HOSTILE[1])
    peer(HOSTILE, "another", method=HOSTILE[0], model=HOSTILE[1])
    results = run.read_json("results.json")
    for mistake in results["test"]["mistakes"]:
        mistake["image"] = HOSTILE[1]
    run.write_json("results.json", results)
    found = written(run)
    assert not found.all("script")
    assert all(each["src"].startswith("data:image/png;base64,") for each in found.all("img"))
    assert not [name for _, each in found.elements for name in each if name.startswith("on")]
    for name in HOSTILE:
        assert name in found.text
    assert {each["title"] for each in found.all("img") if "title" in each} <= set(HOSTILE)


def test_only_pictures_get_in(run, capsys):
    (run.folder / "mistakes" / "00.png").write_bytes(b"root:x:0:0")
    assert report([str(run.folder)]) == 2
    assert "is no PNG picture" in capsys.readouterr().err


def test_folders_of_before_the_confusion_get_what_they_have_data_for(run):
    shutil.rmtree(run.folder / "mistakes")
    (run.folder / "confusion.csv").unlink()
    (run.folder / "class_confusion.png").unlink()
    results = run.read_json("results.json")
    del results["test"]["mistakes"]
    run.write_json("results.json", results)
    found = written(run)
    assert len(found.all("img")) == 6
    assert "taken for" not in found.text.partition("The worst classes")[2].partition("Learning")[0]


def test_unfinished_runs_have_no_report(run, capsys, tmp_path):
    (run.folder / "results.json").unlink()
    assert report([str(run.folder)]) == 2
    assert "has no results.json" in capsys.readouterr().err
    assert report([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_thousand_classes_stay_below_5_mb(peer):
    run = peer([f"class number {c}" for c in range(1000)])
    assert page.write(run)[-1].stat().st_size < 5e6
    assert (run.folder / "results.json").stat().st_size < 1e6


@pytest.fixture
def served(tmp_path):
    """An address of the runs' folder, and what was asked of it."""
    asked = []

    class Server(SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

        def log_error(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path / "runs"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_and_it_asks_nobody(run, visit, served, scheme):
    page.write(run)
    address, asked = served
    seen = visit(f"{address}/own/report.html", color_scheme=scheme)
    assert asked == ["/own/report.html"]
    assert seen.requests == [f"{address}/own/report.html"]
    assert not seen.complaints
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    for section in SECTIONS:
        box = seen.page.locator(f"#{section}").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 80
    sizes = seen.page.evaluate("[...document.images].map(image => [image.naturalWidth, image.clientWidth])")
    assert len(sizes) > 7
    assert all(natural > 0 and 0 < shown <= 360 for natural, shown in sizes)


@pytest.mark.slow
def test_a_phone_shows_a_thousand_classes_with_long_and_hostile_names(peer, visit):
    run = peer(HOSTILE + [f"{'x' * 90}{c}" for c in range(995)], recipe="y" * 100, method="z" * 100)
    peer(HOSTILE + [f"{'x' * 90}{c}" for c in range(995)], "n" * 100, method="z" * 100)
    seen = visit(page.write(run)[-1].as_uri())
    seen.page.locator("summary").click()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert seen.page.locator("script, [onerror]").count() == 0
    assert seen.requests == [(run.folder / "report.html").as_uri()]
    assert not seen.complaints


@pytest.mark.slow
def test_a_page_that_asks_is_noticed(visit, served, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bad.html").write_text("<!doctype html><div style='width:500px'>x</div><script>y()</script>")
    address, asked = served
    seen = visit(f"{address}/bad.html")
    assert asked == ["/bad.html", "/favicon.ico"]
    assert re.search("y is not defined", json.dumps(seen.complaints))
    assert seen.page.evaluate("document.documentElement.scrollWidth") > 360
