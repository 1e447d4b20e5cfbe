"""The environment: providers' keys, and `SYNCFAILOVER_...` for options."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Tuple

from . import providers
from .endpoint import Endpoint
from .endpoint_fields import api_key
from .errors import ConfigurationError
from .settings_keys import NUMBER_OR_TEXT, OPTIONS, TEXT, WHOLE, WHOLE_OR_TABLE, hint, placed
from .settings_variables import sourced_key, sourced_option, split_keys
from .validation import reject

PREFIX = "SYNCFAILOVER_"
#: Names the settings file.
CONFIG = PREFIX + "CONFIG"

#: Where each provider's keys are looked for, separated by commas; all that are set count.
KEY_VARIABLES: Dict[str, Tuple[str, ...]] = {
    "holysheep": ("HOLYSHEEP_API_KEYS", "HOLYSHEEP_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "azure": ("AZURE_OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
}
#: Where a provider is, if not where its preset says: a proxy, a gateway, a test; Azure is always elsewhere. Anthropic's
#: and Google's own SDKs mean another path by their variables, so these are left alone.
URL_VARIABLES: Dict[str, str] = {
    "holysheep": "HOLYSHEEP_BASE_URL",
    "openai": "OPENAI_BASE_URL",
    "azure": "AZURE_OPENAI_ENDPOINT",
    "openrouter": "OPENROUTER_BASE_URL",
}
#: Azure's deployments, separated by commas: `name`, or `model=name` where the caller's name for it is another one.
AZURE_DEPLOYMENTS = "AZURE_OPENAI_DEPLOYMENT"
#: As Azure's client in the openai package has it.
AZURE_VERSION = "OPENAI_API_VERSION"
#: The relay first, then the vendors themselves, then the emergency exit.
PRIORITIES: Dict[str, int] = {"holysheep": 0, "openrouter": 2}
_VENDORS = 1

#: Names with the prefix that are no options: the file, and the switch of our example programs.
_OTHERS = (CONFIG, PREFIX + "DEMO")
#: What Kubernetes sets in every pod for a service whose name begins as ours does.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+)$")


# Keys


def environment_endpoints(environ: Mapping[str, str]) -> List[Endpoint]:
    """Make an endpoint of each key in the environment, with the priorities of `PRIORITIES`."""
    found: List[Endpoint] = []
    for provider in KEY_VARIABLES:
        keys = environment_keys(provider, environ)
        if keys:
            found += _endpoints(provider, keys, environ)
    return found


def environment_keys(provider: str, environ: Mapping[str, str]) -> List[str]:
    """Return the keys of a provider that are in the environment, each once.

    Raises:
        ConfigurationError: a key that cannot be sent; the message names the variable.

    """
    keys: Dict[str, None] = {}
    for variable in KEY_VARIABLES[provider]:
        for nth, key in enumerate(split_keys(environ.get(variable, ""))):
            try:
                api_key(key)
            except ConfigurationError as error:
                raise _about(error, variable) from None
            keys.setdefault(sourced_key(key, f"${{{variable}}}", nth))
    return list(keys)


def _endpoints(provider: str, keys: List[str], environ: Mapping[str, str]) -> List[Endpoint]:
    priority = PRIORITIES.get(provider, _VENDORS)
    variable = URL_VARIABLES.get(provider, "")
    url = environ.get(variable, "").strip()
    try:
        if provider == "azure":
            return _azure(keys, url, environ, priority=priority)
        at = {"base_url": url} if url else {}
        return providers.from_keys(provider, keys, priority=priority, **at)
    except ConfigurationError as error:
        places = {"base_url": variable, "resource": variable, "models": AZURE_DEPLOYMENTS}
        problem = _about(error, places.get((error.field or "").partition("[")[0], provider))
    raise problem


def _azure(keys: List[str], url: str, environ: Mapping[str, str], **options: Any) -> List[Endpoint]:
    if not url:
        raise ConfigurationError(
            "base_url: nothing is not allowed; expected the resource's URL, such as "
            "'https://my-resource.openai.azure.com', beside AZURE_OPENAI_API_KEY",
            field="base_url",
        )
    pairs = [pair.partition("=") for pair in split_keys(environ.get(AZURE_DEPLOYMENTS, ""))]
    deployments = {model.strip(): (name if equals else model).strip() for model, equals, name in pairs}
    version = environ.get(AZURE_VERSION, "").strip() or None
    return [
        providers.azure(
            key,
            url,
            deployments or None,
            api_version=version,
            name=f"azure-{nth}",
            weight=len(keys) + 1 - nth,
            **options,
        )
        for nth, key in enumerate(keys, start=1)
    ]


def _about(error: ConfigurationError, variable: str) -> ConfigurationError:
    """Return an error about a field as one about the variable that it came from."""
    bare = error.message.partition(": ")[2]
    return placed(ConfigurationError(bare, value=error.value), variable, hidden=True)


# Options


def environment_options(environ: Mapping[str, str]) -> Dict[str, Any]:
    """Return the options that `SYNCFAILOVER_...` variables set; a variable without a value sets none.

    Raises:
        ConfigurationError: a variable with this prefix that is no option, or a number that is none.

    """
    variables = {PREFIX + name.upper(): name for name in OPTIONS}
    found = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _OTHERS or _SERVICE_LINK.search(variable):
            continue
        if variable not in variables:
            known = [*variables, CONFIG]
            raise ConfigurationError(f"{variable}: is not known; {hint(variable, known)}", field=variable)
        text = environ[variable].strip()
        if text:
            name = variables[variable]
            found[name] = _parsed(variable, text, OPTIONS[name])
    return found


def _parsed(variable: str, text: str, kind: str) -> Any:
    if kind == TEXT:
        return sourced_option(text, f"${{{variable}}}", variable)
    whole = kind in (WHOLE, WHOLE_OR_TABLE)
    try:
        return int(text) if whole else float(text)
    except ValueError:
        if kind == NUMBER_OR_TEXT:
            return text
    raise reject(variable, text, "a whole number" if whole else "a number")
