"""What now: retry, next target, wait or stop; breakers, permits and rates of targets, deadline arithmetic."""
