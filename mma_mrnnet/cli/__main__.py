"""`python -m mma_mrnnet.cli`, the same as `mma-mrnnet`."""

import sys

from mma_mrnnet.cli import main

sys.exit(main())
