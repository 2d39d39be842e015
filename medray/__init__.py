"""medray: from a hospital's records to a served, audited medical language model on Ray."""

__version__ = "0.1.0"
