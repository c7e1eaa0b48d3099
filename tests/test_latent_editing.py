"""Latent control from the command line, at toy size: training, controls, sampling, editing, figures and scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import Completed, run
from support.runs import NAMES, ROOT, toy, trained, write_texts

import jtextdiff as jtd
from jtextdiff.control.controls import classifier
from jtextdiff.control.resolve import resolve
from jtextdiff.control.trained import trained_classifier, trained_trigrams
from jtextdiff.inference.editing.latent import STOPS
from jtextdiff.metrics.trigram_classifier import log_likelihoods

FIT = ["--config.latent.max_iterations=20", "--config.latent.penalties=(3.0,30.0)"]


def control(label: str) -> list[str]:
    return [f"--config={ROOT}/configs/control.py", "--config.base=vae", f"--config.label={label}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained text VAE in `vae`, and its control of mood."""
    folder = tmp_path_factory.mktemp("latent")
    write_texts(folder)
    shutil.copytree(trained("latent_ops.py"), folder / "vae")
    fit(folder, "mood")
    return folder


def fit(folder: Path, label: str) -> None:
    fitted = run("train", *control(label), *FIT, cwd=folder)
    assert fitted.returncode == 0 and "calibration error" in fitted.stderr, fitted.stderr


@pytest.fixture(scope="module")
def two_controls(place: Path) -> Path:
    """The same folder, with a control of size as well."""
    fit(place, "size")
    return place


def test_edits_keep_the_order_of_texts_and_report_probabilities(place: Path) -> None:
    lines = "The Mill is awful .\n\nThe Swan is lovely .\n" + "very " * 40 + "long\n"
    done = run("edit", "--checkpoint=vae", "--control=mood=good", "--out=out.jsonl", cwd=place, text=lines)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == lines.rstrip("\n").split("\n")
    assert [row.get("left", "")[:6] for row in rows] == ["", "empty", "", "longer"]
    for row in (rows[0], rows[2]):
        p_after = row["p_after"]["mood=good"]
        assert p_after >= row["p_before"]["mood=good"] and p_after >= 0.9
    assert rows[0]["rewrite"] != rows[0]["source"] and rows[0]["moved"] > 0
    assert rows[2]["rewrite"] == rows[2]["source"] and rows[2]["moved"] == 0, "it is good already"
    again = run("edit", "--checkpoint=vae", "--control=mood=good", "--out=out.jsonl", cwd=place, text=lines)
    assert "Continuing after the 4" in again.stderr and len((place / "out.jsonl").read_text().splitlines()) == 4


def test_a_control_has_trigrams_of_its_values(place: Path) -> None:
    model = jtd.load(place / "vae")
    batch = model.batch(["The Mill is awful .", "The Mill is lovely ."])
    trigrams = trained_trigrams("mood", model)
    assert trigrams is not None
    nats = log_likelihoods(trigrams.of_values, np.asarray(batch.tokens), np.asarray(batch.valid))
    readings = resolve(classifier("mood", "good"), model).readings
    assert readings is not None and readings.trigrams == (trigrams,), "edits are read by them"
    values = trained_classifier("mood", model)[0].values
    assert [values[number] for number in trigrams.log_p(nats).argmax(-1)] == ["bad", "good"]


@pytest.mark.slow
def test_words_are_learned_from_texts_without_label_too(place: Path, tmp_path: Path) -> None:
    """Of twenty texts of each value, words that occur in others alone are learned as well."""
    write_texts(tmp_path)
    shutil.copytree(place / "vae", tmp_path / "vae")
    weights = []
    for more in (["--config.latent.max_unlabelled=0"], []):
        shutil.rmtree(tmp_path / "vae/controls")
        fitted = run("train", *control("mood"), *FIT, "--config.num_labelled=20", *more, cwd=tmp_path)
        assert fitted.returncode == 0 and "mood: 40 labelled texts" in fitted.stderr, fitted.stderr
        assert ("further texts" in fitted.stderr) == (not more)
        _, params = trained_classifier("mood", jtd.load(tmp_path / "vae"))
        weights.append(np.asarray(params["words"]["weights"]))
    with_none, with_all = ((np.abs(of_words).max(-1) > 0.01).sum() for of_words in weights)
    assert with_none < with_all


