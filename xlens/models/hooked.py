"""`HookedModel`: one causal language model, its blocks, its readout and its vocabulary."""

import copy
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn

from xlens.checks import check_seed
from xlens.errors import ModelError
from xlens.models.adapters import summary
from xlens.models.attention import ensure_complete
from xlens.models.compiled import Compiled
from xlens.models.computation import around, attention_of, precision
from xlens.models.fingerprint import Fingerprint, TokenizerHash
from xlens.models.foreign import foreign
from xlens.models.hf import context_length, require_weights
from xlens.models.parts import Parts
from xlens.models.passes import evaluating, require_host
from xlens.models.readout import Readout
from xlens.models.sharing import sharing
from xlens.models.size import Size
from xlens.models.tree import tensors
from xlens.models.vocabulary import Vocabulary
from xlens.prompts import Ends, Prompt, TokenizedPrompt, tokenize
from xlens.prompts.prompt import first_prompt


class HookedModel:
    """A causal LM as xlens sees it. Made by `xlens.load`.

    Residual points are numbered 0..`n_layers`: point 0 is the input of the first block
    (`blocks.0.hook_resid_pre`), point l the output of block l-1 (`blocks.{l-1}.hook_resid_post`),
    raw basis, before the final norm.

    Attributes:
        hf_model: The Hugging Face model; xlens only ever hooks it.
        tokenizer: Its fast tokenizer.
        name: What results call the model.
        weights_note: Where the weights come from, honestly: "Q4_K_M, dequantised".
        origin: Further provenance (revision, digest, licence).
        readout: Final norm, `W_U`, soft-cap and scale.
        family: Where its parts are, from `xlens.models.families`.
        blocks: The transformer blocks, in order.
        loading: What `xlens.load` was asked for, so that another process can load it too; None for
            a model object.
        compiled: Its blocks' compiled forwards, where they were asked for.
    """

    loading: dict[str, Any] | None = None
    compiled: Compiled | None = None

    def __init__(
        self,
        hf_model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        weights_note: str = "",
        origin: dict[str, Any] | None = None,
    ) -> None:
        self.hf_model = hf_model
        self.tokenizer = tokenizer
        self.name = name
        self.weights_note = weights_note
        self.origin = dict(origin or {})
        require_weights(hf_model)
        parts = Parts.of(hf_model)
        self.config, self.family, self.blocks = parts.config, parts.family, parts.blocks
        hashed = Fingerprint(hf_model)

        def fingerprint(*, glance: bool = False) -> str:
            require_weights(hf_model)
            parts.require_same(hf_model)
            return hashed.glance() if glance else hashed()

        self._fingerprint = fingerprint
        self._tokenizer_hash = TokenizerHash(tokenizer)
        self.readout = Readout(
            parts.ln_final,
            parts.unembed,
            softcap=parts.softcap,
            logit_scale=parts.logit_scale,
            fingerprint=fingerprint,
            n_points=len(parts.blocks) + 1,
        )
        self._vocab: tuple[str, Vocabulary] | None = None
        self._whole: set[str | None] = set()  # attention implementations that leave nothing out

    def __repr__(self) -> str:
        return (
            f"HookedModel({self.name!r}, {type(self.hf_model).__name__}, n_layers={self.n_layers}, "
            f"d_model={self.d_model}, d_vocab={self.d_vocab}, {self.dtype}, {self.device})"
        )

    @property
    def n_layers(self) -> int:
        """Number of blocks; there are `n_layers + 1` residual points."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.readout.d_model

    @property
    def d_vocab(self) -> int:
        """Size of the logits; can exceed the tokenizer's vocabulary."""
        return self.readout.d_vocab

    @cached_property
    def size(self) -> Size:
        """How large it is, as far as that decides how long it computes."""
        return Size.of(self.hf_model)

    @property
    def n_ctx(self) -> int | None:
        """Longest prompt in tokens, or None where the model sets no bound (ALiBi)."""
        return context_length(self.config)

    @property
    def body(self) -> nn.Module:
        """The model without its language-model head."""
        return self.hf_model.base_model  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the embedding lies, and so where token ids must go."""
        return self.hf_model.get_input_embeddings().weight.device  # type: ignore[operator]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Where its weights lie: one device, or several under a `device_map`."""
        weights = tensors(self.hf_model, "_parameters")
        return tuple(dict.fromkeys(weight.device for weight in weights))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.readout.W_U.dtype

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, configuration and every weight; changes when a weight does.

        Raises:
            ValueError: weights that have been offloaded since, or lie on the meta device; or
                blocks, final norm or unembedding replaced since the model was loaded.
        """
        return self._fingerprint()

    @property
    def vocab(self) -> Vocabulary:
        """The tokenizer's items as bytes and labels; told anew when tokens were added.

        To see that none were takes up to a third of a millisecond: loops ask for it once.
        """
        return self._known_tokenizer()[1]

    def _known_tokenizer(self) -> tuple[str, Vocabulary]:
        """The tokenizer's hash and its vocabulary, both as of now."""
        now = self._tokenizer_hash()
        if self._vocab is None or self._vocab[0] != now:
            self._vocab = now, Vocabulary(self.tokenizer, self.d_vocab)
        return self._vocab

    @property
    def ends(self) -> Ends:
        """What the tokenizer puts before and after a text by itself: asked of it, not assumed."""
        return Ends.of(self.tokenizer)

    @property
    def prepends_bos(self) -> bool:
        """Whether the tokenizer adds BOS by itself."""
        return self._prepends(self.ends)

    def _prepends(self, ends: Ends) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and ends.before[:1] == (bos,)

    def tokenize(
        self,
        prompts: Sequence[Prompt],
        *,
        prepend_bos: bool | None = None,
        spans: frozenset[str] | None = None,
    ) -> list[TokenizedPrompt]:
        """Tokenise prompts; see `xlens.prompts.tokenize`.

        Raises:
            ValueError: a prompt longer than the model's context, token ids that the model does not
                have, or what `tokenize` refuses.
        """
        tokenized = tokenize(self.tokenizer, prompts, prepend_bos=prepend_bos, spans=spans)
        n_ctx = self.n_ctx  # read from the config, which takes longer than a prompt
        for t in tokenized:
            if max(t.ids) >= self.d_vocab:
                raise ModelError(
                    f"Prompt {t.prompt.id!r} ({t.prompt.language}) has the token id {max(t.ids)}, "
                    f"but {self.name} has {self.d_vocab}: the tokenizer is another model's, or got "
                    "tokens that the model was not resized for."
                )
            if n_ctx is not None and len(t) > n_ctx:
                raise ModelError(
                    f"Prompt {t.prompt.id!r} ({t.prompt.language}) has {len(t)} tokens, but "
                    f"{self.name} reads at most {n_ctx}. Shorten it or use fewer "
                    "demonstrations."
                )
        return tokenized

    def layers(self, layers: str | int | Sequence[int]) -> tuple[int, ...]:
        """Residual points named by `layers`: "all", one number or several; negatives from the top.

        Raises:
            ValueError: a point that the model does not have.
        """
        if layers == "all":
            return tuple(range(self.n_layers + 1))
        asked = (layers,) if isinstance(layers, int) else layers
        if isinstance(asked, str) or any(
            isinstance(layer, bool)  # True is 1 to Python, and no layer to anybody
            or not -self.n_layers - 1 <= layer <= self.n_layers
            for layer in asked
        ):
            raise ModelError(
                f"Unknown layer in {layers!r}: {self.name} has residual points 0 (embedding) to "
                f"{self.n_layers} (after the last block), negatives count from the top, and "
                "'all' takes every one."
            )
        return tuple(sorted({layer % (self.n_layers + 1) for layer in asked}))

    def provenance(
        self, tokens: Sequence[TokenizedPrompt] = (), *, glance: bool = False
    ) -> dict[str, Any]:
        """What results record about this model, and about how the prompts that it reads begin.

        `begins_with` counts the prompts by their first token, `text` where it is no special one;
        `first_prompt` is one of them in full.

        Args:
            tokens: The prompts.
            glance: Look at a sample of the weights where they seem to be as they were: see
                `xlens.models.fingerprint.Fingerprint.glance`.

        Raises:
            ValueError: weights that are not there; parts replaced, or an attention implementation
                set, since the model was loaded, where it leaves something out; torch making tensors
                elsewhere than on the host.
        """
        require_host()
        fingerprint = self._fingerprint(glance=glance)
        self.ensure_attention()
        name = self.tokenizer.convert_ids_to_tokens
        (tokenizer, vocab), ends = self._known_tokenizer(), self.ends  # once: each takes its time
        special = vocab.special
        firsts = Counter(str(name(t.ids[0])) if t.ids[0] in special else "text" for t in tokens)
        return {
            "model": self.name,
            "architecture": type(self.hf_model).__name__,
            "weights": self.weights_note or str(self.dtype),
            "fingerprint": fingerprint,
            "tokenizer": tokenizer,
            "prepends_bos": self._prepends(ends),
            "left_off": name(list(ends.after)),
            **({"begins_with": dict(sorted(firsts.items()))} if firsts else {}),
            **first_prompt(t.prompt for t in tokens),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "attention": attention_of(self.hf_model),
            "precision": precision(),
            **({"compiled": self.compiled.backend} if self.compiled else {}),
            **({"around": inside} if (inside := around(self.hf_model)) else {}),
            **({"changed_by": others} if (others := foreign(self.hf_model)) else {}),
            **self.origin,
            **({"adapter_state": state} if (state := summary(self.hf_model)) else {}),
        }

    def ensure_attention(self, *, asked: bool = True) -> None:
        """See once that the attention implementation of now leaves nothing out.

        Args:
            asked: Whether it is somebody's choice; else `eager` takes over where it does.

        Raises:
            ValueError: it does, and was asked for.
        """
        if attention_of(self.hf_model) in self._whole:
            return
        high = min(self.d_vocab, len(self.tokenizer))
        with self.evaluating():
            ensure_complete(self.hf_model, self.blocks, self.family, high=high, asked=asked)
        self.trust_attention()

    def trust_attention(self) -> None:
        """Take it that the attention implementation of now leaves nothing out: seen before."""
        self._whole.add(attention_of(self.hf_model))

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """This thread's alone, in evaluation mode (no dropout), without autocast, as long as this.

        Its mode is as before afterwards; another thread waits until then.
        """
        with evaluating(self.hf_model):
            yield

    def random_twin(self, seed: int = 0) -> "HookedModel":
        """The same architecture and tokenizer with freshly initialised weights: a control."""
        check_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            twin = type(self.hf_model)(copy.deepcopy(self.config))
        twin = twin.to(device=self.device, dtype=self.dtype).eval()
        made = HookedModel(
            twin,
            self.tokenizer,
            name=f"{self.name} (random weights, seed {seed})",
            weights_note=f"randomly initialised, seed {seed}",
        )
        if made.d_vocab == self.d_vocab:  # what is known of the tokenizer took seconds
            made._tokenizer_hash, made._vocab = self._tokenizer_hash, self._known_tokenizer()
        return made

    @cached_property
    def bridge(self) -> Any:
        """A `transformer_lens` `TransformerBridge` for your own hooks (`run_with_cache`, ...).

        It shares the weights (families with fused attention, GPT-2, BLOOM and NeoX, get split
        copies of q, k and v) but has its own modules: nothing done to it reaches the core's model.
        """
        from transformer_lens.model_bridge.sources import (
            build_bridge_from_module,
            detect_tokenizer_bos_eos,
        )

        skeleton = sharing(self.hf_model)
        bridge = build_bridge_from_module(
            skeleton,
            type(self.hf_model).__name__,
            hf_config=copy.deepcopy(self.config),
            model_name=self.name,
        )
        # Handed in at construction, the tokenizer would be loaded again by name: edits lost, and
        # a trip to the network.
        tokenizer = copy.deepcopy(self.tokenizer)
        if tokenizer.pad_token is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        bridge.tokenizer = tokenizer
        prepends, appends = detect_tokenizer_bos_eos(tokenizer)
        bridge.cfg.tokenizer_prepends_bos = prepends
        bridge.cfg.default_prepend_bos = prepends
        bridge.cfg.tokenizer_appends_eos = appends
        return bridge
