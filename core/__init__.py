"""What every ablation needs: runs and their store, audio in, images out, models in blocks, training."""

import os

# Threads of OpenMP that wait for others turn in a circle for a while before they sleep. On a machine of one's own that
# saves microseconds; beside any other busy process they hold the core that the others need, and a second training makes
# both several times slower. It has to be said before torch is imported; who has said it already is left alone.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # GNU's, which torch comes with: turns
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's: milliseconds
