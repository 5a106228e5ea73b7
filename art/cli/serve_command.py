"""``art serve``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Load a base model and serve it over the Tinker API, for training (LoRA) and sampling.
Clients reach it with the tinker SDK, or with art.TinkerBackend, through TINKER_BASE_URL and
TINKER_API_KEY, which are shown once the model is loaded. The key is new for each launch, unless
ART_ENGINE_API_KEY is set to one that starts with "tml-".
"""

_EXAMPLES = """\
examples:
  art serve HuggingFaceTB/SmolLM2-135M-Instruct
  art serve ./my-model --root ./runs --port 8000 --device cpu
"""


def add(commands: "Commands") -> None:
    """Add the command to the parser of ``art``."""
    parser = commands.add_parser(
        "serve",
        help="serve a base model over the Tinker API",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "base_model",
        metavar="BASE_MODEL",
        help="a folder, or a name on the Hugging Face hub; clients ask for it by this text",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(".art/engine"),
        help="the folder for checkpoints (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, mps, cuda, cuda:1, … (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the base model's weights (default: %(default)s)",
    )
    parser.add_argument(
        "--trainer",
        metavar="EXECUTOR",
        default="torch",
        help="the executor that trains (default: %(default)s)",
    )
    parser.add_argument(
        "--sampler",
        metavar="EXECUTOR",
        default="torch",
        help="the executor that samples (default: %(default)s)",
    )
    parser.add_argument(
        "--child",
        action="store_true",
        help="for programs that start the server: JSON lines on standard output, and an end "
        "when standard input ends",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    try:
        from art.engine.serve import ServeOptions, serve
    except ModuleNotFoundError as error:
        from art._lazy import explain_missing

        raise explain_missing(error, "art.engine") from error
    serve(
        ServeOptions(
            base_model=options.base_model,
            root=options.root,
            host=options.host,
            port=options.port,
            device=options.device,
            dtype=options.dtype,
            trainer=options.trainer,
            sampler=options.sampler,
            child=options.child,
        )
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not between 0 and 65535")
    return port
