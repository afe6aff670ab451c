"""What a fine-tuning is worth: next to training from scratch, and next to simpler uses of the same encoder."""

from markupsafe import Markup

from mae_kit.evaluation.bootstrap import METRICS, headline
from mae_kit.files.run_folder import RunFolder
from mae_kit.reports.evaluation import method_name
from mae_kit.reports.render import data_uri, percent, render
from mae_kit.training.metrics import Row


def worth(result: Row) -> Markup:
    """Show the verdict of `--against-scratch` and the candidates of `--tune auto`, as far as result.json has them."""
    candidates = result.get("candidates", [])
    if not candidates and "verdict" not in result:
        return Markup()
    rows = [(method_name(one["method"]), percent(one["cross_validated"]), _score(one)) for one in candidates]
    chosen = method_name(result.get("chosen", "")) if candidates else ""
    metric = METRICS[headline(candidates[0])[0]] if candidates else ""
    return render("few_labels.html", verdict=result.get("verdict", ""), rows=rows, chosen=chosen, metric=metric)


def mistakes(run: RunFolder, result: Row) -> Markup:
    """Show the images that the classifier is most certainly wrong about."""
    known = [(run.mistake(number), one) for number, one in enumerate(result.get("mistakes", []))]
    shown = [(data_uri(path.read_bytes(), "jpeg"), one) for path, one in known if path.is_file()]
    return render("mistakes.html", mistakes=shown) if shown else Markup()


def _score(candidate: Row) -> str:
    _, value = headline(candidate)
    if value is None:
        return "too few labels"
    ends = [f"{100 * candidate[end]:.1f}" for end in ("low", "high") if candidate[end] is not None]
    return f"{percent(value)} ({' to '.join(ends)})" if ends else percent(value)
