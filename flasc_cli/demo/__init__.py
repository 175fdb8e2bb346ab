"""`flasc demo`: one real federated fine-tune on this machine, start to finish."""
