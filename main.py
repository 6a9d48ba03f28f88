"""The described usage: make data, encode, train, evaluate, print loss, accuracy, precision, recall.

    pip install -r requirements.txt && python main.py

The same as `nextbuy demo`; every option of it works here too (`python main.py --help`).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from nextbuy.cli.app import main

if __name__ == "__main__":
    main(["demo", *sys.argv[1:]])
