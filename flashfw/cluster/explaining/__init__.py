"""Why things are as they are: what was noted, and the story that it makes."""
