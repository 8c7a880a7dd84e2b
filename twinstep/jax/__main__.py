"""`python -m twinstep.jax --out FOLDER train.py ...` records a program as it is.

Mirror: twinstep/torch/__main__.py
"""

import sys

from twinstep.jax.outside.recorder import record_program
from twinstep.recorded import main

if __name__ == "__main__":
    sys.exit(main("jax", record_program, sys.argv[1:]))
