"""Stage one's commands: candidates made, looked at, changed, moved in and out."""
