"""The layers of the translator, each a part of the policy; every layer builds on the one below."""
