"""``python -m crfrnn`` is ``crfrnn``."""

import sys

from crfrnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
