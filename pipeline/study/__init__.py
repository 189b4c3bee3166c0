"""Which settings suit which category, and what one for all costs."""
