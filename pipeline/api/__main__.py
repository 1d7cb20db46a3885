"""`python -m semires`: the command line, where the `semires` script is not on the path."""

from semires.pipeline.cli import main

if __name__ == "__main__":
    main()
