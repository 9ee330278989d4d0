"""A copy button copies code without the prompts of a doctest and without its output."""


def test_prompts_and_output_are_left_out(visit, root):
    page = visit("reference/api/minirl.experiments.figures.html")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=root.rstrip("/"))
    block = page.locator("div.highlight:has(.gp)").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    lines = block.locator("pre").inner_text().splitlines()
    code = [line[4:] for line in lines if line.startswith((">>> ", "... "))]
    assert len(code) > 0
    assert copied.strip().splitlines() == code


def test_output_of_a_notebook_has_no_button(visit):
    page = visit("notebooks/04_ppo.html")
    page.wait_for_selector("div.cell_input button.copybtn", state="attached")
    assert page.locator("div.cell_output button.copybtn").count() == 0
