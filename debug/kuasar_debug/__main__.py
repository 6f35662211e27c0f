"""`python -m kuasar_debug`."""

from kuasar_debug.cli import main

main()
