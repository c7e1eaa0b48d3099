"""Whole runs through the command line, at toy size: every config learns, stops, resumes, samples and is scored."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.cases import slow_but
from support.command_line import run
from support.runs import ROOT, STEPS, TEXTS, TOY, WITH_DEFAULT_SIGNALS, metrics, toy, trained, write_texts

import jtextdiff as jtd
from jtextdiff.data.corpus import prepare_corpus
from jtextdiff.data.tokenizer_builders import tokenizer_builder
from jtextdiff.data.word_vectors import neighbour_vectors
from jtextdiff.inference.batched import jitted
from jtextdiff.run.config import build
from jtextdiff.run.workdir import locked

CONFIGS = [
    *sorted(path.name for path in (ROOT / "configs").glob("*.py") if path.name not in ("control.py", "flow.py")),
    *("diffusion_lm.py:paper", "diffusion_lm.py:e2e", "latent_ops.py:paper", "della.py:paper"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small text, and in `whole` a Diffusion-LM trained on it."""
    folder = tmp_path_factory.mktemp("runs")
    write_texts(folder)
    shutil.copytree(trained("diffusion_lm.py"), folder / "whole")
    return folder


def start(place: Path, workdir: str, steps: int, *more: str) -> subprocess.Popen[str]:
    """Starts a training in a new process."""
    training = [sys.executable, "-m", "jtextdiff.train", *toy(workdir, steps, *more)]
    command = [sys.executable, "-c", WITH_DEFAULT_SIGNALS, *training]
    return subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("config", slow_but(["diffusion_lm.py"], CONFIGS))
