"""PyInstaller's way to the hook for art: the entry point ``pyinstaller40`` names this.

No program loads it; PyInstaller does, while it builds one.
"""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folder that holds ``hook-art.py``."""
    return [str(Path(__file__).parent)]
