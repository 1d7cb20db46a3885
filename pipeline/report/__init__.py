"""`semires report`: studies and runs as one page of HTML."""
