"""``python -m qas``."""

import sys

from qas.cli import main

sys.exit(main())
