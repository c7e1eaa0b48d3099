"""The training loop saves the step at which a signal stops it."""

from pathlib import Path

import pytest
from support.cases import slow_but

from jtextdiff.cli.errors import Interrupted
from jtextdiff.run.config_files import load_config
from jtextdiff.run.workdir import locked
from jtextdiff.training.loop import train

CONFIG = str(Path(__file__).parents[2] / "configs" / "diffusion_lm.py")


class Signal(list[int]):
    """A list of received signals that gets one just before its `nth` check."""

    def __init__(self, nth: int):
        super().__init__()
        self.checks_left = nth

    def __bool__(self) -> bool:
        self.checks_left -= 1
        if self.checks_left == 0:
            self.append(15)
        return len(self) > 0


@pytest.mark.parametrize("nth", slow_but([1], [1, 2, 3]))
def test_a_stopped_run_has_saved_its_last_step(nth: int, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The Mill is cheap .\nThe Swan is dear .\n" * 20)
    fields = {
        "text.path": tmp_path / "texts.txt",
        "text.tokenizer": "words:1",
        "batch_size": 4,
        "method.embed_dim": 4,
        "method.trunk.num_layers": 1,
        "method.trunk.width": 8,
        "method.trunk.num_heads": 2,
        "every.evaluate": 1000,
    }
    config = load_config(CONFIG, [f"--config.{name}={value}" for name, value in fields.items()])
    with locked(tmp_path / "run"), pytest.raises(Interrupted, match="Stopped by SIGTERM at step") as stop:
        train(config, tmp_path / "run", Signal(nth))
    step = str(stop.value).partition("at step ")[2].partition(";")[0]
    assert (tmp_path / "run" / "checkpoints" / step).is_dir()
