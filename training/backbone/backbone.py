"""A loaded encoder with its tokenizer and sizes."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mtl_edge import bundle
from mtl_edge.batches.planning import Tokens
from mtl_edge.errors import BackboneError, one_line
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.backbone.reading import quiet
from mtl_edge.training.backbone.tokenizer import read_tokenizer
from mtl_edge.training.model import layers_of
from mtl_edge.training.static import WIDTH, StaticEncoder, distilled

__all__ = ["Backbone"]

EXCERPT_LENGTH = 80  # characters
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Backbone:
    """A loaded encoder.

    Attributes:
        encoder: float32, in evaluation mode, with eager attention (the form that fuses).
        folder: where its configuration, weights and tokenizer were read from.
        heads: attention heads of a layer.
    """

    encoder: PreTrainedModel
    folder: Path
    info: bundle.BackboneInfo
    heads: int
    max_tokens: int

    def text_encoder(self, max_tokens: int) -> TextEncoder:
        """Texts to ids as the bundle will do it."""
        tokenizer = read_tokenizer(self.folder)
        return TextEncoder(tokenizer.backend_tokenizer, min(max_tokens, self.max_tokens))

    def excerpt(self, tokens: Tokens) -> str:
        """The start of a text of these tokens, for people."""
        text = read_tokenizer(self.folder).decode([*tokens], skip_special_tokens=True)
        return repr(text if len(text) <= EXCERPT_LENGTH else f"{text[:EXCERPT_LENGTH]}...")

    def truncated(self, depth: int) -> Backbone:
        """The same with its first `depth` layers alone; `info` still describes the whole.

        Of none, the tokens' vectors: see `mtl_edge.training.static`.
        """
        if depth == self.depth:
            return self
        encoder = copy.deepcopy(self.encoder)
        del layers_of(encoder)[depth:]
        encoder.config.num_hidden_layers = depth
        return replace(self, encoder=encoder if depth else distilled(encoder, self.info.vocabulary))

    @property
    def depth(self) -> int:
        """Layers that the encoder has."""
        layers: int = self.encoder.config.num_hidden_layers
        return layers

    @property
    def width(self) -> int:
        """Of a state that heads read."""
        return self.width_at(self.depth)

    def width_at(self, depth: int) -> int:
        """The same with its first `depth` layers alone."""
        if isinstance(self.encoder, StaticEncoder):
            return self.encoder.vectors.shape[1]
        return self.info.hidden_size if depth else min(WIDTH, self.info.hidden_size)

    @property
    def vectors(self) -> Tensor | None:
        """Of an encoder without layers, its table `[vocabulary, width]`."""
        return self.encoder.vectors if isinstance(self.encoder, StaticEncoder) else None

    @torch.inference_mode()
    def require_depth(self, depth: int) -> None:
        """Make sure that the first `depth` layers alone give the states that all of them do there.

        Raises:
            BackboneError: they do not, as where a norm follows the last layer, or the architecture
                cannot be cut.
        """
        if depth == self.depth:
            return
        ids = torch.arange(4, 8).unsqueeze(0)
        mask = torch.ones_like(ids)
        try:
            cut = self.truncated(depth).encoder(ids, mask).last_hidden_state
            same = depth == 0 or torch.allclose(
                cut, self.encoder(ids, mask, output_hidden_states=True).hidden_states[depth]
            )
        except Exception as error:  # each architecture breaks in its own way
            raise BackboneError(
                f"backbone {self.info.name!r} ({self.info.architecture}) cannot be cut to {depth} "
                f"layers ({one_line(error, typed=True)}); use all"
            ) from None
        if not same:
            raise BackboneError(
                f"backbone {self.info.name!r} ({self.info.architecture}) changes the last layer's "
                f"states as it does not change layer {depth}'s; use all layers"
            )

    def changed(self, encoder: PreTrainedModel, how: str) -> Backbone:
        """The same with weights that learned, under a name and a checksum of their own."""
        digest = hashlib.sha256()
        for name, value in sorted(encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
        name = f"{self.info.name}, fine-tuned ({how})"
        info = replace(self.info, name=name, sha256=digest.hexdigest())
        return replace(self, encoder=encoder, info=info)

    def save(self, folder: Path) -> None:
        """Write configuration, weights and tokenizer in the format of transformers."""
        with quiet():
            self.encoder.save_pretrained(folder)
        read_tokenizer(self.folder).save_pretrained(folder)

    def special_tokens(self) -> tuple[int | None, list[int]]:
        """Ids of the unknown token, if there is one, and of all special tokens."""
        tokenizer = read_tokenizer(self.folder)
        return tokenizer.unk_token_id, list(tokenizer.all_special_ids)

    def describe(self, folder: Path, max_tokens: int) -> None:
        """Write what `transformers` asks of a folder besides the tokenizer itself.

        So `AutoTokenizer.from_pretrained(folder)` gives the tokenizer of a bundle, and
        `AutoConfig` the encoder's sizes.
        """
        config = self.encoder.config.to_dict()
        config.pop("_name_or_path", None)  # a folder of the machine that trained
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        tokenizer = read_tokenizer(self.folder, model_max_length=max_tokens)
        with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
            tokenizer.save_pretrained(work)
            options = json.loads((Path(work) / TOKENIZER_CONFIG).read_text())
        for name in ("is_local", "local_files_only", "name_or_path"):
            options.pop(name, None)
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(options, indent=2, sort_keys=True) + "\n")
