"""`python -m bailee` is the `bailee` command."""

from bailee.cli import main

if __name__ == "__main__":
    main()
