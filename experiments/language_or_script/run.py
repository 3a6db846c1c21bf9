"""Is it language or is it script? `python experiments/language_or_script/run.py --sentences DIR`.

Options of `xlens subspace` may follow, and win over those in config.yaml.
"""

import sys
from pathlib import Path

from xlens.cli import main

if __name__ == "__main__":
    main(["--config", str(Path(__file__).with_name("config.yaml")), "subspace", *sys.argv[1:]])
