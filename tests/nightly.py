"""python -m tests.nightly: all tests with long counts, and the table of figures at the end."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["--counts", "nightly", *sys.argv[1:]]))
