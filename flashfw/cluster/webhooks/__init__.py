"""The ends of jobs told to those who asked: signed, tried again, never into the own network."""
