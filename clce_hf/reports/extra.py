"""Whether the packages of the `reports` extra are installed."""

from transformers.utils import is_matplotlib_available, is_sklearn_available


def check_can_draw() -> None:
    """Refuse to go on without the packages that draw.

    Raises:
        ModuleNotFoundError: unless what pictures need is installed.
    """
    if not (is_matplotlib_available() and is_sklearn_available()):
        raise ModuleNotFoundError(
            "Pictures and reports are drawn with Matplotlib and scikit-learn: "
            'pip install "clce_hf[reports]".'
        )
