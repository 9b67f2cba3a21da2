"""``python -m qas.cli``."""

import sys

from qas.cli import main

sys.exit(main())
