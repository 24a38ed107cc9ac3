"""Jobs that outlive processes: the record and its transitions, and the stores that keep it."""
