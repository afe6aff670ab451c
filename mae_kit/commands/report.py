"""`mae-kit report`: a run folder as one HTML page."""

import logging
from pathlib import Path

from mae_kit.reports.page import write_report

log = logging.getLogger(__name__)


def report(run: Path) -> dict[str, str]:
    """Write RUN/report.html: scores, curves, reconstructions, evaluation, confusions and recipe on one page.

    Args:
        run: The folder that pretrain, finetune, evaluate, demo or compare wrote; the run may not have ended yet.

    Returns:
        `report`, the path of the page.

    Raises:
        UserError: There is no such folder, no run in it, or the page cannot be written there.
    """
    path = write_report(run)
    log.info(f"report: {path}")
    return {"report": str(path)}
