"""The attack on readers sees what it is there to see."""

import os

import numpy as np
import pytest

from tests.attacks import MIB, Mutants, attack, mutate


def reads(path, content):
    with open(path, "rb") as file:
        assert file.read() == content
    return content == b"good"


def raises(path, content):
    return {b"good": True}[content]


def hoards(path, content):
    return len(bytes(65 * MIB)) > 0


def spins(path, content):
    while True:
        pass


def dies(path, content):
    os._exit(0)


def cut(rng, content):
    return content[:3]


def test_files_that_are_read_and_refused_are_counted():
    outcome = attack(reads, [b"good"], [("one", b"good"), ("two", b""), ("three", b"bad")])
    assert outcome[:2] == (1, 2)
    assert "3, of which 2 refused; at most" in str(outcome)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (raises, r"seed 7, case 0, b'goo': KeyError: b'goo'"),
        (hoards, r"seed 7, case 0, b'goo': MemoryError"),
        (spins, r"crashed, or ran for 1 s, on b'goo'"),
        (dies, r"crashed, or ran for 1 s, on b'goo'"),
    ],
)
def test_a_bad_reader_is_found_and_its_file_is_named(check, text):
    with pytest.raises(AssertionError, match=text):
        attack(check, [], Mutants([b"good"], cut, 1, 7))


def test_a_good_file_that_is_refused_is_found():
    with pytest.raises(AssertionError, match="this file is good: b'bad'"):
        attack(reads, [b"bad"], [])


def test_the_same_seed_gives_the_same_mutants():
    files = [bytes(range(40)), b""]
    one, same, other = (list(Mutants(files, mutate, 200, seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert len({content for _, content in one}) > 100
    assert mutate(np.random.default_rng(0), files[0]) != files[0]
