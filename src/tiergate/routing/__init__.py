"""Where could this go: call + catalog + health + load → ordered route with reasons."""
