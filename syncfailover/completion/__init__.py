"""The OpenAI wire: what goes over it and what comes back."""
