"""The cost of a call, if it can be computed.

In this order: the user's prices; the cost that the provider reported; nothing for the user's own server on this
machine, which is free of charge; the price table of `genai-prices`, which is part of that package and never downloaded;
None. The table identifies a provider by the URL of the call, because other providers sell the same model at other
prices. Behind an unknown URL the cost is unknown, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlm_kernel.errors import ConfigError

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

MILLION = 1_000_000
NAMES = ("input", "output", "cached", "cache_write")
"""Keys of `prices`; the first two are required."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a call.

    Attributes:
        input: tokens of the prompt, including `cached` and `written`.
        output: tokens of the reply.
        cached: tokens read from the provider's cache.
        written: tokens written to it.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    input: float
    output: float
    cached: float
    cache_write: float

    @classmethod
    def of(cls, given: Mapping[str, float]) -> Prices:
        """The user's prices. Cached and cache-written input costs the same as other input unless given.

        Raises:
            ConfigError: a price is missing, unknown, or not an amount in dollars.
        """
        if wrong := [name for name in given if name not in NAMES] + [n for n in NAMES[:2] if n not in given]:
            raise ConfigError(
                f"prices holds US dollars per million tokens: 'input' and 'output', and if you like 'cached' and "
                f"'cache_write', such as {{'input': 1.25, 'output': 10, 'cached': 0.125}}. Wrong or missing: "
                f"{wrong[0]!r}."
            )
        for name, price in given.items():
            if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
                raise ConfigError(f"prices[{name!r}] must be US dollars per million tokens, 0 or more, not {price!r}.")
        return cls(**{name: given.get(name, given["input"]) for name in NAMES})

    def cost(self, tokens: Tokens) -> float:
        """US dollars of a call."""
        plain = max(0, tokens.input - tokens.cached - tokens.written)  # some servers do not include the cache in input
        dollars = plain * self.input + tokens.cached * self.cached + tokens.written * self.cache_write
        return (dollars + tokens.output * self.output) / MILLION


@dataclass(frozen=True, slots=True)
class Pricing:
    """How the calls of one client are charged.

    Attributes:
        prices: the user's own, or None.
        free: whether the server belongs to the user and is on this machine.
        provider: the provider's key in the price table, ``{"provider_api_url": ...}`` or ``{"provider_id": ...}``.
    """

    prices: Prices | None = None
    free: bool = False
    provider: Mapping[str, str] | None = None

    def cost(self, tokens: Tokens | None, reported: float | None, models: Iterable[str]) -> float | None:
        """US dollars of a call, or None if unknown.

        Args:
            tokens: the tokens it used, or None if the provider did not report them.
            reported: the cost that the provider reported, or None.
            models: names of the model, the best first.
        """
        if self.prices is not None:
            return None if tokens is None else self.prices.cost(tokens)
        if reported is not None or self.free:
            return reported or 0.0
        if tokens is None or (found := self._look_up(models, tokens)) is None:
            return None
        return float(found.total_price)

    def max_cost(self, tokens: Tokens, models: Iterable[str]) -> float | None:
        """The highest cost of a call in US dollars: its whole prompt may be written to a cache. None if unknown."""
        names = tuple(models)
        ways = (tokens, replace(tokens, written=tokens.input))
        costs = [cost for way in ways if (cost := self.cost(way, None, names)) is not None]
        return max(costs, default=None)

    def known(self, models: Iterable[str]) -> bool:
        """Whether the cost can be computed before a call. A provider may report it nevertheless."""
        return self.prices is not None or self.free or self._look_up(models, Tokens(input=1)) is not None

    def window(self, models: Iterable[str]) -> int | None:
        """The context window in the price table, in tokens, or None."""
        found = self._look_up(models, Tokens(input=1))
        return None if found is None else found.model.context_window

    def _look_up(self, models: Iterable[str], tokens: Tokens) -> PriceCalculation | None:
        if self.provider is None or self.free:
            return None
        found = (_calculate(model, tokens, dict(self.provider)) for model in dict.fromkeys(models))
        return next(filter(None, found), None)


def _calculate(model: str, tokens: Tokens, provider: dict[str, Any]) -> PriceCalculation | None:
    import genai_prices

    try:
        usage = genai_prices.Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cached,
            cache_write_tokens=tokens.written,
        )
        return genai_prices.calc_price(usage, model, **provider)
    except (LookupError, ValueError) as error:  # the table does not know the model, or the usage contradicts itself
        del error
        return None
