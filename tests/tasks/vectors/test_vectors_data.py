"""Reading vectors: every format, what is held out, what is refused and how that is said."""

import json
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest

from ajest.errors import UserError
from ajest.tasks.vectors import builtin, readers
from ajest.tasks.vectors.data import Standard, classes_of, opened, parts, split
from ajest.tasks.vectors.setup import vectors_task

X = np.random.default_rng(0).normal(size=(200, 3))
Y = np.arange(200) % 4


def save(path, x=X, y=None, names=("a", "b", "c")):
    """An array in the format that a path's suffix names."""
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, x=x, **({} if y is None else {"y": y}))
    elif path.suffix == ".csv":
        cells = [list(map(repr, row)) for row in x.tolist()]
        labels = [[]] * len(x) if y is None else [[str(k)] for k in y]
        head = [*names, *([] if y is None else ["label"])]
        path.write_text(
            "\n".join(",".join(line) for line in [head, *(c + k for c, k in zip(cells, labels, strict=True))])
        )
    else:
        table = pytest.importorskip("pyarrow").table(
            {**dict(zip(names, x.T, strict=True)), **({} if y is None else {"label": y})}
        )
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return str(path)


def task_of(*data, **settings):
    said = []
    return vectors_task(data, warn=said.append, **settings), said


def refused(says, *data, validation=()):
    """The data are refused in one line that says this."""
    with pytest.raises(UserError, match=says) as caught:
        vectors_task(tuple(map(str, data)), tuple(map(str, validation)), print)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_every_format_gives_the_same_vectors(tmp_path, suffix):
    found = opened((save(tmp_path / f"x{suffix}"),))
    np.testing.assert_array_equal(found.x, X)
    assert found.labels is None
    if suffix in (".csv", ".parquet"):
        assert found.columns == ("a", "b", "c")
    if suffix != ".npy":
        found = opened((save(tmp_path / f"y{suffix}", y=Y),))
        np.testing.assert_array_equal(found.x, X)
        assert found.labels == [str(k) for k in Y]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool", ">f8"])
def test_every_type_of_number_is_read(tmp_path, dtype):
    x = np.abs(10 * X).astype(dtype)
    np.testing.assert_array_equal(opened((save(tmp_path / "x.npy", x),)).x, x.astype(np.float64))
    np.testing.assert_array_equal(opened((save(tmp_path / "x.npz", np.asfortranarray(x)),)).x, x.astype(np.float64))


def test_labels_may_be_names_and_numbers_are_in_order(tmp_path):
    names = np.array(["cat", "dog"])[np.arange(200) % 2]
    assert task_of(save(tmp_path / "n.npz", y=names))[0].classes == ("cat", "dog")
    assert task_of(save(tmp_path / "c.csv", y=names))[0].classes == ("cat", "dog")
    task, _ = task_of(save(tmp_path / "m.npz", y=(np.arange(200) % 12)[:, None]))
    assert task.classes == tuple(map(str, range(12)))
    learned, held_out = task._parts
    assert learned.label.tolist() == [int(row) % 12 for row in learned.number]
    assert held_out.label.tolist() == [int(row) % 12 for row in held_out.number]
    np.testing.assert_allclose(task.standard.undo(held_out.x.numpy()), X[held_out.number], atol=1e-6)


def test_arrays_may_have_other_names(tmp_path):
    for name, y in (("X", "labels"), ("data", "label"), ("points", "y")):
        np.savez(tmp_path / "x.npz", **{name: X, y: Y})
        assert task_of(str(tmp_path / "x.npz"))[0].classes == ("0", "1", "2", "3")
    np.savez_compressed(tmp_path / "x.npz", x=X, extra=Y)
    task, said = task_of(str(tmp_path / "x.npz"))
    assert task.classes == ()
    assert any("arrays that are not used: extra" in line for line in said)


