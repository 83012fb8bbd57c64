"""`python -m torture`."""

import sys

from torture.run import main

sys.exit(main(sys.argv[1:]))
