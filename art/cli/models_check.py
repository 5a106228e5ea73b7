"""Output of ``art models check``: what a model family has and what it lacks."""

import logging
import textwrap
import warnings

from art.errors import ModelSupportPluginWarning
from art.megatron.model_support.family_check import check_family

_WIDTH = 100


def show_check(key: str) -> int:
    """Print what a family has and what it lacks.

    Args:
        key: The family's key.

    Returns:
        1 if something is missing, else 0.
    """
    with warnings.catch_warnings():
        # If the family itself was left out, a finding gives the reason.
        warnings.simplefilter("ignore", ModelSupportPluginWarning)
        # As it loads, megatron warns of its own optional parts, which says nothing of the family.
        warnings.filterwarnings("ignore", module=r"megatron\.")
        logging.getLogger("megatron").setLevel(logging.WARNING)
        findings = check_family(key)
    for finding in findings:
        head = f"{finding.status:<9}  {finding.subject:<15}  "
        print(
            textwrap.fill(
                finding.detail,
                _WIDTH,
                initial_indent=head,
                subsequent_indent=" " * len(head),
                break_on_hyphens=False,
            )
        )
    missing = sum(finding.status == "missing" for finding in findings)
    unchecked = sum(finding.status == "unchecked" for finding in findings)
    summary = f"{missing} missing" if missing else "nothing is missing"
    print(f"\n{key}: {summary}" + (f", {unchecked} not checked here" if unchecked else ""))
    return 1 if missing else 0
