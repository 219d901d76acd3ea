"""Flags of the commands: common flags, grids and lists, and errors that name the flag."""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _distributed

if TYPE_CHECKING:  # heavy imports wait until a command runs, so that --help is quick
    import numpy as np

    from adam_transition.optimizers import Optimizer


SCHEMES = ("cyclic", "random_shuffling", "with_replacement")
"""The sampling schemes whose drift depends on no permutation that a key draws."""

_GREATEST_INTEGER = 2**31 - 1
_GREATEST_EXPONENT = 400
_MOST_VALUES = 10**6  # of one axis


def common_flags(name: str, *, figures: bool = True) -> flags.FlagValues:
    """The flags that every experiment has.

    Args:
      name: of the experiment, for the default of --out.
      figures: whether to add --figures and --figure_width, for experiments that draw.
    """
    values = flags.FlagValues()
    flags.DEFINE_string(
        "out", f"out/{name}", "Folder for results; created if missing.", flag_values=values
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of all randomness.", 0, 2**31 - 1, flag_values=values, short_name=None
    )
    flags.DEFINE_boolean(
        "resume", True, "Resume an unfinished run; --noresume replaces it.", flag_values=values
    )
    if figures:
        flags.DEFINE_boolean(
            "figures",
            True,
            "Draw figures; --nofigures writes data and summary only.",
            flag_values=values,
        )
        flags.DEFINE_float(
            "figure_width",
            7.0,
            "Width of the figures in inches: 7 fits a page, 3.4 one of two columns.",
            3.0,
            12.0,
            flag_values=values,
        )
    flags.DEFINE_string(
        "json", None, "File for the machine-readable summary, or - for stdout.", flag_values=values
    )
    _distributed.define_flags(values)
    return values


def define_float(
    name: str,
    default: float,
    help_text: str,
    lower_bound: float | None = None,
    *,
    flag_values: flags.FlagValues,
) -> None:
    """Like `flags.DEFINE_float`, but rejects a nonzero number that a double would round to 0.

    Args:
      name: of the flag.
      default: its value if not given.
      help_text: for --help.
      lower_bound: the smallest allowed value.
      flag_values: the flags to add it to.
    """
    parser = _FloatParser(lower_bound)
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    flags.DEFINE(parser, name, default, help_text, flag_values=flag_values, serializer=serializer)


class _FloatParser(flags.FloatParser):
    def convert(self, argument: Any) -> float:
        value = super().convert(argument)
        if value == 0 and isinstance(argument, str) and not is_zero(argument):
            raise ValueError("a double cannot hold it: it would be 0")
        return value


def parse_grid(flag: str, text: str, low: float = 0.0, high: float = 1.0) -> "np.ndarray":
    """An ascending grid in [low, high) from `lo:hi:count`, `lo:hi:count:logit`, or a list.

    `logit` spaces evenly in log(β/(1−β)): equal ratios of β close to 0 and of 1 − β close to 1. An
    entry may be written 1-1e-6.

    Args:
      flag: its name, for errors.
      text: its value.
      low: the smallest allowed value.
      high: the smallest value too large.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import numpy as np

    try:
        if ":" in text:
            lo, hi, count, *spacing = text.split(":")
            first, last = _number(lo), _number(hi)
            if int(count) < 1 or spacing not in ([], ["logit"]):
                raise ValueError
            _check_count(flag, text, int(count))
            if spacing:
                if not (0 < first < 1 and 0 < last < 1):
                    raise ValueError
                u = np.linspace(np.log(first / (1 - first)), np.log(last / (1 - last)), int(count))
                grid = 1 - 1 / (1 + np.exp(u))
            else:
                grid = np.linspace(first, last, int(count))
        else:
            grid = np.array([_number(entry) for entry in text.split(",")])
    except _TooManyError:
        raise
    except ValueError:
        raise ValueError(
            f"--{flag}={text}: not a grid; write lo:hi:count, lo:hi:count:logit (with 0 < lo, hi < "
            f"1) or a list like 0,0.9,1-1e-4"
        ) from None
    if not np.all((grid >= low) & (grid < high)):
        raise ValueError(f"--{flag}={text}: values must lie in [{low:g}, {high:g})")
    if len(np.unique(grid)) < len(grid):
        raise ValueError(f"--{flag}={text}: values must differ")
    return np.sort(grid)


def parse_point(flag: str, text: str) -> tuple[float, float]:
    """A pair (β1, β2) from `beta1/beta2`, both in [0, 1).

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    try:
        beta1, beta2 = (_number(entry) for entry in text.split("/"))
    except ValueError:
        raise ValueError(f"--{flag}={text}: not a point; write beta1/beta2") from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"--{flag}={text}: values must lie in [0, 1)")
    return beta1, beta2


