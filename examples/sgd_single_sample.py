"""SGD as the text of document 002 describes it: one sample an update.

The same data and model, in batches of one in a new order each epoch: ten passes come nearer to
the line than a hundred updates on all points.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("sgd_single_sample"))
