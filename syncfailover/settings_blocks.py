"""`[[endpoints]]` in settings: each block makes one endpoint, or one for each of several keys."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from . import providers
from .endpoint import Endpoint
from .endpoint_fields import ApiKey, api_key
from .endpoint_fields import name as checked_name
from .errors import ConfigurationError
from .settings_keys import PRICE_KEYS, check_known, hint, placed
from .settings_variables import expand, mentions_variable, sourced_key, sourced_table, split_keys

#: What a block may hold: a provider, several keys, and every keyword of `Endpoint`.
BLOCK_KEYS: Tuple[str, ...] = (
    "provider",
    "name",
    "base_url",
    "api_key",
    "api_keys",
    *(Endpoint.__init__.__kwdefaults__ or ()),
)


def block_endpoints(blocks: Any, environ: Mapping[str, str]) -> List[Endpoint]:
    """Make the endpoints of all blocks; their names are unique.

    Raises:
        ConfigurationError: no block, a key that is not known, a value that cannot work; the message says in which.

    """
    if isinstance(blocks, (str, Mapping)) or not isinstance(blocks, Sequence):
        raise _wrong("endpoints", _kind(blocks), "[[endpoints]] blocks, a list of tables")
    if not blocks:
        raise ConfigurationError(
            "endpoints: there is none; expected at least one [[endpoints]] block", field="endpoints"
        )
    made: List[Endpoint] = []
    homes: Dict[str, str] = {}
    for index, block in enumerate(blocks):
        where = f"endpoints[{index}]"
        for endpoint in _Block(where, block, environ).endpoints():
            if endpoint.name in homes:
                shown = "what it holds" if mentions_variable(block.get("name")) else repr(endpoint.name)
                raise _wrong(
                    f"{where}.name",
                    f"{shown}, which {homes[endpoint.name]} has,",
                    "a name for each block of a provider, or all its keys as api_keys in one block",
                )
            homes[endpoint.name] = where
            made.append(endpoint)
    return made


class _Block:
    """One block, and how errors about it read."""

    def __init__(self, where: str, block: Any, environ: Mapping[str, str]) -> None:
        if not isinstance(block, Mapping):
            raise _wrong(where, _kind(block), "a table")
        check_known(block, BLOCK_KEYS, where)
        _check_price_keys(block.get("prices"), f"{where}.prices")
        self._where = where
        self._block = block
        self._fields: Dict[str, Any] = {
            key: expand(value, environ, f"{where}.{key}") for key, value in block.items()
        }
        for key in ("headers", "params", "proxies"):
            if key in block:
                self._fields[key] = sourced_table(self._fields[key], block[key], key)

    def endpoints(self) -> List[Endpoint]:
        """Make the endpoints, numbered if `api_keys` is there."""
        fields = self._fields
        several = fields.get("api_keys") is not None
        keys = self._keys()
        provider, name = fields.pop("provider", None), fields.pop("name", None)
        self._check_identity(provider, name)
        try:
            name = checked_name(provider if name is None else name)
            if not several:
                return [_endpoint(provider, name, keys[0], fields)]
            return [
                _endpoint(provider, f"{name}-{nth}", key, {"weight": len(keys) + 1 - nth, **fields})
                for nth, key in enumerate(keys, start=1)
            ]
        except ConfigurationError as error:
            field = (error.field or "").partition("[")[0]
            problem = placed(error, self._where, hidden=mentions_variable(self._block.get(field)))
        raise problem

    def _keys(self) -> List[ApiKey]:
        """Take the keys out of the fields; a single one, or None, where there is no `api_keys`."""
        fields, where, block = self._fields, self._where, self._block
        single, several = fields.pop("api_key", None), fields.pop("api_keys", None)
        if several is None:
            return [sourced_key(_checked(single, f"{where}.api_key"), block.get("api_key"))]
        if single is not None:
            raise _wrong(f"{where}.api_key", "a key beside api_keys", "one of the two")
        listed = split_keys(several) if isinstance(several, str) else several
        if isinstance(listed, Mapping) or not isinstance(listed, Sequence) or not listed:
            what = _kind(several) if several else "an empty list"
            raise _wrong(f"{where}.api_keys", what, "a list with at least one key")
        checked = [_checked(key, f"{where}.api_keys[{index}]") for index, key in enumerate(listed)]
        texts = block["api_keys"]
        if isinstance(texts, str):
            return [sourced_key(key, texts, nth) for nth, key in enumerate(checked)]
        return [sourced_key(key, text) for key, text in zip(checked, texts)]

    def _check_identity(self, provider: Optional[str], name: Optional[str]) -> None:
        """Refuse a provider without a preset, and an endpoint of nobody that lacks its name or place."""
        where = self._where
        if provider is not None:
            if not isinstance(provider, str) or provider not in providers.PRESETS:
                shown = "what it holds (from the environment, so not shown)"
                shown = shown if mentions_variable(self._block["provider"]) else repr(provider)
                raise _wrong(f"{where}.provider", shown, hint(provider, providers.PRESETS), sep="; ")
            return
        for field, value in (("base_url", self._fields.get("base_url")), ("name", name)):
            if value is None:
                known = ", ".join(sorted(providers.PRESETS))
                raise ConfigurationError(
                    f"{where}.{field}: is missing; expected name and base_url, or a provider ({known})",
                    field=f"{where}.{field}",
                )


def _endpoint(provider: Optional[str], name: Any, key: ApiKey, fields: Mapping[str, Any]) -> Endpoint:
    if provider is None:
        return Endpoint(**{"name": name, "api_key": key, **fields})
    [endpoint] = providers.from_keys(provider, [key], name=name, **fields)
    return endpoint


def _checked(key: Any, field: str) -> ApiKey:
    """Accept a key that can be sent; the error names the field, never the key."""
    try:
        return api_key(key)
    except ConfigurationError as error:
        bare = error.message.partition(": ")[2]
    raise ConfigurationError(f"{field}: {bare}", field=field)


def _check_price_keys(prices: Any, where: str) -> None:
    """Refuse a misspelt key in a table of prices for one model."""
    for model, price in prices.items() if isinstance(prices, Mapping) else ():
        if isinstance(price, Mapping):
            check_known(price, PRICE_KEYS, f"{where}[{model!r}]")


def _kind(value: object) -> str:
    return "a table" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _wrong(field: str, found: str, allowed: str, sep: str = "; expected ") -> ConfigurationError:
    """Make an error that shows a description, not the value, which may be or hold a key."""
    return ConfigurationError(f"{field}: {found} is not allowed{sep}{allowed}", field=field)
