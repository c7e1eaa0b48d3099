"""The public names of the package: each can be imported."""

import pytest

import jtextdiff as jtd


@pytest.mark.parametrize("name", sorted([*jtd._HOMES, "from_pretrained", "load"]))
def test_a_public_name_is_found_where_it_is_defined(name: str) -> None:
    found = getattr(jtd, name)
    assert found.__name__.rpartition(".")[2] == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'film'.*record"):
        _ = jtd.film
