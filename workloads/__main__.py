"""`python -m workloads STAGE …`: the command line where nothing is installed, as in a submitted Ray job."""

from workloads.cli import main

if __name__ == "__main__":
    main()
