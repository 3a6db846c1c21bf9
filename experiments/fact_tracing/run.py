"""Facts through training: `python experiments/fact_tracing/run.py`.

Options of `xlens facts` may follow, and win over those in config.yaml.
"""

import sys
from pathlib import Path

from xlens.cli import main

if __name__ == "__main__":
    main(["--config", str(Path(__file__).with_name("config.yaml")), "facts", *sys.argv[1:]])
