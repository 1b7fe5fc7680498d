"""``python -m sciffusion`` is the command ``sciffusion``; ``torchrun -m sciffusion`` starts many."""

import sys

from sciffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
