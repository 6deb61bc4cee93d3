"""``python -m spiral.cli``."""

from __future__ import annotations

import sys

from spiral.cli.main import main

sys.exit(main())
