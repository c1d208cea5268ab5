"""load_mnist finds MNIST where it is said to look, and believes no file without a check."""

import gzip
import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from cyconv.datasets import load, load_digits, load_mnist, mnist
from cyconv.errors import DataFormatError, DownloadError
from tests.datasets.conftest import idx_bytes, send

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (f"{file.name}.gz" for file in mnist.FILES)


def fill(directory, contents):
    """Write files by name into a new directory."""
    directory.mkdir()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return directory


def assert_holds(data, arrays):
    for found, expected in zip((*data[0], *data[1]), arrays, strict=True):
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


def gzip_name(name):
    return name


def raw_name(name):
    return name.removesuffix(".gz")


def dotted_name(name):
    return name.replace("-idx", ".idx")


def dotted_raw_name(name):
    return raw_name(dotted_name(name))


@pytest.mark.parametrize("spelling", [gzip_name, raw_name, dotted_name, dotted_raw_name])
def test_a_directory_may_spell_the_files_in_any_usual_way(tmp_path, fake_mnist, spelling):
    contents, arrays = fake_mnist
    assert_holds(
        load_mnist(fill(tmp_path / "data", {spelling(n): c for n, c in contents.items()})), arrays
    )


@pytest.mark.parametrize(
    ("folder", "spelling"), [(raw_name, dotted_name), (dotted_raw_name, raw_name)]
)
def test_each_file_may_lie_in_a_folder_of_its_name(tmp_path, fake_mnist, folder, spelling):
    contents, arrays = fake_mnist
    for name, content in contents.items():
        fill(tmp_path / folder(name), {spelling(name): content})
    assert_holds(load_mnist(os.fsencode(tmp_path)), arrays)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS])
def test_a_bad_file_hides_no_good_one_of_another_spelling(tmp_path, fake_mnist, name, caplog):
    contents, arrays = fake_mnist
    bad = contents[TRAIN_LABELS][:-1]
    directory = fill(tmp_path / "data", {**contents, name: bad, raw_name(name): contents[name]})
    assert_holds(load_mnist(directory), arrays)
    assert f"a file of MNIST is passed over: {directory / name}: " in caplog.text
    (directory / raw_name(name)).write_bytes(bad)
    with pytest.raises(DataFormatError, match=f"{raw_name(name)}: "):
        load_mnist(directory)


def test_unzipped_files_are_read_too(tmp_path, fake_mnist):
    contents, arrays = fake_mnist
    plain = {raw_name(name): gzip.decompress(content) for name, content in contents.items()}
    assert_holds(load_mnist(str(fill(tmp_path / "data", plain))), arrays)


@pytest.mark.parametrize("missing", [TRAIN_IMAGES, TEST_LABELS])
def test_a_directory_without_a_file_is_an_error_that_names_it(tmp_path, published, missing):
    fill(tmp_path / "cache", published)
    rest = {name: content for name, content in published.items() if name != missing}
    directory = fill(tmp_path / "data", rest)
    for function in (load_mnist, lambda directory: load("auto", directory)):
        with pytest.raises(FileNotFoundError, match=rf"data must .* lacks {raw_name(missing)}\. "):
            function(directory)
    with pytest.raises(FileNotFoundError, match=r"absent must .* lacks (\S+, ){3}\S+-ubyte\. "):
        load_mnist(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (TRAIN_IMAGES, TEST_IMAGES),
        (TRAIN_LABELS, TEST_LABELS),
        (TEST_IMAGES, TRAIN_IMAGES),
        (TEST_LABELS, TEST_IMAGES),
    ],
)
def test_a_file_under_another_ones_name_is_refused(tmp_path, fake_mnist, name, other):
    contents, _ = fake_mnist
    directory = fill(tmp_path / "data", {**contents, name: contents[other]})
    for function in (load_mnist, lambda directory: load("auto", directory)):
        with pytest.raises(DataFormatError, match=f"{name}: shape must be .* promises"):
            function(directory)


def test_a_label_that_is_no_digit_is_named(tmp_path, fake_mnist):
    contents, arrays = fake_mnist
    labels = arrays[3].copy()
    labels[[123, 456]] = 10, 255
    wrong = {**contents, TEST_LABELS: gzip.compress(idx_bytes(labels))}
    with pytest.raises(DataFormatError, match=f"{TEST_LABELS}: .* label 123 is 10"):
        load_mnist(fill(tmp_path / "data", wrong))


def test_the_environment_comes_before_the_cache(tmp_path, monkeypatch, published, fake_mnist):
    fill(tmp_path / "cache", {name: b"not used" for name in published})
    monkeypatch.setenv("CYCONV_DATA", str(fill(tmp_path / "data", published)))
    assert_holds(load_mnist(), fake_mnist[1])