@pytest.mark.slow
def test_a_control_that_was_fitted_before_it_had_trigrams_edits_too(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "vae", tmp_path / "vae")
    (tmp_path / "vae/controls/mood/trigrams.npz").unlink()
    done = run("edit", "--checkpoint=vae", "--control=mood=good", cwd=tmp_path, text="The Mill is awful .\n")
    assert done.returncode == 0 and done.stdout.strip() not in ("", "The Mill is awful ."), done.stderr


@pytest.mark.slow
def test_edits_that_need_not_be_minimal_stop_at_the_target_and_are_printed_too(place: Path) -> None:
    edit, text = ["--checkpoint=vae", "--control=mood=good", "--no-minimal"], "The Mill is awful .\n\n"
    done = run("edit", *edit, "--out=flow.jsonl", cwd=place, text=text)
    rows = [json.loads(line) for line in (place / "flow.jsonl").read_text().splitlines()]
    assert done.returncode == 0 and len(rows) == 2, done.stderr
    assert rows[0]["p_after"]["mood=good"] == pytest.approx(0.99, abs=0.01), "where the latent stopped"
    plain = run("edit", *edit, cwd=place, text=text)
    assert plain.stdout.splitlines() == [row["rewrite"] for row in rows]


@pytest.mark.slow
def test_a_learned_field_moves_texts_and_refuses_what_it_cannot_do(two_controls: Path) -> None:
    place = two_controls
    edit, text = ["--checkpoint=vae", "--learned"], "The Mill is awful .\nThe Swan is awful .\n"
    none = run("edit", *edit, "--control=mood=good", cwd=place, text=text)
    assert none.returncode != 0 and "configs/flow.py --config.base=vae --config.label=mood" in none.stderr, none.stderr
    fit = [f"--config={ROOT}/configs/flow.py", "--config.base=vae", "--config.label=mood"]
    fitted = run("train", *fit, *(f"--config.method.{x}" for x in ("steps=20", "pairs=512", "width=8")), cwd=place)
    assert fitted.returncode == 0 and "Loss on left-out texts" in fitted.stderr, fitted.stderr
    assert "--control mood=VALUE --learned" in fitted.stderr and (place / "vae/flows/mood/checkpoints/1").is_dir()
    done = run("edit", *edit, "--control=mood=good", "--out=learned.jsonl", cwd=place, text=text)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (place / "learned.jsonl").read_text().splitlines()]
    assert all(row["moved"] > 0.1 and row["p_after"]["mood=good"] > row["p_before"]["mood=good"] for row in rows)
    for flags, said in (
        (["--control=size=big"], "has fields of: mood"),
        (["--control=mood=good|bad"], "to one value"),
        (["--control=mood!=bad"], "without != or |"),
        (["--control=mood=good", "--control=size=big"], "give max_time too"),
        (["--control=mood=good", "--control=size=big", "--balance"], "give --max_time too"),
        (["--control=mood=good", "--source_pull=0.5"], "give max_time too"),
        (["--control=mood=good", "--push=-1"], "push must be a number from 0"),
    ):
        refused = run("edit", *edit, *flags, "--out=none.jsonl", cwd=place, text=text)
        assert refused.returncode != 0 and said in refused.stderr, refused.stderr
        assert not (place / "none.jsonl").exists()
    metrics = place / "vae/flows/mood/metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"loss": ', '"loss": 1'))  # as of another fit
    again = run("edit", *edit, "--control=mood=good", "--out=learned.jsonl", cwd=place, text=text)
    assert again.returncode != 0 and "with other settings" in again.stderr, again.stderr
    refused = run("edit", "--checkpoint=vae", "--control=mood=good", "--push=2", cwd=place, text=text)
    assert refused.returncode != 0 and "give learned as well" in refused.stderr


