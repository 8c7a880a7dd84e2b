"""`python -m twinstep.torch --out FOLDER train.py ...` records a program as it is.

Mirror: twinstep/jax/__main__.py
"""

import sys

from twinstep.recorded import main
from twinstep.torch.recorder import record

if __name__ == "__main__":
    sys.exit(main("torch", record, sys.argv[1:]))
