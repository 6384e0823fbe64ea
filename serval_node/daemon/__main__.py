"""`python -m serval_node.daemon`."""

from __future__ import annotations

import sys

from serval_node.daemon.servald import main

if __name__ == "__main__":
    sys.exit(main())
