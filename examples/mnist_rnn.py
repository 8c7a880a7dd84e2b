"""An RNN reads handwritten digits row by row (document 001, the comment below it).

scikit-learn's digits, enlarged to 28 x 28, or MNIST with `--data mnist`. The learning rate of
0.01 is high for this network: rounding alone carries two runs apart within some dozen updates,
each of which is right to the last digits. That is why single steps are judged from the same
state.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("mnist_rnn"))