def parse_list(flag: str, entries: Sequence[str], kind: Callable[[str], Any]) -> list[Any]:
    """The entries of a list flag as numbers.

    Raises:
      ValueError: naming the flag; an entry is not a number, the list is empty, or entries repeat.
    """
    parsed = []
    for entry in entries:
        if kind is Fraction:
            _check_exponent(flag, entry)
        try:
            parsed.append(kind(entry))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError(f"--{flag}: {entry!r} is not a number") from None
    if not parsed or len(set(parsed)) < len(parsed):
        raise ValueError(f"--{flag}={','.join(entries)}: needs one or more different entries")
    return parsed


def integers_in(values: dict[str, Any], flag: str, low: int, high: int) -> tuple[int, ...]:
    """The integers of a list flag, all in [low, high].

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    found = parse_integers(flag, values[flag])
    if not low <= min(found) <= max(found) <= high:
        raise ValueError(f"--{flag}={','.join(values[flag])}: must lie in [{low}, {high}]")
    return tuple(found)


def parse_optimizers(names: Sequence[str]) -> "tuple[Optimizer, ...]":
    """The optimisers of `--optimizer`.

    Raises:
      ValueError: naming the flag; there is none of a name, a factory cannot be used, or names
        repeat.
    """
    from adam_transition import optimizers

    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does: the user's own module lies here
    if not names or len(set(names)) < len(names):
        raise ValueError(f"--optimizer={','.join(names)}: needs one or more different optimisers")
    try:
        return tuple(optimizers.named(name) for name in names)
    except ValueError as error:
        raise ValueError(f"--optimizer: {error}") from None


def sources(found: "tuple[Optimizer, ...]") -> dict[str, str]:
    """What the results of a user's own factories depend on besides their names: for the store."""
    from adam_transition.optimizers import registry

    digests = {f"source of {one.name}": registry.source_digest(one.name) for one in found}
    return {name: digest for name, digest in digests.items() if digest}


def parse_slope(n: Sequence[int], text: str) -> Fraction | None:
    """The exact slope a of the counterexample from `--a`; None if the flag is empty.

    Args:
      n: numbers of components, for the range of a.
      text: the value of the flag.

    Raises:
      ValueError: naming --a, its value and what is allowed.
    """
    if not text:
        return None
    [a] = parse_list("a", [text], Fraction)
    if a <= 0:
        raise ValueError(f"--a={text}: must be above 0")
    check_slopes(n, [a])
    return a


def parse_integers(flag: str, entries: Iterable[str]) -> list[int]:
    """The entries of a list flag as integers; an entry lo:hi:count stands for a rounded grid."""
    import numpy as np

    expanded: list[str] = []
    for entry in entries:
        try:
            lo, hi, count = (int(part) for part in entry.split(":"))
            if not max(abs(lo), abs(hi)) <= _GREATEST_INTEGER or count < 1:
                raise ValueError
        except ValueError:
            expanded.append(entry)
            continue
        _check_count(flag, entry, count)
        grid = np.unique(np.rint(np.linspace(lo, hi, count)).astype(int))
        expanded.extend(str(value) for value in grid)
    parsed = parse_list(flag, expanded, int)
    for value in parsed:
        if abs(value) > _GREATEST_INTEGER:
            raise ValueError(f"--{flag}={value}: must be below 2^31 in size")
    return parsed


