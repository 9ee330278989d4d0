"""JupyterLite in a browser, as far as its pages go: the kernel comes from another server.

`make lite-check` runs the notebooks, with a copy of Pyodide.
"""

from urllib.parse import unquote

import pytest

PYODIDE = "https://cdn.jsdelivr.net/pyodide/"
TITLE = ".jp-RenderedMarkdown h1"


@pytest.mark.parametrize(
    ("folder", "name", "documentation"),
    [
        ("", "01_policy_gradient", "minirl.algorithms.policy_gradient"),
        ("zh/", "03_trust_regions", "minirl.algorithms.trpo"),
    ],
)
def test_the_button_opens_the_notebook_and_its_links_open(
    root, browser, folder, name, documentation
):
    foreign = []

    def refuse(route):
        foreign.append(route.request.url)
        route.abort()

    context = browser.new_context(color_scheme="dark")
    context.route(lambda url: not url.startswith((root, "data:", "blob:")), refuse)
    opened = context.new_page()
    opened.goto(f"{root}notebooks/{folder}{name}.html")
    title = opened.locator("h1").first.inner_text().partition("#")[0].strip()
    assert foreign == []
    with opened.expect_request(lambda request: request.url.startswith(PYODIDE)):  # the kernel
        opened.locator(".notebook-links a.run").click()
        opened.wait_for_selector(TITLE)
    opened.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    assert opened.locator(TITLE).first.inner_text().strip() == title
    assert all(address.startswith(PYODIDE) for address in foreign), foreign
    for target, selector, heading in (
        (f"{folder}05_trpo_vs_ppo.ipynb", TITLE, "5 ·"),
        (f"{documentation}.html", "h1", documentation),
    ):
        link = f".jp-RenderedMarkdown a[href*='{target.rpartition('/')[2]}']"
        with context.expect_page() as event:
            opened.locator(link).first.click()
        event.value.wait_for_selector(selector)
        assert target in unquote(event.value.url)
        assert event.value.locator(selector).first.inner_text().startswith(heading)
    context.close()
