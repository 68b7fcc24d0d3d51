"""The collector: takes spans in, stores them, answers questions about them."""
