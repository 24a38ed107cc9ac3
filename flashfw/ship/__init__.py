"""From a built release to one that a target serves: plan, upload, roll out, roll back, remove."""
