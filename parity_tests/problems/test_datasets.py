"""The digits are the same bytes everywhere, and damaged files are refused in one clear line.

The IDX files here are written by the tests, 6 training and 4 test images; their MD5s are registered
in the patched table. The network is never touched.
"""

import gzip
import hashlib
import struct
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import numpy as np
import pooch
import pytest
from helpers.commands import ROOT, python
from helpers.synthetic_traces import refused
from numpy.typing import NDArray

from twinstep.problems import datasets
from twinstep.problems.datasets import Images, load_digits, load_mnist

REAL_MNIST = ROOT.parent / "shared" / "mnist"
MD5 = datasets.MNIST_MD5
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MD5

IdxFiles = dict[str, bytes]  # name of the .gz -> content before packing


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file, written independently of the reader."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.tobytes()


_DRAWS = np.random.default_rng(0)
SMALL: IdxFiles = {
    f"{part}-{what}.gz": idx(content.astype(np.uint8))
    for part, n in (("train", 6), ("t10k", 4))
    for what, content in (
        ("images-idx3-ubyte", _DRAWS.integers(0, 256, (n, 28, 28))),
        ("labels-idx1-ubyte", np.arange(n)),
    )
}


def arrays(images: Images) -> list[NDArray[np.uint8] | NDArray[np.int64]]:
    return [images.train_images, images.train_labels, images.test_images, images.test_labels]


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable from outside, an empty cache folder, MD5s of one's own, and no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a test tried to reach the network")

    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "MNIST_MD5", dict(MD5))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)


def written(folder: Path, files: IdxFiles, packed: bool = True) -> Path:
    """Writes IDX files into a folder; packed ones get their MD5 registered."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            raw = gzip.compress(content, mtime=0)
            datasets.MNIST_MD5[name] = hashlib.md5(raw).hexdigest()
            (folder / name).write_bytes(raw)
        else:
            (folder / name.removesuffix(".gz")).write_bytes(content)
    return folder


@pytest.fixture
def small() -> IdxFiles:
    """SMALL, for the tests of other files."""
    return SMALL


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`written`, for tests that are not `isolated`."""
    monkeypatch.setattr(datasets, "MNIST_MD5", dict(MD5))
    return written


def refusal(data_dir: Path | str | None = None) -> str:
    """The one-line message with which load_mnist refuses."""
    return refused(lambda: load_mnist(data_dir))


def test_digits_are_the_same_bytes_everywhere() -> None:
    digits = load_digits()
    assert digits.name == "digits"
    assert [a.shape for a in arrays(digits)] == [(1500, 28, 28), (1500,), (297, 28, 28), (297,)]
    assert [a.dtype for a in arrays(digits)] == [np.uint8, np.int64, np.uint8, np.int64]
    digest = hashlib.sha256()
    for array in arrays(digits):
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == "22a27793da5ef24c553608ef26352da9a5aec07a53a50d3193640825fcf809bc"


