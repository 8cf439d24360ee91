"""Body plugs: where the shared layers come from and what they start as."""
