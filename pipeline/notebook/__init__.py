"""What `import semires` offers beside what the stages have: the stages' work, called with arrays, paths and names."""
