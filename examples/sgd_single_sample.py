"""SGD as the text describes it: one sample an update (document 002).

The same data and model as sgd_linear_model.py, in batches of one, in a new order each epoch; both
frameworks get the very same order.

Look at the loss: each is that of a single point, so it jumps about. Ten passes make a thousand
updates at the price of ten full ones, and come nearer to the line than a hundred on all points,
though not within 0.2 of both parameters.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("sgd_single_sample", __doc__))
