"""The depth of a weight, read from role names: embeddings, layers from below, head. Floor 0, imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence

EMBEDDINGS, HEAD = "embeddings", "head"

_NUMBER = re.compile(r"\.(\d+)\.")
_LOOKED_UP = re.compile(r"embed|relative_attention_bias|(^|\.)(wte|wpe|shared)\.")


def layer_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the weights by depth, from below: `embeddings`, `layer 0` ..., `head`; each group by the role names in it.

    A layer is told by the first number in a name (`body.encoder.layer.3.output.dense.weight`). What stands before the
    first layer belongs to the embeddings, what stands after a layer (a last norm, a pooler) to the layer before it. Of
    an encoder with a decoder, the decoder's layers lie above the encoder's: `encoder layer 0` ... `decoder layer 0` ...
    Layers that share one set of weights (ALBERT) are one layer.

    Args:
        names: role names in the model's order.
    """
    body = [name for name in names if name.startswith("body.")]
    halves = {half for half in ("encoder", "decoder") if any(name.startswith(f"body.{half}.") for name in body)}
    found: dict[str, list[str]] = {EMBEDDINGS: []}
    for half in ("encoder", "decoder") if len(halves) == 2 else ("",):
        top = EMBEDDINGS
        for name in body:
            if (
                half
                and not name.startswith(f"body.{half}.")
                and (half == "decoder" or name.startswith("body.decoder."))
            ):
                continue
            number = _NUMBER.search(name)
            if number and not _LOOKED_UP.search(name):
                top = f"{half} layer {number[1]}".strip()
            found.setdefault(EMBEDDINGS if _LOOKED_UP.search(name) else top, []).append(name)
    head = [name for name in names if not name.startswith("body.")]
    return {group: members for group, members in (found | {HEAD: head}).items() if members}


def layers(names: Sequence[str]) -> list[str]:
    """Return the names of the groups between embeddings and head, from below."""
    return [group for group in layer_groups(names) if group not in (EMBEDDINGS, HEAD)]


def above(names: Sequence[str], kept: int) -> list[str]:
    """Return the weights of the layers above the lowest `kept`; those after the last layer (a pooler) are its own."""
    groups = layer_groups(names)
    return [name for layer in layers(names)[kept:] for name in groups[layer]]


def pattern(names: Sequence[str]) -> str:
    """Return a regex that matches these role names and no other."""
    return rf"^({'|'.join(map(re.escape, names))})$"