def test_digits_are_scikit_learns_enlarged_linearly() -> None:
    """SciPy's interpolation, in floating point, is the oracle."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits as sklearn_digits

    original = sklearn_digits()
    digits = load_digits()
    enlarged = zoom(original.images, (1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    ours = np.concatenate([digits.train_images, digits.test_images])
    assert np.abs(ours - enlarged * 255 / 16).max() <= 0.5 + 1e-9  # rounding to whole numbers
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    np.testing.assert_array_equal(labels, original.target)


def test_enlarging_keeps_a_constant_image_and_the_corners() -> None:
    assert (datasets._enlarge(np.full((1, 8, 8), 16)) == 255).all()
    corner = np.zeros((1, 8, 8), np.int64)
    corner[0, 0, 7] = 16
    enlarged = datasets._enlarge(corner)
    assert enlarged[0, 0, 27] == 255
    assert enlarged[0, 14:, :].max() == enlarged[0, :, :14].max() == 0


def test_images_cannot_be_changed(tmp_path: Path) -> None:
    for images in (load_digits(), load_mnist(written(tmp_path, SMALL))):
        for array in arrays(images):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
        with pytest.raises(FrozenInstanceError):
            images.name = "other"  # type: ignore[misc]


def test_import_is_light() -> None:
    code = (
        "import sys, twinstep.problems.datasets;"
        "print([m for m in ('sklearn', 'scipy', 'pooch', 'torch', 'jax') if m in sys.modules])"
    )
    assert python("-c", code).well() == "[]\n"


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "unpacked"])
@pytest.mark.parametrize("layout", [".", "MNIST/raw"])
def test_mnist_is_read_back(tmp_path: Path, layout: str, packed: bool) -> None:
    written(tmp_path / layout, SMALL, packed=packed)
    mnist = load_mnist(tmp_path)
    assert mnist.name == "mnist"
    assert [a.dtype for a in arrays(mnist)] == [np.uint8, np.int64, np.uint8, np.int64]
    assert mnist.train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert mnist.test_labels.tolist() == [0, 1, 2, 3]
    assert mnist.train_images.shape == (6, 28, 28)
    assert mnist.test_images.shape == (4, 28, 28)
    assert idx(mnist.train_images) == SMALL[TRAIN_IMAGES]
    assert idx(mnist.test_images) == SMALL[TEST_IMAGES]


def test_a_verified_gz_goes_before_an_unpacked_file(tmp_path: Path) -> None:
    written(tmp_path, SMALL)
    written(tmp_path, {TEST_LABELS: idx(np.full(4, 9, np.uint8))}, packed=False)
    assert load_mnist(tmp_path).test_labels.tolist() == [0, 1, 2, 3]


def test_argument_goes_before_variable_goes_before_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(label: int) -> Path:
        marked = {**SMALL, TEST_LABELS: idx(np.full(4, label, np.uint8))}
        return written(tmp_path / str(label), marked, packed=False)

    written(tmp_path / "cache" / "twinstep", SMALL)
    assert load_mnist().test_labels.tolist() == [0, 1, 2, 3]
    monkeypatch.setenv(datasets.DATA_VARIABLE, "")  # empty counts as not set
    assert load_mnist().test_labels.tolist() == [0, 1, 2, 3]
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(folder(7)))
    assert load_mnist().test_labels.tolist() == [7] * 4
    assert load_mnist(str(folder(8))).test_labels.tolist() == [8] * 4


def test_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "digits", SMALL)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert len(load_mnist("~/digits").train_labels) == 6


@pytest.mark.parametrize("source", ["--data-dir", datasets.DATA_VARIABLE])
def test_missing_files_are_all_named_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    written(tmp_path, {name: SMALL[name] for name in (TRAIN_IMAGES, TEST_LABELS)})
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    message = refusal(tmp_path if source == "--data-dir" else None)
    assert message.startswith(f"{source} is {str(tmp_path)!r}")
    named = [name for name in datasets.MNIST_MD5 if name in message]
    assert named == [TRAIN_LABELS, TEST_IMAGES]


@pytest.mark.parametrize("folder", ["", "no/such/folder", "a\0b", __file__])
def test_not_a_folder(folder: str) -> None:
    assert refusal(folder).startswith(f"--data-dir is {folder!r}, expected a folder")


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:99] + bytes([raw[99] ^ 1]) + raw[100:], lambda raw: raw[:-5]],
    ids=["one bit", "cut"],
)
def test_damaged_gz(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Also when a sound unpacked file lies beside it."""
    path = written(tmp_path, SMALL) / TRAIN_IMAGES
    written(tmp_path, SMALL, packed=False)
    path.write_bytes(raw := damage(path.read_bytes()))
    message = refusal(tmp_path)
    assert str(path) in message
    assert hashlib.md5(raw).hexdigest() in message
    assert datasets.MNIST_MD5[TRAIN_IMAGES] in message


def test_another_data_set_under_mnists_names(tmp_path: Path) -> None:
    written(tmp_path, SMALL)
    datasets.MNIST_MD5.update(MD5)
    assert f"expected {MD5[TRAIN_IMAGES]}: damaged, or not MNIST" in refusal(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, SMALL)
    error = PermissionError(13, "Permission denied", str(tmp_path / TRAIN_IMAGES))
    monkeypatch.setattr(datasets.files, "read", Mock(side_effect=error))
    assert refusal(tmp_path) == f"{tmp_path / TRAIN_IMAGES} cannot be read: Permission denied"


PIXELS, LABELS = np.zeros((6, 28, 28), np.uint8), idx(np.zeros(6, np.uint8))
HUGE = b"\0\0\x08\x03" + b"\xff" * 12

WRONG_CONTENT = {
    "images where labels belong": (TRAIN_LABELS, idx(PIXELS), "0x00000803, expected 0x00000801"),
    "labels where images belong": (TRAIN_IMAGES, LABELS, "0x00000801, expected 0x00000803"),
    "not IDX": (TEST_IMAGES, b"\x89PNG\r\n", "0x89504e47, expected 0x00000803"),
    "floats, not bytes": (TEST_LABELS, b"\0\0\x0d\x01" + bytes(20), "0x00000d01"),
    "empty": (TEST_LABELS, b"", "expected 0x00000801"),
    "magic only": (TRAIN_IMAGES, idx(PIXELS)[:4], "has 4 bytes, expected 16"),
    "cut in the header": (TRAIN_IMAGES, idx(PIXELS)[:11], "has 11 bytes"),
    "header only": (TRAIN_IMAGES, idx(PIXELS)[:16], "has 16 bytes, expected 4720"),
    "one byte short": (TRAIN_IMAGES, idx(PIXELS)[:-1], "has 4719 bytes, expected 4720"),
    "one byte too many": (TRAIN_IMAGES, idx(PIXELS) + b"\0", "has 4721 bytes, expected 4720"),
    "sizes beyond 64 bits": (TRAIN_IMAGES, HUGE, f"expected {16 + (2**32 - 1) ** 3}"),
    "too few labels": (TRAIN_LABELS, idx(np.zeros(5, np.uint8)), "holds 5 labels, expected 6"),
    "too many labels": (TEST_LABELS, idx(np.zeros(5, np.uint8)), "holds 5 labels, expected 4"),
    "label out of range": (TEST_LABELS, idx(np.array([0, 1, 10, 2], np.uint8)), "the label 10"),
    "wrong size of image": (TRAIN_IMAGES, idx(PIXELS[:, :8, :8].copy()), "shape (6, 8, 8)"),
    "no images": (TRAIN_IMAGES, idx(PIXELS[:0]), "shape (0, 28, 28)"),
}


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "unpacked"])
@pytest.mark.parametrize("case", WRONG_CONTENT)
def test_wrong_content(tmp_path: Path, case: str, packed: bool) -> None:
    name, content, expected = WRONG_CONTENT[case]
    written(tmp_path, {**SMALL, name: content}, packed=packed)
    message = refusal(tmp_path)
    assert expected in message
    assert str(tmp_path / (name if packed else name.removesuffix(".gz"))) in message