def test_every_config_learns(config: str) -> None:
    workdir = trained(config)
    # The loss of a text VAE rises with the weight of its divergence; its reconstruction term falls.
    losses = [row.get("reconstruction", row["loss"]) for row in metrics(workdir) if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * losses[0]
    for name in ("config.json", "tokenizer", "checkpoints", "metrics.jsonl", f"samples/{STEPS}.txt", "loss.png"):
        assert (workdir / name).exists(), name
    texts = run("sample", f"--checkpoint={workdir}", "--num=2", cwd=workdir.parent)
    assert texts.returncode == 0 and len(texts.stdout.splitlines()) == 2, texts.stderr


def test_a_resumed_run_equals_an_uninterrupted_one(place: Path) -> None:
    assert run("train", *toy("halves", 5), cwd=place).returncode == 0
    resumed = run("train", *toy("halves", STEPS), cwd=place)
    assert resumed.returncode == 0 and "Resuming from step 5" in resumed.stderr, resumed.stderr
    terms = ("step", "loss", "cross_entropy", "gradient_norm")
    curves = [
        [[row[name] for name in terms] for row in metrics(place / workdir) if "loss" in row]
        for workdir in ("halves", "whole")
    ]
    assert curves[0] == curves[1] and len(curves[0]) == STEPS
    samples = [(place / name / "samples" / f"{STEPS}.txt").read_text() for name in ("halves", "whole")]
    assert samples[0] == samples[1] != ""


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [("fsdp=2", "tensor=2"), ()], ids=["split", "spread"])
def test_four_devices_give_the_losses_and_samples_of_one(mesh: tuple[str, ...], place: Path) -> None:
    """Losses differ by rounding only, and at most one text differs, where two tokens are equally likely."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    env, workdir = {**os.environ, "XLA_FLAGS": flags}, f"four-{len(mesh)}"
    command = [sys.executable, "-m", "jtextdiff.train", *toy(workdir, 4, *(f"--config.mesh.{size}" for size in mesh))]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "devices: 4" in done.stderr, done.stderr
    assert run("train", *toy("alone", 4), cwd=place).returncode == 0
    one, four = ([row["loss"] for row in metrics(place / name) if "loss" in row] for name in ("alone", workdir))
    np.testing.assert_allclose(four, one, rtol=1e-4)
    one, four = ((place / name / "samples" / "4.txt").read_text().splitlines() for name in ("alone", workdir))
    assert len(four) == len(one) > 4 and sum(ours != theirs for ours, theirs in zip(four, one, strict=True)) <= 1


def test_embeddings_are_computed_from_the_text_and_stay_fixed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    model = jtd.load(place / "whole")
    corpus = prepare_corpus(build(model.config.text), tokenizer=model.tokenizer, warn=str)
    train = corpus.splits["train"]
    dim = model.method.embed_dim
    expected = neighbour_vectors(train.tokens, train.offsets, model.tokenizer.vocab_size, dim)
    embedding = np.asarray(model.params["embedding"])
    directions = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)  # weight decay shortens them
    np.testing.assert_allclose(directions, expected, atol=1e-5)


@pytest.mark.slow
def test_masked_diffusion_follows_and_edits_towards_a_control_of_words(tmp_path: Path) -> None:
    place, lines = tmp_path, [f"{text},{text.split()[-2]}" for text in TEXTS * 10]
    (place / "priced.csv").write_text("\n".join(["text,price", *lines]) + "\n")
    shutil.copytree(trained("masked.py"), place / "masked")
    shutil.copy(trained("masked.py").parent / "texts.txt", place)
    fit = ("train", f"--config={ROOT}/configs/control.py", "--config.base=masked", "--config.label=price")
    fit = (*fit, "--config.text.path=priced.csv")
    for wrong in ("--config.latent.width=3", "--config.method.weight=2"):
        done = run(*fit, wrong, cwd=place)
        assert done.returncode == 2 and "use --config.words.*" in done.stderr, done.stderr
    done = run(*fit, "--config.num_labelled=20", cwd=place)
    assert done.returncode == 0 and "accuracy 1.000" in done.stderr, done.stderr
    for price in ("dear", "small"):
        done = run("sample", "--checkpoint=masked", "--num=12", f"--control=price={price}*2", cwd=place)
        assert sum(price in text.split() for text in done.stdout.splitlines()) >= 10, done.stdout
    texts = "The Mill is cheap .\nThe Swan is small .\n"
    edited = run("edit", "--checkpoint=masked", "--strength=0.2", "--control=price=dear*2", cwd=place, text=texts)
    assert edited.stdout == "The Mill is dear .\nThe Swan is dear .\n", edited.stderr
    best = run("sample", "--checkpoint=masked", "--num=2", "--control=price!=dear", "--best_of=2", cwd=place)
    assert best.returncode == 0 and "dear" not in best.stdout and "energy, of 2" in best.stderr
    more = ("--override=text.path=priced.csv", "--num=8", "--strength=0.2")
    scored = run("evaluate", "--checkpoint=masked", "--edits=price", *more, cwd=place)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["rows"]["edit"]["success"]["value"] == 1.0
    refused = run("sample", "--checkpoint=masked", "--control=keyword=dear", cwd=place)
    assert refused.returncode == 2 and "values of labels" in refused.stderr


@pytest.mark.slow
def test_a_control_is_trained_and_followed(place: Path) -> None:
    lines = [f"{text},{text.split()[-2]}" for text in TEXTS * 10]
    (place / "priced.csv").write_text("\n".join(["text,price", *lines]) + "\n")
    fast = ("--config.optim.peak=1e-2", "--config.optim.warmup=1", "--config.optim.decay_steps=100")
    small = [flag for flag in TOY if "tokenizer" not in flag] + list(fast)
    more = ("--config.text.path=priced.csv", "--config.base=whole", "--config.num_steps=100", *small)
    config = f"--config={ROOT}/configs/control.py"
    done = run("train", config, "--config.label=price", *more, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "--checkpoint whole --control price=VALUE" in done.stderr
    losses = [row["loss"] for row in metrics(place / "whole" / "controls" / "price") if "loss" in row]
    assert np.mean(losses[-10:]) < 0.8 * losses[0]
    strong = [f"--override=method.sampler.guidance.{setting}" for setting in ("update_rule=sign", "rate=3", "stop=0")]
    samples = ("sample", "--checkpoint=whole", "--num=2", "--steps=4", *strong)
    controlled = run(*samples, "--control=price=cheap*2", "--control=length=5", cwd=place)
    assert controlled.returncode == 0, controlled.stderr
    assert [len(text.split()) for text in controlled.stdout.splitlines()] == [5, 5]
    assert controlled.stdout != run(*samples, "--control=price=dear", "--control=length=5", cwd=place).stdout
    best = run(*samples, "--control=price=cheap", "--best_of=3", cwd=place)
    assert len(best.stdout.splitlines()) == 2 and "energy, of 3" in best.stderr
    scored = run("evaluate", *samples[1:], "--num=4", "--control=keyword=The", "--mbr=2", cwd=place)
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scored.stdout)
    assert 0 <= result["metrics"]["control_success"]["value"] <= 1 and "BLEU, of 2" in result["chosen"]
    for wrong, message in [
        ("price=free", "has no value 'free'; it has: cheap, dear, small"),
        ("mood=good", "has no control 'mood'; it has: length, keyword, regex, price"),
        ("price", "is not NAME=VALUE"),
    ]:
        done = run(*samples, f"--control={wrong}", cwd=place)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    for wrong, message in [
        (("--config.label=mood", *more), "no label 'mood'; it has: price"),
        (("--config.label=price", *more[:1], *more[2:]), "--config.base=RUN"),
    ]:
        done = run("train", config, *wrong, cwd=place)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    done = run("sample", "--checkpoint=whole/controls/price", cwd=place)
    assert done.returncode == 2 and "is a control" in done.stderr


@pytest.mark.parametrize(
    "number", slow_but([signal.SIGUSR1], [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
)
def test_a_stopped_run_saves_and_prints_how_to_resume(number: signal.Signals, place: Path) -> None:
    workdir = f"stopped-{number.name}"
    process = start(place, workdir, 100_000)
    try:
        wait_for(place / workdir / "metrics.jsonl", process)
        process.send_signal(number)
        stderr = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Stopped by" in stderr and f"python -m jtextdiff.train {shlex.join(toy(workdir, 100_000))}" in stderr
    last = metrics(place / workdir)[-1]["step"]
    assert (place / workdir / "checkpoints" / str(last)).is_dir()


@pytest.mark.slow
def test_kill_loses_no_checkpoint(place: Path) -> None:
    process = start(place, "killed", 100_000, "--config.every.checkpoint=1")
    wait_for(place / "killed" / "checkpoints" / "3", process)
    process.kill()
    process.communicate()
    texts = run("sample", "--checkpoint=killed", "--num=1", "--steps=2", cwd=place)
    assert texts.returncode == 0, texts.stderr


@pytest.mark.slow
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(place: Path) -> None:
    more = ("--config.every.checkpoint=2",)
    assert run("train", *toy("damaged", 4, *more), cwd=place).returncode == 0
    for file in (place / "damaged" / "checkpoints" / "4").rglob("*"):
        if file.is_file() and file.stat().st_size > 0:
            file.write_bytes(b"")
    texts = run("sample", "--checkpoint=damaged", "--num=1", "--steps=2", cwd=place)
    assert texts.returncode == 0 and "step 4" in texts.stderr and "cannot be read" in texts.stderr, texts.stderr
    again = run("train", *toy("damaged", 4, *more), cwd=place)
    assert again.returncode == 0 and "Resuming from step 2" in again.stderr, again.stderr
    whole = run("sample", "--checkpoint=damaged", "--num=1", "--steps=2", cwd=place)
    assert "cannot be read" not in whole.stderr and whole.returncode == 0


def test_only_some_fields_may_change_on_resuming(place: Path) -> None:
    done = run("train", *toy("whole", 12, "--config.method.embed_dim=8"), cwd=place)
    assert done.returncode == 2
    assert "method.embed_dim" in done.stderr and "64" in done.stderr and "Traceback" not in done.stderr


def test_a_path_that_cannot_hold_checkpoints_is_refused_before_anything_is_written(place: Path) -> None:
    done = run("train", *toy("lr=[0.1,0.2]", 1), cwd=place)
    assert done.returncode == 2 and "because of '['" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (place / "lr=[0.1,0.2]").exists()


def test_a_second_writer_is_refused(place: Path) -> None:
    with locked(place / "shared"):
        done = run("train", *toy("shared", 100_000), cwd=place)
    assert done.returncode == 2 and "Another process" in done.stderr


def test_template_words_never_change(place: Path) -> None:
    template = "The [MASK] is [MASK] ."
    texts = run("sample", "--checkpoint=whole", "--num=3", "--steps=5", f"--template={template}", cwd=place)
    assert texts.returncode == 0, texts.stderr
    for line in texts.stdout.splitlines():
        words = line.split(" ")
        assert len(words) == 5 and [words[i] for i in (0, 2, 4)] == ["The", "is", "."]


def test_evaluate_writes_all_documented_fields(place: Path) -> None:
    files = ("--checkpoint=whole", f"--judge={trained('autoregressive.py')}", "--out=scores.json")
    done = run("evaluate", *files, "--num=30", "--steps=3", cwd=place)
    assert done.returncode == 0, done.stderr
    scores = json.loads((place / "scores.json").read_text())
    assert scores.keys() >= {"method", "step", "split", "seed", "num_samples", "sampler", "steps", "nfe", "metrics"}
    values = scores["metrics"]
    ratio = values["generative_perplexity"]["value"] / values["generative_perplexity"]["real_valid"]
    assert values["perplexity_ratio"]["value"] == pytest.approx(ratio)
    assert values["generative_perplexity"]["n"] == 30
    assert values["judge_nll"]["n"] == values["nll"]["n"] < 30  # the split has fewer texts
    for row in values.values():
        assert row.keys() == {"value", "unit", "se", "n", "kind", "real_valid", "real_train"}


@pytest.mark.slow
def test_samples_are_scored_where_they_are_as_varied_as_real_text(place: Path) -> None:
    flags = ("--num=30", "--steps=3", "--override=method.sampler.temperature=0.5", "--match_entropy")
    done = run("evaluate", "--checkpoint=whole", *flags, cwd=place)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    own, matched = (part["metrics"]["unigram_entropy"] for part in (scores, scores["matched_entropy"]))
    distance, own_distance = (abs(score["value"] - score["real_valid"]) for score in (matched, own))
    assert distance <= own_distance and f"At temperature {scores['matched_entropy']['temperature']:.3f}" in done.stderr
    greedy = run("evaluate", f"--checkpoint={trained('autoregressive.py')}", "--sampler=greedy", flags[-1], cwd=place)
    assert greedy.returncode == 2 and "greedy has none" in greedy.stderr, greedy.stderr


@pytest.mark.slow
def test_samples_are_scored_with_the_exact_predictions_of_the_grammar(tmp_path: Path) -> None:
    """Whatever the network has learned, tokens that are drawn one by one are then sentences."""
    small = [flag for flag in toy("run", 5, config="masked.py") if "text" not in flag]
    assert run("train", *small, cwd=tmp_path).returncode == 0
    one_by_one = ("--sampler=ordered", "--override=method.sampler.correct=off", "--num=8", "--exact_denoiser")
    done = run("evaluate", "--checkpoint=run", *one_by_one, cwd=tmp_path)
    scores = json.loads(done.stdout)["metrics"]
    assert scores["members"]["value"] < 0.2 and scores["exact_denoiser_members"]["value"] == 1.0


def test_exact_predictions_of_another_text_are_refused(place: Path) -> None:
    done = run("evaluate", "--checkpoint=whole", "--exact_denoiser", cwd=place)
    assert done.returncode == 2 and "of the embedded grammar" in done.stderr, done.stderr


def test_a_judge_of_another_tokenizer_is_refused(place: Path) -> None:
    letters = shutil.copytree(trained("autoregressive.py"), place / "letters")
    tokenizer_builder("characters:1").train(TEXTS).save(letters / "tokenizer")
    done = run("evaluate", "--checkpoint=whole", "--judge=letters", cwd=place)
    assert done.returncode == 2 and "letters has another tokenizer" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


@pytest.mark.slow
def test_verify_passes_a_correct_model_and_lists_its_checks(place: Path) -> None:
    done = run("verify", "--checkpoint=whole", "--steps=3", "--step_counts=1", cwd=place)
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["passes"] and all(check["passes"] for check in certificate["checks"])
    assert {"batch_invariance", "fixed_words", "two_likelihoods"} <= {check["name"] for check in certificate["checks"]}


@pytest.mark.slow
def test_benchmark_compiles_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jitted.cache_clear()  # compiled by other tests
    monkeypatch.setattr("jtextdiff.benchmarks.timing.MATMUL_SIZE", 64)
    flags = ("--num=2", "--steps=2", "--repeats=2", "--no_peer")
    done = run("benchmark", "sample", "--checkpoint=whole", *flags, cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["compilations"] == 1
    assert [len(times) for times in result["timings"].values()] == [2, 2, 2]


@pytest.mark.slow
def test_benchmark_times_a_training_and_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jtextdiff.benchmarks.timing.MATMUL_SIZE", 64)
    before = sorted(place.iterdir())
    flags = ("--num_steps=2", "--repeats=1", "--no_peer")
    file, _, *more = toy("none", 12)
    done = run("benchmark", "train", file, *more, *flags, cwd=place)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["loop_over_bare"] > 0 and result["matmul_gflop_per_step"] > 0 and 0 < result["padding"] < 1
    assert sorted(place.iterdir()) == before


def test_visualize_writes_both_pictures(place: Path) -> None:
    done = run("visualize", "--checkpoint=whole", "--num=1", "--steps=4", "--out=denoising", cwd=place)
    assert done.returncode == 0, done.stderr
    assert (place / "denoising.png").stat().st_size > 0 and "<html" in (place / "denoising.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.method.num_stesp=3"), "num_steps"),
        (("train", "--config={root}/configs/diffusion_lm.py:papre"), "preset"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.num_steps=abc"), "num_steps"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.text.path=absent.txt"), "absent.txt"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.batch_size=0"), "batch_size"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.every.log=0"), "every.log"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.method.schedule=foo"), "cosine"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.warm_start=absent"), "warm_start"),
        (("train", "--config=absent.py"), "absent.py"),
        (("train",), "--config"),
        (("sample", "--checkpoint=absent"), "absent"),
        (("sample", "--checkpoint=whole", "--num=0"), "--num"),
        (("sample", "--checkpoint=whole", "--override=method.sampler.stesp=3"), "steps"),
        (("sample", "--checkpoint=whole", "--template=no gap here"), "[MASK]"),
        (("sample", "--checkpoint=whole", "--template=The [MASK] is hippopotamus ."), "outside the model's vocabulary"),
        (("sample", "--checkpoint=whole", "--at=²"), "--at"),
        (("sample", "--checkpoint=whole", f"--seed={2**64}"), "--seed"),
        (("benchmark",), "train|sample"),
        (("benchmark", "train", "--config={root}/configs/diffusion_lm.py", "--steps=3"), "--steps"),
        (("benchmark", "sample", "--checkpoint=whole", "--num=0"), "--num"),
        (("evaluate", "--checkpoint=whole", "--split=dev"), "valid"),
        (("evaluate", "--checkpoint=whole", "--judge=whole"), "exact"),
        (("train", "--config={root}/configs/diffusion_lm.py", "--config.method.embed_dim=None"), "embed_dim"),
        (("sample", "--checkpoint=whole", "--template=" + "The " * 70 + "[MASK]"), "72 tokens"),
        (("verify", "--checkpoint=whole", "--repeats=0"), "--repeats"),
        (("verify", "--checkpoint=whole", "--step_counts=-1"), "--step_counts"),
        (("verify", "--checkpoint=whole", "--out=absent/certificate.json"), "absent"),
    ],
)
def test_errors_are_one_line_and_status_two(arguments: tuple[str, ...], message: str, place: Path) -> None:
    module, *rest = (text.format(root=ROOT) for text in arguments)
    done = run(module, *rest, cwd=place)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3 and done.stdout == ""


@pytest.mark.parametrize(
    "module", ["train", "sample", "edit", "evaluate", "visualize", "benchmark", "compare", "verify"]
)
def test_help_does_not_import_jax(module: str, place: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", f"jtextdiff.{module}", "--help"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "example" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"jax", "flax", "numpy"}


def test_a_process_ends_with_the_status_of_its_command(place: Path) -> None:
    command = [sys.executable, "-m", "jtextdiff.sample", "--checkpoint=whole", "--num=0"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: --num")


def test_a_closed_pipe_is_no_error(place: Path) -> None:
    """As in `… | head -n 0`: no traceback, and status 1, since not all output was read."""
    command = [sys.executable, "-m", "jtextdiff.sample", "--checkpoint=whole", "--num=1", "--steps=2"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 1 and "Traceback" not in stderr and "Exception" not in stderr, stderr


def wait_for(path: Path, process: subprocess.Popen, seconds: int = 120) -> None:
    """Waits until a file of a running process exists and is not empty."""
    end = time.monotonic() + seconds
    while not (path.is_dir() or (path.exists() and (path.name == "lock" or path.stat().st_size))):
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_the_users_cache_is_not_used() -> None:
    assert "JTEXTDIFF_CACHE" in os.environ, "the tests must not write to the user's own cache"


def test_edit_keeps_the_order_marks_skipped_texts_and_resumes(place: Path) -> None:
    lines = ["The Mill is cheap .", "", "The Mill is so very cheap " * 20, "The Swan is dear ."]
    (place / "source.txt").write_text("\n".join(lines) + "\n")
    command = ("edit", "--checkpoint=whole", "--steps=3", "--strength=1", "--input=source.txt")
    done = run(*command, cwd=place)
    assert done.returncode == 0, done.stderr
    texts = done.stdout.splitlines()
    assert texts[1:3] == [lines[1], lines[2]] and [len(text.split()) for text in (texts[0], texts[3])] == [5, 5]
    assert run(*command, "--out=all.jsonl", cwd=place).returncode == 0
    rows = [json.loads(line) for line in (place / "all.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == lines and [row["rewrite"] for row in rows] == texts
    assert [row.get("left", "")[:6] for row in rows] == ["", "empty", "longer", ""]
    whole = (place / "all.jsonl").read_text()
    (place / "half.jsonl").write_text(whole[: whole.index("\n", 200) - 40])
    done = run(*command, "--out=half.jsonl", cwd=place)
    assert "Continuing after" in done.stderr and (place / "half.jsonl").read_text() == whole
    kept = run("edit", "--checkpoint=whole", "--steps=3", "--hold=Swan", "--input=source.txt", cwd=place)
    assert kept.stdout.splitlines()[3].split()[1] == "Swan"
    (place / "bytes.txt").write_bytes(b"The Mill \xff\n")
    (place / "empty.txt").touch()
    for wrong, message in [
        (["--strength=2"], "strength"),
        (["--input=none.txt"], "no such file"),
        (["--input=empty.txt"], "empty.txt is empty"),
        (["--input=bytes.txt"], "bytes.txt, line 1: byte 0xff is not UTF-8"),
        (["--input=source.txt", "--control=length=4"], "keeps the length"),
        (["--input=source.txt", "--hold=hippopotamus"], "does not contain"),
    ]:
        done = run("edit", "--checkpoint=whole", *wrong, cwd=place)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
