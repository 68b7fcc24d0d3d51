"""Why a request was slow: pure functions over stored facts of it, its steps, its companions."""
