"""Handwritten digits for `mnist_rnn`: two sources, one shape, the same bytes on every machine.

`load_digits` needs nothing but scikit-learn, which bundles its images. `load_mnist` reads MNIST's
four files from a folder, or downloads them once. Both give uint8 images as they are; scaling and
batching belong to the spec. Nothing here is ever unpickled.

N counts images throughout.
"""

import gzip
import hashlib
import math
import os
import textwrap
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from twinstep import files
from twinstep.errors import InputError

DATA_VARIABLE = "TWINSTEP_DATA"

# The first is torchvision's mirror, the second the one of TensorFlow Datasets.
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# The packed files, with the MD5 that torchvision checks too.
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}

MAX_BYTES = 256 * 2**20
"""Of one of the four files, unpacked; MNIST's largest has 47 million."""
PATIENCE = 20.0
"""Seconds to wait for a mirror's next bytes."""

DIGITS_TRAIN, DIGITS_TEST = 1500, 297


@dataclass(frozen=True)
class Images:
    """Labelled digits in a training and a held-out part; the four arrays are made read-only.

    Attributes:
        train_images, test_images: (N, 28, 28) uint8 in 0..255, bright ink on 0.
        train_labels, test_labels: (N,) int64 in 0..9.
        name: Of the data set, "digits" or "mnist".
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    name: str

    def __post_init__(self) -> None:
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            array.setflags(write=False)


def load_digits() -> Images:
    """Loads the 1797 real digits that come with scikit-learn, enlarged from 8x8 to 28x28.

    They stand in the data set's own order. That mixes the classes: 146 to 153 of each in the
    training part, 27 to 33 in the test.

    Returns:
        Training images (1500, 28, 28) and labels (1500,), test (297, 28, 28) and (297,).

    Example:
        >>> from twinstep.problems.datasets import load_digits
        >>> digits = load_digits()
        >>> digits.train_images.shape, digits.test_labels[:5].tolist()
        ((1500, 28, 28), [1, 7, 4, 6, 3])

    Source: https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = _enlarge(digits.images.astype(np.int64))  # (1797, 8, 8) -> (1797, 28, 28)
    labels = digits.target.astype(np.int64)  # (1797,)
    n = DIGITS_TRAIN
    return Images(images[:n], labels[:n], images[n:], labels[n:], "digits")


def _enlarge(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Interpolate linearly: (N, 8, 8) in 0..16 -> (N, 28, 28) in 0..255; beyond the edge, the edge.

    In whole numbers, counted in fourteenths of a small pixel: no rounding that a processor or a
    library version could do differently, so two traces from two machines saw the same images.
    """
    # Pixel i of 28 is centred at (i + 1/2) * 8/28 - 1/2 = (4i - 5) / 14 on the grid of 8.
    centre = np.clip(4 * np.arange(28) - 5, 0, 14 * 7)  # (28,)
    distance = np.abs(centre[:, None] - 14 * np.arange(8))  # (28, 8)
    weights = np.maximum(0, 14 - distance)  # (28, 8), each row adds up to 14
    brightest = 16 * 14 * 14
    enlarged = weights @ images @ weights.T  # (N, 28, 28) in 0..brightest
    rounded: NDArray[np.int64] = (2 * 255 * enlarged + brightest) // (2 * brightest)
    return rounded.astype(np.uint8)


def load_mnist(data_dir: str | os.PathLike[str] | None = None) -> Images:
    """Loads MNIST's four files.

    They may lie in the folder itself or in its MNIST/raw (torchvision's layout), gzipped or
    unpacked. Gzipped files are held against their MD5; of unpacked ones only the format is checked.

    Args:
        data_dir: Where they lie. None: in the folder that TWINSTEP_DATA names; without that in the
            user's cache folder, where they are downloaded once.

    Returns:
        Training images (60000, 28, 28) and labels (60000,), test (10000, 28, 28) and (10000,).

    Raises:
        InputError: For a file that is missing, damaged, or cannot be downloaded.

    Example:
        >>> import tempfile
        >>> import twinstep
        >>> from twinstep.problems.datasets import load_mnist
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         load_mnist(folder)
        ...     except twinstep.InputError as error:
        ...         print(str(error).partition("; ")[2])
        expected there or in its MNIST/raw, gzipped or unpacked

    Source: the IDX format of http://yann.lecun.com/exdb/mnist/
    """
    if data_dir is not None:
        found = _find(os.fspath(data_dir), "--data-dir")
    elif os.environ.get(DATA_VARIABLE):
        found = _find(os.environ[DATA_VARIABLE], DATA_VARIABLE)
    else:
        found = _cached()
    return Images(*_read_part(found, "train"), *_read_part(found, "t10k"), "mnist")


def _find(folder: str, source: str) -> dict[str, Path]:
    """Return where each of the four files lies under the folder that `source` names."""
    root = os.path.expanduser(folder)
    if not os.path.isdir(root):
        raise InputError(f"{source} is {folder!r}, expected a folder with MNIST's four files")
    found: dict[str, Path] = {}
    for name in MNIST_MD5:
        places = [
            folder / file
            for folder in (Path(root), Path(root, "MNIST", "raw"))
            for file in (name, name.removesuffix(".gz"))
        ]
        there = [path for path in places if os.path.exists(path)]
        if there:  # a regular file before what will be refused
            found[name] = next((path for path in there if os.path.isfile(path)), there[0])
    missing = [name for name in MNIST_MD5 if name not in found]
    if missing:
        raise InputError(
            f"{source} is {folder!r}, which lacks {', '.join(missing)};"
            " expected there or in its MNIST/raw, gzipped or unpacked"
        )
    return found


def _cached() -> dict[str, Path]:
    """Where the four files lie in the user's cache folder; those that do not are downloaded."""
    import pooch

    folder = Path(pooch.os_cache("twinstep"))
    for name, md5 in MNIST_MD5.items():
        try:
            sound = _md5(files.read(folder / name, MAX_BYTES)) == md5
        except FileNotFoundError:
            sound = False
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error.strerror}") from None
        if not sound:
            _download(name, folder)
    return {name: folder / name for name in MNIST_MD5}


def _download(name: str, folder: Path) -> None:
    """Fetches a file, held against its MD5, from the first mirror that has it."""
    tried = []
    for mirror in MNIST_MIRRORS:
        try:
            _retrieve(mirror, name, folder)
            return
        except (OSError, ValueError) as error:  # no network, no space; not the expected bytes
            tried.append(f"{urlsplit(mirror).hostname}: {_reason(error)}")
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(tried)}); put {', '.join(MNIST_MD5)}"
        f" into one folder and name it with --data-dir or the variable {DATA_VARIABLE}"
    )


