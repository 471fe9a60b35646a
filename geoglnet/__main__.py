"""``python -m geoglnet``."""

from geoglnet.cli.main import main

if __name__ == "__main__":
    main()
