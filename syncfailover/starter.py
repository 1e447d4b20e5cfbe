"""What `syncfailover init` prints: a settings file to begin with, its rarer keys commented out."""

STARTER_TOML = """\
# Settings of syncfailover: all keys are in docs/configuration.md.
#
#   SYNCFAILOVER_CONFIG=this-file.toml syncfailover check     are the endpoints up?
#   client = FailoverClient.from_file("this-file.toml")       in your code
#
# ${NAME} reads an environment variable, $$ is a dollar. Keys are better there than here.

model = "gpt-4.1"               # used where a call names none
timeout = 30.0                  # seconds for a whole call, all attempts and waits together
# balancer = "weighted"         # round_robin, lowest_latency, least_busy, cheapest
# max_retries = 3               # further attempts after the first
# queue_timeout = 10.0          # seconds that a call waits for a recovery when everything is down
# hedge_after = "p95"           # ask a second endpoint when the first is late; or milliseconds
# budget_usd = 5.00             # refuse calls beyond it

# The relay, used first: one endpoint per key, the first key with the most weight. Commas separate keys.
[[endpoints]]
provider = "holysheep"
api_keys = "${HOLYSHEEP_API_KEYS}"

# A variable that is not set is an error: delete the blocks of providers that you have no key of.
# The emergency exit: a higher priority is used only when nobody of a lower one is left.
[[endpoints]]
provider = "openrouter"
api_key = "${OPENROUTER_API_KEY}"
priority = 2

# A server of your own.
# [[endpoints]]
# name = "vllm"
# base_url = "http://localhost:8000/v1"
# priority = 1
# models = { "gpt-4.1" = "llama-3.3-70b" }              # the caller's names = its own
# prices = { "gpt-4.1" = { input = 0.10, output = 0.30 } }  # USD per million tokens
# max_concurrency = 8

# Instead of the number above; TOML wants tables after plain keys.
# [timeout]
# total = 30.0
# connect = 3.0
"""
