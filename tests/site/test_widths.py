"""No line of code in a notebook is cut on a desktop."""

CUT = """() => [...document.querySelectorAll("div.cell_input pre")].filter(block =>
    block.offsetParent && block.scrollWidth > block.clientWidth).map(block => block.innerText)"""


def test_no_code_of_a_notebook_is_cut(visit, notebook):
    page = visit(notebook)
    for width in (1280, 1366, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(CUT) == [], width
