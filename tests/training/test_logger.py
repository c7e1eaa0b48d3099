"""The curve of a run is drawn whatever the name of its directory."""

from pathlib import Path

from jtextdiff.training.logger import draw_curve


def test_the_name_of_a_run_is_no_formula(tmp_path: Path) -> None:
    workdir = tmp_path / "a$^$b"
    workdir.mkdir()
    (workdir / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    draw_curve(workdir)
    assert (workdir / "loss.png").stat().st_size > 0