@pytest.mark.slow
def test_a_field_is_fitted_to_texts_and_edits_of_them(two_controls: Path) -> None:
    place, file = two_controls, two_controls / "edited.jsonl"
    pairs = [
        {"text": f"The {name} is awful .", "wanted": "good", "reference": f"The {name} is fine ."} for name in NAMES
    ]
    pairs += [{"text": row["reference"], "wanted": "bad", "reference": row["text"]} for row in pairs]
    file.write_text("\n".join(map(json.dumps, pairs)) + "\n")
    fit = ["train", f"--config={ROOT}/configs/flow.py", "--config.base=vae", "--config.label=mood", "--workdir=paired"]
    fit += [f"--config.method.{setting}" for setting in ("steps=20", "pairs=512", "width=8")]
    paired = [*fit, "--config.method.coupling=paired", "--config.references=edited.jsonl"]
    for wrong, said in (
        (paired[:-1], "such as {"),
        ([*fit, "--config.references=edited.jsonl"], "such as {"),
        ([*paired, "--config.num_labelled=5"], "num_labelled does not apply"),
        ([*paired[:-1], "--config.references=none.jsonl"], "none.jsonl cannot be read"),
    ):
        refused = run(*wrong, cwd=place)
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    fitted = run(*paired, cwd=place)
    assert fitted.returncode == 0 and "mood: 10 edits" in fitted.stderr, fitted.stderr
    assert "there already" in run(*paired, cwd=place).stderr
    file.write_text(json.dumps(pairs[0]) + "\n")
    changed = run(*paired, cwd=place)
    assert changed.returncode == 2 and "in references" in changed.stderr, changed.stderr
    short = run(*paired, "--workdir=short", cwd=place)
    assert short.returncode == 2 and "give it two at least" in short.stderr, short.stderr


@pytest.mark.slow
def test_long_texts_are_edited_piece_by_piece(place: Path) -> None:
    longest = "The Mill is awful . " * 9 + "very " * 40 + ".\n"
    text = "The Mill is awful . The Swan is awful . " * 5 + "\n" + longest
    edit = ["--checkpoint=vae", "--control=mood=good", "--pieces", "--out=pieces.jsonl"]
    done = run("edit", *edit, cwd=place, text=text)
    assert done.returncode == 0, done.stderr
    first, second = [json.loads(line) for line in (place / "pieces.jsonl").read_text().splitlines()]
    assert first["rewrite"] != first["source"] and first["moved"] > 0
    assert second["rewrite"] == second["source"] and "a clause of it is longer" in second["left"]


def test_edit_does_not_overwrite_other_files_or_edits_of_other_texts(place: Path) -> None:
    edit = ["--checkpoint=vae", "--control=mood=good", "--out=x.txt"]
    for content, message in (
        (b"my own notes\nand more", "is not an edit written by this command"),
        (b'{"source": "The Mill is\n', "is not an edit written by this command"),
        (b'{"source": "The Oak is fine .", "rewrite": "x"}\n', "of another text"),
        (b'{"source": "The Mill is awful .", "rewrite": "x", "made_with": "0"}\n', "with other settings"),
    ):
        (place / "x.txt").write_bytes(content)
        refused = run("edit", *edit, cwd=place, text="The Mill is awful .\n")
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
        assert (place / "x.txt").read_bytes() == content
    refused = run("edit", *edit, "--input=x.txt", cwd=place)
    assert (
        refused.returncode == 2 and "is --input itself" in refused.stderr and (place / "x.txt").read_bytes() == content
    )


