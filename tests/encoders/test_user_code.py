"""A function of the user's own as an encoder: run, checked, pooled, kept; its errors are shown."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from encoders.cohort_embeddings import EmbeddingSettings, embed_cohort
from encoders.functions import FunctionEncoder
from encoders.source_names import is_function, is_onnx, named_file
from encoders.sources import content_hash, header_of, open_encoder
from encoders.user_code import open_function
from experiments.common.check_first import check_encoder
from experiments.common.failures import explain
from lens.cohort import read_manifest
from lens.cohort.factor_phantom import write_cohort
from lens.errors import InputError, UserCodeError

NETWORK = """
    import numpy as np
    import torch

    torch.manual_seed(0)
    net = torch.nn.Conv3d(3, 5, 4, stride=4).eval()

    def maps(volumes):
        made = net(torch.from_numpy(volumes).permute(0, 4, 1, 2, 3))
        return made.permute(0, 2, 3, 4, 1)

    def make():
        return lambda volumes: maps(volumes).mean((1, 2, 3))

    class Both:
        def __call__(self, volumes):
            return make()(volumes)

    both = Both()
    number = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch):
    """Writes a module of its own name into the current folder; gives file and module name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(100))

    def write(source: str) -> tuple[Path, str]:
        name = f"users_{tmp_path.name.replace('-', '_')}_{next(count)}"
        file = tmp_path / f"{name}.py"
        file.write_text(textwrap.dedent(source))
        return file, name

    return write


def volumes(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 8, 12, 12, 3)).astype(np.float32)


def function(call, users: bool = True) -> FunctionEncoder:
    return FunctionEncoder("mine", call, "0" * 64, users=users)


def test_a_function_an_object_a_class_and_what_makes_one(code):
    file, name = code(NETWORK)
    expected = open_function(Path(f"{name}:maps"))(volumes()).mean((1, 2, 3))
    for source in (
        f"{name}:make",
        f"{name}:both",
        f"{name}:Both",
        f"{file}:make",
        f"./{file.name}:make",
    ):
        assert is_function(Path(source))
        found = open_function(Path(source))(volumes())
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert named_file(Path(f"{file}:make")) == file
    assert named_file(Path(f"{name}:make")) is None
    assert named_file(file) == file
    assert not is_function(file)
    assert is_onnx(Path("a/b.onnx"))


def test_regions_are_read_from_maps(code):
    _, name = code(NETWORK)
    encoder = open_function(Path(f"{name}:maps"))
    x, region = volumes(), np.zeros((3, 8, 12, 12), bool)
    region[0] = True
    region[1, :4, 4:8, :4] = True
    region[1, 4, 0, 0] = True  # a voxel weighs as its share of the position
    made, rows = encoder(x), encoder.embed(x, region)
    np.testing.assert_allclose(rows[0], made[0].mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(rows[1], (made[1, 0, 1, 0] * 64 + made[1, 1, 0, 0]) / 65, atol=1e-5)
    assert np.isnan(rows[2]).all()
    with pytest.raises(InputError, match="no region can be read from"):
        function(lambda v: v.mean((1, 2, 3))).embed(x, region)


@pytest.mark.parametrize(
    "convert", [np.asarray, torch.from_numpy, jnp.asarray, lambda a: torch.from_numpy(a).half(),
                lambda a: jnp.asarray(a, jnp.bfloat16), lambda a: a.astype(np.float64)],
)  # fmt: skip
def test_arrays_of_every_kind(convert):
    found = function(lambda v: convert(v.mean((1, 2, 3))))(volumes())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, volumes().mean((1, 2, 3)), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.mean((1, 2)), r"gives an array \(2, 12, 3\) for volumes of \(2, 8, 12, 12"),
        (lambda v: v[:1].mean((1, 2, 3)), r"gives an array \(1, 3\)"),
        (lambda v: {"out": v}, "gives no array of numbers but a dict with the keys 'out'"),
        (lambda v: (v, v), r"but a tuple of 2 \(return one"),
        (lambda v: v.mean((1, 2, 3)).tolist(), r"but a list \(return numpy.asarray"),
        (lambda v: (row for row in v), r"but a generator \(return them, without yield"),
        (lambda v: len, "but a builtin_function_or_method .*once where it has no parameters"),
        (lambda v: None, r"gives nothing \(None; does it end with return"),
        (lambda v: torch.from_numpy(v.mean((1, 2, 3))) * 1j, r"complex numbers .*complex64"),
        (lambda v: v.mean((1, 2, 3)) * 1j, r"complex numbers .*complex64"),
        (lambda v: jnp.asarray(v.mean((1, 2, 3))) * 1j, r"complex numbers .*complex64"),
        (lambda v: v.mean((1, 2, 3)) * np.nan, "6 of 6 numbers are NaN"),
        (lambda v: v.mean((1, 2, 3)) - v.mean(), "other numbers for the same volume in another"),
    ],
)  # fmt: skip
def test_what_is_no_embedding_is_named(call, message):
    with pytest.raises(InputError, match=message):
        function(call).try_out((8, 12, 12), 3, regional=False)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((6, 8, 12, 12), r"maps \(2, 6, 8, 12, 12\) for volumes of 8 x 12 x 12 .*movedim\(1, -1\)"),
        ((40, 4, 6, 6), r"maps \(2, 40, 4, 6, 6\) .*seem to come first"),
        ((8, 12, 24, 5), r"larger than those; return feature maps"),
        ((4, 6, 6, 40), None),
        ((5, 5, 5, 7), None),
        ((1, 1, 1, 3), None),
    ],
)
def test_channels_that_come_first_are_not_read_as_depth(sides, message, caplog):
    caplog.set_level("INFO")
    encoder = function(lambda v: np.broadcast_to(v.mean((1, 2, 3, 4)).reshape(-1, 1, 1, 1, 1),
                                                 (len(v), *sides)))  # fmt: skip
    if message:
        with pytest.raises(InputError, match=message):
            encoder.try_out((8, 12, 12), 3, regional=False)
        return
    assert encoder.try_out((8, 12, 12), 3, regional=True) == sides[-1]
    assert f"mine: maps {' x '.join(map(str, sides[:3]))}, {sides[3]} channels" in caplog.text


def test_a_map_is_called_for_once_per_batch():
    calls = []
    encoder = function(lambda v: calls.append(len(v)) or v[:, ::2, ::2, ::2])
    encoder.try_out((8, 12, 12), 3, regional=True)
    assert calls == [2, 1, 1]


def test_dropout_is_found_and_evaluation_mode_passes():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5))
    encoder = function(lambda v: net(torch.from_numpy(v)))
    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        encoder.try_out((2, 4, 4), 1, regional=False)
    net.eval()
    assert encoder.try_out((2, 4, 4), 1, regional=False) == 32


@pytest.mark.parametrize("rows", [[0, 0], [1, 1], [1, 0]])
def test_rows_that_are_not_the_volumes_in_their_order_are_found(rows):
    encoder = function(lambda v: v.reshape(len(v), -1)[rows if len(v) == 2 else [0]])
    with pytest.raises(InputError, match="rows are not those of the volumes in their order"):
        encoder.try_out((2, 4, 4), 1, regional=False)


def test_errors_of_the_code_are_shown_as_its_own(code):
    file, name = code("def broken(volumes):\n    return 1 / 0\n")
    with pytest.raises(UserCodeError, match=r"your own code raised ZeroDivisionError") as found:
        open_function(Path(f"{name}:broken"))(volumes())
    line, exit_code = explain(found.value, "embed")
    assert exit_code == 1
    assert line.startswith(f"refused: {name}:broken: your own code raised ZeroDivisionError")
    assert f'File "{file}", line 2, in broken' in line
    assert "encoders/functions.py" not in line
    for source, kind in {
        "import nothing_of_that_name": "ModuleNotFoundError", "x = (": "SyntaxError",
        "raise SystemExit(3)": "SystemExit", "1/0": "ZeroDivisionError",
    }.items():  # fmt: skip
        for named in code(source):
            with pytest.raises(UserCodeError, match=f"your own code raised {kind}"):
                open_function(Path(f"{named}:f"))


@pytest.mark.parametrize("named", ["encoders", "lens"])
def test_a_folder_called_like_a_package_of_ours_is_named(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / named).mkdir()
    (tmp_path / named / "net.py").write_text("class Net: ...")
    for line in (f"from {named}.net import Net", f"from {named} import Net"):
        file = tmp_path / "enc.py"
        file.write_text(f"{line}\ndef f(v): return v")
        for source in (f"{file}:f", "enc:f"):
            message = f"name of a package of this program .*{named} is not reached. Rename it"
            with pytest.raises(InputError, match=message) as found:
                open_function(Path(source))
            assert not isinstance(found.value, UserCodeError)
    (tmp_path / "other").mkdir()
    own = tmp_path / "other" / "enc.py"
    own.write_text(f"from {named}.nowhere import Net")
    with pytest.raises(UserCodeError, match="your own code raised ModuleNotFoundError"):
        open_function(Path(f"{own}:f"))


def test_a_file_of_a_package_is_named_as_its_module(tmp_path, monkeypatch):
    inner = tmp_path / "one" / "two"
    inner.mkdir(parents=True)
    for folder in (tmp_path / "one", inner):
        (folder / "__init__.py").write_text("")
    (inner / "net.py").write_text("from . import __name__ as name\ndef f(v): return v")
    with pytest.raises(
        InputError, match=rf"start the command in {tmp_path} and give one.two.net:f"
    ):
        open_function(inner / "net.py:f")


def test_the_current_folder_stays(code, tmp_path, caplog):
    (tmp_path / "away").mkdir()
    moves = "import os\nos.chdir('away')\ndef f(v): return v.mean((1, 2, 3))\n"
    file, _ = code(moves)
    encoder = open_function(Path(f"{file}:f"))
    assert Path.cwd() == tmp_path
    assert f"changes the current folder to {tmp_path / 'away'} (os.chdir)" in caplog.text
    assert encoder.try_out((2, 4, 4), 3, regional=False) == 3
    _, name = code("import os\ndef f(v):\n    os.chdir('away')\n    return v.mean((1, 2, 3))\n")
    with pytest.raises(InputError, match=r"away \(os.chdir\), which the paths of this job"):
        open_function(Path(f"{name}:f")).try_out((2, 4, 4), 3, regional=False)
    assert Path.cwd() == tmp_path


def test_what_was_meant_by_a_name_is_suggested(code, tmp_path):
    file, name = code(NETWORK)
    with pytest.raises(InputError, match=f"did you mean the function {name}:maps"):
        check_encoder(Path(f"{name}.maps"), "--encoder", settings=EmbeddingSettings())
    with pytest.raises(InputError, match="give an encoder's checkpoint"):
        check_encoder(Path("weights.pth"), "--encoder", settings=EmbeddingSettings())
    with pytest.raises(InputError, match=f"code, not weights; .*{file}:FUNCTION"):
        check_encoder(file, "--encoder", settings=EmbeddingSettings())


def test_what_is_not_there_is_named(code):
    _, name = code(NETWORK)
    with pytest.raises(InputError, match=r"has no encode; it has .*maps.*make"):
        open_function(Path(f"{name}:encode"))
    with pytest.raises(InputError, match="int is no function"):
        open_function(Path(f"{name}:number"))
    with pytest.raises(InputError, match="no module nowhere_at_all, neither in the current folder"):
        open_function(Path("nowhere_at_all:f"))
    with pytest.raises(InputError, match=r"no such file nowhere\.py"):
        open_function(Path("nowhere.py:f"))


def test_the_key_is_of_the_file_and_what_it_names(code, tmp_path: Path, caplog):
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    source = "from pathlib import Path\ndef f(v):\n    return v.mean((1, 2, 3))\n"
    keyed = source + f"f.cache_key = ['a', 1, Path({str(weights)!r})]\n"
    caplog.set_level("INFO")
    unkeyed = Path(f"{code(source)[0]}:f")
    plain = open_function(unkeyed).fingerprint
    assert "no cache_key; changed weights are not noticed" in caplog.text
    caplog.clear()
    assert open_function(unkeyed).fingerprint == plain
    assert "no cache_key" not in caplog.text, "said once"
    file, _ = code(keyed)
    first = open_function(Path(f"{file}:f")).fingerprint
    assert "no cache_key" not in caplog.text
    assert open_function(Path(f"{code(source)[0]}:f")).fingerprint == plain, "content, not name"
    weights.write_bytes(b"2")
    assert open_function(Path(f"{file}:f")).fingerprint != first
    weights.write_bytes(b"1")
    assert open_function(Path(f"{file}:f")).fingerprint == first
    file.write_text(keyed + "# changed\n")
    assert open_function(Path(f"{file}:f")).fingerprint != first
    two, _ = code(source + "def g(v):\n    return v.max((1, 2, 3))\n")
    prints = [open_function(Path(f"{two}:{name}")).fingerprint for name in "fg"]
    assert prints[0] != prints[1], "two functions of one file"
    with pytest.raises(InputError, match="its cache_key cannot be used"):
        open_function(Path(f"{code(source + 'f.cache_key = object()')[0]}:f"))


def test_a_cohort_is_embedded_kept_and_goes_on(code, tmp_path: Path):
    counted = """
    calls = []
    def encode(v):
        calls.append(len(v))
        return maps(v)
