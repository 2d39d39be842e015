"""A patient's record that comes with a question: read, cut, searched and marked in memory."""
