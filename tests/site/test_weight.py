"""A first visit loads less than 1 MB, compressed."""

import pytest


@pytest.fixture
def weigh(visit):
    def weigh(address):
        page = visit(address)
        page.wait_for_load_state("networkidle")
        client = page.context.new_cdp_session(page)
        sizes = []
        client.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        client.send("Network.enable")
        client.send("Network.setCacheDisabled", {"cacheDisabled": True})
        page.reload(wait_until="networkidle")
        return sum(sizes)

    return weigh


@pytest.mark.parametrize("start", ["index.html", "zh.html"])
def test_a_start_page_weighs_less_than_a_megabyte(weigh, start):
    assert 20_000 < weigh(start) < 1e6


def test_a_notebook_weighs_less_than_a_megabyte(weigh, notebook):
    assert 20_000 < weigh(notebook) < 1e6
