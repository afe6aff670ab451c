"""`mae-kit report`: a run folder as one HTML page."""

import logging
import shlex
from pathlib import Path

from mae_kit.reports.page import write_report

log = logging.getLogger(__name__)


def report(run: Path) -> dict[str, str]:
    """Write RUN/report.html: scores, curves, reconstructions, evaluation, confusion matrix and recipe on one page.

    Args:
        run: The folder of a run, an evaluation, a demo or a comparison; it need not be finished.

    Returns:
        `report`, the path of the page; `next`, the command that comes after such a run, if there is one.

    Raises:
        UserError: There is no such folder, no run in it, or the page cannot be written there.
    """
    path, following = write_report(run)
    log.info(f"report: {path}")
    return {"report": str(path)} | ({"next": shlex.join(following[0][1])} if following else {})