def test_first_lines_of_csv(tmp_path):
    path = tmp_path / "x.csv"
    rows = "\n".join(f"{a!r},{b!r}" for a, b, _ in X.tolist())
    path.write_text(rows)
    assert (len(opened((str(path),))), opened((str(path),)).columns) == (200, ())
    path.write_text("0,1\n" + rows)  # as pandas names columns
    task, said = task_of(str(path))
    assert (task.size + task.held_out, task.columns) == (200, ("0", "1"))
    assert any("taken for names of columns" in line for line in said)
    numbered = "\n".join(f"{i},{line}" for i, line in enumerate(rows.splitlines()))
    path.write_text('\ufeff,u v,"w, w"\r\n' + numbered.replace("\n", "\r\n") + "\r\n\r\n")
    task, said = task_of(str(path))
    assert task.columns == ("u v", "w, w")
    assert any("left out as a number of the row" in line for line in said)


@pytest.mark.parametrize(
    ("name", "x", "says"),
    [
        ("a.npy", X.reshape(200, 3, 1), r"shape \(200, 3, 1\).*reshape\(len\(x\), -1\) makes rows of 3"),
        ("a.npy", X[:, 0], r"shape \(200,\).*reshape\(-1, 1\)"),
        ("a.npy", np.float64(3), r"shape \(\)"),
        ("a.npy", X[:, :0], r"shape \(200, 0\): there are no numbers"),
        ("a.npy", X[:0], "there are no numbers"),
        ("a.npy", X[:159], "159 vectors are too few.*160 are needed"),
        ("a.npy", X.astype(str), "holds text"),
        ("a.npy", X.astype(complex), "holds complex128"),
        ("a.npy", X.astype(object), "objects of Python, which are never loaded"),
        ("a.npy", np.zeros(200, [("a", "f8"), ("b", "f8")]), "holds records"),
        ("a.npy", np.where(np.arange(600).reshape(200, 3) == 7, np.nan, X), "1 of 200 rows hold.*row 2 in column 1"),
        ("a.npz", np.where(X > 2, np.inf, X), "rows hold NaN or infinity"),
        ("a.npy", X * 1e307, "no standard deviation in float64"),
        ("a.npy", np.zeros((200, 4097), bool), "4,097 columns, more than 4,096.*PCA"),
        ("a.npz", X.astype(object), "objects of Python"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_vectors(tmp_path, name, x, says):
    refused(says, save(tmp_path / name, x))


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    refused(r"nothing\.npy does not exist", tmp_path / "nothing.npy")
    refused("unknown set of vectors 'two-moon': did you mean 'two-moons'", "two-moon")
    refused(r"is a folder", tmp_path)
    (tmp_path / "a.txt").write_text("1,2")
    refused(r"read from \.npy, \.npz, \.csv, \.parquet, not from \.txt", tmp_path / "a.txt")
    refused("no vectors are named")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv", "a.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00junk", bytes(range(256)), b"PK\x03\x04" + bytes(99)])
def test_damaged_files_are_said_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(rf"{name}", tmp_path / name)


def test_torn_files(tmp_path):
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        save(path)
        path.write_bytes(path.read_bytes()[:-500])
        refused("cannot be read as", path)


def test_sizes_are_checked_before_loading(tmp_path, monkeypatch):
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 30, 1000)}
    path = tmp_path / "a.npy"
    with path.open("wb") as file:  # says that it is 8 TiB, and is not
        np.lib.format.write_array_header_1_0(file, header)
    refused("says that it is larger than it is", path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(path, "x.npy")
    refused("says that it is larger than it is", tmp_path / "a.npz")
    monkeypatch.setattr(readers, "MAX_VALUES", 500)
    monkeypatch.setattr(builtin, "MAX_VALUES", 500)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for suffix in (".npy", ".npz", *([".parquet"] if find_spec("pyarrow") else [])):
        refused("200 rows of 3, more than the 500 numbers", save(tmp_path / f"b{suffix}"))
    refused("GiB of text", save(tmp_path / "b.csv"))
    refused("more than the 500 numbers", "checkerboard:1000")


def test_arrays_that_cannot_be_told_apart(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, first=X, second=X)
    refused("several arrays may be the vectors, first, second: call the right one x", path)
    np.savez(path, x=X, X=X)
    refused("several arrays may be the vectors, x, X", path)
    np.savez(path, y=Y)
    refused("no array of vectors", path)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.eye(4)[Y], r"save argmax\(1\)"),
        (Y + 0.5, r"save astype\(int\)"),
        (Y[:100], "200 whole numbers or names, one a row"),
        (np.arange(200), "160 vectors are 160 different ones: 80 are the most"),
        (Y.astype(object), "not object"),
    ],
)
def test_labels_that_cannot_be(tmp_path, y, says):
    refused(says, save(tmp_path / "a.npz", y=y))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 cells where the first line has 2"),
        ("a,b\n1,x\n", "line 2: column b must hold numbers and holds 'x'"),
        ("a,b\n1,\n", "line 2: column b must hold numbers and holds nothing"),
        ("1,2\n3,x\n", "line 2: column 1 must hold numbers"),
        ("1.5;2\n3;4\n", "commas, not by semicolons"),
        ("a\tb\n1\t2\n", "commas, not by tabs"),
        ("a,label,label\n", "several columns label"),
        ("label\n1\n", "no column beside the labels"),
        ("a,label\n1,x\n2,\n", "some rows have no label"),
        ("a,b\n", "holds no rows"),
        ("\n\n", "is empty"),
        ("a,b\n1,nan\n", "1 of 1 rows hold NaN or infinity, the first is row 0 in column b"),
        ("a,b\n1,\udcff\n", "cannot be read as .csv"),
        (",".join("9" * 5000) + "\n", "5,000 columns, more than 4,096"),
    ],
)
def test_tables_of_text_that_cannot_be(tmp_path, text, says):
    (tmp_path / "a.csv").write_text(text, errors="surrogateescape")
    refused(says, tmp_path / "a.csv")


