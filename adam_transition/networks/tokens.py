"""A stream of tokens with known statistics: a Markov chain whose stationary law is Zipf's.

Frequencies of words fall like 1/rank, so most classes are rare; this heavy tail is why Adam matters
for language models. The joint law of two consecutive tokens is a matrix of log-normal weights,
scaled (Sinkhorn) until both marginals are Zipf's law. So single tokens follow Zipf's law exactly,
and the smallest loss that any model can reach is the entropy rate of the chain.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Int, Key

from adam_transition.sweeps import keys


@dataclass(frozen=True)
class ZipfChain:
    """A stationary Markov chain on V tokens; create it with `zipf_chain`."""

    stationary: Float[np.ndarray, " V"]  # Zipf's law
    transition: Float[np.ndarray, "V V"]  # rows sum to 1

    @property
    def entropy(self) -> float:
        """Entropy of a single token, in nats: the loss of a model that ignores the context."""
        return _entropy(self.stationary)

    @property
    def entropy_rate(self) -> float:
        """Entropy of a token given its predecessor, in nats: the smallest possible loss."""
        return float(self.stationary @ [_entropy(row) for row in self.transition])

    def sample(
        self, key: Key[Array, ""], num_sequences: int, length: int
    ) -> Int[np.ndarray, "N L"]:
        """Independent stationary sequences. The key is read, not consumed."""
        uniform = keys.generator(key).random((length, num_sequences))
        tokens = np.empty((length, num_sequences), np.int32)
        tokens[0] = _inverse(np.cumsum(self.stationary)[None], uniform[0])
        cumulative = np.cumsum(self.transition, axis=1)
        for k in range(1, length):
            tokens[k] = _inverse(cumulative[tokens[k - 1]], uniform[k])
        return tokens.T


def zipf_chain(
    key: Key[Array, ""], vocabulary: int = 64, *, exponent: float = 1.0, spread: float = 2.0
) -> ZipfChain:
    """A random chain with frequencies proportional to rank^−exponent.

    Args:
      key: read, not consumed.
      vocabulary: number of tokens V, 2 or more.
      exponent: of Zipf's law.
      spread: standard deviation of the log-weights; with 0 tokens are independent.

    Raises:
      ValueError: fewer than two tokens.
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary={vocabulary}: needs at least 2 tokens")
    law = np.arange(1, vocabulary + 1) ** -float(exponent)
    law /= law.sum()
    joint = np.exp(spread * keys.generator(key).standard_normal((vocabulary, vocabulary)))
    while np.abs(joint.sum(axis=1) - law).max() > 1e-14:
        joint *= (law / joint.sum(axis=1))[:, None]
        joint *= law / joint.sum(axis=0)
    return ZipfChain(law, joint / joint.sum(axis=1, keepdims=True))


def _entropy(law: np.ndarray) -> float:
    return float(-(law * np.log(law)).sum())


def _inverse(cumulative: Float[np.ndarray, "#N V"], uniform: Float[np.ndarray, " N"]) -> np.ndarray:
    """Draws by inversion; the last token takes the rounding error of the sum."""
    found = (cumulative < uniform[:, None]).sum(axis=1)
    return np.minimum(found, cumulative.shape[1] - 1)
