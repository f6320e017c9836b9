"""JupyterLab with our kernelspecs: one card in the launcher, and each kernelspec runs the notebooks that name it.

RLM_SCREENSHOTS names a folder for what that looks like.
"""

from __future__ import annotations

import os
import shutil

import pytest
from laboratory import IN_CHROMIUM, Tab, browser, lab, shot, write
from places import provided
from selection import mostly_full
from stock_clients.test_every_client import PRIVATE, SPECS, install

from rlm_kernel.provisioners.kernelspecs import AVAILABLE

pytest.importorskip("jupyterlab")
pytestmark = [
    *IN_CHROMIUM,
]

MODEL = """\
from rlm import ScriptedLM
echo = ScriptedLM(lambda messages: "echo " + messages[-1]["content"], model="echo")
%rlm model --backend echo
print(llm_query("one"))"""
CELL = "x = 6 * 7\nimport os\nprint('printed', x, os.getcwd(), [n for n in os.environ if 'KEY' in n])"


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """What `pip install` puts into `share/jupyter`."""
    share = tmp_path_factory.mktemp("share")
    install("rlm", {}, share)
    return share


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def started(share, chromium, tmp_path):
    """Starts JupyterLab over a folder and opens a notebook in it."""
    (tmp_path / "work").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_PATH": str(share), "PYTHONWARNINGS": "ignore"}
    with lab(tmp_path / "work", env={**environment, "OPENAI_API_KEY": "sk-of-the-user"}) as address:
        yield address


@pytest.fixture
def all_kernelspecs(share):
    for spec in AVAILABLE.values():
        if not (share / "kernels" / spec).exists():
            install(spec, {}, share)


def test_the_launcher_has_one_card_with_our_icon_and_its_notebook_has_llm_query(all_kernelspecs, chromium, started):
    page = chromium.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(started.replace("/tree/{}", ""))
    ours = page.locator('.jp-LauncherCard[data-category="Notebook"][title^="RLM"]')
    ours.first.wait_for()
    shot(page, "launcher")
    assert [card.get_attribute("title") for card in ours.all()] == ["RLM"]
    assert "/kernelspecs/rlm/logo-svg.svg" in ours.locator("img").get_attribute("src")
    ours.click()
    page.get_by_text("| Idle").wait_for()
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.insert_text(MODEL)
    page.keyboard.press("Control+Enter")
    page.locator(".jp-OutputArea-output").get_by_text("echo one").wait_for()
    shot(page, "the-card-has-llm-query")
    page.locator('[data-jp-item-name="kernelName"]').click()
    listed = page.locator(".jp-Dialog select option").all_inner_texts()
    assert {"RLM", "RLM (local)", "RLM (Docker)", "RLM (SSH)"} <= set(listed)
    page.close()


@pytest.mark.full
def test_the_new_menu_of_notebook_7_has_one_entry_and_the_others_can_be_chosen(
    all_kernelspecs, share, chromium, tmp_path
):
    pytest.importorskip("notebook")
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_PATH": str(share), "PYTHONWARNINGS": "ignore"}
    write(tmp_path / "task.ipynb", [CELL], kernel="rlm-local")
    with lab(tmp_path, env=environment, app="notebook") as address:
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(address.format(""))
        page.locator(".jp-DropdownMenu .lm-MenuBar-item").click()
        entries = page.locator(".lm-Menu .lm-Menu-item:visible .lm-Menu-itemLabel")
        entries.get_by_text("RLM", exact=True).wait_for()
        shot(page, "notebook-7-new")
        assert [name for name in entries.all_inner_texts() if "RLM" in name] == ["RLM"]
        page.goto(address.replace("tree/", "notebooks/").format("task.ipynb"))
        page.get_by_role("button", name="RLM (local)").click()
        listed = page.locator(".jp-Dialog select option").all_inner_texts()
        shot(page, "notebook-7-kernels")
        assert {"RLM", "RLM (local)", "RLM (Docker)", "RLM (SSH)"} <= set(listed)
        page.locator(".jp-Dialog .jp-mod-accept").click()
        page.locator(".jp-Dialog").wait_for(state="detached")
        page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        page.locator(".jp-OutputArea-output").get_by_text("printed 42").wait_for()
        shot(page, "notebook-7-ran")
        page.close()


@pytest.mark.parametrize("spec", mostly_full(SPECS, "rlm-local"))
def test_a_notebook_runs_in_the_kernelspec_that_it_names(spec, share, chromium, started, tmp_path, request):
    place = SPECS[spec]
    shutil.rmtree(share / "kernels" / spec, ignore_errors=True)
    install(spec, provided(place, request)[1] if place else {}, share)
    write(tmp_path / "work" / "task.ipynb", [CELL, "while True: pass", "'x' in globals()"], kernel=spec)
    tab = Tab(chromium, started, "task.ipynb")
    tab.ready()
    tab.run(0)
    tab.says(0, "printed 42")
    assert (str(tmp_path / "work") in tab.text(0)) is (place not in PRIVATE)
    assert ("OPENAI_API_KEY" in tab.text(0)) is (spec == "rlm")
    tab.run(1)
    tab.page.get_by_text("| Busy").wait_for()
    tab.page.locator('[data-jp-item-name="interrupt"]').click()
    tab.says(1, "KeyboardInterrupt")
    tab.page.locator('[data-jp-item-name="restart"]').click()
    tab.page.locator(".jp-Dialog .jp-mod-accept").click()
    tab.page.locator(".jp-Dialog").wait_for(state="detached")
    tab.ready()
    tab.run(2)
    tab.says(2, "False")
    tab.shot(f"lab-{spec}")
    tab.page.close()
