"""Train one stage: `accelerate launch train.py --stage mma|mrnn ...` (see `--help`)."""

import sys

from mma_mrnnet.train import main

sys.exit(main())