def test_parquet_that_cannot_be(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for columns, says in (
        ({"a": X[:, 0], "b": X[:, 0].astype(str)}, "column b must hold numbers and holds string"),
        ({"a": [None, *X[1:, 0]]}, "1 of 200 rows hold NaN.*row 0 in column a"),
        ({"label": Y}, r"shape \(200, 0\)"),
        ({"a": X[:, 0], "label": X[:, 0]}, "column label must hold whole numbers or names"),
        ({"a": X[:, 0], "label": [None, *Y[1:]]}, "column label must hold whole numbers or names"),
    ):
        parquet.write_table(arrow.table(columns), path)
        refused(says, path)


def test_what_is_not_installed_is_said(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    refused(r"pip install 'ajest\[parquet\]'", tmp_path / "a.parquet")
    refused("pip install scikit-learn", "digits")


def test_digits_are_scikit_learns():
    pytest.importorskip("sklearn")
    task, said = task_of("digits")
    assert (task.dimensions, task.image, task.classes) == (64, (8, 8), tuple("0123456789"))
    assert task.size + task.held_out == 1797
    assert any("are the same in all vectors" in line for line in said)
    refused("as many as they are", "digits:100")


@pytest.mark.parametrize("name", ["two-moons", "checkerboard", "swiss-roll", "mixture", "mixture-5d"])
def test_made_up_sets_are_the_same_each_time(name):
    first, again = builtin.built_in(f"{name}:500").x, builtin.built_in(f"{name}:500").x
    assert first.shape == (500, 5 if name.endswith("5d") else 2)
    np.testing.assert_array_equal(first, again)
    assert len(builtin.built_in(name).x) == builtin.USUAL
    refused(
        "mixture needs at least 1" if "mix" in name else "of the built-in sets only mixture",
        f"{name.split('-5')[0]}-0d",
    )


def test_made_up_sets_are_what_they_say():
    x = builtin.built_in("checkerboard").x
    assert (np.floor(x).sum(1) % 2 == 0).all()
    assert np.abs(x).max() <= 2
    assert np.histogram2d(*x.T, bins=4)[0][::2, ::2].min() > 2000
    x = builtin.built_in("two-moons").x
    distance = [np.abs(np.hypot(x[:, 0] - a, x[:, 1] - b) - 1) for a, b in ((0, 0), (1, 0.5))]
    assert np.minimum(*distance).max() < 0.3
    x = builtin.built_in("mixture-3d:100000").x
    mixture = builtin.mixture_of("mixture-3d")
    np.testing.assert_allclose(x.mean(0), mixture.weights.numpy() @ mixture.means.numpy(), atol=0.05)
    second = mixture.weights.numpy() @ (mixture.means.square() + mixture.variances).numpy()
    np.testing.assert_allclose((x**2).mean(0), second, rtol=0.02)


def test_standardising_there_and_back():
    x = np.stack([1e9 + X[:, 0], 1e-9 * X[:, 1], np.full(200, -3.5)], 1)
    standard = Standard.of(x)
    z = standard.apply(x)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(z.std(0), [1, 1, 0], atol=1e-6)
    back = standard.undo(z)
    np.testing.assert_allclose(back[:, 0] - 1e9, X[:, 0], atol=1e-5)
    np.testing.assert_allclose(back[:, 1], x[:, 1], atol=1e-15)
    assert (standard.undo(z + 0.1)[:, 2] == -3.5).all()


def test_a_fifth_is_held_out_and_always_the_same(tmp_path):
    rows = opened((save(tmp_path / "x.npz", y=Y),))
    learned, held_out = split(rows)
    assert (len(learned), len(held_out)) == (160, 40)
    assert sorted([*learned.number, *held_out.number]) == list(range(200))
    again = split(opened((save(tmp_path / "x.csv", y=Y),)))
    np.testing.assert_array_equal(again[1].number, held_out.number)
    assert [part.digest for part in again] == [learned.digest, held_out.digest]
    assert classes_of(learned, held_out) == ("0", "1", "2", "3")


def test_held_out_vectors_may_be_named(tmp_path):
    data, other = save(tmp_path / "x.npy"), save(tmp_path / "v.npy", X[:50] + 1)
    task, said = task_of(data, validation=(other,))
    assert (task.size, task.held_out, said) == (200, 50, [])
    refused("3 and 2 columns", data, validation=[save(tmp_path / "w.npy", X[:, :2])])
    refused("31 vectors are too few to judge by", data, validation=[save(tmp_path / "w.npy", X[:31])])
    refused("are those to learn from", data, validation=[data])
    refused("one has labels and the other has none", data, validation=[save(tmp_path / "w.npz", y=Y)])
    strange = save(tmp_path / "s.npz", X[:50], np.full(50, 9))
    refused("labels that no other has: 9", save(tmp_path / "w.npz", y=Y), validation=[strange])


def test_files_are_joined(tmp_path):
    a, b = save(tmp_path / "a.csv", X[:120]), save(tmp_path / "b.csv", X[120:])
    np.testing.assert_array_equal(opened((a, b)).x, X)
    other = save(tmp_path / "c.csv", X, names=("a", "c", "b"))
    refused("other columns, or in another order: a, b, c; a, c, b", a, other)


def test_data_that_changed_are_not_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "x.npy")
    task, _ = task_of("x.npy")
    assert json.dumps(task.data) == json.dumps([str(tmp_path / "x.npy")])
    save(tmp_path / "x.npy", X + 1)
    parts.cache_clear()
    with pytest.raises(UserError, match="other vectors than this run was made with"):
        task.source("cpu")
