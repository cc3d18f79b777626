"""`accelerate launch train.py --stage mma|mrnn ...`: trains one stage; `--help` lists the settings."""

import sys

from mma_mrnnet.train import main

sys.exit(main())
