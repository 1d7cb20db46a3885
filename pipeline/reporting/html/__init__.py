"""Pages of one self-contained HTML file: what their templates share."""
