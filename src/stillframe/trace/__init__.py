"""Recording into an fx graph."""
