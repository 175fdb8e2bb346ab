"""`python -m flasc_cli` is `flasc`."""

from flasc_cli.main import main

main()
