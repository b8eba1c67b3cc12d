"""The course as a student has it: notebooks run in JupyterLab in a browser, whose controls are moved; exported pages.

Needs Chromium and `pip install playwright`; without them these tests are skipped. `.ci/run` installs both.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from reidlib.course.export import to_html
from reidlib.files import REPOSITORY

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to test in a browser")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.xdist_group("browser"),
]
BOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
WITH_CONTROLS = [book for book in BOOKS if "interactive(" in book.read_text(encoding="utf-8")]
LONGEST = 420  # seconds a notebook may take in the smoke profile on a busy machine


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_an_exported_page_shows_its_formulas_without_a_network(book, browser, tmp_path):
    page = browser.new_context(offline=True).new_page()
    html = to_html(book)
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    formulas = page.locator("math")
    sizes = formulas.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert len(sizes) == html.count("<math") and all(size > 5 for size in sizes)
    shown = page.evaluate(
        "() => [...document.querySelectorAll('p, li, td, h1, h2, h3')].map(e => e.innerText).join('\\n')"
    )
    assert "$$" not in shown and "\\frac" not in shown


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on an empty folder, and the folder; every cell is drawn, also those out of sight."""
    folder, settings = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("settings")
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", f"--LabApp.user_settings_dir={settings}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTERLAB_WORKSPACES_DIR": str(settings)}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api/status").close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield address, folder
        finally:
            server.terminate()
            server.wait(30)


def run_in_lab(page, book, lab, output_root):
    """Open a notebook in its smoke profile, run every cell as the menu does, and wait until the last one is done."""
    address, folder = lab
    parameters = dict(profile="smoke", data_root=str(REPOSITORY / "data"), output_root=str(output_root))
    notebook = parameterize_notebook(load_notebook_node(str(book)), parameters)
    nbformat.write(notebook, folder / book.name)
    page.goto(f"{address}/lab/tree/{book.name}?reset")
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    asked = "() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText)"
    for _ in range(LONGEST):
        prompts = page.evaluate(asked)
        faults = page.locator(".jp-OutputArea-output[data-mime-type$='stderr'], [data-mime-type$='jupyter.error']")
        said = faults.all_inner_texts()
        assert not said, said[0]
        if prompts[-1].strip("[]: ").isdigit():
            return
        time.sleep(1)
    raise AssertionError(f"{book.name} did not end in {LONGEST} s: {prompts}")


def move(control) -> None:
    """Take a control of any kind one step on, as somebody with a keyboard would."""
    if control.locator("select").count():
        select = control.locator("select")
        count = select.locator("option").count()
        select.select_option(index=(select.evaluate("one => one.selectedIndex") + 1) % count)
    elif control.locator("input[type=checkbox]").count():
        control.locator("input[type=checkbox]").click()
    elif control.locator("input[type=text]").count():
        control.locator("input[type=text]").fill("1s0j1")
        control.locator("input[type=text]").press("Enter")
    else:
        handle = control.locator(".noUi-handle")
        at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.press("ArrowLeft" if at_the_end else "ArrowRight")


def drawn(box) -> str | None:
    """What stands under the controls: the one picture, or the words in its place; None while it is being changed."""
    pictures = box.locator("img").evaluate_all("all => all.map(one => one.src)")
    words = "\n".join(box.locator(".jp-OutputArea").all_inner_texts()).strip()
    return "".join(pictures) + words if len(pictures) + bool(words) == 1 else None


@pytest.mark.parametrize("book", WITH_CONTROLS, ids=lambda path: path.stem)
def test_every_control_draws_another_picture_or_says_why_not(book, browser, lab, tmp_path):
    page = browser.new_context(viewport=dict(width=1400, height=1000)).new_page()
    run_in_lab(page, book, lab, tmp_path / "runs")
    boxes = page.locator(".jp-OutputArea-output > .widget-vbox, .jp-OutputArea-output .lm-Widget > .widget-vbox")
    source = book.read_text(encoding="utf-8")
    assert boxes.count() >= source.count("interactive(") - source.count("import interactive")
    for box in boxes.all():
        for control in box.locator(".widget-hbox").first.locator(":scope > *").all():
            name = control.locator(".widget-label").first.inner_text() or control.inner_text()
            control.scroll_into_view_if_needed()
            for _ in range(12):  # a value that cannot be drawn says so; the next one can
                before = drawn(box)
                move(control)
                for _ in range(120):
                    if (after := drawn(box)) not in (before, None):
                        break
                    time.sleep(0.25)
                assert after not in (before, None) and "Traceback" not in after, (
                    f"{name}: still {after and after[:400]}"
                )
                if after.startswith(("data:image", "blob:")):
                    break
        for picture in box.locator(".reidlib-clickable").all():
            picture.scroll_into_view_if_needed()
            before, place = drawn(box), picture.bounding_box()
            for share, press in ((0.3, page.mouse.down), (0.33, page.mouse.up)):
                page.mouse.move(place["x"] + share * place["width"], place["y"] + (share + 0.1) * place["height"])
                press()
            for _ in range(120):
                if (after := drawn(box)) not in (before, None):
                    break
                time.sleep(0.25)
            assert after not in (before, None) and after.startswith("blob:"), f"a drag changed nothing: {after[:400]}"
    page.context.close()
