"""`python -m jaxcnnbp` is the command `jaxcnnbp`."""

from jaxcnnbp.cli.main import main

if __name__ == "__main__":
    main(prog_name="jaxcnnbp")
