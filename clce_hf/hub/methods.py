"""How model cards name the methods of training, and whom they cite."""

from clce_hf.hub.model_card import CardMethod

_CITATION = """```bibtex
@inproceedings{long2024clce,
  title     = {{CLCE}: An Approach to Refining Cross-Entropy and Contrastive Learning for
               Optimized Learning Fusion},
  author    = {Long, Zijun and Killick, George and Zhuang, Lipeng and Aragon-Camarasa, Gerardo and
               Meng, Zaiqiao and McCreadie, Richard},
  booktitle = {ECAI 2024},
  year      = {2024},
  url       = {https://arxiv.org/abs/2402.14551}
}
```"""

CROSS_ENTROPY = CardMethod("cross-entropy.", _CITATION)
OWN = CardMethod("a loss of its own.", _CITATION)
_CLCE = (
    "CLCE ([arXiv 2402.14551](https://arxiv.org/abs/2402.14551)): {} fused with a label-aware "
    "contrastive loss that weights hard negatives."
)
_TAGS = ("clce", "contrastive-learning")
CLCE = CardMethod(_CLCE.format("cross-entropy"), _CITATION, _TAGS)
CLCE_WITH_FUNCTION = CardMethod(_CLCE.format("here, a loss of its own"), _CITATION, _TAGS)
