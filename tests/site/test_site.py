"""The built documentation, as a visitor sees it: in Chromium, on a phone and on a desk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NEEDED = ("axe_playwright_python", "mkdocs", "mkdocstrings", "playwright")
CHROMIUM = shutil.which("chromium")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing or CHROMIUM is None:
    reason = f"not installed: {', '.join([*missing, *([] if CHROMIUM else ['chromium'])])}"
    pytest.skip(reason, allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402  # once it is known to be there
from playwright.sync_api import expect, sync_playwright  # noqa: E402  # likewise

from support.hooks import load_hook  # noqa: E402  # likewise

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.once

CONTRASTS = """
() => {
  const light = color => {
    const [red, green, blue] = color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(it => {
      const part = it / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  return [...document.querySelectorAll(".terminal svg")]
    .filter(it => it.checkVisibility())
    .flatMap(svg => [...svg.querySelectorAll("text")].map(text => {
      const ground = light(getComputedStyle(svg.parentElement).backgroundColor);
      const ink = light(getComputedStyle(text).fill);
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      return {
        text: text.textContent,
        size: parseFloat(getComputedStyle(text).fontSize) * scale,
        contrast: (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05),
      };
    }));
}
"""
"""The texts of the pictures that are seen, each with its size in pixels and its contrast (WCAG 2);
axe does not look into pictures."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site, built as for its publication."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--no-strict", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, check=False, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Return where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Return a page; in the end it may have had no error, and have asked no other host."""
    context = browser.new_context(base_url=address, reduced_motion="reduce")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda it: complaints.append(it.text) if it.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda it: None if it.url.startswith((address, "data:")) else complaints.append(it.url),
    )
    page.on("response", lambda it: complaints.append(it.url) if it.status >= 400 else None)
    yield page
    context.close()
    assert complaints == []


def paths_in(site: Path) -> list[str]:
    """Return the paths of the pages, but for the source, whose pages are all alike."""
    pages = sorted(it.relative_to(site).parent.as_posix() for it in site.rglob("index.html"))
    source = "source/madcrow_events/dispatcher/_dispatcher"
    return [f"{it}/".removeprefix("./") for it in pages if not it.startswith("source/")] + [
        f"{source}/"
    ]


class Targets(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.references: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value and tag != "base":
                self.references.add(value)


def broken_links(site: Path) -> list[str]:
    """Return each reference of a page to something that is not there, as `page -> reference`."""
    pages = {
        "/" + it.relative_to(site).as_posix().removesuffix("index.html"): Targets(
            it.read_text(encoding="utf-8")
        )
        for it in site.rglob("index.html")
    }
    broken = []
    for path, page in pages.items():
        for reference in page.references:
            target, anchor = urldefrag(urljoin(f"http://site{path}", reference))
            if urlsplit(reference).scheme:
                continue  # another host; no page loads anything from there
            target = unquote(urlsplit(target).path)
            if target in pages:
                is_there = unquote(anchor) in pages[target].anchors
            else:
                is_there = (site / target.lstrip("/")).is_file()
            if not is_there:
                broken.append(f"{path} -> {reference}")
    return broken


def test_every_link_leads_to_something(site: Path) -> None:
    assert broken_links(site) == []


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [("a/", False), ("a/#here", False), ("a/#there", True), ("b/", True), ("x.css", True)],
)
def test_a_broken_link_is_found(link: str, is_broken: bool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(f'<a href="{link}">x</a>')
    (tmp_path / "a" / "index.html").write_text('<p id="here">x</p>')
    assert broken_links(tmp_path) == ([f"/ -> {link}"] if is_broken else [])


def test_every_public_name_is_described(site: Path) -> None:
    """With a text below its signature, and a link to its source."""
    text = "".join(it.read_text("utf-8") for it in (site / "reference" / "api").rglob("*.html"))
    for name in load_hook("api").public_names():
        heading = rf'<h\d id="{re.escape(name)}" class="doc doc-heading">(.*?)'
        contents = r'<div class="doc doc-contents[^>]*>(.*?)</div>'
        entry = re.search(heading + contents, text, re.DOTALL)
        assert entry, f"{name} is not described"
        assert re.search(r'<a class="source" href="[^"]+#L-\d+"', entry[1]), name
        assert "<p>" in entry[2], f"{name} says nothing of itself"


def test_no_page_has_a_fault(site: Path, page: Page) -> None:
    """No error, no request to another host, nothing that axe calls serious, no split name.

    No page is wider than the window. Every other page is seen on a phone in the dark, the others
    on a desk by day, because all have the same frame and colours.
    """
    faults = []
    for number, path in enumerate(paths_in(site)):
        scheme, width = (("light", 1280), ("dark", 390))[number % 2]
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of the two
        page.goto(path)
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        faults += [
            (path, it["id"], node["html"][:200])
            for it in found
            if it["impact"] in ("serious", "critical")
            for node in it["nodes"]
        ]
        if page.evaluate("document.documentElement.scrollWidth") > width:
            faults.append((path, "is wider than the window", ""))
        split = page.evaluate(
            "[...document.querySelectorAll('.md-content table code')]"
            ".filter(it => it.getClientRects().length > 1).map(it => it.textContent)"
        )
        faults += [(path, "is split", name) for name in split]
    assert faults == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("on_event", "#madcrow_events.on_event"),
        ("deferred", "reference/api/deferrals/"),
        ("HandlerSignatureError", "#madcrow_events.HandlerSignatureError"),
    ],
)
def test_the_search_finds_first_what_a_name_means(page: Page, text: str, found: str) -> None:
    """The first page that is found is about it, or its first section is."""
    page.goto("")
    page.keyboard.press("/")
    # What is typed before the index has come finds nothing; nor does what sends no key events.
    expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching")
    page.get_by_placeholder("Search").press_sequentially(text)
    page.wait_for_function(  # what is first changes as the results come in
        """found => {
            const item = document.querySelector(".md-search-result__item");
            const links = item ? [...item.querySelectorAll(".md-search-result__link")] : [];
            return links.slice(0, 2).some(it => it.href.includes(found));
        }""",
        arg=found,
        timeout=20_000,
    )


def test_the_button_of_a_shell_copies_its_commands(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("guide/testing/")
    shell = page.locator(".language-console").filter(has_text="pip install").last
    prompts = shell.inner_text().count("$ ")
    shell.locator("button").click()
    page.wait_for_function("navigator.clipboard.readText()")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "pip install" in copied
    assert prompts > copied.count("$ ") == 0


def test_the_site_is_used_by_keyboard_alone(page: Page) -> None:
    """The first stop skips to the content; each stop that has the focus shows it."""
    page.goto("guide/handlers/")
    page.keyboard.press("Tab")
    assert "Skip to content" in page.evaluate("document.activeElement.textContent")
    for _ in range(15):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "(it => it === document.body || getComputedStyle(it).outlineStyle !== 'none'"
            " || it.matches('input'))(document.activeElement)"
        )


def test_a_printed_page_has_its_text_and_nothing_else(page: Page) -> None:
    page.goto("guide/handlers/")
    page.emulate_media(media="print")
    for frame in (".md-header", ".md-sidebar--primary", ".md-footer"):
        assert not page.locator(frame).first.is_visible()
    assert page.locator(".md-content").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_picture_of_a_terminal_fits_its_column(page: Page, width: int, scheme: str) -> None:
    """It is as wide as the text, and its letters are large and dark or light enough to read."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of the two
    page.goto("reference/command/")
    column = page.locator(".md-content h1").bounding_box()
    assert column
    terminals = page.locator(".terminal")
    assert terminals.count() == page.locator(".terminal svg:visible").count() > 0
    for terminal in terminals.all():
        box = terminal.bounding_box()
        assert box
        assert (box["x"], box["width"]) == pytest.approx((column["x"], column["width"]))
    letters = page.evaluate(CONTRASTS)
    assert min(it["size"] for it in letters) > 11
    assert [it for it in letters if it["contrast"] < 4.5] == []
