"""An RNN reads handwritten digits row by row (document 001, the comment below it).

An image is a sequence of 28 rows; the last step's output names the digit. The default data are
scikit-learn's digits, enlarged to 28 x 28; `--data mnist` is the document's own (60,000 images:
minutes, not seconds). This takes about half a minute.

Surprising: the two curves part, and it is no fault. The learning rate of 0.01 is high for this
network: rounding alone carries two runs apart within a dozen updates, though each update, made from
the same state, is the same to the last digits. That is why single steps are judged. The accuracy is
as much a matter of chance: smaller steps (`--learning-rate 0.001`) learn better, and stay
together for longer.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("mnist_rnn", __doc__))
