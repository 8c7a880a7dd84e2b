"""`python -m twinstep` is `twinstep`."""

import sys

from twinstep.cli import main

if __name__ == "__main__":
    sys.exit(main())
