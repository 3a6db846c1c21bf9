"""The language-specific latent process: `python experiments/latent_process/run.py`.

Options of `xlens process` may follow, and win over those in config.yaml.
"""

import sys
from pathlib import Path

from xlens.cli import main

if __name__ == "__main__":
    main(["--config", str(Path(__file__).with_name("config.yaml")), "process", *sys.argv[1:]])