"""
    _, name = code(NETWORK + counted)
    cohort = read_manifest(write_cohort(tmp_path / "c", 3, 0, progress=False))
    settings = EmbeddingSettings(shape=(8, 16, 16), spacing_mm=(4.0, 4.0, 6.0), pool="gland")
    source, cache = Path(f"{name}:encode"), tmp_path / "cache"
    header = header_of(source, settings.shape, 3, regional=True)
    assert header.config.features == 5
    encoder = open_encoder(source)
    assert isinstance(encoder, FunctionEncoder)
    assert encoder.fingerprint == content_hash(source)
    calls = __import__(name).calls
    calls.clear()
    first, errors = embed_cohort(cohort, encoder, settings=settings, cache=cache, batch_size=2)
    assert errors == ()
    assert calls == [2, 1]
    again, _ = embed_cohort(cohort, encoder, settings=settings, cache=cache, batch_size=2)
    assert calls == [2, 1], "all were kept"
    np.testing.assert_array_equal(again.embeddings, first.embeddings)
    for other, changed in (
        (replace(encoder, fingerprint="2" * 64), settings),
        (encoder, replace(settings, pool="global")),
    ):
        calls.clear()
        embed_cohort(cohort, other, settings=changed, cache=cache, batch_size=2)
        assert calls == [2, 1], "another encoder or other settings"
    for changes in ({"windows": True}, {"stages": (1,)}, {"tokens": "class"}):
        with pytest.raises(InputError, match=f"{next(iter(changes))}: a function or ONNX file"):
            embed_cohort(cohort, encoder, settings=EmbeddingSettings(**changes))
    nan = FunctionEncoder("nan", lambda v: np.where(v.mean((1, 2, 3)) > 9, 0, np.nan), "1" * 64)
    with pytest.raises(InputError, match="the embedding is not finite"):
        embed_cohort(cohort, nan, settings=EmbeddingSettings(shape=(8, 16, 16)))


def test_an_edited_file_is_another_encoder(tmp_path, monkeypatch):
    """In one process, as in a notebook: neither the encoder nor its width is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    source, shape = Path("edited.py:encode"), (4, 8, 8)
    for width in (3, 5):
        Path("edited.py").write_text(
            f"import numpy as np\ndef encode(x):\n    return x.mean((1, 2, 3)) + np.ones({width})"
        )
        assert header_of(source, shape, 1).config.features == width
        encoder = open_encoder(source)
        assert isinstance(encoder, FunctionEncoder)
        assert encoder.embed(np.ones((1, *shape, 1), np.float32), None).shape == (1, width)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "edited.py").write_text(Path("edited.py").read_text().replace("5", "7"))
    monkeypatch.chdir(elsewhere)
    assert header_of(source, shape, 1).config.features == 7
