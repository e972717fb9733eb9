"""``python -m bitemporal`` is the command ``bitemporal``."""

import sys

from bitemporal.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