def check_number(
    flag: str,
    value: float,
    *,
    dtype: str = "float64",
    above: float | None = None,
    least: float | None = None,
) -> None:
    """Checks that a number is in range and representable in the precision of the computation.

    Args:
      flag: its flag.
      value: its value.
      dtype: the precision, in which a nonzero value must be a normal number.
      above: the number it must exceed.
      least: the smallest allowed value.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import numpy as np

    info = np.finfo(dtype)
    if not math.isfinite(value):
        raise ValueError(f"--{flag}={value}: must be a finite number")
    if above is not None and not value > above:
        raise ValueError(f"--{flag}={value:g}: must be above {above:g}")
    if least is not None and not value >= least:
        raise ValueError(f"--{flag}={value:g}: must be {least:g} or more")
    if value and not float(info.tiny) <= abs(value) <= float(info.max):
        raise ValueError(
            f"--{flag}={value:g}: {dtype} cannot hold it, from {info.tiny:.3g} to {info.max:.3g} "
            "in size"
        )


def check_slopes(n: Sequence[int], a: Sequence[Fraction], dtype: str = "float64") -> None:
    """Checks that rounding keeps the slopes of the counterexample, −a and 1 + (n−1)a, meaningful.

    Raises:
      ValueError: naming --a, its value and what is allowed.
    """
    import numpy as np

    # the hit exceeds the sum of the others by 1, which must survive rounding, as must squares
    info = np.finfo(dtype)
    for slope in a:
        largest = Fraction(float(0.1 / info.eps)) / max(n)
        smallest = Fraction(float(info.tiny)) * 10**8
        if slope > 0 and not smallest <= slope <= largest:
            raise ValueError(
                f"--a={_short(slope)}: in {dtype}, with --n={max(n)}, a must lie in "
                f"[{float(smallest):.2g}, {float(largest):.2g}]"
            )


def _short(value: Fraction) -> str:
    """Formats a number that may be out of range for a float."""
    try:
        if value == 0 or float(value) != 0:
            return f"{float(value):g}"
    except OverflowError:
        pass
    return f"1e{len(str(value.numerator)) - len(str(value.denominator))}"


def check_memory(what: str, num_bytes: float) -> None:
    """Rejects, before anything is written, a run that does not fit in this machine's memory.

    Args:
      what: the flags responsible, and the quantity that they ask for.
      num_bytes: an estimate of the memory needed.

    Raises:
      ValueError: stating the memory needed and available.
    """
    from adam_transition.sweeps import memory

    available = memory.available()
    if num_bytes > available:
        raise ValueError(
            f"{what}: needs about {memory.text(num_bytes)} of memory, and "
            f"{memory.text(available)} are available"
        )


def check_work(
    values: Mapping[str, Any], asked: Sequence[str], what: str, count: int, most: int
) -> None:
    """Rejects, before anything is written, a run that would take too long.

    Args:
      values: all flags.
      asked: names of the flags responsible, grids or lists.
      what: the items that they ask for, in the plural.
      count: the number of items.
      most: the largest allowed number.

    Raises:
      ValueError: stating how many there are and how many are allowed.
    """
    if count > most:
        given = ((name, values[name]) for name in asked if values[name])
        texts = (f"--{name}={','.join([v] if isinstance(v, str) else v)}" for name, v in given)
        raise ValueError(f"{' '.join(texts)}: {count} {what}; at most {most} are allowed")


class _TooManyError(ValueError):
    """More values than any grid here can have."""


def _check_count(flag: str, text: str, count: int) -> None:
    if count > _MOST_VALUES:
        raise _TooManyError(f"--{flag}={text}: {count} values; at most {_MOST_VALUES} are allowed")


def _check_exponent(flag: str, text: str) -> None:
    """Checks exponents before a number is made exact: 1e99999999 has a hundred million digits."""
    for exponent in re.findall(r"[eE]([-+]?\d+)", text):
        if len(exponent) > 6 or abs(int(exponent)) > _GREATEST_EXPONENT:
            raise ValueError(f"--{flag}={text}: exponents reach from -400 to 400")


def check_choices(flag: str, entries: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ValueError unless the entries are distinct and all allowed."""
    for entry in entries:
        if entry not in allowed:
            raise ValueError(f"--{flag}={entry}: allowed are {', '.join(allowed)}")
    if not entries or len(set(entries)) < len(entries):
        raise ValueError(f"--{flag}={','.join(entries)}: needs one or more different entries")


def _number(text: str) -> float:
    first, dash, rest = text.strip().partition("1-")
    if dash and not first:
        return 1 - float(rest)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    if value == 0 and not is_zero(text):
        raise ValueError(text)
    return value


def is_zero(text: str) -> bool:
    """Whether a number that a double rounds to 0 is exactly 0, and not merely too small."""
    return not any(digit in "123456789" for digit in text.lower().partition("e")[0])