@pytest.mark.slow
def test_a_text_is_edited_several_times(place: Path) -> None:
    lines = "The Mill is awful .\n\nThe Swan is fine .\n"
    short = run(
        "edit", "--checkpoint=vae", "--control=mood=good", "--max_time=0.001", "--no-minimal", cwd=place, text=lines
    )
    assert "warning: 2 edits end below the target probability" in short.stderr
    lines = "The Mill is awful .\nThe Swan is fine .\n"
    flags = [
        "--checkpoint=vae",
        "--control=mood=good",
        "--no-minimal",
        "--num=3",
        "--sampler=sample",
        "--override=method.sampler.temperature=3",
    ]
    done = run("edit", *flags, cwd=place, text=lines)
    edits = done.stdout.splitlines()
    assert len(edits) == 6 and len(set(edits[:3])) > 1, (edits, done.stderr)
    out = ["--out=often.jsonl"]
    run("edit", *flags, *out, cwd=place, text=lines.splitlines()[0] + "\n")
    rows = (place / "often.jsonl").read_text().splitlines(keepends=True)
    (place / "often.jsonl").write_text("".join(rows[:2]))
    run("edit", *flags, *out, cwd=place, text=lines)
    assert [json.loads(row)["rewrite"] for row in (place / "often.jsonl").read_text().splitlines()] == edits


@pytest.mark.slow
def test_texts_are_sampled_with_controls_and_visualized(two_controls: Path) -> None:
    place = two_controls
    both = ["--checkpoint=vae", "--control=mood=bad", "--control=size=small"]
    texts = run("sample", *both, "--num=3", "--balance", cwd=place)
    assert texts.returncode == 0 and len(texts.stdout.splitlines()) == 3 and "Weights: mood=bad" in texts.stderr
    shown = run("visualize", *both, "--num=1", "--out=shown", cwd=place)
    assert shown.returncode == 0 and (place / "shown.png").stat().st_size and (place / "shown.html").stat().st_size
    edit = ["--checkpoint=vae", "--text=The Mill is awful ."]
    shown = run("visualize", *edit, "--control=mood=good", "--out=own", cwd=place)
    assert shown.returncode == 0 and (place / "own.png").stat().st_size, shown.stderr
    done = run("edit", "--checkpoint=vae", cwd=place, text="The Mill is awful .\n")
    assert "only reconstructed" in done.stderr
    reconstruction = done.stdout.split()
    first = next(line for line in shown.stderr.splitlines() if line.startswith("t=1.00"))
    assert first.split("⏎")[0].split()[1:] == reconstruction
    refused = run("visualize", *edit, cwd=place)
    assert refused.returncode == 2 and "--control with an energy" in refused.stderr, refused.stderr
    sampled = run("sample", "--checkpoint=vae", "--control=keyword=lovely", "--num=2", cwd=place)
    assert sampled.returncode == 0, sampled.stderr


@pytest.mark.slow
def test_edits_are_scored_next_to_copies_and_reconstructions(two_controls: Path) -> None:
    place = two_controls
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
    assert paired.returncode == 2 and "pairs.jsonl, line 1: mood has no value 'odd'" in paired.stderr
    controls = ["--control=mood=good", "--control=size=big", "--interference", "--num=4", "--judge_text=rows.jsonl"]
    evaluated = run("evaluate", "--checkpoint=vae", *controls, cwd=place)
    assert evaluated.returncode == 0, evaluated.stderr
    kind = json.loads(evaluated.stdout)["metrics"]["control_success[mood=good]"]["kind"]
    assert "mood by n-grams of 112 texts of rows.jsonl, right for 100.0% of valid" in kind
    effect = json.loads(evaluated.stdout)["interference"]
    assert effect["names"] == ["mood=good", "size=big"] and effect["pushed"][0][0] > effect["unmoved"][0]


