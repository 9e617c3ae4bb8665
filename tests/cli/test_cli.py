import re
import subprocess
import sys
from itertools import pairwise

import pytest

from ajest.cli.data import DATA_VERBS
from ajest.cli.main import VERBS
from forked import FORKED


def ajest(*words, cwd=None, columns=200, painted=False):
    return FORKED.run(["ajest", *words], cwd, {"COLUMNS": str(columns)}, painted=painted)


def fails(*words, says, cwd=None):
    done = ajest(*words, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("ajest: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.search(says, done.stderr), done.stderr


@pytest.mark.parametrize("verb", [*sorted(VERBS), *(f"data {verb}" for verb in sorted(DATA_VERBS))])
def test_every_verb_has_a_help_with_an_example(verb):
    done = ajest(*verb.split(), "--help", columns=80)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    usage, _, about, _, example = lines[:5]  # what it does in a line, and at once how it is typed
    assert usage.startswith(f"usage: ajest {verb}")
    assert about.endswith(".")
    assert example.startswith("Example: ajest ")
    assert not broken_early(lines)


def broken_early(lines):
    """Lines in the boxes of a help that end before they are full, as if its text were broken twice."""
    body = [line[2:-2] for line in lines if line.startswith("│")]
    found = []
    for line, after in pairwise(body):
        column, words = len(after) - len(after.lstrip()), after.split()
        runs_on = column >= 4 and words and line[column - 1] == " " and line[column].strip()
        if runs_on and line[: column - 1].endswith(" ") and len(line.rstrip()) + 1 + len(words[0]) <= len(line):
            found.append(f"{line.strip()} | {words[0]}")
    return found


@pytest.mark.parametrize(
    ("words", "verbs"),
    [(("--help",), [*VERBS, "data"]), (("-h",), VERBS), (("data", "--help"), DATA_VERBS), (("data",), DATA_VERBS)],
)
def test_the_list_of_verbs_says_what_each_does(words, verbs):
    done = ajest(*words)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(done.stdout.splitlines()) < 30
    for verb in verbs:
        assert re.search(rf"^  {verb} +[A-Z]", done.stdout, re.MULTILINE), verb


def test_the_module_is_the_command_too():
    done = subprocess.run([sys.executable, "-m", "ajest", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ajest("--help").stdout


def test_a_bench_from_the_command_line(tmp_path):
    words = ("bench", "tree", "--arms", "baseline", "random", "--seeds", "5", "--iterations", "32", "--out", "b")
    done = ajest(*words, cwd=tmp_path, painted=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()  # where the output is not a terminal, a line each half minute
    assert all(re.fullmatch(r"ajest: [ -~]+", line) for line in said)
    assert "At equal time" in done.stdout
    assert "first look" in done.stdout
    assert (tmp_path / "b" / "report.html").stat().st_size > 100_000
    again = ajest(*words, cwd=tmp_path)
    assert again.stdout == done.stdout
    fails(*words[:-4], "--iterations", "33", "--out", "b", says="iterations: 32 -> 33.*name a new folder", cwd=tmp_path)
    report = ajest("report", "b", cwd=tmp_path)
    assert "Report: b/report.html" in report.stdout


def test_train_sample_and_evaluate(tmp_path):
    small = ("--iterations", "24", "--super-batch", "128")
    assert ajest("train", "tree", "--network", "guide", "--out", "g", *small, cwd=tmp_path).returncode == 0
    done = ajest("train", "tree", "--arm", "ajest", "--guide", "g", "--out", "r", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = ajest("evaluate", "r", "--guide", "g", "--weights", "1", "2", "--widths", "0.05", "0.07", "--n", "256",
                 cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("│ r ") == 4
    assert "real examples" in done.stdout
    maps = sorted(p.name for p in (tmp_path / "r").glob("heatmap-*.png"))
    assert maps == ["heatmap-energy_distance-step-24-n-256.png", "heatmap-mandala-step-24-n-256.png"]
    done = ajest("sample", "r", "--guide", "g", "--weight", "2", "--n", "300", "--out", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "s" / "samples.csv").read_text().splitlines()) == 301
    assert (tmp_path / "s" / "samples.png").read_bytes().startswith(b"\x89PNG")
    fails("sample", "r", "--weight", "2", "--out", "s", says="needs a guide", cwd=tmp_path)
    fails("evaluate", "r", "--weights", "2", says="need a guide", cwd=tmp_path)
    fails("evaluate", "r", "--widths", "0.4", says="EMA width must lie", cwd=tmp_path)
    fails("evaluate", "r", "--n", "0", says="at least 8 samples", cwd=tmp_path)
    fails("evaluate", "r", "--extractors", "lite0", says="for images", cwd=tmp_path)
    fails("evaluate", "r", "--steps", "23", says="no snapshot of step 23", cwd=tmp_path)
    fails("train", "tree", "--arm", "random", "--out", "r", *small, says="arm.*name a new folder", cwd=tmp_path)


def test_images_from_the_command_line(tmp_path):
    small = ("--data", "shapes:256", "--classes", "all", "--iterations", "2", "--super-batch", "8")
    done = ajest("train", "images", "--network", "guide", "--out", "g", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = ajest("train", "images", "--arm", "high-loss", "--keep", "0.5", "--out", "r", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    guided = ("--guide", "g", "--weight", "2")
    done = ajest("sample", "r", *guided, "--classes", "star,Heart", "--seeds", "0-1", "--out", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {p.name for p in (tmp_path / "s").iterdir()}
    assert written == {"sheet.png", *(f"{c}-seed000{s}.png" for c in ("heart", "star") for s in (0, 1))}
    done = ajest("data", "kept", "r", "kept.csv", cwd=tmp_path)
    assert "16 drawn, 8 trained on, up to step 2" in done.stdout
    assert len((tmp_path / "kept.csv").read_text().splitlines()) == 257
    fails("sample", "r", "--classes", "staar", "--out", "s", says="did you mean 'star'", cwd=tmp_path)
    fails("sample", "r", "--seeds", "a", "--out", "s", says="0-31,40", cwd=tmp_path)
    fails("train", "images", "--arm", "random", "--out", "r", *small, says="arm.*name a new folder", cwd=tmp_path)


def test_data_sets_from_the_command_line(tmp_path):
    done = ajest("data", "describe", "shapes:40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("40 images", "64 x 64: 40", "RGB: 40", "10 of 4 to 4 images"):
        assert text in done.stdout, text
    done_sheet = (tmp_path / "contact-sheet.png").read_bytes()
    assert done_sheet.startswith(b"\x89PNG")
    done = ajest("data", "prepare", "shapes:40", "s.npz", cwd=tmp_path)
    assert "s.npz: 40 images of 10 classes" in done.stdout
    assert "64 x 64: 40" in ajest("data", "describe", "s.npz", cwd=tmp_path).stdout
    fails("data", "prepare", "shapes:40", says="name the data set and the file", cwd=tmp_path)
    fails("data", "describe", "nowhere.zip", says="does not exist", cwd=tmp_path)
    fails("bench", "images", "--data", "nowhere.zip", says="does not exist", cwd=tmp_path)
    fails("bench", "images", "--data", "shapes:20", says="too few", cwd=tmp_path)
    fails("bench", "images", "--preset", "cpu-mni", says="did you mean 'cpu-mini'", cwd=tmp_path)
    fails("bench", "tree", "--data", "x", says="for images", cwd=tmp_path)
    for i, name in enumerate(["[bold]", "[red]x", "<b>"]):  # rich reads brackets, and these are names
        (tmp_path / "odd" / name).mkdir(parents=True)
        for k in range(i + 1):
            (tmp_path / "odd" / name / f"{k}.png").write_bytes(done_sheet)
    odd = ajest("data", "describe", "odd", cwd=tmp_path)
    assert "[bold]: 1, [red]x: 2, <b>: 3" in " ".join(odd.stdout.split()), odd.stderr
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    fails("bench", "images", "--data", "bad", says=r"1 file cannot be read \(a.png.*--skip-bad", cwd=tmp_path)


def test_bad_requests_end_with_one_clear_line(tmp_path):
    fails("bench", "tree", "--arms", "basline", says="unknown arm 'basline': did you mean 'baseline'", cwd=tmp_path)
    fails("bench", "tree", "--preset", "papr", says="did you mean 'paper'", cwd=tmp_path)
    fails("bench", "tree", "--seeds", "1", "1", says="seeds are named twice: 1", cwd=tmp_path)
    fails("bench", "tree", "--keep", "0", says="keep fraction", cwd=tmp_path)
    fails("bench", "tree", "--keep", "1.2", says="keep fraction", cwd=tmp_path)
    fails("bench", "tree", "--keep", "0.001", says="chunks", cwd=tmp_path)
    fails("train", "tree", "--arm", "ajest", "--out", "x", says="--guide", cwd=tmp_path)
    fails("report", "nowhere", says="not a bench", cwd=tmp_path)
    fails("sample", "nowhere", "--out", "s", says="not a run", cwd=tmp_path)
    (tmp_path / "taken").write_text("")
    fails("bench", "tree", "--out", "taken", says="cannot write", cwd=tmp_path)
    assert not (tmp_path / "runs").exists()
