"""python -m seldrt"""

from seldrt.cli import main

if __name__ == "__main__":
    main()
