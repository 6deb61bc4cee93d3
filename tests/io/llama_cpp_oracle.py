"""llama.cpp itself, through the xllamacpp wheel: what it makes of a GGUF file.

Settings that would blur a comparison are off: the KV cache is float32, flash attention and
prompt caching are disabled, one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LlamaCpp:
    """A GGUF file loaded by llama.cpp.

    Args:
        path: The file.
        vocab_size: Rows of its embedding.
        context_length: Positions to allocate.
        plain_token: The id of a token that is whole text, such as ``a``. It is what every answer
            is steered to: the server holds back half characters, and their probabilities too.
    """

    def __init__(self, path: Path, vocab_size: int, context_length: int, plain_token: int) -> None:
        import xllamacpp  # type: ignore[import-untyped]

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context_length
        params.n_parallel = 1
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = 1
        params.n_gpu_layers = 0
        params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.fit_params = False  # would shrink the context to fit into free memory
        params.warmup = False
        params.verbosity = -1
        self._server = xllamacpp.Server(params)
        self._vocab_size = vocab_size
        self._plain_token = plain_token

    def next_logprobs(self, prompt: Sequence[int] | str) -> NDArray[np.float64]:
        """Log-probabilities of every token after a prompt.

        Args:
            prompt: Token ids, or text that llama.cpp tokenizes by the file's vocabulary.

        Returns:
            (vocab_size,) natural logarithms, before any sampling setting.
        """
        content = self._complete(prompt)["choices"][0]["logprobs"]["content"][0]
        logprobs = np.full(self._vocab_size, np.nan)
        for entry in content["top_logprobs"]:
            logprobs[entry["id"]] = entry["logprob"]
        assert not np.isnan(logprobs).any(), "llama.cpp did not return the whole vocabulary"
        return logprobs

    def count_tokens(self, text: str) -> int:
        """How many tokens llama.cpp makes of a text."""
        return int(self._complete(text)["usage"]["prompt_tokens"])

    def _complete(self, prompt: Sequence[int] | str) -> dict[str, Any]:
        answer: dict[str, Any] = self._server.handle_completions(
            {
                "prompt": prompt if isinstance(prompt, str) else [int(token) for token in prompt],
                "max_tokens": 1,
                "logprobs": self._vocab_size,
                "temperature": 0.0,
                # the reported probabilities are those before biases and sampling
                "logit_bias": {str(self._plain_token): 1e6},
                "cache_prompt": False,
            }
        )
        if "choices" not in answer:
            raise RuntimeError(f"llama.cpp refused the prompt: {answer}")
        return answer