@pytest.fixture(scope="module")
def cvae(place: Path) -> Completed:
    """The training in `cvae` of a model that is conditioned on few labels, with a latent too costly to be used."""
    few = ["--config.method.condition=mood", "--config.num_labelled=10"]
    heavy = ["--config.method.beta=100", "--config.method.latent_dim=1"]
    return run("train", *toy("cvae", 3, *few, *heavy, config="latent_ops.py:cvae"), cwd=place)


@pytest.mark.slow
def test_a_frontier_is_scored_drawn_and_continued(place: Path) -> None:
    (place / "scores").mkdir()
    frontier = ("evaluate", "--checkpoint=vae", "--edits=mood", "--num=4", "--frontier=scores/energy")
    done = run(*frontier, cwd=place)
    assert done.returncode == 0 and "energy.0.99" in done.stdout, done.stderr
    files = sorted((place / "scores").glob("energy.*.json"))
    assert len(files) == len(STOPS) and (place / "scores/energy.png").stat().st_size
    probabilities = [json.loads(file.read_text())["flow"]["until"] for file in files]
    assert sorted(probabilities) == sorted(STOPS)
    files[0].unlink()
    again = run(*frontier, cwd=place)
    assert again.returncode == 0 and again.stdout == done.stdout and again.stderr.count("success ") == 1, again.stderr
    assert f"{len(STOPS) - 1} of {len(STOPS)} points" in again.stderr
    other = run(*frontier, "--seed=1", cwd=place)
    assert other.returncode == 2 and "was not written by this command" in other.stderr, other.stderr
    drawn = run("compare", *map(str, files), "--frontier=both.png", cwd=place)
    assert drawn.returncode == 0 and (place / "both.png").stat().st_size, drawn.stderr


@pytest.mark.slow
def test_reranked_edits_are_those_whose_words_have_the_value(two_controls: Path) -> None:
    place, lines = two_controls, "The Mill is awful .\nThe Swan is awful .\nThe Oak is lovely .\n"
    edit = ("edit", "--checkpoint=vae", "--control=mood=good", "--target_probability=0.8")
    done = run(*edit, "--rerank", "--out=reranked.jsonl", cwd=place, text=lines)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (place / "reranked.jsonl").read_text().splitlines()]
    good = [row for row in rows if {"lovely", "fine"} & set(row["rewrite"].split())]
    assert len(good) == 3 and all(row["p_after"]["mood=good"] >= 0.8 for row in good)
    assert [row["p_before"]["mood=good"] > 0.5 for row in rows] == [False, False, True], "both read from words"
    for more in (
        ["--control=size=small", "--rerank", "--max_time=5"],
        ["--word_hold=1", "--source_pull=0.1"],
        ["--word_guidance=3", "--no-minimal"],
    ):
        done = run(*edit, *more, cwd=place, text=lines)
        assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, (more, done.stderr)
    keyword = run("edit", "--checkpoint=vae", "--control=keyword=lovely", "--rerank", cwd=place, text=lines)
    assert keyword.returncode == 0 and len(keyword.stdout.splitlines()) == 3, keyword.stderr
    refused = run("edit", "--checkpoint=vae", "--control=keyword=lovely", "--word_hold=1", cwd=place, text=lines)
    assert refused.returncode == 2 and "have learned words" in refused.stderr, refused.stderr


@pytest.mark.slow
def test_posterior_collapse_is_warned_of(cvae: Completed) -> None:
    assert cvae.returncode == 0 and "posterior collapse" in cvae.stderr, cvae.stderr


