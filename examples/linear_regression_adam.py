"""The linear regression with Adam (document 000, its exercise).

Look at weight and bias beside those of SGD. Adam moves both by about the learning rate an update,
0.01, whatever the gradient: after 100 updates neither can have come farther than about 1. That is
about where the bias belongs, so it fares better than with SGD; the weight has a long way to go, and
the loss with it.

So another optimizer asks for another learning rate: try `--learning-rate 0.1`.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("linear_regression_adam", __doc__))
