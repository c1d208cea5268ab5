"""python -m tests.nightly: all tests with long counts, and the table of figures at the end."""

import os
import sys

import pytest

if __name__ == "__main__":
    os.environ["CYCONV_NIGHTLY"] = "1"
    sys.exit(pytest.main(sys.argv[1:] or ["tests"]))
