"""``python -m forestbridge`` is ``forestbridge``."""

from forestbridge.cli import main

if __name__ == "__main__":
    main()
