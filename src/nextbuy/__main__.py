"""`python -m nextbuy` is the command line."""

from nextbuy.cli.app import main

if __name__ == "__main__":
    main()
