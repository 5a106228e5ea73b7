"""Tasks of the event loop that run for as long as their owner does."""

import asyncio
import logging

logger = logging.getLogger(__name__)


def report_end(task: "asyncio.Task[None]") -> None:
    """Log the end of a task that should never end; a callback for ``add_done_callback``."""
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s has ended", task.get_name(), exc_info=task.exception())
