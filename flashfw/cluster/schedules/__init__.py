"""Jobs by the clock: when a cron line ticks, and one job for each tick."""
