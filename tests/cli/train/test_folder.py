"""The folder of a run of cyconv train: its files, and what is in it when something goes wrong."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from cyconv import __version__, datasets, files
from cyconv.cli import main, report, train
from cyconv.runs import load_training
from tests.cli.train.runs import FILES, PICTURES, SHORT, bits, child, refusal, rows


def test_out_holds_the_run_the_model_and_the_history(tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    options = ("--batch-size", "50", "--seed", "7", "--schedule", "onecycle", "--early-stop", "9")
    assert main([*SHORT, "--out", str(folder), *options]) == 0
    assert {path.name for path in folder.iterdir()} == FILES
    record = json.loads((folder / "history.json").read_text())
    assert (record["dataset"], record["batch_size"], record["seed"]) == ("digits", 50, 7)
    assert (record["schedule"], record["early_stop"]) == ("onecycle", 9)
    assert (record["preset"], record["epochs"], record["learning_rate"]) == ("exercise", 2, 0.002)
    assert record["cyconv"] == __version__
    assert {len(values) for values in record["history"].values()} == {2}
    out = capsys.readouterr().out
    assert rows(out)[-1][3] == "  saved"
    assert f"the best network is {folder / 'model.safetensors'};" in out
    assert f"test accuracy {record['test_accuracy']:.4f}" in out
    assert "no pictures: " in out and "pip install 'cyconv[plot]'" in out


def test_with_matplotlib_there_are_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == FILES | PICTURES
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert "no pictures" not in capsys.readouterr().out


def test_a_run_that_is_not_finished_is_not_overwritten(tmp_path, capsys):
    assert child("at(Adam, 'step', 30)", *SHORT, "--out", tmp_path).returncode == 130
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    err = refusal([*SHORT, "--out", tmp_path], capsys)
    assert f"{tmp_path} holds a run that is not finished: go on with --resume {tmp_path}" in err
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
@pytest.mark.parametrize("name", ("checkpoint.safetensors", "model.safetensors", "history.json"))
def test_a_link_to_nothing_is_found_before_the_training(name, tmp_path, capsys):
    (tmp_path / name).symlink_to("nowhere/file")
    assert f"{tmp_path} holds {name}: delete it first" in refusal(
        [*SHORT, "--out", tmp_path], capsys
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("left", ([], ["model.safetensors"], ["history.json"]))
def test_a_run_that_is_finished_is_not_overwritten_nor_mixed_with_another(
    left, whole, tmp_path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    if left:
        for name in FILES - {*left}:
            (folder / name).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    err = refusal([*SHORT, "--out", folder, "--preset", "wide"], capsys)
    what = left[0] if left else "a finished run"
    assert f"{folder} holds {what}: delete it first, or choose another folder" in err
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("option", ("--out", "--resume"))
def test_a_run_that_another_process_goes_on_with_is_left_alone(option, whole, tmp_path, capsys):
    """Until that process is killed: nothing of its lock remains."""
    pytest.importorskip("fcntl")
    begin = """
        import os, sys, time
        sys.modules["matplotlib"] = None
        from cyconv.cli import main, train
        def wait(*_):
            print("waits", flush=True)
            time.sleep(60)
        if sys.argv[1] == "--out":
            train.Report.on_batch_end = wait
        else:
            train.load_data = wait
        sys.exit(main(["train", *sys.argv[1:]]))
    """
    folder = tmp_path / "run"
    more = SHORT[1:]
    if option == "--resume":
        more = ()
        shutil.copytree(whole, folder)
    code = textwrap.dedent(begin)
    command = [sys.executable, "-c", code, option, folder, *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any(line == "waits\n" for line in process.stdout)
            for arguments in (["train", "--resume", folder], [*SHORT, "--out", folder]):
                assert f"another cyconv train is running in {folder}: " in refusal(
                    arguments, capsys
                )
        finally:
            process.kill()
    assert main(["train", "--resume", str(folder)]) == 0
    assert bits(folder) == bits(whole)
    assert {path.name for path in folder.iterdir()} == FILES


def test_without_locks_it_trains_all_the_same(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fcntl", None)
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_a_file_system_without_locks_is_as_good(whole, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    assert main([*SHORT, "--out", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


@pytest.mark.parametrize("error", ("ValueError('Key backend')", "OSError(5, 'I/O')", "KeyError(1)"))
def test_whatever_the_import_of_matplotlib_raises_costs_the_pictures_only(
    error, tmp_path, monkeypatch, capsys
):
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "matplotlib.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*SHORT, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    results, pictures = out.split("\nno pictures: ")
    assert "test accuracy" in results and "matplotlib cannot be imported" in pictures
    assert err == ""


def test_a_picture_that_cannot_be_written_comes_after_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    (tmp_path / "history.png").mkdir()
    assert main([*SHORT, "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "test accuracy" in out and "best epoch" in out
    assert err.count("\n") == 1 and f"{tmp_path}/history.png" in err


def test_a_run_that_diverges_says_so_and_keeps_its_table_and_files(tmp_path, capsys):
    assert main([*SHORT, "--learning-rate", "100", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    table = [line.split() for line in out.splitlines() if "/2 " in line]
    assert [row[0] for row in table] == ["1/2", "2/2"] and float(table[1][1]) > 1000
    assert "the run diverged: its loss is " in out and "--learning-rate smaller than 100" in out
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    assert main(SHORT) == 0
    assert "diverged" not in capsys.readouterr().out


def test_a_run_that_diverges_names_its_step_and_the_last_good_checkpoint(tmp_path, capsys):
    rate = ("--learning-rate", "1e30", "--schedule", "constant")
    assert main([*SHORT, *rate, "--out", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the run diverged: " in err and "the loss is nan at epoch 1, step " in err
    assert err.endswith(f"; {tmp_path}/checkpoint.safetensors holds the run after epoch 0\n")
    assert np.isfinite(load_training(tmp_path / "checkpoint.safetensors").network._parameters).all()
    assert main([*SHORT, *rate]) == 1
    assert "; nothing was saved, as --out DIR does" in capsys.readouterr().err


def test_a_run_that_diverges_in_the_last_step_of_an_epoch_is_not_saved(tmp_path, capsys):
    assert main([*SHORT, "--learning-rate", "1e30", "--batch-size", "2000", "--out",
                 str(tmp_path)]) == 1  # fmt: skip
    out, err = capsys.readouterr()
    assert "validation data is nan after epoch 1, step 1" in err and rows(out) == []
    assert "holds the run after epoch 0" in err


@pytest.mark.parametrize("call", range(1, 10))
def test_a_disk_that_fills_up_is_told_in_one_line_and_the_run_goes_on_from_the_last_save(
    call, whole, tmp_path, monkeypatch, capsys
):
    """Three files at the beginning, three at the end, one of the history with the test accuracy."""
    calls, fsync = 0, os.fsync

    def fill(descriptor):
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(report, "SAVING", 0.9)
    monkeypatch.setattr(os, "fsync", fill)
    code = main([*SHORT, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    if calls < call:  # there were not so many files
        assert code == 0
        return
    assert code == 1
    assert err.count("\n") == 1 and f"No space left on device: '{tmp_path}/" in err
    assert {path.name for path in tmp_path.iterdir()} <= FILES
    monkeypatch.setattr(os, "fsync", fsync)
    if call == 1:
        assert not any(tmp_path.iterdir())
        return
    saved = load_training(tmp_path / "checkpoint.safetensors").progress
    assert saved.epoch >= max([int(row[0]) for row in rows(out) if row[3]], default=0)
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert bits(tmp_path) == bits(whole)


def test_data_that_only_have_the_names_of_mnist_are_not_called_so(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_mnist", lambda directory=None: datasets.load_digits())
    arguments = ("train", "--epochs", "1", "--dataset", "mnist")
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "history.json").read_text())["dataset"] == "custom"


def test_a_folder_that_cannot_be_made_is_told_what_to_do(tmp_path, capsys):
    (tmp_path / "link").symlink_to("nothing")
    err = refusal([*SHORT, "--out", tmp_path / "link"], capsys)
    text = "must be a folder, but is a file or a link to nothing; name another, or remove it"
    assert f"{text}: '{tmp_path}/link'" in err


def test_a_folder_that_cannot_be_written_is_told_before_the_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert f"{tmp_path}/file/run" in refusal([*SHORT, "--out", tmp_path / "file/run"], capsys)
    assert f"{tmp_path}/file" in refusal([*SHORT, "--out", tmp_path / "file"], capsys)

    def read_only(path, mode, opener):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(files, "open", read_only, raising=False)
    err = refusal([*SHORT, "--out", tmp_path], capsys)
    assert err == (
        f"cyconv train: [Errno 30] Read-only file system: '{tmp_path}/checkpoint.safetensors'\n"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_the_right_to_write_is_told_before_the_training(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal([*SHORT, "--out", tmp_path], capsys)
