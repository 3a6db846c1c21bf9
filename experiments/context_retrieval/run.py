"""Reading across languages: `python experiments/context_retrieval/run.py --data FOLDER`.

Options of `xlens xmrc` may follow, and win over those in config.yaml.
"""

import sys
from pathlib import Path

from xlens.cli import main

if __name__ == "__main__":
    main(["--config", str(Path(__file__).with_name("config.yaml")), "xmrc", *sys.argv[1:]])
