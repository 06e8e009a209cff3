"""Tables and figures that compare finished runs."""
