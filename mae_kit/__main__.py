"""`python -m mae_kit` is `mae-kit`; torchrun needs it: `torchrun --nproc-per-node 2 -m -- mae_kit pretrain ...`.

Without the two dashes torchrun takes our --run for its own --run-path.
"""

import sys

from mae_kit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
