"""The routes of the query API, by what they answer about."""
