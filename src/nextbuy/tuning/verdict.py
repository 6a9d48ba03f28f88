"""Whether the tuned config is better than the default: the test is asked once, at the end."""

from typing import Final

from nextbuy.evaluation.comparison import Difference

NOISE: Final = "gain within noise"


def verdict(metric: str, difference: Difference) -> str:
    """One sentence on tuned minus default, such as `tuned is better: loss lower by .02 ...`.

    Args:
        metric: `loss`, where lower is better, or one where higher is.
        difference: On the cases of the test; an interval that holds 0 is noise.
    """
    found = difference.difference
    interval = (
        f"95 % interval of tuned minus default {difference.low:+.4f} to {difference.high:+.4f}"
    )
    if not difference.is_clear:
        return f"{NOISE}: {metric} {found:+.4f}, {interval}, which holds 0"
    is_better = (found < 0) == (metric == "loss")
    side = "lower" if found < 0 else "higher"
    word = "better" if is_better else "worse"
    return f"tuned is {word} than the default: {metric} {side} by {abs(found):.4f}, {interval}"