class _Watch:
    """What pooch tells of each piece: it ends what is larger than MNIST, and knows of silence."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.heard = time.monotonic()

    def update(self, count: int) -> None:
        self.heard = time.monotonic()
        self.done += count
        if self.done > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes came")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def _retrieve(mirror: str, name: str, folder: Path) -> None:
    """Fetches a file; OSError where the mirror is silent, in all, for longer than PATIENCE.

    requests counts the time for each address of a host anew, and looking up its name not at all:
    so the clock is here, and what hangs ends with the program.
    """
    import pooch

    logger, watch, failed = pooch.get_logger(), _Watch(), list[Exception]()
    level = logger.level

    def fetch() -> None:
        try:
            downloader = pooch.HTTPDownloader(progressbar=watch, timeout=PATIENCE)
            md5 = f"md5:{MNIST_MD5[name]}"
            pooch.retrieve(mirror + name, md5, name, folder, downloader=downloader)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    logger.setLevel("ERROR")  # it says from where to where, on stderr
    thread.start()
    while thread.is_alive() and time.monotonic() - watch.heard < PATIENCE:
        thread.join(0.1)
    logger.setLevel(level)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds")
    if failed:
        raise failed[0]


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom of it, in few words: requests and urllib3 wrap it four deep."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        inner = getattr(error, "reason", None) or error.__cause__ or (error.args or [None])[0]
    said = getattr(error, "strerror", None) or str(error)
    return textwrap.shorten(said.rpartition(">: ")[2] or type(error).__name__, 160)


def _read_part(found: dict[str, Path], part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the images (N, 28, 28) and labels (N,) of "train" or "t10k"."""
    images_file, labels_file = (found[name] for name in MNIST_MD5 if name.startswith(part))
    images = _read_idx(images_file, ndim=3)
    labels = _read_idx(labels_file, ndim=1)
    if len(images) == 0 or images.shape[1:] != (28, 28):
        raise InputError(f"{images_file} has shape {images.shape}, expected (N, 28, 28) with N > 0")
    if len(images) != len(labels):
        raise InputError(
            f"{labels_file} holds {len(labels)} labels, expected {len(images)}:"
            f" one for each image of {images_file}"
        )
    if labels.max() > 9:
        raise InputError(f"{labels_file} holds the label {labels.max()}, expected 0..9")
    return images, labels.astype(np.int64)


def _read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read an IDX file: bytes 0, 0, 8 (uint8), ndim; the sizes as big-endian uint32; the data."""
    raw = _read_bytes(path)
    magic = bytes([0, 0, 8, ndim])
    if raw[:4] != magic:
        raise InputError(
            f"{path} starts with 0x{raw[:4].hex()}, expected 0x{magic.hex()} (IDX, uint8, {ndim}-d)"
        )
    header = 4 + 4 * ndim
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    expected = header + math.prod(shape)  # at least the header, so that a cut header fails as well
    if len(raw) != expected:
        raise InputError(f"{path} has {len(raw)} bytes, expected {expected}: truncated or damaged")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    """Read the file, unpacked; a gzipped file must have its known MD5."""
    try:
        raw = files.read(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix != ".gz":
        return raw
    if (md5 := _md5(raw)) != MNIST_MD5[path.name]:
        raise InputError(
            f"{path} has MD5 {md5}, expected {MNIST_MD5[path.name]}: damaged, or not MNIST"
        )
    return gzip.decompress(raw)


def _md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()
