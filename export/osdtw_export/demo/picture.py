"""The demo as a picture: ``python -m osdtw_export.demo.picture FOLDER docs/images/demo.png``."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from osdtw_export.demo.serving import address, server
from osdtw_models.doors import Parser, need, run_door
from osdtw_models.files import write_bytes

SAMPLE = 3  # the third from the left
SECONDS = 120


def main(argv: list[str] | None = None) -> int:
    """Take a picture of a demo that has classified one of its samples.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door("python -m osdtw_export.demo.picture", _take, argv)


def _take(arguments: list[str]) -> None:
    parser = Parser("python -m osdtw_export.demo.picture", "Take a picture of a demo, with a headless Chromium.")
    parser.add_argument("folder", type=Path, help="what osdtw-demo wrote, with samples")
    parser.add_argument("picture", type=Path, help="the .png file to write")
    parser.add_argument("--browser", default="/usr/bin/chromium", metavar="FILE", help="Chromium")
    options: argparse.Namespace = parser.parse_args(arguments)
    need("dev", "playwright")
    with server(options.folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        content = taken(address(running), options.browser)
        running.shutdown()
    write_bytes(options.picture, content)
    print(f"Wrote {options.picture}: {len(content) / 1000:.0f} kB")


def taken(url: str, browser: str) -> bytes:
    """The page after a sample was picked.

    Args:
        url: Where the demo is.
        browser: Path of a Chromium.

    Returns:
        A PNG file's content.

    Raises:
        ValueError: If the browser does not start, or the page does not answer in time.
    """
    from playwright.sync_api import Error, sync_playwright

    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            page = chromium.new_page(viewport={"width": 720, "height": 800})
            page.set_default_timeout(1000 * SECONDS)
            page.goto(url)
            page.wait_for_selector("body[data-ready]")
            for sample in (1, SAMPLE):  # the first picture warms up
                page.click(f"#sample-list button:nth-child({sample})")
                page.wait_for_selector(f"#sample-list button:nth-child({sample})[aria-pressed=true]")
                page.wait_for_selector("#time:not(:empty)")
                page.wait_for_selector("#status", state="hidden")
            content = page.screenshot(full_page=True)
            chromium.close()
            return content
    except Error as error:
        raise ValueError(f"No picture could be taken ({error.message.splitlines()[0]}).") from error


if __name__ == "__main__":
    sys.exit(main())
