"""`python -m rankloom` is the command `rankloom`."""

import sys

from rankloom.cli import main

sys.exit(main())
