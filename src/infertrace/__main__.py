"""`python -m infertrace`."""

import sys

from infertrace.commands import main

if __name__ == "__main__":
    sys.exit(main())
