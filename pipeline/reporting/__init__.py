"""What people look at: figures, contact sheets, tables, and the published numbers beside the measured ones."""
