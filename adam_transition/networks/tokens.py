"""A stream of tokens with known statistics: a Markov chain whose stationary law is Zipf's.

Frequencies of words fall like 1/rank, so most classes are rare; that heavy tail is why Adam
matters for language models. The joint law of two consecutive tokens is a matrix of log-normal
weights, scaled (Sinkhorn) until both its marginals are Zipf's law: so the law of single tokens is
exactly Zipf's, and the least loss that any model can reach is the chain's entropy rate.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Int, Key

from adam_transition.sweeps import keys


@dataclass(frozen=True)
class ZipfChain:
    """A stationary Markov chain on V tokens; made by `zipf_chain`."""

    stationary: Float[np.ndarray, " V"]  # Zipf's law
    transition: Float[np.ndarray, "V V"]  # rows sum to 1

    @property
    def entropy(self) -> float:
        """Entropy of a single token, in nats: the loss of a model that ignores the context."""
        return _entropy(self.stationary)

    @property
    def entropy_rate(self) -> float:
        """Entropy of a token given its predecessor, in nats: the least possible loss."""
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
    """A random chain: frequencies rank^−exponent, log-weights of standard deviation `spread`.

    With `spread` 0 tokens are independent. The key is read, not consumed.

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


def _inverse(cumulative: Float[np.ndarray, "N V"], uniform: Float[np.ndarray, " N"]) -> np.ndarray:
    """Draws by inversion; the last token takes what rounding leaves."""
    found = (cumulative < uniform[:, None]).sum(axis=1)
    return np.minimum(found, cumulative.shape[1] - 1)
