"""zero_grad, backward, step with Adam (document 001, section 3).

The document shows the loop's body once; here it runs ten times, so that the bias corrections of
both moments have something to correct.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("adam_update"))