@pytest.mark.slow
def test_a_conditional_model_needs_no_control(place: Path, cvae: Completed) -> None:
    assert cvae.returncode == 0 and "20 texts keep their label" in cvae.stderr, cvae.stderr
    lines = "The Mill is awful .\nThe Swan is awful .\n"
    edited = run("edit", "--checkpoint=cvae", "--control=mood=good", cwd=place, text=lines)
    assert edited.returncode == 0 and len(edited.stdout.splitlines()) == 2, edited.stderr
    scored = run("evaluate", "--checkpoint=cvae", "--edits=mood", "--num=4", "--judge_text=rows.jsonl", cwd=place)
    assert scored.returncode == 0, scored.stderr
    refused = run("edit", "--checkpoint=cvae", "--control=mood=good", "--until=0.9", cwd=place, text="The Mill .\n")
    assert refused.returncode == 2 and "enforced exactly" in refused.stderr, refused.stderr
    weighted = run("sample", "--checkpoint=cvae", "--control=mood=good*2", cwd=place)
    assert weighted.returncode == 2 and "sampler.guidance_scale=2" in weighted.stderr, weighted.stderr


def test_an_existing_control_is_kept_unless_the_settings_differ(place: Path) -> None:
    again = run("train", *control("mood"), *FIT, cwd=place)
    assert again.returncode == 0 and "there already" in again.stderr, again.stderr
    other = run("train", *control("mood"), *FIT, "--config.num_labelled=20", cwd=place)
    assert other.returncode == 2 and "num_labelled" in other.stderr, other.stderr
    few = run("train", *control("mood"), "--config.num_labelled=1", "--workdir=few", cwd=place)
    assert few.returncode == 2 and "at least 2 texts of each value" in few.stderr, few.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edit", "--checkpoint=vae", "--control=mood=good", "--strength=0.3"), "in latent space"),
        (
            ("edit", "--checkpoint=vae", "--control=mood=good", "--until=1.5"),
            "target_probability must be a number from 0 to 1",
        ),
        (("edit", "--checkpoint=vae", "--control=mood=odd"), "no value 'odd'"),
        (("edit", "--checkpoint=vae", "--control=taste=good"), "no control 'taste'"),
        (("sample", "--checkpoint=vae", "--control=mood=good", "--balance"), "nothing to weigh"),
        (("evaluate", "--checkpoint=vae", "--edits=taste"), "no label 'taste'"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--control=mood=bad"), "cannot be combined"),
        (("evaluate", "--checkpoint=vae", "--until=0.9"), "give --edits"),
        (("evaluate", "--checkpoint=vae", "--frontier=x"), "give --edits"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--frontier=a.b"), "without dots in an existing folder"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--frontier=no/x"), "without dots in an existing folder"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--frontier=x", "--until=0.9"), "leave them out"),
        (("evaluate", "--checkpoint=vae", "--edits=mood", "--strength=0.5"), "in latent space"),
        (("evaluate", "--checkpoint=vae", "--interference", "--control=mood=bad"), "nothing to weigh"),
        ((*("train", *control("mood")), "--config.method.weight=5"), "use --config.latent"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str, place: Path) -> None:
    done = run(*arguments, cwd=place, text="The Mill is awful .\n")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_each_text_of_a_batch_follows_its_own_control(place: Path) -> None:
    """A batch with different controls equals the samples of each control alone. Best-of-n runs."""
    rows = [json.dumps({"control": f"mood={mood}"}) for mood in ("good", "bad")]
    (place / "requests.jsonl").write_text("\n".join(rows) + "\n")
    model = jtd.load(place / "vae")
    good, bad = (jtd.controls.classifier("mood", mood) for mood in ("good", "bad"))
    mixed = [model.tokenizer.decode(row) for row in model.draw(4, control=[good, bad, good, bad]).tokens]
    separate = [model.sample(4, control=control) for control in (good, bad)]
    assert mixed == [separate[place % 2][place] for place in range(4)]
    assert model.sample(4, control="mood=good") == separate[0]  # a control as the command line takes it
    scored = run("evaluate", "--checkpoint=vae", "--targets=requests.jsonl", "--num=4", cwd=place)
    assert scored.returncode == 0, scored.stderr
    best = run("sample", "--checkpoint=vae", "--control=mood=good", "--best_of=3", "--num=2", cwd=place)
    assert best.returncode == 0 and len(best.stdout.splitlines()) == 2, best.stderr
