"""Latent control from the command line, at toy size: train, learn a control, write, rewrite, look and score."""

import json
import shutil
from pathlib import Path

import pytest
from support.command_line import run
from support.runs import ROOT, toy, trained, write_texts

import jtextdiff as jtd


def control(label: str) -> list[str]:
    return [f"--config={ROOT}/configs/control.py", "--config.base=vae", f"--config.label={label}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained text VAE in `vae`, and its controls of mood and size."""
    folder = tmp_path_factory.mktemp("latent")
    write_texts(folder)
    shutil.copytree(trained("latent_ops.py"), folder / "vae")
    for label in ("mood", "size"):
        fitted = run("train", *control(label), "--config.latent.max_iterations=20", cwd=folder)
        assert fitted.returncode == 0 and "calibration error" in fitted.stderr, fitted.stderr
    return folder


def test_texts_are_rewritten_in_their_order_and_each_tells_its_way(place: Path) -> None:
    lines = "The Mill is awful .\n\nThe Swan is fine .\n" + "very " * 40 + "long\n"
    told = run("edit", "--checkpoint=vae", "--control=mood=good", "--out=out.jsonl", cwd=place, text=lines)
    assert told.returncode == 0, told.stderr
    rows = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == lines.rstrip("\n").split("\n")
    assert [row.get("left", "")[:6] for row in rows] == ["", "empty", "", "longer"]
    for row in (rows[0], rows[2]):
        after = row["p_after"]["mood=good"]
        assert after >= row["p_before"]["mood=good"] and after == pytest.approx(0.99, abs=0.01)
    plain = run("edit", "--checkpoint=vae", "--control=mood=good", cwd=place, text=lines)
    assert plain.stdout.splitlines() == [row["rewrite"] for row in rows]
    again = run("edit", "--checkpoint=vae", "--control=mood=good", "--out=out.jsonl", cwd=place, text=lines)
    assert "Continuing after the 4" in again.stderr and len((place / "out.jsonl").read_text().splitlines()) == 4


def test_a_file_of_other_things_and_rewrites_of_other_texts_stay_as_they_are(place: Path) -> None:
    edit = ["--checkpoint=vae", "--control=mood=good", "--out=kept.txt"]
    for there, told in (
        (b"my own notes\nand more", "is not an edit written by this command"),
        (b'{"source": "The Mill is\n', "is not an edit written by this command"),
        (b'{"source": "The Oak is fine .", "rewrite": "x"}\n', "of another text"),
    ):
        (place / "kept.txt").write_bytes(there)
        refused = run("edit", *edit, cwd=place, text="The Mill is awful .\n")
        assert refused.returncode == 2 and told in refused.stderr, refused.stderr
        assert (place / "kept.txt").read_bytes() == there
    refused = run("edit", *edit, "--input=kept.txt", cwd=place)
    assert (
        refused.returncode == 2 and "is --input itself" in refused.stderr and (place / "kept.txt").read_bytes() == there
    )


def test_a_text_is_rewritten_several_times(place: Path) -> None:
    lines = "The Mill is awful .\nThe Swan is fine .\n"
    often = [
        "--checkpoint=vae",
        "--control=mood=good",
        "--num=3",
        "--sampler=sample",
        "--override=method.sampler.temperature=3",
    ]
    told = run("edit", *often, cwd=place, text=lines)
    found = told.stdout.splitlines()
    assert len(found) == 6 and len(set(found[:3])) > 1, (found, told.stderr)
    out = ["--out=often.jsonl"]
    run("edit", *often, *out, cwd=place, text=lines.splitlines()[0] + "\n")
    rows = (place / "often.jsonl").read_text().splitlines(keepends=True)
    (place / "often.jsonl").write_text("".join(rows[:2]))
    run("edit", *often, *out, cwd=place, text=lines)
    assert [json.loads(row)["rewrite"] for row in (place / "often.jsonl").read_text().splitlines()] == found


def test_texts_are_written_steered_and_shown(place: Path) -> None:
    both = ["--checkpoint=vae", "--control=mood=bad", "--control=size=small"]
    texts = run("sample", *both, "--num=3", "--balance", cwd=place)
    assert texts.returncode == 0 and len(texts.stdout.splitlines()) == 3 and "Weights: mood=bad" in texts.stderr
    shown = run("visualize", *both, "--num=1", "--out=way", cwd=place)
    assert shown.returncode == 0 and (place / "way.png").stat().st_size and (place / "way.html").stat().st_size
    own = ["--checkpoint=vae", "--text=The Mill is awful ."]
    shown = run("visualize", *own, "--control=mood=good", "--out=own", cwd=place)
    assert shown.returncode == 0 and (place / "own.png").stat().st_size, shown.stderr
    back = run("edit", "--checkpoint=vae", cwd=place, text="The Mill is awful .\n").stdout.split()
    first = next(line for line in shown.stderr.splitlines() if line.startswith("t=1.00"))
    assert first.split("⏎")[0].split()[1:] == back
    refused = run("visualize", *own, cwd=place)
    assert refused.returncode == 2 and "--control with an energy" in refused.stderr, refused.stderr
    word = run("sample", "--checkpoint=vae", "--control=keyword=lovely", "--num=2", cwd=place)
    assert word.returncode == 0, word.stderr


def test_edits_are_scored_beside_copies_and_reconstructions(place: Path) -> None:
    scored = run("evaluate", "--checkpoint=vae", "--edits=mood", "--num=8", "--judge_text=rows.jsonl", cwd=place)
    assert scored.returncode == 0, scored.stderr
    rows = json.loads(scored.stdout)["rows"]
    assert list(rows) == ["copy", "reconstruction", "edit"]
    assert rows["copy"]["source_bleu"]["value"] == pytest.approx(100) and rows["copy"]["copies"]["value"] == 1
    pair = {"text": "The Mill is awful .", "wanted": "good", "reference": "The Mill is awful ."}
    (place / "pairs.jsonl").write_text(
        json.dumps(pair) + "\n" + json.dumps(pair | {"reference": "A fine Swan !"}) + "\n"
    )
    paired = run("evaluate", "--checkpoint=vae", "--edits=mood", "--references=pairs.jsonl", cwd=place)
    copy = json.loads(paired.stdout)["rows"]["copy"]
    assert copy["success"]["n"] == 2 and 0 < copy["reference_bleu"]["value"] < copy["source_bleu"]["value"] == 100
    (place / "pairs.jsonl").write_text(json.dumps(pair | {"wanted": "odd"}) + "\n")
    paired = run("evaluate", "--checkpoint=vae", "--edits=mood", "--references=pairs.jsonl", cwd=place)
    assert paired.returncode == 2 and "pairs.jsonl:1: mood has no value 'odd'" in paired.stderr
    asked = ["--control=mood=good", "--control=size=big", "--interference", "--num=4", "--judge_text=rows.jsonl"]
    pushed = run("evaluate", "--checkpoint=vae", *asked, cwd=place)
    assert pushed.returncode == 0, pushed.stderr
    kind = json.loads(pushed.stdout)["metrics"]["control_success[mood=good]"]["kind"]
    assert "mood by n-grams of 112 texts of rows.jsonl, right for 100.0% of valid" in kind
    found = json.loads(pushed.stdout)["interference"]
    assert found["names"] == ["mood=good", "size=big"] and found["pushed"][0][0] > found["unmoved"][0]


def test_a_latent_that_holds_nothing_is_told_of(place: Path) -> None:
    heavy = ["--config.method.beta=100", "--config.method.latent_dim=1"]
    done = run("train", *toy("empty", 3, *heavy, config="latent_ops.py"), cwd=place)
    assert done.returncode == 0 and "posterior collapse" in done.stderr, done.stderr


def test_a_model_that_is_told_its_label_needs_no_control(place: Path) -> None:
    few = ["--config.method.condition=mood", "--config.num_labelled=10"]
    done = run("train", *toy("told", 3, *few, config="latent_ops.py:cvae"), cwd=place)
    assert done.returncode == 0 and "20 texts keep their label" in done.stderr, done.stderr
    edited = run("edit", "--checkpoint=told", "--control=mood=good", cwd=place, text="The Mill is awful .\n")
    assert edited.returncode == 0 and len(edited.stdout.splitlines()) == 1, edited.stderr
    scored = run("evaluate", "--checkpoint=told", "--edits=mood", "--num=4", "--judge_text=rows.jsonl", cwd=place)
    assert scored.returncode == 0, scored.stderr
    moved = run("edit", "--checkpoint=told", "--control=mood=good", "--until=0.9", cwd=place, text="The Mill .\n")
    assert moved.returncode == 2 and "enforced exactly" in moved.stderr, moved.stderr
    weighed = run("sample", "--checkpoint=told", "--control=mood=good*2", cwd=place)
    assert weighed.returncode == 2 and "sampler.guidance_scale=2" in weighed.stderr, weighed.stderr


def test_a_control_that_is_there_is_another_if_it_was_asked_for_otherwise(place: Path) -> None:
    again = run("train", *control("mood"), "--config.latent.max_iterations=20", cwd=place)
    assert again.returncode == 0 and "there already" in again.stderr, again.stderr
    other = run("train", *control("mood"), "--config.latent.max_iterations=20", "--config.num_labelled=4", cwd=place)
    assert other.returncode == 2 and "num_labelled" in other.stderr, other.stderr
    few = run("train", *control("mood"), "--config.num_labelled=1", "--workdir=few", cwd=place)
    assert few.returncode == 2 and "at least 2 texts of each value" in few.stderr, few.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("edit", "--checkpoint=vae", "--control=mood=good", "--strength=0.3"), "in latent space"),
        (("edit", "--checkpoint=vae", "--control=mood=good", "--until=1.5"), "target_probability must be from 0 to 1"),
        (("edit", "--checkpoint=vae", "--control=mood=odd"), "no value 'odd'"),
        (("edit", "--checkpoint=vae", "--control=taste=good"), "no control 'taste'"),
        (("sample", "--checkpoint=vae", "--control=mood=good", "--balance"), "nothing to weigh"),
        (("evaluate", "--checkpoint=vae", "--edits=taste"), "no label 'taste'"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--control=mood=bad"), "cannot be combined"),
        (("evaluate", "--checkpoint=vae", "--until=0.9"), "give --edits"),
        (("evaluate", "--checkpoint=vae", "--interference", "--control=mood=bad"), "nothing to weigh"),
        ((*("train", *control("mood")), "--config.method.weight=5"), "use --config.latent"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(arguments: tuple[str, ...], told: str, place: Path) -> None:
    done = run(*arguments, cwd=place, text="The Mill is awful .\n")
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_each_text_follows_its_own_control(place: Path) -> None:
    """A batch of different wishes writes what each of them writes by itself; the best of some can be chosen."""
    rows = [json.dumps({"control": f"mood={mood}"}) for mood in ("good", "bad")]
    (place / "wishes.jsonl").write_text("\n".join(rows) + "\n")
    model = jtd.load(place / "vae")
    good, bad = (jtd.controls.classifier("mood", mood) for mood in ("good", "bad"))
    mixed = [model.tokenizer.decode(row) for row in model.draw(4, control=[good, bad, good, bad]).tokens]
    apart = [model.sample(4, control=wish) for wish in (good, bad)]
    assert mixed == [apart[place % 2][place] for place in range(4)]
    scored = run("evaluate", "--checkpoint=vae", "--targets=wishes.jsonl", "--num=4", cwd=place)
    assert scored.returncode == 0, scored.stderr
    best = run("sample", "--checkpoint=vae", "--control=mood=good", "--best_of=3", "--num=2", cwd=place)
    assert best.returncode == 0 and len(best.stdout.splitlines()) == 2, best.stderr
