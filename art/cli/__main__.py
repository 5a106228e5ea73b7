"""``python -m art.cli`` is ``art``."""

import sys

from art.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
