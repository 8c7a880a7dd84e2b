"""A linear model by SGD (document 002), as its code trains it.

100 points from NumPy's own generator. The text calls it stochastic, but the code takes all points
in every update; and 100 of these updates are not enough to fit the line.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("sgd_linear_model"))
