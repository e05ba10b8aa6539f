"""What all tests share: nothing is remembered in the home of who runs them; a browser for those that look at pages."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

# Hypothesis fails an example that takes 200 ms by the clock on the wall; on a busy machine that says nothing.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass
class Visit:
    """A page that was opened, and what happened while it was: addresses it asked for, its complaints."""

    page: object  # playwright.sync_api.Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium without a window; a module's own, for its event loop must not outlive the module."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.is_file():
        pytest.fail(f"{CHROMIUM} is missing; install it: apt-get install chromium (tests that look at pages need it).")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens an address as a phone of 360 pixels would, or in another width; gives a `Visit`."""
    pages = []

    def visit(url, width=360, height=740, **context) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": height}, **context)
        pages.append(page)
        seen = Visit(page)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda said: said.type in ("error", "warning") and seen.complaints.append(said.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(url, wait_until="networkidle")
        return seen

    yield visit
    for page in pages:
        page.close()
