"""python -m cyconv: the same as the command cyconv."""

import sys

from cyconv.cli import main

if __name__ == "__main__":
    sys.exit(main())
