"""``python -m art.cli`` is ``art``."""

import sys

from art.cli.program import main

sys.exit(main())
