"""Bad inputs and environments on the command line: a clear error, no traceback, no hang, no file of the user lost."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import run
from support.runs import ROOT, TEXTS, trained, write_texts

pytestmark = pytest.mark.slow
SECONDS = 60
LONG = "1" + "0" * 5000
DEEP = "[" * 100_000
NOT_NUMBERS = ["", "abc", "-1", "1.5", "²", "nan", "1e400", LONG]
CONFIG = f"--config={ROOT}/configs/diffusion_lm.py"

CHECKPOINTS = ["absent", "texts.txt", "folder", "", "run/config.json", "\0", "x" * 300, "~", "run/checkpoints"]
COMMANDS = [
    ("sample",),
    ("edit", "--input=texts.txt"),
    ("evaluate",),
    ("visualize",),
    ("verify",),
    ("benchmark", "sample"),
]
NUMBERS = {
    ("sample",): ["num", "steps", "seed", "at", "best_of", "mbr"],
    ("edit", "--input=texts.txt"): ["num", "steps", "seed"],
    ("evaluate",): ["num", "best_of", "mbr", "at"],
    ("visualize",): ["num", "frames", "seed"],
    ("verify",): ["repeats", "steps"],
    ("benchmark", "sample", "--no_peer"): ["num", "repeats"],
}
VALUES = {
    "edit": [
        "--strength=2",
        "--strength=-1",
        "--strength=nan",
        "--strength=x",
        "--max_time=1",
        "--input=absent",
        "--input=folder",
    ],
    "evaluate": ["--split=dev", "--judge=absent", "--edits=mood", "--references=texts.txt", "--judge_text=absent"],
    "visualize": ["--text=", "--text=The Mill", "--template=none", "--frames=1", "--out=texts.txt/x"],
    "verify": ["--out=absent/x.json", "--out=folder", "--sampler=absent", "--sampler=", "--unknown"],
}
CONTROLS = ["", "=", "food", "food=", "=Thai", "food=Thai", "length=0", "length=-1", "length=x", "length=1|2"]
CONTROLS += ["length=999", f"length={LONG}", "length=3*nan", "length=3*-1", "length=3*1e400", "keyword="]
CONTROLS += [
    "keyword=zzz",
    "regex=(",
    "regex=[",
    "regex=*",
    "regex=",
    "regex=zzzz+",
    "pos=",
    "pos=X",
    "tree=(",
    "tree=(x",
]
CONTROLS += ["span=", "span=1-2", "span=0-0:x", "span=9-1:x", "a|b=c", "food!=", "../x=y", "/=x", ".=x", "\0=x"]
OVERRIDES = ["", "=", "x", "steps=3", "method.sampler.name=x", "mesh.data=3", "method.sampler.steps=0", "seed.x=1"]
TEMPLATES = ["", " ", "no gap", "[MASK] " * 100, "absent [MASK]", "\0 [MASK]", "[MASK", "[mask]", "\u2028"]
FIELDS = ["", "=", "seed", "seed=x", "seed=-1", f"seed={LONG}", "seed=1.5", "seed=None", "width=3", "method=3"]
FIELDS += ["num_steps=0", "num_steps=-1", "batch_size=0", "batch_size=x", "every.log=0", "every=1", "mesh.data=3"]
FIELDS += ["mesh.data=0", "mesh.fsdp=-1", "mesh.fsdp=x", "optim.peak=x", "optim.peak=-1", "optim.peek=1", "optim.b1=2"]
FIELDS += ["optim.accumulate=0", "optim.accumulate=7", "method.schedule=x", "method.trunk.width=0", "warm_start=absent"]
FIELDS += ["method.trunk.width=7", "method.trunk.num_heads=0", "method.trunk.dropout=2", "method.sampler.steps=0"]
FIELDS += ["method.sampler.name=x", "text.length=0", "text.length=1", "text.buckets=0", "text.tokenizer=x"]
FIELDS += [
    "text.tokenizer=words:x",
    "text.tokenizer=words:²",
    f"text.tokenizer=words:{LONG}",
    "text.tokenizer=words:-1",
]
FIELDS += [
    "text.tokenizer=pretrained:",
    "text.tokenizer=pretrained:/absent",
    "text.tokenizer=byte_pairs:3",
    "text.path=",
]
FIELDS += ["text.path=absent", "text.path=folder", "text.path=hub:", "text.path=hub::x", "text.path=package:"]
FIELDS += ["text.path=package:x", "text.path=hub:absent/absent", "text.labels==", "text.labels=a=b", "text.path=run"]
OTHER = ['"x"', "null", "[]", "{}", "3", "NaN", "", "\0", "{", '{"a": 1}', DEEP, LONG, '"\\ud800"', "\udcff", "\ufeff"]
CONTENTS: dict[str, list[str]] = {
    ".txt": ["", "\n\n", "only", "\0", "a\n\0", "\udcff", "a\nb\udce9", "\ufeff", " \n\u2028"],
    ".jsonl": [*OTHER, '{"text": null}', '{"text": 3}', '{"text": []}', '{"text": "a"}', '{"text": "a"}\n{'],
    ".csv": ["", "text", "text\n", "x\na", 'text\n"a', 'text\n"a" b', "text,b\na", "text\na,b", "\0", "text\n\udcff"],
}
r"""The characters \udc80 to \udcff are written as bytes that are not UTF-8."""

BAD: list[tuple[str, ...]] = [
    (*command, "--checkpoint=run", f"--{flag}={value}")
    for command, flags in NUMBERS.items()
    for flag in flags
    for value in NOT_NUMBERS
]
BAD += [(command, "--checkpoint=run", value) for command, values in VALUES.items() for value in values]
BAD += [(*command, f"--checkpoint={run}") for command in COMMANDS for run in CHECKPOINTS]
BAD += [(*command, "--checkpoint=run", f"--override={field}") for command in COMMANDS for field in OVERRIDES]
BAD += [("edit", "--input=texts.txt", "--checkpoint=run", f"--control={control}") for control in CONTROLS]
BAD += [("sample", "--checkpoint=run", f"--control={control}") for control in CONTROLS]
BAD += [("sample", "--checkpoint=run", f"--template={template}") for template in TEMPLATES]
BAD += [("train", CONFIG, "--workdir=new", "--config.text.path=texts.txt", f"--config.{field}") for field in FIELDS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run and texts."""
    folder = tmp_path_factory.mktemp("place")
    write_texts(folder)
    (folder / "folder").mkdir()
    shutil.copytree(trained("diffusion_lm.py"), folder / "run")
    return folder


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def check_refused(place: Path, *arguments: str) -> None:
    before = files_of(place)
    done = run(*arguments, cwd=place)
    assert files_of(place).items() >= before.items(), "a file was changed or lost"
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: "), done
    assert len(done.stderr) < 3000


