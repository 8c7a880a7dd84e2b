"""A linear model by SGD, as the code trains it (document 002).

100 points of y = 2x + 1 with a little noise from NumPy's own generator. The text says that
stochastic gradient descent takes a single sample for each update, and that the model comes to fit
the data.

Look at the claims: neither holds of the code. It hands the optimizer all 100 points every time, so
nothing is stochastic about it, and 100 such updates end far from the line, though the loss looks
nearly flat by then.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("sgd_linear_model", __doc__))
