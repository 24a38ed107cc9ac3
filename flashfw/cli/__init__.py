"""One file per verb, imported when called; the only place that prints or exits."""