def shown(arguments: tuple[str, ...]) -> str:
    return ascii(" ".join(text for text in arguments if ROOT.as_posix() not in text))[1:80]


@pytest.mark.parametrize("arguments", BAD, ids=shown)
def test_a_bad_argument_is_refused(arguments: tuple[str, ...], place: Path) -> None:
    check_refused(place, *arguments)


@pytest.mark.parametrize(
    "suffix,content", [(s, c) for s, contents in CONTENTS.items() for c in contents], ids=lambda x: ascii(x)[:30]
)
def test_a_bad_text_is_refused(suffix: str, content: str, place: Path) -> None:
    (place / f"bad{suffix}").write_text(content, encoding="utf-8", errors="surrogateescape")
    check_refused(place, "train", CONFIG, "--workdir=new", f"--config.text.path=bad{suffix}")


@pytest.mark.parametrize("content", OTHER, ids=lambda x: ascii(x)[:30])
@pytest.mark.parametrize("what", ["targets", "scores", "config"])
def test_bad_json_is_refused(what: str, content: str, place: Path) -> None:
    file = place / "bad.json"
    if what == "config":
        (place / "damaged").mkdir(exist_ok=True)
        file = place / "damaged" / "config.json"
    file.write_text(content, encoding="utf-8", errors="surrogateescape")
    commands = {
        "targets": ("evaluate", "--checkpoint=run", "--num=2", "--targets=bad.json"),
        "scores": ("compare", "bad.json"),
        "config": ("sample", "--checkpoint=damaged"),
    }
    check_refused(place, *commands[what])


@pytest.mark.parametrize("content", ["", "a\n\0", "\udcff", "a\nb\udce9"], ids=ascii)
def test_bad_lines_to_edit_are_refused(content: str, place: Path) -> None:
    (place / "input").write_text(content, encoding="utf-8", errors="surrogateescape")
    check_refused(place, "edit", "--checkpoint=run", "--steps=1", "--input=input")


@pytest.mark.parametrize(
    "content",
    ["mine\n", "{}\n", '{"source": "x"}\n', "\udcff", '{"source": ' + DEEP + "\n"],
    ids=lambda x: ascii(x)[:30],
)
def test_a_file_of_something_else_is_not_written_over(content: str, place: Path) -> None:
    (place / "out.jsonl").write_text(content, encoding="utf-8", errors="surrogateescape")
    check_refused(place, "edit", "--checkpoint=run", "--steps=1", "--input=texts.txt", "--out=out.jsonl")


ENVIRONMENTS = [
    ({"JAX_PLATFORMS": "cuda"}, "", 2),
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "", 0),
    ({"PYTHONIOENCODING": "latin-1"}, "", 0),
    ({"HOME": "/absent", "JTEXTDIFF_CACHE": ""}, "", 0),
    ({}, "<&-", 2),
    ({}, ">&- 2>&-", 0),
]


@pytest.mark.parametrize("environment,redirection,status", ENVIRONMENTS, ids=str)
def test_a_process_in_an_unusual_environment_edits_or_says_why_not(
    environment: dict[str, str], redirection: str, status: int, place: Path
) -> None:
    before = files_of(place)
    line = f'"$0" -m jtextdiff.edit --checkpoint=run --steps=1 {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        input=f"{TEXTS[0]}\ncafé 中\n".encode(),
        capture_output=True,
        timeout=SECONDS,
    )
    assert done.returncode == status and b"Traceback" not in done.stderr, done.stderr.decode()[-2000:]
    assert len(done.stdout.decode("utf-8").splitlines()) == (0 if status or redirection else 2)
    assert files_of(place).items() >= before.items()
