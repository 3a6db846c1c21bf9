"""`make dist` runs this where nothing but the wheel and what it needs is installed."""

import sys
from pathlib import Path

import xlens

HERE = Path(xlens.__file__)


def main() -> None:
    """The atlas, which the wheel holds, read through the lens; a figure; the command line."""
    if "site-packages" not in HERE.parts:
        sys.exit(f"xlens is {HERE}, not the installed wheel.")
    model = xlens.load("atlas", device="cpu")
    states = xlens.harvest(model, ["Deutschland: ", "France: "], progress=False)
    found = xlens.logit_lens(states, model, progress=False)
    if found.states["entropy"].isna().any() or not found.plot().data:
        sys.exit("The lens reads nothing.")
    from xlens.cli import main as cli

    try:
        cli(["models"])
    except SystemExit as end:
        if end.code:
            raise
    print(f"xlens {xlens.__version__} alone: read {len(states)} prompts of the atlas.")


if __name__ == "__main__":
    main()
