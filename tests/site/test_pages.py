"""What holds for every page of the site."""


def test_a_page_loads_from_this_machine_alone_and_without_an_error(visit, address):
    assert visit(address).title() != ""
