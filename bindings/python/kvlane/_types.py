"""Types of kvlane that need no C++."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt


class Error(ValueError):
    """A call that failed. The text names the argument, its value and the allowed values.

    Attributes:
        status: the name of the C status, "KVL_ERROR_STRIDE" for example
    """

    status: str

    def __init__(self, text: str, status: str) -> None:
        super().__init__(text)
        self.status = status

    def __reduce__(self) -> tuple[type[Error], tuple[str, str]]:
        return Error, (self.args[0], self.status)


class Array(Protocol):
    """An array in the CPU's memory: numpy.ndarray, torch.Tensor, or any other with the DLPack protocol."""

    def __dlpack__(self) -> Any: ...


ArrayT = TypeVar("ArrayT", bound=Array)


class Partial(NamedTuple):
    """The partial attention state of queries over some of their tokens; see Attention.attend_partial.

    For each query and query head, m is the largest score, l the sum of exp(score - m), and o the sum of
    exp(score - m) * value. It can be pickled, and merged on another machine.
    """

    m: npt.NDArray[np.float32]  # [n_queries, n_query_heads]
    l: npt.NDArray[np.float32]  # [n_queries, n_query_heads]
    o: npt.NDArray[np.float32]  # [n_queries, n_query_heads, v_head_dim]