def test_the_environment_is_passed_over_aloud(tmp_path, monkeypatch, published, fake_mnist, caplog):
    fill(tmp_path / "cache", published)
    monkeypatch.setenv("CYCONV_DATA", str(tmp_path / "empty"))
    with caplog.at_level(logging.WARNING, "cyconv"):
        assert_holds(load_mnist(), fake_mnist[1])
    assert "CYCONV_DATA is passed over" in caplog.text


def test_a_damaged_file_in_the_environment_is_an_error(tmp_path, monkeypatch, published):
    fill(tmp_path / "cache", published)
    damaged = {**published, TRAIN_LABELS: published[TRAIN_LABELS][:-1]}
    monkeypatch.setenv("CYCONV_DATA", str(fill(tmp_path / "data", damaged)))
    for function in (load_mnist, load):
        with pytest.raises(DataFormatError, match=TRAIN_LABELS):
            function()


def test_the_cache_is_where_the_system_keeps_caches(tmp_path, monkeypatch, published, fake_mnist):
    monkeypatch.delenv("CYCONV_CACHE")
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path))
    fill(tmp_path / "cyconv", published)
    assert_holds(load_mnist(), fake_mnist[1])


@pytest.mark.parametrize("variable", ["CYCONV_CACHE", "CYCONV_DATA", "XDG_CACHE_HOME"])
def test_a_tilde_is_the_home_of_the_user(tmp_path, monkeypatch, published, fake_mnist, variable):
    if os.name == "nt":
        pytest.skip("the variables of Windows hold whole paths")
    monkeypatch.delenv("CYCONV_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "folder", published)
    fill(tmp_path / "cyconv", published)
    monkeypatch.setenv(variable, "~" if variable.startswith("XDG") else "~/folder")
    assert_holds(load_mnist(), fake_mnist[1])


def test_a_pipe_in_the_cache_is_not_read(tmp_path, published):
    if os.name == "nt":
        pytest.skip("pipes are POSIX's")
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache" / TEST_LABELS)
    with pytest.raises(DownloadError, match=f"{TEST_LABELS}|no mirror"):
        load_mnist()


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CYCONV_CACHE")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(DownloadError, match="CYCONV_CACHE"):
        load_mnist()


def test_the_cache_is_filled_once(server, published, fake_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server.url}/",))
    server.routes.update({f"/{name}": send(content) for name, content in published.items()})
    assert_holds(load_mnist(), fake_mnist[1])
    assert server.asked == [f"/{name}" for name in published]
    assert_holds(load_mnist(), fake_mnist[1])
    assert len(server.asked) == 4
    (tmp_path / "cache" / TEST_LABELS).write_bytes(b"damaged")
    assert_holds(load_mnist(), fake_mnist[1])
    assert server.asked[4:] == [f"/{TEST_LABELS}"]


def test_auto_falls_back_to_the_digits_and_says_why():
    with pytest.raises(DownloadError) as caught:
        load("mnist")
    data = load("auto")
    assert (data.name, data.note) == ("digits", str(caught.value))
    assert_holds(data[1:3], (*load_digits()[0], *load_digits()[1]))


def test_load_takes_the_set_that_was_asked_for(tmp_path, fake_mnist):
    """Other data in files of the names and extents of MNIST do not become it."""
    contents, arrays = fake_mnist
    directory = fill(tmp_path / "data", contents)
    for name in ("auto", "mnist"):
        data = load(name, directory)
        assert (data.name, data.note) == ("custom", "")
        assert_holds((data.train, data.test), arrays)
    assert (load("digits").name, load("digits").note) == ("digits", "")
    with pytest.raises(ValueError, match="directory must be None"):
        load("digits", directory)
    with pytest.raises(ValueError, match="got 'cifar'"):
        load("cifar")


@pytest.fixture(scope="module")
def real():
    """Return the real MNIST, from the folder in CYCONV_DATA."""
    directory = os.environ.get("CYCONV_DATA")
    if not directory:
        pytest.skip("CYCONV_DATA does not name a folder with MNIST")
    return load_mnist(directory)


def test_the_real_digits_are_those_published(real):
    published = [
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ]
    arrays = [*real[0], *real[1]]
    assert [hashlib.sha256(idx_bytes(array)).hexdigest() for array in arrays] == published
    assert mnist.is_published(*real)
    assert not mnist.is_published(*real[::-1])
    assert arrays[1][:5].tolist() == [5, 0, 4, 1, 9]
    assert arrays[3][:5].tolist() == [7, 2, 1, 0, 4]
    assert all(array.dtype == np.uint8 and array.flags.c_contiguous for array in arrays)
