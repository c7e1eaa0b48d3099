"""A platform that jax cannot use is the user's to correct, and is named."""

from types import SimpleNamespace

import pytest

from jtextdiff.cli.errors import UserError
from jtextdiff.devices import platform
from jtextdiff.devices.platform import check_platform
from jtextdiff.devices.sharding import make_mesh


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': no device")])
@pytest.mark.parametrize("check", [check_platform, make_mesh])
def test_an_absent_platform_is_named(error, check, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    fake = SimpleNamespace(devices=fail, config=SimpleNamespace(values={"jax_platforms": "cuda"}))
    monkeypatch.setattr(platform, "jax", fake)
    with pytest.raises(UserError, match="JAX_PLATFORMS=cuda: jax finds no such device here"):
        check()
    fake.config.values["jax_platforms"] = None
    with pytest.raises(type(error)):
        check()
