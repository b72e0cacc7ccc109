"""`python -m mtl_edge.cli` is `mtl-edge`."""

import sys

from mtl_edge.cli import main

sys.exit(main())
