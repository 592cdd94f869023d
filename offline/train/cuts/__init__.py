"""What is cut from recordings and what is learned from it: one module per kind.

Each holds a ``Config`` with

``batches(prepared, plan) -> Batches``
    What to train on; `hops` has none, its models are fitted by `offline.train.fitted`.
``unsettled(context_s) -> str | None``
    Why a model with this much left context cannot be trained on such pieces.
``contradictions(recipe) -> iterator of str``
    What in the rest of a recipe does not go with it.
"""
