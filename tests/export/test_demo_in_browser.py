"""The demo as visitors have it, in Chromium: it says what Python says, asks nobody for anything, fits a phone."""

import base64
import io
import json
import threading

import numpy as np
import onnx
import pytest
from PIL import Image

from osdtw_export.demo.serving import address, server
from osdtw_export.demo_cli import main
from osdtw_export.export import export_onnx
from osdtw_export.runtime import OnnxClassifier
from osdtw_export.variant import Variant
from osdtw_models import Predictor
from osdtw_models.pixels import fit_image, open_image

pytestmark = pytest.mark.slow
DONE = "#time:not(:empty)"  # the page forbids eval, so tests can wait for elements only


class Site:
    """A folder that is served, and its network in Python."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.network = OnnxClassifier(folder / "model.onnx", "cpu")


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    running = []

    def serve(*argv):
        folder = tmp_path_factory.mktemp("site") / "demo"
        assert main([*map(str, argv), "-o", str(folder)]) == 0
        running.append(server(folder))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return Site(folder, address(running[-1]))

    yield serve
    for each in running:
        each.shutdown()
        each.server_close()


@pytest.fixture(scope="module")
def packaged(serve):
    return serve()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """What people have: every kind of file that Pillow and browsers both read, of two sizes and shapes."""
    folder = tmp_path_factory.mktemp("pictures")

    def scene(width, height, seed):
        noise = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width] / max(width, height)
        waves = noise.uniform(2, 9, (3, 2))
        image = np.stack([np.sin(a * x * 3 + b * y * 4) for a, b in waves], -1) * 90 + 128
        return Image.fromarray((image + noise.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8))

    turned = Image.Exif()
    turned[0x0112] = 6
    wide, tall = scene(301, 200, 1), scene(90, 160, 2)
    alpha = np.random.default_rng(3).integers(0, 256, (160, 90), dtype=np.uint8)
    see_through = Image.fromarray(np.dstack([np.asarray(tall), alpha]))
    for name, image, options in [
        ("plain.png", wide, {}),
        ("tiny.png", scene(17, 23, 4), {}),
        ("photo.jpg", wide, {"quality": 85}),
        ("progressive.jpg", scene(640, 480, 5), {"progressive": True, "subsampling": 0}),
        ("turned.jpg", wide, {"exif": turned}),
        ("turned.png", tall, {"exif": turned}),
        ("turned.webp", tall, {"exif": turned, "lossless": True}),
        ("print.jpg", wide.convert("CMYK"), {}),
        ("grey.jpg", tall.convert("L"), {}),
        ("palette.png", tall.quantize(32), {}),
        ("palette-with-hole.png", wide.quantize(16), {"transparency": 3}),
        ("see-through.png", see_through, {}),
        ("see-through.webp", see_through, {"lossless": True, "exact": True}),
        ("grey-see-through.png", see_through.convert("LA"), {}),
        ("ink.png", wide.convert("1"), {}),
        ("still.gif", wide.quantize(64), {}),
        ("old.bmp", tall, {}),
    ]:
        image.save(folder / name, **options)
    return sorted(folder.iterdir())


def opened(visit, url, **context):
    seen = visit(url, **context)
    seen.page.wait_for_selector("body[data-ready]", timeout=60_000)
    return seen


def classified(page, file):
    """Choose a file as users do, wait for the answer, read it off the page."""
    page.evaluate("document.getElementById('time').textContent = ''")
    page.set_input_files("#file", file)
    page.wait_for_selector(DONE)
    return answer(page)


def answer(page):
    rows = page.locator("#classes > li")
    labels = [text.strip() for text in rows.locator(".label > span:first-child").all_inner_texts()]
    values = [float(text.removesuffix(" %")) for text in rows.locator(".value").all_inner_texts()]
    return labels, values


def expected(network, file, **options):
    prediction = Predictor(network, **options)(str(file))[0]
    return [label.replace("_", " ") for label in prediction.labels], prediction


def agree(page_says, python_says):
    labels, prediction = python_says
    assert page_says[0] == labels
    assert page_says[1] == pytest.approx([100 * p for p in prediction.probabilities], abs=0.0501)


def test_every_kind_of_file_is_read_and_classified_as_in_python(packaged, visit, pictures):
    seen = opened(visit, packaged.url)
    for file in pictures:
        agree(classified(seen.page, file), expected(packaged.network, file))
        said = expected(packaged.network, file)[1]
        none = [float(text.removesuffix(" %")) for text in seen.page.locator("li.none .value").all_inner_texts()]
        assert none == pytest.approx([100 * p for p in said.none], abs=0.0501)
        tags = seen.page.locator("#classes .tag").all_inner_texts()
        assert tags == [("head", "tail")[task] for task in said.tasks]
    words = seen.page.locator("#tasks-words").inner_text()
    assert ("none sums up all others" in words, "none means" in words) == (
        packaged.network.metadata.open_none,
        not packaged.network.metadata.open_none,
    )
    assert len(pictures) >= 10
    assert not seen.complaints
    assert all(url.startswith(packaged.url) for url in seen.requests)
    assert seen.page.locator("#error").is_hidden()


READ = """async (encoded) => {
  const { decode } = await import("./pixels.js");
  const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  const { width, height, data } = await decode(new Blob([bytes]));
  return [width, height, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""))];
}"""


def test_pixels_are_those_that_pillow_reads(packaged, visit, pictures):
    page = visit(packaged.url).page
    for file in pictures:
        encoded = base64.b64encode(file.read_bytes()).decode()
        width, height, data = page.evaluate(READ, encoded)
        ours = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
        theirs = np.asarray(open_image(file))
        assert ours.shape[:2] == theirs.shape[:2], file.name
        assert np.abs(ours[..., :3].astype(int) - theirs).max() <= 1, file.name
        assert (ours[..., 3] == 255).all()


FIT = """async ([width, height, encoded, input]) => {
  const { fit } = await import("./resize.js");
  const data = Uint8ClampedArray.from(atob(encoded), (letter) => letter.charCodeAt(0));
  return Array.from(fit({ width, height, data }, input).data);
}"""


def test_resizing_is_pillows_to_the_bit(packaged, visit):
    page = visit(packaged.url).page
    for width, height, side, crop_pct in [
        (64, 48, 32, 1.0),
        (33, 57, 32, 0.875),
        (32, 32, 32, 1.0),
        (7, 5, 16, 0.9),
        (301, 200, 97, 0.95),
        (1, 1, 8, 1.0),
    ]:
        pixels = np.random.default_rng(width).choice([0, 255, 128, 3], (height, width, 3)).astype(np.uint8)
        encoded = base64.b64encode(np.dstack([pixels, np.full((height, width), 255, np.uint8)]).tobytes()).decode()
        for interpolation in ("bilinear", "bicubic"):
            told = {"side": side, "crop_pct": crop_pct, "interpolation": interpolation}
            ours = np.array(page.evaluate(FIT, [width, height, encoded, told])).reshape(side, side, 4)
            theirs = fit_image(Image.fromarray(pixels), side, crop_pct, interpolation)
            np.testing.assert_array_equal(ours[..., :3], theirs)


def test_the_slider_goes_from_balanced_to_training(packaged, visit, pictures):
    page = opened(visit, packaged.url).page
    classified(page, pictures[0])
    counts = np.array(packaged.network.class_counts, float)
    for strength in (0.5, 1.0):
        page.locator("#strength").fill(str(strength))
        agree(answer(page), expected(packaged.network, pictures[0], prior=(counts**strength).tolist()))
    agree(answer(page), expected(packaged.network, pictures[0], prior="training"))
    page.locator("#strength").fill("0")
    agree(answer(page), expected(packaged.network, pictures[0]))


def test_samples_drop_paste_and_keyboard(packaged, visit, pictures):
    page = opened(visit, packaged.url).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(DONE)
    agree(answer(page), expected(packaged.network, packaged.folder / "samples" / "00.png"))
    assert page.locator("#sample-list button").first.get_attribute("aria-pressed") == "true"
    before = answer(page)
    page.locator("#strength").focus()
    page.keyboard.press("End")
    assert answer(page) != before
    page.keyboard.press("Home")
    assert answer(page) == before
    content = base64.b64encode(pictures[0].read_bytes()).decode()
    for event, kind in (("drop", "DragEvent"), ("paste", "ClipboardEvent")):
        page.evaluate(
            """([event, kind, content]) => {
              document.getElementById("time").textContent = "";
              const data = new DataTransfer();
              data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], "x"));
              const init = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
              document.body.dispatchEvent(new window[kind](event, init));
            }""",
            [event, kind, content],
        )
        page.wait_for_selector(DONE)
        agree(answer(page), expected(packaged.network, pictures[0]))


def test_it_fits_a_phone(packaged, visit, pictures):
    page = opened(visit, packaged.url).page
    classified(page, pictures[0])
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    sizes = [button.bounding_box() for button in page.locator("#sample-list button").all()]
    assert sizes
    assert min(min(box["width"], box["height"]) for box in sizes) >= 44  # a finger's breadth
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_what_is_no_picture_is_a_sentence_and_the_next_one_works(packaged, visit, pictures, tmp_path):
    page = opened(visit, packaged.url).page
    deep = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200).save(deep, "PNG")
    for content, words in ((b"no picture", "cannot read that file"), (deep.getvalue(), "16 bits")):
        (tmp_path / "broken.png").write_bytes(content)
        page.set_input_files("#file", tmp_path / "broken.png")
        page.wait_for_selector("#error:visible")
        assert words in page.locator("#error").inner_text()
        agree(classified(page, pictures[0]), expected(packaged.network, pictures[0]))
        assert page.locator("#error").is_hidden()


def test_a_file_of_pixels_and_of_one_batch_size_runs_too(serve, visit, pictures, exported, tmp_path):
    labels = exported.file.metadata.label_names
    export_onnx(
        exported.model,
        tmp_path / "pixels.onnx",
        source="test",
        label_names=labels,
        variant=Variant(batch=3, uint8=True, precision="fp16"),
    )
    site = serve(tmp_path / "pixels.onnx")
    seen = opened(visit, site.url)
    assert seen.page.locator("#samples").is_hidden()
    for file in pictures[:3]:
        agree(classified(seen.page, file), expected(site.network, file))
    assert not seen.complaints


# Later, for what the test itself asks is exempt from the page's policy.
EVAL = """new Promise((resolve) => setTimeout(() => {
  try { resolve(eval("'evaluated'")); } catch { resolve("refused"); }
}))"""


def test_names_are_text_and_nothing_may_leave(serve, visit, pictures, exported, tmp_path):
    evil = "<img src=x onerror=document.title='owned'>"
    labels = [f"{evil}{c}" for c in range(10)]
    content = onnx.load(exported.file.path)
    next(pair for pair in content.metadata_props if pair.key == "label_names").value = json.dumps(labels)
    onnx.save(content, tmp_path / "evil.onnx")
    (tmp_path / "samples").mkdir()
    open_image(pictures[0]).save(tmp_path / "samples" / "a&amp;<b>.png")
    site = serve(tmp_path / "evil.onnx", "--title", evil, "--samples", tmp_path / "samples")
    seen = opened(visit, site.url)
    seen.page.locator("#sample-list button").click()
    seen.page.wait_for_selector(DONE)
    assert seen.page.locator("h1").inner_text() == evil == seen.page.title()
    assert evil in seen.page.locator("#tasks").inner_text()
    assert seen.page.locator("#sample-list img").get_attribute("alt") == "a&amp;<b>"
    assert not seen.page.locator("[onerror]").count()
    assert seen.page.locator("#prior").is_hidden()  # this network does not know its counts
    assert not seen.complaints
    blocked = seen.page.evaluate("fetch('http://127.0.0.2:9/').then(() => 'sent', () => 'blocked')")
    assert blocked == "blocked"
    assert any("Content Security Policy" in complaint for complaint in seen.complaints)
    assert seen.page.evaluate(EVAL) == "refused"