def test_offline_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    offline = Mock(side_effect=OSError("Name or service\nnot known"))
    monkeypatch.setattr(pooch, "retrieve", offline)
    message = refusal()
    for mirror in datasets.MNIST_MIRRORS:
        assert f"{urlsplit(mirror).hostname}: Name or service not known" in message
    for expected in (*datasets.MNIST_MD5, "--data-dir", "TWINSTEP_DATA"):
        assert expected in message
    asked = [each.args[0] for each in offline.call_args_list]
    assert asked == [mirror + TRAIN_IMAGES for mirror in datasets.MNIST_MIRRORS]


OFFLINE = """
import sys
from twinstep import cli

from twinstep.problems import datasets

datasets.MNIST_MIRRORS = ("http://127.0.0.1:9/mnist/", "http://localhost:9/mnist/")
code = cli.main(["run", "mnist_rnn", "--data", "mnist"])
sys.exit(code if not {"torch", "jax"} & set(sys.modules) else "a framework was loaded")
"""


def test_offline_is_one_line_through_the_command(tmp_path: Path) -> None:
    """pooch and requests as they are, with nothing that answers; no line of theirs on stderr."""
    line = python("-c", OFFLINE, env={"XDG_CACHE_HOME": str(tmp_path)}, timeout=100).refusal()
    refused = "Connection refused"
    assert line.startswith(
        f"{TRAIN_IMAGES} could not be downloaded (127.0.0.1: {refused}; "
        f"localhost: {refused}); put {TRAIN_IMAGES}, {TRAIN_LABELS}, "
    )


def test_a_mirror_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(datasets, "PATIENCE", 0.2)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda *_, **__: end.wait(60))
    message = refusal()
    end.set()
    assert message.count("no answer within 0.2 seconds") == len(datasets.MNIST_MIRRORS)


def test_a_mirror_that_sends_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def transfer(self: pooch.HTTPDownloader, *args: object, **kwargs: object) -> None:
        while True:
            self.progressbar.update(2**20)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", transfer)
    level = pooch.get_logger().level
    message = refusal()
    assert message.count(f"more than {datasets.MAX_BYTES} bytes") == len(datasets.MNIST_MIRRORS)
    assert pooch.get_logger().level == level, "left as it was"


def test_second_mirror_is_tried_and_the_cache_used_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pooch itself runs here; only the transfer is replaced, the first mirror sending rubbish."""
    server = written(tmp_path / "server", SMALL)
    asked = []

    def transfer(self: object, url: str, output_file: str, *args: object, **kwargs: object) -> None:
        asked.append(url)
        sound = url.startswith(datasets.MNIST_MIRRORS[1])
        content = (server / url.rsplit("/")[-1]).read_bytes() if sound else b"<html>log in</html>"
        Path(output_file).write_bytes(content)

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", transfer)
    assert load_mnist().train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    mirrors = datasets.MNIST_MIRRORS
    assert asked == [mirror + name for name in datasets.MNIST_MD5 for mirror in mirrors]
    cached = tmp_path / "cache" / "twinstep"
    assert sorted(path.name for path in cached.iterdir()) == sorted(datasets.MNIST_MD5)
    asked.clear()
    assert load_mnist().test_labels.tolist() == [0, 1, 2, 3]
    assert asked == []


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"MNIST's files are not in {REAL_MNIST}")
def test_the_real_mnist() -> None:
    mnist = load_mnist(REAL_MNIST)
    shapes = [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert [a.shape for a in arrays(mnist)] == shapes
    assert mnist.train_labels[:4].tolist() == [5, 0, 4, 1]
    assert mnist.test_labels[:4].tolist() == [7, 2, 1, 0]
    assert round(mnist.train_images.mean() / 255, 4) == 0.1307  # the figure every tutorial uses
