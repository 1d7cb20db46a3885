"""Files of others and ours: pickles, long JSON, zips, safetensors, the hub; whatever is wrong with one is one error."""
