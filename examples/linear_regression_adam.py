"""The exercise of document 000: the same with Adam.

Adam moves both parameters by about the learning rate an update, 0.01, whatever the gradient: the
bias gets there sooner than with SGD, and the weight has a long way to go after 100 epochs.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("linear_regression_adam"))
