"""`python -m rankloom` is the command `rankloom`."""

import sys

from rankloom._cli.main import main

sys.exit(main())
